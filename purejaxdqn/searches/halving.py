"""Successive halving: the weaker part of a batch of trials is stopped at rungs, and the survivors go on from there.

Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization". A survivor's runs
are those it would have had alone, bit for bit on a CPU: it goes on from its complete state, in a smaller population.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import psutil

from purejaxdqn.core.config import Config
from purejaxdqn.core.plan import make_plan
from purejaxdqn.environments.registry import SOLVED_AT
from purejaxdqn.runs.metrics import Metrics, join_metrics, metrics_from_rows
from purejaxdqn.runs.snapshots import fetch_state, place_state
from purejaxdqn.runs.training import Outcome, Training, choose_segments, finish_training, run_segments
from purejaxdqn.sweeps.pieces import Group, Run, group_runs, in_bytes, most_at_once, population_of, state_bytes
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.results import RunResult, collect
from purejaxdqn.sweeps.sweeps import cut, program_of, trained_runs
from purejaxdqn.system.faults import UserError


class Halving(NamedTuple):
    """When trials are compared, and how many of them go on."""

    factor: int  # one in so many goes on
    rungs: int  # places along a run where they are compared

    @property
    def fractions(self) -> list[float]:
        """Where the rungs are, as fractions of a run's epochs: with factor 2 and three rungs 1/8, 1/4 and 1/2."""
        return [self.factor ** (rung - self.rungs) for rung in range(self.rungs)]

    def counts(self, trials: int) -> list[int]:
        """How many trials run up to each rung, and to the end."""
        return [-(-trials // self.factor**rung) for rung in range(self.rungs + 1)]

    def epochs(self, config: Config) -> list[int]:
        """The rungs of a run and its end, in epochs."""
        epochs = make_plan(config).epochs
        return [max(1, round(fraction * epochs)) for fraction in (*self.fractions, 1.0)]

    def env_steps(self, trials: int, config: Config) -> int:
        """Environment steps of a batch with one seed a trial."""
        ends = [0.0, *self.fractions, 1.0]
        shares = [count * (ends[k + 1] - ends[k]) for k, count in enumerate(self.counts(trials))]
        return round(sum(shares) * config.total_timesteps)


class Ended(NamedTuple):
    """A trial that came to its end, or was stopped at a rung."""

    point: int
    results: list[RunResult]  # of its seeds, as far as they went
    marks: list[tuple[int, float]]  # environment step and score at each rung that it came to
    stopped: bool


class _Way(NamedTuple):
    """How far a run has come."""

    state: dict[str, np.ndarray]  # ``fetch_state``'s, of this run: leaves [1, ...]
    metrics: Metrics  # [1, T]


def check_rungs(halving: Halving, config: Config) -> None:
    """Refuse rungs that no evaluation tells apart.

    Raises:
      UserError: they fall together.
    """
    ends = halving.epochs(config)
    if len(set(ends)) < len(ends):
        raise UserError(
            f"--rungs: {halving.rungs} rungs of a run with {make_plan(config).epochs} evaluations fall together; "
            "ask for fewer, or make evaluation.every smaller"
        )


def check_room(configs: Sequence[Config], *, trials: int, seeds: int, memory: int | None = None) -> None:
    """Refuse a batch whose states do not fit in memory: runs wait on the host until all have come to the rung.

    Raises:
      UserError: it is too large.
    """
    needed = trials * seeds * max(map(state_bytes, configs))
    if needed > (memory or int(0.8 * psutil.virtual_memory().available)):
        raise UserError(f"--memory: halving keeps a batch of {trials * seeds} runs, {in_bytes(needed)}; lower --batch")


def train_by_rungs(
    points: Sequence[Point],
    seeds: int,
    halving: Halving,
    *,
    sizes: Sequence[int],
    devices: tuple[jax.Device, ...],
    memory: int | None,
    score: Callable[[Sequence[RunResult]], float],
    check: Callable[[], None],
    report: Callable[[int, int], None],
    compiled: dict[Any, Training],
) -> Iterator[Ended]:
    """Train a batch of points from rung to rung; yields each as it is stopped or ends.

    Args:
      points: of any static parts.
      seeds: of each point.
      halving: the rungs.
      sizes: runs at a time up to each rung, and to the end; whatever group they are of, so that each is compiled once.
      devices: to lay them over.
      memory: bytes to use at most, see ``piece_size``.
      score: of a point's runs; higher is better, and what is no number is stopped first.
      check: called between segments; may raise to stop.
      report: called between segments with the runs under way and the environment steps each has taken since.
      compiled: programs of earlier work, which are used again; this work's are added.
    """
    alive = list(range(len(points)))
    ways: dict[Run, _Way] = {}
    marks: dict[int, list[tuple[int, float]]] = {point: [] for point in alive}
    counts = halving.counts(len(points))
    for rung, size in enumerate(sizes):
        results: dict[int, list[RunResult]] = {point: [] for point in alive}
        runs = [Run(point, seed) for point in alive for seed in range(seeds)]
        for group in group_runs(points, runs):
            fitting = min(size, most_at_once(group.run_bytes, devices, memory))
            ends = halving.epochs(group.config)
            segments = choose_segments(ends[-1], None, stops=ends)
            training = program_of(points, group, fitting, segments=segments, devices=devices, compiled=compiled)
            span = (ends[rung - 1] if rung else 0, ends[rung])
            for piece in cut(group.runs, fitting):
                with training.finish:
                    advanced = _advance(
                        training, points, group, piece, size=fitting, ways=ways, span=span, check=check, report=report
                    )
                for result in advanced:
                    results[result.run.point].append(result)
        if rung == halving.rungs:
            yield from (Ended(point, results[point], marks[point], stopped=False) for point in alive)
            return
        scores = {point: score(results[point]) for point in alive}
        for point in alive:
            marks[point].append((int(results[point][0].env_step[-1]), scores[point]))
        alive = _best(scores, counts[rung + 1])
        for point in sorted(scores.keys() - set(alive)):
            ways = {run: way for run, way in ways.items() if run.point != point}
            yield Ended(point, results[point], marks[point], stopped=True)


def _advance(
    training: Training,
    points: Sequence[Point],
    group: Group,
    piece: tuple[Run, ...],
    *,
    size: int,
    ways: dict[Run, _Way],
    span: tuple[int, int],
    check: Callable[[], None],
    report: Callable[[int, int], None],
) -> list[RunResult]:
    """Train a piece from one epoch to another, and keep how far it has come in ``ways``."""
    check()
    length = make_plan(group.config).epochs // training.segments
    population = population_of(points, piece, size)
    places = [*piece, *[piece[-1]] * (size - len(piece))]
    state, parts = None, []
    if span[0]:
        states = [ways[run].state for run in places]
        joined = {path: np.concatenate([one[path] for one in states]) for path in states[0]}
        state = place_state(joined, training)
        metrics = [ways[run].metrics for run in places]
        parts.append(Metrics(*(np.concatenate(columns) for columns in zip(*metrics, strict=True))))
    first, last = (epoch // length for epoch in span)
    for reached, rows in run_segments(training, population, state=state, start=first, stop=last):
        parts.append(metrics_from_rows(rows, solved_at=SOLVED_AT.get(group.config.env.id)))
        report(len(piece), group.config.total_timesteps // training.segments)
        check()
    so_far = join_metrics(parts)
    if last == training.segments:
        outcome = finish_training(training, population, reached)
    else:
        outcome = Outcome(training.fetch_policy(reached), so_far.eval_return[:, -1:])
        arrays = fetch_state(reached, training.layout)
        for place, run in enumerate(piece):
            # The arrays share the state's memory, which stays theirs: this state is never given to a program.
            kept = {path: leaf[place : place + 1] for path, leaf in arrays.items()}
            ways[run] = _Way(kept, Metrics(*(column[place : place + 1] for column in so_far)))
    return collect(points, [trained_runs(piece, so_far, outcome)])


def _best(scores: dict[int, float], count: int) -> list[int]:
    """The points of the highest scores, of equals the first; in their order."""
    ranked = sorted(scores, key=lambda point: (-scores[point] if math.isfinite(scores[point]) else math.inf, point))
    return sorted(ranked[:count])
