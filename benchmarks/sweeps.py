"""Do sweeps use the whole machine? Compares the environment steps per second of many runs with those of one.

Runs `cartpole_cleanrl.yaml` with the commands, each in a separate process, in interleaved rounds: `train` with one
seed; a sweep of one point with thirty seeds; a sweep of sixteen points with two seeds. Times include everything except
compilation.

    python -m benchmarks.sweeps            about 10 minutes on two cores
    python -m benchmarks.sweeps --quick    under a minute: shorter runs, one round, nothing kept
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import harness

RATES = ",".join(f"{rate:.6g}" for rate in (1e-4 * 10 ** (k / 7.5) for k in range(16)))
CHOICES: dict[str, list[str]] = {
    "train, one seed": ["train"],
    "sweep, 1 point x 30 seeds": ["sweep", "--seeds", "30"],
    "sweep, 16 points x 2 seeds": ["sweep", "--seeds", "2", f"optimizer.learning_rate={RATES}"],
}


def main() -> None:
    arguments = harness.parser(__doc__, quick="short runs, one round", rounds=3).parse_args()
    rounds, steps = (1, 30_000) if arguments.quick else (arguments.rounds, 255_000)
    rates: dict[str, list[float]] = {name: [] for name in CHOICES}
    for _ in range(rounds):
        for name, choice in CHOICES.items():
            rates[name].append(rate(choice, steps))
            print(f"{name}: {rates[name][-1]:,.0f}", file=sys.stderr, flush=True)
    alone = rates["train, one seed"]
    rows = [
        {
            "work": name,
            "environment steps a second": statistics.median(mine),
            "to one seed": statistics.median(a / b for a, b in zip(mine, alone, strict=True)),
            "lowest": min(a / b for a, b in zip(mine, alone, strict=True)),
            "highest": max(a / b for a, b in zip(mine, alone, strict=True)),
        }
        for name, mine in rates.items()
    ]
    print(harness.table(rows))
    if not arguments.quick:
        print(harness.write("sweeps", rows))


def rate(choice: list[str], steps: int) -> float:
    """Run a command; return its environment steps per second, from its ``summary.json``."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        command, *options = choice
        line = [sys.executable, "-m", f"purejaxdqn.{command}", "--config", "cartpole_cleanrl", "--out", str(out)]
        subprocess.run([*line, f"total_timesteps={steps}", *options], cwd=harness.ROOT, check=True, capture_output=True)
        return float(json.loads((out / "summary.json").read_text())["env_steps_per_second"])


if __name__ == "__main__":
    main()
