"""``python -m purejaxdqn.sweep``: the same numbers however the work is cut, stopped, or shared."""

import csv
import errno
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import purejaxdqn.sweep
from benchmarks import compiled, harness
from benchmarks.devices import ACCELERATORS
from purejaxdqn import load_config, run_many
from purejaxdqn.core.keys import run_key
from purejaxdqn.runs.memory import Needs, batched_needs, memory_needs, state_bytes
from purejaxdqn.runs.memory import advice as advice_on
from purejaxdqn.sweeps import directory, pieces, runner, stages
from purejaxdqn.sweeps.pieces import (
    Group,
    Run,
    all_runs,
    bytes_at_once,
    group_runs,
    pad,
    piece_size,
    plan_work,
    population_of,
)
from purejaxdqn.sweeps.points import Point, check_points, grid_candidates, read_points
from purejaxdqn.sweeps.results import collect, ranked, summarise_points
from purejaxdqn.system import compiling
from purejaxdqn.system.faults import UserError, run_command
from purejaxdqn.system.options import parse_memory
from tests.conftest import PQN, TINY, kill_and_go_on, mostly_slow, words_without

GRID = ["gamma=0.9,0.99", "network.hidden=[16,16],[8]"]
BASE = words_without(TINY, "network.hidden")
ARGUMENTS = ["--config", "cartpole_cleanrl", "--seeds", "3", *BASE, *GRID]


