"""Train a batch of trials: the seeds of all of them together, from rung to rung, with programs compiled once."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from purejaxdqn.runs.memory import Needs
from purejaxdqn.runs.progress import WorkProgress
from purejaxdqn.searches.halving import Halving, best_points
from purejaxdqn.searches.scores import score
from purejaxdqn.sweeps.pieces import Run, Work, plan_work
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.results import RunResult, collect
from purejaxdqn.sweeps.stages import Controls, PausedRun, Stage, train_stage


class BatchSettings(NamedTuple):
    """What all batches of a search share."""

    seeds: int  # of a trial
    batch: int  # trials at a time
    objective: str
    halving: Halving
    devices: int | None
    memory: int | None
    quiet: bool
    check: Callable[[], None]  # called between segments; may raise to stop
    compiled: dict[Any, Any]  # programs, shared by all batches
    needs: dict[Any, Needs]  # of the runs of each program, too


class TrialResult(NamedTuple):
    """A trial that has reached its end or was stopped at a rung."""

    point: int
    runs: list[RunResult]  # of its seeds, as far as they were trained
    marks: list[tuple[int, float]]  # environment step and score at each rung that it reached
    stopped: bool  # at a rung


def train_batch(points: Sequence[Point], seeds: int, settings: BatchSettings) -> Iterator[TrialResult]:
    """Train points from rung to rung; yields each when it is stopped, or when all its seeds are at their end.

    Args:
      points: of the batch; they may differ in static keys.
      seeds: of each point.
      settings: of the search.
    """
    halving = settings.halving
    steps = sum(halving.env_steps(len(points), point.config) for point in points) // max(len(points), 1)
    alive, paused = list(range(len(points))), dict[Run, PausedRun]()
    marks: dict[int, list[tuple[int, float]]] = {point: [] for point in alive}
    with WorkProgress(seeds * steps, quiet=settings.quiet) as progress:
        controls = Controls(settings.check, progress.update, settings.compiled, progress.compiling)
        train = functools.partial(_train_points, points, seeds=seeds, settings=settings, controls=controls)
        for rung, count in enumerate(halving.counts(len(points))[1:]):
            results = dict(train(alive, stage=Stage(halving.epochs, rung, paused)))
            for point, runs in results.items():
                value = score(runs, settings.objective).value
                marks[point].append((int(runs[0].env_step[-1]), math.nan if value is None else value))
            best = best_points({point: marks[point][-1][1] for point in alive}, count)
            for point in sorted(set(alive) - set(best)):
                for run in [run for run in paused if run.point == point]:
                    del paused[run]
                yield TrialResult(point, results[point], marks[point], stopped=True)
            alive = best
        for point, runs in train(alive, stage=Stage(halving.epochs, halving.rungs, paused)):
            yield TrialResult(point, runs, marks[point], stopped=False)


def check_fits(point: Point, settings: BatchSettings) -> None:
    """Refuse a point of which not even one run fits in memory.

    Raises:
      UserError: says how much memory a run needs.
    """
    _plan([point], [Run(0, 0)], Stage(settings.halving.epochs, 0, {}), settings)


def _train_points(
    points: Sequence[Point],
    alive: Sequence[int],
    *,
    seeds: int,
    stage: Stage,
    settings: BatchSettings,
    controls: Controls,
) -> Iterator[tuple[int, list[RunResult]]]:
    """Train the points that are ``alive`` through a stage; yields each, with its runs, when all its seeds are there."""
    work = _plan(points, [Run(point, seed) for point in alive for seed in range(seeds)], stage, settings)
    found: dict[int, list[RunResult]] = {}
    for piece in train_stage(points, work, stage, controls):
        for result in collect(points, [piece]):
            mine = found.setdefault(result.run.point, [])
            mine.append(result)
            if len(mine) == seeds:
                yield result.run.point, found.pop(result.run.point)


def _plan(points: Sequence[Point], runs: Sequence[Run], stage: Stage, settings: BatchSettings) -> Work:
    devices = tuple(jax.local_devices()[: settings.devices])
    size = population_sizes(settings, devices)[stage.number]
    return plan_work(points, runs, devices=settings.devices, memory=settings.memory, size=size, known=settings.needs)


def population_sizes(settings: BatchSettings, devices: Sequence[Any]) -> list[int]:
    """Runs at a time in each stage; a size that does not depend on the batch lets batches share programs.

    On a CPU always those of one trial: runs follow one another there, so that one program serves any number of them.
    On accelerators all that are left of a full batch, so that the program shrinks with it.
    """
    counts = settings.halving.counts(settings.batch)
    trials = [1] * len(counts) if devices[0].platform == "cpu" else counts
    return [-(-settings.seeds * count // len(devices)) * len(devices) for count in trials]
