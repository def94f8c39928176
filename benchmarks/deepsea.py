"""How many episodes until DeepSea is solved, at which size? bsuite's protocol (Osband et al. 2020, section 3.5).

A size is solved when fewer than 90% of all episodes so far have been bad, which is to leave the path to the treasure,
within 10,000 episodes; sizes 10, 12, ..., 50. The script of bsuite's analysis has 80% where its pictures say 90%: both
are in the table. Episodes are counted in training, over all environments, exploration and the random warm-up included.

- ensemble: the config `deepsea_ensemble`, every size with one seed, size 20 with 30, size 30 with ten;
- dqn: the config `deepsea`, which was tuned on size 10: epsilon-greedy, with prioritised replay; noisy: the same with
  noisy layers and no epsilon. Both up to size 20, with one seed.

Each row is trained by a process of its own, and is in the CSV as soon as it is done: run the script again to resume. A
row stops when it is solved by 80%, or after 10,000 episodes. Environments of one size share their action mapping: it
is a constant of gymnax's DeepSea, where bsuite draws one for each run.

    python -m benchmarks.deepsea                        all rows that results/deepsea.csv lacks
    python -m benchmarks.deepsea --jobs 2               the same, two rows at a time
    python -m benchmarks.deepsea --agent ensemble --size 20 --seeds 3
    python -m benchmarks.deepsea --table                table and picture again, without training
    python -m benchmarks.deepsea --flops                what the products of an update cost, with and without zeros
    python -m benchmarks.deepsea --quick                under a minute: size 4, nothing kept
"""

import csv
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness
from benchmarks.pictures import save

SEED = 2031
"""Config key ``seed`` of the rows; the config was tuned with 0."""
EPISODES = 10_000
CHECK = 50
"""Episodes between two looks at the number of bad ones, and those of the random warm-up."""
SIZES = tuple(range(10, 51, 2))
SMALL = tuple(size for size in SIZES if size <= 20)
AGENTS = {"ensemble": ("deepsea_ensemble",), "dqn": ("deepsea",), "noisy": ("deepsea", "noisy")}
"""Configs, later ones over earlier ones."""


class Row(NamedTuple):
    """A run."""

    agent: str
    size: int
    seed: int  # index


def rows_of(agents: Iterable[str], sizes: Sequence[int] | None = None, seeds: int | None = None) -> list[Row]:
    """The rows of these agents, all sizes with one seed first."""
    found = []
    for agent in agents:
        for size in sizes or (SIZES if agent == "ensemble" else SMALL):
            most = {20: 30, 30: 10}.get(size, 1) if agent == "ensemble" else 1
            found += [Row(agent, size, seed) for seed in range(seeds or most)]
    return sorted(found, key=lambda row: (row.seed > 0, row.agent != "ensemble"))


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--agent", nargs="+", choices=AGENTS, default=list(AGENTS))
    parser.add_argument("--size", nargs="+", type=harness.positive, metavar="N", help="even sizes")
    parser.add_argument("--seeds", type=harness.positive, metavar="N", help="of each size, in place of the protocol's")
    parser.add_argument("--jobs", type=harness.positive, default=1, metavar="N", help="rows that run at a time")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--flops", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--worker", metavar="TASK", help="used by the script itself")
    arguments = parser.parse_args()
    if arguments.worker:
        task = json.loads(arguments.worker)
        print(json.dumps(train(Row(*task["row"]), task["episodes"])))
    elif arguments.flops:
        rows = [flops_of(size) for size in (10, 20, 30, 40, 50)]
        print(harness.table(rows), harness.write("deepsea_flops", rows))
    elif arguments.quick:
        print(harness.table(list(run([Row(agent, 4, 0) for agent in AGENTS], jobs=1, episodes=200))))
    else:
        if any(size % 2 for size in arguments.size or ()):
            parser.error("--size: sizes are even")
        if not arguments.table:
            fill(rows_of(arguments.agent, arguments.size, arguments.seeds), arguments.jobs)
        show(read())


def fill(rows: Sequence[Row], jobs: int) -> None:
    """Run the rows that ``results/deepsea.csv`` lacks, and add each to it when it is done."""
    there = {(one["agent"], int(one["size"]), int(one["seed"])) for one in read()}
    for line in run([row for row in rows if row not in there], jobs=jobs, episodes=EPISODES):
        lines = [*read(), {name: str(value) for name, value in line.items()}]
        order = list(AGENTS)
        lines.sort(key=lambda one: (order.index(one["agent"]), int(one["size"]), int(one["seed"])))
        harness.write("deepsea", lines)
        print(harness.table([line]), flush=True)


