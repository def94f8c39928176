"""The benchmarks' README has the figures of the CSVs, and nothing else can be in its place."""

from benchmarks import harness, readme


def test_the_tables_are_those_of_the_csvs():
    text = readme.README.read_text(encoding="utf-8")
    assert text.count("<!-- ") > 10
    assert readme.fill(text) == text, "python -m benchmarks.readme"


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
