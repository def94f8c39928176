"""The stopwatch of ``benchmarks/first_hour.py``."""

import os
import sys

import pytest

from benchmarks import first_hour, terminal
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
    with pytest.raises(SystemExit, match="'trian' is not one of"):
        first_hour.run(ROOT, ("purejaxdqn", "trian"), tmp_path / "cache", tmp_path / "run", works=True)


def test_a_case_about_a_run_gets_a_copy_of_it_and_new_places(monkeypatch, tmp_path):
    commands = []

    def watch(command, **about):
        commands.append(command[2:])
        return terminal.Watched(0, 3.0, [terminal.Frame(1.0, "a")], "a")

    monkeypatch.setattr(terminal, "watch", watch)
    (tmp_path / "done").mkdir()
    words = ("purejaxdqn.evaluate", "RUN", "--gif", "OUT.gif")
    seen = first_hour.run(ROOT, words, tmp_path / "cache", tmp_path / "new", finished=tmp_path / "done")
    assert seen == Seen(1.0, None, 3.0, 2.0)
    assert commands == [["purejaxdqn.evaluate", str(tmp_path / "new.run"), "--gif", str(tmp_path / "new.gif")]]
    assert (tmp_path / "new.run").is_dir()
    assert {"RUN", "CUT", "OUT"} <= {word for case in CASES.values() for word in case.words}


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("one\r\ntwo", "one\ntwo"),
        ("starting\rrun", "runrting"),
        ("starting\r\x1b[Krun", "run"),
        ("\x1b[1;31mred\x1b[0m \x1b[?25lor\x1b]0;title\x07 not", "red or not"),
        ("first\r\nsecond\r\x1b[2K\x1b[1A\x1b[2Kthird", "third"),
        ("abcdef\x1b[3D!\x1b[1C?", "abc!e?"),
        ("abc\x1b[2G!\b?", "a?c"),
        ("one\r\ntwo\x1b[A\x1b[J", "one"),
        ("one\x1b[2Jtwo", "   two"),
        ("123456789012", "1234567890\n12"),
        ("━━ é", "━━ é"),
    ],
)
def test_a_screen_shows_what_a_terminal_would_however_it_is_cut(written, shown):
    whole, cut = terminal.Screen(10), terminal.Screen(10)
    whole.feed(written)
    for letter in written:
        cut.feed(letter)
    assert whole.text == cut.text == shown


def test_what_is_drawn_again_without_a_change_is_silence(tmp_path):
    code = "import time\nfor text in 'aab': print(end='\\r\\x1b[K' + text, flush=True); time.sleep(0.05)"
    seen = terminal.watch([sys.executable, "-c", code], columns=80, env=dict(os.environ), cwd=tmp_path)
    assert (seen.code, [frame.text for frame in seen.frames]) == (0, ["a", "b"])
    assert terminal.longest_silence([1.0, 2.0, 4.5], 5.0) == 2.5
    assert terminal.longest_silence([], 5.0) == 5.0


def test_a_row_has_the_median_and_the_slowest_of_each_tree(monkeypatch):
    cases = {"run": Case(("a",), False, {"saved": 10.0}, works=True), "help": Case(("b",), True)}
    monkeypatch.setattr(first_hour, "CASES", cases)
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
