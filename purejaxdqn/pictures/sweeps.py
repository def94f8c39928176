"""Figures of a sweep: curves, ranking, heat map, performance profile and probability of improvement."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps

from purejaxdqn.pictures.runs import (
    EVALUATION_COLOR,
    SOLVED_COLOR,
    draw_band,
    draw_lines,
    draw_solved_line,
    literal,
    save_figure,
    style,
    subplots,
)
from purejaxdqn.runs.statistics import iqm_of_columns, name_of_spread, performance_profile, probability_of_improvement
from purejaxdqn.sweeps.directory import done_runs, load_pieces, read_directory
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.results import PointResult, RunResult, collect, ranked, runs_of_points, summarise_points
from purejaxdqn.system.faults import UserError

MAX_NAMED = 8
"""How many of the best points have a colour and a name in the figure of curves; the others are grey."""
MAX_COMPARED = 10
"""How many of the best points the performance profile and the probability of improvement show."""
RETURN_LABEL = "greedy return, mean over the episodes of a seed"


def draw_sweep(
    folder: Path, points: Sequence[Point], results: Sequence[RunResult], summaries: Sequence[PointResult]
) -> list[Path]:
    """Draw the figures that the sweep's keys and seeds allow; return the files.

    Curves and ranking are always drawn, a heat map of the first two swept numbers, one figure per swept number, and
    comparisons of the points if there are several points with several seeds each.
    """
    solved_at = _solved_at(points)
    drawn = [
        draw_curves(folder / "curves.png", results, summaries, solved_at=solved_at),
        draw_ranking(folder / "ranking.png", summaries, solved_at=solved_at),
    ]
    numeric_keys = _numeric_keys(points)
    if len(numeric_keys) > 1:
        x, y, *_ = numeric_keys
        drawn.append(draw_heat_map(folder / "heat_map.png", points, summaries, x=x, y=y))
    for x in numeric_keys:
        name = re.sub(r"[^\w.]", "_", x)  # a stranger's sweep.yaml may have any text for a key
        drawn.append(draw_against(folder / f"against_{name}.png", points, summaries, x=x))
    compared = ranked(summaries)[:MAX_COMPARED]
    if len(summaries) > 1 and all(len(summary.scores) > 1 for summary in compared):
        drawn.append(draw_profile(folder / "performance_profile.png", compared))
        drawn.append(draw_improvement(folder / "probability_of_improvement.png", compared))
    return drawn


def draw_directory(folder: Path) -> list[Path]:
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
    return draw_sweep(folder, points, results, summarise_points(points, results))


def draw_curves(
    path: Path, results: Sequence[RunResult], summaries: Sequence[PointResult], *, solved_at: float | None
) -> Path:
    """Plot the greedy return of each point against environment steps: IQM over seeds.

    The best ``MAX_NAMED`` points are named and have their 95% interval; the others are grey.
    """
    order, of_points = ranked(summaries), runs_of_points(results)
    with style():
        figure, axes = subplots(figsize=(7.2, 5.4))
        others = [_curve_of(of_points[summary.point]) for summary in order[MAX_NAMED:]]
        draw_lines(axes, others, color="#999999", lw=0.7, alpha=0.6)
        for place, summary in reversed(list(enumerate(order[:MAX_NAMED]))):
            runs = of_points[summary.point]
            values = np.stack([result.eval_return for result in runs])
            draw_band(axes, runs[0].env_step, values, color=_color(place), label=_short_name(summary.name))
        draw_solved_line(axes, solved_at)
        seeds = len(summaries[0].scores)
        title = f"IQM of {seeds} seeds" + (f", {name_of_spread(seeds)}" if seeds > 1 else "")
        title += f"; grey: the other {len(others)} points" if others else ""
        axes.set(xlabel="environment steps", ylabel="greedy return of an episode", title=title)
        _legend_below(figure, axes, reverse=True)
        save_figure(figure, path, steps_on_x=True)
    return path


def _curve_of(runs: Sequence[RunResult]) -> np.ndarray:
    """Environment steps and the IQM over runs of the greedy return [T, 2]."""
    return np.stack([runs[0].env_step, iqm_of_columns(np.stack([run.eval_return for run in runs]))], -1)


def draw_ranking(path: Path, summaries: Sequence[PointResult], *, solved_at: float | None) -> Path:
    """Draw the points from best to worst, 40 at most: every seed's score, their IQM and its 95% interval."""
    order = ranked(summaries)[:40]
    with style():
        figure, axes = subplots(figsize=(7.2, 1.3 + 0.24 * len(order)))
        for row, summary in enumerate(order):
            axes.plot(
                summary.scores, np.full(len(summary.scores), row), ".", color=EVALUATION_COLOR, alpha=0.35, ms=5, mew=0
            )
            if summary.interval:
                axes.plot(summary.interval, [row, row], color=EVALUATION_COLOR, lw=4, alpha=0.45, solid_capstyle="butt")
            axes.plot(summary.iqm, row, "|", color="black", ms=9, mew=1.6)
        if solved_at is not None:
            axes.axvline(solved_at, color=SOLVED_COLOR, lw=1, ls="--")
        axes.set_yticks(range(len(order)), [_short_name(summary.name) for summary in order])
        axes.set_ylim(len(order) - 0.4, -0.6)
        more = f"; the best {len(order)} of {len(summaries)}" if len(order) < len(summaries) else ""
        axes.set(xlabel=RETURN_LABEL, title=f"Dots: seeds; line: IQM; bar: {_bar(order)}{more}")
        save_figure(figure, path)
    return path


