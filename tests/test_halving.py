"""Successive halving: the weaker are stopped, and the survivors go on as if they had been alone."""

import csv
import json

import jax
import numpy as np
import optuna
import pytest

import purejaxdqn.search
from purejaxdqn import load_config
from purejaxdqn.searches import halving, runner, trials
from purejaxdqn.searches import study as searching
from purejaxdqn.searches.halving import NO_HALVING, Halving
from purejaxdqn.searches.scores import Score
from purejaxdqn.searches.storage import open_study
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.spaces import Range
from purejaxdqn.system import compiling
from purejaxdqn.system.faults import UserError, run_command
from tests.conftest import PQN, TINY, words_without

pytestmark = pytest.mark.usefixtures("all_barely_compiled")

BASE = words_without(TINY, "network.hidden", "optimizer.learning_rate")
SPACE = """
optimizer.learning_rate: {low: 1e-4, high: 1e-1, log: true}
gamma: {low: 0.9, high: 0.99}
network.hidden: [[16, 16], [8]]
"""
ENDS = [2, 3, 6, 13]  # of 13 epochs: nearest to 1/8, 1/4, 1/2, and all


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    space = tmp_path_factory.mktemp("space") / "space.yaml"
    space.write_text(SPACE)
    return [
        *("--config", "cartpole_cleanrl", "--space", str(space), "--trials", "12", "--seeds", "2", "--batch", "8"),
        *("--retest", "2", "--objective", "auc", "--halving", "2", *BASE),
    ]


