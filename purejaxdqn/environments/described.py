"""The description of the environments that needs no import of a suite."""

from collections.abc import Iterator
from typing import Any

from purejaxdqn.environments.importing import is_installed
from purejaxdqn.environments.listed import LISTED, SUITES, suite_of


def describe_environments() -> Iterator[dict[str, Any]]:
    """Describe each environment with one discrete action; imports no suite.

    Yields:
      ``id``; ``suite``; ``observation_shape`` and ``observation_dtype`` of one observation, as replay stores it;
      ``actions``; ``illegal_actions``, whether some of them are illegal at times; ``time_limit`` in steps;
      ``solved_at``, a return, or None if there is no accepted one; ``installed``, whether its suite is; and
      ``install``, what pip installs.
    """
    installed = {suite: is_installed(suite) for suite in SUITES}
    for env_id, row in LISTED.items():
        suite = suite_of(env_id)
        yield {
            "id": env_id,
            "suite": suite or "gymnax",
            "observation_shape": list(row.shape),
            "observation_dtype": row.dtype,
            "actions": row.actions,
            "illegal_actions": row.illegal,
            "time_limit": row.time_limit,
            "solved_at": row.solved_at,
            "installed": suite is None or installed[suite],
            "install": SUITES[suite].install if suite else "purejaxdqn",
        }
