"""Live logs in addition to ``metrics.csv``: TensorBoard and Weights & Biases, per seed and as the mean over seeds.

A logger that fails prints one warning and is not used again; it never stops a run.
"""

import shlex
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from purejaxdqn.core.config import Config
from purejaxdqn.environments.importing import is_installed
from purejaxdqn.runs.log_values import final_values, points
from purejaxdqn.runs.metrics import Metrics
from purejaxdqn.runs.tensorboard import TensorBoard
from purejaxdqn.system.faults import UserError, reason_of
from purejaxdqn.system.files import write_text
from purejaxdqn.system.messages import tell

_MODULES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


class Logger(Protocol):
    """Receives the rows of a run while it trains."""

    @property
    def where(self) -> str:
        """Where the log is, and how to see it."""

    def write(self, part: Metrics) -> None:
        """Log the rows of a segment [S, T]."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Log the results of a run that has reached its end, as in ``summary.json``."""

    def close(self) -> None:
        """Release everything; called at the end of the run, however it ends."""


def check_loggers(config: Config) -> None:
    """Refuse loggers whose package is missing.

    Raises:
      UserError: says how to install it.
    """
    missing = [name for name in config.log if name in _MODULES and not is_installed(_MODULES[name])]
    if missing:
        lines = [f"log: {name} needs {_MODULES[name]}: pip install 'purejaxdqn[{name}]'" for name in missing]
        raise UserError(*lines)


def open_loggers(config: Config, folder: Path, *, done: int | None) -> list["Guarded"]:
    """The loggers named in ``config.log``, without ``csv``, which the journal writes itself; says where each writes.

    Args:
      config: the run's.
      folder: the run directory.
      done: the environment step from which the run is resumed, None for a new run.
    """
    makers: dict[str, Callable[[], Logger]] = {
        "tensorboard": lambda: TensorBoard(folder, config, done=done),
        "wandb": lambda: WeightsAndBiases(folder, config),
    }
    return [Guarded(name, makers[name]) for name in config.log if name in makers]


class Guarded:
    """A logger that cannot stop a run: its first failure prints a warning, and it is not used again."""

    def __init__(self, name: str, make: Callable[[], Logger]):
        self._name = name
        self._logger: Logger | None = None
        self._try(lambda: setattr(self, "_logger", make()))
        self._use(lambda logger: tell(f"log: {name} writes to {logger.where}"))

    def write(self, part: Metrics) -> None:
        """Log the rows of a segment, unless the logger has failed before."""
        self._use(lambda logger: logger.write(part))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Log the results, unless the logger has failed before."""
        self._use(lambda logger: logger.finish(summary))

    def close(self) -> None:
        """Close the logger, unless it has failed before."""
        self._use(lambda logger: logger.close())

    def _use(self, action: Callable[[Logger], Any]) -> None:
        logger = self._logger
        if logger:
            self._try(lambda: action(logger))

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # a library may raise anything
            self._logger = None
            tell(f"warning: log: {self._name} failed and is not used any more: {reason_of(error)}")


class WeightsAndBiases:
    """A run in Weights & Biases, online or offline according to its environment variables (``WANDB_MODE``).

    The config is the run's; its final score and speed are in the summary. Its files are in ``wandb/``; a resumed run
    keeps its name.
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

    @property
    def where(self) -> str:
        """The page of the run, or its files and the command that uploads them."""
        if self._run.url:
            return self._run.url
        place = Path(self._run.dir).parent
        return f"{place} (wandb sync {shlex.quote(str(place))})"

    def write(self, part: Metrics) -> None:
        """Log the rows of a segment."""
        for step, values in points(part):
            self._run.log({"env_step": step, **values})

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Put the final score and the speed into the run's summary."""
        self._run.summary.update(final_values(summary))

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
