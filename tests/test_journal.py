"""The journal of a search: what a kill or a full disk leaves does not stop the next one; no other file is touched."""

import os
import re

import pytest

from purejaxdqn.searches import journal
from purejaxdqn.searches.storage import open_study
from purejaxdqn.system.faults import UserError


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A journal with one attribute, named by a relative path."""
    monkeypatch.chdir(tmp_path)
    open_study("a/study.log", "s", {}).set_user_attr("first", 1)
    return tmp_path / "a" / "study.log"


def add_and_read(name):
    """Write two more attributes, and open the journal anew."""
    study = open_study(name, "s", {})
    study.set_user_attr("second", 2)
    study.set_user_attr("third", 3)
    return open_study(name, "s", {}).user_attrs


@pytest.mark.parametrize("target", ["a/study.log", "study.log"], ids=["dangling", "sound"])
def test_a_lock_that_a_kill_has_left_is_taken_over(path, monkeypatch, capsys, target):
    monkeypatch.setattr(journal, "_GRACE", 0.05)
    os.symlink(target, f"{path}.lock")
    assert add_and_read("a/study.log") == {"first": 1, "second": 2, "third": 3}
    assert capsys.readouterr().err == f"warning: {path}.lock was left by a kill, and is removed\n"
    assert [one.name for one in path.parent.iterdir()] == ["study.log"]


def test_a_lock_that_its_holder_releases_is_waited_for(path, monkeypatch, capsys):
    lock = journal._JournalLock(str(path))
    lock.acquire()
    monkeypatch.setattr(journal.time, "sleep", lambda _: lock.release())
    assert add_and_read("a/study.log")["third"] == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("rest", [b'{"op_code":2,"wor', b'{"op_code":}\n', b"\0\0\0", b"\n"], ids=repr)
def test_a_last_line_that_is_damaged_is_removed_before_anything_is_written(path, capsys, rest):
    with path.open("ab") as file:
        file.write(rest)
    assert add_and_read("a/study.log") == {"first": 1, "second": 2, "third": 3}
    assert capsys.readouterr().err == f"warning: {path}: its last line was not written completely, and is removed\n"


def test_a_last_line_that_only_lacks_its_end_is_kept(path, capsys):
    path.write_bytes(path.read_bytes()[:-1])
    assert add_and_read("a/study.log") == {"first": 1, "second": 2, "third": 3}
    assert capsys.readouterr().err == ""


def test_a_line_that_has_changed_is_refused_and_one_without_a_checksum_is_taken(path):
    *before, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*before, last.replace(b'"first":1', b'"first":3')]))
    with pytest.raises(UserError, match=rf"line {len(before) + 1} is damaged: its checksum is wrong"):
        open_study("a/study.log", "s", {})
    plain = re.sub(rb',"crc32":\d+', b"", b"".join(before) + last)
    assert plain.count(b"\n") == len(before) + 1 and b"crc32" not in plain
    path.write_bytes(plain)
    assert add_and_read("a/study.log") == {"first": 1, "second": 2, "third": 3}


@pytest.mark.parametrize("content", [b"buy milk\n", b"SQLite format 3\0", b"{}"], ids=repr)
def test_a_file_that_is_no_journal_is_refused_and_stays_as_it_is(tmp_path, content):
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"^--storage: .*notes.txt cannot be opened: it is not a journal of Optuna$"):
        open_study(str(tmp_path / "notes.txt"), "s", {})
    assert (tmp_path / "notes.txt").read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 1
