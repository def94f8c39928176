"""Runs that survive: checkpoints, resuming, signals, kills, full disks, damage, divergence."""

import contextlib
import errno
import gc
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

import purejaxdqn
from purejaxdqn import load_config
from purejaxdqn.config.reading import Draft
from purejaxdqn.core.many import Layout
from purejaxdqn.runs import checkpoints, opening, runner
from purejaxdqn.runs.checkpoints import LISTING, SMALL, Checkpoints, DamagedError
from purejaxdqn.runs.metrics import read_metrics
from purejaxdqn.runs.resuming import _extended, newest_snapshot, read_run, set_aside
from purejaxdqn.runs.snapshots import read_snapshot, save_snapshot
from purejaxdqn.runs.stopping import is_reached
from purejaxdqn.runs.training import Compiling, choose_segments, seeds_of
from purejaxdqn.system.directories import lock_directory
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import replacing
from purejaxdqn.train import main as train
from tests.conftest import PQN, ROOT, TINY, command, mostly_slow

TIMES = ("import_seconds", "compile_seconds", "run_seconds", "env_steps_per_second", "summary_sha256")
EVERY = ["checkpoint={every: 120, keep: 20}", "num_seeds=3"]
FAMILY = {
    "plain": [],
    "prioritised, normalised observations, sticky actions": [
        "replay.kind=prioritised", "env.normalize=true", "env.sticky_actions=0.25",
    ],
    "Rainbow": ["--config", "rainbow", "network.hidden=[16,16]"],
    "FQF, n steps, centred RMSProp": [
        "--config", "fqf", "distribution.atoms=4", "n_step=3", "optimizer={name: rmsprop, centered: true}",
    ],
    "without replay, with a target network": [
        *PQN, "total_timesteps=600", "rollout={steps: 10, minibatches: 4}", "schedule.target_every=40",
        "env.normalize=true", "optimizer.name=radam",
    ],
    "with a memory": [
        *PQN, "total_timesteps=600", "rollout={steps: 10, minibatches: 2}", "network={memory: gru, memory_size: 8}",
    ],
}  # fmt: skip
"""Everything that keeps state: both kinds of replay, with and without n steps, noise, running statistics, the action
before, and each optimiser's moments with FQF's second one."""


def contents(folder):
    """All that a finished run leaves and that repeats: files by name, and the summary without its times."""
    names = ("config.yaml", "metrics.csv", "policy.safetensors", "learning_curve.png", "report.png")
    summary = json.loads((folder / "summary.json").read_text())
    steps = [line.split(",")[0] for line in (folder / "timing.csv").read_text().splitlines()]
    return (
        {name: (folder / name).read_bytes() for name in names},
        {key: value for key, value in summary.items() if key not in TIMES},
        steps,
    )


def killed(folder, to, step):
    """A copy of a run as a kill may leave it: no checkpoint after ``step``, more metrics, the last half-written."""
    shutil.copytree(folder, to)
    for name in ("summary.json", "policy.safetensors", "learning_curve.png", "report.png"):
        (to / name).unlink()
    for one in (to / "checkpoints").iterdir():
        if int(one.name) > step:
            shutil.rmtree(one)
    (to / "metrics.csv").write_bytes((folder / "metrics.csv").read_bytes()[:-5])
    (to / "timing.csv").write_bytes((folder / "timing.csv").read_bytes() + b"640,0.")
    return to


