"""Compile a program for a population of runs, once, as functions that the host calls segment by segment."""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxdqn.config.building import make_program
from purejaxdqn.core.config import Config, HParams
from purejaxdqn.core.keys import run_key
from purejaxdqn.core.many import Layout, lay_out, map_runs
from purejaxdqn.core.types import EpochRow, RunnerState
from purejaxdqn.runs import kept
from purejaxdqn.system.collector import collector_paused
from purejaxdqn.system.compiling import Lowered, compile_lowered, lower_runs
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.runtime import usable_cores

DEFAULT_SEGMENTS = 20


class Population(NamedTuple):
    """R runs that one program trains together; every leaf starts with an axis over runs [R]."""

    hparams: HParams
    seed: np.ndarray  # [R] uint32
    seed_index: np.ndarray  # [R] uint32


class Compiling:
    """A program that may still be compiling; a call waits for the compiler, ``waited`` seconds in all.

    As a context manager it waits for the compiler at the end, which would otherwise keep the process alive.
    """

    def __init__(self, program: "Future[Any]"):
        self._program = program
        self.waited = 0.0

    @classmethod
    def compiled(cls, program: Any) -> "Compiling":
        """A program that is ready."""
        done: Future[Any] = Future()
        done.set_result(program)
        return cls(done)

    def __call__(self, *arguments: Any) -> Any:
        """Call the program."""
        return self.wait()(*arguments)

    def wait(self) -> Any:
        """Return the compiled program."""
        start = time.perf_counter()
        try:
            return self._program.result()
        finally:
            self.waited += time.perf_counter() - start

    def ready(self) -> Any:
        """Return the compiled program; for a thread that may wait, and whose time does not count."""
        return self._program.result()

    def check(self) -> None:
        """Raise the compiler's error if compiling has failed."""
        if self._program.done():
            self._program.result()

    def __enter__(self) -> "Compiling":
        return self

    def __exit__(self, *error: object) -> None:
        wait([self._program])


class Training(NamedTuple):
    """A compiled program for a population; the arrays of its functions have a leading axis [layout.size]."""

    layout: Layout
    segments: int
    init: Any  # hparams, (seed, seed index) -> state after the warm-up
    segment: Any  # hparams, state (donated) -> state, rows
    finish: Compiling  # hparams, state -> final returns
    policy: Any  # the algorithm's state -> what acting needs
    first_seconds: float  # that compiling ``init`` and ``segment`` took
    state: Any = None  # shapes and types of the state
    keeping: kept.Keeping = kept.Keeping(None)  # of the programs, if another run may want them

    @property
    def compile_seconds(self) -> float:
        """Seconds that training has waited for the compiler so far."""
        return self.first_seconds + self.finish.waited

    def keep(self) -> None:
        """Wait until the programs are compiled, and written if they are to be kept and can be."""
        self.finish.ready()
        self.keeping.write()

    def fetch_policy(self, state: RunnerState) -> Any:
        """What acting needs, on the host; leaves [R, ...], which may share the state's memory."""
        return self.layout.take(jax.device_get(self.policy(state.algorithm)))


