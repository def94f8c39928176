"""What ``minatar/breakout.yaml`` reaches within 500,000 environment steps, on a CPU.

Scores are greedy returns of the final parameters over 100 episodes, for seeds 0 to N - 1 of ``seed=2026``.

    python -m benchmarks.minatar                      two seeds, about 6 minutes on two cores
    python -m benchmarks.minatar --quick              a hundredth of the steps
    python -m benchmarks.minatar --preset rainbow     with a preset laid over it
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import harness

SEED = 2026
STEPS, QUICK_STEPS = 500_000, 15_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--preset", action="append", default=[])
    arguments = parser.parse_args()
    rows = measure(arguments.preset, seeds=arguments.seeds, steps=QUICK_STEPS if arguments.quick else STEPS)
    print(f"{harness.machine()}\n")
    print(harness.table(rows))
    mean = statistics.mean(row["final_eval_return"] for row in rows)
    print(f"mean greedy return {mean:.2f} (asked: 5)")
    if not arguments.quick:
        print(harness.write("_".join(["minatar_breakout", *arguments.preset]), rows))


def measure(presets: list[str], *, seeds: int, steps: int) -> list[dict[str, Any]]:
    """Train with the command; a row a seed."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        configs = [word for name in ("minatar/breakout", *presets) for word in ("--config", name)]
        overrides = [f"seed={SEED}", f"num_seeds={seeds}", f"total_timesteps={steps}"]
        command = [sys.executable, "-m", "purejaxdqn.train", *configs, "--out", str(run), "--quiet", *overrides]
        subprocess.run(command, cwd=harness.ROOT, check=True)
        summary = json.loads((run / "summary.json").read_text())
    return [
        {
            "presets": " ".join(presets) or "none",
            "seed": SEED,
            "seed_index": k,
            "env_steps": steps,
            "final_eval_return": score,
            "training_return": summary["training_return"][k],
            "run_seconds": summary["run_seconds"],
        }
        for k, score in enumerate(summary["final_eval_return"])
    ]


if __name__ == "__main__":
    main()
