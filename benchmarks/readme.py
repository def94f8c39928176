"""Copies the tables of results/*.csv into README.md and benchmarks/README.md, so that no figure there is typed by hand.

After a line ``<!-- NAME -->`` comes the table of ``results/NAME.csv`` with its machine and commit;
``<!-- NAME: COLUMN; COLUMN -->`` selects columns.

    python -m benchmarks.readme            writes the tables
    python -m benchmarks.readme --check    exits with code 1 if the tables differ from the CSVs
"""

import csv
import json
import re
import sys
from collections.abc import Sequence

from benchmarks import harness

READMES = (harness.ROOT / "README.md", harness.ROOT / "benchmarks" / "README.md")
_PLACE = re.compile(r"^<!-- (\w+)(?:: (.+))? -->\n(?:\|.*\n|\n(?=\*)|\*.*\*\n)*", re.MULTILINE)


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--check", "--quick", action="store_true")
    arguments = parser.parse_args()
    for path in READMES:
        text = path.read_text(encoding="utf-8")
        new = fill(text)
        if not arguments.check:
            path.write_text(new, encoding="utf-8")
        elif new != text:
            name = path.relative_to(harness.ROOT)
            sys.exit(f"{name} differs from benchmarks/results; run python -m benchmarks.readme")


def fill(text: str) -> str:
    """Return the text with every table replaced by its CSV's."""

    def place(match: re.Match[str]) -> str:
        marker = match[0].split("\n")[0]
        return f"{marker}\n{block(match[1], match[2].split('; ') if match[2] else None)}"

    return _PLACE.sub(place, text)


def block(name: str, columns: Sequence[str] | None = None) -> str:
    """Return a table, or some of its columns, with its machine, Python and commit."""
    with (harness.RESULTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = [{column: _value(row[column]) for column in columns or row} for row in csv.DictReader(file)]
    about = json.loads((harness.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return f"{harness.table(rows)}\n\n*{about['machine']}, Python {about['python']}, commit {about['commit']}*\n"


def _value(text: str) -> float | str:
    """Turn measured numbers into floats, for rounding; text, whole numbers and numbers of up to four digits stay."""
    try:
        value = float(text)
    except ValueError:
        return text
    if "." not in text and "e" not in text:
        return text
    return f"{value:.4g}" if sum(map(str.isdigit, text)) <= 4 else value


if __name__ == "__main__":
    main()
