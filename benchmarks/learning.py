"""What returns do the shipped configs reach, on seeds that no search has used?

A row is a config with a number of steps and seeds, trained by the command (`purejaxdqn.train`). Scores are greedy
returns of the final parameters over 100 episodes or more; no seed is left out and no checkpoint is selected. A row's
target is reached if the lower end of the 95% interval of the interquartile mean over its seeds is not below it, or,
where the row sets a number of seeds, if that many seeds have the target return.

    python -m benchmarks.learning --list            the rows and their targets
    python -m benchmarks.learning --row catch/dqn   one row (or several); replaces its lines in results/learning.csv
    python -m benchmarks.learning --row asterix/10m --seeds 2   the first seeds only; the table calls such a row open
    python -m benchmarks.learning --all             all rows for a CPU, rows without results first: hours
    python -m benchmarks.learning --table           table and pictures from results/learning.csv, without training
    python -m benchmarks.learning --quick           under a minute: one short row, nothing kept
    timeout 540 python -m benchmarks.learning --gpu --out DIR    runs for nine minutes; run it again to resume
    python -m benchmarks.learning --pqn --out DIR   the rows without replay, with MinAtar's 10 million steps: hours
    python -m benchmarks.learning --suites --out DIR   the rows of other suites than gymnax, if installed: many hours
    python -m benchmarks.learning --memory --out DIR   the rows of agents that remember, and those beside them

A config's header names the seeds of its searches: ``# search: ... seed=N`` trained with N and tested its best point
with N + 1. A row that would use either seed is refused.
"""

import csv
import functools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks import harness
from benchmarks.optimal import best_return_of, mean_and_error, random_returns, stored_random
from benchmarks.pictures import save
from purejaxdqn.runs.statistics import iqm, iqm_interval

SEED = 2026
"""Config key ``seed`` of the rows."""
FRESH_SEED = 2027
"""The same for rows whose config was changed after it had missed its target with ``SEED``; run once, with the final
config."""
COLUMNS = (
    "row",
    "environment",
    "preset",
    "seed",
    "env_steps",
    "final_eval_return",
    "training_return",
    "auc",
    "first_solved_step",
)


CARTPOLE = {
    "cartpole/cleanrl": "cartpole_cleanrl: DQN",
    "cartpole/100k": "cartpole_100k: Munchausen",
    "cartpole/pqn": "cartpole_pqn: without replay",
}
"""The rows of the picture in the README, with their labels."""

Lines = list[dict[str, Any]]


class Row(NamedTuple):
    """A line of the table."""

    configs: tuple[str, ...]  # later ones override earlier ones
    steps: int
    target: float | str | None = (
        None  # a return, "best" (90% of the best possible), "random" (see ``target_of``), or None
    )
    on_seeds: int | None = None  # if set, this many seeds must reach the target, in place of the interval's lower end
    column: str = "final_eval_return"  # the score, a column of ``learning.csv``
    seeds: int = 30
    overrides: tuple[str, ...] = ()
    seed: int = SEED
    group: Literal["all", "gpu", "pqn", "memory", "suites"] = (
        "all"  # the option that runs it: ``gpu`` is too long for a CPU
    )
    note: str = ""


_MINATAR = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
# Targets. This project's own are those without a source here or at their row.
_AT_A_MILLION = {"breakout": 8.0, "freeway": 35.0, "space_invaders": 30.0}
_PPO = {"asterix": 15.0, "breakout": 28.0, "freeway": 58.0, "space_invaders": 131.0}  # PPO in gymnax's README
_PUBLISHED = {"asterix": 16.7, "breakout": 10.1, "freeway": 50.2, "space_invaders": 43.7}  # Young and Tian 2019
_PQN = {"asterix": 60.0, "breakout": 40.0, "freeway": 62.0, "space_invaders": 160.0}
_CLEANRL = 498.4  # mean over three seeds, in CleanRL's documentation


_EPSILON = ("exploration.start=1", "exploration.end=0.05")


def _published_setting(game: str) -> tuple[str, ...]:
    sticky = ("env.sticky_actions=0.1", "env.kwargs.use_minimal_action_set=false")
    # Only its time limit ends an episode of Freeway; in the other games it is raised until it has no effect.
    return sticky if game == "freeway" else (*sticky, "env.params.max_steps_in_episode=10_000")


