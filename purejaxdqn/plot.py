"""``python -m purejaxdqn.plot DIR ...``: draw pictures again from their files; several runs also in one picture."""

import contextlib
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from purejaxdqn.system.faults import Parser, UserError, run_command

_FORMATS = (".png", ".pdf", ".svg")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(
        prog="python -m purejaxdqn.plot",
        description="Draw the pictures of runs, sweeps and searches again; of several runs, also one picture of all.",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the picture of several runs (default comparison.png; pdf, svg too)"
    )
    arguments = parser.parse_args(argv)
    if arguments.out and arguments.out.suffix not in _FORMATS:
        raise UserError(f"--out: {arguments.out} must end in {', '.join(_FORMATS)}")
    if arguments.out and not arguments.out.parent.is_dir():
        raise UserError(f"--out: there is no directory {arguments.out.parent}")
    for folder in arguments.folders:
        _check_directory(folder)
    sweeps = [folder for folder in arguments.folders if (folder / "sweep.yaml").is_file()]
    searches = [folder for folder in arguments.folders if (folder / "search.json").is_file()]
    runs = [_read(folder) for folder in arguments.folders if folder not in (*sweeps, *searches)]
    if arguments.out and len(runs) < 2:
        raise UserError("--out: the picture of several runs; fewer than two are given")
    for run in runs:
        _draw_run(*run)
    if len(runs) > 1:
        _compare(runs, arguments.out or Path("comparison.png"))
    for folder in sweeps:
        from purejaxdqn.pictures import sweeps as sweep_pictures

        with _writing(folder):
            drawn = sweep_pictures.draw_directory(folder)
        print(*drawn, sep="\n")
    for folder in searches:
        from purejaxdqn.pictures import searches as search_pictures

        with _writing(folder):
            drawn = search_pictures.draw_directory(folder)
        print(*drawn, sep="\n")
    return 0


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn what the system denies into a line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}") from error


def _check_directory(folder: Path) -> None:
    """Refuse what is no directory."""
    try:
        found = folder.is_dir()
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error
    if not found:
        raise UserError(f"{folder} is not a directory" if folder.exists() else f"there is no directory {folder}")


def _read(folder: Path) -> tuple[Path, Any, Any]:
    """A run's directory, metrics and config."""
    from purejaxdqn.config.reading import load_config
    from purejaxdqn.runs.metrics import read_metrics

    for name in ("metrics.csv", "config.yaml"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not a run: it has no {name}")
    try:
        return folder, read_metrics(folder / "metrics.csv"), load_config(folder / "config.yaml")
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{folder} is not a run: {error}") from error


def _draw_run(folder: Path, metrics: Any, config: Any) -> None:
    from purejaxdqn.runs.rundir import draw_run

    with _writing(folder):
        draw_run(folder, metrics, config)
    print(folder / "learning_curve.png", folder / "report.png", sep="\n")


def _compare(runs: Sequence[tuple[Path, Any, Any]], path: Path) -> None:
    """All runs in one picture; the solved line is drawn where they share an environment."""
    from purejaxdqn.environments.registry import SOLVED_AT
    from purejaxdqn.pictures.runs import draw_comparison

    ids = dict.fromkeys(config.env.id for _, _, config in runs)
    solved_at = SOLVED_AT.get(next(iter(ids))) if len(ids) == 1 else None
    curves = {str(folder): metrics for folder, metrics, _ in runs}
    try:
        draw_comparison(path, curves, title=", ".join(ids), solved_at=solved_at)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    print(path)


if __name__ == "__main__":
    run_command(main)
