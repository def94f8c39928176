"""Ctrl-C and SIGTERM: taken note of at once, obeyed between segments."""

import contextlib
import os
import signal
from types import FrameType, TracebackType


class Stopped(Exception):
    """The user asked to stop; ``exit_code`` is 130 after Ctrl-C and 143 after SIGTERM."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class StopSignals:
    """Context manager that notes the first signal; a second one ends the process at once.

    A handler of our own, as a ``KeyboardInterrupt`` raised inside a library's callback may be swallowed there.
    """

    def __enter__(self) -> "StopSignals":
        self._received: int | None = None
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self._received is not None

    def check(self) -> None:
        """Raise ``Stopped`` if a signal came."""
        if self._received is not None:
            raise Stopped(self._received)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._received = signum
        for number in self._before:
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # not by print: the signal may have come in the middle of one
            os.write(2, f"{signal.Signals(signum).name}: stopping after this segment; again, and at once\n".encode())
