"""``python -m purejaxdqn.envs [--json]``: the environments that can be trained on."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

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
    import jax

    from purejaxdqn.system.runtime import start_jax

    jax.config.update("jax_platforms", "cpu")  # a list needs no GPU memory
    start_jax()
    rows = list(describe_environments())
    if arguments.json:
        print(json.dumps(rows))
    else:
        print("\n".join(_table(rows)))
    return 0


def describe_environments() -> Iterator[dict[str, Any]]:
    """Describe each environment with discrete actions.

    Yields:
      ``id``; ``observation_shape`` and ``observation_dtype`` of one observation, as replay stores it; ``actions``;
      ``time_limit`` in steps; ``solved_at``, a return, or None if there is no accepted one.
    """
    from purejaxdqn.environments.registry import EnvironmentRefusedError, environment_ids, make_environment

    for env_id in environment_ids():
        try:
            env = make_environment(env_id)
        except EnvironmentRefusedError:  # continuous actions
            continue
        yield {
            "id": env_id,
            "observation_shape": list(env.obs_shape),
            "observation_dtype": str(env.obs_dtype),
            "actions": env.num_actions,
            "time_limit": env.time_limit,
            "solved_at": env.solved_at,
        }


def _table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines of aligned columns; they are never cut, since a pipe has no width."""
    words = {
        "observation_shape": "observation",
        "observation_dtype": "type",
        "time_limit": "time limit",
        "solved_at": "solved",
    }
    cells = [[words.get(key, key) for key in rows[0]], *([_word(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _word(value: Any) -> str:
    match value:
        case None:
            return "-"
        case list():
            return " x ".join(map(str, value)) or "single"
        case float():
            return f"{value:g}"
        case _:
            return str(value)


if __name__ == "__main__":
    run_command(main)
