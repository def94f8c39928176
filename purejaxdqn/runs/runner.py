"""A run from its first segment, or from a checkpoint, to the files it leaves."""

import contextlib
import errno
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from purejaxdqn.core.config import Config
from purejaxdqn.core.plan import make_plan
from purejaxdqn.environments.registry import SOLVED_AT
from purejaxdqn.policies.policies import save_policy
from purejaxdqn.runs import rundir
from purejaxdqn.runs.checkpoints import Checkpoints
from purejaxdqn.runs.debugging import Debugger, FoundNan
from purejaxdqn.runs.divergence import Watch
from purejaxdqn.runs.journal import Journal
from purejaxdqn.runs.metrics import metrics_from_rows
from purejaxdqn.runs.resuming import newest_snapshot, set_aside
from purejaxdqn.runs.snapshots import Snapshot, check_state, fetch_state, place_state, save_snapshot
from purejaxdqn.runs.training import choose_segments, compile_training, finish_training, run_segments, seeds_of
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import in_use, storage_faults
from purejaxdqn.system.signals import StopSignals


class Start(NamedTuple):
    """Where a run begins."""

    folder: Path
    config: Config
    resume: bool
    snapshot: Snapshot | None  # to go on from
    checkpoints: Checkpoints
    segments: int
    segment_epochs: int


@contextlib.contextmanager
def open_run(folders: Iterable[Path], config: Config, *, segments: int | None) -> Iterator[Start]:
    """Check all that can be checked, then make the first of ``folders`` that is not there; it stays this process's own.

    Raises:
      UserError: the directory or the number of segments will not do.
      StorageError: the disk is full.
    """
    segments, segment_epochs = _choose_segments(config, segments, None)
    folder = rundir.create_directory(folders, config)
    with storage_faults(folder), in_use(folder):
        checkpoints = Checkpoints(folder / "checkpoints", keep=config.checkpoint.keep)
        yield Start(folder, config, False, None, checkpoints, segments, segment_epochs)


@contextlib.contextmanager
def reopen_run(folder: Path, config: Config, *, segments: int | None) -> Iterator[Start]:
    """Check all that can be checked, then take a run directory over; it stays this process's own.

    Raises:
      UserError: the directory, a checkpoint in it or the number of segments will not do.
      StorageError: the disk is full.
    """
    checkpoints = Checkpoints(folder / "checkpoints", keep=config.checkpoint.keep)
    with contextlib.ExitStack() as held, storage_faults(folder):
        with _refusing_denied(folder):
            held.enter_context(in_use(folder))
            snapshot, refused = newest_snapshot(checkpoints, config)
            if snapshot:
                check_state(snapshot)
            segments, segment_epochs = _choose_segments(config, segments, snapshot)
            if snapshot:  # only now: a run that is refused is left as it is
                set_aside(checkpoints, refused, sound=snapshot.env_step)
            rundir.write_config(folder, config)
        yield Start(folder, config, True, snapshot, checkpoints, segments, segment_epochs)


@contextlib.contextmanager
def _refusing_denied(folder: Path) -> Iterator[None]:
    """Turn what the system denies, before anything was done, into a ``UserError``."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(f"--resume: a run cannot go on in {folder}: {error.strerror}") from error


def run(
    start: Start,
    stop: StopSignals,
    *,
    batch_size: int | None,
    debug_nans: bool,
    quiet: bool,
    import_seconds: float,
) -> dict[str, Any]:
    """Compile, run, save; returns the summary.

    Raises:
      Stopped: a signal came; what can be gone on from has been saved.
      StorageError: the disk is full.
      FoundNan: asked to debug NaNs, it found one.
    """
    config, snapshot, solved_at = start.config, start.snapshot, SOLVED_AT.get(start.config.env.id)
    seeds = seeds_of(config)
    training = compile_training(config, seeds, segments=start.segments, batch_size=batch_size)
    stop.check()
    print(f"compiled in {training.compile_seconds:.1f} s", file=sys.stderr)
    start.checkpoints.open()
    watch = Watch(config.num_seeds)
    state: Any = None
    if snapshot:
        state = place_state(snapshot.state, training)
        watch.look(snapshot.metrics, training.fetch_policy(state))
    debugger = Debugger(config, training, seeds, segment_epochs=start.segment_epochs) if debug_nans else None
    if debugger and snapshot:
        debugger.keep(state)
    done = training.segments if watch.all_diverged else snapshot.epochs // start.segment_epochs if snapshot else 0
    coming = run_segments(training, seeds, state=state, start=done)
    # The compiler is waited for in here, where a second signal still ends the process at once.
    with (
        training.finish,
        Journal(start.folder, config, goes_on=start.resume, snapshot=snapshot, quiet=quiet) as journal,
    ):
        for state, rows in coming:
            part = metrics_from_rows(rows, solved_at=solved_at)
            journal.write(part)
            diverged = watch.look(part, training.fetch_policy(state))
            if debugger:
                if diverged:
                    raise FoundNan(debugger.find(diverged[0]))
                debugger.keep(state)
            if _is_due(config, int(part.env_step[0, -1])) or stop.asked or watch.all_diverged:
                # Without a name, or what was fetched would stand beside the state until the next checkpoint.
                save_snapshot(
                    start.checkpoints,
                    Snapshot(
                        fetch_state(state, training.layout),
                        journal.metrics,
                        config,
                        start.segment_epochs,
                        journal.seconds,
                    ),
                )
                stop.check()  # only here: a signal that comes after it was asked for is obeyed a segment later
            if watch.all_diverged:
                break
        waited = training.finish.waited
        outcome = finish_training(training, seeds, state)
        stop.check()
        run_seconds = journal.seconds - (training.finish.waited - waited)
        summary = rundir.summarise(
            config, journal.metrics, outcome, training, import_seconds=import_seconds, run_seconds=run_seconds
        )
        journal.finish()
    save_policy(start.folder, outcome.params)
    rundir.draw_run(start.folder, journal.metrics, config)
    rundir.write_summary(start.folder, summary)  # the last, as it says that the run is finished
    return summary


def _choose_segments(config: Config, asked: int | None, snapshot: Snapshot | None) -> tuple[int, int]:
    """How many, and of how many epochs: such that checkpoints, old and new, fall between them."""
    epochs = make_plan(config).epochs
    stops = []
    if config.checkpoint.every and config.evaluation.every:
        stops.append(config.checkpoint.every // config.evaluation.every)
    if snapshot:
        stops.append(snapshot.epochs)
        same = snapshot.segment_epochs  # the program that ran before needs no compiling
        if asked is None and all(n % same == 0 for n in (epochs, *stops)):
            asked = epochs // same
    segments = choose_segments(epochs, asked, stops=stops)
    return segments, epochs // segments


def _is_due(config: Config, env_step: int) -> bool:
    every, learned = config.checkpoint.every, env_step - config.schedule.warmup
    return env_step == config.total_timesteps or bool(every and learned % every == 0)