def draw_heat_map(path: Path, points: Sequence[Point], summaries: Sequence[PointResult], *, x: str, y: str) -> Path:
    """Draw the IQM over two swept numbers, as cells for a grid and as dots for random draws.

    Where several points share both numbers, the best of them is shown.
    """
    best: dict[tuple[float, float], float] = {}
    for summary in summaries:
        pair = points[summary.point].swept[x], points[summary.point].swept[y]
        best[pair] = np.nanmax([best.get(pair, -np.inf), summary.iqm])
    xs, ys = (sorted({pair[axis] for pair in best}) for axis in (0, 1))
    others = [key for key in points[0].swept if key not in (x, y)]
    with style(grid=False):
        figure, axes = subplots(figsize=(6.4, 4.6))
        if len(xs) * len(ys) <= 4 * len(best):
            shown: Any = _draw_cells(axes, xs, ys, best)
        else:
            pairs = np.array(list(best), float)
            look: Any = {"cmap": "viridis", "s": 60, "edgecolor": "white", "lw": 0.5}
            shown = axes.scatter(pairs[:, 0], pairs[:, 1], c=list(best.values()), **look)
            axes.set_xscale(_scale(xs))
            axes.set_yscale(_scale(ys))
        figure.colorbar(shown, label="IQM of the greedy return")
        rest = f"; best over {', '.join(others)}" if others else ""
        axes.set(xlabel=x, ylabel=y, title=f"IQM of {len(summaries[0].scores)} seeds{rest}")
        save_figure(figure, path)
    return path


def _draw_cells(axes: Any, xs: list[float], ys: list[float], scores: dict[tuple[float, float], float]) -> Any:
    """Draw the scores of a grid as coloured cells, with their numbers if there are at most 100; return the image."""
    cells = np.array([[scores.get((x, y), np.nan) for x in xs] for y in ys])
    image = axes.imshow(cells, origin="lower", aspect="auto", cmap="viridis")
    axes.set_xticks(range(len(xs)), [f"{value:.4g}" for value in xs])
    axes.set_yticks(range(len(ys)), [f"{value:.4g}" for value in ys])
    if cells.size <= 100:
        for row, column in np.ndindex(cells.shape):
            dark = cells[row, column] < np.nanmean([np.nanmin(cells), np.nanmax(cells)])
            text = f"{cells[row, column]:.4g}"
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
    return image


def _bar(summaries: Sequence[PointResult]) -> str:
    name = name_of_spread(len(summaries[0].scores))
    return f"its {name}" if name != "range" else "their range"


def draw_against(path: Path, points: Sequence[Point], summaries: Sequence[PointResult], *, x: str) -> Path:
    """Plot the IQM of every point, with its 95% interval, against one swept number."""
    values = np.array([points[summary.point].swept[x] for summary in summaries], float)
    with style():
        figure, axes = subplots(figsize=(6.0, 3.8))
        bars = [
            np.array([[value, end] for end in summary.interval])
            for value, summary in zip(values, summaries, strict=True)
            if summary.interval
        ]
        draw_lines(axes, bars, color=EVALUATION_COLOR, lw=2, alpha=0.35)
        axes.plot(values, [summary.iqm for summary in summaries], "o", color=EVALUATION_COLOR, ms=4)
        axes.set_xscale(_scale(values))
        axes.set(xlabel=x, ylabel="greedy return", title=f"One dot per point: IQM of its seeds, with {_bar(summaries)}")
        save_figure(figure, path)
    return path


