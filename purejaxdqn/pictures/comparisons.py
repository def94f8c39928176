"""Figures that compare the points of a sweep over their seeds: performance profile and probability of improvement."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from purejaxdqn.pictures.figures import ink_on, legend_below
from purejaxdqn.pictures.palette import DIVERGING, look
from purejaxdqn.pictures.panels import RETURN_LABEL, Groups, draw_panels, short_name
from purejaxdqn.runs.statistics import performance_profile, probability_of_improvement
from purejaxdqn.sweeps.results import PointResult


def draw_profile(groups: Groups) -> Figure:
    """Plot the share of runs above each return (Agarwal et al. 2021, figure 4).

    Pointwise 95% intervals surround it, of points with enough seeds for one.
    """

    def draw(place: Any, env_id: str, summaries: Sequence[PointResult]) -> None:
        axes = place.subplots()
        scores = np.concatenate([summary.scores for summary in summaries])
        finite = scores[np.isfinite(scores)]
        thresholds = np.linspace(finite.min(), finite.max(), 201) if len(finite) else np.zeros(1)
        title = "Performance profile"
        for nth, summary in enumerate(summaries):
            color, line, _ = look(nth)
            shares, interval = performance_profile(summary.scores, thresholds)
            axes.plot(thresholds, 100 * shares, color=color, ls=line, lw=1.8, label=short_name(summary.name))
            if interval is not None:
                axes.fill_between(thresholds, *(100 * interval), color=color, alpha=0.12, lw=0)
                title = "Performance profile, 95% CI"
        axes.set(xlabel=RETURN_LABEL, ylabel="runs above it (%)", title=title, ylim=(-3, 103))
        legend_below(place)

    return draw_panels(groups, draw, size=(7.2, 5.4))


def draw_improvement(groups: Groups) -> Figure:
    """Draw the probability that a run of the row's point scores higher than one of the column's.

    Its 95% interval is below it if both points have enough seeds for one. See Agarwal et al. 2021, section 4.3.
    """

    def draw(place: Any, env_id: str, summaries: Sequence[PointResult]) -> None:
        axes, count = place.subplots(), len(summaries)
        cells, colors = np.full((count, count), np.nan), colormaps[DIVERGING]
        title = "Run of the row beats one of the column"
        for row, column in itertools.permutations(range(count), 2):
            probability, interval = probability_of_improvement(summaries[row].scores, summaries[column].scores)
            cells[row, column] = probability
            text = f"{probability:.2f}"
            if interval:
                text += f"\n{interval[0]:.2f}-{interval[1]:.2f}"
                title = "Run of the row beats one of the column, 95% CI"
            ink = ink_on(colors(probability))
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
        shown = axes.imshow(cells, cmap=colors, vmin=0, vmax=1)
        names = [short_name(summary.name) for summary in summaries]
        axes.set_xticks(range(count), names, rotation=30, ha="right")
        axes.set_yticks(range(count), names)
        place.colorbar(shown, ax=axes, label="probability of improvement", shrink=0.8)
        axes.set(title=title, xlabel="against", ylabel="run of")

    side = 2.6 + 0.85 * max(map(len, groups.values()))
    return draw_panels(groups, draw, size=(side + 1.2, side), grid=False)
