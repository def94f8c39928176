"""Figures of a run, and of several runs compared.

No picture goes through pyplot, so that drawing neither depends on a user's Matplotlib backend nor changes it.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib.style
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from purejaxdqn.runs.metrics import Metrics
from purejaxdqn.runs.statistics import RESAMPLES, iqm, name_of_spread, spread, trailing_mean
from purejaxdqn.system.files import replacing

EVALUATION_COLOR, TRAINING_COLOR, SOLVED_COLOR = "#1f5fa8", "#d9822b", "#666666"
_STYLE: Any = {
    "figure.dpi": 130,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def style(*, grid: bool = True) -> Any:
    """Return a context in which figures look like ours, whatever the user's settings of Matplotlib."""
    return matplotlib.style.context(["default", {**_STYLE, "axes.grid": grid}])


def subplots(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **options: Any) -> tuple[Figure, Any]:
    """Return a figure and its axes as ``pyplot.subplots`` does; ``options`` are those of ``Figure.subplots``."""
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def literal(text: str) -> str:
    """Return text that Matplotlib draws as it is: no formulas between dollars, no names that legends leave out."""
    text = text.encode(errors="replace").decode().replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def draw_learning_curve(path: Path | BinaryIO, metrics: Metrics, *, title: str, solved_at: float | None) -> None:
    """Plot evaluation and training return against environment steps.

    Thin lines are seeds; the thick line is their IQM, with its 95% interval.

    Args:
      path: file to write, or a binary stream for a PNG.
      metrics: the metrics of the run.
      title: title of the figure.
      solved_at: return from which the environment counts as solved; None draws no line.
    """
    with style():
        figure, axes = subplots(figsize=(6.4, 4.0))
        _draw_seeds(axes, metrics.env_step[0], metrics.episode_return, TRAINING_COLOR, "training, epsilon-greedy")
        _draw_seeds(axes, metrics.env_step[0], metrics.eval_return, EVALUATION_COLOR, "evaluation, greedy")
        draw_solved_line(axes, solved_at)
        axes.set(xlabel="environment steps", ylabel="episode return", title=literal(title))
        _save_with_legends(figure, [axes], path)


def draw_report(path: Path | BinaryIO, metrics: Metrics, *, title: str, solved_at: float | None) -> None:
    """Plot episode return, its moving average, loss and success rate in four panels.

    Takes the same arguments as ``draw_learning_curve``.
    """
    steps = metrics.env_step[0]
    moving = np.array([trailing_mean(r, c) for r, c in zip(metrics.episode_return, metrics.episodes, strict=True)])
    with style():
        figure, ((returns, average), (loss, success)) = subplots(2, 2, figsize=(9.0, 6.0), sharex=True)
        _draw_seeds(returns, steps, metrics.episode_return, TRAINING_COLOR, "training")
        returns.set(ylabel="episode return", title="Mean return of an epoch's episodes")
        _draw_seeds(average, steps, moving, TRAINING_COLOR, "training")
        average.set(ylabel="episode return", title="Moving average over 100 episodes or more")
        _draw_seeds(loss, steps, metrics.loss, EVALUATION_COLOR, "loss")
        loss.set(ylabel="loss", title="Mean loss of an epoch's updates")
        finite = metrics.loss[np.isfinite(metrics.loss)]
        if finite.size and finite.min() > 0:
            loss.set_yscale("log")
        if solved_at is None:
            success.text(0.5, 0.5, "no return counts as solved", ha="center", transform=success.transAxes)
        else:
            _draw_seeds(success, steps, 100 * metrics.success_rate, EVALUATION_COLOR, "greedy")
        success.set(ylabel="episodes solved (%)", title="Success rate in evaluation", ylim=(-4, 104))
        for axes in (returns, average):
            draw_solved_line(axes, solved_at)
        for axes in (loss, success):
            axes.set_xlabel("environment steps")
        figure.suptitle(literal(title))
        _save_with_legends(figure, [returns, average], path)