def choose_segments(epochs: int, wanted: int | None, *, stops: Sequence[int] = ()) -> int:
    """The number of segments of a run: ``wanted``, or by default the number nearest to 20 that divides the epochs.

    Args:
      epochs: of the run.
      wanted: by the user; None to choose.
      stops: epochs at which a segment must end.

    Raises:
      UserError: ``wanted`` does not divide the epochs; names the nearest numbers that do.
    """
    common = math.gcd(epochs, *stops)
    fitting = [epochs // length for length in range(1, common + 1) if common % length == 0]
    nearest = sorted(fitting, key=lambda n: abs(math.log(n / (wanted or DEFAULT_SEGMENTS))))
    if wanted is not None and wanted not in fitting:
        near = " or ".join(map(str, sorted(nearest[:2])))
        are = "is" if len(fitting) == 1 else "are"
        what = f"{epochs} epochs" if epochs % wanted else f"{epochs} epochs so that checkpoints fall between segments"
        raise UserError(f"--segments: {wanted} does not divide the {what}; the nearest {are} {near}")
    return nearest[0]


def shapes_of_run(config: Config) -> RunnerState:
    """Shapes and types of the state of one run; compiles nothing."""
    return jax.eval_shape(make_program(config).init, config.hparams(), run_key(np.uint32(0), np.uint32(0)))


def seeds_of(config: Config) -> Population:
    """The population of a config: its seeds, all with its hyper-parameters."""
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
    keep: bool = False,
) -> Training:
    """Trace, lower and compile a program; its parts compile in parallel.

    If the runs leave a core free, the final evaluation compiles last, while the first segments already run. (Not on a
    GPU: XLA times candidate kernels there, and a run beside it would disturb the timing.)

    Args:
      config: only its static part is used.
      population: an example; every population that this program trains has as many runs.
      segments: number of calls of ``segment``; divides the epochs.
      batch_size: see ``lay_out``.
      devices: see ``lay_out``.
      keep: take the programs from disk if an earlier run has kept them; otherwise write them when all are compiled.
    """
    start = time.perf_counter()
    with collector_paused():
        program = make_program(config)
        layout = lay_out(len(population.seed), devices=devices, batch_size=batch_size)
        file = kept.place_of(config, layout, segments) if keep else None
        found = kept.load(file, layout)
    if found:
        ready = (found.init, found.segment, Compiling.compiled(found.finish))
        seconds = time.perf_counter() - start
        return Training(layout, segments, *ready, program.algorithm.policy, seconds, found.state)
    epochs = program.plan.epochs // segments
    hparams, *place = layout.put(population)

    def init(hparams: HParams, place: Any) -> RunnerState:
        return program.init(hparams, run_key(*place))

    def segment(hparams: HParams, state: RunnerState) -> tuple[RunnerState, EpochRow]:
        return program.segment(hparams, state, epochs)

    mapped_init = map_runs(init, layout)
    with collector_paused():
        state = jax.eval_shape(mapped_init, hparams, place)
    compiled_init, compiled_segment, finish = _compile_parts(
        layout,
        (mapped_init, hparams, place),
        (map_runs(segment, layout, in_place=True), hparams, state),
        (map_runs(program.finish, layout), hparams, state),
        keeping := kept.Keeping(file, state),
    )
    return Training(
        layout=layout,
        segments=segments,
        init=compiled_init,
        segment=compiled_segment,
        finish=finish,
        policy=program.algorithm.policy,
        first_seconds=time.perf_counter() - start,
        state=state,
        keeping=keeping,
    )


def _compile_parts(
    layout: Layout, init: Any, segment: Any, finish: Any, keeping: kept.Keeping
) -> tuple[Any, Any, Compiling]:
    """Compile ``(function, *arguments)`` of each part; the last may still be compiling when this returns.

    Whichever is compiled last writes what is kept, in its thread: a run that is interrupted finds it when it goes on.
    """

    def compile_part(name: str, lowered: Lowered) -> Any:
        return keeping.pack(name, compile_lowered(lowered, layout.platform, once=name != "segment"))

    def compile_finish() -> Any:
        return compile_part("finish", lower_runs(*finish))

    def submit(task: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        job = pool.submit(task, *arguments)
        job.add_done_callback(lambda _: keeping.write())  # those who wait for the job do not wait for this
        return job

    pool = ThreadPoolExecutor()
    try:  # lowering is Python's work, so it stays in this thread; the first compiles beside the lowering of the second
        init_job = submit(compile_part, "init", lower_runs(*init))
        segment_job = submit(compile_part, "segment", lower_runs(*segment))
        behind = layout.platform == "cpu" and usable_cores() > len(layout.devices)
        ahead = None if behind else submit(compile_finish)
        parts = init_job.result(), segment_job.result()
        if ahead:
            ahead.result()
        return *parts, Compiling(ahead or submit(compile_finish))
    finally:
        pool.shutdown(wait=False)
