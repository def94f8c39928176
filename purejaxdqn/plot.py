"""``python -m purejaxdqn.plot DIR ...``: draw the pictures of directories again; compare runs in one picture."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from purejaxdqn.system.faults import UserError, did_you_mean, run_command
from purejaxdqn.system.options import Parser, path_of
from purejaxdqn.system.status import Status

_FORMATS = ("png", "pdf", "svg")


def parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m purejaxdqn.plot",
        description="Draw the pictures of runs, sweeps and searches again; compare several runs in one picture.",
        examples=(
            "runs/mine",
            "runs/mine --format pdf,svg",
            "runs/first runs/second --out both.pdf",
        ),
    )
    parser.add_argument("folders", type=path_of, nargs="+", metavar="DIR", help="directory of a run, sweep or search")
    formats = "png, pdf or svg, or several of them separated by commas (default png)"
    parser.add_argument("--format", default="png", metavar="FORMAT", help=formats)
    out = "file of the picture that compares several runs; the suffix sets the format (default comparison.FORMAT)"
    parser.add_argument("--out", type=path_of, metavar="FILE", help=out)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_args(argv)
    formats = _check(arguments)
    sweeps = [folder for folder in arguments.folders if (folder / "sweep.yaml").is_file()]
    searches = [folder for folder in arguments.folders if (folder / "search.json").is_file()]
    others = [folder for folder in arguments.folders if folder not in (*sweeps, *searches)]
    if arguments.out and len(others) < 2:
        raise UserError("--out names the picture that compares several runs, but fewer than two are given")
    with Status("reading the runs" if others else "starting"):
        from purejaxdqn.pictures import redrawing  # late: it reads runs, which loads more than a refusal needs

        runs = redrawing.read_runs(others)
    redrawing.draw_runs(runs, formats)
    if len(runs) > 1:
        redrawing.compare_runs(
            runs, [arguments.out] if arguments.out else [Path(f"comparison.{one}") for one in formats]
        )
    redrawing.draw_studies(sweeps, formats, kind="sweeps")
    redrawing.draw_studies(searches, formats, kind="searches")
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


if __name__ == "__main__":
    run_command(main)