@pytest.fixture(autouse=True, scope="module")
def compiled_once():
    """Runs of the same program in this process share it: what is new in them is on the host."""
    kept = {}
    compile_training = runner.compile_training

    def once(config, population, *, segments, batch_size=None, keep=False):
        epochs = (config.total_timesteps - (config.schedule.warmup or 0)) // config.evaluation.every // segments
        static = config.static().model_copy(update={"total_timesteps": None})
        key = (static, len(population.seed), epochs, batch_size)
        if key not in kept:
            kept[key] = compile_training(config, population, segments=segments, batch_size=batch_size)
        return kept[key]._replace(segments=segments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "compile_training", once)
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A finished run of three seeds with checkpoints every three epochs of 13, made in a process of its own."""
    path = tmp_path_factory.mktemp("plain") / "run"
    done = command("train", "--config", "cartpole_cleanrl", "--out", path, *TINY, *EVERY, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize("member", mostly_slow(FAMILY, fast=[next(iter(FAMILY))]))
def test_a_resumed_run_equals_an_uninterrupted_one(member, quietly, tmp_path, request):
    choice = FAMILY[member]
    if choice:  # the plain run's program is shared with the other tests of this file
        request.getfixturevalue("barely_compiled")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    presets = choice[:2] if "--config" in choice else []
    overrides = [*TINY, *choice[len(presets) :], *EVERY]
    assert quietly(train, "--config", "cartpole_cleanrl", *presets, "--out", whole, "--quiet", *overrides)[0] == 0
    steps = [int(one.name) for one in sorted((whole / "checkpoints").iterdir())]
    assert steps == ([120, 240, 360, 480, 600] if "rollout" in str(choice) else [200, 320, 440, 560, 600])
    killed(whole, cut, steps[1])
    code, _, err = quietly(train, "--resume", cut, "--quiet")
    assert (code, [line for line in err if "compiled" not in line]) == (0, [])
    assert contents(cut) == contents(whole)
    # And the checkpoints written since hold the same state.
    for one, other in ((Checkpoints(path / "checkpoints", keep=1).load(600) for path in (cut, whole)),):
        assert one.arrays.keys() == other.arrays.keys()
        for name, array in one.arrays.items():
            np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)


@pytest.mark.slow
def test_a_run_keeps_no_second_copy_of_its_state(plain, quietly, tmp_path, monkeypatch):
    """Neither of what it goes on from, which leaves the host array by array, nor of what it saves."""
    loaded, saved, left = [], [], []

    def alive(references):
        return sum(reference() is not None for reference in references)

    def load(*arguments, load=opening.newest_snapshot):
        snapshot, refused = load(*arguments)
        memory = {id(leaf.base): leaf.base for leaf in snapshot.state.values()}  # that the arrays are views of
        loaded.extend(map(weakref.ref, (*snapshot.state.values(), *memory.values())))
        return snapshot, refused

    def fill(layout, tree, fill=Layout.fill):
        if isinstance(tree, np.ndarray):
            left.append(alive(loaded))
        return fill(layout, tree)

    def fetch(*arguments, fetch=runner.fetch_state):
        arrays = fetch(*arguments)
        saved.extend(map(weakref.ref, arrays.values()))
        return arrays

    def write(journal, part, write=runner.Journal.write):
        gc.collect()
        assert (alive(loaded), alive(saved)) == (0, 0)
        write(journal, part)

    monkeypatch.setattr(opening, "newest_snapshot", load)
    monkeypatch.setattr(Layout, "fill", fill)
    monkeypatch.setattr(runner, "fetch_state", fetch)
    monkeypatch.setattr(runner.Journal, "write", write)
    assert quietly(train, "--resume", killed(plain, tmp_path / "cut", 320), "--quiet")[0] == 0
    assert len(saved) > len(left) > 10
    assert all(after < before for before, after in itertools.pairwise(left))


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["1", "3"])
def test_a_run_goes_on_with_another_number_of_devices(devices, plain, tmp_path):
    cut = killed(plain, tmp_path / "cut", 440)
    done = command("train", "--resume", cut, cwd=tmp_path, env={"JAX_NUM_CPU_DEVICES": devices})
    assert done.returncode == 0, done.stderr
    assert f"{devices} x cpu" in (cut / "summary.json").read_text()
    mine, theirs = contents(cut), contents(plain)
    for summary in (mine[1], theirs[1]):
        del summary["device"]
    assert mine == theirs


def test_a_run_killed_before_its_first_checkpoint_begins_again(plain, quietly, tmp_path):
    cut = killed(plain, tmp_path / "cut", 0)
    assert quietly(train, "--resume", cut, "--quiet")[0] == 0
    assert contents(cut) == contents(plain)


def test_the_end_is_a_checkpoint_too(plain, quietly, tmp_path):
    """A kill between the last segment and the summary costs nothing but the final evaluation."""
    cut = killed(plain, tmp_path / "cut", 600)
    assert quietly(train, "--resume", cut, "--quiet")[0] == 0
    assert contents(cut) == contents(plain)


def test_a_finished_run_is_left_alone(plain, quietly):
    before = {path: path.read_bytes() for path in plain.rglob("*") if path.is_file()}
    code, out, err = quietly(train, "--resume", plain)
    assert (code, out) == (0, [])
    assert err == [f"{plain} is finished; total_timesteps=... extends it"]
    assert {path: path.read_bytes() for path in plain.rglob("*") if path.is_file()} == before


STOP = ["stop={return: 0, evaluations: 3}"]  # CartPole's returns are above 0


def test_a_run_that_has_reached_its_return_ends_there_again_if_it_was_killed(quietly, barely_compiled, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert quietly(train, "--config", "cartpole_cleanrl", "--out", whole, "--quiet", *TINY, *EVERY, *STOP)[0] == 0
    assert json.loads((whole / "summary.json").read_text())["stopped_at"] == 200  # 80 of warm-up, three epochs of 40
    killed(whole, cut, 200)
    assert quietly(train, "--resume", cut, "--quiet")[0] == 0
    assert contents(cut) == contents(whole)
    code, _, err = quietly(train, "--resume", whole)
    assert (code, err) == (0, [f"{whole} is finished; total_timesteps=... extends it"])
    # A longer run would have ended there, too; one without the key goes on.
    assert quietly(train, "--resume", cut, "--quiet", "total_timesteps=800")[0] == 0
    assert json.loads((cut / "summary.json").read_text())["stopped_at"] == 200
    assert quietly(train, "--resume", cut, "--quiet", "stop.return=null", "total_timesteps=280")[0] == 0
    assert json.loads((cut / "summary.json").read_text())["stopped_at"] is None
    assert read_metrics(cut / "metrics.csv").env_step[0, -1] == 280


@pytest.mark.parametrize(
    ("returns", "diverged", "reached"),
    [
        ([[0, 9, 9], [0, 9, 9]], [False, False], True),
        ([[0, 9, 9], [0, 9, 8]], [False, False], False),
        ([[0, 0, 9], [0, 9, 9]], [False, False], False),
        ([[0, 9, 9], [0, 9, 9]], [False, True], False),
        ([[9], [9]], [False, False], False),
    ],
)
def test_the_last_evaluations_of_all_seeds_reach_a_return_and_a_diverged_seed_reaches_none(returns, diverged, reached):
    metrics = SimpleNamespace(eval_return=np.array(returns, np.float32))
    config = load_config("cartpole_cleanrl", "stop.return=9", "stop.evaluations=2")
    assert is_reached(config, metrics, diverged) is reached
    assert not is_reached(load_config("cartpole_cleanrl", "stop.evaluations=2"), metrics, diverged)


@pytest.mark.slow
@pytest.mark.parametrize("step", [320, 600])
def test_an_extended_run_equals_one_whose_schedules_end_early(step, plain, quietly, tmp_path):
    """Whether it was finished or stopped before its end; a kill on the way changes nothing."""
    longer = tmp_path / "longer"
    shutil.copytree(plain, longer) if step == 600 else killed(plain, longer, step)
    assert quietly(train, "--resume", longer, "--quiet", "total_timesteps=800")[0] == 0
    again = killed(longer, tmp_path / "again", 440)
    assert quietly(train, "--resume", again, "--quiet")[0] == 0
    fresh = tmp_path / "fresh"
    overrides = [*TINY, *EVERY, "total_timesteps=800", "evaluation.every=40", "schedule.horizon=600"]
    assert quietly(train, "--config", "cartpole_cleanrl", "--out", fresh, "--quiet", *overrides)[0] == 0
    assert contents(longer) == contents(again) == contents(fresh)
    epsilon = read_metrics(longer / "metrics.csv").epsilon[0]
    assert epsilon[-1] == pytest.approx(0.05)
    assert len(epsilon) == 18
    np.testing.assert_array_equal(epsilon[:13], read_metrics(plain / "metrics.csv").epsilon[0])


def test_an_end_between_two_evaluations_is_moved_and_named(plain):
    draft = read_run(plain, ["total_timesteps=810"])
    assert draft.config.total_timesteps == 800
    assert draft.moves == "moved to fit the schedule: total_timesteps 810 -> 800"
    assert read_run(plain, ["total_timesteps=840"]).moves == ""


def test_the_end_of_an_extended_run_stays_below_its_limit():
    """Epochs of 60 steps would be rounded up to more steps than an int32 holds, which no command reads again."""
    config = load_config("cartpole_cleanrl", TINY)
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": 60})})
    assert config.schedule.warmup == 80
    longer = Draft(config.model_copy(update={"total_timesteps": 2**31 - 1}), (), ())
    assert _extended(config, longer).config.total_timesteps == 80 + (2**31 - 81) // 60 * 60


REFUSED = {
    "a changed number": (["gamma=0.5"], "gamma: --resume cannot change it from 0.99 to 0.5"),
    "two changed keys": (["num_seeds=2", "seed=1"], "seed: --resume cannot change it from 0 to 1"),
    "a changed log": (["--log", "tensorboard"], "log: --resume cannot change it"),
    "an unknown key": (["gama=0.5"], "gama: unknown key; did you mean 'gamma'?"),
    "an end before what is done": (["total_timesteps=400"], "total_timesteps: 400 is below the 600 steps"),
    "segments that do not fit": (["total_timesteps=840", "--segments", "2"], "--segments: 2 does not divide"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_change_is_refused_by_name(arguments, message, plain, quietly, monkeypatch):
    monkeypatch.setattr("purejaxdqn.runs.runner.compile_training", lambda *_, **__: pytest.fail("it compiled"))
    before = (plain / "config.yaml").read_bytes()
    code, out, err = quietly(train, "--resume", plain, *arguments)
    assert (code, out) == (2, [])
    assert message in "\n".join(err)
    assert (plain / "config.yaml").read_bytes() == before


def test_a_key_may_be_given_again_as_it_is(plain, quietly):
    assert quietly(train, "--resume", plain, "gamma=0.99", "total_timesteps=600")[0] == 0


def test_two_processes_do_not_work_in_one_run(plain, quietly, tmp_path):
    cut = killed(plain, tmp_path / "cut", 200)
    with lock_directory(cut):
        code, _, err = quietly(train, "--resume", cut)
    assert (code, err) == (2, [f"error: --resume: another process is using {cut}"])


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_run_that_may_only_be_read_is_not_gone_on_with(number, plain, quietly, tmp_path, monkeypatch):
    """Root may write everywhere, so that the writing denies itself."""

    def denied(path, text):
        raise OSError(number, os.strerror(number), path.name)

    monkeypatch.setattr(runner, "compile_training", lambda *_, **__: pytest.fail("it compiled"))
    monkeypatch.setattr("purejaxdqn.runs.directory.write_text", denied)
    cut = killed(plain, tmp_path / "cut", 200)
    code, out, err = quietly(train, "--resume", cut)
    line = f"error: --resume: the run in {cut} cannot be resumed: {os.strerror(number)}"
    assert (code, out, err) == (2, [], [line])


def test_segments_are_such_that_checkpoints_fall_between_them():
    assert choose_segments(100, None) == 20
    assert choose_segments(100, None, stops=[4]) == 25
    assert choose_segments(100, None, stops=[10, 7]) == 100
    assert choose_segments(20, None, stops=[2]) == 20
    assert choose_segments(100, 50, stops=[4]) == 50
    with pytest.raises(UserError, match="so that checkpoints fall between segments; the nearest are 25 or 50"):
        choose_segments(100, 20, stops=[4])


def test_what_a_run_waits_for_at_its_end_is_compiling_and_not_running(quietly, tmp_path, monkeypatch):
    """As if the final evaluation had been waited for for 1,000 s, twice by the same program."""

    def wait(self, wait=Compiling.wait):
        self.waited += 1000.0
        return wait(self)

    monkeypatch.setattr(Compiling, "wait", wait)
    for name in ("once", "again"):
        path = tmp_path / name
        assert quietly(train, "--config", "cartpole_cleanrl", "--out", path, "--quiet", *TINY, *EVERY)[0] == 0
        summary = json.loads((path / "summary.json").read_text())
        assert summary["compile_seconds"] > 1000
        assert -1000 < summary["run_seconds"] < -900


@pytest.mark.parametrize("number", mostly_slow([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], fast=[signal.SIGTERM]))
def test_a_signal_ends_a_run_with_a_checkpoint(number, plain, quietly, tmp_path, monkeypatch):
    """At a segment after which none was due."""
    write = runner.Journal.write

    def interrupted(journal, part):
        write(journal, part)
        if part.env_step[0, -1] == 400:
            signal.raise_signal(number)

    monkeypatch.setattr(runner.Journal, "write", interrupted)
    path = tmp_path / "a run"
    code, _, err = quietly(train, "--config", "cartpole_cleanrl", "--out", path, "--quiet", *TINY, *EVERY)
    assert code == 128 + number
    assert err[-1] == f"stopped by {number.name}; to resume: python -m purejaxdqn.train --resume '{path}'"
    assert sorted(int(one.name) for one in (path / "checkpoints").iterdir()) == [200, 320, 400]
    monkeypatch.undo()
    monkeypatch.setattr("purejaxdqn.train.configure_cpu_for", lambda config: None)
    assert quietly(train, "--resume", path, "--quiet")[0] == 0
    assert contents(path) == contents(plain)


@pytest.mark.parametrize("step", [400, 600])
def test_a_run_whose_directory_is_deleted_ends_with_a_line_and_brings_nothing_back(
    step, quietly, tmp_path, monkeypatch
):
    write, path = runner.Journal.write, tmp_path / "run"

    def deleted(journal, part):
        write(journal, part)
        if part.env_step[0, -1] == step:
            shutil.rmtree(path)

    monkeypatch.setattr(runner.Journal, "write", deleted)
    code, _, err = quietly(train, "--config", "cartpole_cleanrl", "--out", path, "--quiet", *TINY, *EVERY)
    assert (code, err[-1]) == (1, f"error: {path} was deleted or moved during the run")
    assert not path.exists()


def test_a_signal_after_the_last_look_for_one_is_obeyed_a_segment_later(quietly, tmp_path, monkeypatch):
    """The segment ends without a checkpoint, and the signal comes once it is decided that none is needed."""
    write, steps, sent = runner.Journal.write, [], []

    def noted(journal, part):
        write(journal, part)
        steps.append(int(part.env_step[0, -1]))

    def interrupted(watch):  # looked at last
        if steps and steps[-1] == 400 and not sent:
            sent.append(True)
            signal.raise_signal(signal.SIGTERM)
        return False

    monkeypatch.setattr(runner.Journal, "write", noted)
    monkeypatch.setattr(runner.DivergenceWatch, "all_diverged", property(interrupted))
    code, _, err = quietly(train, "--config", "cartpole_cleanrl", "--out", tmp_path / "a", "--quiet", *TINY, *EVERY)
    assert code == 143, err
    assert steps[-2] == 400
    assert max(int(one.name) for one in (tmp_path / "a" / "checkpoints").iterdir()) == steps[-1]


def test_a_signal_while_compiling_leaves_a_run_that_begins_again(plain, quietly, tmp_path, monkeypatch):
    compile_training = runner.compile_training

    def interrupted(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)
        return compile_training(*arguments, **options)

    monkeypatch.setattr(runner, "compile_training", interrupted)
    path = tmp_path / "run"
    code, _, err = quietly(train, "--config", "cartpole_cleanrl", "--out", path, "--quiet", *TINY, *EVERY)
    assert (code, err[-1]) == (143, f"stopped by SIGTERM; to resume: python -m purejaxdqn.train --resume {path}")
    monkeypatch.setattr(runner, "compile_training", compile_training)
    assert quietly(train, "--resume", path, "--quiet")[0] == 0
    assert contents(path) == contents(plain)


def started(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "purejaxdqn.train", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(tmp_path):
    """A single segment of an hour, interrupted while it runs."""
    longer = [*TINY, "total_timesteps=800000080", "evaluation.every=800000000"]
    with started("--config", "cartpole_cleanrl", "--out", tmp_path / "run", *longer) as process:
        for line in process.stderr:
            if line.startswith("compiled in"):
                break
        process.send_signal(signal.SIGINT)
        assert "stopping after this segment; send it again to stop immediately" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=60) == -signal.SIGINT
        finally:
            process.kill()


@pytest.mark.slow
def test_runs_survive_being_killed(quietly, tmp_path):
    """Killed four times, after some lines of progress and a moment more, and resumed each time."""
    overrides = [*TINY, "total_timesteps=6080", "evaluation.every=40", "checkpoint.every=200", "num_seeds=2"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    begin = ["--config", "cartpole_cleanrl", "--out"]
    assert quietly(train, *begin, whole, "--quiet", *overrides)[0] == 0
    chance = random.Random(5)
    arguments = [*begin, cut, *overrides]
    steps = []
    for _ in range(4):
        with started(*arguments) as process:
            lines, moment = chance.randrange(1, 5), chance.uniform(0, 0.03)
            for line in process.stderr:
                lines -= "train" in line
                if lines == 0:
                    break
            time.sleep(moment)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        steps.append(max([0, *Checkpoints(cut / "checkpoints", keep=2).steps()]))
        arguments = ["--resume", cut]
    assert steps == sorted(steps)
    assert steps[-1] > 400
    assert quietly(train, "--resume", cut, "--quiet")[0] == 0
    assert contents(cut) == contents(whole)


def test_a_half_written_checkpoint_that_returns_is_removed_again(tmp_path, monkeypatch):
    """A thread of orbax's that writes on after the error makes its folder anew."""
    part, pauses = tmp_path / "440.orbax-checkpoint-tmp", []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            (part / "default").mkdir(parents=True)

    monkeypatch.setattr(checkpoints.time, "sleep", sleep)
    part.mkdir()
    checkpoints._clear(part)
    assert not part.exists()
    assert len(pauses) > 4