ROWS: dict[str, Row] = {
    "cartpole/cleanrl": Row(("cartpole_cleanrl",), 500_000, _CLEANRL, column="training_return"),
    "cartpole/cleanrl_1_env": Row(
        ("cartpole_cleanrl",),
        500_000,
        _CLEANRL,
        column="training_return",
        overrides=("env.num_envs=1",),
        note="one environment, as in CleanRL",
    ),
    "cartpole/dqn": Row(("cartpole_double",), 200_000, 500.0, on_seeds=29),
    "cartpole/100k": Row(("cartpole_100k",), 100_000, 500.0, on_seeds=29, seed=FRESH_SEED),
    "cartpole/50k": Row(("cartpole_100k",), 50_000, 500.0, on_seeds=29, seed=FRESH_SEED, note="stretch goal"),
    "acrobot/dqn": Row(("acrobot",), 100_000, -80.0, seed=FRESH_SEED),
    "mountaincar/dqn": Row(("mountaincar",), 120_000, -110.0),
    "catch/dqn": Row(("catch",), 100_000, 0.95),
    "discounting_chain/dqn": Row(("discounting_chain",), 100_000, "best"),
    "umbrella_chain/dqn": Row(
        ("umbrella_chain",), 100_000, "best", overrides=("evaluation.final_episodes=10_000",), note="10,000 episodes"
    ),
    "memory_chain/dqn": Row(
        ("memory_chain_dqn",), 100_000, note="needs a memory, which this agent lacks: chance level"
    ),
    "deepsea/8": Row(("deepsea",), 80_000, 0.9, on_seeds=24, note="10,000 episodes of training"),
    "deepsea/10": Row(
        ("deepsea",), 100_000, 0.9, on_seeds=24, overrides=("env.kwargs.size=10",), note="10,000 episodes of training"
    ),
    "deepsea/20": Row(
        ("deepsea",),
        200_000,
        0.9,
        on_seeds=24,
        overrides=("env.kwargs.size=20",),
        note="10,000 episodes of training; stretch goal",
    ),
    "deepsea/20_ensemble": Row(("deepsea_ensemble",), 60_000, 0.9, on_seeds=28, note="3,000 episodes of training"),
    "mountaincar_sparse/ensemble": Row(("mountaincar_sparse",), 201_000, 0.9),
    "mountaincar_sparse/dqn": Row(
        ("mountaincar_sparse", "dqn"), 201_000, overrides=_EPSILON, note="without the ensemble, epsilon-greedy"
    ),
    "swingup/ensemble": Row(("swingup",), 501_000, 250.0, seeds=10),
    "swingup/dqn": Row(
        ("swingup", "dqn"), 501_000, seeds=10, overrides=_EPSILON, note="without the ensemble, epsilon-greedy"
    ),
    "frozen_lake/dqn": Row(
        ("frozen_lake",), 200_000, 0.70, overrides=("evaluation.final_episodes=1_000",), note="1,000 episodes"
    ),
    "four_rooms/dqn": Row(("four_rooms",), 1_000_000, "random"),
    "meta_maze/dqn": Row(("meta_maze",), 1_000_000, "random", seed=FRESH_SEED),
    "pong/dqn": Row(("pong",), 1_000_000, "random", note="at most 1 per step, so 1,000 is the best possible return"),
    **{f"{game}/1m": Row((f"minatar/{game}",), 1_000_000, _AT_A_MILLION.get(game), seeds=5) for game in _MINATAR},
    **{
        f"{game}/10m": Row((f"minatar/{game}",), 10_000_000, _PPO.get(game), group="gpu", note="for a GPU")
        for game in _MINATAR
    },
    "cartpole/pqn": Row(("cartpole_pqn",), 307_200, 500.0, on_seeds=29, seed=FRESH_SEED, group="pqn"),
    **{
        f"{game}/pqn_10m": Row((f"minatar/{game}_pqn",), 10_000_000, _PQN.get(game), seeds=10, group="pqn")
        for game in _MINATAR
    },
    **{
        f"{game}/pqn_published": Row(
            (f"minatar/{game}_pqn",),
            5_000_000,
            _PUBLISHED.get(game),
            overrides=_published_setting(game),
            seeds=10,
            group="pqn",
            note="sticky actions, six actions",
        )
        for game in _MINATAR
    },
    "xminigrid/empty_5x5": Row(
        ("xminigrid/empty_5x5",), 30_000, 0.95, on_seeds=28, seed=FRESH_SEED, group="suites", note="best 0.955"
    ),
    "xminigrid/doorkey_5x5": Row(
        ("xminigrid/doorkey_5x5",),
        2_000_000,
        0.86,
        seeds=10,
        seed=FRESH_SEED,
        group="suites",
        note="reached with success in 9 of 10 episodes",
    ),
    "jumanji/snake_6x6": Row(("jumanji/snake_6x6",), 300_000, 10.0, group="suites"),
    "jumanji/snake_12x12": Row(("jumanji/snake_12x12",), 5_000_000, seeds=5, group="suites"),
    "jumanji/game2048": Row(("jumanji/game2048",), 2_000_000, 5_000.0, seeds=10, group="suites"),
    "jumanji/game2048_illegal": Row(
        ("jumanji/game2048",),
        2_000_000,
        seeds=10,
        overrides=("env.legal_only=false",),
        group="suites",
        note="illegal actions can be taken, and change nothing",
    ),
    "pgx/2048": Row(("pgx/2048",), 2_000_000, 5_000.0, seeds=10, group="suites"),
    "pgx/2048_illegal": Row(
        ("pgx/2048",),
        2_000_000,
        seeds=10,
        overrides=("env.legal_only=false",),
        group="suites",
        note="illegal actions can be taken, and end the game",
    ),
    "pgx/2048_unmasked": Row(
        ("pgx/2048_unmasked",),
        5_000_000,
        5_000.0,
        seeds=10,
        group="suites",
        note="illegal actions can be taken, and end the game",
    ),
    "octax/brix": Row(("octax/brix",), 500_000, "random", seeds=5, group="suites"),
    "octax/pong": Row(("octax/pong",), 500_000, "random", seeds=5, group="suites"),
    "craftax/classic": Row(
        ("craftax/classic_symbolic",), 10_000_000, seeds=3, group="suites", note="one for each achievement, of 22"
    ),
    # Whole epochs within 400,000, 2,000,000 and 500,000 steps. Rollouts of 128 steps cut fewer episodes of length 100.
    **{
        f"memory_chain/{length}": Row(
            ("memory_chain",),
            steps,
            0.95,
            on_seeds=seeds,
            overrides=(f"env.params.memory_length={length}", *overrides),
            group="memory",
        )
        for length, steps, seeds, overrides in (
            (5, 368_640, 28, ()),
            (30, 368_640, 28, ()),
            (100, 1_966_080, 24, ("rollout.steps=128",)),
        )
    },
    **{
        f"cartpole_positions/{name}": Row(
            ("cartpole_positions",), 491_520, target, overrides=overrides, group="memory", note=note
        )
        for name, target, overrides, note in (
            ("gru", 475.0, (), ""),
            (
                "lru",
                475.0,
                ("network.memory=lru", "optimizer.learning_rate=2.2e-3", "rollout.lambda=0.9"),
                "learning rate and lambda chosen by hand",
            ),
            ("none", None, ("network.memory=none",), "no memory"),
            (
                "frame_stack",
                None,
                ("network.memory=none", "env.frame_stack=4"),
                "no memory, the last four observations",
            ),
            ("full", None, ("network.memory=none", "env.observe=null"), "no memory, all of the observation"),
        )
    },
}

