"""``python -m purejaxdqn.report DIR``: write a self-contained ``report.html`` about a run, a sweep or a search."""

from collections.abc import Sequence

from purejaxdqn.system.faults import run_command
from purejaxdqn.system.options import Parser, path_of


def parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m purejaxdqn.report",
        description="Write report.html, one page that contains everything.",
        examples=("runs/mine",),
    )
    parser.add_argument("folder", type=path_of, metavar="DIR")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    folder = parser().parse_args(argv).folder

    from purejaxdqn.pictures.reports import write_report

    print(write_report(folder))
    return 0


if __name__ == "__main__":
    run_command(main)
