"""How long does a run take before its first step, with an empty compilation cache and with a filled one?

Runs `python -m purejaxdqn.train` twice for every config, in interleaved rounds, with a separate cache, and reads from
`summary.json` how long the run spent on imports and how long it waited for tracing, lowering and compiling. The
program of the final evaluation is compiled while the first segments run; if a run waits for it at its end, that time
counts. "All compiled" is the time to compile all programs, including that one, while nothing else runs. Presets are
applied to `cartpole_cleanrl.yaml`; runs are shortened.

    python -m benchmarks.compiling            15 minutes on two cores
    python -m benchmarks.compiling --base REV    imports and compilation beside those of another revision: 10 minutes
    python -m benchmarks.compiling --quick    plain DQN, one round
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.guard import PRESETS
from benchmarks.same_bits import check_out

_SLOW = ("iqn", "fqf")
CASES: dict[str, tuple[str, ...]] = {
    "cartpole_double": ("cartpole_double", "total_timesteps=40_000"),
    **{
        preset: ("cartpole_cleanrl", preset, f"total_timesteps={20_000 if preset in _SLOW else 40_000}")
        for preset in PRESETS
    },
    "minatar/breakout": ("minatar/breakout", "total_timesteps=20_000"),
}
"""Runs of a second or more, so that the background compilation of the final evaluation finishes during the run."""
TARGETS = {"cartpole_double": (4.0, 2.0)}
"""This project's targets for compilation in seconds, with an empty cache and with a filled one."""
COMPARED = ("dqn", "per", "rainbow", "iqn", "minatar/breakout")
"""Cases that are measured in turn with another revision."""
DEFAULT_TARGET = 8.0
"""Target for the other configs, with an empty cache."""


def main() -> None:
    parser = harness.parser(__doc__, quick="plain DQN, one round", rounds=3)
    parser.add_argument("--base", metavar="REV", help="another revision to measure in turn")
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure_all(**arguments.worker)))
        return
    if arguments.base:
        names, rounds = (COMPARED[:1], 1) if arguments.quick else (COMPARED, arguments.rounds)
        hold_against(arguments.base, names, rounds=rounds, keep=not arguments.quick)
        return
    names, rounds = (["dqn"], 1) if arguments.quick else (list(CASES), arguments.rounds)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, replies in found.items():
            with tempfile.TemporaryDirectory() as scratch:
                cold, cached = (measure(CASES[name], Path(scratch), place) for place in ("cold", "cached"))
            whole = harness.answer(harness.start(__spec__.name, {"case": CASES[name]}))["seconds"]
            replies.append({"import": cached[0], "cold": cold[1], "cached": cached[1], "whole": whole})
    rows = []
    for name, replies in found.items():
        row: dict[str, Any] = {"config": name}
        row["import (s)"] = statistics.median(reply["import"] for reply in replies)
        row["compile, nothing cached (s)"] = statistics.median(reply["cold"] for reply in replies)
        row["lowest"] = min(reply["cold"] for reply in replies)
        row["highest"] = max(reply["cold"] for reply in replies)
        row["all compiled (s)"] = statistics.median(reply["whole"] for reply in replies)
        row["target"] = TARGETS.get(name, (DEFAULT_TARGET, ""))[0]
        row["compile, cached (s)"] = statistics.median(reply["cached"] for reply in replies)
        row["target, cached"] = TARGETS.get(name, (0, ""))[1]
        rows.append(row)
    print(f"{harness.machine()}; medians of {rounds} interleaved rounds\n")
    print(harness.table(rows))
    if not arguments.quick:
        print(harness.write("compiling", rows))


def hold_against(base: str, names: Sequence[str], *, rounds: int, keep: bool) -> None:
    """Time the imports and compilation of these cases in today's tree and in another revision; print the table.

    Args:
      base: the other revision.
      names: of cases.
      rounds: interleaved ones, of which medians are taken.
      keep: whether to write ``results/compiling_base.csv``.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        trees = {"today": harness.ROOT, base: Path(folder) / "base"}
        check_out(base, trees[base])
        for _ in range(rounds):
            for name in names:
                for revision, tree in trees.items():
                    with tempfile.TemporaryDirectory() as scratch:
                        numbers = measure(CASES[name], Path(scratch), "cold", tree)
                    found.setdefault((name, revision), []).append(numbers)
    rows = []
    for name in names:
        row: dict[str, Any] = {"config": name}
        for place, what in enumerate(("import", "compile, nothing cached")):
            today, before = ([one[place] for one in found[name, revision]] for revision in trees)
            row[f"{what} (s)"] = statistics.median(today)
            row[f"{what}, {base} (s)"] = statistics.median(before)
            row[f"{what}, ratio"] = statistics.median(a / b for a, b in zip(today, before, strict=True))
        rows.append(row)
    print(f"{harness.machine()}; medians of {rounds} interleaved rounds\n")
    print(harness.table(rows))
    if keep:
        print(harness.write("compiling_base", rows))


def measure(case: tuple[str, ...], scratch: Path, place: str, tree: Path = harness.ROOT) -> tuple[float, float]:
    """Run the command with a cache in ``scratch``; return its import time and its compile time in seconds."""
    configs = [option for name in case[:-1] for option in ("--config", name)]
    command = [sys.executable, "-m", "purejaxdqn.train", *configs, "--quiet", "--out", str(scratch / place), case[-1]]
    env = harness.clean_environment() | {"JAX_COMPILATION_CACHE_DIR": str(scratch / "cache")}
    subprocess.run(command, cwd=tree, env=env, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    summary = json.loads((scratch / place / "summary.json").read_text())
    return summary["import_seconds"], summary["compile_seconds"]


def measure_all(*, case: list[str]) -> dict[str, float]:
    """Trace, lower and compile all programs of a run without a cache; return the time in seconds."""
    from purejaxdqn.config.reading import read_config
    from purejaxdqn.core.plan import make_plan
    from purejaxdqn.runs.training import choose_segments, compile_training, seeds_of
    from purejaxdqn.system.runtime import configure_cpu_for

    draft = read_config(case[:-1], case[-1:])
    configure_cpu_for(draft.config)
    config = draft.checked()
    start = time.perf_counter()
    training = compile_training(config, seeds_of(config), segments=choose_segments(make_plan(config).epochs, None))
    training.finish.wait()
    return {"seconds": time.perf_counter() - start}


if __name__ == "__main__":
    main()