PQN_RATE = 13_000
"""Environment steps a second of one core in MinAtar's rows without replay, for an estimate of hours. Asterix in the
published setting, 50 million steps over ten seeds, takes a little more than an hour on a Xeon that does other work."""

PICTURES = {
    "learning_curves_pqn": ("cartpole/pqn", "cartpole_positions/full", "cartpole_positions/frame_stack"),
    "learning_curves_memory": (
        *(f"memory_chain/{length}" for length in (5, 30, 100)),
        *(f"cartpole_positions/{name}" for name in ("gru", "lru", "none", "frame_stack", "full")),
    ),
}
"""The rows whose curves ``docs/pqn.md`` and ``docs/memory.md`` show."""


def main() -> None:
    parser = harness.Options(__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--row", nargs="+", metavar="NAME")
    which.add_argument("--all", action="store_true", help="all rows for a CPU")
    which.add_argument("--gpu", action="store_true", help="the rows of 5 and 10 million steps with replay")
    hours = hours_of("pqn", rate=2 * PQN_RATE)
    which.add_argument("--pqn", action="store_true", help=f"the rows without replay: about {hours} hours on two cores")
    which.add_argument("--suites", action="store_true", help="the rows of other suites: many hours")
    which.add_argument("--memory", action="store_true", help="the rows of agents that remember, and those beside them")
    which.add_argument("--table", action="store_true")
    which.add_argument("--list", action="store_true")
    which.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, help="seed to use in place of the row's")
    parser.add_argument("--seeds", type=harness.positive, metavar="N", help="only the first N seeds of each row")
    parser.add_argument("--rehearse", action="store_true", help="20,000 steps and two seeds of each row, nothing kept")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the runs here, and resume runs that are here")
    arguments = parser.parse_args()
    if arguments.list:
        print(harness.table([describe(name, row) for name, row in ROWS.items()]))
        return
    if arguments.table:
        table = summarise(read())
        print(harness.table(table))
        print(harness.write("learning_table", table, of="learning"), draw(read()))
        for file in ("learning_curves", *PICTURES):
            print(draw_curves(read("learning_curves"), file))
        print(draw_cartpole(read("learning_curves")))
        return
    group = next((name for name in ("gpu", "pqn", "memory", "suites") if getattr(arguments, name)), "all")
    names = arguments.row or [name for name, row in ROWS.items() if row.group == group]
    if arguments.quick:
        names = ["catch/dqn"]
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"unknown row {unknown[0]!r}; --list shows the rows")
    for name in names:
        if overlap := find_overlap(ROWS[name].configs, seed_of(ROWS[name], arguments.seed)):
            parser.error(overlap)
    if arguments.all or arguments.pqn or arguments.memory or arguments.suites:
        there = {one["row"] for one in read()}
        names.sort(key=lambda name: name in there)
    short = arguments.quick or arguments.rehearse
    for name in names:
        row = ROWS[name]._replace(seeds=min(ROWS[name].seeds, arguments.seeds or ROWS[name].seeds))
        if short:
            row = row._replace(steps=21_000, seeds=2)
        with harness.runs_in(None if short else arguments.out) as folder:
            lines, curve = train(name, row, folder / name.replace("/", "-"), seed_of(row, arguments.seed))
        if not short:
            for file, new in (("learning", lines), ("learning_curves", curve)):
                harness.write(file, [*(one for one in read(file) if one["row"] != name), *new])
        print(harness.table(summarise(lines)), flush=True)


