"""Compare what two runs of the same commands left: tables, configs, summaries and weights, value by value.

Values are compared exactly: a CSV cell by its text, a tensor by its bytes. How far two numbers are apart is only
worked out for the report.
"""

import csv
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from safetensors.numpy import load_file

VARYING = (
    "import_seconds", "compile_seconds", "run_seconds", "env_steps_per_second", "versions", "git_commit",
    "summary_sha256",
)  # fmt: skip
"""Keys of JSON files that differ between equal runs, or between revisions."""
PRESENT = ("timing.csv", "policy.json")
"""Files that both must have, with contents of their own; so are all whose suffix is not in ``READERS``."""
INTERNAL = ("checkpoints", "pieces", "study.log", "search.json", "sweep.yaml")
"""Files and folders that a program keeps for itself and that no one else reads."""

Values = Mapping[str, Sequence[str] | np.ndarray]
"""A file's contents: the cells of a column, the scalars of a list, or a tensor, by name."""


class Difference(NamedTuple):
    """One name of a file whose values differ."""

    file: str
    name: str
    relative: float | None = None  # largest relative difference; None where it is not one of numbers of one shape

    def __str__(self) -> str:
        size = "" if self.relative is None else f", largest relative difference {self.relative:.1g}"
        return f"{self.file} {self.name}{size}"


class Comparison(NamedTuple):
    """What differs between two directories, and what only the second has."""

    differences: list[Difference]  # file by file, those that are not of numbers first, then the largest
    additions: list[str]


def compare(base: Path, today: Path) -> Comparison:
    """Compare two directories, recursively.

    What the second has in addition (files, columns, keys) is listed apart, as later revisions may write more; tensors
    in addition are a difference.
    """
    theirs, ours = _files(base), _files(today)
    found = [Difference(name, "is missing") for name in theirs if name not in ours]
    added = [name for name in ours if name not in theirs]
    for name in theirs:
        if name in ours and Path(name).name not in PRESENT and Path(name).suffix in READERS:
            differences, additions = compare_files(base / name, today / name, name)
            found += differences
            added += additions
    return Comparison(found, added)


def summarise(differences: Iterable[Difference]) -> str:
    """The first difference of every file in a line, and how many more it has."""
    files = [list(group) for _, group in itertools.groupby(differences, lambda one: one.file)]
    return "; ".join(f"{first}{f', and {len(more)} more' if more else ''}" for first, *more in files)


def _files(folder: Path) -> list[str]:
    """All files but internal and hidden ones, relative to ``folder``."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [str(path) for path in paths if not any(part in INTERNAL or part[0] == "." for part in path.parts)]


def compare_files(base: Path, today: Path, file: str) -> Comparison:
    """Compare two files that both are ``file`` of their directories."""
    read = READERS[base.suffix]
    theirs, ours = read(base), read(today)
    kind = {".csv": "column ", ".safetensors": "tensor "}.get(base.suffix, "")
    found = [Difference(file, f"{kind}{name} is missing") for name in theirs if name not in ours]
    added = [f"{kind}{name}" for name in ours if name not in theirs]
    for name in theirs:
        if name in ours and not same(theirs[name], ours[name]):
            found.append(Difference(file, f"{kind}{name}", relative_difference(theirs[name], ours[name])))
    if base.suffix == ".safetensors":  # one more is another network
        found += [Difference(file, f"{name} is new") for name in added]
        added = []
    found.sort(key=lambda one: -math.inf if one.relative is None else -one.relative)
    return Comparison(found, [f"{file} {name}" for name in added])


def same(one: Sequence[str] | np.ndarray, other: Sequence[str] | np.ndarray) -> bool:
    """Whether two columns have the same text, or two tensors the same type, shape and bytes."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return list(one) == list(other)


def relative_difference(one: Sequence[str] | np.ndarray, other: Sequence[str] | np.ndarray) -> float | None:
    """The largest |a - b| / max(|a|, |b|); None where shapes differ, or where cells that differ are not numbers."""
    if np.shape(one) != np.shape(other):
        return None
    pairs = zip(np.ravel(one).tolist(), np.ravel(other).tolist(), strict=True)
    try:
        numbers = [(float(a), float(b)) for a, b in pairs if str(a) != str(b)]
    except ValueError:
        return None
    return max((_relative(a, b) for a, b in numbers), default=0.0)


def _relative(a: float, b: float) -> float:
    largest = max(abs(a), abs(b))
    relative = abs(a - b) / largest if largest else 0.0
    return relative if math.isfinite(relative) else math.inf


def _read_csv(path: Path) -> Values:
    with path.open(encoding="utf-8", newline="") as file:
        columns = itertools.zip_longest(*csv.reader(file), fillvalue="")
        return {str(name): cells for name, *cells in columns}


def _read_json(path: Path) -> Values:
    try:
        return _flat(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:  # as the output of a command that failed
        return {"is no JSON": [path.read_text(encoding="utf-8")]}


def _read_yaml(path: Path) -> Values:
    return _flat(yaml.safe_load(path.read_text(encoding="utf-8")))


def _flat(value: Any, name: str = "") -> dict[str, list[str]]:
    """The scalars and lists of scalars within, by their dotted names, without what varies."""
    if name.rpartition(".")[2] in VARYING:
        return {}
    if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        value = {str(number): item for number, item in enumerate(value)}
    if isinstance(value, dict) and value:
        parts = [_flat(item, f"{name}.{key}".lstrip(".")) for key, item in value.items()]
        return {key: cells for part in parts for key, cells in part.items()}
    return {name: [json.dumps(item) for item in (value if isinstance(value, list) else [value])]}


READERS: dict[str, Callable[[Path], Values]] = {
    ".csv": _read_csv,
    ".json": _read_json,
    ".yaml": _read_yaml,
    ".safetensors": load_file,
}
"""How files are read, by suffix."""
