"""The points of a sweep or search: of a grid, drawn from a space, or whole configs, each with a checked ``Config``."""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from purejaxdqn.config import env_checks
from purejaxdqn.config.checks import find_idle
from purejaxdqn.config.reading import Draft, draft_of, keys_set_by, read_sources
from purejaxdqn.core.config import Config, outside_keys, value_at
from purejaxdqn.sweeps.spaces import Space, as_text
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.messages import counted

CONFIG_COLUMN = "config"
"""The swept column of compared configs."""

MAX_POINTS = 1_000_000
"""Most points of a sweep."""
_SHOWN = 3
_MAPPINGS = ("env.params", "env.kwargs")
_FOR_TRAIN = outside_keys() - {"seed", "num_seeds", "stop.return", "stop.evaluations"}
"""Keys that change no result, and that sweeps do not read."""


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
        """``gamma=0.98 network.hidden=[64, 64]``, or ``base config`` if nothing is swept."""
        words = [
            value if key == CONFIG_COLUMN else f"{key}={f'{value:.4g}' if isinstance(value, float) else as_text(value)}"
            for key, value in self.swept.items()
        ]
        return " ".join(words) or "base config"


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
    keys = Counter(axis[0].partition("=")[0] for axis in axes)
    twice = sorted(key for key, count in keys.items() if count > 1)
    if twice:
        raise UserError(*(f"{key}: given twice; write its values with commas between them" for key in twice))
    layers: list[tuple[str, ...]] = [(name,) for name in configs] or [()]
    check_count(len(layers) * math.prod(map(len, axes)))
    combinations = list(itertools.product(*axes))
    return [
        Candidate((*sources, *layer), overrides, tuple(swept), *layer) for layer in layers for overrides in combinations
    ]


def check_count(points: int, *, option: str = "") -> None:
    """Refuse more points than a sweep can list; ``option`` names where they come from.

    Raises:
      UserError: there are too many.
    """
    if points > MAX_POINTS:
        shown = str(points) if points < 10**15 else "More than 10^15"  # Python does not print a number of 5,000 digits
        raise UserError(f"{option}{shown} points are too many for one sweep; it takes {MAX_POINTS} at most")


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


def refuse_both(overrides: Sequence[str], space: Iterable[str], *, how: str) -> None:
    """Refuse keys that are both set for all points and in a space, which would silently win.

    Args:
      overrides: ``key=value``.
      space: keys.
      how: what happens to the keys of the space, for the message: "searched".
    """
    both = keys_set_by(overrides) & set(space)
    if both:
        raise UserError(*(f"{key}: set on the command line and {how}" for key in sorted(both)))


def drawn_candidates(
    sources: Sequence[str], overrides: Sequence[str], space: Space, shares: Iterable[Any]
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


def read_points(candidates: Sequence[Candidate]) -> list[Draft]:
    """The drafts of candidates; does not start JAX.

    Raises:
      UserError: a config cannot be read, or an override is malformed.
    """
    read = functools.cache(read_sources)
    return [draft_of(read(candidate.sources), candidate.overrides).fitted() for candidate in candidates]


def describe_moves(drafts: Iterable[Draft]) -> Iterator[str]:
    """What was moved to fit the schedule of each point: a line for each difference, the first three of them."""
    lines = Counter(draft.moves for draft in drafts if draft.moves)
    for line, count in list(lines.items())[:_SHOWN]:
        yield f"{line}{f' ({count} points)' if count > 1 else ''}"
    if len(lines) > _SHOWN:
        yield f"... and in {counted(sum(list(lines.values())[_SHOWN:]), 'other point')}"


def check_points(candidates: Sequence[Candidate], drafts: Sequence[Draft]) -> list[Point]:
    """Check every point against its environment.

    Raises:
      UserError: the faults of all points, each once, with the first point that has it; or two points are equal.
    """
    points: list[Point] = []
    look_up = functools.cache(env_checks.look_up)
    faults: dict[str, list[str]] = {}  # line -> the points that have it
    for candidate, draft in zip(candidates, drafts, strict=True):
        try:
            points.append(_point(candidate, draft.checked(look_up)))
        except UserError as error:
            name = " ".join(word for word in candidate.overrides if word.partition("=")[0] in candidate.swept)
            for line in error.lines:
                faults.setdefault(line, []).append(name)
    if faults:
        everywhere = len(candidates)
        raise UserError(
            *(line if len(names) == everywhere else f"{line} (point {names[0]})" for line, names in faults.items())
        )
    seen: dict[Config, tuple[Point, Draft]] = {}
    for point, draft in zip(points, drafts, strict=True):
        first, moved = seen.setdefault(point.config, (point, draft))
        if first is not point:
            moves = draft.moves or moved.moves
            why = f", because values were {moves}" if moves else ""
            raise UserError(f"the points {first.name!r} and {point.name!r} are the same run{why}")
    return points


def find_idle_keys(points: Sequence[Point], words: Iterable[str] = ()) -> list[str]:
    """A line for each key that has no effect: swept ones in any point, and those that only ``train`` reads.

    Args:
      points: of the sweep.
      words: the overrides of the command line; what a config file says of ``stop`` is for ``train``.
    """
    idle, swept = [find_idle(point.config) for point in points], points[0].swept
    stops = any(word.startswith(("stop.", "stop=")) for word in (*words, *swept))
    return [
        *(["stop.return has no effect here: the runs of a program end together"] if stops else []),
        *(f"{key} is swept but has no effect: only train reads it" for key in swept if key in _FOR_TRAIN),
        *(
            f"{key} is swept but has no effect: it needs {idle[0][key]}"
            for key in swept
            if all(key in one for one in idle)
        ),
    ]


def _point(candidate: Candidate, config: Config) -> Point:
    swept: dict[str, Any] = {}
    if candidate.config_name is not None:
        swept[CONFIG_COLUMN] = Path(candidate.config_name).with_suffix("").as_posix()
    return Point(config, swept | {key: value_of(config, key) for key in candidate.swept})


def value_of(config: Config, key: str) -> Any:
    """The value of a config key, which may be a section, or a name in a mapping: ``env.params.gravity``."""
    section, _, name = key.rpartition(".")
    if section in _MAPPINGS:
        return dict(value_at(config, section))[name]
    value = value_at(config, key)
    return value.model_dump() if isinstance(value, BaseModel) else dict(value) if key in _MAPPINGS else value
