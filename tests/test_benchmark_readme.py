"""Both READMEs have the figures of the CSVs, and nothing else can be in their place."""

import pytest

from benchmarks import harness, readme


@pytest.mark.parametrize(("path", "tables"), zip(readme.READMES, (3, 10), strict=True))
def test_the_tables_are_those_of_the_csvs(path, tables):
    text = path.read_text(encoding="utf-8")
    assert text.count("<!-- ") >= tables
    assert readme.fill(text) == text, "python -m benchmarks.readme"


def test_a_place_can_ask_for_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    harness.write("speed", [{"what": "a", "a rate": 1.5, "seeds": 8}])
    once = readme.fill("<!-- speed: seeds; a rate -->\n")
    assert once.startswith("<!-- speed: seeds; a rate -->\n| seeds | a rate |\n| --- | --- |\n| 8 | 1.5 |\n")
    assert readme.fill(once) == once


def test_a_place_is_filled_once_and_text_around_it_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    harness.write("speed", [{"what": "a", "rate": 1234.5, "seeds": 8}])
    before = "# Title\n\n<!-- speed -->\n\nText.\n"
    once = readme.fill(before)
    assert "| a | 1,234 | 8 |" in once
    assert once.startswith("# Title\n\n<!-- speed -->\n| what | rate | seeds |\n")
    assert once.endswith("*\n\nText.\n")
    assert readme.fill(once) == once
    harness.write("speed", [{"what": "b", "rate": 0.5, "seeds": 8}])
    assert "| b | 0.5 | 8 |" in readme.fill(once)
    assert "| a |" not in readme.fill(once)


def test_a_wrong_option_of_a_script_is_told_in_a_line(capsys):
    with pytest.raises(SystemExit) as left:
        harness.parser("what it answers", quick="less", rounds=3).parse_args(["--rounds", "0"])
    assert left.value.code == 2
    line = "error: argument --rounds: 0 is not a number of 1 or more (see --help)\n"
    assert capsys.readouterr() == ("", line)