def draw_profile(path: Path, summaries: Sequence[PointResult]) -> Path:
    """Plot the share of runs above each return, with pointwise 95% intervals (Agarwal et al. 2021, figure 4)."""
    scores = np.concatenate([summary.scores for summary in summaries])
    finite = scores[np.isfinite(scores)]
    thresholds = np.linspace(finite.min(), finite.max(), 201) if len(finite) else np.zeros(1)
    with style():
        figure, axes = subplots(figsize=(7.2, 5.4))
        for n, summary in enumerate(summaries):
            shares, (low, high) = performance_profile(summary.scores, thresholds)
            axes.plot(thresholds, 100 * shares, color=_color(n), lw=1.8, label=_short_name(summary.name))
            axes.fill_between(thresholds, 100 * low, 100 * high, color=_color(n), alpha=0.15, lw=0)
        axes.set(xlabel=RETURN_LABEL, ylabel="runs above it (%)", title="Performance profile, 95% CI", ylim=(-3, 103))
        _legend_below(figure, axes)
        save_figure(figure, path)
    return path


def draw_improvement(path: Path, summaries: Sequence[PointResult]) -> Path:
    """Draw the probability that a run of the row's point scores higher than one of the column's, with its 95% interval.

    See Agarwal et al. 2021, section 4.3.
    """
    count = len(summaries)
    cells = np.full((count, count), np.nan)
    with style(grid=False):
        size = 2.6 + 0.85 * count
        figure, axes = subplots(figsize=(size + 1.2, size))
        for row, column in itertools.permutations(range(count), 2):
            probability, (low, high) = probability_of_improvement(summaries[row].scores, summaries[column].scores)
            cells[row, column] = probability
            text = f"{probability:.2f}\n{low:.2f}-{high:.2f}"
            color = "white" if abs(probability - 0.5) > 0.35 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
        shown = axes.imshow(cells, cmap="RdBu", vmin=0, vmax=1)
        names = [_short_name(summary.name) for summary in summaries]
        axes.set_xticks(range(count), names, rotation=30, ha="right")
        axes.set_yticks(range(count), names)
        figure.colorbar(shown, label="probability of improvement", shrink=0.8)
        title = "Probability that a run of the row beats one of the column, 95% CI"
        axes.set(title=title, xlabel="against", ylabel="run of")
        save_figure(figure, path)
    return path


def _legend_below(figure: Any, axes: Any, *, reverse: bool = False) -> None:
    """Add a legend below the axes, because long names of points would cover the curves."""
    handles, labels = axes.get_legend_handles_labels()
    order = slice(None, None, -1 if reverse else 1)
    columns = 2 if max(map(len, labels)) < 45 else 1
    figure.legend(handles[order], labels[order], fontsize="small", loc="outside lower center", ncols=columns)


def _numeric_keys(points: Sequence[Point]) -> list[str]:
    """Return the swept keys that are numbers at every point, with more than one value."""
    return [
        key
        for key, value in points[0].swept.items()
        if all(isinstance(point.swept[key], int | float) for point in points)
        and not isinstance(value, bool)
        and len({point.swept[key] for point in points}) > 1
    ]


def _solved_at(points: Sequence[Point]) -> float | None:
    from purejaxdqn.environments.registry import SOLVED_AT

    returns = {SOLVED_AT.get(point.config.env.id) for point in points}
    return returns.pop() if len(returns) == 1 else None


def _scale(values: Any) -> str:
    """Return the scale of an axis: logarithmic for positive numbers that span more than a factor of 20."""
    return "log" if min(values) > 0 and max(values) / min(values) > 20 else "linear"


def _color(n: int) -> Any:
    return colormaps["tab10"](n % 10)


def _short_name(name: str, max_length: int = 60) -> str:
    """Remove the sections from a point's keys (``optimizer.eps=1`` -> ``eps=1``), and cut what is too long; as text."""
    text = " ".join(_without_section(word) if "=" in word else word for word in name.split(" "))
    return literal(text if len(text) <= max_length else text[: max_length - 1] + "…")


def _without_section(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key.rsplit('.', 1)[-1]}={value}"
