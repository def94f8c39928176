"""Pictures of a sweep: curves, ranking, heat map, performance profile and probability of improvement."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib import pyplot as plt

from purejaxdqn.pictures.runs import EVALUATION, SOLVED, STYLE, draw_band, draw_solved, finish_figure
from purejaxdqn.runs.statistics import iqm, performance_profile, probability_of_improvement
from purejaxdqn.sweeps.directory import done_runs, load_pieces, read_directory
from purejaxdqn.sweeps.pieces import all_runs
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.results import PointResult, RunResult, collect, ranked, summarise_points
from purejaxdqn.system.faults import UserError

MOST_NAMED = 8
"""Points that get a colour and a name in a picture of curves; the others are grey."""
MOST_COMPARED = 10
"""Points that a matrix or a profile can show."""
RETURN = "greedy return, mean of a seed's episodes"


def draw_sweep(
    folder: Path, points: Sequence[Point], results: Sequence[RunResult], summaries: Sequence[PointResult]
) -> list[Path]:
    """Draw what the sweep has something to say about; returns the files."""
    solved_at = _solved_at(points)
    drawn = [
        draw_curves(folder / "curves.png", results, summaries, solved_at=solved_at),
        draw_ranking(folder / "ranking.png", summaries, solved_at=solved_at),
    ]
    for x, y in itertools.islice(itertools.combinations(_swept_numbers(points), 2), 1):
        drawn.append(draw_heat_map(folder / "heat_map.png", points, summaries, x=x, y=y))
    for x in _swept_numbers(points):
        drawn.append(draw_against(folder / f"against_{x}.png", points, summaries, x=x))
    compared = ranked(summaries)[:MOST_COMPARED]
    if len(summaries) > 1 and all(len(one.scores) > 1 for one in compared):
        drawn.append(draw_profile(folder / "performance_profile.png", compared))
        drawn.append(draw_improvement(folder / "probability_of_improvement.png", compared))
    return drawn


def draw_directory(folder: Path) -> list[Path]:
    """Draw the pictures of a sweep's directory from its pieces; returns the files.

    Raises:
      UserError: the directory is damaged, or the sweep is not finished.
    """
    points, seeds = read_directory(folder)
    pieces = load_pieces(folder)
    left = set(all_runs(points, seeds)) - done_runs(pieces)
    if left:
        raise UserError(f"{folder} is not a finished sweep: {len(left)} of {len(points) * seeds} runs are missing")
    results = collect(points, pieces)
    return draw_sweep(folder, points, results, summarise_points(points, results))


def draw_curves(
    path: Path, results: Sequence[RunResult], summaries: Sequence[PointResult], *, solved_at: float | None
) -> Path:
    """Greedy return against environment steps: IQM of each point with its 95% interval, the best ones named."""
    named = [one.point for one in ranked(summaries)[:MOST_NAMED]]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 5.4), layout="constrained")
        for one in ranked(summaries)[::-1]:
            mine = [result for result in results if result.run.point == one.point]
            steps, values = mine[0].env_step, np.stack([result.eval_return for result in mine])
            if one.point in named:
                draw_band(axes, steps, values, color=_color(named.index(one.point)), label=_short(one.name))
            else:
                axes.plot(steps, [iqm(column) for column in values.T], color="#999999", lw=0.7, alpha=0.6)
        draw_solved(axes, solved_at)
        others = len(summaries) - len(named)
        title = f"IQM of {len(summaries[0].scores)} seeds" + (", 95% CI" if len(summaries[0].scores) > 1 else "")
        title += f"; grey: the other {others} points" if others > 0 else ""
        axes.set(xlabel="environment steps", ylabel="greedy return of an episode", title=title)
        _legend_below(figure, axes, reverse=True)
        finish_figure(figure, path, steps_on_x=True)
    return path


def draw_ranking(path: Path, summaries: Sequence[PointResult], *, solved_at: float | None) -> Path:
    """Points from best to worst: every seed, the IQM and its 95% interval."""
    order = ranked(summaries)[:40]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 1.3 + 0.24 * len(order)), layout="constrained")
        for row, one in enumerate(order):
            axes.plot(one.scores, np.full(len(one.scores), row), ".", color=EVALUATION, alpha=0.35, ms=5, mew=0)
            if one.interval:
                axes.plot(one.interval, [row, row], color=EVALUATION, lw=4, alpha=0.45, solid_capstyle="butt")
            axes.plot(one.iqm, row, "|", color="black", ms=9, mew=1.6)
        if solved_at is not None:
            axes.axvline(solved_at, color=SOLVED, lw=1, ls="--")
        axes.set_yticks(range(len(order)), [_short(one.name) for one in order])
        axes.set_ylim(len(order) - 0.4, -0.6)
        more = f"; the best {len(order)} of {len(summaries)}" if len(order) < len(summaries) else ""
        axes.set(xlabel=RETURN, title=f"Dots: seeds; line: IQM; bar: its 95% CI{more}")
        finish_figure(figure, path)
    return path


def draw_heat_map(path: Path, points: Sequence[Point], summaries: Sequence[PointResult], *, x: str, y: str) -> Path:
    """IQM over two swept numbers: a cell for a grid, a dot for draws; other swept keys at their best."""
    best: dict[tuple[float, float], float] = {}
    for one in summaries:
        place = points[one.point].swept[x], points[one.point].swept[y]
        best[place] = np.nanmax([best.get(place, -np.inf), one.iqm])
    xs, ys = (sorted({place[axis] for place in best}) for axis in (0, 1))
    others = [key for key in points[0].swept if key not in (x, y)]
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
        if len(xs) * len(ys) <= 4 * len(best):
            cells = np.array([[best.get((a, b), np.nan) for a in xs] for b in ys])
            shown: Any = axes.imshow(cells, origin="lower", aspect="auto", cmap="viridis")
            axes.set_xticks(range(len(xs)), [f"{value:.4g}" for value in xs])
            axes.set_yticks(range(len(ys)), [f"{value:.4g}" for value in ys])
            if cells.size <= 100:
                for row, column in np.ndindex(cells.shape):
                    dark = cells[row, column] < np.nanmean([np.nanmin(cells), np.nanmax(cells)])
                    text = f"{cells[row, column]:.4g}"
                    axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
        else:
            values = [best[place] for place in best]
            shown = axes.scatter(
                [place[0] for place in best],
                [place[1] for place in best],
                c=values,
                cmap="viridis",
                s=60,
                edgecolor="white",
                lw=0.5,
            )
            axes.set_xscale(_scale(xs))
            axes.set_yscale(_scale(ys))
        figure.colorbar(shown, label="IQM of the greedy return")
        rest = f"; best over {', '.join(others)}" if others else ""
        axes.set(xlabel=x, ylabel=y, title=f"IQM of {len(summaries[0].scores)} seeds{rest}")
        finish_figure(figure, path)
    return path


def draw_against(path: Path, points: Sequence[Point], summaries: Sequence[PointResult], *, x: str) -> Path:
    """Greedy return of every point against one swept number."""
    values = np.array([points[one.point].swept[x] for one in summaries], float)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.0, 3.8), layout="constrained")
        for value, one in zip(values, summaries, strict=True):
            if one.interval:
                axes.plot([value, value], one.interval, color=EVALUATION, lw=2, alpha=0.35)
        axes.plot(values, [one.iqm for one in summaries], "o", color=EVALUATION, ms=4)
        axes.set_xscale(_scale(values))
        axes.set(xlabel=x, ylabel="greedy return", title="A dot a point: IQM of its seeds, with the 95% CI")
        finish_figure(figure, path)
    return path


def draw_profile(path: Path, summaries: Sequence[PointResult]) -> Path:
    """Share of runs above each return, with pointwise 95% intervals (Agarwal et al. 2021, figure 4)."""
    scores = np.concatenate([one.scores for one in summaries])
    thresholds = np.linspace(np.nanmin(scores), np.nanmax(scores), 201)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 5.4), layout="constrained")
        for place, one in enumerate(summaries):
            shares, (low, high) = performance_profile(one.scores, thresholds)
            axes.plot(thresholds, 100 * shares, color=_color(place), lw=1.8, label=_short(one.name))
            axes.fill_between(thresholds, 100 * low, 100 * high, color=_color(place), alpha=0.15, lw=0)
        axes.set(xlabel=RETURN, ylabel="runs above it (%)", title="Performance profile, 95% CI", ylim=(-3, 103))
        _legend_below(figure, axes)
        finish_figure(figure, path)
    return path


def draw_improvement(path: Path, summaries: Sequence[PointResult]) -> Path:
    """Chance that a run of the row scores higher than one of the column, with its 95% interval."""
    count = len(summaries)
    cells = np.full((count, count), np.nan)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        size = 2.6 + 0.85 * count
        figure, axes = plt.subplots(figsize=(size + 1.2, size), layout="constrained")
        for row, column in itertools.permutations(range(count), 2):
            chance, (low, high) = probability_of_improvement(summaries[row].scores, summaries[column].scores)
            cells[row, column] = chance
            text = f"{chance:.2f}\n{low:.2f}-{high:.2f}"
            color = "white" if abs(chance - 0.5) > 0.35 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
        shown = axes.imshow(cells, cmap="RdBu", vmin=0, vmax=1)
        names = [_short(one.name) for one in summaries]
        axes.set_xticks(range(count), names, rotation=30, ha="right")
        axes.set_yticks(range(count), names)
        figure.colorbar(shown, label="probability of improvement", shrink=0.8)
        axes.set(
            title="Chance that a run of the row beats one of the column, 95% CI", xlabel="against", ylabel="run of"
        )
        finish_figure(figure, path)
    return path


def _legend_below(figure: Any, axes: Any, *, reverse: bool = False) -> None:
    """A legend that covers nothing: names of points are long."""
    handles, labels = axes.get_legend_handles_labels()
    order = slice(None, None, -1 if reverse else 1)
    columns = 2 if max(map(len, labels)) < 45 else 1
    figure.legend(handles[order], labels[order], fontsize="small", loc="outside lower center", ncols=columns)


def _swept_numbers(points: Sequence[Point]) -> list[str]:
    return [
        key
        for key, value in points[0].swept.items()
        if all(isinstance(point.swept[key], int | float) for point in points)
        and not isinstance(value, bool)
        and len({point.swept[key] for point in points}) > 1
    ]


def _solved_at(points: Sequence[Point]) -> float | None:
    from purejaxdqn.environments.registry import SOLVED_AT

    lines = {SOLVED_AT.get(point.config.env.id) for point in points}
    return lines.pop() if len(lines) == 1 else None


def _scale(values: Any) -> str:
    """Logarithmic for positive numbers that span more than a factor of 20."""
    return "log" if min(values) > 0 and max(values) / min(values) > 20 else "linear"


def _color(place: int) -> Any:
    return colormaps["tab10"](place % 10)


def _short(name: str, most: int = 60) -> str:
    """A name without the sections of its keys, cut where it is too long."""
    text = " ".join(_without_section(word) if "=" in word else word for word in name.split(" "))
    return text if len(text) <= most else text[: most - 1] + "…"


def _without_section(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key.rsplit('.', 1)[-1]}={value}"
