"""Metrics on the host: from the device's rows to the CSV files of a run and back."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from purejaxdqn.core.config import Config
from purejaxdqn.core.types import EpochRow
from purejaxdqn.environments.registry import SOLVED_AT
from purejaxdqn.system.files import replacing

METRICS_FILE = "metrics.csv"
COLUMNS = (
    "seed_index",
    "env_step",
    "episodes",
    "episode_return",
    "episode_length",
    "eval_return",
    "loss",
    "q_value",
    "epsilon",
    "grad_norm",
    "success_rate",
    "disagreement",
)
_LATER = ("disagreement",)
"""Columns that files and checkpoints of earlier versions lack."""


class Metrics(NamedTuple):
    """The metrics of a population, each [R, T]: runs, epochs. NaN where ``metrics.csv`` is empty."""

    env_step: np.ndarray
    episodes: np.ndarray
    episode_return: np.ndarray
    episode_length: np.ndarray
    eval_return: np.ndarray
    loss: np.ndarray
    q_value: np.ndarray
    epsilon: np.ndarray
    grad_norm: np.ndarray
    success_rate: np.ndarray  # share of the evaluation episodes at or above the solved return
    disagreement: np.ndarray  # of the members of an ensemble: deviation of the greedy action's value


def solved_at(config: Config) -> float | None:
    """The return from which an environment counts as solved, None if there is no accepted one."""
    return SOLVED_AT.get(config.env.id)


def metrics_from_rows(rows: EpochRow, *, solved_at: float | None) -> Metrics:
    """Rows with leaves [R, T] (``eval_returns`` [R, T, N]) as NumPy arrays."""
    values = {name: np.asarray(leaf) for name, leaf in rows._asdict().items()}
    eval_returns, disagreement = values.pop("eval_returns"), values.pop("disagreement")
    if not disagreement.size:  # without an ensemble
        disagreement = np.full(eval_returns.shape[:2], np.nan, np.float32)
    solved = eval_returns >= (np.nan if solved_at is None else solved_at)
    success_rate = np.full(eval_returns.shape[:2], np.nan) if solved_at is None else solved.mean(-1)
    with np.errstate(over="ignore"):
        mean = eval_returns.mean(-1, dtype=np.float32)
    mean = np.where(np.isfinite(mean), mean, eval_returns.mean(-1, dtype=np.float64).astype(np.float32))
    success_rate = success_rate.astype(np.float32)
    return Metrics(**values, eval_return=mean, success_rate=success_rate, disagreement=disagreement)


def stored_metrics(columns: Mapping[str, np.ndarray]) -> Metrics:
    """Metrics of columns [R, T] by name; those that earlier versions did not store are NaN.

    Raises:
      KeyError: another column is missing.
    """
    missing = np.full(columns["loss"].shape, np.nan, np.float32)
    known = {name: columns.get(name, missing) if name in _LATER else columns[name] for name in Metrics._fields}
    return Metrics(**known)


class CsvFile:
    """A CSV file that is replaced by ``rows`` when it is opened, then grows; a context manager."""

    def __init__(self, path: Path, columns: Iterable[str], rows: Iterable[Iterable[str]] = ()):
        write_csv(path, columns, rows)
        self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def write(self, rows: Iterable[Iterable[str]]) -> None:
        """Add rows and flush."""
        self._writer.writerows(rows)
        self._file.flush()

    def __enter__(self) -> "CsvFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Write or replace a CSV file as a whole."""
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def read_metrics(path: Path) -> Metrics:
    """Read ``metrics.csv`` back.

    Raises:
      OSError: it cannot be read.
      ValueError: the file has no rows or other columns, or is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        if not table or any(name not in table[0] for name in COLUMNS if name not in _LATER):
            raise ValueError("no rows, or not the columns of a metrics.csv")
        seeds = max(int(row["seed_index"]) for row in table) + 1
        columns = {
            name: np.array([float(row[name] or "nan") for row in table]).reshape(-1, seeds).T
            for name in Metrics._fields
            if name in table[0]
        }
        if not (np.isfinite(columns["env_step"]).all() and seeds):
            raise ValueError("a row without an env_step")
    except (ValueError, TypeError, OverflowError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return stored_metrics(columns)


def join_metrics(parts: Sequence[Metrics]) -> Metrics:
    """Join parts of a training along the epochs."""
    return Metrics(*(np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True)))


def first_solved_steps(metrics: Metrics, threshold: float | None) -> list[int | None]:
    """For each run the environment step of the first evaluation at or above ``threshold``, None if there is none."""
    if threshold is None:
        return [None] * metrics.env_step.shape[0]
    solved = metrics.eval_return >= threshold
    return [
        int(steps[hit.argmax()]) if hit.any() else None for steps, hit in zip(metrics.env_step, solved, strict=True)
    ]


def csv_rows(metrics: Metrics) -> Iterator[list[str]]:
    """The rows of ``metrics.csv``: epoch by epoch, a row for each seed."""
    seeds, epochs = metrics.env_step.shape
    for epoch in range(epochs):
        for seed in range(seeds):
            row = {name: column[seed, epoch] for name, column in metrics._asdict().items()}
            if row["episodes"] == 0:
                row["episode_return"] = row["episode_length"] = None
            for name in ("success_rate", "disagreement"):
                if np.isnan(row[name]):
                    row[name] = None
            # str of a NumPy scalar is the shortest text that reads back as the same number.
            yield [str(seed), *("" if row[name] is None else str(row[name]) for name in COLUMNS[1:])]
