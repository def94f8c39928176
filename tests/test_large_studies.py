"""Sweeps of many points and runs of many seeds: the time that they take outside training grows with their number."""

import copy
import time

import jax
import numpy as np
import pytest
import yaml
from matplotlib.collections import LineCollection

from purejaxdqn import load_config
from purejaxdqn.config import env_checks, reading, yaml_text
from purejaxdqn.config.yaml_text import load_yaml
from purejaxdqn.pictures import runs as pictures
from purejaxdqn.runs.metrics import Metrics
from purejaxdqn.runs.statistics import iqm, iqm_of_columns
from purejaxdqn.searches import study as studies
from purejaxdqn.searches.scores import Score
from purejaxdqn.searches.storage import open_study
from purejaxdqn.searches.tables import write_tables
from purejaxdqn.searches.workers import WorkerWatch
from purejaxdqn.sweeps.directory import _owned, _to_text, describe
from purejaxdqn.sweeps.pieces import Run, all_runs, plan_work
from purejaxdqn.sweeps.points import Point, check_points, find_idle_keys, grid_candidates, read_points
from purejaxdqn.sweeps.results import RunResult, summarise_points
from purejaxdqn.sweeps.spaces import Range
from purejaxdqn.system.faults import UserError
from tests.conftest import TINY


def points_of(*grid):
    candidates = grid_candidates(["cartpole_cleanrl"], [*TINY, *grid])
    return check_points(candidates, read_points(candidates))


def values(count):
    return ",".join(f"{0.9 + 1e-5 * place:.5f}" for place in range(count))


def test_files_are_read_and_environments_made_once_for_all_points(monkeypatch):
    read, made = [], []
    monkeypatch.setattr(reading, "read_yaml", lambda path, real=reading.read_yaml: read.append(path) or real(path))
    real_make = env_checks.make_environment
    monkeypatch.setattr(env_checks, "make_environment", lambda **these: made.append(these) or real_make(**these))
    monkeypatch.setattr(jax, "eval_shape", lambda *these, real=jax.eval_shape: read.append(these) or real(*these))
    points = points_of(f"gamma={values(5)}", "env.params.gravity=9,9.5", "n_step=1,2")
    assert len(points) == 20
    assert (len(read), len(made)) == (2, 1)  # the config, and a trace of the environment's reset
    override = ["gamma=0.90004", "env.params.gravity=9.5", "n_step=2"]
    assert points[-1].config == load_config("cartpole_cleanrl", [*TINY, *override])


def test_each_environment_that_cannot_be_made_is_tried_once(monkeypatch):
    made = []
    real_make = env_checks.make_environment
    monkeypatch.setattr(env_checks, "make_environment", lambda **these: made.append(these) or real_make(**these))
    with pytest.raises(UserError) as refused:
        points_of(f"gamma={values(5)}", "env.id=Chess,Checkers")
    assert [line.split("(")[0].strip() for line in refused.value.lines] == [
        "env.id: 'Chess' is not an environment of gymnax",
        "env.id: 'Checkers' is not an environment of gymnax",
    ]
    assert len(made) == 2


@pytest.mark.parametrize("text", ["0.1", "-0.0", "00.50", "1.5e-300", "9.9e999", "123456789.123456789"])
def test_plain_numbers_are_read_as_yaml_reads_them(text):
    assert repr(load_yaml(text, "")) == repr(yaml.load(text, yaml_text._Loader))


def assert_grows_with_its_number(work):
    """Ten times the points take about ten times the time, and far from a hundred times."""
    seconds = []
    for number in (500, 500, 5_000):  # the first only to warm up
        start = time.process_time()
        work(number)
        seconds.append(time.process_time() - start)
    assert seconds[2] < 40 * seconds[1] + 0.1


@pytest.mark.slow
def test_points_are_checked_and_summed_up_in_a_time_that_grows_with_their_number():
    def work(number):
        points = points_of(f"gamma={values(number)}")
        find_idle_keys(points)
        plan_work(points, all_runs(points, 2), memory=2**32).in_words("")
        _to_text(describe(points, 2))

    assert_grows_with_its_number(work)


