"""Compares what ``accelerators.py`` has counted with this project's targets for accelerators."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from benchmarks.accelerators import BREAKOUT, BREAKOUT_PARTS, CARTPOLE, Case
from benchmarks.devices import ACCELERATORS

Row = Mapping[str, Any]
Values = dict[Case, float | None]
"""A value a case; None if the row cannot be compared with the row that the value is relative to."""


class Target(NamedTuple):
    """A number that is to be at most ``at_most`` in all rows that have it."""

    what: str
    at_most: float
    values: Callable[[dict[Case, Row]], Values]


def judge(rows: dict[Case, Row]) -> list[dict[str, Any]]:
    """Return a row a target: the worst of what was counted, and whether it is met.

    Times of different rows are compared only if jax, a TPU's compiler and the machine are known and the same.
    """
    return [_judge(target, target.values(rows)) for target in TARGETS]


def _judge(target: Target, values: Values) -> dict[str, Any]:
    numbers = {case: value for case, value in values.items() if value is not None}
    worst = max(numbers, key=lambda case: numbers[case], default=None)
    missing = "no rows of one version and machine" if values else "not counted"
    met = missing if worst is None else "yes" if numbers[worst] <= target.at_most else "no"
    return {
        "target": target.what,
        "at most": target.at_most,
        "highest": "" if worst is None else float(numbers[worst]),
        "of": "" if worst is None else f"{worst.device}, {worst.config}, {worst.seeds:,} seed{'s' * (worst.seeds > 1)}",
        "rows counted": len(numbers),
        "rows not comparable": len(values) - len(numbers),
        "met": met,
    }


def comparable(platform: str, one: Row, other: Row) -> bool:
    """Whether two rows of a device are of the same versions and of one machine, and both are known."""
    same = all(one[name] == other[name] != "" for name in ("jax", "machine"))
    return same and (platform != "tpu" or "libtpu" in one["jax"])  # early rows do not name it


def _cells(platform: str, configs: Iterable[str], column: str, *, seeds: int | None = None, share: int = 1) -> Any:
    """The cells of a column, for all devices of a platform and all numbers of seeds, or one; divided by ``share``."""

    def values(rows: dict[Case, Row]) -> Values:
        return {
            case: float(row[column]) / share
            for case, row in rows.items()
            if row[column] != "" and case.config in configs and seeds in (None, case.seeds) and _is(case, platform)
        }

    return values


def _is(case: Case, platform: str) -> bool:
    return ACCELERATORS[case.device].platform == platform


def _to_the_cpu(platform: str) -> Callable[[dict[Case, Row]], Values]:
    """Processor time to compile for a device, relative to that for the CPU in the same process."""

    def values(rows: dict[Case, Row]) -> Values:
        both = ("compile (CPU s)", "on a CPU (CPU s)")
        return {
            case: float(row[both[0]]) / float(row[both[1]])
            for case, row in rows.items()
            if all(row[column] != "" for column in both) and _is(case, platform)
        }

    return values


def _to_one_seed(platform: str) -> Callable[[dict[Case, Row]], Values]:
    """Time to compile many seeds, relative to one: processor time, or wall-clock time if a row has that alone."""

    def values(rows: dict[Case, Row]) -> Values:
        found: Values = {}
        for case, row in rows.items():
            one = rows.get(case._replace(seeds=1))
            if case.seeds == 1 or one is None or not _is(case, platform):
                continue
            columns = ("compile (CPU s)", "compile (s)")
            column = next((name for name in columns if row[name] != "" and one[name] != ""), None)
            if column is not None:
                found[case] = float(row[column]) / float(one[column]) if comparable(platform, row, one) else None
        return found

    return values


_A_THIRD_FEWER = 61 * 2 // 3  # than the 61 kernels of before
TARGETS = (
    Target("TPU, Breakout: memory / sum", 1.4, _cells("tpu", (BREAKOUT,), "memory / sum")),
    Target("TPU, Breakout, other replays: memory / sum", 1.4, _cells("tpu", BREAKOUT_PARTS, "memory / sum")),
    Target(
        "GPU, CartPole, 1,024 seeds: MB a seed and iteration",
        1.3,
        _cells("gpu", (CARTPOLE,), "MB an iteration", seeds=1_024, share=1_024),
    ),
    Target(
        "GPU, CartPole, 1,024 seeds: kernels an iteration",
        _A_THIRD_FEWER,
        _cells("gpu", (CARTPOLE,), "kernels", seeds=1_024),
    ),
    Target("TPU, one seed: compile time / the CPU's", 2.0, _to_the_cpu("tpu")),
    Target("GPU, one seed: compile time / the CPU's", 2.0, _to_the_cpu("gpu")),
    Target("TPU: compile time / that of one seed", 1.5, _to_one_seed("tpu")),
    Target("GPU: compile time / that of one seed", 1.5, _to_one_seed("gpu")),
)
