"""How long does a new user wait, from the shell prompt on?

Commands run in a pseudo-terminal, as a person would see them, with separate caches:

- first output: until the terminal shows anything, for `train` and for short commands until they end;
- first segment: until the first segment of a run has ended, and `metrics.csv` has its rows;
- saved: until `cartpole.yaml`'s command has ended, and everything is on disk, pictures included;
- longest silence: the longest time in such a run in which the terminal does not change.

Nothing is cached, or everything is, as the names say. With `--base REV` another revision is measured, too, interleaved
with the working tree. `--seeds N` also trains `cartpole.yaml` on N fresh seeds, each in a separate process with an
empty cache: how many reach 500, and after how many seconds each was saved. The speed of a machine changes within
these minutes, so with `--base` the other revision's command is timed before and after every few seeds.

    python -m benchmarks.first_hour --base REV    8 minutes on two quiet cores
    python -m benchmarks.first_hour --seeds 30    and 5 minutes more, 8 with --base
    python -m benchmarks.first_hour --quick       under a minute: one round of this tree, nothing kept
"""

import json
import os
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks import harness
from benchmarks.same_bits import check_out

SEED = 2190
"""Config key ``seed`` of the first of the fresh seeds; no search uses it."""
GROUP = 5
"""So many fresh seeds are trained between two runs of the other revision."""


class Seen(NamedTuple):
    """What happened in a terminal; seconds from the start of the process."""

    first_output: float
    first_segment: float | None
    ended: float
    silence: float  # the longest time without output


class Case(NamedTuple):
    """A command, and what is measured of it."""

    words: tuple[str, ...]  # after ``python -m``; a run is a command that has --config and no option that ends it
    cached: bool
    target: Mapping[str, float] = MappingProxyType({})  # seconds, by the name of the measurement


_RUN = ("purejaxdqn.train", "--config", "cartpole")
CASES: dict[str, Case] = {
    "train --config cartpole, nothing cached": Case(
        _RUN, False, {"first output": 0.3, "saved": 10.0, "longest silence": 2.0}
    ),
    "train --config cartpole, cached": Case(
        _RUN, True, {"first output": 0.3, "first segment": 1.5, "longest silence": 2.0}
    ),
    "train --help": Case(("purejaxdqn.train", "--help"), True),
    "train --list-configs": Case(("purejaxdqn.train", "--list-configs"), True),
    "train --print-config": Case((*_RUN, "--print-config", "total_timesteps=1e6"), True),
    "a misspelt key": Case((*_RUN, "optimizer.learning_rat=1"), True),
    "purejaxdqn --help": Case(("purejaxdqn", "--help"), True),
    "envs": Case(("purejaxdqn.envs",), True),
}


def main() -> None:
    parser = harness.parser(__doc__, quick="one round of this tree, nothing kept", rounds=5)
    parser.add_argument("--base", metavar="REV", help="another revision to measure in turn")
    parser.add_argument("--seeds", type=harness.positive, metavar="N", help="also: the score of so many fresh seeds")
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory() as folder:
        trees = {"today": harness.ROOT}
        if arguments.base:
            trees[arguments.base] = Path(folder) / "base"
            check_out(arguments.base, trees[arguments.base])
        found = measure(trees, rounds, Path(folder))
        seeds = score_seeds(arguments.seeds, Path(folder), trees.get(arguments.base)) if arguments.seeds else []
    print(f"{harness.machine()}; {rounds} interleaved rounds\n")
    for name, rows in {"first_hour": summarise(found), "first_hour_seeds": seeds}.items():
        if rows:
            print(harness.table(rows), "", sep="\n")
            if not arguments.quick:
                print(harness.write(name, rows), "", sep="\n")


def measure(trees: dict[str, Path], rounds: int, scratch: Path) -> dict[tuple[str, str], list[Seen]]:
    """Time every case in every tree, in turn -> by case and tree, one for each round."""
    found: dict[tuple[str, str], list[Seen]] = {}
    for tree, place in trees.items():  # what is cached is compiled before the clock runs
        run(place, CASES["train --config cartpole, cached"].words, _cache(scratch, tree), scratch / f"first-{tree}")
    for number in range(rounds):
        for case, what in CASES.items():
            for tree, place in trees.items():
                name = f"{tree}-{number}-{list(CASES).index(case)}"
                cache = _cache(scratch, tree if what.cached else name)
                seen = run(place, what.words, cache, scratch / name)
                found.setdefault((case, tree), []).append(seen)
                print(f"{case}, {tree}: {seen}", file=sys.stderr, flush=True)
    return found


