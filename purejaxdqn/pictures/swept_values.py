"""Figures of a sweep over its numbers: a heat map of two, and the return against each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from purejaxdqn.pictures.figures import draw_lines, ink_on, literal, score_colors, set_values
from purejaxdqn.pictures.palette import EVALUATION_COLOR
from purejaxdqn.pictures.panels import RETURN_LABEL, Groups, draw_panels
from purejaxdqn.runs.statistics import name_of_spread
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.results import PointResult

_MOST_CELLS = 100
"""Cells of a heat map that have their numbers in them."""


def numeric_keys(points: Sequence[Point]) -> list[str]:
    """Return the swept keys that are numbers at every point, with more than one value."""
    return [
        key
        for key, value in points[0].swept.items()
        if all(isinstance(point.swept[key], int | float) for point in points)
        and not isinstance(value, bool)
        and len({point.swept[key] for point in points}) > 1
    ]


def draw_heat_map(groups: Groups, points: Sequence[Point], *, x: str, y: str) -> Figure:
    """Draw the IQM over two swept numbers, as cells for a grid and as dots for random draws.

    Where several points share both numbers, the best of them is shown.
    """
    others = [key for key in points[0].swept if key not in (x, y)]

    def draw(place: Any, env_id: str, summaries: Sequence[PointResult]) -> None:
        best: dict[tuple[float, float], float] = {}
        for summary in summaries:
            pair = points[summary.point].swept[x], points[summary.point].swept[y]
            best[pair] = np.nanmax([best.get(pair, -np.inf), summary.iqm])
        xs, ys = (sorted({pair[axis] for pair in best}) for axis in (0, 1))
        axes = place.subplots()
        is_grid = len(xs) * len(ys) <= 4 * len(best)
        shown = _draw_cells(axes, xs, ys, best) if is_grid else _draw_dots(axes, best)
        place.colorbar(shown, ax=axes, label="IQM of the greedy return")
        rest = f"; best over {', '.join(others)}" if others else ""
        title = literal(f"IQM of {len(summaries[0].scores)} seeds{rest}")
        axes.set(xlabel=literal(x), ylabel=literal(y))
        axes.set_title(title, wrap=True)

    return draw_panels(groups, draw, size=(6.4, 4.6), grid=False)


def _draw_dots(axes: Any, scores: dict[tuple[float, float], float]) -> Any:
    """Draw a dot for each pair of values; return the dots."""
    pairs = np.array(list(scores), float)
    look: Any = {"cmap": score_colors(), "s": 60, "edgecolor": "0.3", "lw": 0.5}
    dots = axes.scatter(pairs[:, 0], pairs[:, 1], c=list(scores.values()), **look)
    set_values(axes, "x", pairs[:, 0])
    set_values(axes, "y", pairs[:, 1])
    return dots


def _draw_cells(axes: Any, xs: list[float], ys: list[float], scores: dict[tuple[float, float], float]) -> Any:
    """Draw the scores of a grid as coloured cells, with their numbers if there are few; return the image."""
    cells = np.array([[scores.get((x, y), np.nan) for x in xs] for y in ys])
    image = axes.imshow(cells, origin="lower", aspect="auto", cmap=score_colors())
    for axis, values, most in ((axes.xaxis, xs, 8), (axes.yaxis, ys, 16)):
        every = -(-len(values) // most)
        axis.set_ticks(range(0, len(values), every), [f"{value:.4g}" for value in values[::every]])
    if cells.size <= _MOST_CELLS:
        for row, column in np.argwhere(np.isfinite(cells)):
            value = cells[row, column]
            ink = ink_on(image.cmap(image.norm(value)))
            size = min(9.0, 50 / len(xs))
            axes.text(column, row, f"{value:.4g}", ha="center", va="center", color=ink, fontsize=size)
    return image


def draw_against(groups: Groups, points: Sequence[Point], *, x: str) -> Figure:
    """Plot the IQM of every point, with its 95% interval and the scores of its seeds, against one swept number."""

    def draw(place: Any, env_id: str, summaries: Sequence[PointResult]) -> None:
        axes = place.subplots()
        values = np.array([points[summary.point].swept[x] for summary in summaries], float)
        bars = [
            np.array([[value, end] for end in summary.interval])
            for value, summary in zip(values, summaries, strict=True)
            if summary.interval
        ]
        draw_lines(axes, bars, color=EVALUATION_COLOR, lw=2, alpha=0.45)
        for value, summary in zip(values, summaries, strict=True):
            if len(summary.scores) > 1:
                axes.plot([value] * len(summary.scores), summary.scores, "o", color="0.3", ms=2.6, alpha=0.6, mew=0)
        iqms = [summary.iqm for summary in summaries]
        axes.plot(values, iqms, "o", color=EVALUATION_COLOR, ms=5.5, mec="white", mew=0.7)
        set_values(axes, "x", values)
        seeds = len(summaries[0].scores)
        title = f"Large dots: IQM of a point; bars: {name_of_spread(seeds)}; small dots: seeds"
        axes.set(xlabel=literal(x), ylabel=RETURN_LABEL, title=title if seeds > 1 else "One dot for each point")

    return draw_panels(groups, draw, size=(6.0, 4.0))
