"""What a run writes and shows while it trains: ``metrics.csv``, ``timing.csv``, other logs, progress."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from purejaxdqn.core.config import Config
from purejaxdqn.runs.loggers import open_loggers
from purejaxdqn.runs.metrics import COLUMNS, CsvFile, Metrics, csv_rows, write_csv
from purejaxdqn.runs.progress import RunProgress
from purejaxdqn.runs.snapshots import Snapshot
from purejaxdqn.system.status import Status

TIMING_COLUMNS = ("env_step", "wall_seconds")
_Rows = Callable[[Metrics], Iterable[Iterable[str]]]


class Journal:
    """Context manager; call ``write`` after each segment.

    The files of a resumed run are first cut back to its snapshot: rows after it are written again.
    """

    def __init__(self, folder: Path, config: Config, *, resumed: bool, snapshot: Snapshot | None, quiet: bool):
        self._folder, self._config = folder, config
        self._resumed, self._snapshot, self._quiet = resumed, snapshot, quiet
        self._before = snapshot.run_seconds if snapshot else 0.0

    def __enter__(self) -> "Journal":
        self._start = time.perf_counter()
        self._closing = contextlib.ExitStack()
        with self._closing as closing:  # if one cannot be opened, those before it are closed
            done = self._snapshot.env_step if self._snapshot else 0
            timing = closing.enter_context(
                CsvFile(self._folder / "timing.csv", TIMING_COLUMNS, _timing_until(self._folder / "timing.csv", done))
            )
            self._files: list[tuple[CsvFile, _Rows]] = [(timing, self._timing_rows)]
            if "csv" in self._config.log:
                rows = csv_rows(self._snapshot.metrics) if self._snapshot else ()
                file = closing.enter_context(CsvFile(self._folder / "metrics.csv", COLUMNS, rows))
                self._files.append((file, csv_rows))
            with Status("opening the logs", quiet=self._quiet):
                self._loggers = open_loggers(self._config, self._folder, done=done if self._resumed else None)
            for logger in self._loggers:
                closing.callback(logger.close)
            self._progress = closing.enter_context(RunProgress(self._config, done=done, quiet=self._quiet))
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.close_progress()
        with Status("closing the logs", quiet=self._quiet):
            self._closing.close()

    @property
    def seconds(self) -> float:
        """Since the run's first segment began, without the time between a stop and a resume."""
        return self._before + time.perf_counter() - self._start

    def write(self, part: Metrics) -> None:
        """Write the rows of a segment [S, T]."""
        for file, rows_of in self._files:
            file.write(rows_of(part))
        for logger in self._loggers:
            logger.write(part)
        self._progress.update(part)

    def close_progress(self) -> None:
        """Show no more progress."""
        self._progress.close()

    def finish(self, metrics: Metrics, summary: Mapping[str, Any]) -> None:
        """Write ``metrics.csv`` as a whole, [S, T], if it was not among the logs; give the other logs the results."""
        if "csv" not in self._config.log:
            write_csv(self._folder / "metrics.csv", COLUMNS, csv_rows(metrics))
        for logger in self._loggers:
            logger.finish(summary)

    def _timing_rows(self, part: Metrics) -> Iterable[Iterable[str]]:
        return [(str(part.env_step[0, -1]), f"{self.seconds:.3f}")]


def _timing_until(path: Path, env_step: int) -> Iterator[list[str]]:
    """The complete rows of a ``timing.csv`` up to ``env_step``; none if there is no such file."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[1:-1]:
        step, _, seconds = line.partition(",")
        if step.isdigit() and int(step) <= env_step and seconds.replace(".", "", 1).isdigit():
            yield [step, seconds]
