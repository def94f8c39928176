"""``python -m purejaxdqn.search``: no trial lost, none counted twice, and a best point that ``train`` repeats."""

import contextlib
import csv
import functools
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optuna
import psutil
import pytest
import yaml
from optuna.trial import TrialState
from PIL import Image
from sqlalchemy import NullPool
from sqlalchemy.exc import IntegrityError

import purejaxdqn.search
from purejaxdqn import load_config, run_many
from purejaxdqn.config.reading import shipped_configs
from purejaxdqn.core.keys import run_key
from purejaxdqn.pictures.search_spaces import to_unit_interval
from purejaxdqn.plot import main as plot
from purejaxdqn.searches import directory, runner
from purejaxdqn.searches import study as searching
from purejaxdqn.searches.scores import Score, score
from purejaxdqn.searches.storage import _open_database, check_definition, claim_study, open_study
from purejaxdqn.searches.tables import table as search_table
from purejaxdqn.searches.workers import WorkerWatch, at_work
from purejaxdqn.sweeps.pieces import Run
from purejaxdqn.sweeps.results import RunResult
from purejaxdqn.sweeps.spaces import Choices, Range, read_space
from purejaxdqn.system import compiling, directories
from purejaxdqn.system.faults import UserError, run_command
from purejaxdqn.system.messages import counted
from tests.conftest import PQN, TINY, kill_and_go_on, mostly_slow, words_without

RUNNING = TrialState.RUNNING
BASE = words_without(TINY, "network.hidden", "optimizer.learning_rate")
SPACE = """
optimizer.learning_rate: {low: 1e-4, high: 1e-1, log: true}
gamma: {low: 0.9, high: 0.99}
network.hidden: [[16, 16], [8]]
"""


def opened(storage):
    """A database as any tool of Optuna's opens it, but closed after each use: Python 3.13 warns of what is not."""
    return optuna.storages.RDBStorage(storage, engine_kwargs={"poolclass": NullPool})


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def line(space):
    """The command's arguments, without the directory."""
    return [
        *("--config", "cartpole_cleanrl", "--space", str(space), "--trials", "10", "--seeds", "2", "--batch", "4"),
        *("--retest", "3", *BASE),
    ]


@pytest.fixture
def search(monkeypatch, capsys):
    """Call the command in this process: its exit code, lines on standard output and on standard error."""
    monkeypatch.setattr("purejaxdqn.search.configure_cpu_for", lambda *_, **__: None)

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            run_command(purejaxdqn.search.main, list(map(str, arguments)))
        captured = capsys.readouterr()
        return left.value.code, captured.out.splitlines(), captured.err.splitlines()

    return call