@pytest.mark.slow
def test_results_are_summed_up_in_a_time_that_grows_with_their_number():
    point, nothing = Point(load_config("cartpole_cleanrl", TINY), {}), np.zeros(1)

    def work(number):
        results = [RunResult(Run(k, 0), float(k), 0.0, None, False, nothing, nothing, nothing) for k in range(number)]
        assert [one.iqm for one in summarise_points([point] * number, results)] == [float(k) for k in range(number)]

    assert_grows_with_its_number(work)


SWEPT = {
    "gamma": 1e-05,
    "reward.clip": 1.5e300,
    "optimizer.max_grad_norm": None,
    "network.dueling": True,
    "config": 'a "b" \\ c: {d}, [e] # f',
    "env.id": "näive\u2028 😀\x7f\n\t",
    "network.hidden": [64, 64],
    "n": -3,
    "words": ["null", "yes", "1e3", "", " ", "~", "0x1f", "1_000"],
}


def test_a_sweeps_description_is_yaml_that_reads_back_as_it_was():
    description = describe([Point(load_config("minatar/breakout", ["env.kwargs={}"]), SWEPT)] * 2, 3)
    assert yaml.safe_load(_to_text(description)) == description
    assert yaml.load(_to_text(description), yaml.CSafeLoader) == description


def test_a_description_that_an_earlier_version_wrote_is_of_the_same_sweep(tmp_path):
    description = describe(points_of("gamma=0.9,0.99", "loss=huber,squared"), 3)
    difference = _owned(tmp_path, description).difference
    assert difference(yaml.dump(description, sort_keys=False, default_flow_style=None)) is None
    assert difference(_to_text(description)) is None
    assert difference(_to_text({**description, "num_seeds": 4})) == "it has 4 seeds, not 3"


def test_the_lines_of_all_seeds_are_one_collection():
    seeds = 1000
    columns = np.random.default_rng(0).normal(size=(len(Metrics._fields), seeds, 3))
    metrics = Metrics(*columns)._replace(env_step=np.tile([1.0, 2.0, 3.0], (seeds, 1)), episodes=np.ones((seeds, 3)))
    metrics.eval_return[7, 1] = np.inf
    (axes,) = pictures.draw_learning_curve(metrics, title="", solved_at=None).axes
    assert len(axes.lines) == 2  # the IQM of training and of evaluation
    drawn = [one for one in axes.collections if isinstance(one, LineCollection)]
    assert [len(one.get_segments()) for one in drawn] == [seeds, seeds]
    assert axes.dataLim.y0 <= np.nanmin(metrics.episode_return)


def test_the_iqm_of_columns_is_that_of_each():
    values = np.random.default_rng(0).normal(size=(7, 5))
    np.testing.assert_array_equal(iqm_of_columns(values), [iqm(column) for column in values.T])


def test_trials_are_not_copied_whenever_they_are_counted(tmp_path, monkeypatch):
    """Optuna copies all of them unless told otherwise: a tenth of a millisecond for each, several times a batch."""
    study = open_study(str(tmp_path / "study.log"), "s", {})
    for value, trial in enumerate(studies.ask(study, {"gamma": Range(0.9, 0.99)}, 3, worker="me")):
        studies.tell(study, trial, Score(float(value), None))

    def not_of_trials(value, *_, real=copy.deepcopy):
        assert not isinstance(value, list)
        return real(value, *_)

    monkeypatch.setattr(copy, "deepcopy", not_of_trials)
    assert len(studies.finished(study)) == 3
    assert studies.best_trial(study).number == 2
    assert studies.count_waiting(study, "me") == studies.requeue_killed(study, "me") == 0
    assert WorkerWatch().under_way(study, "other") == []
    write_tables(tmp_path, study, {"gamma": Range(0.9, 0.99)})
