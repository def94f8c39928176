"""Training the trials of a search: a batch of points, their seeds beside each other, with programs compiled once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from purejaxdqn.runs.progress import SweepProgress
from purejaxdqn.searches.halving import Ended, Halving, train_by_rungs
from purejaxdqn.searches.study import score
from purejaxdqn.sweeps.pieces import plan_work
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.results import RunResult, collect
from purejaxdqn.sweeps.sweeps import all_runs, train_work


class Setting(NamedTuple):
    """What all batches of a search share."""

    seeds: int  # of a trial
    batch: int  # trials at a time
    objective: str
    halving: Halving | None
    devices: int | None
    memory: int | None
    quiet: bool
    check: Callable[[], None]  # called between segments; may raise to stop
    compiled: dict[Any, Any]  # programs, which every batch uses and adds to


def train_points(points: Sequence[Point], seeds: int, setting: Setting) -> Iterator[Ended]:
    """Train points to their end: yields each as soon as its seeds are there."""
    runs = all_runs(points, seeds)
    # Pieces of one size, however many trials share a program: it is compiled once for all batches.
    together = (setting.seeds, setting.seeds * setting.batch)
    work = plan_work(points, runs, devices=setting.devices, memory=setting.memory, together=together)
    found: list[RunResult] = []
    with SweepProgress(work.env_steps, quiet=setting.quiet) as progress:
        pieces = train_work(points, work, check=setting.check, report=progress.update, compiled=setting.compiled)
        for piece in pieces:
            found += collect(points, [piece])
            for point in sorted({result.run.point for result in found}):
                mine = [result for result in found if result.run.point == point]
                if len(mine) == seeds:
                    found = [result for result in found if result.run.point != point]
                    yield Ended(point, mine, [], stopped=False)


def halve_points(points: Sequence[Point], setting: Setting) -> list[Ended]:
    """Train points from rung to rung; all of them have ended or been stopped when it returns."""
    assert setting.halving
    devices = tuple(jax.local_devices()[: setting.devices])
    steps = sum(setting.halving.env_steps(len(points), point.config) for point in points) // max(len(points), 1)

    def value(results: Sequence[RunResult]) -> float:
        found = score(results, setting.objective).value
        return float("nan") if found is None else found

    with SweepProgress(setting.seeds * steps, quiet=setting.quiet) as progress:
        return list(
            train_by_rungs(
                points,
                setting.seeds,
                setting.halving,
                sizes=population_sizes(setting, devices),
                devices=devices,
                memory=setting.memory,
                score=value,
                check=setting.check,
                report=progress.update,
                compiled=setting.compiled,
            )
        )


def population_sizes(setting: Setting, devices: Sequence[jax.Device]) -> list[int]:
    """Runs at a time up to each rung and to the end.

    On a CPU those of one trial, always: runs follow one another there, and one program does for any number of them.
    Elsewhere all that are left of a batch, so that the program shrinks with it.
    """
    assert setting.halving
    cpu = devices[0].platform == "cpu"
    trials = [1 if cpu else count for count in setting.halving.counts(setting.batch)]
    return [-(-setting.seeds * count // len(devices)) * len(devices) for count in trials]
