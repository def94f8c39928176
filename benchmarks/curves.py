"""How does each member of the family learn on CartPole?

Trains plain DQN and every algorithm of the family that has replay and no memory, all in the setting of the ablation
(``ablation.SETTINGS``), which was tuned for none of them. Each page of ``docs/algorithms`` shows the curves of its
algorithms: the interquartile mean (IQM) of the greedy return over the seeds, with its 95% interval.

    python -m benchmarks.curves                     all agents: 45 minutes on one core
    python -m benchmarks.curves --agents iqn fqf    some agents; replaces their lines in results/curves*.csv
    python -m benchmarks.curves --out DIR           keeps the runs in DIR; run it again to resume
    python -m benchmarks.curves --table             tables and pictures from the CSVs, without training
    python -m benchmarks.curves --quick             under a minute: two agents, short runs, nothing kept
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness, learning
from benchmarks.ablation import SETTINGS
from benchmarks.pictures import save
from purejaxdqn.runs.statistics import iqm, iqm_interval

SEED = 2028
"""Config key ``seed`` of all agents; no search has used it."""
SEEDS = 10
STEPS = 100_000
ENVIRONMENT = "CartPole"
EVERY = "evaluation.every=3_000"
SOLVED = 475.0
"""The table has the step at which the IQM first reaches this return, at which CartPole counts as solved."""
PLAIN = "dqn"
QUICK = (PLAIN, "double_dqn")


class Agent(NamedTuple):
    """Changes to plain DQN."""

    presets: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


PAGES: dict[str, dict[str, Agent]] = {
    "bootstraps": {name: Agent((name,)) for name in ("double_dqn", "munchausen")},
    "distributions": {
        "c51": Agent(("c51",)),
        "hl_gauss": Agent((), ("distribution={kind: hl_gauss, v_min: -10, v_max: 10}",)),
        **{name: Agent((name,)) for name in ("qr_dqn", "iqn", "fqf")},
    },
    "networks": {name: Agent((name,)) for name in ("dueling", "noisy")},
    "replay": {name: Agent((name,)) for name in ("per", "n_step")},
    "rainbow": {"rainbow": Agent(("rainbow",))},
    "ensembles": {name: Agent((name,)) for name in ("bootstrapped", "bootstrapped_priors")},
}
"""The agents that each page of ``docs/algorithms`` shows beside plain DQN."""
AGENTS: dict[str, Agent] = {PLAIN: Agent(), **{name: one for page in PAGES.values() for name, one in page.items()}}

Lines = list[dict[str, Any]]


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--agents", nargs="+", metavar="NAME", help=f"only these of {', '.join(AGENTS)}")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--table", action="store_true")
    which.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the runs here, and resume runs that are here")
    arguments = parser.parse_args()
    if arguments.table:
        show(learning.read("curves_scores"), learning.read("curves"), keep=True)
        return
    names = arguments.agents or (QUICK if arguments.quick else AGENTS)
    if unknown := [name for name in names if name not in AGENTS]:
        parser.error(f"unknown agent {unknown[0]!r}; choose from {', '.join(AGENTS)}")
    for name in names:
        if overlap := learning.find_overlap(configs_of(AGENTS[name]), SEED):
            parser.error(overlap)
    steps, seeds = (7_000, 2) if arguments.quick else (STEPS, SEEDS)
    scores, curves = ([], []) if arguments.quick else (learning.read("curves_scores"), learning.read("curves"))
    with harness.runs_in(None if arguments.quick else arguments.out) as folder:
        for name in names:
            found, curve = train(name, folder / name, steps, seeds)
            scores, curves = replace(scores, found), replace(curves, curve)
            if not arguments.quick:
                harness.write("curves_scores", scores)
                harness.write("curves", curves)
    show(scores, curves, keep=not arguments.quick)


def configs_of(agent: Agent) -> tuple[str, ...]:
    """Return the configs of an agent in the order of the command."""
    return (SETTINGS[ENVIRONMENT].config, *agent.presets)


def overrides_of(agent: Agent, steps: int, seeds: int) -> tuple[str, ...]:
    """Return the overrides of an agent in the order of the command."""
    numbers = (f"total_timesteps={steps}", f"seed={SEED}", f"num_seeds={seeds}", EVERY)
    return (*SETTINGS[ENVIRONMENT].overrides, *agent.overrides, *numbers)


def train(name: str, folder: Path, steps: int, seeds: int) -> tuple[Lines, Lines]:
    """Train all seeds with the command; return the agent's lines of ``curves_scores.csv`` and ``curves.csv``."""
    from purejaxdqn.runs.metrics import read_metrics

    agent = AGENTS[name]
    summary = harness.train(configs_of(agent), overrides_of(agent, steps, seeds), folder)
    scores = [
        {"agent": name, "seed": k, "env_steps": summary["total_timesteps"], "final_eval_return": score}
        for k, score in enumerate(summary["final_eval_return"])
    ]
    curve = learning.curve_of(read_metrics(folder / "metrics.csv"))
    return scores, [{"agent": name, **point} for point in curve]


