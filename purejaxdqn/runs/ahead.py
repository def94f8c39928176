"""What a run needs at its end, prepared while it trains."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any


class Ahead:
    """Jobs that a thread does in the background, such as slow imports. Call ``wait`` before their results are needed.

    A failure is not reported: the code that needs the result does the job again, and fails there.
    """

    def __init__(self, *jobs: Callable[[], Any]):
        self._thread = threading.Thread(target=self._work, args=(jobs,))
        self._thread.start()

    def wait(self) -> None:
        """Return when all jobs are done."""
        self._thread.join()

    def _work(self, jobs: tuple[Callable[[], Any], ...]) -> None:
        for job in jobs:
            with contextlib.suppress(Exception):
                job()
