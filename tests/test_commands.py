"""The commands as a user runs them."""

import csv
import errno
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import purejaxdqn
from benchmarks import harness
from purejaxdqn import load_config, load_policy, run_many
from purejaxdqn.config.building import make_program
from purejaxdqn.core.keys import run_key
from purejaxdqn.envs import main as envs
from purejaxdqn.evaluate import main as evaluate
from purejaxdqn.export import main as export
from purejaxdqn.pictures import runs as pictures
from purejaxdqn.plot import main as plot
from purejaxdqn.policies.policies import evaluate_in_gymnasium
from purejaxdqn.report import main as report
from purejaxdqn.runs import directory, memory
from purejaxdqn.runs.metrics import COLUMNS, read_metrics
from purejaxdqn.search import main as search
from purejaxdqn.sweep import main as sweep
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.git import run_git
from purejaxdqn.train import main as train
from tests.conftest import (
    ENVIRONMENTS_OF_CONFIGS,
    PQN,
    ROOT,
    TINY,
    TRAINABLE,
    command,
    first_with_each_environment,
    mostly_slow,
    tiny_for,
)
from tests.test_environments import DISCRETE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def run(folder):
    """A tiny run of three seeds, from another folder, in the default directory."""
    done = command("train", "--config", "cartpole_cleanrl.yaml", "num_seeds=3", *TINY, cwd=folder)
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "runs" / "cartpole_cleanrl").iterdir()
    return path, done


