"""What the shipped CartPole config reaches: 30 fresh seeds in both back ends, and the time of one seed.

The seeds (0 to 29 of ``seed=2026``) were not used for choosing the config. Scores are greedy returns of the final
parameters over 100 episodes in gymnax and in Gymnasium. Times are wall seconds from the start of the process to its
end, with nothing cached and with the programs cached, in turn.

    python -m benchmarks.cartpole            about 6 minutes on two cores
    python -m benchmarks.cartpole --quick    3 seeds, one timing
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import harness

SEED = 2026


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--config", default="cartpole")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = measure_times(arguments.config, Path(folder), rounds=1 if arguments.quick else 3)
        scores = measure_scores(arguments.config, Path(folder), seeds=3 if arguments.quick else 30)
    perfect = {name: sum(row[name] == 500.0 for row in scores) for name in ("gymnax", "gymnasium")}
    both = sum(row["gymnax"] == row["gymnasium"] == 500.0 for row in scores)
    print(f"{harness.machine()}\n")
    print(harness.table(scores), "", harness.table(times), "", sep="\n")
    print(f"500.0 over 100 episodes: {perfect} of {len(scores)} seeds, {both} in both")
    if not arguments.quick:
        print(harness.write("cartpole_scores", scores), harness.write("cartpole_times", times))


def measure_scores(config: str, folder: Path, *, seeds: int) -> list[dict[str, Any]]:
    """Train all seeds with the command, and play them in both back ends with it."""
    run = folder / "scores"
    _command("train", "--config", config, "--out", run, "--quiet", f"seed={SEED}", f"num_seeds={seeds}")
    played = {}
    for backend in ("gymnax", "gymnasium"):
        out = _command("evaluate", run, "--backend", backend, "--seed", SEED, "--json")
        played[backend] = [statistics.mean(returns) for returns in json.loads(out)["returns"]]
    solved = json.loads((run / "summary.json").read_text())["first_solved_step"]
    return [
        {
            "seed": SEED,
            "seed_index": k,
            **{name: means[k] for name, means in played.items()},
            "first_solved_step": solved[k],
        }
        for k in range(seeds)
    ]


def measure_times(config: str, folder: Path, *, rounds: int) -> list[dict[str, Any]]:
    """One seed, cold and cached in turn, each round with an empty cache."""
    found: dict[str, list[float]] = {"nothing cached": [], "programs cached": []}
    for i in range(rounds):
        cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / f"cache{i}")}
        for name, seconds in found.items():
            start = time.perf_counter()
            _command("train", "--config", config, "--out", folder / f"{name}{i}", "--quiet", env=cache)
            seconds.append(time.perf_counter() - start)
    return [
        {"run": name, "median (s)": statistics.median(seconds), "lowest (s)": min(seconds), "highest (s)": max(seconds)}
        for name, seconds in found.items()
    ]


def _command(name: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-m", f"purejaxdqn.{name}", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=harness.ROOT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, check=True
    )
    return done.stdout.decode()


if __name__ == "__main__":
    sys.exit(main())
