"""The driver of ``train``, ``sweep`` and ``search``: it trains a population segment by segment.

It starts from any position, that is, what a population has reached between two segments. After each segment it calls
its caller, who writes, saves and shows the new position, and decides whether to continue.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxdqn.core.config import Config
from purejaxdqn.core.types import EpochRow, Params, RunnerState
from purejaxdqn.runs.metrics import Metrics, join_metrics, metrics_from_rows, solved_at
from purejaxdqn.runs.training import Population, Training


class Position(NamedTuple):
    """Where a population is between two segments."""

    state: Any  # a ``RunnerState`` on the devices, leaves [layout.size, ...]; None before the warm-up
    parts: tuple[Metrics, ...]  # each [R, T]: the epochs so far, one part after the other
    segments: int  # done so far

    @property
    def metrics(self) -> Metrics:
        """All epochs so far [R, T]."""
        return join_metrics(self.parts)

    @property
    def env_step(self) -> int:
        """Environment steps of a run so far, over all its environments, warm-up included."""
        return int(self.parts[-1].env_step[0, -1])


BEGINNING = Position(None, (), 0)
"""Before the warm-up."""


class FinalAgents(NamedTuple):
    """The agents that a training leaves, on the host; leaves start with an axis over runs [R]."""

    params: Params
    final_returns: np.ndarray  # [R, N] greedy returns


def advance(
    config: Config,
    training: Training,
    population: Population,
    position: Position = BEGINNING,
    *,
    until: int | None = None,
    after_segment: Callable[[Position], bool],
) -> Position:
    """Train a population from a position on.

    Args:
      config: of its runs.
      training: their program.
      population: the runs.
      position: where they are; its state is donated.
      until: the number of segments after which to return; by default all of them.
      after_segment: called after each segment with the new position; returns whether to continue. It may raise to
        stop, and must not keep the state, whose memory the next segment takes over.

    Returns:
      The position that was reached.
    """
    segments = run_segments(training, population, state=position.state, start=position.segments, stop=until)
    for state, rows in segments:
        part = metrics_from_rows(rows, solved_at=solved_at(config))
        position = Position(state, (*position.parts, part), position.segments + 1)
        if not after_segment(position):
            break
    return position


def run_segments(
    training: Training,
    population: Population,
    *,
    state: RunnerState | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[tuple[RunnerState, EpochRow]]:
    """Run segment after segment; yields the state, which the next segment takes over, and the rows [R, epochs].

    Args:
      training: the program.
      population: the runs.
      state: of the runs; None begins with the warm-up.
      start: segments that ``state`` has behind it.
      stop: the number of segments after which to end; by default all of them.
    """
    hparams, *place = training.layout.put(population)
    if state is None:
        state = training.init(hparams, place)
    for _ in range(start, training.segments if stop is None else stop):
        state, rows = training.segment(hparams, state)
        training.finish.check()  # now, not at the end of a long run
        yield state, training.layout.take(jax.device_get(rows))


def finish_training(training: Training, population: Population, state: RunnerState) -> FinalAgents:
    """Evaluate the agents of a state and fetch them."""
    hparams, *_ = training.layout.put(population)
    final_returns = training.layout.take(jax.device_get(training.finish(hparams, state)))
    return FinalAgents(training.fetch_policy(state), final_returns)
