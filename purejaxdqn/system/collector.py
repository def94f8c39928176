"""Python's garbage collector is paused where many objects are made that stay: while modules are imported, and traced.

A full collection visits every object there is, and JAX and its libraries bring very many that are never garbage.
"""

import contextlib
import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path


class _Pauses:
    """The pauses that are open, in all threads: the first stops the collector, and the end of the last restarts it."""

    def __init__(self) -> None:
        self._lock, self._open, self._enabled = threading.Lock(), 0, False

    def begin(self) -> None:
        with self._lock:
            if not self._open:
                self._enabled = gc.isenabled()
                gc.disable()
            self._open += 1

    def end(self) -> None:
        with self._lock:
            self._open -= 1
            if not self._open and self._enabled:
                gc.enable()


_PAUSES = _Pauses()


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the collector in this block, for all threads: keep the block short."""
    _PAUSES.begin()
    try:
        yield
    finally:
        _PAUSES.end()


class _Start:
    """The start of a command, before which its modules are imported; a process has one at most."""

    def __init__(self) -> None:
        self._paused = self._over = False

    def pause(self) -> None:
        """Pause the collector until ``end``, if this process is a command of this package that has not started yet."""
        module = getattr(sys.modules["__main__"], "__spec__", None)
        name = module.name if module else Path(sys.argv[0]).name
        if name.split(".")[0] == "purejaxdqn" and not self._paused and not self._over:
            _PAUSES.begin()
            self._paused = True

    def end(self) -> None:
        """End the pause if there is one, and let the collector leave alone what has been made so far."""
        if self._paused:
            gc.freeze()
            _PAUSES.end()
        self._paused, self._over = False, True


START = _Start()
