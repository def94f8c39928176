"""Training on the host: compile a program for all runs once, then call its segments one after another."""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxdqn.config.building import make_program
from purejaxdqn.core.compiling import compile_lowered, lower_runs
from purejaxdqn.core.config import Config, HParams
from purejaxdqn.core.many import Layout, lay_out, map_runs
from purejaxdqn.core.types import Array, EpochRow, RunnerState
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.runtime import usable_cores

DEFAULT_SEGMENTS = 20
KEY_KIND = "threefry2x32"
"""Of random keys: what they give does not depend on the runs beside."""


class Population(NamedTuple):
    """The runs of a program: every leaf starts with an axis over runs [R]."""

    hparams: HParams
    seed: np.ndarray  # uint32
    seed_index: np.ndarray  # uint32


class Compiling:
    """A program that is still being compiled; calling it waits for that, ``waited`` seconds in all.

    As a context manager it leaves no compiler behind that would keep the process from ending.
    """

    def __init__(self, program: "Future[Any]"):
        self._program = program
        self.waited = 0.0

    def __call__(self, *arguments: Any) -> Any:
        """Of what the program takes."""
        return self.wait()(*arguments)

    def wait(self) -> Any:
        """The compiled program."""
        start = time.perf_counter()
        try:
            return self._program.result()
        finally:
            self.waited += time.perf_counter() - start

    def check(self) -> None:
        """Raise what it has failed with, if it has."""
        if self._program.done():
            self._program.result()

    def __enter__(self) -> "Compiling":
        return self

    def __exit__(self, *error: object) -> None:
        wait([self._program])


class Training(NamedTuple):
    """A compiled program for R runs; the arrays of its functions have a leading axis [layout.size]."""

    layout: Layout
    segments: int
    init: Any  # hparams, (seed, seed index) -> state after the warm-up
    segment: Any  # hparams, state (donated) -> state, rows
    finish: Compiling  # hparams, state -> final returns
    policy: Any  # algorithm's state -> what acting needs
    first_seconds: float  # until ``init`` and ``segment`` were compiled
    state: Any = None  # shapes and types of the state

    @property
    def compile_seconds(self) -> float:
        """How long training has waited for the compiler so far."""
        return self.first_seconds + self.finish.waited

    def fetch_policy(self, state: RunnerState) -> Any:
        """What acting needs, on the host; leaves [R, ...]. It may share the state's memory."""
        return self.layout.take(jax.device_get(self.policy(state.algorithm)))


class Outcome(NamedTuple):
    """What a finished training leaves on the host; leaves start with an axis over runs [R]."""

    params: Any
    final_returns: np.ndarray  # [R, N]


def run_key(seed: Any, seed_index: Any) -> Array:
    """The key of one run: it depends on the seed and its index, never on how many seeds there are."""
    return jax.random.fold_in(jax.random.key(seed, impl=KEY_KIND), seed_index)


def episodes_key(seed: int) -> Array:
    """The key of episodes played after training: of an index that no run has, or it would be that of a run's start."""
    return run_key(seed, np.uint32(2**32 - 1))


