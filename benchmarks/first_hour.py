"""How long does a new user wait, from the shell prompt on?

Commands run in a pseudo-terminal, as a person would see them, with separate caches:

- first output: until the terminal shows anything, for `train` and for short commands until they end;
- first segment: until the first segment of a run has ended, and `metrics.csv` has its rows;
- saved: until `cartpole.yaml`'s command has ended, and everything is on disk, pictures included;
- longest silence: the longest time in which what the terminal shows does not change, for commands that work.

Nothing is cached, or everything is, as the names say. With `--base REV` another revision is measured, too, interleaved
with the working tree. `--seeds N` also trains `cartpole.yaml` on N fresh seeds, each in a separate process with an
empty cache: how many reach 500, and after how many seconds each was saved. The speed of a machine changes within
these minutes, so with `--base` the other revision's command is timed before and after every few seeds.

    python -m benchmarks.first_hour --base REV    about 20 minutes on two quiet cores
    python -m benchmarks.first_hour --seeds 30    and 5 minutes more, 8 with --base
    python -m benchmarks.first_hour --quick       about two minutes: one round of this tree, nothing kept
"""

import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks import harness, terminal
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
    silence: float  # the longest time in which the terminal shows the same


class Case(NamedTuple):
    """A command, and what is measured of it."""

    words: tuple[str, ...]  # after ``python -m``; ``RUN`` is a finished run, ``CUT`` one to be resumed, ``OUT`` is new
    cached: bool
    target: Mapping[str, float] = MappingProxyType({})  # seconds, by the name of the measurement
    works: bool = False  # whether it does enough for a silence to be noticed


_RUN = ("purejaxdqn.train", "--config", "cartpole")
_SMALL = ("--config", "cartpole", "--seeds", "2", "--out", "OUT", "total_timesteps=20_000")
_SILENCE = {"first output": 0.3, "longest silence": 2.0}
CASES: dict[str, Case] = {
    "train --config cartpole, nothing cached": Case(
        _RUN, False, {"first output": 0.3, "saved": 10.0, "longest silence": 2.0}, works=True
    ),
    "train --config cartpole, cached": Case(
        _RUN, True, {"first output": 0.3, "first segment": 1.5, "longest silence": 2.0}, works=True
    ),
    "train --resume, nothing cached": Case(
        ("purejaxdqn.train", "--resume", "CUT", "stop.return=null", "total_timesteps=120_000"), False, _SILENCE, True
    ),
    "sweep, nothing cached": Case(("purejaxdqn.sweep", *_SMALL, "gamma=0.98,0.99"), False, _SILENCE, True),
    "search, nothing cached": Case(
        ("purejaxdqn.search", *_SMALL, "--space", "search/dqn", "--trials", "2", "--retest", "2"), False, _SILENCE, True
    ),
    "evaluate --gif, nothing cached": Case(("purejaxdqn.evaluate", "RUN", "--gif", "OUT.gif"), False, _SILENCE, True),
    "plot": Case(("purejaxdqn.plot", "RUN"), True, _SILENCE, True),
    "report": Case(("purejaxdqn.report", "RUN"), True, _SILENCE, True),
    "export --format stablehlo": Case(
        ("purejaxdqn.export", "RUN", "--format", "stablehlo", "--out", "OUT"), True, _SILENCE, True
    ),
    "export --format onnx": Case(
        ("purejaxdqn.export", "RUN", "--format", "onnx", "--out", "OUT"), True, _SILENCE, True
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
        run(place, CASES["train --config cartpole, cached"].words, _cache(scratch, tree), scratch / tree)
    for number in range(rounds):
        for case, what in CASES.items():
            for tree, place in trees.items():
                name = f"{tree}-{number}-{list(CASES).index(case)}"
                cache = _cache(scratch, tree if what.cached else name)
                seen = run(place, what.words, cache, scratch / name, finished=scratch / tree, works=what.works)
                found.setdefault((case, tree), []).append(seen)
                print(f"{case}, {tree}: {seen}", file=sys.stderr, flush=True)
    return found


def _cache(scratch: Path, name: str) -> Path:
    return scratch / "caches" / name


def run(
    tree: Path,
    words: Sequence[str],
    cache: Path,
    folder: Path,
    *more: str,
    finished: Path | None = None,
    works: bool = False,
) -> Seen:
    """Run a command of a tree in a terminal, and watch the terminal and its run directory.

    Args:
      tree: the working tree.
      words: of the command, see ``Case``.
      cache: the directory of compiled programs.
      folder: a new directory, for ``OUT`` and for a training.
      *more: further words.
      finished: a finished run, of which the commands that need one get a copy.
      works: whether the command must not be refused; a misspelt key is.

    Raises:
      SystemExit: it failed.
    """
    trains = tuple(words) == _RUN
    places = {"OUT": folder, "OUT.gif": folder.with_suffix(".gif")}
    if finished and {"RUN", "CUT"} & set(words):
        places |= dict.fromkeys(("RUN", "CUT"), shutil.copytree(finished, folder.with_suffix(".run")))
    command = [sys.executable, "-m", *(str(places.get(word, word)) for word in words), *more]
    env = harness.clean_environment() | {
        "JAX_COMPILATION_CACHE_DIR": str(cache), "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "",
    }  # fmt: skip
    metrics, segments = folder / "metrics.csv", list[float]()

    def look(seconds: float) -> None:
        if trains and not segments and metrics.exists() and metrics.read_bytes().count(b"\n") > 1:
            segments.append(seconds)

    command += ["--out", str(folder)] if trains else []
    seen = terminal.watch(command, columns=80, env=env, cwd=tree, meanwhile=look)
    if seen.code not in (0, 2) or (seen.code and (works or trains)):
        sys.exit(f"{command} ended with {seen.code}:\n{seen.output[-2000:]}")
    first = seen.frames[0].seconds if seen.frames else seen.ended
    return Seen(first, segments[0] if segments else None, seen.ended, seen.silence)


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
            if (name == "first segment" and not trains) or (name == "longest silence" and not what.works):
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
