"""Import JAX for a command: a setting in the environment that JAX refuses is reported in one line.

A command that imports JAX at its top imports this first: it takes half a second, in which a terminal shows a word.
"""

import sys

from purejaxdqn.system.collector import START
from purejaxdqn.system.status import Status

START.pause()
try:
    with Status("starting", quiet="--quiet" in sys.argv or not sys.stderr.isatty()):
        import jax  # noqa: F401
except ValueError as error:
    print(f"error: {error}; it is set in the environment", file=sys.stderr)
    sys.exit(2)
