"""How close is a run to the limit of its matrix products, and which number of threads is faster for which network?

The limit ("floor", as a floor of the time) is the rate of environment steps at which NumPy, on one core, computes only
the matrix products of an update: forward through the target network, forward and backward through the online network.
Our rate is that of a whole run of the command: warm-up, acting, environment, replay, optimiser and evaluation.

With `--revisions`, two revisions are measured in turn instead, by the processor's clock, which other programs on the
machine disturb less than that of the wall.

    python -m benchmarks.throughput            about 11 minutes on two cores
    python -m benchmarks.throughput --revisions OLD NEW    6 minutes
    python -m benchmarks.throughput --quick    under a minute
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.same_bits import check_out

CLEANRL: tuple[str, ...] = ()
WORKLOADS = {
    "120-84, batch 128": CLEANRL,
    "256-256, batch 128": ("network.hidden=[256,256]",),
    "512-512, batch 256": ("network.hidden=[512,512]", "replay.batch_size=256"),
}
STEPS = {"120-84, batch 128": 100_000, "256-256, batch 128": 50_000, "512-512, batch 256": 20_000}

REVISIONS = {
    "cartpole_cleanrl": ("total_timesteps=110_000", "evaluation={every: 100_000, episodes: 1, final_episodes: 1}"),
    "minatar/breakout": ("total_timesteps=50_000", "evaluation={every: 40_000, episodes: 1, final_episodes: 1}"),
}
REVISIONS |= {f"{config}+per": overrides for config, overrides in REVISIONS.items()}
"""What is measured in two revisions, with uniform and with prioritised replay."""
_RATE = """
import json, sys, time
time.perf_counter = time.process_time
from benchmarks.throughput import ours
print(ours(**json.loads(sys.argv[1]))["learning_rate"])
"""
"""The program of a revision's process: environment steps in a second of the processor's time, while learning."""


def main() -> None:
    parser = harness.parser(__doc__, quick="short runs, one round, small networks only", rounds=3)
    parser.add_argument("--part", choices=("floor", "threads"), help="only one of the two tables")
    parser.add_argument("--revisions", nargs=2, metavar=("OLD", "NEW"), help="two revisions to measure in turn")
    arguments = parser.parse_args()
    if arguments.worker:
        work = floor if arguments.worker.pop("kind") == "floor" else ours
        print(json.dumps(work(**arguments.worker)))
        return
    rounds = 1 if arguments.quick else arguments.rounds
    if arguments.revisions:
        rows = compare_revisions(*arguments.revisions, rounds=rounds)
        print(harness.table(rows))
        if not arguments.quick:
            print(harness.write("throughput_revisions", rows))
        return
    names = list(WORKLOADS)[: 1 if arguments.quick else None]
    parts = {
        "floor": lambda: measure_distance(rounds, steps=100_000 if arguments.quick else 500_000),
        "threads": lambda: measure_threads(rounds, names, quick=arguments.quick),
    }
    print(f"{harness.machine()}; medians of {rounds}; environment steps a second\n")
    for name in [arguments.part] if arguments.part else parts:
        rows = parts[name]()
        print(harness.table(rows), flush=True)
        if not arguments.quick:
            print(harness.write(f"throughput_{name}", rows), flush=True)


def compare_revisions(old: str, new: str, *, rounds: int) -> list[dict[str, Any]]:
    """Measure the configs of ``REVISIONS`` in two revisions, in turn, with one seed."""
    found: dict[str, list[tuple[float, float]]] = {config: [] for config in REVISIONS}
    with tempfile.TemporaryDirectory() as folder:
        trees = [Path(folder) / place for place in ("old", "new")]
        for revision, tree in zip((old, new), trees, strict=True):
            check_out(revision, tree)
        for _ in range(rounds):
            for config, overrides in REVISIONS.items():
                before, after = (_rate_in(tree, config, overrides) for tree in trees)
                found[config].append((before, after))
    return [
        {
            "config": config,
            "old": old,
            "new": new,
            "old, steps a second": statistics.median(before for before, _ in rates),
            "new, steps a second": statistics.median(after for _, after in rates),
            "ratio": statistics.median(ratios := [after / before for before, after in rates]),
            "lowest": min(ratios),
            "highest": max(ratios),
        }
        for config, rates in found.items()
    ]


def _rate_in(tree: Path, config: str, overrides: Sequence[str]) -> float:
    task = json.dumps({"configs": config.split("+"), "overrides": list(overrides), "cached": False})
    command = [sys.executable, "-c", _RATE, task]
    done = subprocess.run(command, cwd=tree, env=harness.clean_environment(), stdout=subprocess.PIPE, check=True)
    return float(done.stdout.split()[-1])


def measure_distance(rounds: int, *, steps: int) -> list[dict[str, Any]]:
    """Measure the floor and CleanRL's config in turn, on one core with one seed, and on all cores with eight seeds."""
    cores = len(os.sched_getaffinity(0))
    found: dict[str, list[float]] = {"one seed": [], "eight seeds": []}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, seeds, busy in (("one seed", 1, 1), ("eight seeds", 8, cores)):
            floors = [
                harness.start(__spec__.name, {"kind": "floor"}, env={"OPENBLAS_NUM_THREADS": "1"}) for _ in range(busy)
            ]
            limit = sum(harness.answer(process)["rate"] for process in floors)
            task = {"kind": "ours", "overrides": [f"num_seeds={seeds}", f"total_timesteps={steps}"]}
            rate = harness.answer(harness.start(__spec__.name, task))["rate"]
            rates[name].append((limit, rate))
            found[name].append(rate / limit)
    return [
        {
            "run": name,
            "cores in use": 1 if name == "one seed" else cores,
            "floor": statistics.median(limit for limit, _ in rates[name]),
            "ours": statistics.median(rate for _, rate in rates[name]),
            "ratio": statistics.median(ratios),
            "lowest ratio": min(ratios),
            "highest ratio": max(ratios),
        }
        for name, ratios in found.items()
    ]