def run(rows: Sequence[Row], *, jobs: int, episodes: int) -> Iterable[dict[str, Any]]:
    """Train rows in processes of their own, ``jobs`` at a time; yield the line of each, in the order of the rows."""
    waiting, running = list(rows), []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = {"row": waiting.pop(0), "episodes": episodes}
                running.append(harness.start("benchmarks.deepsea", task, env={"NPROC": "1"}))
            yield harness.answer(running.pop(0))
    finally:
        for process in running:
            process.kill()


def overrides_of(row: Row, episodes: int) -> list[str]:
    """The overrides of a row: a warm-up of ``CHECK`` episodes, an epoch each, and ``episodes`` in all."""
    steps = {"total_timesteps": episodes * row.size, "schedule.warmup": CHECK * row.size}
    epochs = {"evaluation.every": CHECK * row.size, "evaluation.episodes": 1, "evaluation.final_episodes": 1}
    numbers = {"env.kwargs.size": row.size, "seed": SEED, **steps, **epochs}
    return [f"{key}={value}" for key, value in numbers.items()]


def train(row: Row, episodes: int) -> dict[str, Any]:
    """Train one run until 80% of its episodes are bad, or for ``episodes`` episodes; return its line."""
    import jax

    from purejaxdqn import configure_cpu, load_config
    from purejaxdqn.config.building import make_program
    from purejaxdqn.core.keys import run_key
    from purejaxdqn.core.plan import make_plan
    from purejaxdqn.system.runtime import use_compilation_cache

    configure_cpu(devices=1)
    use_compilation_cache()
    config = load_config(AGENTS[row.agent], overrides_of(row, episodes))
    program, hparams = make_program(config), config.hparams()
    state = jax.jit(program.init)(hparams, run_key(np.uint32(SEED), np.uint32(row.seed)))
    segment = jax.jit(lambda state: program.segment(hparams, state, 1)[0], donate_argnums=0)
    solved: dict[float, int] = {}
    for _ in range(make_plan(config).epochs):
        state = segment(state)
        played = int(state.actors.env_step) // row.size  # every episode takes as many steps as the size
        share = int(state.actors.env_state.total_bad_episodes.sum()) / played
        for limit in (0.9, 0.8):
            if share < limit:
                solved.setdefault(limit, played)
        if 0.8 in solved:
            break
    return {
        **row._asdict(),
        "episodes": played,
        "bad": round(share, 4),
        "solved (90%)": solved.get(0.9, ""),
        "solved (80%)": solved.get(0.8, ""),
        "commit": harness.commit(),
    }


def read() -> list[dict[str, str]]:
    """The lines of ``results/deepsea.csv``; none if the file does not exist."""
    path = harness.RESULTS / "deepsea.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def show(lines: Sequence[dict[str, str]]) -> None:
    """Print the table and write it and the picture, if there are lines."""
    if not lines:
        print("no rows yet")
        return
    table = summarise(lines)
    print(harness.table(table))
    print(harness.write("deepsea_table", table, of="deepsea"), draw(lines))
    if fits := fitted_powers(lines):
        print(harness.table(fits), harness.write("deepsea_fit", fits, of="deepsea"))


