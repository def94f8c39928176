"""Which changes were tried by hand to tune the shipped configs, and what did each of them gain?

These are sweeps of single changes, besides the searches by `purejaxdqn.search` that a config's header names. The header
names their seeds as well; `learning.py` refuses to test with them.

    python -m benchmarks.tuning                  all rounds: five hours on two cores
    python -m benchmarks.tuning --round acrobot  one round (or several): results/tuning_acrobot.csv
    python -m benchmarks.tuning --quick          under a minute: two changes of one config, short, nothing kept
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness
from purejaxdqn.runs.statistics import iqm, iqm_interval


class Tuning(NamedTuple):
    """One round of tuning: changes to a config, each trained separately."""

    config: str
    seed: int
    seeds: int
    steps: int
    start: tuple[str, ...]  # overrides that turn the shipped config into the one that the changes start from
    changes: tuple[str, ...]  # each one or more `key=value` overrides, separated by spaces; "" changes nothing
    best: float | None = None  # if set: the best possible return; the table counts the seeds that reach it
    episodes: int = 100  # of the final evaluation


_DOUBLE = "bootstrap.kind=double n_step=2"
_QUANTILES = "distribution.kind=quantile distribution.atoms=51"
_WIDE = "network.hidden=[256,256]"
_MUNCHAUSEN = "bootstrap.kind=munchausen"
_NORM = "network.layer_norm=true"
_FARTHER = "gamma=0.995 n_step=5"
_BEFORE_DUELING = ("gamma=0.992", "n_step=3", "network.dueling=false", "env.normalize=false")
_BEFORE_NORM = ("network.layer_norm=false", "optimizer.learning_rate=6.3e-4", "schedule.target_every=500")
_LARGER_STEPS = "optimizer.learning_rate=1.5e-3"
_FASTER, _FILTERS = "optimizer.learning_rate=1e-3", "network.channels=[128,128]"

TUNED: dict[str, Tuning] = {
    "acrobot": Tuning(
        "acrobot",
        9300,
        4,
        100_000,
        (*_BEFORE_NORM, "n_step=1", "bootstrap.kind=greedy"),
        (
            *(
                f"loss={loss} n_step={n}{scale}"
                for loss, n, scale in product(("huber", "squared"), (1, 3, 5), ("", " reward.scale=0.1"))
            ),
            "bootstrap.kind=double",
            _DOUBLE,
            _MUNCHAUSEN,
            f"{_MUNCHAUSEN} n_step=2",
            _QUANTILES,
            f"{_QUANTILES} n_step=2",
            f"{_DOUBLE} exploration.end=0.01",
            f"{_DOUBLE} optimizer.learning_rate=1.5e-3",
            f"{_DOUBLE} optimizer.learning_rate=1e-3 schedule.tau=0.5",
            f"{_DOUBLE} gamma=0.965",
            f"{_DOUBLE} gamma=0.98",
            f"{_DOUBLE} gamma=0.997",
            f"{_DOUBLE} replay.size=100_000",
            f"{_DOUBLE} network.hidden=[64,64,64]",
            f"{_DOUBLE} network.hidden=[120,120]",
            f"{_DOUBLE} network.hidden=[240,64]",
            f"{_DOUBLE} {_WIDE}",
            f"{_DOUBLE} {_WIDE} replay.batch_size=64",
            f"{_DOUBLE} {_WIDE} optimizer.learning_rate=1e-3",
        ),
    ),
    "acrobot_second": Tuning(
        "acrobot",
        9600,
        16,
        100_000,
        _BEFORE_NORM,
        (
            "",
            "env.normalize=true",
            _MUNCHAUSEN,
            f"{_MUNCHAUSEN} n_step=1",
            "network.activation=tanh",
            "network.activation=silu",
            "network.dueling=true",
            "optimizer.learning_rate=3e-3 schedule.target_every=200",
            _NORM,
            f"{_NORM} exploration.end=0.25",
            f"{_NORM} schedule.target_every=200",
            f"{_NORM} optimizer.learning_rate=1.5e-3",
            f"{_NORM} optimizer.learning_rate=3e-3",
            f"{_NORM} optimizer.learning_rate=6e-3",
            f"{_NORM} optimizer.learning_rate=3e-3 schedule.target_every=200",
            f"{_NORM} optimizer.learning_rate=3e-3 schedule.target_every=100",
        ),
        episodes=400,
    ),
    "cartpole_100k": Tuning(
        "cartpole_100k",
        9400,
        30,
        100_000,
        (
            "optimizer.learning_rate=2.3e-3",
            "optimizer.max_grad_norm=null",
            "bootstrap.kind=double",
            "schedule.target_every=500",
            *_BEFORE_DUELING,
        ),
        (
            "",
            "exploration.end=0.2",
            "gamma=0.985",
            "n_step=5",
            "optimizer.learning_rate=1.5e-3",
            "schedule.tau=0.4",
            "optimizer.max_grad_norm=10",
            "optimizer.max_grad_norm=10 gamma=0.995",
            "optimizer.max_grad_norm=10 schedule.tau=1",
            "optimizer.max_grad_norm=10 schedule.tau=1 gamma=0.995",
            "optimizer.max_grad_norm=10 optimizer.learning_rate=3e-3",
        ),
        best=500.0,
    ),
    "cartpole_100k_second": Tuning(
        "cartpole_100k",
        9610,
        60,
        100_000,
        ("bootstrap.kind=double", "schedule.target_every=500", *_BEFORE_DUELING),
        (
            "",
            _NORM,
            "schedule.gradient_steps=8",
            _MUNCHAUSEN,
            f"{_MUNCHAUSEN} schedule.target_every=200",
            f"{_MUNCHAUSEN} schedule.target_every=200 replay.batch_size=256",
        ),
        best=500.0,
    ),
    "cartpole_100k_third": Tuning(
        "cartpole_100k",
        9700,
        30,
        100_000,
        _BEFORE_DUELING,
        (
            "replay.kind=prioritised",
            "optimizer.learning_rate=1.5e-3",
            "schedule.target_every=10 schedule.tau=0.02",
            "network.activation=silu",
            "network.activation=tanh",
            "gamma=0.985",
            "exploration.end=0.2",
            "exploration.fraction=0.5",
        ),
        best=500.0,
    ),
    "cartpole_100k_fourth": Tuning(
        "cartpole_100k",
        9720,
        30,
        100_000,
        _BEFORE_DUELING,
        ("env.normalize=true", "reward.scale=1", _FARTHER),
        best=500.0,
    ),
    "cartpole_100k_fifth": Tuning(
        "cartpole_100k",
        9710,
        60,
        100_000,
        _BEFORE_DUELING,
        (
            "",
            "network.activation=tanh",
            "network.activation=tanh exploration.fraction=0.5",
            _FARTHER,
            "gamma=0.995 n_step=7",
            f"{_FARTHER} replay.kind=prioritised",
            f"{_FARTHER} exploration.end=0.03",
            f"{_FARTHER} env.normalize=true",
            f"{_FARTHER} env.normalize=true network.dueling=true",
            f"{_FARTHER} env.normalize=true replay.kind=prioritised exploration.fraction=0.5",
        ),
        best=500.0,
    ),
    "pong": Tuning(
        "pong",
        9500,
        4,
        250_000,
        ("env.num_envs=10", "optimizer.anneal=false", "exploration.end=0.1"),
        ("", "env.num_envs=20 optimizer.anneal=true exploration.end=0.05"),
    ),
    "cartpole_pqn": Tuning(
        "cartpole_pqn",
        9812,
        60,
        307_200,
        ("gamma=0.989", "exploration.end=0.153", "optimizer.eps=1e-8", _LARGER_STEPS),
        (
            "",
            "gamma=0.993 exploration.end=0.2",
            "gamma=0.993 env.normalize=true",
            "gamma=0.993 env.normalize=true exploration.end=0.2",
            "gamma=0.995 env.normalize=true exploration.end=0.2 rollout.lambda=0.95",
            "gamma=0.993 env.normalize=true exploration.end=0.2 network.dueling=true",
            "gamma=0.993 env.normalize=true rollout.epochs=4 optimizer.learning_rate=2e-3",
        ),
        best=500.0,
    ),
    "cartpole_pqn_second": Tuning(
        "cartpole_pqn",
        9816,
        120,
        307_200,
        ("gamma=0.993", _LARGER_STEPS),
        ("", "optimizer.eps=1e-8", "optimizer.eps=1e-4", "env.normalize=true"),
        best=500.0,
    ),
    "cartpole_pqn_third": Tuning(
        "cartpole_pqn",
        9820,
        240,
        307_200,
        ("gamma=0.993", _LARGER_STEPS),
        (
            "",
            "exploration.end=0.3",
            "gamma=0.995",
            "network.hidden=[128,128]",
            "rollout.minibatches=4",
            "rollout.lambda=0.95",
            "env.num_envs=64 rollout.steps=16",
        ),
        best=500.0,
    ),
    "cartpole_pqn_fourth": Tuning(
        "cartpole_pqn",
        9824,
        240,
        307_200,
        ("gamma=0.993", _LARGER_STEPS),
        (
            "",
            "gamma=0.995",
            "gamma=0.997",
            "gamma=0.995 rollout.minibatches=16",
            "gamma=0.995 optimizer.learning_rate=1e-3",
            "gamma=0.995 optimizer.eps=1e-4",
            "gamma=0.995 optimizer.max_grad_norm=1",
            "gamma=0.995 rollout.epochs=4",
            "gamma=0.995 bootstrap.kind=double schedule.target_every=1000",
            "gamma=0.995 env.normalize=true",
        ),
        best=500.0,
    ),
    "cartpole_pqn_fifth": Tuning(
        "cartpole_pqn",
        9828,
        240,
        307_200,
        (_LARGER_STEPS,),
        (
            "",
            "optimizer.learning_rate=1e-3",
            "gamma=0.998",
            "optimizer.max_grad_norm=1",
            "gamma=0.995 optimizer.learning_rate=1e-3",
        ),
        best=500.0,
    ),
    "2048_unmasked": Tuning(
        "pgx/2048_unmasked",
        9972,
        1,
        1_966_080,
        ("optimizer.learning_rate=5e-4", "rollout.lambda=0.65", "network.channels=[64,64]"),
        (
            "",
            "distribution.kind=hl_gauss distribution.v_min=-1 distribution.v_max=25 distribution.atoms=51",
            "exploration.end=0.01",
            "rollout.lambda=0.9",
            "rollout.epochs=4",
            "optimizer.learning_rate=2e-3",
            _FASTER,
            f"{_FASTER} rollout.epochs=4",
            f"{_FASTER} exploration.end=0.003",
            f"{_FASTER} rollout.minibatches=16",
            f"{_FASTER} gamma=0.98",
            f"{_FASTER} {_FILTERS}",
            f"{_FASTER} {_FILTERS} network.hidden=[256]",
            *(f"{_FASTER} rollout.lambda={share}" for share in (0.4, 0.2, 0)),
            *(f"{_FASTER} {_FILTERS} rollout.lambda={share}" for share in (0.4, 0.2)),
        ),
    ),
}


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--round", nargs="+", choices=TUNED, default=list(TUNED))
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the runs here, and resume runs that are here")
    arguments = parser.parse_args()
    chosen = {name: TUNED[name] for name in arguments.round}
    if arguments.quick:
        name = "cartpole_100k"
        chosen = {name: TUNED[name]._replace(seeds=2, steps=12_000, changes=TUNED[name].changes[:2])}
    with harness.runs_in(None if arguments.quick else arguments.out) as folder:
        for name, tuning in chosen.items():
            lines = run(name, tuning, folder)
            print(harness.table(lines))
            if not arguments.quick:
                print(harness.write(f"tuning_{name}", lines))


def run(name: str, tuning: Tuning, folder: Path) -> list[dict[str, Any]]:
    """Train every change with the command; return one line per change, the best first."""
    lines = []
    for number, change in enumerate(tuning.changes):
        summary = harness.train((tuning.config,), overrides(tuning, change), folder / f"{name}-{number}")
        lines.append(summarise(tuning, change, np.array(summary["final_eval_return"])))
    return sort(lines)


def overrides(tuning: Tuning, change: str) -> list[str]:
    """Return the overrides of the command for a change; each key occurs once, and the change wins over the start."""
    keys = dict(one.split("=", 1) for one in (*tuning.start, *change.split()))
    numbers = {
        "seed": tuning.seed,
        "num_seeds": tuning.seeds,
        "total_timesteps": tuning.steps,
        "evaluation.final_episodes": tuning.episodes,
    }
    return [f"{key}={value}" for key, value in {**keys, **numbers}.items()]


def summarise(tuning: Tuning, change: str, scores: np.ndarray) -> dict[str, Any]:
    """Return a row of the table, from the seeds' scores [S]."""
    interval = iqm_interval(scores)
    reached = "" if tuning.best is None else f"{int((scores >= tuning.best).sum())} of {len(scores)} at {tuning.best:g}"
    return {
        "change": change or "none",
        "seeds": len(scores),
        "steps": f"{tuning.steps:,}",
        "IQM": f"{iqm(scores):.4g}",
        "95% CI": f"{interval[0]:.4g} to {interval[1]:.4g}" if interval else "",
        "mean": f"{scores.mean():.5g}",
        "lowest seed": f"{scores.min():.4g}",
        "highest seed": f"{scores.max():.4g}",
        "seeds that reach it": reached,
    }


def sort(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sort rows by IQM, then by mean, the best first."""
    return [dict(one) for one in sorted(lines, key=lambda one: (-float(one["IQM"]), -float(one["mean"])))]


if __name__ == "__main__":
    main()