@pytest.fixture(scope="module")
def whole(line, tmp_path_factory):
    """A finished search."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    command = [sys.executable, "-m", "purejaxdqn.search", *line, "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done


def table(folder, name="trials"):
    with (folder / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_numbers(folder):
    """Trials but for their numbers, which a kill moves."""
    return [{key: value for key, value in row.items() if key != "trial"} for row in table(folder)]


def test_a_search_leaves_its_tables_and_pictures(whole):
    folder, done = whole
    trials, runs = table(folder), table(folder, "runs")
    assert [row["trial"] for row in trials] == [str(number) for number in range(10)]
    assert {row["state"] for row in trials} == {"complete"}
    assert len(runs) == 20
    for row in trials:  # the IQM of two is their mean
        mine = [float(run["final_eval_return"]) for run in runs if run["point"] == row["trial"]]
        assert float(row["value"]) == pytest.approx(np.mean(mine))
        assert 1e-4 <= float(row["optimizer.learning_rate"]) <= 1e-1
    pictures = {path.name for path in folder.glob("*.png")}
    assert pictures >= {"history.png", "slices.png", "parallel_coordinates.png", "scores.png", "radar.png"}
    for name in pictures:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20
    assert done.stdout.splitlines()[-1] == str(folder)
    assert "fresh seeds: greedy return" in done.stdout.splitlines()[-2]


def test_its_pictures_can_be_drawn_again(whole, quietly, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "copy")
    drawn = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    for name in drawn:
        (folder / name).unlink()
    code, out, _ = quietly(plot, folder)
    assert code == 0
    assert {path.name: path.read_bytes() for path in map(Path, out)} == drawn
    (folder / "study.log").unlink()
    code, _, err = quietly(plot, folder)
    assert (code, len(err)) == (2, 1)
    assert "study.log is missing" in err[0]


@pytest.mark.slow
def test_the_best_point_is_tested_again_on_seeds_no_trial_has_seen(whole):
    folder, _ = whole
    config = load_config(folder / "best.yaml")
    assert (config.seed, config.num_seeds) == (1, 3)  # the search's runs have the keys of seed 0
    retest = json.loads((folder / "best_retest.json").read_text())
    best = max(table(folder), key=lambda row: float(row["value"]))
    assert retest["value"] == float(best["value"])
    assert config.optimizer.learning_rate == float(best["optimizer.learning_rate"])
    assert retest["params"]["optimizer.learning_rate"] == config.optimizer.learning_rate
    assert retest["params"]["network.hidden"] == list(config.network.hidden)  # a choice, and no text of one
    keys = jnp.stack([run_key(np.uint32(1), np.uint32(k)) for k in range(3)])
    result = run_many(config, config.hparams(), keys)
    np.testing.assert_array_equal(
        retest["final_eval_return"], np.asarray(result.final_returns[0]).mean(-1, dtype=np.float64)
    )
    assert retest["iqm_ci95"] is None  # of three seeds there is only a range
    assert min(retest["final_eval_return"]) <= retest["iqm"] <= max(retest["final_eval_return"])


@pytest.mark.slow
def test_a_search_without_replay_finds_a_config_that_trains_the_same(search, tmp_path):
    """Lambda and the number of environments, which changes the length of a trial, too."""
    space, out = tmp_path / "space.yaml", tmp_path / "out"
    space.write_text("rollout.lambda: {low: 0.0, high: 1.0}\nenv.num_envs: [4, 6]\n")
    base = words_without(PQN, "env.num_envs", "optimizer.learning_rate")
    options = ["--trials", 4, "--batch", 4, "--seeds", 2, "--retest", 2, "--sampler", "random"]
    code, _, err = search("--config", "cartpole_cleanrl", "--space", space, *options, *base, "--out", out)
    assert code == 0, err
    rows = table(out)
    assert [row["state"] for row in rows] == ["complete"] * 4
    assert {row["env.num_envs"] for row in rows} == {"4", "6"}
    config, best = load_config(out / "best.yaml"), max(rows, key=lambda row: float(row["value"]))
    assert (config.replay.kind, config.replay.size) == ("none", None)
    assert config.total_timesteps == {4: 640, 6: 624}[config.env.num_envs]
    assert config.hparams().rollout_lambda == np.float32(best["rollout.lambda"])
    retest = json.loads((out / "best_retest.json").read_text())
    keys = jnp.stack([run_key(np.uint32(config.seed), np.uint32(k)) for k in range(2)])
    result = run_many(config, config.hparams(), keys)
    np.testing.assert_array_equal(
        retest["final_eval_return"], np.asarray(result.final_returns[0]).mean(-1, dtype=np.float64)
    )


@pytest.mark.slow
def test_a_program_is_compiled_once_for_all_batches(search, line, tmp_path, monkeypatch):
    compiled = []

    def counting(lowered, *arguments, compile_lowered=compiling.compile_lowered, **options):
        compiled.append(lowered)
        return compile_lowered(lowered, *arguments, **options)

    monkeypatch.setattr("purejaxdqn.runs.training.compile_lowered", counting)
    code, _, err = search(*line, "--out", tmp_path / "out")
    assert code == 0
    assert sum("/10 trials: best" in one for one in err) == 3  # batches of 4, 4 and 2
    assert len(compiled) == 2 * 3  # warm-up, segment and final evaluation of two networks; the re-test has none


@pytest.mark.slow
def test_a_trial_that_does_not_fit_in_memory_has_failed_and_the_others_are_trained(search, tmp_path):
    """Each key alone fits, as the space is checked before; both together do not."""
    space = tmp_path / "space.yaml"
    space.write_text("replay.size: [1000, 200000]\nnetwork.hidden: [[8], [500, 500]]\n")
    base = [one for one in BASE if not one.startswith("replay.size")]
    options = [
        "--trials",
        6,
        "--batch",
        3,
        "--seeds",
        1,
        "--retest",
        1,
        "--sampler",
        "random",
        "--devices",
        1,
        "--memory",
        "21MB",
    ]
    code, _, err = search("--config", "cartpole_cleanrl", "--space", space, *options, *base, "--out", tmp_path / "out")
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "out" / "trials.csv").read_text().splitlines()))
    states = {(row["replay.size"], row["network.hidden"]): (row["state"], row["reason"]) for row in rows}
    assert len(rows) == 6
    state, reason = states.pop(("200000", "[500, 500]"))
    assert (state, reason[:28]) == ("fail", "--memory: one run needs abou")
    assert {state for state, _ in states.values()} == {"complete"}


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1, 5])
def test_a_search_stopped_in_a_batch_goes_on_as_if_it_had_not_been(search, line, whole, tmp_path, told):
    out, count = tmp_path / "out", []

    def killed(*arguments, tell=searching.tell):
        if len(count) == told:
            raise RuntimeError("killed")
        count.append(1)
        tell(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "tell", killed)
        with pytest.raises(RuntimeError, match="killed"):
            purejaxdqn.search.main([*line, "--out", str(out)])
    code, _, err = search(*line, "--out", out)
    assert code == 0
    assert any(f"{counted(told, 'trial')} done, {4 - told % 4} run again" in one for one in err)
    one, other = without_numbers(out), without_numbers(whole[0])
    assert len(one) == 10
    assert len({row["gamma"] for row in one}) == 10
    assert sorted(map(str, one)) == sorted(map(str, other))  # what was asked for does not hang on the kill


def test_a_kill_while_a_trial_is_queued_again_does_not_queue_it_twice(tmp_path):
    study = open_study(str(tmp_path / "study.log"), "s", {})
    space = {"gamma": Range(0.9, 0.99)}
    (trial,) = searching.ask(study, space, 1, worker="me")
    study.enqueue_trial(trial.params, user_attrs={"again": trial.number, "worker": "me"})  # and killed before telling
    assert searching.requeue_killed(study, "me") == 1
    assert searching.count_waiting(study, "me") == 1
    assert searching.finished(study) == []
    (again,) = searching.ask(study, space, 1, worker="me")
    assert again.params == trial.params
    searching.tell(study, again, Score(1.0, None))
    assert [one.value for one in searching.finished(study)] == [1.0]


def test_trials_of_other_workers_are_left_to_them(tmp_path):
    study = open_study(str(tmp_path / "study.log"), "s", {})
    searching.ask(study, {"gamma": Range(0.9, 0.99)}, 2, worker="other")
    assert searching.requeue_killed(study, "me") == 0
    assert len(WorkerWatch().under_way(study, "me")) == 2  # so that together no more are run than were asked for
    assert WorkerWatch().under_way(study, "other") == []


@pytest.fixture
def other(line, tmp_path, monkeypatch):
    """A worker that was killed with four trials under way: what of the study is its own, and the line to join it."""
    shared = [*line, "--trials", "4", "--storage", f"sqlite:///{tmp_path / 'studies.db'}"]

    def killed(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(runner, "_train", killed)
        purejaxdqn.search.main([*shared, "--out", str(tmp_path / "other")])
    study = optuna.load_study(study_name="purejaxdqn", storage=opened(shared[-1]))
    assert len(study.get_trials(states=(RUNNING,))) == 4
    return study, json.loads((tmp_path / "other" / "search.json").read_text())["worker"], shared


@contextlib.contextmanager
def meanwhile(act, folder):
    """Do something a moment after the search of a directory has begun."""

    def watch():
        while not (folder / "search.json").is_file() and not ended.wait(0.05):
            pass
        if not ended.wait(1.0):
            act()

    ended = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.slow
def test_a_search_waits_for_the_trials_of_others_before_it_says_what_was_best(search, other, tmp_path, monkeypatch):
    study, worker, shared = other
    monkeypatch.setattr("purejaxdqn.searches.runner._POLL", 0.05)

    def tell():
        for value, trial in enumerate(study.trials):
            study.tell(trial.number, value)

    with at_work(study, worker), meanwhile(tell, tmp_path / "mine"):
        code, _, err = search(*shared, "--out", tmp_path / "mine")
    assert code == 0, err
    assert "waiting for 4 trials of other searches" in err
    assert [row["value"] for row in table(tmp_path / "mine")] == ["0.0", "1.0", "2.0", "3.0"]
    assert json.loads((tmp_path / "mine" / "best_retest.json").read_text())["trial"] == 3


def test_a_search_that_waits_for_others_can_be_stopped(search, other, tmp_path):
    study, worker, shared = other
    stop = functools.partial(os.kill, os.getpid(), signal.SIGTERM)
    with at_work(study, worker), meanwhile(stop, tmp_path / "mine"):
        code, _, err = search(*shared, "--out", tmp_path / "mine")
    assert code == 143
    assert err[-1].startswith("stopped by SIGTERM")
    assert not (tmp_path / "mine" / "best.yaml").exists()


def test_a_search_that_is_stopped_leaves_the_tables_of_its_batches(search, line, tmp_path, monkeypatch):
    """Four trials a batch; each is told its number, as if it had trained. The third batch does not end."""
    rows = []

    def train(worker, trials):
        rows.append(len(table(tmp_path / "out")) if rows else 0)
        if len(rows) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        for trial in trials:
            searching.tell(worker.study, trial, Score(float(trial.number), None))

    monkeypatch.setattr(runner, "_train", train)
    code, _, err = search(*line, "--trials", "12", "--out", tmp_path / "out")
    assert code == 143
    assert err[-1].startswith("stopped by SIGTERM")
    assert rows == [0, 4, 8]
    assert [float(row["value"]) for row in table(tmp_path / "out")] == list(range(8))


@pytest.mark.slow
@pytest.mark.parametrize("silent", mostly_slow([True, False], fast=[True]))
def test_what_a_dead_worker_left_is_made_up_for(search, other, tmp_path, monkeypatch, silent):
    study, worker, shared = other
    if silent:  # else it had time to say that it was going
        study.set_user_attr(f"worker {worker}", time.time())
        monkeypatch.setattr("purejaxdqn.searches.workers._GRACE", 0.5, raising=False)
    code, _, err = search(*shared, "--out", tmp_path / "mine")
    assert code == 0, err
    assert ("waiting for 4 trials of other searches" in err) == silent
    assert [row["state"] for row in table(tmp_path / "mine")] == ["complete"] * 4
    assert len(study.get_trials(states=(RUNNING,))) == 4  # nobody else's to touch: it may only have been away
    code, _, err = search(*shared, "--out", tmp_path / "other")
    assert code == 0, err
    assert table(tmp_path / "other") == table(tmp_path / "mine")  # and comes back to a study that is full


@pytest.mark.slow
def test_two_workers_that_ask_at_once_do_not_train_more_than_was_asked_for(search, other, tmp_path, monkeypatch):
    study, _, shared = other

    def overtaken(*arguments, real=searching.ask, **options):
        if len(study.trials) == 4:
            for trial in real(study, arguments[1], 3, worker="third"):
                study.tell(trial.number, 1.0)
        return real(*arguments, **options)

    monkeypatch.setattr(searching, "ask", overtaken)
    assert search(*shared, "--out", tmp_path / "mine")[0] == 0
    assert [row["trial"] for row in table(tmp_path / "mine")] == ["4", "5", "6", "7"]
    assert [trial.state.name for trial in study.trials[8:]] == ["FAIL"] * 3


@pytest.mark.slow
def test_a_worker_shows_signs_of_life_until_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("purejaxdqn.searches.workers._BEAT", 0.02)
    monkeypatch.setattr("purejaxdqn.searches.workers._GRACE", 1.0)
    study = open_study(str(tmp_path / "study.log"), "s", {})
    searching.ask(study, {"gamma": Range(0.9, 0.99)}, 1, worker="other")
    watch = WorkerWatch()
    with at_work(study, "other"):
        for _ in range(15):  # longer than one that is silent is waited for
            assert len(watch.under_way(study, "me")) == 1
            time.sleep(0.1)
    assert watch.under_way(study, "me") == []
    study.set_user_attr("worker other", time.time())  # killed
    assert len(watch.under_way(study, "me")) == 1
    time.sleep(1.1)
    assert watch.under_way(study, "me") == []


def test_a_trial_that_another_worker_is_about_to_sign_is_left_to_it(tmp_path):
    study = open_study(str(tmp_path / "study.log"), "s", {})
    with at_work(study, "other"):
        study.ask()
        assert searching.requeue_killed(study, "me") == 0
        assert len(WorkerWatch().under_way(study, "me")) == 1


def points(study, worker):
    return [trial.params for trial in study.trials if trial.user_attrs.get("worker") == worker]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_two_workers_that_know_the_same_ask_for_different_points(search, line, tmp_path, monkeypatch, sampler):
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    shared = [*line, "--trials", "8", "--sampler", sampler, "--storage", storage]

    def killed(worker, trials):
        assert len(trials) == 4
        raise RuntimeError("killed")

    monkeypatch.setattr(runner, "_train", killed)
    for name in ("one", "two"):
        with pytest.raises(RuntimeError, match="killed"):
            purejaxdqn.search.main([*shared, "--out", str(tmp_path / name)])
    trials = optuna.load_study(study_name="purejaxdqn", storage=opened(storage)).trials
    assert len({trial.params["gamma"] for trial in trials}) == len(trials) == 8


def test_searches_of_two_seeds_have_no_point_in_common(tmp_path):
    """Not even where one's seed is the other's and the trials of its first batch."""
    space, values = {"gamma": Range(0.9, 0.99)}, []
    for seed in (0, 4):
        study = open_study(str(tmp_path / f"{seed}.log"), "s", {})
        for _ in range(3):
            for trial in searching.ask(study, space, 4, worker="me", sampler="random", seed=seed):
                values.append(trial.params["gamma"])
                searching.tell(study, trial, Score(1.0, None))
    assert len(set(values)) == len(values) == 24


@pytest.mark.parametrize("seed", [0, 2**32 - 1])  # the largest that a config takes
def test_a_worker_alone_asks_for_what_its_seed_and_the_finished_trials_say(tmp_path, seed):
    space = {"gamma": Range(0.9, 0.99), "n_step": Range(1, 5, step=1)}
    study = open_study(str(tmp_path / "study.log"), "s", {})
    oracle = optuna.create_study(direction="maximize")
    for finished in (0, 4, 8, 12, 16):
        trials = searching.ask(study, space, 4, worker="me", sampler="tpe", seed=seed)
        sampler_seed = int(np.random.SeedSequence([seed, finished]).generate_state(1)[0])
        oracle.sampler = searching.make_sampler("tpe", sampler_seed)
        for trial in trials:
            same = oracle.ask()
            assert trial.params == {
                "gamma": same.suggest_float("gamma", 0.9, 0.99),
                "n_step": same.suggest_int("n_step", 1, 5),
            }
        for value, trial in enumerate(trials, finished):
            searching.tell(study, trial, Score(value, None))
            oracle.tell(trial.number, value)


def test_a_step_need_not_end_at_the_upper_end(tmp_path):
    """Optuna warns of it, and takes the last value before it."""
    study, values = open_study(str(tmp_path / "study.log"), "s", {}), Range(8, 41, step=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trials = searching.ask(study, {"batch_size": values}, 20, worker="me", sampler="random")
    assert {trial.params["batch_size"] for trial in trials} == {8, 24, 40}
    assert values.last == 40 == values.at(1 - 1e-9)
    assert Range(0.5, 1.0).last == 1.0


def test_of_equal_scores_the_larger_area_is_listed_first(tmp_path):
    study = open_study(str(tmp_path / "study.log"), "s", {})
    for trial, area in zip(
        searching.ask(study, {"gamma": Range(0.9, 0.99)}, 4, worker="me"), (1.0, 3.0, 3.0, 2.0), strict=True
    ):
        trial.set_user_attr("runs", [[0, 5.0, area, None, False]])
        study.tell(trial, 5.0)
    assert [trial.number for trial in searching.ranked(study)] == [1, 2, 3, 0]
    assert searching.best_trial(study).number == 1
    assert [line.split()[0] for line in search_table(study).splitlines()[1:]] == ["1", "2", "3", "0"]


def test_a_kill_before_the_first_trial_is_signed_changes_no_point(tmp_path):
    space = {"gamma": Range(0.9, 0.99)}
    whole, study = (open_study(str(tmp_path / f"{name}.log"), "s", {}) for name in ("whole", "killed"))
    study.set_user_attr("drawn by me", -1)
    study.ask()
    assert searching.requeue_killed(study, "me") == 0
    asked = [searching.ask(one, space, 1, worker="me", seed=3)[0] for one in (whole, study)]
    assert asked[0].params == asked[1].params


@pytest.mark.parametrize("done", range(19))
def test_a_kill_while_a_batch_is_drawn_changes_no_point(tmp_path, monkeypatch, done):
    """Four trials of two keys: each is asked for, signed, and drawn in two steps; a step comes before and one after."""
    space = {"gamma": Range(0.9, 0.99), "learning_rate": Range(1e-4, 1e-2, log=True)}
    whole, study = (open_study(str(tmp_path / f"{name}.log"), "s", {}) for name in ("whole", "killed"))
    steps = itertools.count()

    def killed_after(real):
        def step(*arguments, **options):
            if next(steps) == done:
                raise RuntimeError("killed")
            return real(*arguments, **options)

        return step

    with monkeypatch.context() as patch, contextlib.suppress(RuntimeError):
        for owner, name in (
            (optuna.Study, "ask"),
            (optuna.Study, "set_user_attr"),
            (optuna.Trial, "set_user_attr"),
            (optuna.Trial, "suggest_float"),
        ):
            patch.setattr(owner, name, killed_after(getattr(owner, name)))
        searching.ask(study, space, 4, worker="me", sampler="random")
    assert next(steps) == min(done + 1, 18)
    # After the last step the batch is complete, and is repeated; before, it is drawn again.
    assert searching.requeue_killed(study, "me") == searching.count_waiting(study, "me") == (4 if done == 18 else 0)
    for _ in range(2):
        asked = [searching.ask(one, space, 4, worker="me", sampler="random") for one in (whole, study)]
        assert [trial.params for trial in asked[0]] == [trial.params for trial in asked[1]]
        for one, trials in zip((whole, study), asked, strict=True):
            for trial in trials:
                searching.tell(one, trial, Score(1.0, None))
    assert len(searching.finished(study)) == 8


def test_a_study_of_an_earlier_version_repeats_what_a_kill_left_running(tmp_path):
    """It does not say which batches were drawn."""
    study, space = open_study(str(tmp_path / "study.log"), "s", {}), {"gamma": Range(0.9, 0.99)}
    for _ in range(2):
        trial = study.ask()
        trial.set_user_attr("worker", "me")
        trial.suggest_float("gamma", 0.9, 0.99)
    assert searching.requeue_killed(study, "me") == 2
    asked = searching.ask(study, space, 2, worker="me", sampler="random", seed=1)
    assert [trial.params for trial in asked] == [trial.params for trial in study.trials[:2]]


def test_a_worker_whose_repetitions_another_takes_asks_for_new_points(tmp_path):
    study, space = open_study(str(tmp_path / "study.log"), "s", {}), {"gamma": Range(0.9, 0.99)}
    searching.ask(study, space, 4, worker="me", sampler="random")
    assert searching.requeue_killed(study, "me") == 4
    taken = searching.ask(study, space, 4, worker="other", sampler="random")
    assert [trial.params for trial in taken] == [trial.params for trial in study.trials[:4]]
    mine = searching.ask(study, space, 4, worker="me", sampler="random")
    assert len({trial.params["gamma"] for trial in (*taken, *mine)}) == 8


def overtake(monkeypatch, study, space):
    """Let the worker "first" ask for four trials at the moment at which the next worker begins to ask."""
    began = []

    def overtaken(self, *, real=optuna.Study.ask):
        if not began:
            began.append(True)
            searching.ask(study, space, 4, worker="first", seed=0)
        return real(self)

    monkeypatch.setattr(optuna.Study, "ask", overtaken)


def test_two_workers_that_begin_after_an_unsigned_trial_ask_for_different_points(tmp_path, monkeypatch):
    space = {"gamma": Range(0.9, 0.99)}
    study = open_study(str(tmp_path / "study.log"), "s", {})
    study.set_user_attr("drawn by me", -1)
    study.ask()
    assert searching.requeue_killed(study, "me") == 0
    overtake(monkeypatch, study, space)
    searching.ask(study, space, 4, worker="me", seed=0)
    assert len({trial.params["gamma"] for trial in study.trials[1:]}) == 8


def test_a_kill_before_a_repetition_is_read_keeps_its_point(tmp_path):
    study, space = open_study(str(tmp_path / "study.log"), "s", {}), {"gamma": Range(0.9, 0.99)}
    points = [trial.params for trial in searching.ask(study, space, 2, worker="me", sampler="random")]
    for again in (2, 1):
        assert searching.requeue_killed(study, "me") == again
        study.ask().set_user_attr("worker", "me")  # and killed
    assert searching.requeue_killed(study, "me") == 1
    asked = searching.ask(study, space, 2, worker="me", sampler="random", seed=1)
    assert sorted(trial.params["gamma"] for trial in asked) == sorted(point["gamma"] for point in points)


def test_a_trial_is_not_repeated_twice_if_its_repetition_runs(tmp_path):
    """A kill after it was queued and before it was failed; then another worker took it."""
    study, space = open_study(str(tmp_path / "study.log"), "s", {}), {"gamma": Range(0.9, 0.99)}
    (trial,) = searching.ask(study, space, 1, worker="me")
    study.enqueue_trial(trial.params, user_attrs={"again": trial.number, "worker": "me"})
    (taken,) = searching.ask(study, space, 1, worker="other")
    assert taken.params == trial.params
    assert searching.requeue_killed(study, "me") == 1
    assert searching.count_waiting(study, "me") == 0


def test_two_workers_that_begin_at_the_same_moment_ask_for_different_points(tmp_path, monkeypatch):
    """Each sees a study without trials, and takes itself for the first."""
    space = {"gamma": Range(0.9, 0.99)}
    study = open_study(str(tmp_path / "study.log"), "s", {})
    overtake(monkeypatch, study, space)
    searching.ask(open_study(str(tmp_path / "study.log"), "s", {}), space, 4, worker="second", seed=0)
    assert len(points(study, "first")) == len(points(study, "second")) == 4
    assert len({trial.params["gamma"] for trial in study.trials}) == 8


@pytest.mark.slow
def test_a_kill_while_the_directory_is_made_leaves_nothing_in_the_way(search, line, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".search.json.part").write_text("half")
    assert search(*line, "--trials", "1", "--out", out)[0] == 0
    assert len(table(out)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--halving", "2"]], ids=["whole", "halving"])
def test_kills_at_random_times_lose_no_trial_and_count_none_twice(line, tmp_path, options):
    delays = [0.3, *np.random.default_rng(time.time_ns()).uniform(0.0, 5.0, 3)]
    assert kill_and_go_on("search", [*line, *options, "--out", tmp_path / "out"], delays)
    rows = table(tmp_path / "out")
    assert len(rows) == 10, delays
    assert len({row["gamma"] for row in rows}) == 10, delays


@pytest.mark.slow
def test_a_finished_search_is_not_trained_again_and_can_be_made_longer(search, line, whole, tmp_path, monkeypatch):
    before = (whole[0] / "trials.csv").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("purejaxdqn.sweeps.stages.compile_training", lambda *_, **__: pytest.fail("it compiled"))
        code, *_ = search(*line, "--out", whole[0])
    assert code == 0
    assert (whole[0] / "trials.csv").read_bytes() == before
    out = tmp_path / "out"
    assert search(*line, "--trials", "2", "--out", out)[0] == 0
    assert search(*line, "--trials", "3", "--out", out)[0] == 0
    assert len(table(out)) == 3


@pytest.mark.slow
def test_a_study_in_a_database_is_shared_and_its_best_point_found_by_all(search, line, tmp_path):
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    for name, trials in (("one", 2), ("two", 4)):
        shared = ("--trials", trials, "--batch", "2", "--storage", storage, "--study", "ours")
        assert search(*line, *shared, "--out", tmp_path / name)[0] == 0
    assert [len(table(tmp_path / name)) for name in ("one", "two")] == [2, 4]
    assert table(tmp_path / "two")[:2] == table(tmp_path / "one")
    assert len(optuna.load_study(study_name="ours", storage=opened(storage)).trials) == 4


def test_a_database_in_a_file_is_open_while_it_is_used_and_no_longer(tmp_path):
    study = open_study(f"sqlite:///{tmp_path / 'x.db'}", "s", {})
    searching.ask(study, {"gamma": Range(0.9, 0.99)}, 1, worker="me")
    assert len(study.trials) == 1
    assert str(tmp_path / "x.db") not in [one.path for one in psutil.Process().open_files()]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_kept_open(url):
    storage = _open_database(url)
    optuna.create_study(storage=storage, study_name="s").enqueue_trial({"gamma": 0.9})
    assert len(optuna.load_study(storage=storage, study_name="s").trials) == 1
    storage.engine.dispose()


def test_a_database_that_another_search_is_just_making_is_opened_in_the_end(tmp_path, monkeypatch):
    tries = []

    def open_too_early(storage, url, *, real=optuna.storages.RDBStorage.__init__, **kwargs):
        tries.append(url)
        if len(tries) < 3:
            raise IntegrityError("INSERT", None, Exception("UNIQUE constraint failed: alembic_version.version_num"))
        real(storage, url, **kwargs)

    monkeypatch.setattr(optuna.storages.RDBStorage, "__init__", open_too_early)
    assert open_study(f"sqlite:///{tmp_path / 'x.db'}", "s", {}).trials == []
    assert len(tries) == 3


def test_a_trial_that_cannot_be_is_recorded_and_the_search_goes_on(search, line, tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text(SPACE + "replay.batch_size: [8, 500]\n")  # more than the buffer holds
    options = ("--space", space, "--trials", "6", "--batch", "6", "--sampler", "random")
    code, _, err = search(*[one for one in line if one != "replay.batch_size=8"], *options, "--out", tmp_path / "out")
    assert code == 0
    rows = table(tmp_path / "out")
    failed = [row for row in rows if row["state"] == "fail"]
    assert 0 < len(failed) < len(rows) == 6
    assert {row["replay.batch_size"] for row in failed} == {"500"}
    assert all("replay.size: 300 is below" in row["reason"] and row["value"] == "" for row in failed)
    assert any(f"{len(failed)} failed" in one for one in err)


@pytest.mark.slow
def test_a_search_in_which_everything_fails_stops_with_the_reason(search, line, tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("optimizer.learning_rate: {low: 1e37, high: 1e38}\n")
    options = ("--space", space, "--trials", "12", "--batch", "4")
    code, out, err = search(*line, *options, "--out", tmp_path / "out")
    assert (code, out) == (3, [])
    assert err[-1] == "every trial failed; most often: every seed diverged"
    assert len(table(tmp_path / "out")) == 8  # one batch may be bad luck; the third is not tried
    assert not (tmp_path / "out" / "best.yaml").exists()


def result(value, *, auc=0.0, diverged=False):
    nothing = np.zeros(1)
    return RunResult(Run(0, 0), value, auc, None, diverged, nothing, nothing, nothing)


@pytest.mark.parametrize(
    ("runs", "objective", "expected"),
    [
        ([result(1.0), result(3.0)], "final", (2.0, None)),
        ([result(1.0, auc=5.0), result(3.0, auc=6.0)], "auc", (5.5, None)),
        ([result(v) for v in (0.0, 4.0, 5.0, 100.0)], "final", (4.5, None)),
        ([result(1.0), result(0.0, diverged=True)], "final", (0.5, None)),
        ([result(1.0, diverged=True)] * 2, "final", (None, "every seed diverged")),
        ([result(np.nan)], "final", (None, "its score is not a finite number")),
    ],
)
def test_a_trials_score_is_the_iqm_over_its_seeds(runs, objective, expected):
    assert score(runs, objective) == expected


def test_of_equal_scores_the_faster_learner_is_best(tmp_path):
    study = open_study(str(tmp_path / "study.log"), "s", {})
    for value, auc in ((500.0, 300.0), (500.0, 400.0), (499.0, 499.0)):
        (trial,) = searching.ask(study, {"gamma": Range(0.9, 0.99)}, 1, worker="me")
        searching.tell(study, trial, Score(value, None), [result(value, auc=auc)])
    assert searching.best_trial(study).number == 1


def test_a_study_that_looks_for_the_least_is_refused(tmp_path):
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    optuna.create_study(storage=opened(storage), study_name="s")  # as Optuna makes one unless told otherwise
    with pytest.raises(UserError, match=r"'s' in .* does not maximise its value"):
        open_study(storage, "s", {})


@pytest.mark.parametrize(
    ("values", "value", "place"),
    [
        (Range(0.0, 4.0), 1.0, 0.25),
        (Range(1e-4, 1e-2, log=True), 1e-3, 0.5),
        (Choices(((64, 64), (120, 84), (8,))), "[120, 84]", 0.5),
        (Choices(("a",)), "a", 0.0),
    ],
)
def test_a_value_is_mapped_to_its_position_within_its_range(values, value, place):
    assert to_unit_interval(values, value) == pytest.approx(place)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "search/dqn"], "--config is missing"),
        (["--config", "cartpole"], "--space is missing; give a YAML file of ranges"),
        (
            ["--config", "cartpole", "--space", "nothing.yaml"],
            "--space: nothing.yaml is neither a file nor a shipped one",
        ),
        (["--config", "cartpole", "--space", "search/dqn", "--trials", "0"], "--trials: 0 must be at least 1"),
        (["--config", "cartpole", "--space", "search/dqn", "gamma=0.9"], "gamma: set on the command line and searched"),
        (
            ["--config", "cartpole", "optimizer={eps: 1e-3}", "--space", "SPACE optimizer.eps: [1e-8, 1e-5]"],
            "optimizer.eps: set on the command line and searched",
        ),
        (["--config", "cartpole", "--space", "search/dqn", "num_seeds=3"], "num_seeds: a search takes its seeds from"),
        (["--config", "cartpole", "--space", "SPACE num_seeds: [1, 2]"], "num_seeds: a search takes its seeds from"),
        (["--config", "cartpole", "--space", "search/dqn", "env.id=Chess"], "env.id: 'Chess'"),
        (["--config", "cartpole", "--space", "SPACE gama: [1, 2]"], "gama: unknown key; did you mean 'gamma'?"),
        (["--config", "cartpole", "--space", "SPACE gamma: {low: 0.5, high: 1.5}"], "gamma: 1.5 must be"),
        (["--config", "cartpole", "--space", "SPACE gamma: {low: 1, high: 0.5}"], "--space: gamma: the range is empty"),
        (["--config", "cartpole", "--space", "search/dqn", "--sampler", "gp"], "--sampler gp needs torch"),
        (["--config", "cartpole", "--space", "search/dqn", "--memory", "1KiB"], "--memory: one run needs about"),
        (
            ["--config", "cartpole", "--space", "search/dqn", "--storage", "sqlite:////nowhere/x.db"],
            "--storage: sqlite:////nowhere/x.db cannot be opened",
        ),
        (
            ["--config", "cartpole", "--space", "search/dqn", "--storage", "nonsense://x"],
            "--storage: nonsense://x cannot be opened",
        ),
        (
            ["--config", "cartpole", "--space", "search/dqn", "--storage", "mysql://host:port/db"],
            "--storage: mysql://host:port/db cannot be opened",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(search, tmp_path, monkeypatch, arguments, message):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("purejaxdqn.sweeps.stages.compile_training", lambda *_, **__: pytest.fail("it compiled"))
    if arguments[-1].startswith("SPACE "):
        (tmp_path / "space.yaml").write_text(arguments[-1].removeprefix("SPACE ") + "\n")
        arguments = [*arguments[:-1], str(tmp_path / "space.yaml")]
    code, out, err = search(*arguments)
    assert (code, out) == (2, [])
    assert len(err) == 1
    assert err[0].startswith(f"error: {message}")
    assert not list(here.iterdir())


def test_a_damaged_study_is_refused_in_a_line(tmp_path):
    study = open_study(str(tmp_path / "study.log"), "s", {})
    study.set_user_attr("definition", '{"seeds"')
    with pytest.raises(UserError, match=r"--storage: the study 's' in .* is damaged: "):
        open_study(str(tmp_path / "study.log"), "s", {"seeds": 1})


def test_a_study_that_an_earlier_version_described_is_the_same_search(tmp_path):
    """Its config had fewer keys."""
    log, config = str(tmp_path / "study.log"), load_config("cartpole_cleanrl").model_dump(mode="json")
    today = {"config": config, "seeds": 1}
    before = {**today, "config": {**config, "env": {k: v for k, v in config["env"].items() if k != "resets"}}}
    study = open_study(log, "s", before)
    claim_study(study, log, before)
    assert check_definition(open_study(log, "s", today), log, today)
    with pytest.raises(UserError, match="is another search: config differ"):
        check_definition(study, log, {**today, "config": {**config, "env": {**config["env"], "resets": 1}}})


def test_directories_and_studies_of_others_are_never_touched(search, line, whole, tmp_path):
    (tmp_path / "precious").write_text("mine")
    code, _, err = search(*line, "--out", tmp_path)
    assert (code, err) == (
        2,
        [f"error: --out: {tmp_path} exists and is not a search; nothing is overwritten"],
    )
    before = {path: path.read_bytes() for path in whole[0].iterdir()}
    code, _, err = search(*line, "--seeds", "3", "loss=huber", "--out", whole[0])
    assert (code, err) == (2, [f"error: --out: {whole[0]} belongs to another search: config, seeds differ"])
    storage = whole[0] / "study.log"
    code, _, err = search(*line, "--seeds", "3", "--storage", storage, "--out", tmp_path / "new")
    assert code == 2
    assert err == [f"error: --storage: the study 'purejaxdqn' in {storage} is another search: seeds differ"]
    assert {path: path.read_bytes() for path in whole[0].iterdir()} == before
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["database", "journal"])
def test_a_refused_search_leaves_the_storage_to_the_corrected_one(search, line, tmp_path, kind):
    """The study would be of the refused one's definition, and refuse the other."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "summary.json").write_text("a run's")
    (tmp_path / "file").write_text("mine")
    storage = f"sqlite:///{tmp_path / 'x.db'}" if kind == "database" else str(tmp_path / "nodir" / "x.log")
    before = sorted(tmp_path.rglob("*"))
    for out, reason in (("taken", "exists and is not a search"), ("file/out", "cannot be used")):
        code, _, err = search(*line, "--storage", storage, "--out", tmp_path / out)
        assert (code, len(err)) == (2, 1)
        assert err[0].startswith(f"error: --out: {tmp_path / out} {reason}")
        assert sorted(tmp_path.rglob("*")) == before
    options = ("--trials", "1", "--seeds", "1", "--storage", storage)
    assert search(*line, *options, "--out", tmp_path / "out")[0] == 0


