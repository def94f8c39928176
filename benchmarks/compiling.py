"""How long does a run take before its first step, with nothing cached and with its programs cached?

`python -m purejaxdqn.train` with a cache of its own, twice in turn for every config: what the command imports, and how
long it waits until everything is traced, lowered and compiled, as its `summary.json` says. The final evaluation's
program is compiled while the first segments run; what a run has to wait for it at its end counts. Presets are laid over
`cartpole_cleanrl.yaml`; runs are cut short.

    python -m benchmarks.compiling            10 minutes on two cores
    python -m benchmarks.compiling --quick    plain DQN, one round
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.guard import PRESETS

_SLOW = ("iqn", "fqf")
CASES: dict[str, tuple[str, ...]] = {
    "cartpole": ("cartpole", "total_timesteps=40_000"),
    **{
        preset: ("cartpole_cleanrl", preset, f"total_timesteps={20_000 if preset in _SLOW else 40_000}")
        for preset in PRESETS
    },
    "minatar/breakout": ("minatar/breakout", "total_timesteps=20_000"),
}
"""Runs of a second or more, which is longer than what is compiled meanwhile."""
ASKED = {"cartpole": (4.0, 2.0)}
"""Seconds to compile, cold and cached."""
ASKED_OF_OTHERS = 8.0
"""Seconds to compile, cold."""


def main() -> None:
    arguments = harness.parser(__doc__, quick="plain DQN, one round", rounds=3).parse_args()
    names, rounds = (["dqn"], 1) if arguments.quick else (list(CASES), arguments.rounds)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, replies in found.items():
            with tempfile.TemporaryDirectory() as scratch:
                cold, cached = (measure(CASES[name], Path(scratch), place) for place in ("cold", "cached"))
            replies.append({"import": cold[0], "cold": cold[1], "import, cached": cached[0], "cached": cached[1]})
    rows = []
    for name, replies in found.items():
        row: dict[str, Any] = {"config": name}
        row["import (s)"] = statistics.median(reply["import, cached"] for reply in replies)
        row["compile, nothing cached (s)"] = statistics.median(reply["cold"] for reply in replies)
        row["asked"] = ASKED.get(name, (ASKED_OF_OTHERS, ""))[0]
        row["compile, cached (s)"] = statistics.median(reply["cached"] for reply in replies)
        row["asked, cached"] = ASKED.get(name, (0, ""))[1]
        rows.append(row)
    print(f"{harness.machine()}; medians of {rounds} rounds in turn\n")
    print(harness.table(rows))
    if not arguments.quick:
        print(harness.write("compiling", rows))


def measure(case: tuple[str, ...], scratch: Path, place: str) -> tuple[float, float]:
    """Run the command with the cache in ``scratch`` -> seconds to import, seconds to compile."""
    configs = [option for name in case[:-1] for option in ("--config", name)]
    command = [sys.executable, "-m", "purejaxdqn.train", *configs, "--quiet", "--out", str(scratch / place), case[-1]]
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(scratch / "cache")}
    subprocess.run(command, cwd=harness.ROOT, env=env, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    summary = json.loads((scratch / place / "summary.json").read_text())
    return summary["import_seconds"], summary["compile_seconds"]


if __name__ == "__main__":
    main()
