"""A panel for each environment: points of different environments share no axes, as their returns share no scale."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from purejaxdqn.pictures.figures import literal, style
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.results import PointResult, ranked

RETURN_LABEL = "greedy return, mean over the episodes of a seed"

Groups = Mapping[str, Sequence[PointResult]]
"""The points of each environment, best first, by its id; never empty."""


def by_environment(points: Sequence[Point], summaries: Sequence[PointResult]) -> Groups:
    """Group the results of points by environment."""
    groups: dict[str, list[PointResult]] = {}
    for summary in ranked(summaries):
        groups.setdefault(points[summary.point].config.env.id, []).append(summary)
    if len(groups) > 1:  # the panels are named after them
        groups = {
            env_id: [one._replace(name=_without(one.name, env_id)) for one in mine] for env_id, mine in groups.items()
        }
    return dict(sorted(groups.items()))


def _without(name: str, env_id: str) -> str:
    words = name.split(" ")
    return " ".join(word for word in words if word != f"env.id={env_id}") or env_id


def draw_panels(
    groups: Groups,
    draw: Callable[[Any, str, Sequence[PointResult]], None],
    *,
    size: tuple[float, float],
    grid: bool = True,
) -> Figure:
    """Return a figure with a panel for each environment, side by side; one alone fills the figure.

    Args:
      groups: the points of each environment.
      draw: draws a panel, with its legend, into a figure or subfigure, given the environment and its points.
      size: width and height of a panel in inches.
      grid: whether axes have grid lines.
    """
    columns = min(2, len(groups))
    rows = math.ceil(len(groups) / columns)
    with style(grid=grid):
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        places = [figure] if len(groups) == 1 else list(figure.subfigures(rows, columns, squeeze=False).flat)
        for place, (env_id, mine) in zip(places, groups.items(), strict=False):
            draw(place, env_id, mine)
            if len(groups) > 1:
                place.suptitle(literal(env_id), fontweight="bold")
    return figure


def short_name(name: str, max_length: int = 60) -> str:
    """Remove the sections from a point's keys (``optimizer.eps=1`` -> ``eps=1``), and cut what is too long; as text."""
    text = " ".join(_without_section(word) if "=" in word else word for word in name.split(" "))
    return literal(text if len(text) <= max_length else text[: max_length - 1] + "…")


def _without_section(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key.rsplit('.', 1)[-1]}={value}"
