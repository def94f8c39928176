"""Directories of results: default names, creation that overwrites nothing, one owner, one process at a time."""

import contextlib
import fcntl
import itertools
import os
import re
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from purejaxdqn.system.faults import UserError, reason_of
from purejaxdqn.system.files import is_utf8, write_text

_FRESH = 10.0
"""Seconds within which a process locks the directory that it is making."""


def default_directories(names: Sequence[str]) -> Iterator[Path]:
    """``runs/<names>/<timestamp>``, then the same with a number, for when the first is taken.

    Args:
      names: joined with ``+``; of a config's path only the name of the file counts.

    Raises:
      UserError: the name of the working directory is not UTF-8.
    """
    parent = Path("runs") / "+".join(Path(name).stem for name in names)
    if not is_utf8(parent.absolute()):
        raise UserError("--out is missing: the name of the working directory is not UTF-8")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    yield parent / stamp
    for n in itertools.count(2):
        yield parent / f"{stamp}-{n}"


def how_to_resume(folder: Path) -> str:
    """How a sweep or search is resumed, for ``resumable``."""
    return f"to resume, run the same command with --out {shlex.quote(str(folder))}"


@contextlib.contextmanager
def default_directory(names: Sequence[str]) -> Iterator[Path]:
    """Make the first default directory that does not exist; remove it afterwards if it is still empty.

    Commands that start in the same second want the same name: the one that makes it first gets it.

    Raises:
      UserError: the directory cannot be made.
    """
    for folder in default_directories(names):
        missing = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"--out: {folder} cannot be made: {error.strerror}") from error
        try:
            yield folder
        finally:
            _remove_empty(missing)
        return


def create_directory(folders: Iterable[Path], fill: Callable[[Path], None], *, kind: str) -> Path:
    """Make the first of ``folders`` that does not exist, with its first files in it; returns it.

    Args:
      folders: to try in order.
      fill: writes the first files into an empty directory.
      kind: of the results, for the message: "run".

    Raises:
      UserError: all of them exist, or one cannot be made.
    """
    for folder in folders:
        if _create(folder, fill):
            return folder
    raise UserError(f"--out: {folder} exists; a {kind} never overwrites one")


def _create(folder: Path, fill: Callable[[Path], None]) -> bool:
    """Fill a directory under another name, then rename it: it never exists without its first files.

    Returns False if ``folder`` exists. Of two processes that want the same name, the one that renames first gets it.
    """
    if os.path.lexists(folder):  # before it gets another name: ``.`` and ``/`` have none
        return False
    missing = [one for one in folder.parents if not os.path.lexists(one)]
    # A random name: a process on another machine that sees the same folder may have this process's number.
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        _remove_left_parts(folder)
        part.mkdir(parents=True)
        with lock_directory(part, option="--out"):
            fill(part)
            part.rename(folder)
    except OSError as error:
        if os.path.lexists(folder):
            return False
        raise UserError(f"--out: {folder} cannot be made: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        _remove_empty(missing)
    return True


def _remove_left_parts(folder: Path) -> None:
    """Remove what kills have left of attempts to make ``folder``: parts that no process holds."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]+\.part")
    with contextlib.suppress(OSError):  # there is no parent yet, or it cannot be listed
        for part in folder.parent.iterdir():
            if pattern.fullmatch(part.name):
                _remove_left_part(part)


def _remove_left_part(part: Path) -> None:
    with contextlib.suppress(OSError):  # it is held, or the file system has no locks
        if time.time() - part.stat().st_mtime > _FRESH:
            handle = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(part, ignore_errors=True)
            finally:
                os.close(handle)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove the directories that are empty; innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def is_bare(folder: Path) -> bool:
    """Whether a directory holds nothing, or only what a kill leaves while it is made: hidden files, empty folders."""
    return all(path.name.startswith(".") or (path.is_dir() and not any(path.iterdir())) for path in folder.iterdir())


@contextlib.contextmanager
def lock_directory(folder: Path, *, option: str = "--resume", process: int | None = None) -> Iterator[None]:
    """Keep other processes out of a directory; the system releases the lock when this process ends, even if killed.

    Args:
      folder: the directory.
      option: the option that named it, for the message.
      process: the number of this process among several that share the directory; each number is locked by itself.

    Raises:
      UserError: another process holds the lock.
    """
    handles = [os.open(folder, os.O_RDONLY)]
    try:
        with _refusing_second(folder, option):
            if process is None:
                fcntl.flock(handles[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                # A file of its own, open for writing: NFS requires that for an exclusive lock.
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
        raise UserError(f"{option}: another process is using {folder}") from error
    except OSError:
        pass  # the file system has no locks


class OwnedDirectory(NamedTuple):
    """A directory that belongs to one sweep or one search, which a file in it describes."""

    folder: Path
    kind: str  # "sweep", for messages
    label: str  # the name of the file that describes the owner
    difference: Callable[[str], str | None]  # text of that file -> how its owner differs from ours; None if it is ours
    subfolders: tuple[str, ...] = ()

    def read_label(self) -> str | None:
        """The text of the label; None if there is no directory yet, or only a bare one.

        Raises:
          UserError: the directory holds something else, or belongs to another owner.
        """
        folder, label = self.folder, self.folder / self.label
        try:
            if not folder.exists() or (folder.is_dir() and is_bare(folder)):
                return None
            if not label.is_file():
                raise UserError(f"--out: {folder} exists and is not a {self.kind}; nothing is overwritten")
            text = label.read_text(encoding="utf-8")
            different = self.difference(text)
        except UserError:
            raise
        except Exception as error:  # a damaged label may raise anything
            raise UserError(f"--out: {folder} cannot be used: {reason_of(error)}") from error
        if different:
            raise UserError(f"--out: {folder} belongs to another {self.kind}: {different}")
        return text

    @contextlib.contextmanager
    def hold(self, make_label: Callable[[], str], *, process: int | None = None) -> Iterator[str]:
        """Make the directory or find it, and keep other processes out of it; yields the text of its label.

        Args:
          make_label: the label of a new directory.
          process: see ``lock_directory``.

        Raises:
          UserError: as for ``read_label``; or the directory is in use, or cannot be made.
        """
        with contextlib.ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(lock_directory(self.folder, option="--out", process=process))
                text = self.read_label()  # another process may have made it in the meantime
                for name in self.subfolders:
                    (self.folder / name).mkdir(exist_ok=True)
                if text is None:
                    text = make_label()
                    write_text(self.folder / self.label, text)
                    self.read_label()  # without locks, another process may have written its own
            except OSError as error:
                raise UserError(f"--out: {self.folder} cannot be made: {error.strerror}") from error
            yield text