def test_a_full_disk_stops_a_run_and_leaves_the_checkpoint_before(plain, quietly, tmp_path, monkeypatch):
    """The system refuses to let files grow from the third checkpoint on, as a full disk does."""
    save, limits = Checkpoints.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(checkpoints, step, *arguments):
        if step > 320:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
        try:
            save(checkpoints, step, *arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(Checkpoints, "save", full)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # a save that fails leaves its own
    path = tmp_path / "run"
    code, _, err = quietly(train, "--config", "cartpole_cleanrl", "--out", path, "--quiet", *TINY, *EVERY)
    assert code == 1
    assert len(err) == 1
    assert err[0].startswith("error: checkpoint 440 could not be written: ")
    # The system's words, or those of a thread of Orbax's that has met a file cut short by the failure of another.
    assert "File too large" in err[0] or "OUT_OF_RANGE" in err[0]
    assert err[0].endswith(f"to resume: python -m purejaxdqn.train --resume {path}")
    assert sorted(one.name for one in (path / "checkpoints").iterdir()) == ["200", "320"]
    monkeypatch.setattr(Checkpoints, "save", save)
    assert quietly(train, "--resume", path, "--quiet")[0] == 0
    assert contents(path) == contents(plain)


def test_metrics_that_cannot_be_written_stop_a_run_with_a_line(quietly, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("purejaxdqn.runs.journal.csv_rows", full)
    path = tmp_path / "run"
    code, _, err = quietly(train, "--config", "cartpole_cleanrl", "--out", path, "--quiet", *TINY, *EVERY)
    assert (code, len(err)) == (1, 1)
    assert err[0].startswith(f"error: {path} could not be written: No space left on device; to resume: ")


def largest(folder):
    return max((one for one in folder.rglob("*") if one.is_file()), key=lambda one: one.stat().st_size)


def truncated(folder):
    file = largest(folder / "560")
    file.write_bytes(file.read_bytes()[:-100])


def flipped(folder):
    file = largest(folder / "560")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def flipped_record(folder):
    file = folder / "560" / "_CHECKPOINT_METADATA"
    file.write_text(file.read_text().replace('"segment_epochs": 1', '"segment_epochs": 3'))


def flipped_with_its_listing(folder):
    flipped_record(folder)
    (folder / "560" / LISTING).unlink()


def removed(folder):
    (folder / "560" / "default" / "_METADATA").unlink()


def swapped_with_its_listing(folder):
    swapped(folder)
    (folder / "560" / LISTING).unlink()


def swapped(folder):
    (folder / "560" / "default").rename(folder / "aside")
    (folder / "440" / "default").rename(folder / "560" / "default")
    (folder / "aside").rename(folder / "440" / "default")


def renamed(folder):
    shutil.rmtree(folder / "560")
    shutil.copytree(folder / "320", folder / "560")


def emptied(folder):
    shutil.rmtree(folder / "560")
    (folder / "560").mkdir()


def of_another_run(folder):
    """Whole and sound, but of a run with another seed."""
    checkpoints = Checkpoints(folder, keep=20)
    _, about, arrays = checkpoints.load(560)
    about["config"]["seed"] = 7
    shutil.rmtree(folder / "560")
    checkpoints.save(560, arrays, about)


DAMAGE = {
    truncated: "its file default/",
    flipped: "its file default/",
    flipped_record: "its file _CHECKPOINT_METADATA has changed since it was written",
    flipped_with_its_listing: "its contents do not match the digest they were saved with",
    removed: "its file default/_METADATA is missing",
    swapped: "its file default/",
    swapped_with_its_listing: "its contents do not match the digest they were saved with",
    renamed: "it claims to be step 320",
    emptied: "it cannot be read: ",
    of_another_run: "it belongs to another run: its seed is 7, not 0",
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.items(), ids=[one.__name__ for one in DAMAGE])
def test_a_damaged_or_foreign_checkpoint_is_refused_with_the_reason(damage, reason, plain, tmp_path, capsys):
    cut = killed(plain, tmp_path / "cut", 560)
    damage(cut / "checkpoints")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(cut / "checkpoints" / "440")  # the other one of a swap
    checkpoints = Checkpoints(cut / "checkpoints", keep=2)
    snapshot, refused = newest_snapshot(checkpoints, load_config(cut / "config.yaml"))
    assert refused.keys() == {560}
    assert refused[560].startswith(reason)
    set_aside(checkpoints, refused, sound=snapshot.env_step)
    place = cut / "checkpoints-refused" / "560"
    err = capsys.readouterr().err.splitlines()
    assert err[0].startswith(f"warning: checkpoint 560 is refused and now in {place}: {reason}")
    assert err[1:] == ["resuming from the previous checkpoint, step 320"]
    assert (snapshot.env_step, place.is_dir()) == (320, True)


def test_a_damaged_checkpoint_stays_where_it_is_if_the_run_is_refused(plain, quietly, tmp_path):
    cut = killed(plain, tmp_path / "cut", 560)
    truncated(cut / "checkpoints")
    code, _, err = quietly(train, "--resume", cut, "--quiet", "--segments", "999")
    assert (code, len(err)) == (2, 1)
    assert err[0].startswith("error: --segments: 999 does not divide")
    assert (cut / "checkpoints" / "560").is_dir()
    assert not (cut / "checkpoints-refused").exists()


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(plain, quietly, tmp_path):
    cut = killed(plain, tmp_path / "cut", 560)
    truncated(cut / "checkpoints")
    code, _, err = quietly(train, "--resume", cut, "--quiet")
    assert (code, err[1]) == (0, "resuming from the previous checkpoint, step 440")
    assert contents(cut) == contents(plain)


def test_a_run_without_a_sound_checkpoint_is_refused_and_left_as_it_is(plain, quietly, tmp_path):
    cut = killed(plain, tmp_path / "cut", 200)
    largest(cut / "checkpoints").unlink()
    code, _, err = quietly(train, "--resume", cut)
    assert (code, len(err)) == (2, 2)
    assert err[0].startswith("error: --resume: checkpoint 200 is refused: its file default/")
    assert (cut / "checkpoints" / "200").is_dir()


OF_ANOTHER_VERSION = {
    "less": (
        ".algorithm.learner.target['params']['Dense_0']['weight']",
        lambda leaf: None,
        "missing in it, but float32[3, 16, 4] here",
    ),
    "more": (".momentum", lambda leaf: np.zeros((3, 2), np.float32), "float32[3, 2] in it, but missing here"),
    "type": (
        ".actors.obs",
        lambda leaf: leaf.astype(np.float16),
        "float16[3, 4, 4] in it, but float32[3, 4, 4] here",
    ),
    "shape": (".key", lambda leaf: leaf[:2], "uint32[2, 2] in it, but uint32[3, 2] here"),
}


@pytest.mark.parametrize("way", OF_ANOTHER_VERSION)
def test_a_checkpoint_of_another_version_is_refused_before_anything_is_compiled(way, plain, quietly, tmp_path):
    path, change, line = OF_ANOTHER_VERSION[way]
    cut = killed(plain, tmp_path / "cut", 320)
    checkpoints = Checkpoints(cut / "checkpoints", keep=9)
    snapshot = read_snapshot(checkpoints.load(320))
    state = {**snapshot.state, path: change(snapshot.state.get(path))}
    shutil.rmtree(cut / "checkpoints" / "320")
    save_snapshot(
        checkpoints, snapshot._replace(state={path: leaf for path, leaf in state.items() if leaf is not None})
    )
    before = (cut / "metrics.csv").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "compile_training", lambda *_, **__: pytest.fail("it compiled"))
        code, out, err = quietly(train, "--resume", cut)
    assert (code, out) == (2, [])
    assert err == [
        f"error: --resume: the checkpoint does not fit this program: state{path} is {line}; "
        f"version {purejaxdqn.__version__} saved it, this is {purejaxdqn.__version__}"
    ]
    assert (cut / "metrics.csv").read_bytes() == before


def test_arrays_come_back_as_they_were_large_and_small(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        "large": generator.normal(size=(SMALL // 4 + 1,)).astype(np.float32),
        "words": generator.integers(0, 2**32, (3, 2), dtype=np.uint32),
        "flags": generator.random((2, 5)) < 0.5,
        "number": np.float32(np.nan).reshape(()),
        "more": np.arange(6, dtype=np.float32).reshape(2, 3),
        "wide": np.array([2**40 + 1]),
    }
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, arrays, {"name": "ä"})
    assert checkpoints.steps() == [2, 3]
    loaded = Checkpoints(tmp_path, keep=2).load(3)
    assert (loaded.step, loaded.about) == (3, {"name": "ä"})
    assert list(loaded.arrays) == list(arrays)
    for name, array in arrays.items():
        assert loaded.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded.arrays[name], array)


def test_what_a_kill_left_of_a_checkpoint_is_cleared_away(tmp_path):
    (tmp_path / "7.orbax-checkpoint-tmp" / "default").mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.steps() == []
    checkpoints.open()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DamagedError, match="it cannot be read"):
        checkpoints.load(7)


