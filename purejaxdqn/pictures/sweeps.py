"""Figures of a sweep: curves and ranking; ``swept_values`` and ``comparisons`` have the others."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from purejaxdqn.environments.registry import SOLVED_AT
from purejaxdqn.pictures.comparisons import draw_improvement, draw_profile
from purejaxdqn.pictures.figures import FORMATS, draw_lines, legend_below, save_figures, set_steps
from purejaxdqn.pictures.palette import OTHERS_COLOR, SOLVED_COLOR, SOLVED_LINE, look
from purejaxdqn.pictures.panels import RETURN_LABEL, Groups, by_environment, draw_panels, short_name
from purejaxdqn.pictures.runs import draw_band, draw_scores, draw_solved_line
from purejaxdqn.pictures.swept_values import draw_against, draw_heat_map, numeric_keys
from purejaxdqn.runs.statistics import iqm_of_columns, name_of_spread
from purejaxdqn.sweeps.directory import done_runs, load_pieces, read_directory
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.results import PointResult, RunResult, collect, runs_of_points, summarise_points
from purejaxdqn.system.faults import UserError

MAX_NAMED = 8
"""How many of the best points have a colour and a name in the figure of curves; the others are grey."""
MAX_RANKED = 40
MAX_COMPARED = 10
"""How many of the best points the performance profile and the probability of improvement show."""


def draw_sweep(
    folder: Path,
    points: Sequence[Point],
    results: Sequence[RunResult],
    summaries: Sequence[PointResult],
    formats: Sequence[str] = FORMATS[:1],
) -> list[Path]:
    """Draw the figures that the sweep's keys and seeds allow, in each of the formats; return the files."""
    return save_figures(folder, sweep_figures(points, results, summaries), formats)


def sweep_figures(
    points: Sequence[Point], results: Sequence[RunResult], summaries: Sequence[PointResult]
) -> Iterator[tuple[str, Figure]]:
    """The figures of a sweep by the names of their files.

    Curves and ranking are always drawn, a heat map of the first two swept numbers, one figure per swept number, and
    comparisons of the points of an environment if there are several points with several seeds each.
    """
    groups = by_environment(points, summaries)
    yield "curves", draw_curves(groups, results)
    yield "ranking", draw_ranking(groups)
    numbers = numeric_keys(points)
    if len(numbers) > 1:
        yield "heat_map", draw_heat_map(groups, points, x=numbers[0], y=numbers[1])
    for x in numbers:
        name = re.sub(r"[^\w.]", "_", x)  # a sweep.yaml from elsewhere may have any text for a key
        yield f"against_{name}", draw_against(groups, points, x=x)
    best = {env_id: mine[:MAX_COMPARED] for env_id, mine in groups.items()}
    compared = {
        env_id: mine for env_id, mine in best.items() if len(mine) > 1 and all(len(one.scores) > 1 for one in mine)
    }
    if compared:
        yield "performance_profile", draw_profile(compared)
        yield "probability_of_improvement", draw_improvement(compared)


def draw_directory(folder: Path, formats: Sequence[str] = FORMATS[:1]) -> list[Path]:
    """Draw the figures of a sweep directory again, from its pieces; return the files.

    Raises:
      UserError: the directory is damaged, or the sweep is not finished.
    """
    points, seeds = read_directory(folder)
    pieces = load_pieces(folder)
    done = sum(run.point < len(points) and run.seed_index < seeds for run in done_runs(pieces))
    wanted = len(points) * seeds
    if done < wanted:
        raise UserError(f"{folder} is not a finished sweep: {wanted - done} of {wanted} runs are missing")
    results = collect(points, pieces)
    return draw_sweep(folder, points, results, summarise_points(points, results), formats)


def draw_curves(groups: Groups, results: Sequence[RunResult]) -> Figure:
    """Plot the greedy return of each point against environment steps: IQM over seeds.

    The best ``MAX_NAMED`` points of an environment are named and have their 95% interval; the others are grey.
    """
    of_points = runs_of_points(results)

    def draw(place: Any, env_id: str, order: Sequence[PointResult]) -> None:
        axes = place.subplots()
        others = [_curve_of(of_points[summary.point]) for summary in order[MAX_NAMED:]]
        draw_lines(axes, others, color=OTHERS_COLOR, lw=0.7, alpha=0.6)
        for nth, summary in reversed(list(enumerate(order[:MAX_NAMED]))):
            runs = of_points[summary.point]
            values = np.stack([result.eval_return for result in runs])
            draw_band(axes, runs[0].env_step, values, label=short_name(summary.name), **look(nth)._asdict())
        draw_solved_line(axes, SOLVED_AT.get(env_id))
        seeds = len(order[0].scores)
        title = f"IQM of {seeds} seeds, {name_of_spread(seeds)}" if seeds > 1 else "One seed for each point"
        title += f"; grey: the other {len(others)} points" if others else ""
        axes.set(xlabel="environment steps", ylabel="greedy return of an episode", title=title)
        set_steps(axes)
        legend_below(place, reverse=True)

    return draw_panels(groups, draw, size=(7.2, 5.4))


def _curve_of(runs: Sequence[RunResult]) -> np.ndarray:
    """Environment steps and the IQM over runs of the greedy return [T, 2]."""
    return np.stack([runs[0].env_step, iqm_of_columns(np.stack([run.eval_return for run in runs]))], -1)


def draw_ranking(groups: Groups) -> Figure:
    """Draw the points from best to worst, 40 at most: every seed's score, their IQM and its 95% interval."""

    def draw(place: Any, env_id: str, ranking: Sequence[PointResult]) -> None:
        axes, order = place.subplots(), ranking[:MAX_RANKED]
        for row, summary in enumerate(order):
            draw_scores(axes, row, summary.scores, centre=summary.iqm, interval=summary.interval)
        if (solved_at := SOLVED_AT.get(env_id)) is not None:
            axes.axvline(solved_at, color=SOLVED_COLOR, lw=1.2, ls=SOLVED_LINE, zorder=1)
        axes.set_yticks(range(len(order)), [short_name(summary.name) for summary in order])
        axes.set_ylim(len(order) - 0.4, -0.6)
        more = f"; the best {len(order)} of {len(ranking)}" if len(order) < len(ranking) else ""
        seeds = len(order[0].scores)
        title = f"Dots: seeds; line: IQM; bar: its {name_of_spread(seeds)}" if seeds > 1 else "One seed for each point"
        axes.set(xlabel=RETURN_LABEL, title=f"{title.replace('its range', 'their range')}{more}")

    rows = max(len(mine[:MAX_RANKED]) for mine in groups.values())
    return draw_panels(groups, draw, size=(7.2, 1.3 + 0.28 * rows))
