"""The points of a sweep or search: of a grid, drawn from ranges, or whole configs, each with its checked ``Config``."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from purejaxdqn.config.checks import find_idle
from purejaxdqn.config.reading import Draft, find_config, read_config, read_yaml
from purejaxdqn.core.config import Config, value_at
from purejaxdqn.system.faults import UserError

CONFIG_COLUMN = "config"  # the swept column of compared configs
_MAPPINGS = ("env.params", "env.kwargs")
_RANGE_KEYS = {"low", "high", "log", "step", "choices"}


class Range(NamedTuple):
    """Numbers between two ends, both included."""

    low: float
    high: float
    log: bool = False
    step: int | None = None  # for whole numbers low, low + step, ...; None for real numbers

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


class Candidate(NamedTuple):
    """A point before its config is checked."""

    sources: tuple[str, ...]
    overrides: tuple[str, ...]
    swept: tuple[str, ...]  # keys
    config_name: str | None = None  # if configs are compared


class Point(NamedTuple):
    """One setting of the swept keys."""

    config: Config
    swept: dict[str, Any]  # key -> value as the resolved config has it

    @property
    def name(self) -> str:
        """``gamma=0.98 network.hidden=[64, 64]``, or ``as it is`` if nothing is swept."""
        words = [
            value if key == CONFIG_COLUMN else f"{key}={f'{value:.4g}' if isinstance(value, float) else as_text(value)}"
            for key, value in self.swept.items()
        ]
        return " ".join(words) or "as it is"


def as_text(value: Any) -> str:
    """A value as YAML on one line that a ``key=value`` override reads back."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return value
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=math.inf).split("\n")[0]


def grid_candidates(sources: Sequence[str], grid: Sequence[str], configs: Sequence[str] = ()) -> list[Candidate]:
    """Every combination of ``key=v1,v2`` overrides, for each of ``configs``; the first key changes slowest.

    Args:
      sources: configs on which all points are based.
      grid: overrides; those with one value apply to every point and are not swept.
      configs: to compare; each is applied on top of ``sources``.

    Raises:
      UserError: an override without ``=`` or without a value.
    """
    axes: list[list[str]] = []
    swept: list[str] = []
    for override in grid:
        key, texts = split_values(override)
        axes.append([f"{key}={text}" for text in texts])
        if len(texts) > 1:
            swept.append(key)
    keys = [axis[0].partition("=")[0] for axis in axes]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise UserError(*(f"{key}: given twice; write its values with commas between them" for key in twice))
    combinations = list(itertools.product(*axes))
    layers: list[tuple[str, ...]] = [(name,) for name in configs] or [()]
    return [
        Candidate((*sources, *layer), overrides, tuple(swept), *layer) for layer in layers for overrides in combinations
    ]


def split_values(override: str) -> tuple[str, list[str]]:
    """``key=v1,v2`` -> the key and its values; commas inside brackets and quotes do not separate."""
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"{override!r} is not an override; write key=value, or key=value,value to sweep")
    values, depth, quote, start = [], 0, "", 0
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth == 0:
            values.append(text[start:place])
            start = place + 1
    values.append(text[start:])
    if len(values) > 1 and not all(value.strip() for value in values):
        raise UserError(f"{key}: a value is missing between the commas of {text!r}")
    if len(values) != len(set(values)):
        raise UserError(f"{key}: a value appears twice in {text!r}")
    return key, [value.strip() for value in values]


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
            space[key] = _read_range(given)
        except ValueError as error:
            lines.append(f"--space: {key}: {error}")
    if lines:
        raise UserError(*lines)
    return space


def _is_number(value: Any) -> bool:
    largest = float(np.finfo(np.float32).max)
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= largest


def _read_range(given: Any) -> Range | Choices:
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
    if isinstance(low, int) and isinstance(high, int) and step is None:
        step = 1
    if step is not None:
        if not all(isinstance(value, int) for value in (low, high, step)) or step < 1:
            raise ValueError("step, low and high must be whole numbers, and step at least 1")
        if log and step != 1:
            raise ValueError("log and a step above 1 exclude each other")
    return Range(low, high, log, step)


