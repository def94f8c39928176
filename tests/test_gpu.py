"""The GPU benchmark's script: what it refuses, and (slow) its rehearsal on whatever there is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu, harness, solved

ROOT = Path(__file__).parents[1]


def gpu_script(*options):
    line = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), *map(str, options)]
    env = {**os.environ, "PYTHON": sys.executable, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiles faster
    return subprocess.run(line, capture_output=True, text=True, check=False, env=env)


@pytest.mark.parametrize("options", [("--wheel", "x"), ("--wheels", ROOT / "configs"), ("--out",)])
def test_one_line_and_code_2_for_what_it_cannot_take(options):
    run = gpu_script(*options)
    assert (run.returncode, run.stdout) == (2, "")
    assert len(run.stderr.splitlines()) == 1
    assert options[0] in run.stderr


def test_pins_are_names_and_versions():
    for name in ("gpu", "gpu_rejax", "torch", "rejax"):
        lines = (ROOT / "benchmarks" / "baselines" / f"{name}.txt").read_text().splitlines()
        assert lines
        assert all(line.count("==") == 1 and " " not in line and "/" not in line for line in lines)


@pytest.mark.parametrize("gain", [1.5, 0.9])
def test_the_best_number_of_seeds_is_measured_again_with_faster_products_that_nothing_is_asked_of(monkeypatch, gain):
    rates = {"num_seeds=1": 1e6, "num_seeds=8": 3e6, "num_seeds=64": 2e6}

    def reply(task):
        seeds, *precision = task["overrides"]
        assert precision in ([], ["precision=default"])
        return {"rate": rates[seeds] * (gain if precision else 1.0), "compile_seconds": 1.0, "peak": 1e9}

    monkeypatch.setattr(harness, "start", lambda module, task: reply(task))
    report = gpu.Report(seconds=60.0)
    report.ask = lambda what, process: process()
    gpu.scale(report, gpu.FULL._replace(seeds=(1, 8, 64)))
    assert [row["what"] for row in report.rows] == ["1 seeds", "8 seeds", "64 seeds", "8 seeds, precision default"]
    assert [row["what"] for row in report.rows if row["target"]] == ["8 seeds"]


def test_pqn_is_measured_for_seeds_and_environments_up_to_thousands(monkeypatch):
    asked = []

    def start(module, task):
        asked.append((module, task["seeds"], task["environments"]))
        return {"rate": 1e6, "compile_seconds": 1.0, "peak": 1e9}

    monkeypatch.setattr(harness, "start", start)
    report = gpu.Report(seconds=60.0)
    report.ask = lambda what, process: process()
    gpu.scale_pqn(report, gpu.FULL)
    assert asked == [("benchmarks.scaling", *pair) for pair in gpu.FULL.pqn]
    assert [row["seeds"] for row in report.rows] == [seeds for seeds, _ in gpu.FULL.pqn]
    assert len(report.parts["PQN"]) == len(gpu.FULL.pqn)
    assert (1_024, 4_096) in gpu.FULL.pqn


def test_pictures_with_replay_are_measured_for_numbers_of_seeds(monkeypatch):
    asked = []
    reply = {"rate": 1e6, "compile_seconds": 1.0, "peak": 1e9}
    monkeypatch.setattr(harness, "start", lambda module, task: asked.append((module, task)) or reply)
    report = gpu.Report(seconds=60.0)
    report.ask = lambda what, process: process()
    gpu.scale_pictures(report, gpu.FULL)
    assert asked == [
        ("benchmarks.scaling", {"game": "breakout", "seeds": seeds, "periods": gpu.FULL.periods})
        for seeds in gpu.FULL.pictures
    ]
    assert [(row["part"], row["seeds"]) for row in report.rows] == [("Breakout", seeds) for seeds in gpu.FULL.pictures]
    assert {1, 8, 30} <= set(gpu.FULL.pictures)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task", [{"seeds": 2, "environments": 32, "rollouts": 2}, {"game": "breakout", "seeds": 1, "periods": 1}]
)
def test_a_case_beside_scaling_is_measured(task):
    reply = harness.answer(harness.start("benchmarks.scaling", task), timeout=200)
    assert set(reply) == {"rate", "compile_seconds", "peak"}
    assert all(value > 0 for value in reply.values())


def test_an_agent_that_is_not_solved_in_the_time_left_is_left_out(monkeypatch):
    point = solved.Point
    curves = {
        "scan and cond": [],
        "JAX loop": [point(7.0, 5_000, 20.0)],
        "purejaxdqn": [point(7.0, 5_000, 200.0), point(8.0, 10_000, 480.0)],
    }
    names = tuple(curves)
    asked = []

    def train(contender, seed, cache, *, seconds):
        asked.append(seconds)
        return curves.pop(next(name for name, one in solved.CONTENDERS.items() if one == contender))

    monkeypatch.setattr(solved, "train", train)
    report = gpu.Report(seconds=60.0)
    gpu.time_to_solved(report, gpu.FULL._replace(solved=names))
    assert [(row["what"], row["environment steps a second"]) for row in report.rows] == [
        ("purejaxdqn, after 8.0 s", 1_250)
    ]
    assert report.left_out == {f"solved: {name}": "not solved in the time left" for name in names[:2]}
    assert all(50 < seconds <= 60 for seconds in asked)
    report.deadline = report.start
    gpu.time_to_solved(report, gpu.FULL)
    assert all(report.left_out[f"solved: {name}"] == "no time left" for name in gpu.FULL.solved)


def test_a_contender_that_takes_too_long_is_stopped(monkeypatch, tmp_path):
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    start = subprocess.Popen
    monkeypatch.setattr(solved.subprocess, "Popen", lambda line, **options: start(sleeper, **options))
    assert solved.train(solved.CONTENDERS["purejaxdqn"], 0, tmp_path, seconds=0.2) == []


@pytest.mark.slow
def test_the_rehearsal_measures_every_part(tmp_path):
    """Three minutes: ``python -m pytest -m slow tests/test_gpu.py``."""
    run = gpu_script("--rehearse", "--out", tmp_path)
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    parts = {row["part"] for row in found["table"]}
    assert parts == {"scaling", "population", "peers", "PQN", "Breakout", "limit", "solved", "scaling, one axis"}
    lacking = ("rejax", "PyTorch", "Stable-Baselines3")  # those that need packages beside this project's
    assert all(any(name in what for name in lacking) for what in found["left_out"])
    assert all(row["environment steps a second"] > 0 for row in found["table"])
    assert (tmp_path / "gpu.md").read_text().count("\n| ") == len(found["table"]) + 2
