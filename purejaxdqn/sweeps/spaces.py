"""Spaces: the values from which points are drawn, read from a YAML file."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from purejaxdqn.config.reading import find_config
from purejaxdqn.config.yaml_text import read_yaml
from purejaxdqn.core.config import real_keys
from purejaxdqn.system.faults import UserError

_RANGE_KEYS = {"low", "high", "log", "step", "choices"}


class Range(NamedTuple):
    """Numbers between two ends, both included."""

    low: float
    high: float
    log: bool = False
    step: int | None = None  # for whole numbers low, low + step, ...; None for real numbers

    @property
    def last(self) -> float:
        """The largest value, which is below ``high`` if no number of steps leads there."""
        return self.high if self.step is None else self.low + (self.high - self.low) // self.step * self.step

    def at(self, share: float) -> float | int:
        """The value at the fraction ``share`` in [0, 1) of the range, on a logarithmic scale if ``log``."""
        if self.step is None:
            if self.log:
                value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
            else:
                value = self.low + share * (self.high - self.low)
            return min(max(value, self.low), self.high)
        if self.log:
            edges = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return int(min(max(round(math.exp(edges[0] + share * (edges[1] - edges[0]))), self.low), self.high))
        return int(self.low + self.step * int(share * (1 + (self.high - self.low) // self.step)))


class Choices(NamedTuple):
    """One of several values."""

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value at the fraction ``share`` in [0, 1) of the list."""
        return self.values[int(share * len(self.values))]


Space = Mapping[str, Range | Choices]
"""What is searched: the values of each dotted config key."""


def read_space(path: str | Path) -> Space:
    """Read ranges: a mapping of dotted config keys to ``{low, high[, log][, step]}`` or a list of choices.

    Args:
      path: a file, or the name of a shipped one (``search/dqn.yaml``).

    Raises:
      UserError: all faults, one line each.
    """
    tree = read_yaml(find_config(path, option="--space"))
    if not tree:
        raise UserError(f"--space: {path} names no key")
    space: dict[str, Range | Choices] = {}
    lines = []
    for key, given in tree.items():
        try:
            space[key] = _read_range(given, real=key in real_keys())
        except ValueError as error:
            lines.append(f"--space: {key}: {error}")
    if lines:
        raise UserError(*lines)
    return space


def _is_number(value: Any) -> bool:
    largest = float(np.finfo(np.float32).max)
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= largest


def _read_range(given: Any, *, real: bool) -> Range | Choices:
    if isinstance(given, list):
        given = {"choices": given}
    if not isinstance(given, dict) or not given.keys() <= _RANGE_KEYS:
        raise ValueError(f"{given!r} must be a list of choices, or low and high with log or step")
    if "choices" in given:
        values = given["choices"]
        if not isinstance(values, list) or not values or len(given) > 1:
            raise ValueError(f"{given!r} must be a list of one choice or more, and nothing else")
        return Choices(tuple(tuple(value) if isinstance(value, list) else value for value in values))
    low: Any = given.get("low")
    high: Any = given.get("high")
    step: Any = given.get("step")
    if not all(_is_number(end) for end in (low, high)):
        raise ValueError("low and high must be numbers, within the range of float32")
    if not low < high:
        raise ValueError(f"the range is empty: low {low} is not below high {high}")
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"log: {log!r} must be true or false")
    if log and low <= 0:
        raise ValueError(f"a logarithmic range must start above 0, not at {low}")
    if isinstance(low, int) and isinstance(high, int) and step is None and not real:
        step = 1
    if step is not None:
        if not all(isinstance(value, int) for value in (low, high, step)) or step < 1:
            raise ValueError("step, low and high must be whole numbers, and step at least 1")
        if log and step != 1:
            raise ValueError("log and a step above 1 exclude each other")
    return Range(low, high, log, step)


def corner(space: Mapping[str, Range | Choices]) -> dict[str, Any]:
    """The first value of every key."""
    return {key: values.at(0.0) for key, values in space.items()}


def plain_space(space: Mapping[str, Range | Choices]) -> dict[str, Any]:
    """A space as plain values."""
    return {
        key: [as_text(value) for value in values.values] if isinstance(values, Choices) else values._asdict()
        for key, values in space.items()
    }


def space_of(plain: Mapping[str, Any]) -> Space:
    """The inverse of ``plain_space``, except that choices are texts."""
    return {key: Range(**one) if isinstance(one, Mapping) else Choices(tuple(one)) for key, one in plain.items()}


def as_text(value: Any) -> str:
    """A value as YAML on one line that a ``key=value`` override reads back."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return value
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=math.inf).split("\n")[0]


def draw_shares(count: int, dimensions: int, *, method: str, seed: int) -> np.ndarray:
    """Fractions [count, dimensions] in [0, 1): ``random``, or scrambled ``sobol`` (Sobol 1967; Owen 1998)."""
    if method == "random":
        return np.random.default_rng(seed).random((count, dimensions))
    import scipy.stats

    # Draw a power of two and cut: the sequence is balanced only then, and SciPy warns otherwise.
    drawn = scipy.stats.qmc.Sobol(dimensions, rng=seed).random_base2(math.ceil(math.log2(max(count, 2))))
    return drawn[:count]
