"""``python -m purejaxdqn.envs [--json]``: the environments that can be trained on."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from purejaxdqn.environments.described import describe_environments
from purejaxdqn.system.faults import run_command
from purejaxdqn.system.options import Parser


def parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m purejaxdqn.envs",
        description="List the environments that can be trained on.",
        examples=("--json",),
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array of objects")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_args(argv)
    rows = list(describe_environments())
    if arguments.json:
        print(json.dumps(rows))
    else:
        print("\n".join(_table(rows)))
    return 0


_COLUMNS = {
    "id": "id",
    "observation_shape": "observation",
    "observation_dtype": "type",
    "actions": "actions",
    "illegal_actions": "illegal",
    "time_limit": "time limit",
    "solved_at": "solved",
    "installed": "installed",
}


def _table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines of aligned columns; they are never cut, since a pipe has no width."""
    cells = [
        [word for key, word in _COLUMNS.items() if key in rows[0]],
        *([_word(row[key]) for key in _COLUMNS if key in row] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _word(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return " x ".join(map(str, value)) or "single"
        case float():
            return f"{value:g}"
        case _:
            return str(value)


if __name__ == "__main__":
    run_command(main)
