"""Figures of a search: history, score against each parameter, parallel coordinates, scores, radar and importances."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from optuna.trial import FrozenTrial

from purejaxdqn.pictures.runs import EVALUATION_COLOR, TRAINING_COLOR, draw_lines, literal, save_figure, style, subplots
from purejaxdqn.searches.directory import read_directory
from purejaxdqn.searches.study import best_trial, completed, finished, is_stopped
from purejaxdqn.sweeps.spaces import Choices, Range, Space, as_text, space_of
from purejaxdqn.system.faults import UserError


class _Trials(NamedTuple):
    """The trials of a search that have a score, and how to name the score."""

    completed: list[FrozenTrial]  # at least one
    stopped: list[FrozenTrial]  # stopped early by successive halving
    best: FrozenTrial
    label: str  # name of the score, for an axis


def draw_search(folder: Path, study: optuna.Study, space: Space, *, objective: str) -> list[Path]:
    """Draw all figures of a search that has a completed trial; return the files."""
    best = best_trial(study)
    assert best is not None
    label = {"final": "IQM of the greedy return", "auc": "IQM of the area under the learning curve"}[objective]
    trials = _Trials(completed(study), [trial for trial in finished(study) if is_stopped(trial)], best, label)
    drawn = [
        _draw_history(folder / "history.png", trials),
        _draw_slices(folder / "slices.png", trials, space),
        _draw_parallel(folder / "parallel_coordinates.png", trials, space),
        _draw_scores(folder / "scores.png", trials),
        _draw_radar(folder / "radar.png", best, space),
    ]
    if importances := find_importances(study):
        drawn.append(_draw_importances(folder / "importances.png", importances))
    return drawn


def draw_directory(folder: Path) -> list[Path]:
    """Draw the figures of a search directory again, from its study; return the files.

    Raises:
      UserError: the directory is damaged, its study is stored elsewhere, or no trial has a score.
    """
    definition, study = read_directory(folder)
    if best_trial(study) is None:
        raise UserError(f"{folder}: no trial of this search has a score")
    return draw_search(folder, study, space_of(definition["space"]), objective=definition["objective"])


def find_importances(study: optuna.Study) -> dict[str, float]:
    """Return the importance of each parameter, as shares that sum to 1 (PED-ANOVA: Watanabe et al. 2023).

    The result is empty if there are too few trials, or if all have the same score.
    """
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # with too few trials, Optuna warns and calls all equally important
        try:
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (RuntimeError, ValueError, UserWarning):
            return {}


def to_unit_interval(values: Range | Choices, value: Any) -> float:
    """Map a parameter's value to [0, 1]: linearly or logarithmically as its range is, or by its position in a list."""
    if isinstance(values, Choices):
        return [as_text(choice) for choice in values.values].index(value) / max(len(values.values) - 1, 1)
    low, high, value = (np.log(x) if values.log else x for x in (values.low, values.high, value))
    return float((value - low) / (high - low))