@pytest.fixture
def continued(search, line, tmp_path, monkeypatch):
    """A search in a database with its tables, which trains nothing; how it is continued, and what is said then."""
    monkeypatch.setattr(runner, "_run_trials", lambda worker: None)
    out, storage = tmp_path / "out", f"sqlite:///{tmp_path / 'studies.db'}"
    assert search(*line, "--storage", storage, "--study", "ours", "--out", out)[0] == 3
    assert (out / "trials.csv").exists()

    def go_on(*options):
        code, _, err = search(*line, *options, "--out", out)
        return code, err

    return out, storage, go_on


def test_a_directory_is_not_continued_with_another_study(continued, tmp_path):
    """Its tables would be overwritten by those of a study that has just begun."""
    out, storage, go_on = continued
    open_study(storage, "there", {})  # of nobody
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    elsewhere = tmp_path / "other.db"
    for where, name in (
        (out / "study.log", "purejaxdqn"),
        (out / "study.log", "ours"),
        (storage, "other"),
        (storage, "there"),
        (f"sqlite:///{elsewhere}", "ours"),
    ):
        options = ["--storage", where] if where != out / "study.log" else []
        code, err = go_on(*options, "--study", name)
        said = f"error: --storage, --study: {where} has no study {name!r} of the search in --out; name the one it "
        assert (code, err) == (2, [f"{said}began with"])
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before
    assert sorted(optuna.get_all_study_names(opened(storage))) == ["ours", "there"]
    for same in (storage, storage.replace("sqlite:", "sqlite+pysqlite:"), f"{storage}?timeout=5"):
        assert go_on("--storage", same, "--study", "ours")[0] == 3