def draw_comparison(path: Path, runs: Mapping[str, Metrics], *, title: str, solved_at: float | None) -> None:
    """Plot the greedy return of several runs, by name, against environment steps: IQM over seeds with its 95% interval.

    Takes the same arguments as ``draw_learning_curve``, with a mapping from names to metrics.
    """
    with style():
        figure, axes = subplots(figsize=(6.4, 4.0))
        for nth, (name, metrics) in enumerate(runs.items()):
            seeds = f" ({len(metrics.eval_return)} seeds)" if len(metrics.eval_return) > 1 else ""
            values = np.where(np.isfinite(metrics.eval_return), metrics.eval_return, np.nan)
            draw_band(axes, metrics.env_step[0], values, color=f"C{nth}", label=literal(f"{name}{seeds}"))
        draw_solved_line(axes, solved_at)
        axes.set(xlabel="environment steps", ylabel="greedy return of an episode", title=literal(title))
        _save_with_legends(figure, [axes], path)


def _draw_seeds(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    """Plot values [S, T] at steps [T]; where a seed's value is not finite, its line has a gap."""
    values = np.where(np.isfinite(values), values, np.nan)
    seeds = values.shape[0]
    if seeds == 1:
        axes.plot(steps, values[0], color=color, lw=1.8, marker=".", ms=4, label=label)
        return
    lines = [np.stack([steps, row], -1) for row in values]
    draw_lines(axes, lines, color=color, lw=0.6, alpha=max(0.12, 0.5 / seeds**0.5))
    draw_band(axes, steps, values, color=color, label=f"{label} (IQM of {seeds} seeds, {name_of_spread(seeds)})")


def draw_lines(axes: Axes, lines: Sequence[np.ndarray], **look: Any) -> None:
    """Plot lines, each through points [T, 2], as one collection: a thousand lines one by one take ten seconds."""
    axes.add_collection(LineCollection(lines, **look))
    axes.autoscale_view()


def draw_band(axes: Axes, steps: np.ndarray, values: np.ndarray, *, color: Any, label: str) -> None:
    """Plot the IQM of values [S, T] at steps [T] with its 95% interval; NaN values are left out of their step's IQM."""
    columns = [column[~np.isnan(column)] for column in values.T]
    centre = [iqm(column) if len(column) else np.nan for column in columns]
    axes.plot(steps, centre, color=color, lw=2.2, label=label)
    resamples = min(RESAMPLES, max(200, 200_000 // len(values)))  # a thousand seeds would take seconds for each line
    interval = np.array([spread(column, resamples=resamples) or (np.nan, np.nan) for column in columns])
    axes.fill_between(steps, interval[:, 0], interval[:, 1], color=color, alpha=0.2, lw=0)


def draw_solved_line(axes: Axes, solved_at: float | None) -> None:
    """Draw a horizontal line at the return from which an environment counts as solved, unless that is None."""
    if solved_at is not None:
        axes.axhline(solved_at, color=SOLVED_COLOR, lw=1, ls="--", label=f"solved ({solved_at:g})")


def save_figure(figure: Any, path: Path | BinaryIO, *, steps_on_x: bool = False) -> None:
    """Save and close a figure; ``steps_on_x`` abbreviates large numbers on the x axes (50k)."""
    if steps_on_x:
        for axes in figure.axes:
            axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in another script is drawn as boxes
        if isinstance(path, Path):
            with replacing(path) as part:
                # No Matplotlib version in the file: equal runs must write equal pictures.
                metadata = {"Software": None} if path.suffix == ".png" else {}
                figure.savefig(part, format=path.suffix[1:], metadata=metadata)
        else:
            figure.savefig(path, metadata={"Software": None})


def _save_with_legends(figure: Any, with_legend: list[Axes], path: Path | BinaryIO) -> None:
    for axes in with_legend:
        axes.legend(fontsize="small")
    save_figure(figure, path, steps_on_x=True)
