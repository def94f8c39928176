"""Does a Bayesian search find better hyperparameters than a random search, and how close is it to the shipped config?

Runs searches of 64 trials with four seeds and 20,000 steps each over `configs/search/dqn.yaml` (four compiled
programs), with TPE and at random, alternately. The best point of each search is tested on 30 fresh seeds, the same for
both, and so is `cartpole_double.yaml` with the same number of steps. The score is the area under the curve of greedy
evaluations, divided by its length.

    python -m benchmarks.search              about 25 minutes on two cores
    python -m benchmarks.search --quick      under a minute: small searches, one repetition
    python -m benchmarks.search --out DIR    keeps the searches in DIR, and skips those that are there
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from purejaxdqn.runs.statistics import iqm

SAMPLERS = ("tpe", "random")
FIRST_SEED = 7000
"""Seed of the first repetition. Each repetition uses one seed for its trials and the next for the test; no config was
chosen with them."""


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--quick", action="store_true", help="small searches, one repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the searches here")
    arguments = parser.parse_args()
    small = arguments.quick
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.out or Path(scratch)
        rows = [
            row(
                repetition,
                folder,
                trials=4 if small else 64,
                retest=4 if small else 30,
                steps=5_000 if small else 20_000,
            )
            for repetition in range(1 if small else arguments.repetitions)
        ]
    print(harness.table(rows))
    better = sum(one["TPE"] > one["random"] for one in rows)
    near = min(one["TPE"] / one["cartpole_double.yaml"] for one in rows)
    print(f"TPE beats random in {better} of {len(rows)} repetitions; its area is at least {near:.0%} of the config's")
    if not small:
        print(harness.write("search", rows))


def row(repetition: int, folder: Path, *, trials: int, retest: int, steps: int) -> dict[str, Any]:
    """Run one repetition: both searches, and the tests on the same fresh seeds; return its row."""
    seed = FIRST_SEED + 2 * repetition
    common = ("--config", "cartpole_double", f"total_timesteps={steps}")
    searched = ("--space", "search/dqn", "--trials", str(trials), "--seeds", "4", "--batch", "8", "--objective", "auc")
    areas, seconds = {}, {}
    for sampler in SAMPLERS:
        out = folder / f"{repetition}-{sampler}"
        options = (*searched, "--sampler", sampler, "--retest", str(retest), f"seed={seed}")
        seconds[sampler] = run("search", out, (*common, *options))
        areas[sampler] = json.loads((out / "best_retest.json").read_text())["auc_iqm"]
    out = folder / f"{repetition}-shipped"
    run("sweep", out, (*common, "--seeds", str(retest), f"seed={seed + 1}"))
    with (out / "runs.csv").open(encoding="utf-8") as file:
        shipped = iqm(np.array([float(one["auc"]) for one in csv.DictReader(file)]))
    return {
        "repetition": repetition,
        "TPE": areas["tpe"],
        "random": areas["random"],
        "cartpole_double.yaml": shipped,
        "TPE / random": areas["tpe"] / areas["random"],
        "TPE / cartpole_double.yaml": areas["tpe"] / shipped,
        "TPE takes (s)": seconds["tpe"],
        "random takes (s)": seconds["random"],
    }


def run(command: str, out: Path, options: Sequence[str]) -> float:
    """Run a command unless ``out`` has its results already; return the seconds that the process took."""
    kept = out.with_suffix(".json")
    if not kept.exists():
        line = [sys.executable, "-m", f"purejaxdqn.{command}", *options, "--out", str(out), "--quiet", "--no-cache"]
        start = time.perf_counter()
        subprocess.run(line, cwd=harness.ROOT, check=True, stdout=subprocess.DEVNULL)
        kept.write_text(json.dumps(time.perf_counter() - start))
        print(f"{out.name}: {json.loads(kept.read_text()):.0f} s", file=sys.stderr, flush=True)
    return json.loads(kept.read_text())


if __name__ == "__main__":
    main()
