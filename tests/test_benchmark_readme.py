"""README and docs have the tables and figures of the CSVs, and nothing else can be in their place."""

import re

import pytest

from benchmarks import harness, readme
from docsite import hooks, targets


def test_the_readme_has_the_tables_and_figures_of_the_csvs():
    text = readme.README.read_text(encoding="utf-8")
    assert text.count("<!-- ") >= 8
    assert readme.fill(text) == text, "python -m benchmarks.readme"


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.stem)
def test_a_page_has_the_figures_of_the_csvs_and_asks_for_tables_that_exist(page):
    text = page.read_text(encoding="utf-8")
    assert readme.fill_figures(text) == text, "python -m benchmarks.readme"
    for name in hooks.GENERATED:
        text = text.replace(f"<!-- {name} -->\n", "")
    assert "<!-- " not in text or readme.fill(text) != text


def test_every_table_is_on_some_page():
    marked = {name for page in readme.PAGES for name in re.findall(r"<!-- (\w+)", page.read_text(encoding="utf-8"))}
    drawn_only = {
        "deepsea",
        "learning",
        "learning_curves",
        "ablation",
        "ablation_pqn",
        "cartpole_double_scores",
        "cartpole_pqn_scores",
        "solved_curves",
        "curves",
        "curves_scores",
        "independent",
        "guard",
    }
    assert {path.stem for path in harness.RESULTS.glob("*.csv")} - drawn_only <= marked


def test_the_readme_of_the_benchmarks_names_every_script():
    text = (harness.ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    scripts = [
        path.stem
        for path in (harness.ROOT / "benchmarks").glob("*.py")
        if f"python -m benchmarks.{path.stem}" in path.read_text(encoding="utf-8").split('"""')[1]
    ]
    assert len(scripts) > 25
    missing = [name for name in scripts if f"]({name}.py)" not in text and f"`python -m benchmarks.{name}`" not in text]
    assert not missing


def test_no_table_has_a_95_percent_interval_of_fewer_than_five_seeds():
    """It is "-" instead; where the rows do not name their seeds, there are ten or more."""
    checked = 0
    for page in (readme.README, *readme.PAGES):
        for name, columns, _, conditions in re.findall(
            r"<!-- (\w+)(?:: ((?:(?! where |-->).)+?))?( where (.+?))? -->", page.read_text(encoding="utf-8")
        ):
            if name in hooks.GENERATED or columns == "machine":
                continue
            for row in readme.select(name, [one for one in conditions.split("; ") if one], least=0):
                if "95% CI" in row and "seeds" in row and (not columns or "95% CI" in columns.split("; ")):
                    assert int(row["seeds"]) >= 5 or row["95% CI"] == "-", (page.name, name)
                    checked += 1
    assert checked > 20


def test_a_place_can_ask_for_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    harness.write("speed", [{"what": what, "seeds": n, "rate": n + 0.5} for what in "ab" for n in (1, 8)])
    assert [row["seeds"] for row in readme.select("speed", ["what=a or b", "seeds=8"])] == ["8", "8"]
    table = readme.fill("<!-- speed: rate where what=a; seeds=8 -->\n")
    assert "| rate |\n| --- |\n| 8.5 |\n\n" in table
    assert readme.fill(table) == table
    with pytest.raises(ValueError, match="no row has what=c"):
        readme.fill("<!-- speed: rate where what=c -->\n")


def test_a_figure_is_the_cell_of_one_row_and_the_text_around_it_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    harness.write("speed", [{"what": what, "rate": rate} for what, rate in (("a", 1234.5), ("b", "1 of 2"))])
    a, b = ("<!-- speed: rate where what=a -->", "<!-- speed: rate where what=b -->")
    once = readme.fill_figures(f"**?{a}** times, not 3 of 4{b} of 7.")
    assert once == f"**1,234{a}** times, not 1 of 2{b} of 7."
    assert readme.fill_figures(once) == once
    with pytest.raises(ValueError, match="unpack"):
        readme.fill_figures("?<!-- speed: rate where rate=1234.5 or 1 of 2 -->")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("rounded median of seconds", "12"),
        ("rounded lowest of seconds", "9.4"),
        ("highest of seconds", "130.9"),
        ("rounded sum of seconds", "153"),
        ("rounded seconds where seed=1", "12"),
        ("number of rows", "3"),
        ("number of rows where seed=0 or 2", "2"),
        ("number of rows where seed=9", "0"),
    ],
)
def test_a_figure_may_be_rounded_or_summarise_rows(asked, text, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    harness.write("hour", [{"seed": k, "seconds": seconds} for k, seconds in enumerate([130.9, 12.3, 9.41])])
    assert readme.fill_figures(f"?<!-- hour: {asked} --> s") == f"{text}<!-- hour: {asked} --> s"


def test_a_place_may_have_the_machine_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    harness.write("speed", [{"what": "a"}])
    marker = "<!-- speed: machine -->\n"
    assert re.fullmatch(re.escape(marker) + r"\*.*, commit abc\*\n", readme.fill(marker))


def test_a_target_of_the_first_hour_is_reached_or_not(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    row = {"command": "c", "seconds until": "saved", "today, slowest": 3.0}
    rows = [{**row, "today": today, "target": target} for today, target in ((2.0, 2.0), (2.5, 2.0), (1.0, ""))]
    harness.write("first_hour", rows)
    lines = [line for line in targets.first_hour().splitlines() if line.startswith("| c ")]
    assert [line.split(" | ")[-1] for line in lines] == ["yes |", "no |"]


def test_a_reader_sees_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    harness.write("speed", [{"what": "a", "today": 2}])
    assert "| what | this version |" in readme.fill("<!-- speed -->\n")
    for column in ("today", "this version"):
        assert readme.fill_figures(f"?<!-- speed: {column} where what=a -->").startswith("2<!--")


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


def test_a_wrong_option_of_a_script_is_reported_in_one_line(capsys):
    with pytest.raises(SystemExit) as left:
        harness.parser("what it answers", quick="less", rounds=3).parse_args(["--rounds", "0"])
    assert left.value.code == 2
    line = "error: argument --rounds: 0 is not a number of 1 or more (see --help)\n"
    assert capsys.readouterr() == ("", line)
