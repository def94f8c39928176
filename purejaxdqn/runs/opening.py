"""Open the directory of a run, new or existing, and decide where its training begins."""

import contextlib
import errno
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from purejaxdqn.config.reading import CONFIG_FILE
from purejaxdqn.core.config import Config, value_at
from purejaxdqn.core.plan import make_plan
from purejaxdqn.runs import directory
from purejaxdqn.runs.checkpoints import Checkpoints
from purejaxdqn.runs.resuming import newest_snapshot, set_aside
from purejaxdqn.runs.snapshots import Snapshot, check_state
from purejaxdqn.runs.training import choose_segments
from purejaxdqn.system.directories import lock_directory
from purejaxdqn.system.faults import UserError, resumable
from purejaxdqn.system.files import storage_faults
from purejaxdqn.system.status import Status


class OpenRun(NamedTuple):
    """A run whose directory this process holds."""

    folder: Path
    config: Config
    resumed: bool
    snapshot: Snapshot | None  # to continue from
    checkpoints: Checkpoints
    segments: int
    segment_epochs: int


@contextlib.contextmanager
def open_run(folders: Iterable[Path], config: Config, *, segments: int | None) -> Iterator[OpenRun]:
    """Check what can be checked, then make the first of ``folders`` that does not exist, and hold it.

    Raises:
      UserError: the directory or the number of segments is refused.
      StorageError: the disk is full.
    """
    segments, segment_epochs = _choose_segments(config, segments, None)
    folder = directory.create_directory(folders, config)
    with _resumable(folder), storage_faults(folder), lock_directory(folder):
        checkpoints = Checkpoints(folder / "checkpoints", keep=config.checkpoint.keep)
        yield OpenRun(folder, config, False, None, checkpoints, segments, segment_epochs)


@contextlib.contextmanager
def reopen_run(folder: Path, config: Config, *, segments: int | None, quiet: bool = False) -> Iterator[OpenRun]:
    """Check what can be checked, then hold an existing run directory, ready to be resumed.

    Args:
      folder: the run directory.
      config: with which it continues.
      segments: parts of the run; None to choose.
      quiet: show nothing while the checkpoints are read.

    Raises:
      UserError: the directory, a checkpoint in it or the number of segments is refused.
      StorageError: the disk is full.
    """
    checkpoints = Checkpoints(folder / "checkpoints", keep=config.checkpoint.keep)
    with contextlib.ExitStack() as held:
        held.enter_context(_resumable(folder))
        held.enter_context(storage_faults(folder))
        with _refusing_denied(folder):
            held.enter_context(lock_directory(folder))
            with Status("reading the checkpoints", quiet=quiet):
                snapshot, refused = newest_snapshot(checkpoints, config)
                if snapshot:
                    check_state(snapshot)
            segments, segment_epochs = _choose_segments(config, segments, snapshot)
            if snapshot:  # only now: a run that is refused must not change
                set_aside(checkpoints, refused, sound=snapshot.env_step)
            directory.write_config(folder, config)
        yield OpenRun(folder, config, True, snapshot, checkpoints, segments, segment_epochs)


def _resumable(folder: Path) -> contextlib.AbstractContextManager[None]:
    how = f"to resume: python -m purejaxdqn.train --resume {shlex.quote(str(folder))}"
    return resumable(how, label=folder / CONFIG_FILE)


@contextlib.contextmanager
def _refusing_denied(folder: Path) -> Iterator[None]:
    """Turn missing permissions, before anything was changed, into a ``UserError``."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(f"--resume: the run in {folder} cannot be resumed: {error.strerror}") from error


def _choose_segments(config: Config, wanted: int | None, snapshot: Snapshot | None) -> tuple[int, int]:
    """The number of segments and the epochs of each, so that old and new checkpoints fall between segments."""
    epochs = make_plan(config).epochs
    if wanted is None and value_at(config, "stop.return") is not None:
        wanted = epochs  # so that each evaluation may end the run
    stops = []
    if config.checkpoint.every and config.evaluation.every:
        stops.append(config.checkpoint.every // config.evaluation.every)
    if snapshot:
        stops.append(snapshot.epochs)
        same = snapshot.segment_epochs  # with these, the compiled program is in the cache
        if wanted is None and all(n % same == 0 for n in (epochs, *stops)):
            wanted = epochs // same
    segments = choose_segments(epochs, wanted, stops=stops)
    return segments, epochs // segments