def refuse_both(overrides: Sequence[str], space: Iterable[str], *, how: str) -> None:
    """Refuse keys that are both set for all points and in a space, which would silently win.

    Args:
      overrides: ``key=value``.
      space: keys.
      how: what happens to the keys of the space, for the message: "searched".
    """
    both = {word.partition("=")[0] for word in overrides} & set(space)
    if both:
        raise UserError(*(f"{key}: set on the command line and {how}" for key in sorted(both)))


def drawn_candidates(
    sources: Sequence[str], overrides: Sequence[str], space: Mapping[str, Range | Choices], shares: Iterable[Any]
) -> list[Candidate]:
    """The points of ``space`` at the fractions ``shares`` [P, keys] in [0, 1)."""
    return [
        candidate_of(
            sources, overrides, {key: space[key].at(float(share)) for key, share in zip(space, row, strict=True)}
        )
        for row in shares
    ]


def candidate_of(sources: Sequence[str], overrides: Sequence[str], values: Mapping[str, Any]) -> Candidate:
    """The point with these values of the swept keys."""
    swept = tuple(f"{key}={as_text(value)}" for key, value in values.items())
    return Candidate(tuple(sources), (*overrides, *swept), tuple(values))


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


def draw_shares(count: int, dimensions: int, *, method: str, seed: int) -> np.ndarray:
    """Fractions [count, dimensions] in [0, 1): ``random``, or scrambled ``sobol`` (Sobol 1967; Owen 1998)."""
    if method == "random":
        return np.random.default_rng(seed).random((count, dimensions))
    import scipy.stats

    # Draw a power of two and cut: the sequence is balanced only then, and SciPy warns otherwise.
    drawn = scipy.stats.qmc.Sobol(dimensions, rng=seed).random_base2(math.ceil(math.log2(max(count, 2))))
    return drawn[:count]


def read_points(candidates: Sequence[Candidate]) -> list[Draft]:
    """The drafts of candidates; does not start JAX.

    Raises:
      UserError: a config cannot be read, or an override is malformed.
    """
    return [read_config(list(candidate.sources), candidate.overrides) for candidate in candidates]


def check_points(candidates: Sequence[Candidate], drafts: Sequence[Draft]) -> list[Point]:
    """Check every point against its environment.

    Raises:
      UserError: the faults of all points, each once, with the first point that has it; or two points are equal.
    """
    points: list[Point] = []
    faults: dict[str, list[str]] = {}  # line -> the points that have it
    for candidate, draft in zip(candidates, drafts, strict=True):
        try:
            points.append(_point(candidate, draft.checked()))
        except UserError as error:
            name = " ".join(word for word in candidate.overrides if word.partition("=")[0] in candidate.swept)
            for line in error.lines:
                faults.setdefault(line, []).append(name)
    if faults:
        everywhere = len(candidates)
        raise UserError(
            *(line if len(names) == everywhere else f"{line} (point {names[0]})" for line, names in faults.items())
        )
    seen: dict[Config, str] = {}
    for point in points:
        if point.config in seen:
            raise UserError(f"the points {seen[point.config]!r} and {point.name!r} are the same run")
        seen[point.config] = point.name
    return points


def find_idle_keys(points: Sequence[Point]) -> list[str]:
    """A line for each swept key that has no effect in any point."""
    idle = [find_idle(point.config) for point in points]
    return [
        f"{key} is swept but has no effect: it needs {idle[0][key]}"
        for key in points[0].swept
        if all(key in one for one in idle)
    ]


def _point(candidate: Candidate, config: Config) -> Point:
    swept: dict[str, Any] = {}
    if candidate.config_name is not None:
        swept[CONFIG_COLUMN] = Path(candidate.config_name).with_suffix("").as_posix()
    for key in candidate.swept:
        section, _, name = key.rpartition(".")
        swept[key] = dict(value_at(config, section))[name] if section in _MAPPINGS else value_at(config, key)
    return Point(config, swept)
