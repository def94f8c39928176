"""Figures of a run, and of several runs compared."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purejaxdqn.pictures.figures import draw_lines, legend_below, literal, set_log_ticks, set_steps, style, subplots
from purejaxdqn.pictures.palette import (
    EVALUATION_COLOR,
    EVALUATION_LINE,
    SOLVED_COLOR,
    SOLVED_LINE,
    TRAINING_COLOR,
    TRAINING_LINE,
    look,
)
from purejaxdqn.runs.metrics import Metrics
from purejaxdqn.runs.statistics import RESAMPLES, iqm, name_of_spread, spread, trailing_mean

_TRAINING: Any = {"color": TRAINING_COLOR, "linestyle": TRAINING_LINE, "marker": "s"}
_EVALUATION: Any = {"color": EVALUATION_COLOR, "linestyle": EVALUATION_LINE, "marker": "o"}


class ComparedRun(NamedTuple):
    """One of several runs in a picture."""

    name: str
    metrics: Metrics
    env_id: str
    solved_at: float | None


def draw_learning_curve(metrics: Metrics, *, title: str, solved_at: float | None) -> Figure:
    """Plot evaluation and training return against environment steps.

    Thin lines are seeds; the thick line is their IQM, with its 95% interval or range.

    Args:
      metrics: the metrics of the run.
      title: title of the figure.
      solved_at: return from which the environment counts as solved; None draws no line.
    """
    with style():
        figure, axes = subplots(figsize=(6.4, 4.2))
        _draw_seeds(axes, metrics.env_step[0], metrics.episode_return, "training, epsilon-greedy", _TRAINING)
        _draw_seeds(axes, metrics.env_step[0], metrics.eval_return, "evaluation, greedy", _EVALUATION)
        draw_solved_line(axes, solved_at)
        axes.set(xlabel="environment steps", ylabel="episode return", title=literal(title))
        set_steps(axes)
        legend_below(figure)
    return figure


def draw_report(metrics: Metrics, *, title: str, solved_at: float | None) -> Figure:
    """Plot episode return, its moving average, loss and success rate in four panels.

    Where no return counts as solved, the last panel shows the Q-values. Takes the same arguments as
    ``draw_learning_curve``.
    """
    steps = metrics.env_step[0]
    moving = np.array([trailing_mean(r, c) for r, c in zip(metrics.episode_return, metrics.episodes, strict=True)])
    with style():
        figure, ((returns, average), (loss, last)) = subplots(2, 2, figsize=(9.0, 6.3), sharex=True)
        for axes, values in ((returns, metrics.episode_return), (average, moving), (loss, metrics.loss)):
            _draw_seeds(axes, steps, values, "training", _TRAINING)
        returns.set(ylabel="episode return", title="Mean return of an epoch's episodes")
        average.set(ylabel="episode return", title="Moving average over 100 episodes or more")
        loss.set(ylabel="loss", title="Mean loss of an epoch's updates")
        finite = metrics.loss[np.isfinite(metrics.loss)]
        if finite.size and finite.min() > 0:
            loss.set_yscale("log")
            set_log_ticks(loss.yaxis, finite.min(), finite.max())
        if solved_at is None:
            _draw_seeds(last, steps, metrics.q_value, "training", _TRAINING)
            last.set(ylabel="Q-value", title="Mean Q-value of an epoch's updates")
        else:
            _draw_seeds(last, steps, 100 * metrics.success_rate, "evaluation, greedy", _EVALUATION)
            last.set(ylabel="episodes solved (%)", title="Success rate in evaluation", ylim=(-4, 104))
        for axes in (returns, average):
            draw_solved_line(axes, solved_at)
        for axes in (loss, last):
            axes.set_xlabel("environment steps")
            set_steps(axes)
        figure.suptitle(literal(title))
        legend_below(figure)
    return figure


def draw_comparison(runs: Sequence[ComparedRun]) -> Figure:
    """Plot the greedy return of several runs against environment steps: IQM over seeds with its 95% interval or range.

    Each environment has its own axes, with a line at the return that counts as solved.
    """
    env_ids = list(dict.fromkeys(run.env_id for run in runs))
    columns = min(3, len(env_ids))
    rows = -(-len(env_ids) // columns)
    with style():
        size = (6.4 if columns == 1 else 3.8 * columns, 0.9 + 3.3 * rows)
        figure, grid = subplots(rows, columns, figsize=size, squeeze=False)
        for axes in grid.flat[len(env_ids) :]:
            axes.axis("off")
        for axes, env_id in zip(grid.flat, env_ids, strict=False):
            mine = [(nth, run) for nth, run in enumerate(runs) if run.env_id == env_id]
            for nth, (name, metrics, _, _) in mine:
                seeds = len(metrics.eval_return)
                band = f" (IQM of {seeds} seeds, {name_of_spread(seeds)})" if seeds > 1 else ""
                values = np.where(np.isfinite(metrics.eval_return), metrics.eval_return, np.nan)
                draw_band(axes, metrics.env_step[0], values, label=literal(f"{name}{band}"), **look(nth)._asdict())
            solved = {run.solved_at for _, run in mine}
            draw_solved_line(axes, solved.pop() if len(solved) == 1 else None, label="solved")
            axes.set(xlabel="environment steps", title=literal(env_id))
            set_steps(axes)
        for axes in grid[:, 0]:
            axes.set_ylabel("greedy return of an episode")
        legend_below(figure)
    return figure


def _draw_seeds(axes: Axes, steps: np.ndarray, values: np.ndarray, label: str, one_look: dict[str, Any]) -> None:
    """Plot values [S, T] at steps [T]; where a seed's value is not finite, its line has a gap."""
    values = np.where(np.isfinite(values), values, np.nan)
    seeds = values.shape[0]
    if seeds == 1:
        axes.plot(steps, values[0], **one_look, lw=1.8, ms=3, label=label)
        return
    lines = [np.stack([steps, row], -1) for row in values]
    draw_lines(axes, lines, color=one_look["color"], lw=0.6, alpha=max(0.12, 0.5 / seeds**0.5))
    draw_band(axes, steps, values, label=f"{label} (IQM of {seeds} seeds, {name_of_spread(seeds)})", **one_look)