def test_the_journal_of_a_directory_holds_one_study(search, line, tmp_path, monkeypatch):
    """Also if a kill came before there were tables: ``plot`` could not tell which of two to draw."""
    monkeypatch.setattr(runner, "_run_trials", lambda worker: None)
    out = tmp_path / "out"
    assert search(*line, "--out", out)[0] == 3
    (out / "trials.csv").unlink()
    code, _, err = search(*line, "--study", "other", "--out", out)
    assert code == 2
    assert err[0].startswith(f"error: --storage, --study: {out / 'study.log'} has no study 'other' of the search")
    assert search(*line, "--out", out)[0] == 3


def test_of_two_searches_that_make_one_directory_at_once_the_later_changes_nothing(tmp_path, monkeypatch):
    """The directory would bear the name of a worker that never was."""
    folder, definition = tmp_path / "out", {"seeds": 1}
    folder.mkdir()
    with contextlib.ExitStack() as first, monkeypatch.context() as patch:
        workers = []

        def bare_when_looked_at(path):
            patch.undo()
            workers.append(first.enter_context(directory.hold_directory(folder, definition)))
            return True

        patch.setattr(directories, "is_bare", bare_when_looked_at)
        with (
            pytest.raises(UserError, match="another process is using"),
            directory.hold_directory(folder, {"seeds": 2}),
        ):
            pass
        assert json.loads((folder / "search.json").read_text()) == {
            "worker": workers[0],
            "definition": definition,
        }


