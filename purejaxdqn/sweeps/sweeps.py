"""A sweep's directory and its work: pieces are trained and kept one by one, so that a killed sweep goes on."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import yaml

from purejaxdqn.core.config import Config
from purejaxdqn.core.plan import make_plan
from purejaxdqn.environments.registry import SOLVED_AT
from purejaxdqn.runs.divergence import diverged_at
from purejaxdqn.runs.metrics import Metrics, join_metrics, metrics_from_rows
from purejaxdqn.runs.training import Outcome, Training, choose_segments, compile_training, finish_training, run_segments
from purejaxdqn.sweeps.pieces import Group, Run, Work, population_of
from purejaxdqn.sweeps.points import Point
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import in_use, is_bare, replacing, write_text

SWEEP_FILE = "sweep.yaml"
PIECES_FOLDER = "pieces"
# libyaml's, where PyYAML was built with it: a sweep of a thousand points is sixty thousand lines.
_FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FastDumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Trained(NamedTuple):
    """Finished runs; arrays start with an axis over runs [R]."""

    runs: tuple[Run, ...]
    final_returns: np.ndarray  # [R, N] greedy returns of the final parameters
    diverged: np.ndarray  # [R] bool
    metrics: Metrics  # [R, T]


def describe(points: Sequence[Point], num_seeds: int) -> dict[str, Any]:
    """What makes a sweep the one it is, as plain values for ``sweep.yaml``."""
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
        description = yaml.load((folder / SWEEP_FILE).read_text(encoding="utf-8"), _FastLoader)
        points = [Point(Config.model_validate(one["config"]), one["swept"]) for one in description["points"]]
        return points, description["num_seeds"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / SWEEP_FILE} cannot be read: {str(error).splitlines()[0]}") from error


def check_directory(folder: Path, description: dict[str, Any], *, wait: bool = False) -> bool:
    """Whether the directory of this very sweep is there.

    Args:
      folder: the directory.
      description: the sweep's.
      wait: another process makes it; a minute's patience.

    Raises:
      UserError: something else stands there, or another sweep, or it does not appear.
    """
    file = folder / SWEEP_FILE
    try:
        until = time.monotonic() + 60
        while wait and not file.is_file():
            if time.monotonic() > until:
                raise UserError(f"--out: {folder} does not appear; it must be a directory that all processes see")
            time.sleep(0.2)
        if not folder.exists() or (folder.is_dir() and is_bare(folder)):
            return False
        if not file.is_file():
            raise UserError(f"--out: {folder} exists and is no sweep; a sweep never overwrites anything")
        text = file.read_text(encoding="utf-8")
        if text == _to_text(description):
            return True
        found = yaml.load(text, _FastLoader)
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"--out: {folder} cannot be used: {error}") from error
    if found != yaml.load(_to_text(description), _FastLoader):
        raise UserError(f"--out: {folder} belongs to another sweep: {_difference(found, description)}")
    return True


@contextlib.contextmanager
def directory(folder: Path, description: dict[str, Any], *, process: int | None = None) -> Iterator[None]:
    """Make a sweep's directory, or find it there, and keep others out of it.

    Args:
      folder: the directory.
      description: the sweep's.
      process: the number of this one among several that share the sweep.

    Raises:
      UserError: something else stands there, another sweep, or one that is still running; or it cannot be made.
    """
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(in_use(folder, option="--out", process=process))
            found = check_directory(folder, description)  # another may have been faster
            (folder / PIECES_FOLDER).mkdir(exist_ok=True)
            if not found:
                write_text(folder / SWEEP_FILE, _to_text(description))
                check_directory(folder, description)  # a file system may be without locks
        except OSError as error:
            raise UserError(f"--out: {folder} cannot be made: {error.strerror}") from error
        yield


def _to_text(description: dict[str, Any]) -> str:
    return yaml.dump(description, Dumper=_FastDumper, sort_keys=False, default_flow_style=None)


def _difference(found: Any, wanted: dict[str, Any]) -> str:
    if not isinstance(found, dict) or not isinstance(found.get("points"), list):
        return f"its {SWEEP_FILE} is damaged"
    if found["num_seeds"] != wanted["num_seeds"]:
        return f"it has {found['num_seeds']} seeds, not {wanted['num_seeds']}"
    if len(found["points"]) != len(wanted["points"]):
        return f"it has {len(found['points'])} points, not {len(wanted['points'])}"
    return "its points have other configs"


def all_runs(points: Sequence[Point], num_seeds: int) -> list[Run]:
    """Every run of a sweep, point by point."""
    return [Run(point, seed_index) for point in range(len(points)) for seed_index in range(num_seeds)]


def train_work(
    points: Sequence[Point],
    work: Work,
    *,
    check: Callable[[], None],
    report: Callable[[int, int], None],
    compiled: dict[Any, Training] | None = None,
) -> Iterator[Trained]:
    """Compile each group's program once and train its pieces one after another.

    Args:
      points: all points of the sweep.
      work: what to train.
      check: called between segments; may raise to stop.
      report: called between segments with the runs under way and the environment steps each has taken since.
      compiled: programs of earlier work, which are used again; this work's are added.
    """
    compiled = {} if compiled is None else compiled
    for group, size in zip(work.groups, work.sizes, strict=True):
        segments = choose_segments(make_plan(group.config).epochs, None)
        training = program_of(points, group, size, segments=segments, devices=work.devices, compiled=compiled)
        with training.finish:
            for runs in cut(group.runs, size):
                check()
                population = population_of(points, runs, size)
                parts = []
                for state, rows in run_segments(training, population):
                    parts.append(metrics_from_rows(rows, solved_at=SOLVED_AT.get(group.config.env.id)))
                    report(len(runs), group.config.total_timesteps // segments)
                    check()
                yield trained_runs(runs, join_metrics(parts), finish_training(training, population, state))


def program_of(
    points: Sequence[Point],
    group: Group,
    size: int,
    *,
    segments: int,
    devices: tuple[jax.Device, ...],
    compiled: dict[Any, Training],
) -> Training:
    """The program of a group for ``size`` runs at a time: out of ``compiled``, or compiled and put there."""
    name = group.config.static(), size, segments, devices
    if name not in compiled:
        first = population_of(points, group.runs[:size], size)
        compiled[name] = compile_training(group.config, first, segments=segments, devices=devices)
    return compiled[name]


def cut(runs: Sequence[Run], size: int) -> list[tuple[Run, ...]]:
    """Pieces of ``size`` runs; the last may have fewer."""
    return [tuple(runs[first : first + size]) for first in range(0, len(runs), size)]


def trained_runs(runs: tuple[Run, ...], metrics: Metrics, outcome: Outcome) -> Trained:
    """What the places of ``runs`` hold; those after them repeat the last."""
    count = len(runs)
    diverged = np.array([step is not None for step in diverged_at(metrics, outcome.params)])
    return Trained(runs, outcome.final_returns[:count], diverged[:count], Metrics(*(one[:count] for one in metrics)))


def save_piece(folder: Path, trained: Trained) -> None:
    """Keep a piece: whole or not at all."""
    first = trained.runs[0]
    path = folder / PIECES_FOLDER / f"{first.point:06d}-{first.seed_index:06d}.npz"
    arrays = {
        "runs": np.array(trained.runs),
        "final_returns": trained.final_returns,
        "diverged": trained.diverged,
        **trained.metrics._asdict(),
    }
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_pieces(folder: Path, warn: Callable[[str], None] = lambda line: None) -> list[Trained]:
    """The pieces that are there; a damaged one is told of and counts as missing."""
    found = []
    for path in sorted((folder / PIECES_FOLDER).glob("*.npz")):
        try:
            found.append(_load_piece(path))
        except Exception as error:  # zipfile, zlib and NumPy raise what they like
            warn(f"{path} is damaged and will be done again: {error}")
    return found


def _load_piece(path: Path) -> Trained:
    with path.open("rb") as file, np.load(file) as arrays:
        runs = tuple(Run(int(point), int(seed_index)) for point, seed_index in arrays["runs"])
        metrics = Metrics(*(arrays[name] for name in Metrics._fields))
        return Trained(runs, arrays["final_returns"], arrays["diverged"], metrics)


def done_runs(pieces: Iterable[Trained]) -> set[Run]:
    """The runs in pieces."""
    return {run for piece in pieces for run in piece.runs}


def wait_for_runs(
    folder: Path, runs: Iterable[Run], *, check: Callable[[], None], tell: Callable[[int], None], pause: float = 1.0
) -> None:
    """Wait until other processes have left all these runs in the directory.

    Args:
      folder: the directory.
      runs: all of them.
      check: called again and again; may raise to stop.
      tell: called once, with the number of missing runs, where there is something to wait for.
      pause: seconds between two looks.
    """
    missing, read, told = set(runs), set[Path](), False
    while True:
        check()
        for path in set((folder / PIECES_FOLDER).glob("*.npz")) - read:
            with contextlib.suppress(Exception):  # the process whose it is does it again, and it is looked at again
                missing -= set(_load_piece(path).runs)
                read.add(path)
        if not missing:
            break
        if not told:
            tell(len(missing))
        told = True
        time.sleep(pause)


def _plain(swept: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in swept.items()}
