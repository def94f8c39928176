"""Writes TensorBoard's events."""

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purejaxdqn.core.config import Config
from purejaxdqn.runs.log_values import FINAL, SPEED, final_values, hyper_parameters, points
from purejaxdqn.runs.metrics import Metrics


class TensorBoard:
    """Events in ``tensorboard/``; those of a resumed run hide the events after its checkpoint.

    The hyper-parameters are for the tab HPARAMS, with the final score and the speed beside them. Events are written
    synchronously: tensorboardX's own writer uses a thread, and blocks forever if that has failed.
    """

    def __init__(self, folder: Path, config: Config, *, done: int | None):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import hparams

        self._folder = folder / "tensorboard"
        self._folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(self._folder / "events"))
        self._event = Event
        self._step = done or 0
        if done is not None:
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=done + 1, session_log=start))
        experiment, session, self._end = hparams(hyper_parameters(config), dict.fromkeys((FINAL, SPEED)))
        for summary in (experiment, session):
            self._writer.write_event(Event(wall_time=time.time(), step=0, summary=summary))
        self._writer.flush()

    @property
    def where(self) -> str:
        """The directory of the events, and what shows them."""
        return f"{self._folder} (tensorboard --logdir {shlex.quote(str(self._folder))})"

    def write(self, part: Metrics) -> None:
        """Write the rows of a segment and flush."""
        for step, values in points(part):
            self._write(step, values)
        self._writer.flush()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the final score and the speed, at the last step, and that the run has succeeded."""
        self._write(self._step, final_values(summary))
        self._writer.write_event(self._event(wall_time=time.time(), step=self._step, summary=self._end))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        event = self._event(wall_time=time.time(), step=step)
        for tag, value in values.items():
            event.summary.value.add(tag=tag, simple_value=value)
        self._writer.write_event(event)
        self._step = step
