"""What returns does a shipped config of CartPole reach on 30 fresh seeds, and how long does one seed take?

The config is `cartpole_double`, or that of ``--config``, whose name the result files begin with.

The seeds (0 to 29 of ``seed=2026``, or of ``--seed``) were not used for choosing the config. Scores are greedy returns
of the final parameters over 100 episodes, in gymnax and in Gymnasium. Times are wall-clock seconds from the start of
the process to its end, measured in interleaved rounds with an empty and with a filled compilation cache, and with a
filled one on a single core. "Training" are the seconds of them in which the run trains and evaluates, the final
evaluation included: ``run_seconds`` in its ``summary.json``, without imports, compiling and pictures. On several cores,
what draws the pictures is imported meanwhile, and a short run waits for it; on one it is imported afterwards.

    python -m benchmarks.cartpole                          about 7 minutes on two cores
    python -m benchmarks.cartpole --config cartpole_pqn --seed 2027
                                                           the same of another config, in files of its own
    python -m benchmarks.cartpole --quick                  under a minute: 3 seeds and one timing of short runs,
                                                           nothing kept
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness

SEED = 2026
ONE_CORE = "programs cached, one core"


class Seconds(NamedTuple):
    """How long one command took."""

    process: float  # from its start to its end
    training: float  # of these, training and evaluation


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--config", default="cartpole_double")
    parser.add_argument("--seed", type=int, default=SEED, help="config key `seed`")
    arguments = parser.parse_args()
    what = ["--config", arguments.config, *(["total_timesteps=24_000"] if arguments.quick else [])]
    with tempfile.TemporaryDirectory() as folder:
        times = measure_times(what, Path(folder), rounds=1 if arguments.quick else 3)
        scores = measure_scores(what, Path(folder), seed=arguments.seed, seeds=3 if arguments.quick else 30)
    print(f"{harness.machine()}\n")
    for name, rows in tables_of(arguments.config, scores, times).items():
        print(harness.table(rows), "", sep="\n")
        if not arguments.quick:
            print(harness.write(name, rows), "", sep="\n")


def tables_of(
    config: str, scores: list[dict[str, Any]], times: list[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Return the tables by the names of their files, which differ from config to config."""
    name = config.removesuffix(".yaml").replace("/", "_")
    return {f"{name}_scores": scores, f"{name}_reached": count(scores), f"{name}_times": times}


def measure_scores(what: Sequence[str], folder: Path, *, seed: int, seeds: int) -> list[dict[str, Any]]:
    """Train all seeds and play them in both back ends, with the commands; return one row per seed."""
    run = folder / "scores"
    _command("train", *what, "--out", run, "--quiet", f"seed={seed}", f"num_seeds={seeds}")
    played = {}
    for backend in ("gymnax", "gymnasium"):
        out = _command("evaluate", run, "--backend", backend, "--seed", seed, "--json")
        played[backend] = [statistics.mean(returns) for returns in json.loads(out)["returns"]]
    solved = json.loads((run / "summary.json").read_text())["first_solved_step"]
    return [
        {
            "seed": seed,
            "seed_index": k,
            **{name: means[k] for name, means in played.items()},
            "first_solved_step": solved[k],
        }
        for k in range(seeds)
    ]


def count(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count the seeds with a mean return of 500, in each back end and in both."""
    backends = {"gymnax": ("gymnax",), "Gymnasium": ("gymnasium",), "both": ("gymnax", "gymnasium")}
    rows = []
    for name, columns in backends.items():
        worst = [min(row[column] for column in columns) for row in scores]
        perfect = sum(value == 500.0 for value in worst)
        rows.append(
            {"played in": name, "seeds at 500": f"{perfect} of {len(scores)}", "lowest seed": f"{min(worst):.4g}"}
        )
    return rows


def measure_times(what: Sequence[str], folder: Path, *, rounds: int) -> list[dict[str, Any]]:
    """Time the command for one seed in each round: with nothing cached, then with programs cached, then on one core."""
    found: dict[str, list[Seconds]] = {name: [] for name in ("nothing cached", "programs cached", ONE_CORE)}

    def measure(run: Path, cache: Path, *, on_one_core: bool) -> Seconds:
        start, env = time.perf_counter(), {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        _command("train", *what, "--out", run, "--quiet", env=env, on_one_core=on_one_core)
        process = time.perf_counter() - start
        return Seconds(process, json.loads((run / "summary.json").read_text(encoding="utf-8"))["run_seconds"])

    measure(folder / "before", folder / ONE_CORE, on_one_core=True)  # programs for one core are others
    for i in range(rounds):
        for name, seconds in found.items():
            one = name == ONE_CORE
            cache = folder / (ONE_CORE if one else f"cache{i}")
            seconds.append(measure(folder / f"{name}{i}", cache, on_one_core=one))
    return times_of(found)


def times_of(found: Mapping[str, Sequence[Seconds]]) -> list[dict[str, Any]]:
    """Return the table of times, with one row for each name."""
    rows = []
    for name, seconds in found.items():
        process, training = ([getattr(one, field) for one in seconds] for field in Seconds._fields)
        rows.append(
            {
                "run": name,
                "median (s)": statistics.median(process),
                "lowest (s)": min(process),
                "highest (s)": max(process),
                "training, median (s)": statistics.median(training),
                "training, highest (s)": max(training),
            }
        )
    return rows


def _command(name: str, *arguments: object, env: dict[str, str] | None = None, on_one_core: bool = False) -> str:
    command = [sys.executable, "-m", f"purejaxdqn.{name}", *map(str, arguments)]
    with _one_core() if on_one_core else contextlib.nullcontext():
        done = subprocess.run(
            command,
            cwd=harness.ROOT,
            env={**harness.clean_environment(), **(env or {})},
            stdout=subprocess.PIPE,
            check=True,
        )
    return done.stdout.decode()


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Keep this thread on one core meanwhile, and so what it starts: a new process inherits the cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    sys.exit(main())