def hours_of(group: str, *, rate: float) -> int:
    """Return the hours that the rows of a group take at ``rate``, in environment steps a second."""
    return round(sum(row.steps * row.seeds for row in ROWS.values() if row.group == group) / rate / 3600)


def seed_of(row: Row, given: int | None) -> int:
    """Return the seed given by ``--seed``, or else the row's."""
    return row.seed if given is None else given


def describe(name: str, row: Row) -> dict[str, Any]:
    """Return a row of ``--list``."""
    line = f"{row.on_seeds} of {row.seeds} seeds" if row.on_seeds else f"IQM over {row.seeds} seeds, lower end"
    return {
        "row": name,
        "configs": " ".join((*row.configs, *row.overrides)),
        "steps": f"{row.steps:,}",
        "target": "-" if row.target is None else row.target,
        "of": f"{row.column}, {line}",
        "seed": row.seed,
        "note": row.note,
    }


def train(name: str, row: Row, folder: Path, seed: int) -> tuple[Lines, Lines]:
    """Train all seeds of a row with the command; return its lines of ``learning.csv`` and ``learning_curves.csv``."""
    from purejaxdqn.runs.metrics import read_metrics

    summary = harness.train(row.configs, overrides_of(row, seed), folder)
    metrics = read_metrics(folder / "metrics.csv")
    areas = metrics.eval_return.mean(1, dtype=np.float64)
    lines = [
        {
            "row": name,
            "environment": summary["env_id"],
            "preset": members_of(row),
            "seed": k,
            "env_steps": summary["total_timesteps"],
            "final_eval_return": summary["final_eval_return"][k],
            "training_return": summary["training_return"][k],
            "auc": float(areas[k]),
            "first_solved_step": summary["first_solved_step"][k],
        }
        for k in range(row.seeds)
    ]
    return lines, [{"row": name, **point} for point in curve_of(metrics)]


