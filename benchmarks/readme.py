"""Copies measured tables and figures from results/*.csv into README.md and docs/, so that none is typed by hand.

A line ``<!-- NAME -->`` stands for the table of ``results/NAME.csv`` with its machine and commit. A comment may select
columns, and rows by the values of columns:

    <!-- NAME: COLUMN; COLUMN where COLUMN=VALUE or VALUE; COLUMN=VALUE -->

A column has its name in the CSV or the one that a reader sees (``LABELS``). ``<!-- NAME: machine -->`` stands for the
machine and commit without the table.

The same comment directly behind a number, with one column and one row, replaces the number by that cell. It may
round the cell, summarise a column over all selected rows (median, lowest, highest, sum), and count the rows:

    7.21<!-- peers: purejaxdqn is faster by where contender=PyTorch; seeds=1 -->
    13<!-- first_hour_seeds: rounded median of seconds until saved -->
    27<!-- first_hour_seeds: number of rows where greedy return=500.0 -->

README.md holds its tables. Pages of docs/ hold the line alone, and the site has the table (``docsite/hooks.py``).

    python -m benchmarks.readme            writes tables and figures
    python -m benchmarks.readme --check    exits with code 1 if they differ from the CSVs
"""

import csv
import json
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

from benchmarks import harness
from benchmarks.pictures import LABELS

README = harness.ROOT / "README.md"
PAGES = tuple(sorted((harness.ROOT / "docs").rglob("*.md")))
_COMMENT = r"<!-- (\w+)(?:: (.+?))??(?: where (.+?))? -->"
_PLACE = re.compile(rf"^{_COMMENT}\n(?:\|.*\n|\n(?=\*)|\*.*\*\n)*", re.MULTILINE)
_FIGURE = re.compile(rf"-?(?:[\d.,]+|\?)(?: (?:of|to) -?[\d.,]+)*(?={_COMMENT})")
SITTINGS = ("learning", "learning_table", "accelerators", "accelerators_devices", "accelerators_targets")
"""Tables whose rows are of several sittings, and may be of several machines and commits."""
_SUMMARIES: dict[str, Callable[[list[float]], float]] = {
    "median of ": statistics.median,
    "lowest of ": min,
    "highest of ": max,
    "sum of ": sum,
}


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--check", "--quick", action="store_true")
    arguments = parser.parse_args()
    for path in (README, *PAGES):
        text = path.read_text(encoding="utf-8")
        new = fill(text) if path == README else fill_figures(text)
        if not arguments.check:
            path.write_text(new, encoding="utf-8")
        elif new != text:
            name = path.relative_to(harness.ROOT)
            sys.exit(f"{name} differs from benchmarks/results; run python -m benchmarks.readme")


def fill(text: str) -> str:
    """Return the text with every table and every figure replaced by its CSV's."""

    def place(match: re.Match[str]) -> str:
        marker = match[0].split("\n")[0]
        return f"{marker}\n{block(match[1], _listed(match[2]), _listed(match[3]))}"

    return fill_figures(_PLACE.sub(place, text))


def fill_figures(text: str) -> str:
    """Return the text with every figure replaced by its CSV's, and its tables as they are."""
    return _FIGURE.sub(lambda match: figure(match[1], match[2], _listed(match[3])), text)


def block(name: str, columns: Sequence[str] = (), conditions: Sequence[str] = ()) -> str:
    """Return a table, or some of its columns and rows, with its machine, Python and commit."""
    about = json.loads((harness.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    newest = "newest row: " if name in SITTINGS else ""
    source = f"*{newest}{about['machine']}, Python {about['python']}, commit {about['commit']}*\n"
    if list(columns) == ["machine"]:
        return source
    rows = [
        {LABELS.get(column, column): _value(cell_of(row, column)) for column in columns or row}
        for row in select(name, conditions)
    ]
    return f"{harness.table(rows)}\n\n{source}"


def figure(name: str, column: str, conditions: Sequence[str]) -> str:
    """Return one cell of a table, a summary of several, or their number, as text.

    Raises:
      ValueError: the conditions do not select one row, and the column is not summarised.
    """
    rounded, column = column.startswith("rounded "), column.removeprefix("rounded ")
    if column == "number of rows":
        return str(len(select(name, conditions, least=0)))
    rows = select(name, conditions)
    word = next((word for word in _SUMMARIES if column.startswith(word)), "")
    cells = [cell_of(row, column.removeprefix(word)) for row in rows]
    if word:
        text = str(_SUMMARIES[word]([float(cell) for cell in cells if cell]))
    else:
        (text,) = cells
    if rounded:
        return f"{float(text):,.1f}" if abs(float(text)) < 10 else f"{float(text):,.0f}"
    return harness.text_of(_value(text))


def cell_of(row: Mapping[str, str], column: str) -> str:
    """Return a cell by the name of its column in the CSV, or by the name that a reader sees."""
    names = [column, *(name for name, label in LABELS.items() if label == column)]
    return row[next((name for name in names if name in row), column)]


def select(name: str, conditions: Sequence[str] = (), *, least: int = 1) -> list[dict[str, str]]:
    """Return the rows of ``results/NAME.csv`` that meet all conditions ``COLUMN=VALUE or VALUE``.

    Raises:
      ValueError: there are fewer than ``least``.
    """
    with (harness.RESULTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for condition in conditions:
        column, values = condition.split("=", 1)
        rows = [row for row in rows if cell_of(row, column) in values.split(" or ")]
    if len(rows) < least:
        raise ValueError(f"{name}: no row has {'; '.join(conditions)}")
    return rows


def _listed(text: str | None) -> list[str]:
    return text.split("; ") if text else []


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
