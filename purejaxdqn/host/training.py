"""Training on the host: compile a program for all seeds once, then call its segments one after another."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxdqn.core.config import Config
from purejaxdqn.core.loop import make_program
from purejaxdqn.core.many import Layout, lay_out, map_runs
from purejaxdqn.core.types import Array, EpochRow, HParams, RunnerState
from purejaxdqn.host.faults import UserError

DEFAULT_SEGMENTS = 20


class Training(NamedTuple):
    """A compiled run of all seeds of a config; the arrays of its functions have a leading axis [layout.size]."""

    layout: Layout
    segments: int
    hparams: HParams
    init: Any  # hparams, (seed, seed index) -> state after the warm-up
    segment: Any  # hparams, state (donated) -> state, rows
    finish: Any  # hparams, state -> final returns
    policy: Any  # learner -> what acting needs
    compile_seconds: float


class Outcome(NamedTuple):
    """What a finished training leaves on the host; leaves start with an axis over seeds [S]."""

    params: Any
    final_returns: np.ndarray  # [S, N]


def run_key(seed: Any, seed_index: Any) -> Array:
    """The key of one run: it depends on the seed and its index, never on how many seeds there are."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), seed_index)


def choose_segments(epochs: int, asked: int | None) -> int:
    """How many times a segment is called: what was asked for, or the divisor of ``epochs`` nearest to 20.

    Raises:
      UserError: what was asked for does not divide the epochs.
    """
    divisors = [n for n in range(1, epochs + 1) if epochs % n == 0]
    nearest = sorted(divisors, key=lambda n: abs(math.log(n / (asked or DEFAULT_SEGMENTS))))
    if asked is not None and asked not in divisors:
        near = " or ".join(map(str, sorted(nearest[:2])))
        raise UserError(f"--segments: {asked} does not divide the {epochs} epochs; the nearest are {near}")
    return nearest[0]


def compile_training(config: Config, *, segments: int, batch_size: int | None = None) -> Training:
    """Trace, lower and compile; the three parts compile side by side where there is more than one core."""
    start = time.perf_counter()
    program = make_program(config)
    layout = lay_out(config.num_seeds, batch_size=batch_size)
    epochs = program.plan.epochs // segments
    hparams = jax.tree.map(lambda leaf: np.repeat(leaf, layout.size), config.hparams())
    places = layout.fill(
        (np.full(config.num_seeds, config.seed, np.uint32), np.arange(config.num_seeds, dtype=np.uint32))
    )

    def init(hparams: HParams, place: Any) -> RunnerState:
        return program.init(hparams, run_key(*place))

    def segment(hparams: HParams, state: RunnerState) -> tuple[RunnerState, EpochRow]:
        return program.segment(hparams, state, epochs)

    with ThreadPoolExecutor() as pool:
        mapped_init = map_runs(init, layout)
        state = jax.eval_shape(mapped_init, hparams, places)
        jobs = [
            pool.submit(mapped.lower(hparams, argument).compile)
            for mapped, argument in (
                (map_runs(segment, layout, in_place=True), state),
                (mapped_init, places),
                (map_runs(program.finish, layout), state),
            )
        ]
        compiled_segment, compiled_init, compiled_finish = (job.result() for job in jobs)
    return Training(
        layout=layout,
        segments=segments,
        hparams=hparams,
        init=lambda hparams: compiled_init(hparams, places),
        segment=compiled_segment,
        finish=compiled_finish,
        policy=program.agent.policy,
        compile_seconds=time.perf_counter() - start,
    )


def run_segments(training: Training) -> Iterator[tuple[RunnerState, EpochRow]]:
    """Run segment after segment: yields the state, which the next segment takes over, and the rows [S, epochs]."""
    state = training.init(training.hparams)
    for _ in range(training.segments):
        state, rows = training.segment(training.hparams, state)
        yield state, training.layout.take(jax.device_get(rows))


def finish_training(training: Training, state: RunnerState) -> Outcome:
    """Evaluate the final parameters and fetch them."""
    final_returns = training.layout.take(jax.device_get(training.finish(training.hparams, state)))
    return Outcome(training.layout.take(jax.device_get(training.policy(state.learner))), final_returns)
