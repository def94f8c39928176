"""Files that a kill or a full disk cannot leave half-written, and folders that one process at a time works in."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from purejaxdqn.system.faults import UserError


class StorageError(Exception):
    """Something could not be written; says what and why in a line."""


_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextlib.contextmanager
def storage_faults(folder: Path) -> Iterator[None]:
    """Turn what a full or failing disk raises into a ``StorageError``."""
    try:
        yield
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        raise StorageError(f"{error.filename or folder} could not be written: {error.strerror}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write in place of ``path``, which it becomes when the block ends well; else ``path`` stays."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write or replace a text file as a whole."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def is_bare(folder: Path) -> bool:
    """Whether there is nothing in a directory, or only what a kill leaves of making it: hidden files, empty folders."""
    return all(path.name.startswith(".") or (path.is_dir() and not any(path.iterdir())) for path in folder.iterdir())


@contextlib.contextmanager
def in_use(folder: Path, *, option: str = "--resume", process: int | None = None) -> Iterator[None]:
    """Keep other processes out of a directory; the system lets go of it when this one ends, however it ends.

    Args:
      folder: the directory.
      option: that named it, for the message.
      process: the number of this process among several that work in it together, which stay out of each other's number.

    Raises:
      UserError: another process is at work in it.
    """
    handles = [os.open(folder, os.O_RDONLY)]
    try:
        with _refusing_second(folder, option):
            if process is None:
                fcntl.flock(handles[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                # Of its own and open for writing: over NFS a lock for one alone must be.
                handles.append(os.open(folder / f".process-{process}", os.O_RDWR | os.O_CREAT))
                for handle, kind in zip(handles, (fcntl.LOCK_SH, fcntl.LOCK_EX), strict=True):
                    fcntl.flock(handle, kind | fcntl.LOCK_NB)
        yield
    finally:
        for handle in handles:
            os.close(handle)


@contextlib.contextmanager
def _refusing_second(folder: Path, option: str) -> Iterator[None]:
    try:
        yield
    except BlockingIOError as error:
        raise UserError(f"{option}: another process is at work in {folder}") from error
    except OSError:
        pass  # a file system without locks
