"""What a command is doing while it has nothing else to show, with the time that it has taken so far."""

import shutil
import sys
import threading
import time
from types import TracebackType
from typing import Self

_SECONDS = 10.0
"""Between two lines about a phase where there is no terminal."""


class Status:
    """Context manager around a phase such as ``compiling``, shown on standard error.

    A terminal shows one line, which counts seconds and is gone afterwards. Elsewhere a long phase gets a line every
    ten seconds. A library may hold the interpreter in between, so the line may lag.
    """

    def __init__(self, text: str, *, quiet: bool = False):
        self._text, self._quiet = text, quiet
        self._done = threading.Event()
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        if not self._quiet:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._quiet:
            return
        self._done.set()
        self._thread.join()
        if self._terminal:
            _write("\r\x1b[K")

    def _watch(self) -> None:
        if self._terminal:
            self._show()
        while not self._done.wait(1.0 if self._terminal else _SECONDS):
            self._show()

    def _show(self) -> None:
        seconds = time.perf_counter() - self._start
        text = f"{self._text} ({seconds:.0f} s)" if round(seconds) else self._text
        if self._terminal:
            _write(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}")
        else:
            _write(f"{text}\n")


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody reads it any more
        pass