def test_what_a_kill_left_of_old_checkpoints_is_removed(tmp_path):
    """A kill between the saving of a checkpoint and the removal of the oldest."""
    for step in (9, 10, 20, 100):
        (tmp_path / str(step)).mkdir()
        (tmp_path / str(step) / "_CHECKPOINT_METADATA").touch()
    (tmp_path / "8").mkdir()  # not ours
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.open()
    assert checkpoints.steps() == [8, 20, 100]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write_half():
        with replacing(path) as part:
            part.write_text("ne")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_half()
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])


@pytest.fixture
def second_seed_diverges(monkeypatch):
    """The second of the seeds learns at a rate that no network survives."""

    def poisoned(config):
        runs = seeds_of(config)
        rate = runs.hparams.optimizer_learning_rate.copy()
        rate[1] = 1e30
        return runs._replace(hparams=runs.hparams._replace(optimizer_learning_rate=rate))

    monkeypatch.setattr(runner, "seeds_of", poisoned)


SGD = ["optimizer.name=sgd", "optimizer.learning_rate=1e-3"]


@pytest.mark.slow
def test_a_seed_that_diverges_is_named_and_the_others_go_on(second_seed_diverges, quietly, tmp_path):
    path = tmp_path / "run"
    code, _, err = quietly(train, "--config", "cartpole_cleanrl", "--out", path, "--quiet", *TINY, *EVERY, *SGD, *STOP)
    summary = json.loads((path / "summary.json").read_text())
    assert code == 0
    assert summary["stopped_at"] is None  # the policy that diverged has returns above stop.return, but reaches nothing
    assert (summary["diverged"], summary["diverged_step"]) == ([False, True, False], [None, 120, None])
    assert "seed 1 diverged: its loss is not finite at step 120" in err
    assert len([line for line in err if "diverged" in line]) == 2  # when it is seen, and at the end
    metrics = read_metrics(path / "metrics.csv")
    assert metrics.loss.shape == (3, 13)
    assert np.isfinite(metrics.loss[[0, 2]]).all()
    killed(path, tmp_path / "cut", 320)
    assert quietly(train, "--resume", tmp_path / "cut", "--quiet")[0] == 0
    assert contents(tmp_path / "cut") == contents(path)


@pytest.mark.slow
def test_debugging_nans_names_the_first_operation(second_seed_diverges, quietly, tmp_path):
    arguments = ["--config", "cartpole_cleanrl", "--out", tmp_path / "run", "--quiet", "--debug-nans"]
    code, _, err = quietly(train, *arguments, *TINY, *EVERY, *SGD)
    assert code == 1
    assert err[-1].startswith("seed 1: the first NaN came from ")
    assert "purejaxdqn/dqn/learner.py:" in err[-1]
    assert "(gradient_step)" in err[-1]


def test_debugging_nans_leaves_a_sound_run_as_it_is(plain, quietly, tmp_path):
    cut = killed(plain, tmp_path / "cut", 440)
    assert quietly(train, "--resume", cut, "--quiet", "--debug-nans")[0] == 0
    assert contents(cut) == contents(plain)
