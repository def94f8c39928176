"""Draws the pictures of directories again, and several runs in one picture; prints the names of the files."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from purejaxdqn.config.reading import read_config
from purejaxdqn.core.config import Config
from purejaxdqn.policies.summaries import warn_of_changes
from purejaxdqn.runs.metrics import Metrics, read_metrics, solved_at
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import refusing_damage
from purejaxdqn.system.status import Status


class Drawable(NamedTuple):
    """What the pictures of a run show."""

    folder: Path
    metrics: Metrics
    config: Config


def read_runs(folders: Sequence[Path]) -> list[Drawable]:
    """Read runs, finished or not.

    Raises:
      UserError: a folder is not a run.
    """
    return [_read(folder) for folder in folders]


def _read(folder: Path) -> Drawable:
    for name in ("metrics.csv", "config.yaml"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not a run: it has no {name}")
    warn_of_changes(folder, "metrics.csv", "config.yaml")
    try:
        config = read_config(folder / "config.yaml").unchecked()
        return Drawable(folder, read_metrics(folder / "metrics.csv"), config)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a run: {error}") from error


def draw_runs(runs: Sequence[Drawable], formats: Sequence[str]) -> None:
    """Draw the pictures of each run into its folder."""
    with Status("loading Matplotlib"):
        from purejaxdqn.pictures.run_directory import draw_run  # Matplotlib: late, as it loads slowly

    for run in runs:
        _draw(run.folder, draw_run, *run, formats)


def draw_studies(folders: Sequence[Path], formats: Sequence[str], *, kind: str) -> None:
    """Draw the pictures of sweeps or searches, which ``kind`` says, into their folders."""
    for folder in folders:
        with Status("loading Matplotlib"):
            draw = import_module(f"purejaxdqn.pictures.{kind}").draw_directory
        _draw(folder, draw, folder, formats)


def compare_runs(runs: Sequence[Drawable], paths: Sequence[Path]) -> None:
    """Draw all runs in one picture, and write it to each of the paths."""
    with Status("loading Matplotlib"):
        from purejaxdqn.pictures.figures import save_figure
        from purejaxdqn.pictures.runs import ComparedRun, draw_comparison

    compared = [ComparedRun(str(run.folder), run.metrics, run.config.env.id, solved_at(run.config)) for run in runs]

    def draw() -> Sequence[Path]:
        figure = draw_comparison(compared)
        for path in paths:
            save_figure(figure, path)
        return paths

    _draw(paths[0], draw)


def _draw(place: Path, draw: Callable[..., Sequence[Path]], *arguments: Any) -> None:
    """Draw and print the names of the files; an error of the system becomes one line."""
    try:
        with refusing_damage(place), Status("drawing"):
            drawn = draw(*arguments)
    except OSError as error:
        raise UserError(f"{place} cannot be written to: {error.strerror}") from error
    print(*drawn, sep="\n")
