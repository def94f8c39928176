"""``python -m purejaxdqn.plot DIR ...``: draw the pictures of runs and sweeps again from their files."""

import csv
from collections.abc import Sequence
from pathlib import Path

from purejaxdqn.host.faults import Parser, UserError, run_command


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(prog="python -m purejaxdqn.plot", description="Draw the pictures of runs and sweeps again.")
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="DIR")
    folders = parser.parse_args(argv).run_dirs

    from purejaxdqn.host.configs import load_config
    from purejaxdqn.host.metrics import read_metrics
    from purejaxdqn.host.rundir import draw_run

    runs = []
    sweeps = [folder for folder in folders if (folder / "sweep.yaml").is_file()]
    for folder in folders:
        if folder in sweeps:
            continue
        try:
            runs.append((folder, read_metrics(folder / "metrics.csv"), load_config(folder / "config.yaml")))
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{folder} is not a run: {error}") from error
    for run in runs:
        try:
            draw_run(*run)
        except OSError as error:
            raise UserError(f"{run[0]} cannot be written to: {error.strerror}") from error
        print(run[0] / "learning_curve.png", run[0] / "report.png", sep="\n")
    for folder in sweeps:
        from purejaxdqn.host.sweep_pictures import draw_directory

        print(*draw_directory(folder), sep="\n")
    return 0


if __name__ == "__main__":
    run_command(main)
