"""What a command is doing while it has nothing else to show, with the time that it has taken so far."""

import contextlib
import html
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self


class Status:
    """Context manager around a phase such as ``compiling``, shown on standard error or in a notebook's cell.

    A terminal and a notebook show one line, which counts seconds and is gone afterwards. Elsewhere a long phase gets a
    line every ten seconds. A library may hold the interpreter in between, so the line may lag. Of phases inside each
    other, the innermost is shown.
    """

    def __init__(self, text: str, *, quiet: bool = False):
        self._text = text
        self._screen = None if quiet else _screen()

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        if self._screen:
            with _LOCK:
                _OPEN.append(self)
                if self._screen.at_once:
                    self._show()
            self._ticker = Ticker(self._screen.every, self._show)
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._screen is None:
            return
        self._ticker.stop()
        with _LOCK:
            _OPEN.remove(self)
            self._screen.clear()
            if self._screen.at_once and _OPEN:
                _OPEN[-1]._show()

    def _show(self) -> None:
        seconds = round(time.perf_counter() - self._start)
        with _LOCK:
            if self._screen and _OPEN[-1] is self:
                self._screen.show(self._text, f" ({seconds} s)" if seconds else "")


_LOCK = threading.RLock()
_OPEN: list[Status] = []
"""The phases that are shown, the innermost last."""


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Take the line of a phase off the screen while the block prints other lines."""
    with _LOCK:
        if _OPEN and (screen := _OPEN[-1]._screen):
            screen.clear()
        yield


class Ticker:
    """Calls a function every few seconds in a thread of its own, from ``start`` until ``stop``."""

    def __init__(self, every: float, tick: Callable[[], None]):
        self._every, self._tick, self._done = every, tick, threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Begin to count; the first call comes after ``every`` seconds."""
        self._thread.start()

    def stop(self) -> None:
        """Wait for a call that is being made; there are no more afterwards."""
        self._done.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._done.wait(self._every):
            self._tick()


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class Cell:
    """A piece of HTML in the output of a notebook's cell, which changes; it needs no widgets."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str) -> None:
        """Show HTML in place of what was there."""
        display = sys.modules["IPython"].display
        if self._handle is None:
            self._handle = display.display(display.HTML(text), display_id=True)
        else:
            self._handle.update(display.HTML(text))

    def clear(self) -> None:
        """Show nothing any more."""
        if self._handle is not None:
            self.show("")


class _Stream:
    """Standard error as it is when the phase begins: a library may replace it for a moment."""

    def __init__(self) -> None:
        self._stream = sys.stderr

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            self._stream.write(text)
            self._stream.flush()


class _Terminal(_Stream):
    every, at_once = 1.0, True

    def show(self, text: str, seconds: str) -> None:
        room = max(shutil.get_terminal_size().columns - 1 - len(seconds), 0)
        self._write(f"\r\x1b[K{text[:room]}{seconds}")

    def clear(self) -> None:
        self._write("\r\x1b[K")


class _Notebook:
    """A cell gets no output from a phase of less than a second, as an output that was cleared still takes up room."""

    every, at_once = 1.0, False

    def __init__(self) -> None:
        self._cell = Cell()

    def show(self, text: str, seconds: str) -> None:
        self._cell.show(html.escape(f"{text}{seconds}"))

    def clear(self) -> None:
        self._cell.clear()


class _Lines(_Stream):
    every, at_once = 10.0, False

    def show(self, text: str, seconds: str) -> None:
        self._write(f"{text}{seconds}\n")

    def clear(self) -> None:
        """Leave the lines."""


def _screen() -> _Terminal | _Notebook | _Lines:
    if is_notebook():
        return _Notebook()
    return _Terminal() if sys.stderr.isatty() else _Lines()