def measure_threads(rounds: int, names: list[str], *, quick: bool) -> list[dict[str, Any]]:
    """Measure one seed and eight with three kinds of threads, in turn.

    These are: one device per core with one thread each; one device with XLA's thread pool; and the command's choice.
    """
    rows = []
    for name in names:
        steps = 20_000 if quick else STEPS[name]
        for seeds in (1, 8):
            overrides = [
                *WORKLOADS[name],
                f"num_seeds={seeds}",
                f"total_timesteps={steps if seeds == 1 else max(15_000, steps // 4)}",
            ]
            rates: dict[str, list[float]] = {"one": [], "default": [], "chosen": []}
            for _ in range(rounds):
                for threads, measured in rates.items():
                    task = {"kind": "ours", "overrides": overrides, "threads": threads}
                    reply = harness.answer(harness.start(__spec__.name, task))
                    measured.append(reply["rate"])
            one, default, chosen = (statistics.median(measured) for measured in rates.values())
            rows.append(
                {
                    "network": name,
                    "seeds": seeds,
                    "MFLOP a step": reply["flops"] / 1e6,
                    "one thread per device": one,
                    "one device, default pool": default,
                    "as the command": chosen,
                    "to the faster": chosen / max(one, default),
                    "the command takes": reply["chosen"],
                }
            )
    return rows


def floor(
    *, batch_size: int = 128, sizes: tuple[int, ...] = (4, 120, 84, 2), train_every: int = 10
) -> dict[str, float]:
    """Measure NumPy's rate of an update's matrix products, in environment steps per second."""
    import numpy as np

    generator = np.random.default_rng(0)
    weights = [generator.normal(size=shape[::-1]).astype(np.float32) for shape in itertools.pairwise(sizes)]
    obs = generator.normal(size=(sizes[0], batch_size)).astype(np.float32)

    def products() -> None:
        target = obs
        for weight in weights:
            target = weight @ target
        inputs, out = [], obs
        for weight in weights:
            inputs.append(out)
            out = weight @ out
        for layer in reversed(range(len(weights))):
            out @ inputs[layer].T
            if layer:
                out = weights[layer].T @ out

    def seconds(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            products()
        return time.perf_counter() - start

    repeats = max(10, int(0.2 / (seconds(100) / 100)))
    return {"rate": train_every * repeats / statistics.median(seconds(repeats) for _ in range(11))}


def ours(
    *,
    overrides: Sequence[str],
    configs: Sequence[str] = ("cartpole_cleanrl",),
    threads: str = "chosen",
    cached: bool = True,
) -> dict[str, Any]:
    """Measure a run of ours in this process.

    Args:
      overrides: of the configs.
      configs: an environment's config, and presets.
      threads: "one" per device, XLA's "default" pool on one device, or "chosen" as the command chooses.
      cached: whether to use the compilation cache on disk.

    Returns:
      Rates in environment steps per second: ``rate`` of the whole run, ``learning_rate`` between the warm-up and the
      final evaluation. Also compile time, FLOPs per gradient step, the command's choice of threads, and last returns.
    """
    from purejaxdqn.config.reading import read_config
    from purejaxdqn.runs.population import finish_training, run_segments
    from purejaxdqn.runs.training import choose_segments, compile_training, seeds_of
    from purejaxdqn.system import runtime

    draft = read_config(tuple(configs), overrides)
    flops = runtime.gradient_step_flops(draft.config)
    devices = min(draft.config.num_seeds, runtime.usable_cores())
    match threads:
        case "one":
            runtime.configure_cpu(devices=devices)
        case "default":
            runtime.configure_cpu(devices=1, threads=None)
        case _:
            runtime.configure_cpu_for(draft.config)
    config = draft.checked()
    if cached:
        runtime.use_compilation_cache()
    import jax

    from purejaxdqn.core.plan import intervals_of, make_plan

    seeds, warmup = seeds_of(config), intervals_of(config).warmup
    training = compile_training(config, seeds, segments=choose_segments(make_plan(config).epochs, None))
    compile_seconds = training.compile_seconds
    training.finish.wait()  # else its compilation would be timed, too
    start = time.perf_counter()
    hparams, *place = training.layout.put(seeds)
    warmed = jax.block_until_ready(training.init(hparams, place))
    warm = time.perf_counter()
    for state, rows in run_segments(training, seeds, state=warmed):
        pass
    learned = time.perf_counter()
    finish_training(training, seeds, state)
    seconds = time.perf_counter() - start
    chosen = "default pool" if runtime.takes_default_pool(config) else "one thread per device"
    return {
        "rate": config.num_seeds * config.total_timesteps / seconds,
        "learning_rate": config.num_seeds * (config.total_timesteps - warmup) / (learned - warm),
        "compile_seconds": compile_seconds,
        "flops": flops,
        "chosen": chosen,
        "last_return": [round(float(value), 1) for value in rows.episode_return[:, -1]],
    }


if __name__ == "__main__":
    sys.exit(main())