def command(*arguments, **options):
    line = [sys.executable, "-m", "purejaxdqn.sweep", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def sweep(monkeypatch, capsys):
    """Call the command in this process: its exit code, lines on standard output and on standard error."""
    monkeypatch.setattr("purejaxdqn.sweep.configure_cpu_for", lambda *_, **__: None)

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            run_command(purejaxdqn.sweep.main, list(map(str, arguments)))
        captured = capsys.readouterr()
        return left.value.code, captured.out.splitlines(), captured.err.splitlines()

    return call


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished sweep: four points in two groups, three seeds."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    done = command(*ARGUMENTS, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture(scope="module")
def points():
    candidates = grid_candidates(["cartpole_cleanrl"], [*BASE, *GRID])
    return check_points(candidates, read_points(candidates))


def rows_of(folder):
    with (folder / "runs.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_sweeps_without_out_that_start_in_one_second_have_a_directory_each(sweep, tmp_path, monkeypatch):
    """The second starts while the first is under way; nothing came into the second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "now")
    taken = []

    def train(points, folder, *_):
        taken.append(folder.as_posix())
        if len(taken) == 1:
            (folder / "a file").touch()
            assert sweep(*ARGUMENTS)[0] == 0

    monkeypatch.setattr(runner, "_train", train)
    monkeypatch.setattr(runner, "_finish", lambda *_, **__: None)
    assert sweep(*ARGUMENTS)[0] == 0
    parent = "runs/sweep+cartpole_cleanrl"
    assert taken == [f"{parent}/now", f"{parent}/now-2"]
    assert [path.relative_to(tmp_path).as_posix() for path in (tmp_path / parent).iterdir()] == [f"{parent}/now"]


def test_a_sweep_without_out_that_is_refused_leaves_nothing(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = sweep(*ARGUMENTS, "--memory", "1KB")
    assert (code, len(err)) == (2, 1)
    assert err[0].startswith("error: --memory: one run needs")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").touch()
    code, _, err = sweep(*ARGUMENTS)
    assert (code, len(err)) == (2, 1)
    assert err[0].startswith("error: --out: runs/sweep+cartpole_cleanrl/")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_sweep_leaves_a_row_a_run_its_curves_and_pictures(whole):
    folder, done = whole
    rows = rows_of(folder)
    assert tuple(rows[0]) == (
        *("point", "seed_index", "gamma", "network.hidden"),
        *("final_eval_return", "auc", "first_solved_step", "diverged"),
    )
    assert [(row["point"], row["seed_index"]) for row in rows] == [(str(p), str(s)) for p in range(4) for s in range(3)]
    assert [row["network.hidden"] for row in rows[::3]] == ["[16, 16]", "[8]"] * 2
    with (folder / "curves.csv").open(encoding="utf-8") as file:
        curves = list(csv.DictReader(file))
    assert len(curves) == 4 * 3 * 13
    assert [row["env_step"] for row in curves[:13]] == [str(step) for step in range(120, 601, 40)]
    for row in rows:
        mine = [
            float(one["eval_return"])
            for one in curves
            if (one["point"], one["seed_index"]) == (row["point"], row["seed_index"])
        ]
        assert float(row["auc"]) == pytest.approx(np.mean(mine))
    with (folder / "points.csv").open(encoding="utf-8") as file:
        points = list(csv.DictReader(file))
    assert [float(row["iqm"]) for row in points] == sorted((float(row["iqm"]) for row in points), reverse=True)
    for row in points:  # of three values SciPy's interquartile mean is the mean
        mine = [float(run["final_eval_return"]) for run in rows if run["point"] == row["point"]]
        assert float(row["iqm"]) == pytest.approx(np.mean(mine))
        assert float(row["iqm_low"]) <= float(row["iqm"]) <= float(row["iqm_high"])
        assert (row["seeds"], row["diverged"]) == ("3", "0")
    pictures = {path.name for path in folder.glob("*.png")}
    assert pictures == {
        "curves.png",
        "ranking.png",
        "against_gamma.png",
        "performance_profile.png",
        "probability_of_improvement.png",
    }
    for name in pictures:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20
    check_summary(folder)
    assert done.stdout.splitlines()[-1] == str(folder)
    assert sum("gamma=" in line for line in done.stdout.splitlines()) == 4


def test_what_it_will_take_is_said_before_compiling(whole):
    first = whole[1].stderr.splitlines()[0]
    assert first.startswith("2 programs, 12 runs (4 points x 3 seeds), 7,200 environment steps, about ")


@pytest.mark.slow
def test_its_runs_are_those_of_run_many(whole, points):
    keys = jnp.stack([run_key(np.uint32(0), np.uint32(k)) for k in range(3)])
    rows = rows_of(whole[0])
    for point, config in ((1, points[1].config), (2, points[2].config)):
        result = run_many(config, config.hparams(), keys)
        mine = [float(row["final_eval_return"]) for row in rows if row["point"] == str(point)]
        np.testing.assert_array_equal(mine, np.asarray(result.final_returns[0]).mean(-1, dtype=np.float64))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [["--memory", "60kB"], ["--devices", "1"]],
    ids=["pieces of one or two runs", "one device"],
)
def test_results_do_not_hang_on_pieces_or_devices(sweep, whole, tmp_path, options):
    code, *_ = sweep(*ARGUMENTS, "--out", tmp_path / "out", *options)
    assert code == 0
    for name in ("runs.csv", "curves.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (whole[0] / name).read_bytes()


@pytest.mark.slow
def test_a_group_is_compiled_once(sweep, tmp_path, monkeypatch):
    compiled = []

    def counting(lowered, *arguments, compile_lowered=compiling.compile_lowered, **options):
        compiled.append(options.get("once", False))
        return compile_lowered(lowered, *arguments, **options)

    monkeypatch.setattr("purejaxdqn.runs.training.compile_lowered", counting)
    code, *_ = sweep(*ARGUMENTS, "--out", tmp_path / "out", "--memory", "60kB")
    assert code == 0
    assert len(list((tmp_path / "out" / "pieces").iterdir())) > 4
    # Of two groups: the segment, and with less effort the warm-up and the final evaluation.
    assert sorted(compiled) == 2 * [False] + 4 * [True]


@pytest.mark.slow
def test_a_sweep_stopped_between_pieces_does_only_what_is_missing(sweep, whole, tmp_path, monkeypatch):
    out, kept = tmp_path / "out", []

    def killed(folder, trained, times, save_piece=runner.save_piece):
        if len(kept) == 2:
            raise RuntimeError("killed")
        kept.append(trained)
        save_piece(folder, trained, times)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "save_piece", killed)
        with pytest.raises(RuntimeError, match="killed"):
            purejaxdqn.sweep.main([*ARGUMENTS, "--out", str(out)])
    done = sum(len(trained.runs) for trained in kept)
    assert not (out / "summary.json").exists()
    before = [times for _, times in directory.load_times(out)]
    assert len(before) == 2
    code, _, err = sweep(*ARGUMENTS, "--out", out)
    assert code == 0
    assert any(f" {12 - done} runs (4 points x 3 seeds, {done} already done)" in line for line in err)
    assert (out / "runs.csv").read_bytes() == (whole[0] / "runs.csv").read_bytes()
    check_summary(out)
    assert [times for _, times in directory.load_times(out) if times in before] == before


def check_summary(folder):
    """Its sizes are those of the whole sweep, and its times those of all pieces."""
    summary = json.loads((folder / "summary.json").read_text())
    sizes = ("points", "seeds", "programs", "runs", "env_steps")
    assert [summary[key] for key in sizes] == [4, 3, 2, 12, 7200]
    times = [times for _, times in directory.load_times(folder)]
    assert all(one.compiling >= 0.0 and one.running > 0.0 for one in times)
    compiling, running = (sum(column) for column in zip(*times, strict=True))
    assert [summary["compile_seconds"], summary["run_seconds"]] == [round(compiling, 3), round(running, 3)]
    assert summary["env_steps_per_second"] == round(7200 / running)


@pytest.mark.parametrize("damage", [None, "", "[]", '{"runs": 1, "summary_sha256": "x"}'])
def test_a_missing_or_damaged_summary_is_written_again(sweep, whole, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(stages, "compile_training", lambda *_, **__: pytest.fail("it compiled"))
    out = shutil.copytree(whole[0], tmp_path / "out")
    written = (out / "summary.json").read_bytes()
    (out / "summary.json").unlink() if damage is None else (out / "summary.json").write_text(damage)
    assert sweep(*ARGUMENTS, "--out", out)[0] == 0
    assert (out / "summary.json").read_bytes() == written


def test_pieces_without_times_do_not_count_for_the_rate(whole, points, tmp_path):
    """As earlier versions wrote them."""
    out = shutil.copytree(whole[0], tmp_path / "out")
    first, *others = sorted((out / "pieces").iterdir())
    with np.load(first) as arrays:
        kept = {name: arrays[name] for name in arrays if name != "times"}
    np.savez(first, **kept)
    timed = list(directory.load_times(out))
    assert len(timed) == len(others)
    assert len(directory.load_pieces(out)) == len(others) + 1
    totals, steps = runner._totals(points, out, 3), 600 * sum(len(runs) for runs, _ in timed)
    assert totals["env_steps"] == 7200
    assert totals["env_steps_per_second"] == round(steps / sum(times.running for _, times in timed))
    for path in others:
        path.unlink()
    assert runner._totals(points, out, 3)["env_steps_per_second"] is None


def test_a_finished_sweep_is_not_trained_again(sweep, whole, monkeypatch):
    monkeypatch.setattr(stages, "compile_training", lambda *_, **__: pytest.fail("it compiled"))
    before, summary = ((whole[0] / name).read_bytes() for name in ("runs.csv", "summary.json"))
    code, _, err = sweep(*ARGUMENTS, "--out", whole[0])
    assert code == 0
    assert err[0].startswith("0 programs, 0 runs (4 points x 3 seeds, 12 already done)")
    assert (whole[0] / "runs.csv").read_bytes() == before
    assert (whole[0] / "summary.json").read_bytes() == summary


@pytest.mark.slow
def test_a_damaged_piece_is_reported_and_done_again(sweep, whole, tmp_path):
    out = tmp_path / "out"
    assert sweep(*ARGUMENTS, "--out", out)[0] == 0
    piece = min((out / "pieces").iterdir())
    piece.write_bytes(piece.read_bytes()[:-200])
    code, _, err = sweep(*ARGUMENTS, "--out", out)
    assert code == 0
    assert any(line.startswith(f"warning: {piece} is damaged and will be trained again") for line in err)
    assert (out / "runs.csv").read_bytes() == (whole[0] / "runs.csv").read_bytes()


def test_a_piece_that_no_reader_knows_counts_as_missing(whole, tmp_path):
    """One bit of a zip file, and it asks for a compression or a version that there is not."""
    source, target = whole[0] / "pieces", tmp_path / "pieces"
    target.mkdir()
    first, *others = sorted(source.iterdir())
    data = bytearray(first.read_bytes())
    data[data.index(b"PK\x01\x02") + 10] = 99  # the method, in the directory at the end
    (target / first.name).write_bytes(data)
    for path in others:
        (target / path.name).write_bytes(path.read_bytes())
    warnings = []
    assert len(directory.load_pieces(tmp_path, warnings.append)) == len(others)
    assert warnings == [
        f"{target / first.name} is damaged and will be trained again: That compression method is not supported"
    ]


@pytest.mark.slow
def test_a_kill_while_the_directory_is_made_leaves_nothing_in_the_way(sweep, tmp_path):
    out = tmp_path / "out"
    (out / "pieces").mkdir(parents=True)
    (out / ".sweep.yaml.part").write_text("half")
    assert sweep("--config", "cartpole_cleanrl", *TINY, "--out", out)[0] == 0
    assert len(rows_of(out)) == 1


def test_a_sweep_that_another_one_overtakes_leaves_the_directory_to_it(sweep, points, tmp_path, monkeypatch):
    out, others = tmp_path / "out", directory.describe(points, 2)

    def overtaken(*arguments, plan_work=runner.plan_work, **options):
        with directory.hold_directory(out, others):
            return plan_work(*arguments, **options)

    monkeypatch.setattr(runner, "plan_work", overtaken)
    monkeypatch.setattr(stages, "compile_training", lambda *_, **__: pytest.fail("it compiled"))
    code, _, err = sweep(*ARGUMENTS, "--out", out)
    assert (code, err[1:]) == (2, [f"error: --out: {out} belongs to another sweep: it has 2 seeds, not 3"])
    assert directory.check_directory(out, others)


def test_a_directory_is_one_sweeps_at_a_time(sweep, points, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "compile_training", lambda *_, **__: pytest.fail("it compiled"))
    out, description = tmp_path / "out", directory.describe(points, 3)
    taken = f"--out: another process is using {out}"
    with directory.hold_directory(out, description):
        code, _, err = sweep(*ARGUMENTS, "--out", out)
        assert (code, err) == (2, [f"error: {taken}"])
        with pytest.raises(UserError, match=taken), directory.hold_directory(out, description, process=0):
            pass
    with (
        directory.hold_directory(out, description, process=0),
        directory.hold_directory(out, description, process=1),
    ):  # that share it
        for process in (None, 0, 1):
            with pytest.raises(UserError, match=taken), directory.hold_directory(out, description, process=process):
                pass
    with directory.hold_directory(out, description):
        pass


def test_a_full_disk_ends_a_sweep_with_a_line_that_says_how_to_go_on(sweep, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def full(folder, trained, times):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.npz")

    monkeypatch.setattr(runner, "train_stage", lambda *_: iter([None]))
    monkeypatch.setattr(runner, "save_piece", full)
    code, _, err = sweep(*ARGUMENTS, "--quiet", "--out", out)
    assert code == 1
    assert err == [f"error: a.npz: No space left on device; to resume, run the same command with --out {out}"]


@pytest.mark.slow
def test_kills_at_random_times_change_nothing(whole, tmp_path):
    delays = [0.3, *np.random.default_rng(time.time_ns()).uniform(0.0, 5.0, 3)]
    assert kill_and_go_on("sweep", [*ARGUMENTS, "--out", tmp_path / "out"], delays), delays
    for name in ("runs.csv", "curves.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (whole[0] / name).read_bytes(), delays


@pytest.mark.slow
def test_ctrl_c_ends_with_a_line_that_says_how_to_go_on(tmp_path):
    line = [
        sys.executable,
        "-m",
        "purejaxdqn.sweep",
        *ARGUMENTS,
        "total_timesteps=6000080",
        "--out",
        str(tmp_path / "out"),
    ]
    line.remove("total_timesteps=600")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline().startswith("2 programs")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.splitlines()[-1] == f"stopped by SIGINT; to resume, run the same command with --out {tmp_path / 'out'}"


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.mark.slow
def test_two_processes_share_a_sweep_and_leave_the_same_table(whole, tmp_path):
    address = f"localhost:{free_port()}"
    lines = [
        [sys.executable, "-m", "purejaxdqn.sweep", *ARGUMENTS, "--out", str(tmp_path / "out"), "--devices", "2", *who]
        for who in (["--coordinator", address, "--processes", "2", "--process", str(k)] for k in range(2))
    ]
    processes = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for line in lines]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    for _, err in said:
        assert any(" 6 runs " in line and "on 2 cpu devices" in line for line in err.splitlines())
    assert (tmp_path / "out" / "runs.csv").read_bytes() == (whole[0] / "runs.csv").read_bytes()


MEETS = """
import functools, os, signal, sys, time
import jax
from purejaxdqn.sweeps.distributed import join_processes
from purejaxdqn.sweep import parser

jax.config.update("jax_num_cpu_devices", 2)
patience = {"heartbeat_timeout_seconds": 1, "shutdown_timeout_seconds": 1}
jax.distributed.initialize = functools.partial(jax.distributed.initialize, **patience)
number, count = join_processes(parser().parse_args(["--out", "out", *sys.argv[2:]]))
print(number, count, len(jax.devices()), float(jax.jit(sum)(jax.numpy.arange(4))), flush=True)
if number == 0 and sys.argv[1] == "is killed":
    os.kill(os.getpid(), signal.SIGKILL)
if number == 1:
    time.sleep(3)
    if sys.argv[1] == "is told to stop":
        os.kill(os.getpid(), signal.SIGTERM)
"""
"""Two processes of ``--processes 2``, of which the first ends before the other, by three times JAX's patience."""


def meet(how, who, **env):
    """What the two processes say, and their exit codes."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MEETS, how, *who(k)],
            env={**os.environ, **{name: value(k) for name, value in env.items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(2)
    ]
    said = [process.communicate(timeout=60) for process in processes]
    return [out for out, _ in said], [process.returncode for process in processes], said


@pytest.mark.parametrize(
    ("how", "codes"),
    [
        pytest.param("is finished", [0, 0], marks=pytest.mark.slow),
        ("is killed", [-signal.SIGKILL, 0]),
    ],
)
@pytest.mark.slow
def test_no_process_depends_on_the_life_of_another(how, codes):
    address = f"localhost:{free_port()}"
    out, left, said = meet(how, lambda k: ["--coordinator", address, "--processes", "2", "--process", str(k)])
    assert left == codes, said
    assert out == ["0 2 2 6.0\n", "1 2 2 6.0\n"]  # each has its own devices alone


@pytest.mark.slow
def test_tasks_of_slurm_find_each_other_and_can_be_stopped():
    port = str(free_port())
    out, left, said = meet(
        "is told to stop",
        lambda _: ["--coordinator", "auto"],
        SLURM_JOB_ID=lambda _: "1",
        SLURM_STEP_NODELIST=lambda _: "localhost",
        SLURM_NTASKS=lambda _: "2",
        SLURM_PROCID=str,
        SLURM_LOCALID=str,
        JAX_COORDINATOR_PORT=lambda _: port,
    )
    assert left == [0, -signal.SIGTERM], said
    assert out == ["0 2 2 6.0\n", "1 2 2 6.0\n"]


@pytest.mark.slow
def test_a_damaged_piece_of_another_process_is_waited_for(whole, tmp_path):
    """The process whose it is does it again under the same name."""
    source, target = whole[0] / "pieces", tmp_path / "pieces"
    target.mkdir()
    first, *others = sorted(source.iterdir())
    (target / first.name).write_bytes(first.read_bytes()[:-200])
    for path in others:
        (target / path.name).write_bytes(path.read_bytes())
    looks, told = [], []

    def check():
        looks.append(None)
        if len(looks) == 3:
            (target / first.name).write_bytes(first.read_bytes())
        assert len(looks) < 5

    runs = {run for piece in directory.load_pieces(whole[0]) for run in piece.runs}
    directory.wait_for_runs(tmp_path, runs, check=check, tell=told.append, pause=0.0)
    assert (len(looks), len(told)) == (3, 1)


@pytest.mark.slow
def test_compared_configs_share_a_table(sweep, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = sweep(
        *("--config", "cartpole_cleanrl", "--configs", "dqn,double_dqn.yaml", "--seeds", "2", *TINY, "--out", out)
    )
    assert code == 0
    assert [(row["config"], row["seed_index"]) for row in rows_of(out)] == [
        *(("dqn", "0"), ("dqn", "1"), ("double_dqn", "0"), ("double_dqn", "1"))
    ]
    assert {line.split()[0] for line in printed[1:3]} == {"dqn", "double_dqn"}


@pytest.mark.slow
def test_points_without_replay_have_curves_as_long_as_their_rollouts_make_them(sweep, tmp_path):
    """640 steps are 20 rollouts of 32 steps, and nearest to 13 of 48."""
    out, swept = tmp_path / "out", "rollout.steps=8,12"
    code, _, err = sweep(
        "--config", "cartpole_cleanrl", "--seeds", "2", *words_without(PQN, "rollout.steps"), swept, "--out", out
    )
    assert code == 0
    assert err[0] == "moved to fit the schedule: total_timesteps 640 -> 624"
    assert f"2 programs, 4 runs (2 points x 2 seeds), {2 * (640 + 624):,} environment steps" in err[1]
    assert json.loads((out / "summary.json").read_text())["env_steps"] == 2 * (640 + 624)
    with (out / "curves.csv").open(encoding="utf-8") as file:
        curves = list(csv.DictReader(file))
    steps = {
        run: [int(row["env_step"]) for row in curves if (row["point"], row["seed_index"]) == run]
        for run in itertools.product("01", "01")
    }
    assert steps == {
        (point, seed): list(range(one, end, one))
        for point, one, end in (("0", 32, 641), ("1", 48, 625))
        for seed in "01"
    }
    config = load_config("cartpole_cleanrl", [*PQN, "rollout.steps=12", "total_timesteps=624"])
    result = run_many(config, config.hparams(), jnp.stack([run_key(np.uint32(0), np.uint32(k)) for k in range(2)]))
    mine = [float(row["final_eval_return"]) for row in rows_of(out) if row["point"] == "1"]
    np.testing.assert_array_equal(mine, np.asarray(result.final_returns[0]).mean(-1, dtype=np.float64))


@pytest.mark.slow
def test_a_sweep_in_which_every_run_diverges_says_so(sweep, tmp_path):
    code, out, _ = sweep(
        "--config", "cartpole_cleanrl", *TINY[:-1], "optimizer.learning_rate=1e38", "--out", tmp_path / "out"
    )
    assert code == 3
    assert out[1].endswith("1 diverged")
    assert [row["diverged"] for row in rows_of(tmp_path / "out")] == ["true"]


@pytest.mark.slow
def test_draws_from_a_space_are_swept(sweep, tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("gamma: {low: 0.9, high: 0.99}\noptimizer.learning_rate: {low: 1e-4, high: 1e-2, log: true}\n")
    out = tmp_path / "out"
    code, *_ = sweep("--config", "cartpole_cleanrl", "--space", space, "--points", "5", *TINY[:-1], "--out", out)
    assert code == 0
    rows = rows_of(out)
    assert len({row["gamma"] for row in rows}) == len({row["optimizer.learning_rate"] for row in rows}) == 5
    assert all(0.9 <= float(row["gamma"]) <= 0.99 for row in rows)
    assert (out / "heat_map.png").is_file()


def test_the_pictures_can_be_drawn_again(whole, capsys):
    import purejaxdqn.plot

    (whole[0] / "curves.png").unlink()
    assert purejaxdqn.plot.main([str(whole[0])]) == 0
    assert (whole[0] / "curves.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "--config is missing; python -m purejaxdqn.train --list-configs shows the shipped ones"),
        (["--seeds", "0"], "--seeds: 0 must be at least 1"),
        (["--space", "search/dqn.yaml", "--points", "2", "--draw-seed", "-1"], "--draw-seed: -1 must be at least 0"),
        (
            ["--space", "search/dqn.yaml", "--points", "2", "gamma=0.9"],
            "gamma: set on the command line and drawn from --space",
        ),
        (["gama=0.9,0.8"], "gama: unknown key; did you mean 'gamma'?"),
        (["num_seeds=3"], "num_seeds: a sweep takes its seeds from --seeds"),
        (
            ["--space", "x.yaml"],
            "--space and --points go together: a file of ranges, and how many points to draw from it",
        ),
        (["--space", "x.yaml", "--points", "2"], "--space: x.yaml is neither a file nor a shipped one"),
        (["--memory", "much"], "--memory: 'much' is not an amount of memory; write 4GiB or 800MB"),
        (["--memory", "1kB"], "--memory: one run needs about"),
        (["--devices", "0"], "--devices: 0 must be at least 1"),
        (["--coordinator", "auto", "--out", "x"], "--coordinator: auto works under SLURM only"),
        (["--process", "1"], "--coordinator, --processes and --process go together"),
        (
            ["--coordinator", "localhost:1", "--processes", "2", "--process", "2", "--out", "x"],
            "--process: 2 must be from 0 to 1",
        ),
        (
            ["--coordinator", "localhost:1", "--processes", "2", "--process", "0"],
            "--out is missing: several processes need a directory that all of them see",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(sweep, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "compile_training", lambda *_, **__: pytest.fail("it compiled"))
    config = ["--config", "cartpole_cleanrl"] if arguments else []
    code, out, err = sweep(*config, *arguments)
    assert (code, out) == (2, [])
    assert len(err) == 1
    assert err[0].startswith(f"error: {line}")
    assert not list(tmp_path.iterdir())


def test_a_directory_of_something_else_is_never_touched(sweep, whole, tmp_path):
    (tmp_path / "precious").write_text("mine")
    code, _, err = sweep(*ARGUMENTS, "--out", tmp_path)
    assert (code, err) == (
        2,
        [f"error: --out: {tmp_path} exists and is not a sweep; nothing is overwritten"],
    )
    before = {path: path.read_bytes() for path in whole[0].rglob("*") if path.is_file()}
    for change, difference in (
        (["--seeds", "2"], "it has 3 seeds, not 2"),
        (["loss=huber"], "its points have other configs"),
        (["n_step=1,2"], "it has 4 points, not 8"),
    ):
        code, _, err = sweep(*ARGUMENTS, *change, "--out", whole[0])
        assert (code, err) == (2, [f"error: --out: {whole[0]} belongs to another sweep: {difference}"])
    assert {path: path.read_bytes() for path in whole[0].rglob("*") if path.is_file()} == before


def test_a_sweep_that_an_earlier_version_described_goes_on(sweep, whole, tmp_path, monkeypatch):
    """It had fewer keys, and wrote no digest."""
    monkeypatch.setattr(stages, "compile_training", lambda *_, **__: pytest.fail("it compiled"))
    out = shutil.copytree(whole[0], tmp_path / "out")
    described = out / "sweep.yaml"
    text = described.read_text().partition("# sha256: ")[0]
    assert text.count(', "resets": "all"') == 4
    described.write_text(text.replace(', "resets": "all"', ""))
    assert sweep(*ARGUMENTS, "--quiet", "--out", out)[0] == 0
    assert (out / "runs.csv").read_bytes() == (whole[0] / "runs.csv").read_bytes()


def test_points_that_differ_in_traced_numbers_share_a_group(points):
    groups = group_runs(points, all_runs(points, 2))
    assert [group.runs for group in groups] == [
        (Run(0, 0), Run(0, 1), Run(2, 0), Run(2, 1)),
        (Run(1, 0), Run(1, 1), Run(3, 0), Run(3, 1)),
    ]
    population = population_of(points, pad(groups[0].runs[1:], 5))  # places that are left repeat the last run
    np.testing.assert_allclose(population.hparams.gamma, [0.9, 0.99, 0.99, 0.99, 0.99])
    np.testing.assert_array_equal(population.seed_index, [1, 0, 1, 1, 1])


def test_the_state_of_a_run_is_counted_without_compiling(points):
    config = load_config("cartpole_cleanrl", [*TINY, "replay.size=40000"])
    buffer = 40_000 * (2 * 4 * 4 + 4 + 4 + 1 + 1)  # two observations, action, reward, two flags
    assert buffer < state_bytes(config) < 1.1 * buffer


@pytest.mark.parametrize("runs", [1, 2, 3, 30, 31, 64, 1000])
@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("room", [10**9, 20])
def test_pieces_fit_in_memory_and_waste_little(points, runs, devices, room):
    group = Group(points[0].config, tuple(Run(0, k) for k in range(runs)), Needs(100, 0))
    size = piece_size(group, jax.devices()[:1] * devices, memory=100 * room)
    assert size <= room - devices
    pieces = -(-runs // size)
    assert pieces * size <= runs * 1.15 + devices
    assert size <= max(devices, -(-runs // 16) + devices)


def test_a_piece_on_an_accelerator_has_room_for_the_working_memory_of_all_its_runs(points):
    """Without replay, a run has little state, and its rollout is most of what it needs."""
    gpu = accelerator(limit=0)
    group = Group(points[0].config, tuple(Run(0, k) for k in range(300)), Needs(100, 900))
    assert bytes_at_once(group, 50, [gpu]) == pytest.approx(50 * (1.6 * 100 + 2.2 * 900))
    assert piece_size(group, [gpu], memory=110_000) == 50  # 51 fit; six pieces of 50
    assert piece_size(group, jax.devices()[:1], memory=2_000) == 10  # beside the one that is being trained
    with pytest.raises(UserError, match=r"needs about 2\.14 kB; make the intervals of schedule smaller"):
        piece_size(group, [gpu], memory=2_100)


def test_runs_are_planned_with_what_they_need_batched_on_an_accelerator(monkeypatch):
    """IQN's gradient step needs more than anything else."""
    point = Point(load_config(("cartpole_cleanrl", "iqn")), {})
    needs = batched_needs(point.config)
    assert needs.part == "update"
    gpu = accelerator(limit=100.5 * (1.6 * needs.state + 2.2 * needs.working) / 0.8)
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    work = plan_work([point], all_runs([point], 200))
    assert (work.groups[0].needs, work.sizes) == (needs, [100])
    monkeypatch.setattr(jax, "local_devices", lambda: [accelerator(limit=needs.working)])
    advice = r"needs about [\d.]+ MB; make replay\.batch_size, network\.hidden or distribution\.atoms smaller"
    with pytest.raises(UserError, match=advice):
        plan_work([point], all_runs([point], 200))


def test_a_run_lives_on_one_of_several_accelerators(points):
    """Each has its own memory; the runs of one do not fit into what is left of the others."""
    devices = [accelerator(limit=1_000 / 0.8)] * 8
    runs = tuple(Run(0, k) for k in range(64))
    assert piece_size(Group(points[0].config, runs, Needs(400, 0)), devices) == 8  # 12 would fit together
    with pytest.raises(UserError, match="one run needs about"):
        piece_size(Group(points[0].config, runs, Needs(1_000, 0)), devices)
    assert piece_size(Group(points[0].config, runs, Needs(300, 0)), devices, memory=1_000) == 2  # of eight places
    assert piece_size(Group(points[0].config, runs, Needs(1_000, 0)), devices, memory=12_800) == 8


def test_a_search_has_the_same_size_of_pieces_with_a_little_more_or_less_memory(points):
    """Another size would be another program; 64 of 128 runs leave no place empty, 94 would."""

    def size(limit, monkeypatch):
        monkeypatch.setattr(jax, "local_devices", lambda: [accelerator(limit)])
        known = {points[0].config.static(): Needs(100, 0)}
        return plan_work(points[:1], all_runs(points[:1], 30), size=128, known=known).sizes

    with pytest.MonkeyPatch.context() as monkeypatch:
        assert [size(160 * runs / 0.8 + 10, monkeypatch) for runs in (64, 91, 94, 127, 128)] == [[64]] * 4 + [[128]]


def test_what_is_known_of_a_program_is_not_counted_again(points, monkeypatch):
    known = {}
    work = plan_work(points, all_runs(points, 1), known=known)
    assert known == {group.config.static(): group.needs for group in work.groups}
    monkeypatch.setattr(pieces, "memory_needs", lambda config: pytest.fail("it was counted again"))
    assert plan_work(points, all_runs(points, 1), known=known).groups == work.groups


@pytest.mark.parametrize(
    ("override", "part", "advice"),
    [
        ("schedule.warmup=480", "warm-up", "make schedule.warmup smaller"),
        (
            "evaluation.final_episodes=9000",
            "evaluation",
            "make evaluation.episodes or evaluation.final_episodes smaller",
        ),
        ("evaluation.episodes=9000", "evaluation", "make evaluation.episodes or evaluation.final_episodes smaller"),
    ],
)
def test_warm_up_and_evaluations_of_batched_runs_need_memory_too(override, part, advice):
    config = load_config("cartpole_cleanrl", [*TINY, override])
    needs = batched_needs(config)
    assert (needs.part, advice_on(config, needs._replace(state=0))) == (part, advice)
    assert needs.working > memory_needs(config).working > 0


def accelerator(limit, platform="gpu"):
    """What plans ask of a device with ``limit`` bytes."""
    return SimpleNamespace(platform=platform, memory_stats=lambda: {"bytes_limit": limit})


def counted_on_accelerators():
    """Rows of eight or more seeds by config: device, seeds, bytes of a seed as compiled."""
    found = {}
    with (harness.RESULTS / "accelerators.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["memory a seed (MB)"] and int(row["seeds"]) >= 8:
                one = (row["device"], int(row["seeds"]), 1e6 * float(row["memory a seed (MB)"]))
                found.setdefault(row["config"], []).append(one)
    return found


COUNTED = counted_on_accelerators()


MOST = {"gpu": 4, "tpu": 16}
"""Memory that may be planned, relative to what is taken.

On a TPU, some of the state of a few seeds is on the chip, and not counted; and XLA keeps nothing for the pairs of
QR-DQN's quantiles.
"""


@pytest.mark.parametrize("name", mostly_slow(COUNTED, fast=("cartpole_cleanrl", "cartpole_cleanrl+iqn")))
def test_batched_runs_take_no_more_memory_than_pieces_allow_and_not_much_less(name):
    config, _ = compiled.read_config(name, 1)
    for device, seeds, taken in COUNTED[name]:
        platform = ACCELERATORS[device].platform
        (group,) = group_runs([Point(config, {})], all_runs([Point(config, {})], 1), platform)
        allowed = bytes_at_once(group, seeds, [accelerator(0, platform)])
        assert seeds * taken < allowed, device
        assert allowed < MOST[platform] * seeds * taken, device


def test_the_working_memory_of_batched_runs_is_that_of_a_gradient_step():
    """IQN has a value for each of 128 transitions, 32 fractions of two networks and 84 units."""
    config = load_config(("cartpole_cleanrl", "iqn"))
    assert memory_needs(config).working < 128 * 32 * 84 * 4 < batched_needs(config).working
    assert memory_needs(config).state == batched_needs(config).state


def test_memory_is_read_as_people_write_it():
    assert [parse_memory(text) for text in ("4GiB", "800MB", "1.5 gb", "1000", "2k")] == [
        *(4 * 2**30, 800 * 10**6, 1_500_000_000, 1000, 2000)
    ]


@pytest.mark.parametrize(
    "text", ["much", "0", "-1", "4XB", "9" * 5000, "4 GiB or so", "\N{ARABIC-INDIC DIGIT FOUR}GiB"]
)
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(UserError, match="is not an amount of memory"):
        parse_memory(text)


def test_points_are_ranked_by_their_iqm_and_diverged_runs_are_counted(points):
    def metrics(area):
        return stages.Metrics(*(np.full((2, 3), area, np.float32) for _ in stages.Metrics._fields))

    returns = {0: [1.0, 3.0], 1: [9.0, 9.0], 2: [5.0, 5.0], 3: [2.0, 2.5]}
    diverged = {0: [False, True], 1: [True, True]}  # always the first action, which may pay well
    pieces = [
        stages.PieceResult(
            (Run(p, 0), Run(p, 1)),
            np.array(r)[:, None],
            np.array(diverged.get(p, [False, False])),
            metrics(10.0 - sum(r)),
        )
        for p, r in returns.items()
    ]
    summaries = summarise_points(points, collect(points, pieces))
    assert [one.point for one in ranked(summaries)] == [2, 3, 0, 1]
    assert [one.diverged for one in summaries] == [1, 2, 0, 0]


def test_a_process_whose_directory_never_appears_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(directory.time, "monotonic", iter(range(0, 1000, 50)).__next__)
    with pytest.raises(UserError, match="does not appear; it must be a directory that all processes see"):
        directory.check_directory(tmp_path / "out", {}, wait=True)