def run(arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("purejaxdqn.search.configure_cpu_for", lambda *_, **__: None)
        return purejaxdqn.search.main(list(map(str, arguments)))


@pytest.fixture(scope="module")
def whole(line, tmp_path_factory):
    """A finished search."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert run([*line, "--out", folder]) == 0
    return folder


def table(folder, name="trials"):
    with (folder / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def points_of(rows):
    """The points that trials of the search stood for."""
    points = []
    for row in rows:
        swept = {key: row[key] for key in ("optimizer.learning_rate", "gamma", "network.hidden")}
        config = load_config("cartpole_cleanrl", [*BASE, *(f"{key}={value}" for key, value in swept.items())])
        points.append(Point(config, swept))
    return points


def setting(**changes):
    base = trials.BatchSettings(
        seeds=2, batch=8, objective="auc", halving=Halving(2, 3), devices=None, memory=None, quiet=True,
        check=lambda: None, compiled={}, needs={},
    )  # fmt: skip
    return base._replace(**changes)


@pytest.fixture(scope="module")
def untouched(whole):
    """The search's first batch without halving: curves [trials, seeds, epochs] and final returns [trials, seeds]."""
    ended = sorted(
        trials.train_batch(points_of(table(whole)[:8]), 2, setting(halving=NO_HALVING)), key=lambda one: one.point
    )
    curves = np.array([[result.eval_return for result in one.runs] for one in ended], np.float64)
    return curves, [[result.final_eval_return for result in one.runs] for one in ended]


@pytest.mark.parametrize(
    ("asked", "count", "fractions", "counts", "whole_runs"),
    [
        (Halving(2, 3), 16, [1 / 8, 1 / 4, 1 / 2], [16, 8, 4, 2], 16 / 8 + 8 / 8 + 4 / 4 + 2 / 2),
        (Halving(3, 2), 10, [1 / 9, 1 / 3], [10, 4, 2], 10 / 9 + 4 * 2 / 9 + 2 * 2 / 3),
        (Halving(4, 1), 3, [1 / 4], [3, 1], 3 / 4 + 3 / 4),
    ],
)
def test_rungs_are_where_they_are_said_to_be(asked, count, fractions, counts, whole_runs):
    config = load_config("cartpole_cleanrl")
    assert asked.fractions == pytest.approx(fractions)
    assert asked.counts(count) == counts
    assert asked.env_steps(count, config) == pytest.approx(whole_runs * config.total_timesteps, abs=1)


def test_what_is_no_number_is_stopped_first_and_the_earlier_of_equals_goes_on():
    assert halving.best_points({0: np.nan, 1: 5.0, 2: 7.0, 3: 5.0}, 2) == [1, 2]
    assert halving.best_points({0: np.nan, 4: -np.inf, 5: -3.0}, 1) == [5]


@pytest.mark.slow
def test_at_every_rung_the_weaker_half_is_stopped(whole, untouched):
    curves, _ = untouched
    alive, stopped_at = list(range(8)), {}
    for epoch in ENDS[:-1]:  # an oracle of its own: the means over seeds and epochs so far, of runs nobody stopped
        ranked = sorted(alive, key=lambda trial: (-curves[trial, :, :epoch].mean(-1).mean(), trial))
        alive = ranked[: -(-len(alive) // 2)]
        stopped_at |= dict.fromkeys(ranked[len(alive) :], epoch)
    rows = table(whole)[:8]
    assert [int(row["trial"]) for row in rows if row["state"] == "complete"] == sorted(alive)
    for trial, epoch in stopped_at.items():
        assert rows[trial]["state"] == "pruned"
        assert int(rows[trial]["stopped_at"]) == 80 + 40 * epoch
        assert float(rows[trial]["value"]) == pytest.approx(curves[trial, :, :epoch].mean())


@pytest.mark.slow
def test_survivors_have_the_bits_they_would_have_had_alone(whole, untouched):
    curves, finals = untouched
    survivors = [int(row["trial"]) for row in table(whole)[:8] if row["state"] == "complete"]
    runs = table(whole, "runs")
    assert survivors
    for trial in survivors:
        mine = [row for row in runs if row["point"] == str(trial)]
        assert [float(row["final_eval_return"]) for row in mine] == finals[trial]
        assert [float(row["auc"]) for row in mine] == [
            curve.astype(np.float32).mean(dtype=float) for curve in curves[trial]
        ]


def test_survivors_without_replay_have_the_bits_they_would_have_had_alone():
    """With a rate that is annealed over the whole run, and not over the part up to a rung."""
    changes = [{"optimizer.learning_rate": 3e-3, "rollout.lambda": share} for share in (0.0, 0.3, 0.6, 0.9)]
    annealed = [*PQN, "optimizer={name: radam, anneal: true}"]
    points = [
        Point(
            load_config("cartpole_cleanrl", [*annealed, *(f"{key}={value}" for key, value in change.items())]), change
        )
        for change in changes
    ]
    asked = setting(halving=Halving(2, 2))
    halved = {one.point: one for one in trials.train_batch(points, 2, asked)}
    alone = {one.point: one for one in trials.train_batch(points, 2, asked._replace(halving=NO_HALVING))}
    assert len(asked.compiled) == 1
    assert sorted(len(one.runs[0].env_step) for one in halved.values()) == [5, 5, 10, 20]
    assert len({tuple(run.eval_return) for one in alone.values() for run in one.runs}) > 4
    for point, one in halved.items():
        for mine, whole in zip(one.runs, alone[point].runs, strict=True):
            np.testing.assert_array_equal(mine.env_step, whole.env_step[: len(mine.env_step)])
            np.testing.assert_array_equal(mine.eval_return, whole.eval_return[: len(mine.eval_return)])
            np.testing.assert_array_equal(mine.episode_return, whole.episode_return[: len(mine.episode_return)])
            assert one.stopped or mine.final_eval_return == whole.final_eval_return


@pytest.mark.slow
def test_optuna_knows_what_was_seen_at_the_rungs(whole):
    study = open_study(str(whole / "study.log"), "purejaxdqn", definition_of(whole))
    best = searching.best_trial(study)
    assert best.state == optuna.trial.TrialState.COMPLETE
    assert list(best.intermediate_values) == [80 + 40 * epoch for epoch in ENDS[:-1]]
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED"}
    assert len(searching.finished(study)) == 12


def definition_of(folder):
    return json.loads((folder / "search.json").read_text())["definition"]


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "programs"), [(None, 1), ([8, 4, 4, 2], 3)])
def test_one_program_is_compiled_for_each_size_of_the_population(monkeypatch, whole, sizes, programs):
    compiled = []

    def counting(lowered, *arguments, compile_lowered=compiling.compile_lowered, **options):
        compiled.append(options.get("once", False))
        return compile_lowered(lowered, *arguments, **options)

    monkeypatch.setattr("purejaxdqn.runs.training.compile_lowered", counting)
    if sizes:
        monkeypatch.setattr(trials, "population_sizes", lambda *_: sizes)
    points = [point for point in points_of(table(whole)[:8]) if point.config.network.hidden == (8,)]
    found = setting(seeds=2, halving=Halving(2, 3))
    batches = [list(trials.train_batch(points, 2, found)) for _ in range(2)]
    assert compiled.count(False) == programs  # of segments, once for both batches
    assert [one.point for one in batches[0]] == [one.point for one in batches[1]]


def test_the_population_shrinks_where_runs_are_batched(monkeypatch):
    assert trials.population_sizes(setting(seeds=3), jax.devices()[:2]) == [4, 4, 4, 4]  # a trial, over two devices
    gpu = type("Device", (), {"platform": "gpu"})()
    assert trials.population_sizes(setting(seeds=3, batch=16), [gpu]) == [48, 24, 12, 6]


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1, 6])
def test_a_kill_while_a_batch_is_told_changes_nothing(line, whole, tmp_path, told):
    out, count = tmp_path / "out", []

    def killed(*arguments, conclude=searching._conclude):
        if len(count) == told:
            raise RuntimeError("killed")
        count.append(1)
        conclude(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "_conclude", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run([*line, "--out", out])
    assert run([*line, "--out", out]) == 0
    assert (out / "trials.csv").read_bytes() == (whole / "trials.csv").read_bytes()


@pytest.mark.slow
def test_a_kill_before_a_batch_is_told_runs_all_of_it_again(line, whole, tmp_path):
    out, count = tmp_path / "out", []

    def killed(trial, runs, keep_runs=searching._keep_runs):
        if len(count) == 3:
            raise RuntimeError("killed")
        count.append(1)
        keep_runs(trial, runs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "_keep_runs", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run([*line, "--out", out])
    assert run([*line, "--out", out]) == 0
    one, other = ([{**row, "trial": None} for row in table(folder)] for folder in (out, whole))
    assert one == other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--halving", "1"], "--halving: 1 must be at least 2"),
        (["--halving", "2", "--rungs", "0"], "--rungs: 0 must be at least 1"),
        (["--rungs", "2"], "--rungs needs --halving, which is missing"),
        (["--halving", "2", "--rungs", "5"], "--rungs: 5 rungs of a run with 13 evaluations coincide"),
        (["--halving", "2", "--memory", "100kB"], "--memory: halving keeps a batch of 16 runs in memory"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(line, tmp_path, capsys, arguments, message):
    place = line.index("--halving")
    plain = [*line[:place], *line[place + 2 :]]
    with pytest.raises(SystemExit) as left:
        run_command(run, [*plain, *arguments, "--out", str(tmp_path / "out")])
    assert left.value.code == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert err[0].startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()


def test_a_trial_that_was_stopped_is_never_the_best_and_one_that_diverged_says_so(tmp_path):
    study = open_study(str(tmp_path / "study.log"), "s", {})
    asked = searching.ask(study, {"gamma": Range(0.9, 0.99)}, 3, worker="me")
    reason = "every seed diverged"
    searching.tell_batch(
        study,
        [
            searching.ScoredTrial(asked[0], Score(9.0, None), [], [(100, 9.0)], stopped=True),
            searching.ScoredTrial(asked[1], Score(5.0, None), [], [(100, 10.0)], stopped=False),
            searching.ScoredTrial(asked[2], Score(None, reason), [], [(100, float("nan"))], stopped=True),
        ],
    )
    assert searching.best_trial(study).number == 1
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "COMPLETE", "FAIL"]
    assert [trial.value for trial in study.trials[:2]] == [9.0, 5.0]
    assert searching.reason_of(study.trials[2]) == reason


def test_trials_for_whose_batch_there_is_no_room_have_failed(line, tmp_path, monkeypatch):
    """The check of the edges does not know points that are large in two ways."""
    kept = []

    def check_room(sizes, *, seeds, memory):
        assert (min(sizes) > 0, seeds, memory) == (True, 2, None)
        if len(sizes) > 6:
            raise UserError("--memory: there is no room")

    def train_batch(points, seeds, settings):
        kept.append(len(points))
        raise UserError("enough")

    monkeypatch.setattr(runner, "check_room", check_room)
    monkeypatch.setattr(runner, "train_batch", train_batch)
    with pytest.raises(UserError, match="enough"):
        run([*line, "--out", tmp_path / "out"])
    assert kept == [6]
    study = open_study(str(tmp_path / "out" / "study.log"), "purejaxdqn", definition_of(tmp_path / "out"))
    assert [searching.reason_of(trial) for trial in study.trials] == [None] * 6 + ["--memory: there is no room"] * 2


def test_the_room_of_a_batch_is_that_of_all_its_runs():
    halving.check_room([10, 20, 30], seeds=5, memory=300)
    with pytest.raises(UserError, match="--memory: halving keeps a batch of 15 runs in memory"):
        halving.check_room([10, 20, 30], seeds=5, memory=299)
