"""Files are replaced as a whole, also by several processes at once."""

import os
import time

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


def test_what_kills_have_left_is_removed_when_it_is_old(tmp_path):
    now, left = time.time(), {}
    for name, age in {
        ".out.txt.part": 0,  # as earlier versions named it: no process of today writes there
        ".out.txt.0123abcd.part": 4000,
        ".out.txt.89abcdef.part": 60,  # somebody may be writing it
        ".out.txt.more.part": 4000,
        ".out.txt.0123abcd.part.txt": 4000,
        "out.txt.0123abcd.part": 4000,
        ".out_txt.0123abcd.part": 4000,
        ".other.0123abcd.part": 4000,
    }.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now - age, now - age))
        left[name] = is_part_of(name, "out.txt")
    assert [name for name, is_part in left.items() if is_part] == list(left)[:3]
    write_text(tmp_path / "out.txt", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"out.txt", *list(left)[2:]}
