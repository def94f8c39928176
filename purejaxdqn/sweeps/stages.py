"""Train the runs of many points: a sweep in one stage, successive halving in one stage for each rung and a last one.

A stage trains runs from one epoch to another, piece by piece, and compiles each program once. Runs that are not at
their end pause on the host, and the next stage continues them, perhaps in smaller populations.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxdqn.core.config import Config
from purejaxdqn.core.plan import make_plan
from purejaxdqn.runs.divergence import diverged_at
from purejaxdqn.runs.metrics import Metrics
from purejaxdqn.runs.population import BEGINNING, FinalAgents, Position, advance, finish_training
from purejaxdqn.runs.snapshots import fetch_state, place_state
from purejaxdqn.runs.training import Population, Training, choose_segments, compile_training
from purejaxdqn.sweeps.pieces import Run, Work, cut, pad, population_of
from purejaxdqn.sweeps.points import Point


class PieceResult(NamedTuple):
    """What the runs of a piece have reached; arrays start with an axis over runs [R]."""

    runs: tuple[Run, ...]
    final_returns: np.ndarray  # [R, N] greedy returns at the end; [R, 1] from the last evaluation of paused runs
    diverged: np.ndarray  # [R] bool
    metrics: Metrics  # [R, T]


class PausedRun(NamedTuple):
    """A run between two stages, on the host."""

    state: dict[str, np.ndarray]  # of ``fetch_state``: leaves [1, ...]
    metrics: Metrics  # [1, T]


class Stage(NamedTuple):
    """A part of the runs: they are trained from one epoch to another, and paused."""

    ends: Callable[[Config], Sequence[int]]  # the epochs at which the stages of a run end, ascending
    number: int  # of this stage, from 0
    paused: dict[Run, PausedRun]  # runs that an earlier stage has paused; this stage replaces them by its own

    def span(self, config: Config) -> tuple[int, int]:
        """The epochs at which this stage begins and ends."""
        ends = [0, *self.ends(config)]
        return ends[self.number], ends[self.number + 1]


def whole_runs() -> Stage:
    """The only stage of runs that never pause."""
    return Stage(lambda config: [make_plan(config).epochs], 0, {})


class Controls(NamedTuple):
    """What the stages of one command share."""

    check: Callable[[], None]  # called between segments; may raise to stop
    report: Callable[[int, int], None]  # called between segments: the number of runs, and new environment steps of each
    compiled: dict[Any, Training]  # programs, which are used again; new ones are added
    compiling: Callable[[], AbstractContextManager[None]] = nullcontext  # around the compilation of a program


def train_stage(points: Sequence[Point], work: Work, stage: Stage, controls: Controls) -> Iterator[PieceResult]:
    """Train pieces one after another; yields each when it is done.

    Args:
      points: all points.
      work: the runs to train.
      stage: from which epoch to which.
      controls: of the command.
    """
    for group, size in zip(work.groups, work.sizes, strict=True):
        ends = stage.ends(group.config)
        segments = choose_segments(ends[-1], None, stops=ends)
        example = population_of(points, pad(group.runs[:size], size))
        training = _program(group.config, example, segments, work.devices, controls)
        with training.finish:
            for runs in cut(group.runs, size):
                controls.check()
                population = population_of(points, pad(runs, size))
                yield _train_piece(training, group.config, population, runs, stage=stage, controls=controls)


def _program(
    config: Config, example: Population, segments: int, devices: tuple[jax.Device, ...], controls: Controls
) -> Training:
    """The program for populations like ``example``, the same for all stages; compiled if it is not there yet."""
    name = config.static(), len(example.seed), segments, devices
    if name not in controls.compiled:
        with controls.compiling():
            controls.compiled[name] = compile_training(config, example, segments=segments, devices=devices)
    return controls.compiled[name]


def _train_piece(
    training: Training,
    config: Config,
    population: Population,
    runs: tuple[Run, ...],
    *,
    stage: Stage,
    controls: Controls,
) -> PieceResult:
    """Train a piece through a stage; if it is not at its end then, its runs are paused."""
    epochs = make_plan(config).epochs
    begin, end = (epoch * training.segments // epochs for epoch in stage.span(config))

    def after_segment(position: Position) -> bool:
        controls.report(len(runs), config.total_timesteps // training.segments)
        controls.check()
        return True

    places = pad(runs, len(population.seed))
    position = _continue(stage.paused, places, training, begin) if begin else BEGINNING
    position = advance(config, training, population, position, until=end, after_segment=after_segment)
    metrics = position.metrics
    if end == training.segments:
        agents = finish_training(training, population, position.state)
    else:
        agents = FinalAgents(training.fetch_policy(position.state), metrics.eval_return[:, -1:])
        _pause(stage.paused, runs, position, metrics, training)
    return _piece_result(runs, metrics, agents)


def _continue(paused: dict[Run, PausedRun], places: Sequence[Run], training: Training, segments: int) -> Position:
    """The position of paused runs, one for each place, on the devices."""
    states = [paused[run].state for run in places]
    state = place_state({path: np.concatenate([one[path] for one in states]) for path in states[0]}, training)
    metrics = zip(*(paused[run].metrics for run in places), strict=True)
    return Position(state, (Metrics(*(np.concatenate(columns) for columns in metrics)),), segments)


def _pause(
    paused: dict[Run, PausedRun], runs: Sequence[Run], position: Position, metrics: Metrics, training: Training
) -> None:
    """Keep each run on the host.

    The arrays may share the state's memory, which stays allocated for them: no program takes this state over.
    """
    arrays = fetch_state(position.state, training.layout)
    for place, run in enumerate(runs):
        mine = slice(place, place + 1)
        paused[run] = PausedRun({path: leaf[mine] for path, leaf in arrays.items()}, _of(metrics, mine))


def _piece_result(runs: tuple[Run, ...], metrics: Metrics, agents: FinalAgents) -> PieceResult:
    """The results without those of the places that pad the devices."""
    mine = slice(len(runs))
    diverged = np.array([step is not None for step in diverged_at(metrics, agents.params)])
    return PieceResult(runs, agents.final_returns[mine], diverged[mine], _of(metrics, mine))


def _of(metrics: Metrics, runs: slice) -> Metrics:
    return Metrics(*(column[runs] for column in metrics))