def replace(lines: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> Lines:
    """Return lines with those of the agents in ``new`` replaced by it, in the order of ``AGENTS``."""
    again = {one["agent"] for one in new}
    together = [*(one for one in lines if one["agent"] not in again), *new]
    return sorted(together, key=lambda one: list(AGENTS).index(one["agent"]))


def summarise(scores: Sequence[Mapping[str, Any]], curves: Sequence[Mapping[str, Any]]) -> Lines:
    """Return the table: one row per agent that has lines."""
    rows = []
    for name in dict.fromkeys(one["agent"] for one in scores):
        mine = [one for one in scores if one["agent"] == name]
        final = np.array([float(one["final_eval_return"]) for one in mine])
        interval = iqm_interval(final)
        points = [one for one in curves if one["agent"] == name]
        reached = [int(one["env_step"]) for one in points if float(one["IQM"]) >= SOLVED]
        rows.append(
            {
                "agent": name,
                "steps": f"{int(mine[0]['env_steps']):,}",
                "seeds": len(mine),
                "final return, IQM": f"{iqm(final):.4g}",
                "95% CI": "-" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}",
                f"IQM first reaches {SOLVED:g} at step": f"{min(reached):,}" if reached else "-",
            }
        )
    return rows


def show(scores: Sequence[Mapping[str, Any]], curves: Sequence[Mapping[str, Any]], *, keep: bool) -> None:
    """Print the table; if ``keep``, also write it and draw the pictures of the pages whose agents all have curves."""
    table = summarise(scores, curves)
    print(harness.table(table))
    if not keep:
        return
    print(harness.write("curves_table", table, of="curves"))
    for page, agents in PAGES.items():
        if {PLAIN, *agents} <= {one["agent"] for one in curves}:
            print(save(draw(page, curves, seeds=table[0]["seeds"]), f"curves_{page}"))


def draw(page: str, curves: Sequence[Mapping[str, Any]], *, seeds: int) -> Any:
    """Return the figure of a page: the IQM of the greedy return, with its interval, against environment steps."""
    from purejaxdqn.pictures.figures import legend_below, style, subplots
    from purejaxdqn.pictures.palette import LINES, OTHERS_COLOR, SOLVED_COLOR, SOLVED_LINE, look

    columns = ("env_step", "IQM", "95% CI low", "95% CI high")
    highest = max(SOLVED, *(float(one["95% CI high"]) for one in curves))  # all pages have the same axes
    with style():
        figure, axes = subplots(figsize=(6.4, 4.0))
        for nth, name in enumerate((PLAIN, *PAGES[page])):
            mine = [one for one in curves if one["agent"] == name]
            steps, middle, low, high = (np.array([float(one[column]) for one in mine]) for column in columns)
            one = look(nth - 1)._replace(linestyle=LINES[nth % len(LINES)])
            if name == PLAIN:
                one = one._replace(color=OTHERS_COLOR, marker="")
            axes.fill_between(steps / 1000, low, high, color=one.color, alpha=0.16, linewidth=0)
            axes.plot(
                steps / 1000,
                middle,
                **one._asdict(),
                linewidth=1.8,
                markersize=4,
                markevery=(nth, 5),  # marks of curves that coincide are not on top of each other
                label="plain DQN" if name == PLAIN else name,
            )
        axes.axhline(SOLVED, color=SOLVED_COLOR, linestyle=SOLVED_LINE, linewidth=1, label=f"solved ({SOLVED:g})")
        axes.margins(x=0.01)
        axes.set(
            xlabel="environment steps (thousand)",
            ylabel="greedy return",
            title=f"{ENVIRONMENT}, IQM of {seeds} seeds and its 95% interval",
            xlim=(0, None),
            ylim=(0, 1.04 * highest),
        )
        legend_below(figure)
    return figure


if __name__ == "__main__":
    main()
