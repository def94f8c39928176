"""The directory of a sweep: the file that describes it, and one file for each piece, so that it can be resumed."""

import contextlib
import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from purejaxdqn.config.reading import dumped_today
from purejaxdqn.core.config import Config
from purejaxdqn.runs.metrics import Metrics, stored_metrics
from purejaxdqn.sweeps.pieces import Run
from purejaxdqn.sweeps.points import CONFIG_COLUMN, Point, value_of
from purejaxdqn.sweeps.stages import PieceResult
from purejaxdqn.system.directories import OwnedDirectory
from purejaxdqn.system.faults import UserError, reason_of
from purejaxdqn.system.files import replacing

SWEEP_FILE = "sweep.yaml"
PIECES_FOLDER = "pieces"
_DIGEST = "# sha256: "
"""Begins the last line of ``sweep.yaml``: the digest of the lines before it."""
_PATIENCE = 60.0
"""Seconds to wait for the directory that another process makes."""
# libyaml's, if PyYAML was built with it: a sweep of a thousand points has sixty thousand lines.
_FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FastDumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def describe(points: Sequence[Point], num_seeds: int) -> dict[str, Any]:
    """What makes a sweep different from others, as plain values for ``sweep.yaml``."""
    return {
        "num_seeds": num_seeds,
        "points": [
            {"swept": _plain(point.swept), "config": point.config.model_copy(update={"num_seeds": 1}).model_dump()}
            for point in points
        ],
    }


def read_directory(folder: Path) -> tuple[list[Point], int]:
    """The points of a sweep's directory, and its number of seeds.

    Raises:
      UserError: it is damaged.
    """
    try:
        text = (folder / SWEEP_FILE).read_text(encoding="utf-8")
        description = yaml.load(text, _FastLoader)
        points = [Point(Config.model_validate(one["config"]), dict(one["swept"])) for one in description["points"]]
        num_seeds = int(description["num_seeds"])
        for point in points:
            _check_swept(point)
        _check_digest(text)
    except Exception as error:  # whatever a damaged file may raise
        raise UserError(f"{folder / SWEEP_FILE} cannot be read: {reason_of(error)}") from error
    if not points or num_seeds < 1:
        raise UserError(f"{folder / SWEEP_FILE} is damaged: it has no {'seeds' if points else 'points'}")
    return points, num_seeds


def _check_swept(point: Point) -> None:
    """Raise a ``ValueError`` unless the swept keys are config keys with the values of the point's config."""
    keys = [key for key in point.swept if key != CONFIG_COLUMN]
    values = {key: value_of(point.config, key) for key in keys}
    if _plain(values) != {key: point.swept[key] for key in keys} or type(point.swept.get(CONFIG_COLUMN, "")) is not str:
        raise ValueError("the swept values are not those of the config")


def check_directory(folder: Path, description: dict[str, Any], *, wait: bool = False) -> bool:
    """Whether the directory of this sweep exists.

    Args:
      folder: the directory.
      description: of the sweep, see ``describe``.
      wait: whether another process makes the directory; it is waited for.

    Raises:
      UserError: something else is there, or another sweep; or the directory does not appear.
    """
    until = time.monotonic() + _PATIENCE
    while wait and not _is_file(folder / SWEEP_FILE):
        if time.monotonic() > until:
            raise UserError(f"--out: {folder} does not appear; it must be a directory that all processes see")
        time.sleep(0.2)
    return _owned(folder, description).read_label() is not None


@contextlib.contextmanager
def hold_directory(folder: Path, description: dict[str, Any], *, process: int | None = None) -> Iterator[None]:
    """Make or find a sweep's directory, and keep others out of it.

    Args:
      folder: the directory.
      description: of the sweep, see ``describe``.
      process: the number of this process among several that share the sweep.

    Raises:
      UserError: something else is there, another sweep, or one that is still running; or it cannot be made.
    """
    with _owned(folder, description).hold(lambda: _to_text(description), process=process):
        yield


def _owned(folder: Path, description: dict[str, Any]) -> OwnedDirectory:
    def difference(text: str) -> str | None:
        if text == _to_text(description):
            return None
        try:
            found = yaml.load(text, _FastLoader)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error
        return _difference(found, description)

    return OwnedDirectory(folder, "sweep", SWEEP_FILE, difference, subfolders=(PIECES_FOLDER,))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise UserError(f"--out: {path.parent} cannot be used: {error}") from error


def _to_text(description: dict[str, Any]) -> str:
    """A description as YAML, a line for each section of a config; PyYAML takes ten times as long."""
    lines = [f"num_seeds: {description['num_seeds']}", "points:"]
    for point in description["points"]:
        lines += [f"- swept: {_on_a_line(point['swept'])}", "  config:"]
        lines += [f"    {key}: {_on_a_line(value)}" for key, value in point["config"].items()]
    text = "\n".join(lines) + "\n"
    return f"{text}{_DIGEST}{_digest(text)}\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _check_digest(text: str) -> None:
    """Raise a ``ValueError`` if a description has changed; those of earlier versions have no digest."""
    before, digest, written = text.rpartition(_DIGEST)
    if digest and written.strip() != _digest(before):
        raise ValueError("it does not match the digest at its end")


