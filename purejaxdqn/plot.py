"""``python -m purejaxdqn.plot DIR ...``: draw pictures again from their files; several runs also in one picture."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from purejaxdqn.system.faults import UserError, did_you_mean, run_command
from purejaxdqn.system.files import refusing_damage
from purejaxdqn.system.options import Parser, path_of

_FORMATS = ("png", "pdf", "svg")


def parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m purejaxdqn.plot",
        description="Draw the pictures of runs, sweeps and searches again; of several runs also a picture of all.",
        examples=(
            "runs/mine",
            "runs/mine --format pdf,svg",
            "runs/first runs/second --out both.pdf",
        ),
    )
    parser.add_argument("folders", type=path_of, nargs="+", metavar="DIR")
    formats = "png, pdf or svg, or several with commas between them (default png)"
    parser.add_argument("--format", default="png", metavar="FORMAT", help=formats)
    out = "the picture of several runs, in the format of its suffix (default comparison.FORMAT)"
    parser.add_argument("--out", type=path_of, metavar="FILE", help=out)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_args(argv)
    formats = _check(arguments)
    sweeps = [folder for folder in arguments.folders if (folder / "sweep.yaml").is_file()]
    searches = [folder for folder in arguments.folders if (folder / "search.json").is_file()]
    runs = [_read(folder) for folder in arguments.folders if folder not in (*sweeps, *searches)]
    if arguments.out and len(runs) < 2:
        raise UserError("--out: it is for the picture of several runs, and fewer than two are given")
    for run in runs:
        from purejaxdqn.pictures import run_directory

        _draw(run[0], run_directory.draw_run, *run, formats)
    if len(runs) > 1:
        _compare(runs, [arguments.out] if arguments.out else [Path(f"comparison.{one}") for one in formats])
    for folder in sweeps:
        from purejaxdqn.pictures import sweeps as sweep_pictures

        _draw(folder, sweep_pictures.draw_directory, folder, formats)
    for folder in searches:
        from purejaxdqn.pictures import searches as search_pictures

        _draw(folder, search_pictures.draw_directory, folder, formats)
    return 0


def _check(arguments: argparse.Namespace) -> list[str]:
    """Refuse a picture that cannot be written, and folders that are none; return the formats."""
    formats = list(dict.fromkeys(arguments.format.split(",")))
    wrong = [one for one in formats if one not in _FORMATS]
    if wrong:
        raise UserError(f"--format: {wrong[0]!r} is not one of {', '.join(_FORMATS)}{did_you_mean(wrong[0], _FORMATS)}")
    if arguments.out and arguments.out.suffix[1:] not in _FORMATS:
        raise UserError(f"--out: {arguments.out} must end in {', '.join(f'.{one}' for one in _FORMATS)}")
    if arguments.out and not arguments.out.parent.is_dir():
        raise UserError(f"--out: there is no directory {arguments.out.parent}")
    for folder in arguments.folders:
        try:
            found = folder.is_dir()
        except OSError as error:
            raise UserError(f"{folder} cannot be read: {error.strerror}") from error
        if not found:
            raise UserError(f"{folder} is not a directory" if folder.exists() else f"there is no directory {folder}")
    return formats


def _read(folder: Path) -> tuple[Path, Any, Any]:
    """A run's directory, metrics and config."""
    from purejaxdqn.config.reading import read_config
    from purejaxdqn.policies.summaries import warn_of_changes
    from purejaxdqn.runs.metrics import read_metrics

    for name in ("metrics.csv", "config.yaml"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not a run: it has no {name}")
    warn_of_changes(folder, "metrics.csv", "config.yaml")
    try:
        return folder, read_metrics(folder / "metrics.csv"), read_config(folder / "config.yaml").unchecked()
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a run: {error}") from error


def _draw(place: Path, draw: Callable[..., Sequence[Path]], *arguments: Any) -> None:
    """Draw and print the names of the files; an error of the system becomes one line."""
    try:
        with refusing_damage(place):
            drawn = draw(*arguments)
    except OSError as error:
        raise UserError(f"{place} cannot be written to: {error.strerror}") from error
    print(*drawn, sep="\n")


def _compare(runs: Sequence[tuple[Path, Any, Any]], paths: Sequence[Path]) -> None:
    """Draw all runs in one picture, written to each of the paths."""
    from purejaxdqn.pictures.figures import save_figure
    from purejaxdqn.pictures.runs import ComparedRun, draw_comparison
    from purejaxdqn.runs.metrics import solved_at

    compared = [ComparedRun(str(folder), metrics, config.env.id, solved_at(config)) for folder, metrics, config in runs]

    def draw() -> Sequence[Path]:
        figure = draw_comparison(compared)
        for path in paths:
            save_figure(figure, path)
        return paths

    _draw(paths[0], draw)


if __name__ == "__main__":
    run_command(main)
