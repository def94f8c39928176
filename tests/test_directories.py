"""Directories of results: whose they are, and who works in them."""

import os
import time

import pytest

from purejaxdqn.system.directories import OwnedDirectory, create_directory, default_directory, lock_directory
from purejaxdqn.system.faults import UserError


def owned(folder, ours="mine"):
    def difference(text):
        return None if text == ours else f"it is {text}"

    return OwnedDirectory(folder, "sweep", "label", difference, subfolders=("parts",))


def test_a_directory_is_made_once_and_found_again(tmp_path):
    folder = tmp_path / "new" / "out"
    assert owned(folder).read_label() is None
    for label in ("mine", "another, which is not needed"):
        with owned(folder).hold(lambda label=label: label) as text:
            assert text == "mine"
            assert sorted(path.name for path in folder.iterdir()) == ["label", "parts"]
    assert owned(folder).read_label() == "mine"


def test_what_a_kill_leaves_while_a_directory_is_made_is_no_obstacle(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / ".label.part").touch()
    with owned(tmp_path).hold(lambda: "mine"):
        assert (tmp_path / "label").read_text() == "mine"


def test_a_directory_of_another_owner_or_of_something_else_is_refused_and_unchanged(tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(UserError, match="exists and is not a sweep; nothing is overwritten"):
        owned(tmp_path).read_label()
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    folder = tmp_path / "out"
    with owned(folder, "theirs").hold(lambda: "theirs"):
        pass
    with pytest.raises(UserError, match="belongs to another sweep: it is theirs"), owned(folder).hold(lambda: "mine"):
        pass
    assert (folder / "label").read_text() == "theirs"


def test_a_directory_is_held_by_one_process_or_by_several_with_numbers_of_their_own(tmp_path):
    def hold(process=None):
        return owned(tmp_path).hold(lambda: "mine", process=process)

    with hold(0), hold(1):
        for process in (None, 0, 1):
            with pytest.raises(UserError, match="another process is using"), hold(process):
                pass
    with hold():
        for process in (None, 0):
            with pytest.raises(UserError, match="another process is using"), hold(process):
                pass


def test_a_created_directory_has_its_files_from_the_beginning_and_leaves_nothing_if_it_fails(tmp_path):
    folders = [tmp_path / "a" / name for name in ("one", "two")]
    seen = []

    def fill(part):
        seen.append(sorted(os.listdir(tmp_path / "a")))
        (part / "file").touch()

    assert [create_directory(folders, fill, kind="run") for _ in folders] == folders
    with pytest.raises(UserError, match="two exists; a run never overwrites one"):
        create_directory(folders, fill, kind="run")
    assert [name for names in seen for name in names if not name.startswith(".")] == ["one"]
    assert sorted(tmp_path.rglob("*")) == sorted([tmp_path / "a", *folders, *(one / "file" for one in folders)])

    def fail(part):
        raise PermissionError(13, "Permission denied")

    with pytest.raises(UserError, match="cannot be made: Permission denied"):
        create_directory([tmp_path / "b" / "three"], fail, kind="run")
    assert not (tmp_path / "b").exists()


def test_a_default_directory_is_gone_if_nothing_came_into_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with default_directory(["sweep", "configs/cartpole.yaml"]) as folder:
        assert folder.parent.as_posix() == "runs/sweep+cartpole"
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
    with default_directory(["sweep"]) as folder:
        (folder / "file").touch()
    assert (folder / "file").is_file()


def test_what_kills_left_of_a_directory_is_removed_when_it_is_made(tmp_path):
    """But not what another process is making, nor what is not of this directory."""
    names = [".out.1234.part", ".out.0af1.part", ".out.beef.part", ".out2.1234.part", ".out.x.part", "out.12.part"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        os.utime(tmp_path / name, (time.time() - 60.0,) * 2)
    os.utime(tmp_path / names[1])  # just begun
    with lock_directory(tmp_path / names[2]):
        create_directory([tmp_path / "out"], lambda part: (part / "file").touch(), kind="run")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["out", *names[1:]])


def test_a_directory_is_held_while_it_is_filled(tmp_path):
    def fill(part):
        with pytest.raises(UserError, match="another process is using"), lock_directory(part):
            pass

    create_directory([tmp_path / "out"], fill, kind="run")