def choose_segments(epochs: int, asked: int | None, *, stops: Sequence[int] = ()) -> int:
    """How many segments a run has: what was asked for, or the fitting number nearest to 20.

    Args:
      epochs: of the run; the segments divide them evenly.
      asked: None leaves it open.
      stops: epochs between which and the start there is a whole number of segments too.

    Raises:
      UserError: what was asked for does not fit.
    """
    common = math.gcd(epochs, *stops)
    fitting = [epochs // length for length in range(1, common + 1) if common % length == 0]
    nearest = sorted(fitting, key=lambda n: abs(math.log(n / (asked or DEFAULT_SEGMENTS))))
    if asked is not None and asked not in fitting:
        near = " or ".join(map(str, sorted(nearest[:2])))
        are = "is" if len(fitting) == 1 else "are"
        wanted = f"{epochs} epochs" if epochs % asked else f"{epochs} epochs so that checkpoints fall between segments"
        raise UserError(f"--segments: {asked} does not divide the {wanted}; the nearest {are} {near}")
    return nearest[0]


def shapes_of_run(config: Config) -> RunnerState:
    """Shapes and types of the state of one run. Nothing is compiled."""
    return jax.eval_shape(make_program(config).init, config.hparams(), run_key(np.uint32(0), np.uint32(0)))


def seeds_of(config: Config) -> Population:
    """The runs of a config: its seeds, with the same hyper-parameters."""
    seeds = np.arange(config.num_seeds, dtype=np.uint32)
    hparams = jax.tree.map(lambda leaf: np.repeat(leaf, config.num_seeds), config.hparams())
    return Population(hparams, np.full_like(seeds, config.seed), seeds)


def compile_training(
    config: Config,
    population: Population,
    *,
    segments: int,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Training:
    """Trace, lower and compile; the parts compile side by side where there is more than one core.

    Where runs leave a core free, the final evaluation's program is compiled behind the others, while the first segments
    run already. (Not on a GPU, for which XLA would measure its candidates for a product beside a run.)

    Args:
      config: only its static part is used.
      population: as many runs as each population will have that this program trains.
      segments: calls of ``segment``; divides the epochs.
      batch_size: see ``lay_out``.
      devices: see ``lay_out``.
    """
    start = time.perf_counter()
    program = make_program(config)
    layout = lay_out(len(population.seed), devices=devices, batch_size=batch_size)
    epochs = program.plan.epochs // segments
    hparams, *place = layout.put(population)

    def init(hparams: HParams, place: Any) -> RunnerState:
        return program.init(hparams, run_key(*place))

    def segment(hparams: HParams, state: RunnerState) -> tuple[RunnerState, EpochRow]:
        return program.segment(hparams, state, epochs)

    mapped_init = map_runs(init, layout)
    state = jax.eval_shape(mapped_init, hparams, place)
    mapped_finish = map_runs(program.finish, layout)

    def compile_finish() -> Any:
        return compile_lowered(lower_runs(mapped_finish, hparams, state), layout.platform, once=True)

    pool = ThreadPoolExecutor()
    try:
        lowered = lower_runs(mapped_init, hparams, place)
        init_job = pool.submit(compile_lowered, lowered, layout.platform, once=True)
        lowered = lower_runs(map_runs(segment, layout, in_place=True), hparams, state)
        segment_job = pool.submit(compile_lowered, lowered, layout.platform)
        behind = layout.platform == "cpu" and usable_cores() > len(layout.devices)
        ahead = None if behind else pool.submit(compile_finish)
        compiled_init, compiled_segment = init_job.result(), segment_job.result()
        if ahead:
            ahead.result()
        finish = Compiling(ahead or pool.submit(compile_finish))
    finally:
        pool.shutdown(wait=False)
    return Training(
        layout=layout,
        segments=segments,
        init=compiled_init,
        segment=compiled_segment,
        finish=finish,
        policy=program.algorithm.policy,
        first_seconds=time.perf_counter() - start,
        state=state,
    )


def run_segments(
    training: Training,
    population: Population,
    *,
    state: RunnerState | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[tuple[RunnerState, EpochRow]]:
    """Run segment after segment: yields the state, which the next segment takes over, and the rows [R, epochs].

    Args:
      training: the program.
      population: its runs.
      state: to go on from; None begins with the warm-up.
      start: segments that ``state`` has behind it.
      stop: segments after which to leave off; all of them unless given.
    """
    hparams, *place = training.layout.put(population)
    if state is None:
        state = training.init(hparams, place)
    for _ in range(start, training.segments if stop is None else stop):
        state, rows = training.segment(hparams, state)
        training.finish.check()  # now, not at the end of a long run
        yield state, training.layout.take(jax.device_get(rows))


def finish_training(training: Training, population: Population, state: RunnerState) -> Outcome:
    """Evaluate the final parameters and fetch them."""
    hparams, *_ = training.layout.put(population)
    final_returns = training.layout.take(jax.device_get(training.finish(hparams, state)))
    return Outcome(training.fetch_policy(state), final_returns)
