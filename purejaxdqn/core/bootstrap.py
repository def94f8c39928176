"""Bootstraps: the policy whose value at the next observation the target takes.

A bootstrap gets the next Q-values of both networks as functions without arguments, so that what it does
not ask for is never traced.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from purejaxdqn.core.types import Array

Bootstrap = Callable[[Callable[[], Array], Array], Array]
"""Q-values [B, A] of the online network (on demand) and of the target network -> policy [B, A]."""


def greedy(online_q: Callable[[], Array], target_q: Array) -> Array:
    """The target network's own best action (Mnih et al. 2015, eq. 2)."""
    del online_q
    return _best(target_q)


def double(online_q: Callable[[], Array], target_q: Array) -> Array:
    """The online network's best action, valued by the target network (van Hasselt et al. 2016, eq. 4)."""
    del target_q
    return _best(online_q())


def make_bootstrap(kind: str) -> Bootstrap:
    """The bootstrap called ``kind``: greedy or double."""
    match kind:
        case "greedy":
            return greedy
        case "double":
            return double
        case _:
            raise ValueError(f"bootstrap is greedy or double, not {kind!r}")


def _best(q_values: Array) -> Array:
    return jax.nn.one_hot(jnp.argmax(q_values, axis=-1), q_values.shape[-1], dtype=q_values.dtype)
