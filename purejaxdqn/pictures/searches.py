"""Figures of a search: history, score by parameter, scores and importances; ``search_spaces`` has the others."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial

from purejaxdqn.pictures.figures import (
    FORMATS,
    legend_below,
    literal,
    nice_edges,
    save_figures,
    score_colors,
    set_counts,
    set_edges,
    set_log_ticks,
    style,
    subplots,
)
from purejaxdqn.pictures.palette import COLORS, EVALUATION_COLOR, OTHERS_COLOR, TRAINING_COLOR
from purejaxdqn.pictures.search_spaces import ScoredTrials, draw_parallel, draw_radar, scores_of
from purejaxdqn.searches.directory import read_directory
from purejaxdqn.searches.study import best_trial, completed, finished, is_stopped
from purejaxdqn.sweeps.spaces import Choices, Range, Space, as_text, space_of
from purejaxdqn.system.faults import UserError


def draw_search(
    folder: Path, study: optuna.Study, space: Space, *, objective: str, formats: Sequence[str] = FORMATS[:1]
) -> list[Path]:
    """Draw all figures of a search that has a completed trial, in each of the formats; return the files."""
    return save_figures(folder, search_figures(study, space, objective=objective), formats)


def search_figures(study: optuna.Study, space: Space, *, objective: str) -> Iterator[tuple[str, Figure]]:
    """The figures of a search that has a completed trial, by the names of their files."""
    best = best_trial(study)
    assert best is not None
    label = {"final": "IQM of the greedy return", "auc": "IQM of the area under the learning curve"}[objective]
    trials = ScoredTrials(completed(study), [trial for trial in finished(study) if is_stopped(trial)], best, label)
    yield "history", draw_history(trials)
    yield "slices", draw_slices(trials, space)
    yield "parallel_coordinates", draw_parallel(trials, space)
    yield "scores", draw_scores(trials)
    yield "radar", draw_radar(best, space)
    if importances := find_importances(study):
        yield "importances", draw_importances(importances)


def draw_directory(folder: Path, formats: Sequence[str] = FORMATS[:1]) -> list[Path]:
    """Draw the figures of a search directory again, from its study; return the files.

    Raises:
      UserError: the directory is damaged, its study is stored elsewhere, or no trial has a score.
    """
    definition, study = read_directory(folder)
    if best_trial(study) is None:
        raise UserError(f"{folder}: no trial of this search has a score")
    space = space_of(definition["space"])
    return draw_search(folder, study, space, objective=definition["objective"], formats=formats)


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


def draw_history(trials: ScoredTrials) -> Figure:
    """Plot the score of each trial, and the best score so far, against the number of the trial."""
    numbers, scores = _numbers(trials.completed), scores_of(trials.completed)
    with style():
        figure, axes = subplots(figsize=(6.4, 4.0))
        axes.plot(numbers, scores, "o", color=EVALUATION_COLOR, ms=4.5, mew=0, alpha=0.75, label="trial")
        if trials.stopped:
            look: Any = {"color": "0.35", "ms": 4.5, "label": "stopped early, score at its rung"}
            axes.plot(_numbers(trials.stopped), scores_of(trials.stopped), "x", **look)
        best = np.maximum.accumulate(scores)
        axes.step(numbers, best, where="post", color=TRAINING_COLOR, lw=1.8, ls="--", label="best so far")
        axes.set(xlabel="trial", ylabel=trials.label, title="Optimisation history")
        set_counts(axes.xaxis)
        legend_below(figure)
    return figure


def draw_slices(trials: ScoredTrials, space: Space) -> Figure:
    """Plot the scores against each parameter, one panel for each; colours are the numbers of the trials."""
    columns = min(3, len(space))
    rows = -(-len(space) // columns)
    with style():
        figure, grid = subplots(rows, columns, figsize=(3.2 * columns + 0.8, 2.6 * rows), sharey=True, squeeze=False)
        for axes in grid.flat[len(space) :]:
            axes.axis("off")
        for axes, (key, values) in zip(grid.flat, space.items(), strict=False):
            dots = _draw_slice(axes, trials, key, values)
        figure.supylabel(trials.label, fontsize="medium")
        set_counts(figure.colorbar(dots, ax=grid, label="trial", shrink=0.7).ax.yaxis)
        title = "Score against each parameter" if columns > 1 else "Score against the parameter"
        crosses = "\ncrosses: stopped early, score at their rung" if trials.stopped else ""
        figure.suptitle(f"{title}; star: the best trial{crosses}")
    return figure


def _draw_slice(axes: Axes, trials: ScoredTrials, key: str, values: Range | Choices) -> Any:
    """Draw the scores against one parameter; return the dots of the completed trials, for the colour bar."""
    best, stopped, done = trials.best, trials.stopped, trials.completed
    x_best: Any = [best.params[key]]
    if isinstance(values, Choices):
        names = [as_text(choice) for choice in values.values]
        x_best = [names.index(best.params[key])]
        axes.set_xticks(range(len(names)), [literal(name) for name in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
        if sum(map(len, names)) > 24:
            axes.tick_params(axis="x", labelrotation=30)
    elif values.log:
        axes.set_xscale("log")
        set_log_ticks(axes.xaxis, values.low, values.high)
    elif values.step is not None:
        set_counts(axes.xaxis)
    axes.plot(_x_positions(stopped, key, values), scores_of(stopped), "x", color=OTHERS_COLOR, ms=3.5)
    x = _x_positions(done, key, values)
    dots = axes.scatter(x, scores_of(done), c=_numbers(done), cmap=score_colors(), s=16)
    axes.plot(x_best, scores_of([best]), "*", color=COLORS[1], ms=12, mec="white", mew=0.7)
    axes.set_xlabel(literal(key))
    return dots


def _x_positions(trials: list[FrozenTrial], key: str, values: Range | Choices) -> list[Any]:
    """Return the trials' positions along a parameter's axis; choices get jitter, so that dots do not overlap."""
    if isinstance(values, Range):
        return [trial.params[key] for trial in trials]
    names = [as_text(choice) for choice in values.values]
    jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(trials))
    return [names.index(trial.params[key]) + offset for trial, offset in zip(trials, jitter, strict=True)]


def draw_scores(trials: ScoredTrials) -> Figure:
    """Draw the histogram of the scores, with ticks at the edges of its bins and a mark for each trial."""
    scores = scores_of(trials.completed)
    edges = nice_edges(scores, min(24, max(5, len(scores) // 3)))
    with style():
        figure, axes = subplots(figsize=(6.0, 4.0))
        axes.hist(scores, bins=edges, color=EVALUATION_COLOR, edgecolor="white", lw=0.8, alpha=0.85)
        axes.plot(scores, np.zeros(len(scores)), "|", color="black", ms=9, clip_on=False, label="trial")
        axes.axvline(np.median(scores), color=TRAINING_COLOR, lw=1.8, ls="--", label="median")
        axes.set(xlabel=trials.label, ylabel="trials", title="Distribution of scores")
        set_counts(axes.yaxis)
        set_edges(axes, edges)
        legend_below(figure)
    return figure


def draw_importances(importances: dict[str, float]) -> Figure:
    """Draw the importance of each parameter, as ``find_importances`` returns it."""
    names = list(importances)[::-1]
    with style():
        figure, axes = subplots(figsize=(6.4, 1.2 + 0.3 * len(names)))
        axes.barh(range(len(names)), [100 * importances[name] for name in names], color=EVALUATION_COLOR)
        axes.set_yticks(range(len(names)), [literal(name) for name in names])
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="importance (%), PED-ANOVA", title="Importance of each parameter for a good score")
    return figure


def _numbers(trials: list[FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]
