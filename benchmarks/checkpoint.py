"""How much time do checkpoints at every 10% of a run, and live logs, cost?

Runs `cartpole_cleanrl.yaml` with one seed and with eight, with and without checkpoints or logs in interleaved rounds,
and reads the run time that the command reports: from the first segment to the last checkpoint, without drawing
pictures. Every run saves a checkpoint at its end; "with" adds ten checkpoints on the way, a CSV log, or CSV and
TensorBoard logs.

    python -m benchmarks.checkpoint            about 10 minutes on two cores
    python -m benchmarks.checkpoint --quick    under a minute: one seed, short runs, one round, nothing kept
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import harness

EVERY, EVERY_QUICK = 49_000, 5_000  # a tenth of the steps after the warm-up
CHOICES: dict[str, tuple[str, ...]] = {
    "neither": ("log=[]",),
    "csv": (),
    "checkpoints": (f"checkpoint.every={EVERY}",),
    "csv and tensorboard": ("log=[csv,tensorboard]",),
}
COMPARED = {
    "checkpoints every 10%": ("csv", "checkpoints"),
    "metrics.csv": ("neither", "csv"),
    "metrics.csv and TensorBoard": ("neither", "csv and tensorboard"),
}


def main() -> None:
    arguments = harness.parser(__doc__, quick="short runs, one round", rounds=7).parse_args()
    if arguments.worker:
        print(json.dumps(measure(**arguments.worker)))
        return
    rounds, counts = (1, (1,)) if arguments.quick else (arguments.rounds, (1, 8))
    print(f"{harness.machine()}; medians of {rounds}; seconds\n")
    rows = [row for seeds in counts for row in compare(seeds, rounds, quick=arguments.quick)]
    print(harness.table(rows))
    if not arguments.quick:
        print(harness.write("checkpoint", rows))


def compare(seeds: int, rounds: int, *, quick: bool) -> list[dict[str, Any]]:
    """Run all choices in turn; return one row per pair in ``COMPARED``."""
    seconds: dict[str, list[float]] = {name: [] for name in CHOICES}
    length = ["total_timesteps=60000", f"evaluation.every={EVERY_QUICK}"] if quick else ["evaluation.every=24500"]
    for _ in range(rounds):
        for name, choice in CHOICES.items():
            overrides = [f"num_seeds={seeds}", *length, *choice]
            if quick:
                overrides = [one.replace(str(EVERY), str(EVERY_QUICK)) for one in overrides]
            reply = harness.answer(harness.start(__spec__.name, {"overrides": overrides}))
            seconds[name].append(reply["seconds"])
    rows = []
    for what, (without, with_it) in COMPARED.items():
        ratios = [a / b for a, b in zip(seconds[with_it], seconds[without], strict=True)]
        rows.append(
            {
                "what": what,
                "seeds": seeds,
                "without (s)": statistics.median(seconds[without]),
                "with (s)": statistics.median(seconds[with_it]),
                "cost (%)": 100 * (statistics.median(ratios) - 1),
                "lowest (%)": 100 * (min(ratios) - 1),
                "highest (%)": 100 * (max(ratios) - 1),
            }
        )
    return rows


def measure(*, overrides: list[str]) -> dict[str, float]:
    """Return the run time of one run in seconds, without compilation, from its summary."""
    from purejaxdqn.train import main as train

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        code = train(["--config", "cartpole_cleanrl", "--out", str(folder), "--quiet", *overrides])
        if code:
            raise SystemExit(f"the run ended with exit code {code}")
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {"seconds": summary["run_seconds"]}


if __name__ == "__main__":
    sys.exit(main())
