"""Pictures of a search: history, score against each parameter, importances, parallel coordinates, scores, radar."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter
from optuna.trial import FrozenTrial

from purejaxdqn.pictures.runs import EVALUATION, STYLE, TRAINING, finish_figure
from purejaxdqn.searches.directory import read_directory
from purejaxdqn.searches.study import best_trial, completed, finished, is_stopped
from purejaxdqn.sweeps.spaces import Choices, Range, Space, as_text, space_of
from purejaxdqn.system.faults import UserError


class _Shown(NamedTuple):
    """Trials in a picture."""

    trials: list[FrozenTrial]  # that came to their end
    stopped: list[FrozenTrial]
    best: FrozenTrial


def draw_search(folder: Path, study: optuna.Study, space: Space, *, objective: str) -> list[Path]:
    """Draw all pictures of a search with a scored trial; returns the files."""
    trials, stopped = completed(study), [trial for trial in finished(study) if is_stopped(trial)]
    best = best_trial(study)
    label = {"final": "IQM of the greedy return", "auc": "IQM of the area under the curve (a return)"}[objective]
    assert best is not None
    drawn = [
        _draw_history(folder / "history.png", trials, stopped, label),
        _draw_slices(folder / "slices.png", _Shown(trials, stopped, best), space, label),
        _draw_parallel(folder / "parallel_coordinates.png", trials, stopped, space, label),
        _draw_scores(folder / "scores.png", trials, label),
        _draw_radar(folder / "radar.png", best, space),
    ]
    if importances := find_importances(study):
        drawn.append(_draw_importances(folder / "importances.png", importances))
    return drawn


def draw_directory(folder: Path) -> list[Path]:
    """Draw the pictures of a search's directory again, from its study; returns the files.

    Raises:
      UserError: the directory is damaged, has its study elsewhere, or no trial has a score.
    """
    definition, study = read_directory(folder)
    if best_trial(study) is None:
        raise UserError(f"{folder}: no trial of this search has a score")
    return draw_search(folder, study, space_of(definition["space"]), objective=definition["objective"])


def find_importances(study: optuna.Study) -> dict[str, float]:
    """Share of each parameter in what tells good trials from others (PED-ANOVA, Watanabe et al. 2023).

    Empty where there are too few trials, or all score the same.
    """
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # where there are too few, they are all said to be equal
        try:
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (RuntimeError, ValueError, UserWarning):
            return {}


def share(values: Range | Choices, value: Any) -> float:
    """Where a value lies between its range's ends, in [0, 1] on the range's scale."""
    if isinstance(values, Choices):
        return [as_text(choice) for choice in values.values].index(value) / max(len(values.values) - 1, 1)
    low, high, value = (np.log(x) if values.log else x for x in (values.low, values.high, value))
    return float((value - low) / (high - low))


def _draw_history(path: Path, trials: list[FrozenTrial], stopped: list[FrozenTrial], label: str) -> Path:
    values = np.array([trial.value for trial in trials])
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
        axes.plot([trial.number for trial in trials], values, "o", color=EVALUATION, ms=4, alpha=0.6, label="a trial")
        if stopped:
            scores = np.array([trial.value for trial in stopped])
            axes.plot(
                [trial.number for trial in stopped],
                scores,
                "x",
                color="grey",
                ms=4,
                alpha=0.7,
                label="stopped early, at its rung",
            )
        best = np.maximum.accumulate(values)
        axes.step([t.number for t in trials], best, where="post", color=TRAINING, lw=1.8, label="best so far")
        axes.set(xlabel="trial", ylabel=label, title="Optimisation history")
        axes.legend(fontsize="small", loc="lower right")
        finish_figure(figure, path)
    return path


def _draw_slices(path: Path, shown: _Shown, space: Space, label: str) -> Path:
    trials, stopped, best = shown
    columns = min(3, len(space))
    rows = -(-len(space) // columns)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            rows, columns, figsize=(3.2 * columns, 2.6 * rows), sharey=True, squeeze=False, layout="constrained"
        )
        for axes in grid.flat[len(space) :]:
            axes.axis("off")
        for axes, (key, values) in zip(grid.flat, space.items(), strict=False):
            if isinstance(values, Choices):
                names = [as_text(choice) for choice in values.values]
                axes.set_xticks(range(len(names)), names)
                axes.set_xlim(-0.5, len(names) - 0.5)
                at_best: Any = names.index(best.params[key])
            else:
                at_best = best.params[key]
                axes.set_xscale("log" if values.log else "linear")
                axes.xaxis.set_minor_formatter(NullFormatter())  # names of powers alone: others overlap
            axes.plot(_places(stopped, key, values), [t.value for t in stopped], "x", color="grey", ms=3.5, alpha=0.5)
            places = _places(trials, key, values)
            dots = axes.scatter(places, [t.value for t in trials], c=[t.number for t in trials], cmap="viridis", s=14)
            axes.plot(at_best, best.value, "*", color="red", ms=11, mec="white", mew=0.6)
            axes.set_xlabel(key)
        for axes in grid[:, 0]:
            axes.set_ylabel(label, fontsize="small")
        figure.colorbar(dots, ax=grid, label="trial", shrink=0.7)
        crosses = "; crosses: stopped early, at their rung" if stopped else ""
        figure.suptitle(f"Score against each parameter; star: the best trial{crosses}")
        finish_figure(figure, path)
    return path


def _places(trials: list[FrozenTrial], key: str, values: Range | Choices) -> list[Any]:
    """Where trials stand along the axis of a parameter; choices beside their name, so that none hides another."""
    if isinstance(values, Range):
        return [trial.params[key] for trial in trials]
    names = [as_text(choice) for choice in values.values]
    jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(trials))
    return [names.index(trial.params[key]) + aside for trial, aside in zip(trials, jitter, strict=True)]


def _draw_parallel(path: Path, trials: list[FrozenTrial], stopped: list[FrozenTrial], space: Space, label: str) -> Path:
    values = np.array([trial.value for trial in trials])
    low, high = values.min(), values.max()
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = plt.subplots(figsize=(max(6.4, 1.5 * len(space) + 1.5), 4.2), layout="constrained")
        for trial in stopped:
            axes.plot(
                range(len(space)), [share(space[key], trial.params[key]) for key in space], color="lightgrey", lw=0.8
            )
        for trial in sorted(trials, key=lambda trial: trial.value or 0.0):
            good = ((trial.value or 0.0) - low) / (high - low) if high > low else 1.0
            shares = [share(space[key], trial.params[key]) for key in space]
            axes.plot(range(len(space)), shares, color=colormaps["viridis"](good), alpha=0.25 + 0.65 * good, lw=1.2)
        for column, values_of in enumerate(space.values()):
            axes.axvline(column, color="black", lw=0.8)
            ends = (values_of.values[0], values_of.values[-1]) if isinstance(values_of, Choices) else values_of[:2]
            for height, end, side in ((-0.03, ends[0], "top"), (1.03, ends[1], "bottom")):
                text = f"{end:.4g}" if isinstance(end, float) else as_text(end)
                axes.text(column, height, text, ha="center", va=side, fontsize="small")
        axes.set_xticks(range(len(space)), list(space), rotation=20, ha="right")
        axes.set_yticks([])
        axes.set_ylim(-0.12, 1.12)
        axes.tick_params(axis="x", pad=8)
        axes.spines[["left", "bottom"]].set_visible(False)
        scale = plt.Normalize(low, high if high > low else low + 1.0)
        figure.colorbar(plt.cm.ScalarMappable(scale, "viridis"), ax=axes, label=label)
        axes.set_title(f"A line a trial, over its parameters{'; grey: stopped early' if stopped else ''}")
        finish_figure(figure, path)
    return path


def _draw_scores(path: Path, trials: list[FrozenTrial], label: str) -> Path:
    values = np.array([trial.value for trial in trials], float)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
        axes.hist(values, bins=min(30, max(5, len(values) // 3)), color=EVALUATION, alpha=0.8)
        axes.axvline(np.median(values), color=TRAINING, lw=1.5, label="median")
        axes.set(xlabel=label, ylabel="trials", title="Distribution of scores")
        axes.legend(fontsize="small")
        finish_figure(figure, path)
    return path


def _draw_importances(path: Path, importances: dict[str, float]) -> Path:
    names = list(importances)[::-1]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.0, 1.2 + 0.3 * len(names)), layout="constrained")
        axes.barh(names, [100 * importances[name] for name in names], color=EVALUATION)
        axes.set(xlabel="importance (%), PED-ANOVA", title="What tells good trials from the others")
        finish_figure(figure, path)
    return path


def _draw_radar(path: Path, best: FrozenTrial, space: Space) -> Path:
    angles = np.linspace(0.0, 2 * np.pi, len(space), endpoint=False)
    shares = [share(values, best.params[key]) for key, values in space.items()]
    labels = [
        f"{key}\n{f'{value:.4g}' if isinstance(value, float) else value}"
        for key, value in ((key, best.params[key]) for key in space)
    ]
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(7.6, 6.0), layout="constrained")
        axes: Any = figure.add_subplot(projection="polar")
        axes.plot([*angles, angles[0]], [*shares, shares[0]], color=EVALUATION, lw=2)
        axes.fill(angles, shares, color=EVALUATION, alpha=0.2)
        axes.set_xticks(angles, labels, fontsize="small")
        axes.set_yticks([0.0, 0.5, 1.0], ["low", "", "high"], fontsize="small")
        axes.set_ylim(-0.1, 1.05)
        axes.tick_params(axis="x", pad=26)
        axes.set_title(f"The best point (trial {best.number}), each parameter within its range")
        finish_figure(figure, path)
    return path