def test_a_run_leaves_all_its_files(run):
    path, done = run
    assert {one.name for one in path.iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "summary.json",
        "policy.safetensors",
        "learning_curve.png",
        "report.png",
        "timing.csv",
        "checkpoints",
    }
    assert [one.name for one in (path / "checkpoints").iterdir()] == ["600"]
    assert done.stdout.splitlines()[-1] == str(path.relative_to(path.parents[2]))
    assert "compiled in" in done.stderr
    assert re.search(r"^ran in .* environment steps a second of 3 seeds together$", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stderr + done.stdout  # no terminal, so plain lines
    assert sum("/600 train" in line for line in done.stderr.splitlines()) == 13
    for picture in ("learning_curve.png", "report.png"):
        assert (path / picture).read_bytes().startswith(b"\x89PNG")


def test_metrics_are_a_row_per_seed_and_epoch(run):
    with (run[0] / "metrics.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == COLUMNS
    assert [(row["env_step"], row["seed_index"]) for row in table] == [
        (str(step), str(seed)) for step in range(120, 601, 40) for seed in range(3)
    ]
    for row in table:
        assert (row["episode_return"] == "") == (row["episodes"] == "0")
        assert float(row["loss"]) > 0


@pytest.mark.slow
def test_metrics_and_policy_are_those_of_run_many(run):
    config = load_config("cartpole_cleanrl", [*TINY, "num_seeds=3"])
    result = run_many(config, config.hparams(), jnp.stack([run_key(0, k) for k in range(3)]))
    metrics = read_metrics(run[0] / "metrics.csv")
    np.testing.assert_array_equal(metrics.loss.astype(np.float32), result.rows.loss[0])
    np.testing.assert_allclose(metrics.eval_return, np.mean(result.rows.eval_returns[0], -1), rtol=1e-6)
    policy = load_file(run[0] / "policy.safetensors")
    np.testing.assert_array_equal(policy["params/Dense_1/weight"], result.params["params"]["Dense_1"]["weight"][0])
    summary = json.loads((run[0] / "summary.json").read_text())
    assert summary["final_eval_return"] == np.mean(result.final_returns[0], -1).tolist()


def test_the_summary_has_the_contracts_keys(run):
    summary = json.loads((run[0] / "summary.json").read_text())
    keys = (
        "env_id num_seeds total_timesteps import_seconds compile_seconds run_seconds env_steps_per_second "
        "final_eval_return iqm iqm_ci95 first_solved_step diverged device versions git_commit"
    )
    assert set(keys.split()) <= set(summary)
    assert summary["diverged"] == [False] * 3
    assert summary["iqm_ci95"] is None  # of three seeds there is only a range
    assert summary["env_steps_per_second"] == pytest.approx(1800 / summary["run_seconds"], rel=0.02)


@pytest.mark.slow
def test_the_config_of_a_run_runs_it_again_bit_for_bit(run, quietly, tmp_path):
    code, _, _ = quietly(
        train, "--config", run[0] / "config.yaml", "--out", tmp_path / "again", "--segments", "1", "--quiet"
    )
    assert code == 0
    for name in ("metrics.csv", "policy.safetensors", "config.yaml"):
        assert (tmp_path / "again" / name).read_bytes() == (run[0] / name).read_bytes()


def test_evaluate_plays_all_agents_or_one_in_either_backend(run, quietly):
    answers = {}
    for backend in ("gymnax", "gymnasium"):
        code, out, _ = quietly(evaluate, run[0], "--episodes", 4, "--backend", backend, "--json")
        answers[backend] = json.loads(out[0])
        assert code == 0
        assert set(answers[backend]) == {"backend", "episodes", "returns", "mean", "iqm"}
        assert np.shape(answers[backend]["returns"]) == (3, 4)
    for seed_index in range(3):
        code, out, _ = quietly(evaluate, run[0], "--episodes", 4, "--seed-index", seed_index, "--json")
        assert json.loads(out[0])["returns"] == [answers["gymnax"]["returns"][seed_index]]
    _, out, _ = quietly(evaluate, run[0], "--episodes", 4, "--seed", 1, "--json")
    assert json.loads(out[0])["returns"] != answers["gymnax"]["returns"]
    code, out, _ = quietly(evaluate, run[0], "--episodes", 4)
    assert [line.split(":")[0] for line in out] == ["agent 0", "agent 1", "agent 2", "gymnax, 4 episodes an agent"]


def test_a_loaded_policy_acts_on_one_observation_and_on_many(run):
    act = load_policy(run[0], seed_index=1)
    many = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    actions = act(many)
    assert actions.shape == (20,)
    assert [act(one) for one in many] == actions.tolist()
    weights = {name: leaf[1] for name, leaf in load_file(run[0] / "policy.safetensors").items()}
    x = many
    for layer in range(3):
        x = x @ weights[f"params/Dense_{layer}/weight"].T + weights[f"params/Dense_{layer}/bias"]
        x = np.maximum(x, 0) if layer < 2 else x
    np.testing.assert_array_equal(actions, x.argmax(-1))


def test_plot_draws_the_pictures_again(run, quietly):
    for name in ("learning_curve.png", "report.png"):
        (run[0] / name).unlink()
    code, out, _ = quietly(plot, run[0])
    assert code == 0
    assert len(out) == 2
    assert (run[0] / "learning_curve.png").is_file()


def test_all_that_a_run_leaves_may_be_read_by_whom_the_system_says(run):
    modes = {path.name: path.stat().st_mode for path in run[0].iterdir() if path.is_file()}
    assert set(modes.values()) == {modes["summary.json"]}, modes


@pytest.mark.slow
def test_plot_draws_several_runs_in_one_picture(run, quietly, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = shutil.copytree(run[0], "other")
    compared = []

    def draw(runs, draw=pictures.draw_comparison):
        compared.extend(runs)
        return draw(runs)

    monkeypatch.setattr(pictures, "draw_comparison", draw)
    code, out, _ = quietly(plot, run[0], other)
    assert (code, out[-1], len(out)) == (0, "comparison.png", 5)
    assert (tmp_path / "comparison.png").stat().st_size > 10_000
    assert [(one.name, one.env_id, one.solved_at) for one in compared] == [
        (str(run[0]), "CartPole-v1", 475.0),
        ("other", "CartPole-v1", 475.0),
    ]
    assert quietly(plot, run[0], other, "--out", "both.svg")[1][-1] == "both.svg"
    both = ["learning_curve.pdf", "learning_curve.svg", "report.pdf", "report.svg"]
    code, out, _ = quietly(plot, "other", run[0], "--format", "pdf,svg")
    assert [out[:4], out[-2:]] == [[f"other/{name}" for name in both], ["comparison.pdf", "comparison.svg"]]
    assert all((tmp_path / name).stat().st_size > 3000 for name in [*out[:4], *out[-2:]])
    for arguments, line in (
        (
            (run[0], "--out", "one.png"),
            "error: --out names the picture that compares several runs, but fewer than two are given",
        ),
        ((run[0], other, "--out", "both.txt"), "error: --out: both.txt must end in .png, .pdf, .svg"),
        ((run[0], other, "--out", "no/both.png"), "error: --out: there is no directory no"),
        ((run[0], "--format", "png,pfd"), "error: --format: 'pfd' is not one of png, pdf, svg; did you mean 'pdf'?"),
    ):
        assert quietly(plot, *arguments) == (2, [], [line])  # and nothing was drawn


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nowhere", "there is no directory {}"),
        ("a file", "{} is not a directory"),
        ("empty", "{} is not a run: it has no metrics.csv"),
        ("bare", "{} is not a run: it has no config.yaml"),
        ("a" * 300, "{} cannot be read: File name too long"),
    ],
)
def test_plot_says_in_one_line_why_there_is_nothing_to_draw(name, line, run, quietly, tmp_path):
    (tmp_path / "a file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    shutil.copy(run[0] / "metrics.csv", tmp_path / "bare")
    assert quietly(plot, run[0], tmp_path / name) == (2, [], [f"error: {line.format(tmp_path / name)}"])


SUMMARY = {
    "run_seconds": 1.0,
    "env_steps_per_second": 1,
    "iqm": 1.0,
    "final_eval_return": [1.0],
    "diverged_step": [None],
}


@pytest.fixture
def begin(quietly, tmp_path, monkeypatch):
    """Begin a run of seed 1 in an empty folder, at a standing clock and without training; while it writes its config,
    another of seed 2 is quicker. Returns the exit code, lines on standard error, and each directory's seed.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda *_: "now")
    monkeypatch.setattr("purejaxdqn.runs.runner.run", lambda *_, **__: {**SUMMARY, "diverged": [False]})

    def call(*out):
        arguments, seeds = ["--config", "cartpole_cleanrl", *out], []

        def write(folder, config, write=directory.write_config):
            seeds.append(config.seed)
            if seeds == [1]:
                assert train([*arguments, "seed=2"]) == 0
            write(folder, config)

        with monkeypatch.context() as patch:
            patch.setattr(directory, "write_config", write)
            code, _, err = quietly(train, *arguments, "seed=1")
        assert list(Path().rglob(".*")) == []  # nothing half-made is left
        return code, err, {str(path.parent): load_config(path).seed for path in Path().rglob("config.yaml")}

    return call


def test_runs_of_one_second_take_a_directory_each(begin):
    runs = "runs/cartpole_cleanrl"
    assert begin() == (0, [], {f"{runs}/now": 2, f"{runs}/now-2": 1})
    assert begin() == (0, [], {f"{runs}/now": 2, f"{runs}/now-2": 1, f"{runs}/now-3": 2, f"{runs}/now-4": 1})


def test_a_directory_that_another_run_has_taken_meanwhile_is_refused(begin):
    line = "error: --out: new/run exists; a run never overwrites one"
    assert begin("--out", "new/run") == (2, [line], {"new/run": 2})


DRAWING = {
    "metrics.csv": "pictures.run_directory.draw_run",
    "sweep.yaml": "pictures.sweeps.draw_directory",
    "search.json": "pictures.searches.draw_directory",
}


@pytest.mark.parametrize("mark", DRAWING)
def test_plot_in_a_directory_that_may_only_be_read_is_refused(mark, run, quietly, tmp_path, monkeypatch):
    """Whichever it is; root may write everywhere, so that the drawing denies itself."""

    def denied(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a file")

    for name in ("metrics.csv", "config.yaml"):
        shutil.copy(run[0] / name, tmp_path)
    (tmp_path / mark).touch()
    monkeypatch.setattr(f"purejaxdqn.{DRAWING[mark]}", denied)
    assert quietly(plot, tmp_path) == (2, [], [f"error: {tmp_path} cannot be written to: Permission denied"])


def test_train_names_given_keys_without_effect_in_one_warning(quietly):
    words = ["--config", "catch", "--config", "pqn", "replay.alpha=0.5", "schedule.tau=0.3", "--print-config"]
    code, _, err = quietly(train, *words)
    named = "replay.alpha (needs replay.kind prioritised), schedule.tau (needs schedule.target_every)"
    assert (code, err) == (0, [f"warning: keys without effect: {named}"])
    assert quietly(train, *words[:4], "--print-config")[2] == []


def test_printing_and_listing_write_nothing(quietly, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = quietly(train, "--config", "cartpole_cleanrl", "--print-config", "gamma=0.5")
    assert (code, "gamma: 0.5" in out) == (0, True)
    code, out, _ = quietly(train, "--list-configs")
    assert (code, "cartpole_cleanrl" in "".join(out)) == (0, True)
    code, out, _ = quietly(train, "--version")
    assert (code, len(out)) == (0, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_diverged_run_says_so_and_leaves_with_3(quietly, tmp_path):
    code, _, err = quietly(
        train, "--config", "cartpole_cleanrl", "--out", tmp_path / "run", "--quiet", *TINY,
        "optimizer.name=sgd", "optimizer.learning_rate=1e30", "num_seeds=2",
    )  # fmt: skip
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (code, summary["diverged"]) == (3, [True, True])
    assert {f"seed {k} diverged, detected at step 120" for k in range(2)} <= set(err)
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3  # nothing was left to go on
    assert (tmp_path / "run" / "report.png").is_file()
    code, out, err = quietly(train, "--resume", tmp_path / "run")
    assert (code, out, err) == (3, [], [f"{tmp_path / 'run'} is finished; every seed diverged"])


BAD = {
    "no config": [],
    "a missing config": ["--config", "nowhere.yaml"],
    "a config of the wrong shape": ["--config", "list.yaml"],
    "a config that is no YAML": ["--config", "broken.yaml"],
    "a config that is a directory": ["--config", "."],
    "a second config that is missing": ["--config", "cartpole_cleanrl", "--config", "presett"],
    "an unknown option": ["--config", "cartpole_cleanrl", "--oot", "x"],
    "an abbreviated option": ["--config", "cartpole_cleanrl", "--seed", "3"],
    "an option without its value": ["--config"],
    "a directory that exists": ["--config", "cartpole_cleanrl", "--out", "taken"],
    "a directory below a file": ["--config", "cartpole_cleanrl", "--out", "list.yaml/run"],
    "segments that do not divide": ["--config", "cartpole_cleanrl", "--segments", "7"],
    "no segments": ["--config", "cartpole_cleanrl", "--segments", "0"],
    "segments that are no number": ["--config", "cartpole_cleanrl", "--segments", "many"],
    "no seeds at once": ["--config", "cartpole_cleanrl", "--seeds-at-once", "0"],
    "an unknown key": ["--config", "cartpole_cleanrl", "optimizer.lr=1"],
    "an unknown section": ["--config", "cartpole_cleanrl", "optim.learning_rate=1"],
    "an override without a value": ["--config", "cartpole_cleanrl", "gamma"],
    "an override that is no YAML": ["--config", "cartpole_cleanrl", "gamma=[1"],
    "an override without a key": ["--config", "cartpole_cleanrl", "=1"],
    "a word for a number": ["--config", "cartpole_cleanrl", "gamma=high"],
    "a fraction for an integer": ["--config", "cartpole_cleanrl", "num_seeds=1.5"],
    "a section for a number": ["--config", "cartpole_cleanrl", "gamma.x=1"],
    "a number for a section": ["--config", "cartpole_cleanrl", "replay=1"],
    "a discount above 1": ["--config", "cartpole_cleanrl", "gamma=1.01"],
    "a negative rate": ["--config", "cartpole_cleanrl", "optimizer.learning_rate=-1e-3"],
    "a rate of zero": ["--config", "cartpole_cleanrl", "optimizer.learning_rate=0"],
    "a clip of zero": ["--config", "cartpole_cleanrl", "optimizer.max_grad_norm=0"],
    "no seeds": ["--config", "cartpole_cleanrl", "num_seeds=0"],
    "a negative seed": ["--config", "cartpole_cleanrl", "seed=-1"],
    "no hidden layer": ["--config", "cartpole_cleanrl", "network.hidden=[]"],
    "a share above 1": ["--config", "cartpole_cleanrl", "exploration.fraction=1.5"],
    "an unknown optimizer": ["--config", "cartpole_cleanrl", "optimizer.name=adamm"],
    "an unknown torso": ["--config", "cartpole_cleanrl", "network.torso=lstm"],
    "a batch above the buffer": ["--config", "cartpole_cleanrl", "replay.size=64"],
    "a warm-up below the batch": ["--config", "cartpole_cleanrl", "schedule.warmup=60", "total_timesteps=500060"],
    "a run that is all warm-up": ["--config", "cartpole_cleanrl", "total_timesteps=10000"],
    "a run below one interval": ["--config", "cartpole_cleanrl", "total_timesteps=10_400"],
    "an unknown environment": ["--config", "cartpole_cleanrl", "env.id=CartPole-v9"],
    "continuous actions": ["--config", "cartpole_cleanrl", "env.id=Pendulum-v1"],
    "arguments that do not fit": ["--config", "cartpole_cleanrl", "env.kwargs.size=3"],
    "a name too long for a file": ["--config", "a" * 300],
    "a directory with a name too long": ["--config", "cartpole_cleanrl", "--out", "new/" + "a" * 300],
    "a buffer beyond all memory": ["--config", "cartpole_cleanrl", "replay.size=1000000000000"],
    "an unknown log": ["--config", "cartpole_cleanrl", "--log", "tensorbord"],
    "a run to resume that is none": ["--resume", "taken"],
    "a run to resume with a config": ["--resume", "taken", "--config", "cartpole_cleanrl"],
    "a date for a number": ["--config", "cartpole_cleanrl", "seed=2020-01-01"],
    "a key that is no word": ["--config", "cartpole_cleanrl", "env={1: 2}"],
    "an unknown parameter": ["--config", "cartpole_cleanrl", "env.params.wind=1"],
}


@pytest.mark.parametrize(
    ("main", "arguments", "line"),
    [
        (train, ["--seed", "3"], "unknown option --seed; did you mean seed=3?"),
        (sweep, ["--seed=3"], "unknown option --seed; did you mean seed=3?"),
        (search, ["gamma=0.9", "--seed", "3", "--trials", "2"], "unknown option --seed; did you mean seed=3?"),
        (
            train,
            ["--learning-rate", "1e-3"],
            "unknown option --learning-rate; did you mean optimizer.learning_rate=1e-3?",
        ),
        (train, ["--env-id", "Catch-bsuite"], "unknown option --env-id; did you mean env.id=Catch-bsuite?"),
        (train, ["--kind", "iqn"], "unknown option --kind"),
        (sweep, ["--device", "2"], "unknown option --device; did you mean '--devices'?"),
        (evaluate, [".", "--epis", "2"], "unknown option --epis; did you mean '--episodes'?"),
        (evaluate, [".", "--gamma", "2"], "unknown option --gamma"),
        (envs, ["--jso"], "unknown option --jso; did you mean '--json'?"),
        (export, [".", "--form", "onnx"], "unknown option --form; did you mean '--format'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_are_never_abbreviated(quietly, main, arguments, line):
    code, out, err = quietly(main, *arguments)
    assert (code, out) == (2, [])
    (told,) = err
    assert re.fullmatch(rf"error: {re.escape(line)} \(see python -m purejaxdqn\.\w+ --help\)", told)


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD)
def test_bad_input_is_refused_by_train(arguments, quietly, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("purejaxdqn.runs.training.compile_training", lambda *_, **__: pytest.fail("it compiled"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "list.yaml").write_text("- 1\n", encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("gamma: [\n", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = quietly(train, *arguments)
    assert code == 2
    assert out == []
    assert len(err) == 1
    assert err[0].startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere"],
        ["{run}", "--episodes", "0"],
        ["{run}", "--seed", "-1"],
        ["{run}", "--seed-index", "3"],
        ["{run}", "--backend", "atari"],
        ["{other}", "--backend", "gymnasium"],
        ["{damaged}"],
        ["{foreign}"],
    ],
    ids=" ".join,
)
def test_bad_input_is_refused_by_evaluate(arguments, run, quietly, tmp_path):
    places = {"run": run[0]}
    for name, change in {
        "other": lambda config, policy: (config.replace("CartPole-v1", "Catch-bsuite"), policy),
        "damaged": lambda config, policy: (config, policy[:100]),
        "foreign": lambda config, policy: (config.replace("[16, 16]", "[16, 8]"), policy),
    }.items():
        places[name] = tmp_path / name
        places[name].mkdir()
        config, policy = change((run[0] / "config.yaml").read_text(), (run[0] / "policy.safetensors").read_bytes())
        (places[name] / "config.yaml").write_text(config)
        (places[name] / "policy.safetensors").write_bytes(policy)
    code, out, err = quietly(evaluate, *(one.format(**places) for one in arguments))
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith("error: ")


def test_bad_input_ends_a_real_process_with_2_and_one_line_a_fault(folder):
    done = command("train", "--config", "cartpole_cleanrl", "gamma=2", "zebra=red", cwd=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: gamma: 2 must be less than or equal to 1",
        "error: zebra: unknown key",
    ]


def test_the_wheel_carries_the_configs(folder):
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "installed")
    done = command("train", "--list-configs", cwd=folder, env={"PYTHONPATH": str(folder / "installed")})
    shipped = [
        path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in (ROOT / "configs").rglob("*.yaml")
    ]
    assert sorted(line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")) == sorted(shipped)
    assert (folder / "installed" / "purejaxdqn" / "configs" / "schema.json").is_file()
    assert (folder / "installed" / "purejaxdqn" / "configs" / "search" / "dqn.yaml").is_file()


def test_the_front_door_hands_over(folder):
    def front(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "purejaxdqn", *arguments],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert "cartpole_cleanrl" in front("train", "--list-configs").stdout
    assert front("--version").stdout.strip() == purejaxdqn.__version__
    assert "--print-completion" in front("--help").stdout
    wrong = front("trian")
    assert wrong.returncode == 2
    assert "did you mean 'train'" in wrong.stderr


PRESETS = [name for name in TRAINABLE if "id" not in ENVIRONMENTS_OF_CONFIGS[name].model_fields_set]
OF_ENVIRONMENTS = first_with_each_environment(["cartpole", *(name for name in TRAINABLE if name not in PRESETS)])
SHORTLY_TRAINED = [*OF_ENVIRONMENTS, "rainbow", "r2d2", "pqn_gru"]
"""A config for each environment, and presets with most parts; the parts of the others are trained in other files."""


@pytest.mark.usefixtures("barely_compiled")
@pytest.mark.parametrize("name", mostly_slow(SHORTLY_TRAINED, fast=["cartpole"]))
def test_a_config_of_each_environment_runs_for_a_short_budget(name, quietly, tmp_path):
    tiny = tiny_for(name)
    every = 640 if tiny is PQN else 520
    once = [f"evaluation={{every: {every}, episodes: 1, final_episodes: 1}}"]
    code, _, err = quietly(train, "--config", name, "--out", tmp_path / "run", "--quiet", *tiny, *once)
    assert code == 0, err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert np.isfinite(summary["final_eval_return"]).all()


def test_every_environment_with_discrete_actions_is_trained_in():
    assert set(DISCRETE) <= {ENVIRONMENTS_OF_CONFIGS[name].id for name in SHORTLY_TRAINED}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRAINABLE if name not in SHORTLY_TRAINED])
def test_every_other_config_can_be_traced(name):
    config = load_config(name, tiny_for(name))
    result = jax.eval_shape(make_program(config).train, config.hparams(), jax.random.key(0))
    assert result.final_returns.shape == (config.evaluation.final_episodes,)


def test_the_commit_is_that_of_this_checkout_whatever_repository_a_hook_names(tmp_path, monkeypatch):
    plain = run_git(ROOT, "rev-parse", "HEAD").stdout.decode().strip()
    if not plain:
        pytest.skip("this is no checkout")
    run_git(tmp_path, "init", "-q", ".")
    run_git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "another")
    for name, value in (("GIT_DIR", tmp_path / ".git"), ("GIT_WORK_TREE", tmp_path)):
        monkeypatch.setenv(name, str(value))
    assert directory.provenance([jax.devices()[0]])["git_commit"].removesuffix("-dirty") == plain
    assert harness.commit().removesuffix("-dirty") == plain[: len(harness.commit().removesuffix("-dirty"))]


EVERY_PATH = {
    "train --out": (train, "--config", "cartpole_cleanrl", "--out"),
    "train --resume": (train, "--resume"),
    "train --config": (train, "--config"),
    "sweep --out": (sweep, "--config", "cartpole_cleanrl", "--out"),
    "sweep --space": (sweep, "--config", "cartpole_cleanrl", "--points", "2", "--space"),
    "search --out": (search, "--config", "cartpole_cleanrl", "--space", "search/small", "--out"),
    "search --space": (search, "--config", "cartpole_cleanrl", "--space"),
    "evaluate": (evaluate,),
    "evaluate --gif": (evaluate, "run", "--gif"),
    "export": (export, "--format", "safetensors"),
    "export --out": (export, "run", "--format", "safetensors", "--out"),
    "plot": (plot,),
    "plot --out": (plot, "run", "run", "--out"),
    "report": (report,),
}


@pytest.mark.parametrize("arguments", EVERY_PATH.values(), ids=EVERY_PATH)
def test_a_path_that_is_empty_or_not_utf8_is_refused(arguments, quietly, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, message in (("", "the name is empty"), (os.fsdecode(b"r\xff"), "'r\\udcff' is not UTF-8")):
        code, out, err = quietly(*arguments, path)
        assert (code, out, len(err)) == (2, [], 1)
        assert message in err[0]
    assert not list(tmp_path.iterdir())


def test_nothing_is_trained_in_a_directory_that_is_not_utf8(quietly, tmp_path, monkeypatch):
    here = tmp_path / os.fsdecode(b"r\xff")
    here.mkdir()
    monkeypatch.chdir(here)
    for out, message in (
        ((), "--out is missing: the name of the working"),
        (("--out", "x"), "'x': the name of the working directory is not"),
    ):
        code, _, err = quietly(train, "--config", "cartpole_cleanrl", *TINY, *out)
        assert (code, len(err)) == (2, 1)
        assert message in err[0]
    assert not list(here.iterdir())


@pytest.mark.parametrize("out", [".", "./", "/", "..", "new/.."])
def test_a_directory_that_is_there_is_refused_under_any_name(out, quietly, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = quietly(train, "--config", "cartpole_cleanrl", *TINY, "--out", out)
    assert (code, len(err)) == (2, 1)
    assert err[0].startswith("error: --out: ")
    assert not list(tmp_path.iterdir())


def test_a_config_may_come_through_a_pipe_and_be_read_for_every_point(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_text, args=("gamma: 0.9",), daemon=True).start()
    assert [load_config(["cartpole_cleanrl", pipe]).gamma for _ in range(3)] == [0.9] * 3


LARGE = 2_000_000_000
SMALLER = "; make replay.size smaller"
TOO_LARGE = {
    "train replay.size": (train, [f"replay.size={LARGE}"], f"1 seed needs about 84 GB of memory, and .*{SMALLER}"),
    "train num_seeds": (train, [f"num_seeds={LARGE}"], f"{LARGE} seeds need .*; make num_seeds or replay.size smaller"),
    "train episodes": (
        train,
        [f"evaluation.episodes={LARGE}"],
        "1 seed needs about 72 GB .*; make evaluation.episodes or .* smaller",
    ),
    "train atoms": (
        train,
        ["distribution.kind=quantile", f"distribution.atoms={LARGE}"],
        f"distribution.atoms: {LARGE} must be less than or equal to 10000",
    ),
    "train memory": (
        train,
        [f"network.memory_size={LARGE}"],
        f"network.memory_size: {LARGE} must be less than or equal to 65536",
    ),
    "train updates": (train, [f"schedule.gradient_steps={LARGE}"], "1 seed needs about 52 TB .*schedule.*smaller"),
    "train seeds without replay": (
        train,
        ["--config", "pqn", f"num_seeds={LARGE}"],
        f"{LARGE} seeds need .*; make num_seeds, env.num_envs or network.hidden smaller",
    ),
    "train epochs without replay": (
        train,
        ["--config", "pqn", "rollout.epochs=1_000_000_000", "num_seeds=2"],
        "2 seeds need .*; make num_seeds, env.num_envs, rollout.steps or rollout.epochs smaller",
    ),
    "sweep environments without replay": (
        sweep,
        ["--config", "pqn", "--memory", "300kB"],
        "--memory: one run needs about .*; make env.num_envs or network.hidden smaller",
    ),
    "sweep replay.size": (sweep, [f"replay.size={LARGE}"], f"--memory: one run needs about .*{SMALLER}"),
    "sweep updates": (sweep, [f"schedule.gradient_steps={LARGE}"], "--memory: one run needs about 52 TB.*smaller"),
    "sweep seeds": (sweep, ["--seeds", LARGE], f"--seeds: the results of {LARGE} runs need about .* are free"),
    "sweep points": (sweep, ["--space", "search/dqn", "--points", LARGE], f"--points: {LARGE} points are too many .*"),
    "sweep grid": (
        sweep,
        [f"{key}={','.join(map(str, range(1, 1002)))}" for key in ("n_step", "seed")],
        "1002001 points are too many for one sweep; it takes 1000000 at most",
    ),
    "search replay.size": (search, [f"replay.size={LARGE}"], f"--memory: one run needs about .*{SMALLER}"),
    "search seeds": (search, ["--seeds", LARGE], "--batch, --seeds: the results of 32000000000 runs need .*"),
    "search retest": (search, ["--retest", LARGE], f"--retest: the results of {LARGE} runs need .*"),
    "search batch": (search, ["--batch", LARGE, "--trials", LARGE], "--batch, --seeds: the results of .*"),
    "search rungs": (search, ["--halving", 2, "--rungs", LARGE], f"--rungs: {LARGE} rungs of a run with 20 .*"),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_what_cannot_fit_in_memory_is_refused_before_it_is_listed_or_compiled(case, quietly, tmp_path, monkeypatch):
    main, arguments, line = TOO_LARGE[case]
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**34))
    monkeypatch.setattr("purejaxdqn.runs.training.compile_lowered", lambda *_, **__: pytest.fail("it was compiled"))
    space = ["--space", "search/small"] if main is search else []
    out = ["--config", "cartpole_cleanrl", "--out", tmp_path / "new" / "out", "--no-cache", "--quiet"]
    code, printed, err = quietly(main, *out, *space, *arguments)
    assert (code, printed, len(err)) == (2, [], 1)
    assert re.fullmatch(f"error: {line}", err[0])
    assert not list(tmp_path.iterdir())


def test_the_working_memory_of_all_seeds_counts_where_they_are_batched(monkeypatch):
    """On a CPU each device trains one seed at a time, unless ``--seeds-at-once`` asks for more."""
    config = load_config("minatar/breakout_pqn", num_seeds=1_000)
    needs = memory.batched_needs(config)
    assert needs.state < needs.working
    assert needs.working > memory.memory_needs(config).working
    free = 1_000 * needs.state + 8 * needs.working
    monkeypatch.setattr(memory, "free_memory", lambda *_, **__: free)

    def refused(platform, **options):
        devices = [SimpleNamespace(platform=platform)] * 2
        monkeypatch.setattr(jax, "local_devices", lambda: devices)
        try:
            memory.check_memory(config, **options)
        except UserError as error:
            return str(error).partition("; ")[2]
        return ""

    assert refused("cpu") == refused("cpu", seeds_at_once=4) == refused("gpu", seeds_at_once=4) == ""
    fewer = "train fewer at once (--seeds-at-once), or make num_seeds, env.num_envs"
    assert refused("cpu", seeds_at_once=5) == f"{fewer} or network.hidden smaller"
    assert refused("gpu") == f"{fewer}, rollout.steps or network.hidden smaller"


@pytest.mark.parametrize("seeds", [1, 7, 8, 9])
def test_seeds_must_fit_into_the_accelerators_that_they_are_on(seeds, monkeypatch):
    """One of eight devices cannot use the memory of the others."""
    config = load_config("cartpole_cleanrl", "replay.size=10000000", num_seeds=seeds)
    one = memory.batched_needs(config)

    def check(limit):
        device = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": limit})
        monkeypatch.setattr(jax, "local_devices", lambda: [device] * 8)
        memory.check_memory(config)

    on_each = -(-seeds // 8) * (one.state + one.working)
    check(on_each + 1)
    with pytest.raises(UserError, match=f"^{seeds} seeds? needs? about"):
        check(on_each - 1)


def test_gymnasium_imports_no_module_that_the_id_of_a_suite_names(monkeypatch, tmp_path):
    (tmp_path / "sparse.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="--backend gymnasium: Gymnasium has no environment 'sparse:MountainCar'"):
        evaluate_in_gymnasium(load_config("mountaincar_sparse", "env.kwargs={}"), None)


@pytest.mark.parametrize(
    "overrides",
    [
        ["ensemble.members=300", "network.hidden=[1024, 1024]"],
        [
            "network={memory: lru, memory_size: 4096}",
            "replay={size: 320, sequence: 8, period: 1}",
            "ensemble.members=9",
        ],
        ["network={memory: gru, memory_size: 300}", "replay={size: 100000, sequence: 8, period: 1}"],
    ],
)
def test_the_estimate_is_above_the_count_for_ensembles_and_memories(overrides):
    config = load_config("cartpole_cleanrl", "env.num_envs=1", "schedule.train_every=1", *overrides)
    needs = memory.memory_needs(config)
    assert needs.state + needs.working < memory._generous_bytes(config)


@pytest.mark.parametrize(
    "name", mostly_slow(TRAINABLE, fast=["cartpole", "minatar/breakout", "rainbow", "cartpole_pqn"])
)
def test_the_estimate_that_spares_most_runs_the_count_is_above_it(name):
    config = load_config(name)
    needs = memory.memory_needs(config)
    estimate = memory._generous_bytes(config)
    if config.env.kwargs:  # which may be of any size
        assert estimate == math.inf
    else:
        assert needs.state + needs.working < estimate < 200 * (needs.state + needs.working) + 2**30