def _on_a_line(value: Any) -> str:
    match value:
        case dict():
            return f"{{{', '.join(f'{_on_a_line(key)}: {_on_a_line(one)}' for key, one in value.items())}}}"
        case list():
            return f"[{', '.join(map(_on_a_line, value))}]"
        case str() if re.fullmatch(r"[ -~]*", value):
            return json.dumps(value)
        case float() if math.isfinite(value):
            text = repr(value)
            return text if "." in text else text.replace("e", ".0e")  # else YAML takes it for a word
        case bool() | int() | None:
            return json.dumps(value)
    return yaml.dump(value, Dumper=_FastDumper, default_style='"', width=2**30).removesuffix("\n")


def _difference(found: Any, wanted: dict[str, Any]) -> str | None:
    if not isinstance(found, dict) or not isinstance(found.get("points"), list):
        return f"its {SWEEP_FILE} is damaged"
    if found["num_seeds"] != wanted["num_seeds"]:
        return f"it has {found['num_seeds']} seeds, not {wanted['num_seeds']}"
    if len(found["points"]) != len(wanted["points"]):
        return f"it has {len(found['points'])} points, not {len(wanted['points'])}"
    theirs, ours = (list(map(_point_today, one["points"])) for one in (found, wanted))
    if set(found) != set(wanted) or theirs != ours:
        return "its points have other configs"
    return None  # an earlier version described it


def _point_today(point: Any) -> Any:
    return {**point, "config": dumped_today(point.get("config"))} if isinstance(point, dict) else point


class Times(NamedTuple):
    """Seconds that a piece took."""

    compiling: float
    running: float  # without compiling


def save_piece(folder: Path, piece: PieceResult, times: Times) -> None:
    """Write the file of a piece, as a whole."""
    first = piece.runs[0]
    path = folder / PIECES_FOLDER / f"{first.point:06d}-{first.seed_index:06d}.npz"
    arrays = {
        "runs": np.array(piece.runs),
        "final_returns": piece.final_returns,
        "diverged": piece.diverged,
        **piece.metrics._asdict(),
        "times": np.array(times),
    }
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_pieces(folder: Path, warn: Callable[[str], None] = lambda line: None) -> list[PieceResult]:
    """The pieces of a directory; ``warn`` is called with a line about each damaged one, which counts as missing."""
    found = []
    for path in sorted((folder / PIECES_FOLDER).glob("*.npz")):
        try:
            found.append(_load_piece(path))
        except Exception as error:  # zipfile, zlib and NumPy raise many kinds
            warn(f"{path} is damaged and will be trained again: {error}")
    return found


def _load_piece(path: Path) -> PieceResult:
    with path.open("rb") as file, np.load(file) as arrays:
        metrics = stored_metrics({name: arrays[name] for name in Metrics._fields if name in arrays})
        return PieceResult(_runs_in(arrays), arrays["final_returns"], arrays["diverged"], metrics)


def load_times(folder: Path) -> Iterator[tuple[tuple[Run, ...], Times]]:
    """The runs and times of the pieces of a directory, without those that have none."""
    for path in sorted((folder / PIECES_FOLDER).glob("*.npz")):
        with contextlib.suppress(Exception), path.open("rb") as file, np.load(file) as arrays:
            times = Times(*map(float, arrays["times"]))
            yield _runs_in(arrays), times


def _runs_in(arrays: Mapping[str, np.ndarray]) -> tuple[Run, ...]:
    return tuple(Run(int(point), int(seed_index)) for point, seed_index in arrays["runs"])


def done_runs(pieces: Iterable[PieceResult]) -> set[Run]:
    """The runs of pieces."""
    return {run for piece in pieces for run in piece.runs}


def wait_for_runs(
    folder: Path, runs: Iterable[Run], *, check: Callable[[], None], tell: Callable[[int], None], pause: float = 1.0
) -> None:
    """Wait until other processes have written all these runs to the directory.

    Args:
      folder: the directory.
      runs: to wait for.
      check: called before each look; may raise to stop.
      tell: called once with the number of missing runs, if any are missing.
      pause: seconds between two looks.
    """
    missing, read, announced = set(runs), set[Path](), False
    while True:
        check()
        for path in set((folder / PIECES_FOLDER).glob("*.npz")) - read:
            with contextlib.suppress(Exception):  # damaged: its process writes it again, and we look again
                missing -= set(_load_piece(path).runs)
                read.add(path)
        if not missing:
            break
        if not announced:
            tell(len(missing))
        announced = True
        time.sleep(pause)


def _plain(swept: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in swept.items()}
