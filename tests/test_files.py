"""Files are replaced as a whole, also by several processes at once."""

import fcntl

import pytest

from purejaxdqn.system.files import is_part_of, replacing, write_text


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "out.txt"
    with replacing(path) as first:
        first.write_text("the first, ")
        with replacing(path) as second:
            second.write_text("the second, as a whole")
            with first.open("a") as file:
                file.write("as a whole")
        assert path.read_text() == "the second, as a whole"
    assert path.read_text() == "the first, as a whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_unchanged_if_its_writer_fails(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("before")
    with pytest.raises(OSError, match="full"), replacing(path) as part:
        part.write_text("half")
        raise OSError("full")
    assert [one.read_text() for one in tmp_path.iterdir()] == ["before"]


def test_what_a_kill_has_left_is_taken_over(tmp_path):
    for name in (".out.txt.part", ".out.txt.2.part"):
        (tmp_path / name).write_text("more than is written now")
    with replacing(tmp_path / "out.txt") as first, replacing(tmp_path / "out.txt") as second:
        assert [first.name, second.name] == [".out.txt.part", ".out.txt.2.part"]
        assert first.read_bytes() == second.read_bytes() == b""
        first.write_text("first")
        second.write_text("second")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.txt", "first")]


def test_files_of_others_and_what_links_lead_to_are_unchanged(tmp_path):
    others = (".out.txt.more.part", "out.txt.part", ".out_txt.part", ".other.part")
    assert not any(is_part_of(name, "out.txt") for name in others)
    assert is_part_of(".out.txt.part", "out.txt")
    assert is_part_of(".out.txt.12.part", "out.txt")
    for name in others:
        (tmp_path / name).write_text("theirs")
    (tmp_path / ".out.txt.part").symlink_to("out.txt.part")
    write_text(tmp_path / "out.txt", "ours")
    assert {path.name for path in tmp_path.iterdir()} == {"out.txt", *others}
    assert {(tmp_path / name).read_text() for name in others} == {"theirs"}


def test_a_file_that_its_writer_has_just_finished_is_not_taken_for_a_new_one(tmp_path, monkeypatch):
    """The other process renames it after this one has opened it and before this one locks it."""
    path = tmp_path / "out.txt"
    part = tmp_path / ".out.txt.part"
    part.write_text("finished")
    lock = fcntl.flock

    def too_late(handle, kind):
        if not path.exists():
            part.rename(path)
        lock(handle, kind)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with replacing(path) as mine:
        assert path.read_text() == "finished"
        mine.write_text("mine")
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_it_works_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    write_text(tmp_path / "out.txt", "whole")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]