def curve_of(metrics: Any) -> Lines:
    """Return the IQM of the greedy return over the seeds, and its interval, at every evaluation (``Metrics``)."""
    curve = []
    for step, scores in zip(metrics.env_step[0], metrics.eval_return.T, strict=True):
        low, high = iqm_interval(scores) or (np.nan, np.nan)
        numbers = {"IQM": iqm(scores), "95% CI low": low, "95% CI high": high}
        curve.append({"env_step": int(step), **{key: round(float(x), 5) for key, x in numbers.items()}})
    return curve


def overrides_of(row: Row, seed: int) -> tuple[str, ...]:
    """Return the overrides of a row's run: its own, seeds, steps, and a checkpoint at each twentieth of the steps.

    A signal makes training write a checkpoint before it ends, but a machine that stops may send none.
    """
    steps = steps_of(row)
    numbers = (f"seed={seed}", f"num_seeds={row.seeds}", f"total_timesteps={steps}")
    return (*row.overrides, *numbers, f"checkpoint.every={max(steps // 20, 1)}")


def steps_of(row: Row) -> int:
    """Return the row's steps, rounded down to whole periods after the warm-up; without replay, to 20 epochs of them."""
    from purejaxdqn.config.reading import read_config
    from purejaxdqn.core.plan import MAX_EPOCHS, intervals_of

    config = read_config(row.configs, row.overrides).config
    warmup, _, period = intervals_of(config)
    unit = period * (MAX_EPOCHS if config.replay.kind == "none" else 1)
    return warmup + max(1, (row.steps - warmup) // unit) * unit


def find_overlap(configs: Sequence[str], seed: int) -> str:
    """Return an error message if a search behind one of the configs used ``seed``, else an empty string."""
    for config in configs:
        path = harness.ROOT / "configs" / f"{config}.yaml"
        for found in searched_seeds(path.read_text(encoding="utf-8")):
            if seed in (found, found + 1):
                return f"seed {seed} was used by the search behind {config}.yaml (seeds {found} and {found + 1})"
    return ""


def searched_seeds(text: str) -> list[int]:
    """Return the seeds of the searches in a config's header.

    Raises:
      SystemExit: a search has no seed.
    """
    lines = re.findall(r"^# search: .*$", text, re.MULTILINE)
    seeds = [re.search(r"\bseed=(\d+)", line) for line in lines]
    if None in seeds:
        raise SystemExit(f"a header names a search without its seed: {lines}")
    return [int(found[1]) for found in seeds if found]


def read(name: str = "learning") -> Lines:
    """Read the lines of ``results/<name>.csv``; none if the file does not exist."""
    path = harness.RESULTS / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def summarise(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table, with one row per row of the benchmark that has lines."""
    lines = list(lines)
    names = sorted({one["row"] for one in lines}, key=list(ROWS).index)
    return [summarise_row(name, [one for one in lines if one["row"] == name]) for name in names]


def summarise_row(name: str, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a row of the table: scores, target, best possible return, and the return of a random policy."""
    row = ROWS[name]
    scores = np.array([float(one[row.column]) for one in lines])
    interval = iqm_interval(scores)
    target = target_of(name)
    best = best_return_of(lines[0]["environment"], **kwargs_of(row))
    missing = f"{len(scores)} of {row.seeds} seeds so far" if len(scores) < row.seeds else ""
    if row.on_seeds:
        reached = int((scores >= row.target).sum())
        met, found = reached >= row.on_seeds, f"{reached} of {len(scores)} at {row.target:g}"
        target_text = f"{row.on_seeds} at {row.target:g}"
    else:
        met, found = target is not None and interval is not None and interval[0] >= target, ""
        target_text = "-" if target is None else f"{target:.4g}"
    solved = sorted(int(one["first_solved_step"]) for one in lines if one["first_solved_step"] not in ("", None))
    return {
        "row": name,
        "agent": members_of(row),
        "steps": f"{int(lines[0]['env_steps']):,}",
        "seeds": len(scores),
        "IQM": f"{iqm(scores):.4g}",
        "95% CI": f"{interval[0]:.4g} to {interval[1]:.4g}" if interval else "-",
        "lowest seed": f"{scores.min():.4g}",
        "seeds that reach it": found,
        "solved by (median)": f"{solved[len(solved) // 2]:,}" if len(solved) > len(scores) / 2 else "-",
        "random policy": f"{random_policy(name)[0]:.3g}" if has_random_return(name, best) else "-",
        "best possible": "-" if best is None else f"{best:.4g}",
        "target": target_text,
        "reached": "-" if target is None else "open" if missing else "yes" if met else "no",
        "note": "; ".join(
            filter(
                None,
                (
                    "training return" if row.column != "final_eval_return" else "",
                    f"seed={row.seed}" if row.seed != SEED else "",
                    row.note,
                    missing,
                ),
            )
        ),
    }


def target_of(name: str) -> float | None:
    """Return a row's target as a number.

    "best" is 90% of the best possible return; "random" is a random policy's mean return plus ten standard errors.
    """
    row = ROWS[name]
    match row.target:
        case "best":
            best = best_return_of(read_environment(name), **kwargs_of(row))
            assert best is not None
            return 0.9 * best
        case "random":
            mean, error = random_policy(name)
            return mean + 10 * error
        case str():
            raise ValueError(f"unknown target {row.target!r}")
        case _:
            return row.target


def has_random_return(name: str, best: float | None) -> bool:
    """Return whether the table shows a random policy's return beside the best return of a row."""
    return best is not None or ROWS[name].target == "random" or stored_random(name) is not None


@functools.cache
def random_policy(name: str) -> tuple[float, float]:
    """Return the mean return of uniformly random actions in a row's environment, and its standard error.

    Raises:
      SystemExit: the environment is of another suite than gymnax, and ``optimal.py --suites`` has no line for it.
    """
    if ROWS[name].group == "suites":
        if (stored := stored_random(name)) is None:
            raise SystemExit(f"{name}: first run python -m benchmarks.optimal --suites")
        return stored
    return mean_and_error(random_returns(read_environment(name), episodes=1_000, **kwargs_of(ROWS[name])))


def members_of(row: Row) -> str:
    """Return the presets that make up the row's agent, joined by " + "; ``dqn`` if there are none."""
    from purejaxdqn.config.reading import read_config

    config = read_config(row.configs, row.overrides).config
    chosen = {
        "double_dqn": config.bootstrap.kind == "double",
        "munchausen": config.bootstrap.kind == "munchausen",
        "dueling": config.network.dueling,
        "n_step": config.n_step > 1,
        "per": config.replay.kind == "prioritised",
        "noisy": config.network.noisy,
        "c51": config.distribution.kind == "categorical",
        "qr_dqn": config.distribution.kind == "quantile",
        "iqn": config.distribution.kind == "iqn",
        "fqf": config.distribution.kind == "fqf",
        "pqn": config.replay.kind == "none",
        "bootstrapped": config.ensemble.members > 1 and not config.ensemble.prior,
        "bootstrapped_priors": config.ensemble.prior,
        config.network.memory: config.network.memory != "none",
    }
    return " + ".join(name for name, has in chosen.items() if has) or "dqn"


def kwargs_of(row: Row) -> dict[str, Any]:
    """Return the constructor arguments of the row's environment."""
    from purejaxdqn.config.reading import read_config

    return dict(read_config(row.configs, row.overrides).config.env.kwargs)


def draw(lines: Sequence[dict[str, Any]]) -> Path:
    """Draw every seed of every row, the interval of the IQM and the target: ``results/learning.png``."""
    from matplotlib.ticker import MaxNLocator

    from purejaxdqn.pictures.palette import SOLVED_COLOR
    from purejaxdqn.pictures.runs import draw_scores

    def panel(axes: Any, name: str, mine: Lines) -> None:
        scores = np.array([float(one[ROWS[name].column]) for one in mine])
        draw_scores(axes, 0.0, scores, centre=iqm(scores), interval=iqm_interval(scores))
        target = target_of(name)
        if target is not None:
            axes.axvline(target, color=SOLVED_COLOR, linestyle=":", linewidth=1.2)
        axes.set_title(name, fontsize=9)
        axes.set(yticks=[], ylim=(-0.5, 0.5))
        middle, least = float(np.mean(axes.get_xlim())), 0.02 * float(np.abs(scores).max())
        if np.ptp(axes.get_xlim()) < least:  # scores that hardly differ stand close together, and not at the two ends
            axes.set_xlim(middle - least / 2, middle + least / 2)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.get_major_formatter().set_useOffset(False)

    title = "Return of every seed (dots), their IQM (line), its 95% interval (bar), target (dotted)"
    return _draw_rows("learning", title, lines, panel)


def draw_curves(lines: Sequence[dict[str, Any]], file: str = "learning_curves") -> Path:
    """Draw the IQM of the greedy return, with its interval, against environment steps, of all rows or of a picture."""
    from purejaxdqn.pictures.palette import EVALUATION_COLOR, SOLVED_COLOR

    def panel(axes: Any, name: str, mine: Lines) -> None:
        _draw_curve(axes, mine, color=EVALUATION_COLOR, linewidth=1.2)
        target = target_of(name)
        if target is not None and ROWS[name].column == "final_eval_return":
            axes.axhline(target, color=SOLVED_COLOR, linestyle=":", linewidth=1.2)
        axes.set_title(name, fontsize=9)
        axes.set(xlabel="thousand steps")

    title = "Greedy return during training: IQM over seeds, its 95% interval, target (dotted)"
    return _draw_rows(file, title, [one for one in lines if one["row"] in PICTURES.get(file, ROWS)], panel)


def draw_cartpole(lines: Sequence[dict[str, Any]]) -> Path:
    """Draw the rows of ``CARTPOLE`` in one panel, for the first screen of the README: ``learning_cartpole.png``."""
    from purejaxdqn.pictures.figures import style, subplots
    from purejaxdqn.pictures.palette import COLORS, LINES

    with style():
        figure, axes = subplots(figsize=(4.2, 3.0))
        for (name, label), color, line in zip(CARTPOLE.items(), COLORS, LINES, strict=False):
            mine = [one for one in lines if one["row"] == name]
            _draw_curve(axes, mine, color=color, linestyle=line, label=label)
        axes.set(xlabel="thousand steps", ylabel="greedy return", xscale="log", ylim=(0, 520))
        axes.set_title(f"CartPole: IQM of {_seeds_of(CARTPOLE)} seeds, 95% interval", fontsize=10)
        axes.legend(loc="lower right", fontsize=8)
        return save(figure, "learning_cartpole")


def _draw_curve(axes: Any, mine: Lines, *, color: str, **style: Any) -> None:
    """Draw the IQM of one row against thousands of environment steps, with its interval."""
    columns = ("env_step", "IQM", "95% CI low", "95% CI high")
    steps, middle, low, high = (np.array([float(one[column]) for one in mine]) for column in columns)
    axes.fill_between(steps / 1000, low, high, color=color, alpha=0.25, linewidth=0)
    axes.plot(steps / 1000, middle, color=color, **style)


def _seeds_of(names: Iterable[str]) -> int:
    """The number of seeds that each of these rows has in ``learning.csv``."""
    rows = [one["row"] for one in read()]
    (count,) = {rows.count(name) for name in names}
    return count


def _draw_rows(
    file: str, title: str, lines: Sequence[dict[str, Any]], panel: Callable[[Any, str, Lines], None]
) -> Path:
    """Draw one panel for each row of the benchmark that ``lines`` has; return the path of the picture."""
    from purejaxdqn.pictures.figures import style, subplots

    names = sorted({one["row"] for one in lines}, key=list(ROWS).index)
    columns = min(4, len(names))
    with style():
        shape = (-(-len(names) // columns), columns)
        size = (2.5 * columns, 0.4 + 1.8 * shape[0])
        figure, grid = subplots(*shape, figsize=size, squeeze=False)
        for axes in grid.flat[len(names) :]:
            axes.axis("off")
        for axes, name in zip(grid.flat, names, strict=False):
            panel(axes, name, [one for one in lines if one["row"] == name])
        figure.suptitle(title)
        return save(figure, file)


def read_environment(name: str) -> str:
    """Return the environment id of a row."""
    from purejaxdqn.config.reading import read_config

    return read_config(ROWS[name].configs, ROWS[name].overrides).config.env.id


if __name__ == "__main__":
    main()
