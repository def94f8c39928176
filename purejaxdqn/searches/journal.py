"""Optuna's journal in a file, safe from what a kill or a full disk leaves behind: a lock, and a torn last line."""

import contextlib
import json
import mmap
import os
import time
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from purejaxdqn.system.messages import tell

_GRACE = 30.0
"""Seconds after which a lock that has not changed counts as left by a kill; it is held for milliseconds."""
_START = b'{"op_code"'
"""The first bytes of every line that Optuna writes."""
_CHECKSUM = "crc32"
"""The key of a line's checksum. Optuna ignores keys that it does not know."""


def open_journal(path: Path) -> JournalStorage:
    """Open a journal, or make it.

    Raises:
      ValueError: there is another kind of file.
      OSError: the file cannot be opened.
    """
    path = path.resolve()
    if path.exists():
        if not path.is_file():
            raise ValueError("it is not a file")
        with path.open("rb") as file:
            if file.read(len(_START)) not in (b"", _START):
                raise ValueError("it is not a journal of Optuna")
    return JournalStorage(_CheckedFile(str(path), lock_obj=_JournalLock(str(path))))


class _CheckedFile(JournalFileBackend):
    """A journal whose lines carry a checksum; lines without one (of Optuna itself, or earlier versions) are taken."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines, each with its checksum."""
        super().append_logs([{**log, _CHECKSUM: _checksum(log)} for log in logs])

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Read the lines from a number on.

        Raises:
          ValueError: the checksum of a line is wrong.
        """
        for number, log in enumerate(super().read_logs(log_number_from), start=log_number_from + 1):
            written = log.pop(_CHECKSUM, None)
            if written is not None and written != _checksum(log):
                raise ValueError(f"line {number} is damaged: its checksum is wrong")
            yield log


def _checksum(log: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(log, sort_keys=True).encode())


class _JournalLock(JournalFileSymlinkLock):
    """A symbolic link beside the journal, as other tools of Optuna make it. With the lock, the last line is complete.

    Optuna's own lock looks at the file that the link points to. It waits forever if there is none: a relative path is
    then taken from the folder of the link.
    """

    def __init__(self, path: str):
        super().__init__(path)
        self._path, self._link = Path(path), Path(f"{path}.lock")

    def acquire(self) -> bool:
        """Wait for the lock, or take over one that a kill has left."""
        seen, since = None, time.monotonic()
        while not self._try():
            found = self._state()
            if found != seen:
                seen, since = found, time.monotonic()
            elif time.monotonic() - since > _GRACE:
                tell(f"warning: {self._link} was left by a kill, and is removed")
                with contextlib.suppress(RuntimeError):  # another process was faster
                    self.release()
            time.sleep(0.01)
        try:
            _mend_last_line(self._path)
        except BaseException:
            self.release()
            raise
        return True

    def _try(self) -> bool:
        try:
            os.symlink(self._path, self._link)
        except FileExistsError:
            return False
        return True

    def _state(self) -> tuple[int, int] | None:
        """A value that differs for each holder of the lock; None if it is free."""
        try:
            found = self._link.lstat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns


def _mend_last_line(path: Path) -> None:
    """Complete the last line, or remove it if it is no JSON: whatever is written behind it could not be read."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            start = text.rfind(b"\n", 0, size - 1) + 1
            line = text[start:]
        try:
            json.loads(line)
        except ValueError:
            file.truncate(start)
            tell(f"warning: {path}: its last line was not written completely, and is removed")
        else:
            file.write(b"" if line.endswith(b"\n") else b"\n")