def _numbers(trials: list[FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]


def _scores(trials: list[FrozenTrial]) -> np.ndarray:
    return np.array([trial.value for trial in trials], float)


def _draw_history(path: Path, trials: _Trials) -> Path:
    numbers, scores = _numbers(trials.completed), _scores(trials.completed)
    stopped = trials.stopped
    with style():
        figure, axes = subplots(figsize=(6.4, 4.0))
        axes.plot(numbers, scores, "o", color=EVALUATION_COLOR, ms=4, alpha=0.6, label="trial")
        if stopped:
            look: Any = {"color": "grey", "ms": 4, "alpha": 0.7, "label": "stopped early, score at its rung"}
            axes.plot(_numbers(stopped), _scores(stopped), "x", **look)
        best = np.maximum.accumulate(scores)
        axes.step(numbers, best, where="post", color=TRAINING_COLOR, lw=1.8, label="best so far")
        axes.set(xlabel="trial", ylabel=trials.label, title="Optimisation history")
        axes.legend(fontsize="small", loc="lower right")
        save_figure(figure, path)
    return path


def _draw_slices(path: Path, trials: _Trials, space: Space) -> Path:
    columns = min(3, len(space))
    rows = -(-len(space) // columns)
    with style():
        figure, grid = subplots(rows, columns, figsize=(3.2 * columns, 2.6 * rows), sharey=True, squeeze=False)
        for axes in grid.flat[len(space) :]:
            axes.axis("off")
        for axes, (key, values) in zip(grid.flat, space.items(), strict=False):
            dots = _draw_slice(axes, trials, key, values)
        for axes in grid[:, 0]:
            axes.set_ylabel(trials.label, fontsize="small")
        figure.colorbar(dots, ax=grid, label="trial", shrink=0.7)
        crosses = "; crosses: stopped early, score at their rung" if trials.stopped else ""
        figure.suptitle(f"Score against each parameter; star: the best trial{crosses}")
        save_figure(figure, path)
    return path


def _draw_slice(axes: Axes, trials: _Trials, key: str, values: Range | Choices) -> Any:
    """Draw the scores against one parameter; return the dots of the completed trials, for the colour bar."""
    best, stopped, completed = trials.best, trials.stopped, trials.completed
    if isinstance(values, Choices):
        names = [as_text(choice) for choice in values.values]
        axes.set_xticks(range(len(names)), [literal(name) for name in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
        x_best: Any = [names.index(best.params[key])]
    else:
        x_best = [best.params[key]]
        axes.set_xscale("log" if values.log else "linear")
        axes.xaxis.set_minor_formatter(NullFormatter())  # minor labels would overlap
    axes.plot(_x_positions(stopped, key, values), _scores(stopped), "x", color="grey", ms=3.5, alpha=0.5)
    x = _x_positions(completed, key, values)
    dots = axes.scatter(x, _scores(completed), c=_numbers(completed), cmap="viridis", s=14)
    axes.plot(x_best, _scores([best]), "*", color="red", ms=11, mec="white", mew=0.6)
    axes.set_xlabel(key)
    return dots


def _x_positions(trials: list[FrozenTrial], key: str, values: Range | Choices) -> list[Any]:
    """Return the trials' positions along a parameter's axis; choices get jitter, so that dots do not overlap."""
    if isinstance(values, Range):
        return [trial.params[key] for trial in trials]
    names = [as_text(choice) for choice in values.values]
    jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(trials))
    return [names.index(trial.params[key]) + offset for trial, offset in zip(trials, jitter, strict=True)]


def _draw_parallel(path: Path, trials: _Trials, space: Space) -> Path:
    scores = _scores(trials.completed)
    low, high = scores.min(), scores.max()

    def line(trial: FrozenTrial) -> np.ndarray:
        return np.stack([np.arange(len(space)), _unit_values(trial, space)], -1)

    with style(grid=False):
        figure, axes = subplots(figsize=(max(6.4, 1.5 * len(space) + 1.5), 4.2))
        order = np.argsort(scores, kind="stable")
        good = (scores[order] - low) / (high - low) if high > low else np.ones(len(order))
        colors = colormaps["viridis"](good, alpha=0.25 + 0.65 * good)
        draw_lines(axes, [line(trial) for trial in trials.stopped], color="lightgrey", lw=0.8)
        draw_lines(axes, [line(trials.completed[place]) for place in order], color=colors, lw=1.2)
        _draw_parallel_axes(axes, space)
        scale = Normalize(low, high if high > low else low + 1.0)
        figure.colorbar(ScalarMappable(scale, "viridis"), ax=axes, label=trials.label)
        axes.set_title(f"One line per trial, over its parameters{'; grey: stopped early' if trials.stopped else ''}")
        save_figure(figure, path)
    return path


def _draw_parallel_axes(axes: Axes, space: Space) -> None:
    """Draw a vertical axis for each parameter, with its lowest and highest value, or its first and last choice."""
    for column, values in enumerate(space.values()):
        axes.axvline(column, color="black", lw=0.8)
        ends = (values.values[0], values.values[-1]) if isinstance(values, Choices) else values[:2]
        for height, end, side in ((-0.03, ends[0], "top"), (1.03, ends[1], "bottom")):
            text = f"{end:.4g}" if isinstance(end, float) else as_text(end)
            axes.text(column, height, literal(text), ha="center", va=side, fontsize="small")
    axes.set_xticks(range(len(space)), list(space), rotation=20, ha="right")
    axes.set_yticks([])
    axes.set_ylim(-0.12, 1.12)
    axes.tick_params(axis="x", pad=8)
    axes.spines[["left", "bottom"]].set_visible(False)


def _unit_values(trial: FrozenTrial, space: Space) -> list[float]:
    return [to_unit_interval(values, trial.params[key]) for key, values in space.items()]


def _draw_scores(path: Path, trials: _Trials) -> Path:
    scores = _scores(trials.completed)
    with style():
        figure, axes = subplots(figsize=(5.6, 3.6))
        axes.hist(scores, bins=min(30, max(5, len(scores) // 3)), color=EVALUATION_COLOR, alpha=0.8)
        axes.axvline(np.median(scores), color=TRAINING_COLOR, lw=1.5, label="median")
        axes.set(xlabel=trials.label, ylabel="trials", title="Distribution of scores")
        axes.legend(fontsize="small")
        save_figure(figure, path)
    return path


def _draw_importances(path: Path, importances: dict[str, float]) -> Path:
    names = list(importances)[::-1]
    with style():
        figure, axes = subplots(figsize=(6.0, 1.2 + 0.3 * len(names)))
        axes.barh(names, [100 * importances[name] for name in names], color=EVALUATION_COLOR)
        axes.set(xlabel="importance (%), PED-ANOVA", title="Importance of each parameter for a good score")
        save_figure(figure, path)
    return path


def _draw_radar(path: Path, best: FrozenTrial, space: Space) -> Path:
    angles = np.linspace(0.0, 2 * np.pi, len(space), endpoint=False)
    radii = _unit_values(best, space)
    labels = [
        literal(f"{key}\n{f'{value:.4g}' if isinstance(value, float) else value}")
        for key, value in ((key, best.params[key]) for key in space)
    ]
    with style():
        figure = Figure(figsize=(7.6, 6.0), layout="constrained")
        axes: Any = figure.add_subplot(projection="polar")
        axes.plot([*angles, angles[0]], [*radii, radii[0]], color=EVALUATION_COLOR, lw=2)
        axes.fill(angles, radii, color=EVALUATION_COLOR, alpha=0.2)
        axes.set_xticks(angles, labels, fontsize="small")
        axes.set_yticks([0.0, 0.5, 1.0], ["low", "", "high"], fontsize="small")
        axes.set_ylim(-0.1, 1.05)
        axes.tick_params(axis="x", pad=26)
        axes.set_title(f"The best trial ({best.number}): each parameter within its range")
        save_figure(figure, path)
    return path
