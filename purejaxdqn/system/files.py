"""Files that a kill or a full disk cannot leave half-written."""

import contextlib
import errno
import fcntl
import itertools
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from purejaxdqn.system.faults import StorageError, UserError, reason_of

_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextlib.contextmanager
def storage_faults(folder: Path) -> Iterator[None]:
    """Turn the errors of a full or failing disk into a ``StorageError``."""
    try:
        yield
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        raise StorageError(f"{error.filename or folder} could not be written: {error.strerror}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a new file; it replaces ``path`` when the block succeeds, and ``path`` is unchanged if not.

    Several processes may replace the same file at once: each has a new file of its own.
    """
    part, handle = _make_part(path)
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def is_part_of(name: str, whole: str) -> bool:
    """Whether ``name`` is that of a new file that is to replace one called ``whole``."""
    return re.fullmatch(rf"\.{re.escape(whole)}(\.\d+)?\.part", name) is not None


def _make_part(path: Path) -> tuple[Path, int]:
    """Make an empty file beside ``path`` and lock it, or take over one that a kill has left; returns path and handle.

    The system releases the lock when the handle is closed or the process is killed.
    """
    for number in itertools.count(1):
        part = path.with_name(f".{path.name}.part" if number == 1 else f".{path.name}.{number}.part")
        while True:
            if part.is_symlink():  # to a file elsewhere, in a folder that somebody else made
                part.unlink(missing_ok=True)
            handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another process is writing it
                os.close(handle)
                break
            except OSError:  # the file system has no locks
                pass
            if _is_at(handle, part):
                os.ftruncate(handle, 0)
                return part, handle
            os.close(handle)  # its writer has just finished: it is no new file any more
    raise AssertionError


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is a file of a folder, not a symbolic link to one elsewhere."""
    try:
        return path.is_file() and path.resolve().is_relative_to(folder.resolve())
    except OSError:  # links in a circle
        return False


def write_text(path: Path, text: str) -> None:
    """Write or replace a text file as a whole."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


@contextlib.contextmanager
def refusing_damage(folder: Path) -> Iterator[None]:
    """Turn whatever the damaged files of a directory may raise in the block into a ``UserError``."""
    try:
        yield
    except (UserError, StorageError, OSError, MemoryError):
        raise
    except Exception as error:  # a wrong type, a missing key, a number out of range
        raise UserError(f"{folder} has a damaged file: {type(error).__name__}: {reason_of(error)}") from error


def is_utf8(name: str | Path) -> bool:
    """Whether a name is UTF-8, as the libraries that write checkpoints and pages need it."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def write_json(path: Path, value: Any) -> None:
    """Write or replace a JSON file as a whole; see ``to_json``."""
    write_text(path, to_json(value, indent=2) + "\n")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON text. Numbers that are not finite become null, because JSON has none."""
    return json.dumps(finite(value), indent=indent, allow_nan=False)


def finite(value: Any) -> Any:
    """A value of dicts and lists with None in place of every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value