def test_searches_without_out_that_start_in_one_second_have_a_directory_each(search, line, tmp_path, monkeypatch):
    """The second starts while the first is under way; nothing came into either."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "now")
    taken = []

    def begin(options, base, folder, *, said):
        taken.append(folder.as_posix())
        return 0 if len(taken) == 2 else search(*line)[0]

    monkeypatch.setattr(purejaxdqn.search, "search", begin)
    assert search(*line)[0] == 0
    assert taken == [f"runs/search+cartpole_cleanrl/{name}" for name in ("now", "now-2")]
    assert list(tmp_path.iterdir()) == []


def test_two_searches_do_not_run_in_one_directory(search, line, whole):
    definition = json.loads((whole[0] / "search.json").read_text())["definition"]
    with directory.hold_directory(whole[0], definition):
        code, _, err = search(*line, "--out", whole[0])
    assert (code, err) == (2, [f"error: --out: another process is using {whole[0]}"])


COUNTS = {1: "One", 2: "Two", 4: "Four", 12: "Twelve"}


def test_every_shipped_space_names_keys_that_exist_and_says_how_many_programs_it_takes():
    found = shipped_configs("--space")
    assert "search/dqn" in found
    assert not [name for name in shipped_configs() if name.startswith("search/")]
    for name, path in found.items():
        space = read_space(name)
        static = [values for values in space.values() if isinstance(values, Choices)]
        programs = math.prod(len(values.values) for values in static)
        text = path.read_text()
        assert f"{COUNTS[programs].lower()} compiled program" in text.replace("\n# ", " "), name
        assert set(yaml.safe_load(text)) == set(space)
