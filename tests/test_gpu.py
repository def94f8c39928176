"""The GPU benchmark's script: what it refuses, and (slow) its rehearsal on whatever there is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu, harness

ROOT = Path(__file__).parents[1]


def gpu_script(*options):
    line = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), *map(str, options)]
    env = {**os.environ, "PYTHON": sys.executable}
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
    assert [row["what"] for row in report.rows if row["asked"]] == ["8 seeds"]


@pytest.mark.slow
def test_the_rehearsal_measures_every_part(tmp_path):
    """Two minutes: ``python -m pytest -m slow tests/test_gpu.py``."""
    run = gpu_script("--rehearse", "--out", tmp_path)
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    parts = {row["part"] for row in found["table"]}
    assert parts == {"scaling", "population", "peers", "limit", "scaling, one axis"}
    lacking = ("rejax", "PyTorch", "Stable-Baselines3")  # those that need packages beside this project's
    assert all(any(name in what for name in lacking) for what in found["left_out"])
    assert all(row["environment steps a second"] > 0 for row in found["table"])
    assert (tmp_path / "gpu.md").read_text().count("\n| ") == len(found["table"]) + 2