def draw_band(
    axes: Axes, steps: np.ndarray, values: np.ndarray, *, color: Any, linestyle: str, marker: str, label: str
) -> None:
    """Plot the IQM of values [S, T] at steps [T] with its ``spread``; NaN values are left out of their step's IQM.

    A step at which too few values are left for the interval that the others have has none.
    """
    columns = [column[~np.isnan(column)] for column in values.T]
    centre = [iqm(column) if len(column) else np.nan for column in columns]
    every = max(1, math.ceil(len(steps) / 10))
    axes.plot(
        steps, centre, color=color, ls=linestyle, lw=2.0, marker=marker, ms=4, mec="white", mew=0.5, markevery=every,
        label=label,
    )  # fmt: skip
    resamples = min(RESAMPLES, max(200, 200_000 // len(values)))  # a thousand seeds would take seconds for each line
    name = name_of_spread(len(values))
    spreads = [spread(one, resamples=resamples) if name_of_spread(len(one)) == name else None for one in columns]
    interval = np.array([ends or (np.nan, np.nan) for ends in spreads])
    axes.fill_between(steps, interval[:, 0], interval[:, 1], color=color, alpha=0.16, lw=0)


def draw_solved_line(axes: Axes, solved_at: float | None, *, label: str | None = None) -> None:
    """Draw a horizontal line at the return from which an environment counts as solved, unless that is None."""
    if solved_at is not None:
        label = label or f"solved ({solved_at:g})"
        axes.axhline(solved_at, color=SOLVED_COLOR, lw=1.2, ls=SOLVED_LINE, label=label)


def draw_scores(
    axes: Axes, row: float, scores: np.ndarray, *, centre: float, interval: Sequence[float] | None, height: float = 0.6
) -> None:
    """Draw the scores of seeds [S] around a row, one below the other, so that equal ones do not hide each other.

    Args:
      axes: rows are along its y axis.
      row: place of the row.
      scores: a dot for each.
      centre: their IQM, a line.
      interval: a bar behind the dots; None for no bar.
      height: of the rows that the dots take.
    """
    if interval:
        axes.plot(interval, [row, row], color=EVALUATION_COLOR, lw=9, alpha=0.25, solid_capstyle="butt", zorder=2)
    places = row + np.linspace(-0.5, 0.5, len(scores)) * height if len(scores) > 1 else [row]
    axes.plot(scores, places, "o", color=EVALUATION_COLOR, alpha=0.8, ms=3.2, mew=0, zorder=3)
    axes.plot(centre, row, "|", color="black", ms=11, mew=1.6, zorder=4)
