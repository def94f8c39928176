"""Live logs in addition to ``metrics.csv``: TensorBoard and Weights & Biases, per seed and as the mean over seeds.

A logger that fails prints one warning and is not used again; it never stops a run.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from purejaxdqn.core.config import Config
from purejaxdqn.runs.metrics import Metrics
from purejaxdqn.system.faults import UserError, reason_of
from purejaxdqn.system.files import write_text
from purejaxdqn.system.messages import tell

_MODULES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


class Logger(Protocol):
    """Receives the rows of a run while it trains."""

    def write(self, part: Metrics) -> None:
        """Log the rows of a segment [S, T]."""

    def close(self) -> None:
        """Release everything; called at the end of the run, however it ends."""


def check_loggers(config: Config) -> None:
    """Refuse loggers whose package is missing.

    Raises:
      UserError: says how to install it.
    """
    missing = [name for name in config.log if name in _MODULES and find_spec(_MODULES[name]) is None]
    if missing:
        lines = [f"log: {name} needs {_MODULES[name]}: pip install 'purejaxdqn[{name}]'" for name in missing]
        raise UserError(*lines)


def open_loggers(config: Config, folder: Path, *, done: int | None) -> list[Logger]:
    """The loggers named in ``config.log``, without ``csv``, which the journal writes itself.

    Args:
      config: the run's.
      folder: the run directory.
      done: the environment step from which the run is resumed, None for a new run.
    """
    makers: dict[str, Callable[[], Logger]] = {
        "tensorboard": lambda: TensorBoard(folder, done=done),
        "wandb": lambda: WeightsAndBiases(folder, config),
    }
    return [Guarded(name, makers[name]) for name in config.log if name in makers]


class Guarded:
    """A logger that cannot stop a run: its first failure prints a warning, and it is not used again."""

    def __init__(self, name: str, make: Callable[[], Logger]):
        self._name = name
        self._logger: Logger | None = None
        self._try(lambda: setattr(self, "_logger", make()))

    def write(self, part: Metrics) -> None:
        """Log the rows of a segment, unless the logger has failed before."""
        if self._logger:
            self._try(lambda: self._logger.write(part))  # type: ignore[union-attr]

    def close(self) -> None:
        """Close the logger, unless it has failed before."""
        if self._logger:
            self._try(self._logger.close)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # a library may raise anything
            self._logger = None
            tell(f"warning: log: {self._name} failed and is not used any more: {reason_of(error)}")


class TensorBoard:
    """Events in ``tensorboard/``; those of a resumed run hide the events after its checkpoint.

    Events are written synchronously: tensorboardX's own writer uses a thread, and blocks forever if that has failed.
    """

    def __init__(self, folder: Path, *, done: int | None):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        place = folder / "tensorboard"
        place.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(place / "events"))
        self._event = Event
        if done is not None:
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=done + 1, session_log=start))
            self._writer.flush()

    def write(self, part: Metrics) -> None:
        """Write the rows of a segment and flush."""
        for step, values in points(part):
            event = self._event(wall_time=time.time(), step=step)
            for tag, value in values.items():
                event.summary.value.add(tag=tag, simple_value=value)
            self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run in Weights & Biases, online or offline according to its environment variables (``WANDB_MODE``).

    Its files are in ``wandb/``; a resumed run keeps its name.
    """

    def __init__(self, folder: Path, config: Config):
        import wandb

        place = folder / "wandb"
        place.mkdir(exist_ok=True)
        note = place / "run_id"
        if not note.exists():
            write_text(note, uuid.uuid4().hex)
        self._run = wandb.init(
            project="purejaxdqn",
            dir=folder,
            id=note.read_text(encoding="utf-8"),
            resume="allow",
            name=folder.name,
            config=config.model_dump(),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("env_step")
        self._run.define_metric("*", step_metric="env_step")

    def write(self, part: Metrics) -> None:
        """Log the rows of a segment."""
        for step, values in points(part):
            self._run.log({"env_step": step, **values})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def points(part: Metrics) -> Iterator[tuple[int, dict[str, float]]]:
    """For each epoch its environment step, and the values that are known: ``metric/seed_0``... and ``metric/mean``."""
    columns = part._asdict()
    steps = columns.pop("env_step")[0]
    for epoch, step in enumerate(steps):
        values: dict[str, float] = {}
        for name, column in columns.items():
            known = {seed: float(value) for seed, value in enumerate(column[:, epoch]) if not np.isnan(value)}
            values |= {f"{name}/seed_{seed}": value for seed, value in known.items()}
            if known:
                values[f"{name}/mean"] = float(np.mean(list(known.values())))
        yield int(step), values
