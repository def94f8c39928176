"""How do rate and memory grow with seeds, environments, network width and batch size?

CartPole with CleanRL's hyperparameters, varying one axis at a time: the number of seeds, the number of environments
(with one update per ten environment steps throughout), the width of both hidden layers, the batch size. Each case runs
in a separate process, in interleaved rounds. The rate is that of learning, with one episode of evaluation and without
warm-up and compilation. The knee of an axis is the smallest value that reaches 90% of the axis's best rate: steps per
second, or the FLOP rate of matrix products where a step has more to compute (width, batch).

Memory per seed is the state that a run keeps, mostly the replay buffer. The peak is the device's own figure if it has
one, and else the process's peak resident memory, including interpreter and libraries.

    python -m benchmarks.scaling                         about 12 minutes on two cores
    python -m benchmarks.scaling --quick                 under a minute: two values an axis, one round
    python -m benchmarks.scaling --axis seeds --most 4096 --steps 20000    one axis, on an accelerator
"""

import csv
import json
import resource
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.pictures import save

WARMUP = 2_000
LEARNING = 100_000
"""Most environment steps of a case after the warm-up, over all seeds."""
OPERATIONS = 2e11
"""Most floating-point operations of all updates of a case: a second or two on a CPU."""


def _environments(count: int) -> list[str]:
    period = max(10, count)
    schedule = {"train_every": period, "gradient_steps": period // 10, "target_every": max(500, period)}
    return [f"env.num_envs={count}", *(f"schedule.{key}={value}" for key, value in schedule.items())]


AXES: dict[str, tuple[Sequence[int], Callable[[int], list[str]]]] = {
    "seeds": ([2**k for k in range(13)], lambda value: [f"num_seeds={value}"]),
    "environments": ([10, 20, 50, 100, 250, 500, 1_000], _environments),
    "width": ([32, 64, 128, 256, 512, 1_024], lambda value: [f"network.hidden=[{value},{value}]"]),
    "batch": ([32, 64, 128, 256, 512, 1_024], lambda value: [f"replay.batch_size={value}"]),
}
MOST_SEEDS = 1_024
WORK = ("width", "batch")
"""Axes along which the cost of a gradient step grows."""


def main() -> None:
    parser = harness.parser(__doc__, quick="two values an axis, one round, nothing kept", rounds=3)
    parser.add_argument("--axis", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument(
        "--most", type=harness.positive, default=MOST_SEEDS, help=f"largest number of seeds (default {MOST_SEEDS})"
    )
    parser.add_argument(
        "--steps", type=harness.positive, help="steps per seed after the warm-up (default: a few seconds' worth)"
    )
    parser.add_argument("--picture", action="store_true", help="draw the picture again, from results/scaling.csv")
    arguments = parser.parse_args()
    if arguments.picture:
        print(draw(read()))
        return
    if arguments.worker:
        works = {"environments": measure_rollouts, "game": measure_pictures}
        work = next((work for key, work in works.items() if key in arguments.worker), measure)
        print(json.dumps(work(**arguments.worker)))
        return
    rounds = 1 if arguments.quick else arguments.rounds
    rows = []
    for axis in arguments.axis:
        values = [value for value in AXES[axis][0] if axis != "seeds" or value <= arguments.most]
        rows += compare(axis, values[:2] if arguments.quick else values, rounds, arguments.steps)
    print(f"{harness.machine()}; medians of {rounds} interleaved rounds\n")
    print(harness.table(rows))
    for axis in arguments.axis:
        print(f"{axis}: the knee is at {find_knee([row for row in rows if row['axis'] == axis])}")
    if not arguments.quick:
        print(harness.write("scaling", rows))
        print(draw(rows))


def compare(axis: str, values: Sequence[int], rounds: int, steps: int | None) -> list[dict[str, Any]]:
    """Measure every value of an axis, in turn; return one row per value."""
    found: dict[int, list[dict[str, Any]]] = {value: [] for value in values}
    for _ in range(rounds):
        for value, replies in found.items():
            task = {"overrides": AXES[axis][1](value), "steps": steps}
            replies.append(harness.answer(harness.start(__spec__.name, task)))
            print(f"{axis} {value}: {replies[-1]['rate']:,.0f}", file=sys.stderr, flush=True)
    rows = []
    for value, replies in found.items():
        rates = [reply["rate"] for reply in replies]
        rows.append(
            {
                "axis": axis,
                "value": value,
                "steps a second": statistics.median(rates),
                "lowest": min(rates),
                "highest": max(rates),
                "updates a second": statistics.median(reply["updates"] for reply in replies),
                "compile (s)": statistics.median(reply["compile_seconds"] for reply in replies),
                "memory per seed (MB)": replies[0]["state"] / 1e6,
                "peak (MB)": statistics.median(reply["peak"] for reply in replies) / 1e6,
            }
        )
    return derive(rows)


def derive(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add three columns to an axis's rows: threads, FLOP rate, and the rate as a share of the axis's best."""
    from purejaxdqn.config.reading import read_config
    from purejaxdqn.system.runtime import gradient_step_flops, takes_default_pool

    found = []
    for row in rows:
        config = read_config("cartpole_cleanrl", AXES[row["axis"]][1](int(row["value"]))).config
        threads = "default pool" if takes_default_pool(config) else "one thread per device"
        gflops = float(row["updates a second"]) * gradient_step_flops(config) / 1e9
        found.append({**row, "threads": threads, "GFLOP/s": gflops})
    of = "GFLOP/s" if rows[0]["axis"] in WORK else "steps a second"
    best = max(float(row[of]) for row in found)
    return [{**row, "share of the best": float(row[of]) / best} for row in found]


def measure(*, overrides: list[str], steps: int | None = None) -> dict[str, Any]:
    """Measure one case; ``steps`` per seed after the warm-up, or a few seconds' worth if None."""
    from benchmarks.throughput import ours
    from purejaxdqn.config.reading import read_config
    from purejaxdqn.system.runtime import gradient_step_flops

    once = ["evaluation.episodes=1", "evaluation.final_episodes=1", f"schedule.warmup={WARMUP}"]
    config = read_config("cartpole_cleanrl", [*once, *overrides]).config
    period = config.schedule.target_every
    updates_a_step = config.schedule.gradient_steps / config.schedule.train_every
    affordable = OPERATIONS / gradient_step_flops(config) / updates_a_step
    learning = max(2 * period, (steps or int(min(LEARNING, affordable)) // config.num_seeds) // period * period)
    lengths = [f"total_timesteps={WARMUP + learning}", f"evaluation.every={learning}"]
    reply = ours(overrides=[*once, *overrides, *lengths], cached=False)
    return {
        "rate": reply["learning_rate"],
        "updates": reply["learning_rate"] * updates_a_step,
        "compile_seconds": reply["compile_seconds"],
        "state": state_bytes([*once, *overrides, *lengths]),
        "peak": peak_bytes(),
    }


def measure_rollouts(*, seeds: int, environments: int, rollouts: int) -> dict[str, Any]:
    """Measure PQN with so many environments, rollouts of 16 steps and two epochs of 16 minibatches."""
    size = [f"num_seeds={seeds}", f"env.num_envs={environments}", "rollout={steps: 16, epochs: 2, minibatches: 16}"]
    return _measure_short(("cartpole_cleanrl", "pqn"), size, learning=16 * environments * rollouts)


def measure_pictures(*, game: str, seeds: int, periods: int) -> dict[str, Any]:
    """Measure DQN with replay on a game of MinAtar, whose observations are pictures, for so many target periods."""
    from purejaxdqn.config.reading import read_config

    names = (f"minatar/{game}",)
    schedule = read_config(names, []).config.schedule
    learning = periods * schedule.target_every
    return _measure_short(names, [f"num_seeds={seeds}"], learning=learning, warmup=schedule.warmup)


def _measure_short(configs: tuple[str, ...], overrides: list[str], *, learning: int, warmup: int = 0) -> dict[str, Any]:
    """Measure a run of so many steps a seed, with one evaluation of one episode."""
    from benchmarks.throughput import ours

    evaluation = f"evaluation={{every: {learning}, episodes: 1, final_episodes: 1}}"
    lengths = [f"total_timesteps={warmup + learning}", evaluation]
    reply = ours(configs=configs, overrides=[*overrides, *lengths], cached=False)
    return {"rate": reply["learning_rate"], "compile_seconds": reply["compile_seconds"], "peak": peak_bytes()}


def state_bytes(overrides: list[str]) -> int:
    """Return the bytes of one run's state."""
    import jax

    from purejaxdqn import load_config
    from purejaxdqn.config.building import make_program

    config = load_config("cartpole_cleanrl", overrides)
    state = jax.eval_shape(make_program(config).init, config.hparams(), jax.random.key(0))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def peak_bytes() -> int:
    """Return the peak memory in use in bytes: the device's, or this process's if the device does not report it."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use") or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def find_knee(rows: Sequence[dict[str, Any]]) -> int:
    """Return the smallest value with 90% of the best rate (see ``derive``)."""
    return min(row["value"] for row in rows if row["share of the best"] >= 0.9)


def read() -> list[dict[str, Any]]:
    """Read ``results/scaling.csv``."""
    with (harness.RESULTS / "scaling.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    words = ("axis", "threads")
    return [
        {name: cell if name in words else float(cell) if cell else None for name, cell in row.items()} for row in rows
    ]


def draw(rows: Sequence[dict[str, Any]]) -> Path:
    """Draw ``results/scaling.png``: a column per axis, with rates and their spread above and memory below."""
    from matplotlib.ticker import FixedLocator, NullLocator

    from purejaxdqn.pictures.figures import legend_below, style, subplots
    from purejaxdqn.pictures.palette import EVALUATION_COLOR, SOLVED_COLOR, TRAINING_COLOR

    axes_names = list(dict.fromkeys(row["axis"] for row in rows))
    with style():
        shape = (2, len(axes_names))
        figure, grid = subplots(*shape, figsize=(2.9 * shape[1], 4.6), squeeze=False)
        for (rates, memory), name in zip(grid.T, axes_names, strict=True):
            mine = [row for row in rows if row["axis"] == name]
            values = [row["value"] for row in mine]
            rates.fill_between(
                values,
                [row["lowest"] for row in mine],
                [row["highest"] for row in mine],
                color=EVALUATION_COLOR,
                alpha=0.2,
            )
            rates.plot(values, [row["steps a second"] for row in mine], "o-", color=EVALUATION_COLOR, markersize=3)
            rates.set(xscale="log", ylim=(0, None), title=name)
            rates.yaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}k" if value else "0")
            if name in WORK:
                work = rates.twinx()
                work.plot(values, [row["GFLOP/s"] for row in mine], "^:", color=SOLVED_COLOR, markersize=3)
                work.set(ylim=(0, None), ylabel="GFLOP/s (dotted)")
                work.grid(visible=False)
            memory.plot(
                values, [row["peak (MB)"] for row in mine], "o--", color=TRAINING_COLOR, markersize=3, label="peak"
            )
            total = [row["memory per seed (MB)"] * (row["value"] if name == "seeds" else 1) for row in mine]
            memory.plot(values, total, "s-.", color=SOLVED_COLOR, markersize=3, label="state of all seeds")
            memory.set(xscale="log", yscale="log", xlabel=name)
            for axis in (rates.xaxis, memory.xaxis, memory.yaxis):
                axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
            for axis in (rates.xaxis, memory.xaxis):  # at values that were measured, and apart from each other
                axis.set_major_locator(FixedLocator(values[:: -(-len(values) // 6)]))
                axis.set_minor_locator(NullLocator())
        grid[0, 0].set(ylabel="environment steps a second")
        grid[1, 0].set(ylabel="memory (MB)")
        legend_below(figure)
        return save(figure, "scaling")


if __name__ == "__main__":
    main()
