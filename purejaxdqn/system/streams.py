"""Commands continue if standard streams are closed, or if the program that reads standard error ends."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Discard what is written to closed streams, and to a standard error that nobody reads any more.

    A closed stream would leave its number to the next file that is opened, and libraries would write into that.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    with contextlib.ExitStack() as opened:
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                setattr(sys, name, opened.enter_context(open(os.devnull, mode, encoding="utf-8")))
        stderr: Any = _Lasting(sys.stderr)
        sys.stderr = stderr
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = before


class _Lasting:
    """A text stream that discards its text once it cannot be written to: a pipe without a reader, a closed terminal."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text; returns its length."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # what is still buffered goes there too, at the process's end
            os.close(nowhere)