def summarise(lines: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """A row for each agent and size: seeds that solved it, and episodes until then."""
    table = []
    for (agent, size), group in itertools.groupby(lines, lambda one: (one["agent"], int(one["size"]))):
        mine = list(group)
        solved = sorted(int(one["solved (90%)"]) for one in mine if one["solved (90%)"])
        table.append(
            {
                "agent": agent,
                "size": size,
                "seeds": len(mine),
                "solved": len(solved),
                "episodes (median)": f"{np.median(solved):,.0f}" if solved else "-",
                "episodes (most)": f"{solved[-1]:,}" if solved else "-",
                "solved (80%)": sum(bool(one["solved (80%)"]) for one in mine),
            }
        )
    return table


def fitted_powers(lines: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """A row for each agent that solved three sizes or more: episodes = factor * size^exponent."""
    return [
        {"agent": agent, "factor": f"{found[0]:.3g}", "exponent": f"{found[1]:.2f}"}
        for agent in AGENTS
        if (found := fit(lines, agent))
    ]


def fit(lines: Sequence[dict[str, str]], agent: str) -> tuple[float, float] | None:
    """Factor and exponent of the least-squares line through log episodes against log size; None for fewer than three.

    Each size counts once, with the median of its seeds that solved it.
    """
    sizes = sorted({int(one["size"]) for one in lines if one["agent"] == agent and one["solved (90%)"]})
    if len(sizes) < 3:
        return None
    exponent, constant = np.polyfit(np.log(sizes), [np.log(median_of(lines, agent, size)) for size in sizes], 1)
    return float(np.exp(constant)), float(exponent)


def median_of(lines: Sequence[dict[str, str]], agent: str, size: int) -> float:
    """The median of the episodes until the seeds of a size solved it."""
    mine = [one for one in lines if one["agent"] == agent and int(one["size"]) == size and one["solved (90%)"]]
    return float(np.median([int(one["solved (90%)"]) for one in mine]))


def draw(lines: Sequence[dict[str, str]]) -> Path:
    """Draw episodes until solved against size, with 2^size and the fitted powers: ``results/deepsea.png``."""
    from purejaxdqn.pictures.figures import legend_below, style, subplots
    from purejaxdqn.pictures.palette import COLORS, LINES, MARKERS, SOLVED_COLOR

    with style():
        figure, grid = subplots(1, 1, figsize=(7, 4.8), squeeze=False)
        axes = grid[0, 0]
        for agent, color, line, marker in zip(AGENTS, COLORS, LINES, MARKERS, strict=False):
            mine = [one for one in lines if one["agent"] == agent]
            aside = {"dqn": -0.3, "noisy": 0.3}.get(agent, 0.0)  # their points would cover each other
            ends = [
                (int(one["size"]) + aside, int(one["solved (90%)"] or EPISODES), bool(one["solved (90%)"]))
                for one in mine
            ]
            for done, shape in ((True, marker), (False, "x")):
                points = [(size, episodes) for size, episodes, solved in ends if solved == done]
                label = f"{agent}{'' if done else ', not solved'}"
                if points:
                    axes.plot(*zip(*points, strict=True), shape, color=color, alpha=0.6, markersize=5, label=label)
            if fitted := fit(lines, agent):
                sizes = np.array(SIZES if agent == "ensemble" else SMALL, float)
                name = f"{agent}: size^{fitted[1]:.1f}"
                axes.plot(sizes, fitted[0] * sizes ** fitted[1], line, color=color, linewidth=1.2, label=name)
        short = np.arange(8, 14.5, 0.5)
        axes.plot(short, 2.0**short, ":", color=SOLVED_COLOR, linewidth=1.2, label="2^size")
        axes.set(xlabel="size", ylabel="episodes until solved", yscale="log", ylim=(100, 1.3 * EPISODES))
        legend_below(figure)
        return save(figure, "deepsea")


def flops_of(size: int) -> dict[str, Any]:
    """Operations of one update of all members, with the first layer as a product and without the zeros."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn import load_config
    from purejaxdqn.config.building import make_members, make_parts
    from purejaxdqn.dqn.ensemble import batch_learner
    from purejaxdqn.dqn.types import Batch, Transition
    from purejaxdqn.environments.registry import make_environment

    def million(*overrides: str) -> float:
        config = load_config("deepsea_ensemble", [f"env.kwargs.size={size}", *overrides])
        assert config.replay.size and config.replay.batch_size
        env, batch_size = make_environment(**config.env.making()), config.replay.batch_size
        learner = batch_learner(make_members(config, make_parts(config, env)), capacity=config.replay.size)
        obs, ones = jnp.zeros((batch_size, *env.obs_shape), env.obs_dtype), jnp.ones(batch_size)
        indices = jnp.zeros(batch_size, jnp.int32)
        batch = Batch(Transition(obs, indices, ones, ones, obs), ones, indices)
        state = jax.eval_shape(learner.init, config.hparams(), jax.random.key(0))
        lowered = jax.jit(learner.update).lower(config.hparams(), state, batch, jax.random.key(0), jnp.float32(1e-3))
        return float((lowered.cost_analysis() or {})["flops"]) / 1e6

    plain, fetched = million("network={torso: mlp, hidden: [50, 50]}"), million()
    return {
        "size": size,
        "inputs": size**2,
        "mlp (MFLOP)": round(plain, 1),
        "one_hot (MFLOP)": round(fetched, 1),
        "ratio": round(plain / fetched, 1),
    }


if __name__ == "__main__":
    main()
