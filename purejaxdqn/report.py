"""``python -m purejaxdqn.report DIR``: a run, or a directory of results, as one self-contained ``report.html``."""

from collections.abc import Sequence
from pathlib import Path

from purejaxdqn.system.faults import Parser, run_command


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(prog="python -m purejaxdqn.report", description="Write report.html, a page with everything in it.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args(argv).folder

    from purejaxdqn.pictures.reports import write_report

    print(write_report(folder))
    return 0


if __name__ == "__main__":
    run_command(main)
