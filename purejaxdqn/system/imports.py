"""Import JAX for a command: a setting in the environment that JAX refuses is told in one line.

A command that imports JAX at its top imports this first.
"""

import sys

try:
    import jax  # noqa: F401
except ValueError as error:
    print(f"error: {error}; it is set in the environment", file=sys.stderr)
    sys.exit(2)