def _cache(scratch: Path, name: str) -> Path:
    return scratch / "caches" / name


def run(tree: Path, words: Sequence[str], cache: Path, folder: Path, *more: str) -> Seen:
    """Run a command of a tree in a terminal, and watch the terminal and its run directory.

    Raises:
      SystemExit: it failed; a misspelt key is expected to be refused.
    """
    trains = tuple(words) == _RUN
    command = [sys.executable, "-m", *words, *more, *(["--out", str(folder)] if trains else [])]
    env = harness.clean_environment() | {
        "JAX_COMPILATION_CACHE_DIR": str(cache), "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "", "TERM": "xterm", "COLUMNS": "80", "LINES": "24",
    }  # fmt: skip
    master, slave = pty.openpty()
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=tree, env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    times, segment = [0.0], None
    metrics = folder / "metrics.csv"
    text = b""
    while True:
        ready, _, _ = select.select([master], [], [], 0.005)
        now = time.perf_counter() - start
        if segment is None and trains and metrics.exists() and metrics.read_bytes().count(b"\n") > 1:
            segment = now
        if ready:
            try:
                piece = os.read(master, 65536)
            except OSError:  # Linux: the other end is closed
                piece = b""
            if not piece:
                break
            text += piece
            times.append(now)
    code, ended = process.wait(), time.perf_counter() - start
    os.close(master)
    if code not in (0, 2) or (trains and code):
        sys.exit(f"{command} ended with {code}:\n{text.decode(errors='replace')[-2000:]}")
    gaps = [after - before for before, after in zip(times, [*times[1:], ended], strict=True)]
    return Seen(times[1] if len(times) > 1 else ended, segment, ended, max(gaps))


_MEASUREMENTS: dict[str, Callable[[Seen], float | None]] = {
    "first output": lambda seen: seen.first_output,
    "first segment": lambda seen: seen.first_segment,
    "saved": lambda seen: seen.ended,
    "longest silence": lambda seen: seen.silence,
}


def summarise(found: dict[tuple[str, str], list[Seen]]) -> list[dict[str, Any]]:
    """A row for each measurement of each case, with a column for each tree."""
    rows: list[dict[str, Any]] = []
    trees = list(dict.fromkeys(tree for _, tree in found))
    for case, what in CASES.items():
        trains = found[case, trees[0]][0].first_segment is not None
        for name, of in _MEASUREMENTS.items():
            if not trains and name in ("first segment", "longest silence"):
                continue
            row: dict[str, Any] = {"command": case, "seconds until": name if trains or name != "saved" else "its end"}
            for tree in trees:
                seconds = [value for seen in found[case, tree] if (value := of(seen)) is not None]
                row[tree] = statistics.median(seconds)
                row[f"{tree}, slowest"] = max(seconds)
            rows.append(row | {"target": what.target.get(name, "")})
    return rows


def score_seeds(count: int, scratch: Path, base: Path | None = None) -> list[dict[str, Any]]:
    """Train ``cartpole.yaml`` with ``count`` seeds, one after another, nothing cached -> one row for each.

    A tree ``base`` trains its own ``cartpole.yaml`` in between; the ratio is to the mean of its two runs that are
    nearest.
    """
    rows: list[dict[str, Any]] = []
    others: list[float] = []

    def time_base() -> None:
        if base:
            name = f"base-{len(others)}"
            others.append(run(base, _RUN, _cache(scratch, name), scratch / name).ended)
            print(f"the other revision: {others[-1]:.2f} s", file=sys.stderr, flush=True)

    for k in range(count):
        if k % GROUP == 0:
            time_base()
        folder = scratch / f"seed-{k}"
        seen = run(harness.ROOT, _RUN, _cache(scratch, f"seed-{k}"), folder, f"seed={SEED + k}")
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        rows.append(
            {
                "seed": SEED + k,
                "greedy return": summary["final_eval_return"][0],
                "seconds until saved": round(seen.ended, 2),
                "stopped at": summary.get("stopped_at") or "",
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    time_base()
    for k, row in enumerate(rows if base else []):
        beside = statistics.mean(others[k // GROUP : k // GROUP + 2])
        row |= {"other revision": round(beside, 2), "ratio": round(row["seconds until saved"] / beside, 3)}
    best = [row for row in rows if row["greedy return"] == 500.0]
    in_time = [row for row in best if row["seconds until saved"] <= 10.0]
    print(f"{len(best)} of {count} seeds at 500, {len(in_time)} of them within ten seconds")
    return rows


if __name__ == "__main__":
    main()
