"""Figures of the trials of a search over its whole space: parallel coordinates and radar chart."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial

from purejaxdqn.pictures.figures import draw_lines, literal, score_colors, style, subplots
from purejaxdqn.pictures.palette import EVALUATION_COLOR
from purejaxdqn.sweeps.spaces import Choices, Range, Space, as_text


class ScoredTrials(NamedTuple):
    """The trials of a search that have a score, and how to name the score."""

    completed: list[FrozenTrial]  # at least one
    stopped: list[FrozenTrial]  # stopped early by successive halving
    best: FrozenTrial
    label: str  # name of the score, for an axis


def scores_of(trials: list[FrozenTrial]) -> np.ndarray:
    """The scores of trials [N]."""
    return np.array([trial.value for trial in trials], float)


def to_unit_interval(values: Range | Choices, value: Any) -> float:
    """Map a parameter's value to [0, 1]: linearly or logarithmically as its range is, or by its position in a list."""
    if isinstance(values, Choices):
        return [as_text(choice) for choice in values.values].index(value) / max(len(values.values) - 1, 1)
    low, high, value = (np.log(x) if values.log else x for x in (values.low, values.high, value))
    return float((value - low) / (high - low))


def draw_parallel(trials: ScoredTrials, space: Space) -> Figure:
    """Draw a line for each trial over an axis for each parameter; the best are the darkest, and on top."""
    scores = scores_of(trials.completed)
    low, high = scores.min(), scores.max()

    def line(trial: FrozenTrial) -> np.ndarray:
        return np.stack([np.arange(len(space)), _unit_values(trial, space)], -1)

    with style(grid=False):
        figure, axes = subplots(figsize=(max(6.4, 1.5 * len(space) + 1.5), 4.4))
        order = np.argsort(scores, kind="stable")
        good = (scores[order] - low) / (high - low) if high > low else np.ones(len(order))
        colors = score_colors()(good, alpha=0.35 + 0.6 * good)
        draw_lines(axes, [line(trial) for trial in trials.stopped], color="lightgrey", lw=0.8)
        draw_lines(axes, [line(trials.completed[place]) for place in order], color=colors, lw=1.4)
        _draw_parallel_axes(axes, space)
        scale = Normalize(low, high if high > low else low + 1.0)
        figure.colorbar(ScalarMappable(scale, score_colors()), ax=axes, label=trials.label)
        axes.set_title(f"One line per trial, over its parameters{'; grey: stopped early' if trials.stopped else ''}")
    return figure


def _draw_parallel_axes(axes: Axes, space: Space) -> None:
    """Draw a vertical axis for each parameter, with its lowest and highest value, or its first and last choice."""
    for column, values in enumerate(space.values()):
        axes.axvline(column, 0.14 / 1.28, 1.14 / 1.28, color="black", lw=0.8)
        ends = (values.values[0], values.values[-1]) if isinstance(values, Choices) else values[:2]
        for height, end, side in ((-0.03, ends[0], "top"), (1.03, ends[1], "bottom")):
            text = f"{end:.4g}" if isinstance(end, float) else as_text(end)
            axes.text(column, height, literal(text), ha="center", va=side, fontsize="small")
    axes.set_xticks(range(len(space)), [literal(key) for key in space], rotation=20, ha="right")
    axes.set_yticks([])
    axes.set_xlim(-0.3, len(space) - 0.7)
    axes.set_ylim(-0.14, 1.14)
    axes.tick_params(axis="x", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def _unit_values(trial: FrozenTrial, space: Space) -> list[float]:
    return [to_unit_interval(values, trial.params[key]) for key, values in space.items()]


def draw_radar(best: FrozenTrial, space: Space) -> Figure:
    """Draw where each parameter of the best trial is within its range."""
    angles = np.linspace(0.0, 2 * np.pi, len(space), endpoint=False)
    radii = _unit_values(best, space)
    labels = [
        literal(f"{key}\n{f'{value:.4g}' if isinstance(value, float) else value}")
        for key, value in ((key, best.params[key]) for key in space)
    ]
    with style():
        figure = Figure(figsize=(7.6, 5.4), layout="constrained")
        axes: Any = figure.add_subplot(projection="polar")
        axes.plot([*angles, angles[0]], [*radii, radii[0]], "o-", color=EVALUATION_COLOR, lw=2, ms=5)
        axes.fill(angles, radii, color=EVALUATION_COLOR, alpha=0.2)
        axes.set_xticks(angles, [""] * len(space))
        for angle, text in zip(angles, labels, strict=True):
            side = round(np.cos(angle), 6)
            place = "center" if abs(side) < 0.1 else "left" if side > 0 else "right"
            axes.text(angle, 1.14, text, ha=place, va="center", fontsize="small")
        axes.set_yticks([0.0, 0.5, 1.0], ["low", "", "high"], fontsize="small")
        axes.set_rlabel_position(np.degrees(np.pi / len(space)))  # between two parameters
        axes.set_ylim(-0.1, 1.05)
        figure.suptitle(f"The best trial ({best.number}): each parameter within its range")
    return figure
