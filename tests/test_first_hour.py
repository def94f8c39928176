"""The stopwatch of ``benchmarks/first_hour.py``."""

import pytest

from benchmarks import first_hour
from benchmarks.first_hour import CASES, Case, Seen
from tests.conftest import ROOT


def test_a_command_in_a_terminal_is_timed_from_its_start(tmp_path):
    seen = first_hour.run(ROOT, ("purejaxdqn", "--help"), tmp_path / "cache", tmp_path / "run")
    assert 0 < seen.first_output <= seen.ended
    assert seen.first_segment is None
    assert seen.silence >= seen.first_output


def test_a_command_that_fails_ends_the_benchmark_and_one_that_refuses_its_input_does_not(tmp_path):
    with pytest.raises(SystemExit, match="No module named"):
        first_hour.run(ROOT, ("no_such_module",), tmp_path / "cache", tmp_path / "run")
    first_hour.run(ROOT, ("purejaxdqn", "trian"), tmp_path / "cache", tmp_path / "run")


def test_a_row_has_the_median_and_the_slowest_of_each_tree(monkeypatch):
    monkeypatch.setattr(first_hour, "CASES", {"run": Case(("a",), False, {"saved": 10.0}), "help": Case(("b",), True)})
    seconds = {"today": (1.0, 3.0, 2.0), "base": (5.0, 4.0, 9.0)}
    found = {("run", tree): [Seen(0.1, s, 2 * s, 0.5) for s in times] for tree, times in seconds.items()}
    found |= {("help", tree): [Seen(0.1, None, s, 0.1) for s in times] for tree, times in seconds.items()}
    rows = {(row["command"], row["seconds until"]): row for row in first_hour.summarise(found)}
    assert list(rows) == [
        ("run", "first output"), ("run", "first segment"), ("run", "saved"), ("run", "longest silence"),
        ("help", "first output"), ("help", "its end"),
    ]  # fmt: skip
    saved = rows["run", "saved"]
    assert (saved["today"], saved["today, slowest"], saved["base"], saved["target"]) == (4.0, 6.0, 10.0, 10.0)
    assert rows["help", "its end"]["base, slowest"] == 9.0


def test_the_targets_are_about_what_is_measured():
    for case in CASES.values():
        assert set(case.target) <= {"first output", "first segment", "saved", "longest silence"}


def test_every_seed_has_the_ratio_to_the_two_runs_of_the_other_revision_around_it(monkeypatch, tmp_path):
    ended = iter([10.0, *(1.0, 2.0), 30.0, 4.0, 50.0])
    order = []

    def run(tree, words, cache, folder, *more):
        order.append((tree, *more))
        assert not cache.exists()
        folder.mkdir()
        (folder / "summary.json").write_text('{"final_eval_return": [500.0]}')
        return Seen(0.1, 0.2, next(ended), 0.5)

    monkeypatch.setattr(first_hour, "run", run)
    monkeypatch.setattr(first_hour, "GROUP", 2)
    monkeypatch.setattr(first_hour, "SEED", 7)
    rows = first_hour.score_seeds(3, tmp_path, tmp_path / "base")
    assert [(row["seed"], row["other revision"], row["ratio"]) for row in rows] == [
        (7, 20.0, 0.05), (8, 20.0, 0.1), (9, 40.0, 0.1),
    ]  # fmt: skip
    base = (tmp_path / "base",)
    assert order == [base, (ROOT, "seed=7"), (ROOT, "seed=8"), base, (ROOT, "seed=9"), base]
