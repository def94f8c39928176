"""Put the tables of results/*.csv into benchmarks/README.md, so that no figure there is typed by hand.

A line ``<!-- NAME -->`` is followed by the table of ``results/NAME.csv``, the machine and the commit.

    python -m benchmarks.readme            write them
    python -m benchmarks.readme --check    say whether they are as the CSVs have them; exit code 1 if not
"""

import argparse
import csv
import json
import re
import sys
from pathlib import Path

from benchmarks import harness

README = Path(__file__).parent / "README.md"
_PLACE = re.compile(r"^<!-- (\w+) -->\n(?:\|.*\n|\n(?=\*)|\*.*\*\n)*", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", "--quick", action="store_true")
    arguments = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    new = fill(text)
    if not arguments.check:
        README.write_text(new, encoding="utf-8")
    elif new != text:
        sys.exit("benchmarks/README.md has other figures than benchmarks/results: python -m benchmarks.readme")


def fill(text: str) -> str:
    """The text with every table as its CSV has it."""
    return _PLACE.sub(lambda match: f"<!-- {match[1]} -->\n{block(match[1])}", text)


def block(name: str) -> str:
    """A table and where it comes from."""
    with (harness.RESULTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = [{column: _value(text) for column, text in row.items()} for row in csv.DictReader(file)]
    about = json.loads((harness.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return f"{harness.table(rows)}\n\n*{about['machine']}, Python {about['python']}, commit {about['commit']}*\n"


def _value(text: str) -> float | str:
    """A figure with a point is a measured one."""
    try:
        return float(text) if "." in text or "e" in text else text
    except ValueError:
        return text


if __name__ == "__main__":
    main()
