"""Ctrl-C, SIGTERM and SIGHUP (a closed terminal): noted when they arrive, obeyed between two segments."""

import contextlib
import os
import signal
from types import FrameType, TracebackType
from typing import Any


class Stopped(Exception):
    """A signal stops the process; ``exit_code`` is 128 plus its number: 130 after Ctrl-C."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class StopSignals:
    """Context manager that notes the first signal; a second one ends the process immediately.

    Except SIGHUP: shell and system may each send one for the same closed terminal. With ``nohup`` it stays ignored.

    It installs a handler because a library's callback may swallow a ``KeyboardInterrupt`` that is raised inside it.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def received(self) -> bool:
        """Whether a signal has arrived."""
        return self._received is not None

    def check(self) -> None:
        """Raise ``Stopped`` if a signal has arrived."""
        if self._received is not None:
            raise Stopped(self._received)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._received = signum
        for number in self._before:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
        message = f"{signal.Signals(signum).name}: stopping after this segment; send it again to stop immediately\n"
        with contextlib.suppress(OSError):  # not print: the signal may have interrupted one
            line = "\r\x1b[K" if os.isatty(2) else ""  # in place of the phase that is shown
            os.write(2, f"{line}{message}".encode())
