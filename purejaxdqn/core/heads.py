"""Heads: what a network's output means, the target it is moved towards, and the loss between them.

A head answers three questions for the agent, which never looks inside a network's output itself.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from purejaxdqn.core.types import Array


class Head(NamedTuple):
    """Pure functions over network outputs ``out``."""

    q_values: Callable[[Array], Array]  # out -> [B, A]
    target: Callable[[Array, Array, Array, Array], Array]
    # out at next_obs, policy[B, A], reward[B], discount[B] -> target [B]
    loss: Callable[[Array, Array, Array], tuple[Array, Array]]
    # out at obs, action[B], target -> loss [B], TD error [B]


def scalar_head(loss: str) -> Head:
    """The expected return as one number per action (Watkins 1989; Mnih et al. 2015, eq. 2).

    target = reward + discount * sum_a policy(a) q(next_obs, a), held fixed while the loss is differentiated.

    Args:
      loss: ``huber``, half the squared TD error up to 1 and its absolute value less a half beyond;
        ``squared``, the squared TD error.
    """
    match loss:
        case "huber":
            penalty = optax.huber_loss
        case "squared":
            penalty = jnp.square
        case _:
            raise ValueError(f"loss is huber or squared, not {loss!r}")

    def target(out: Array, policy: Array, reward: Array, discount: Array) -> Array:
        return jax.lax.stop_gradient(reward + discount * jnp.sum(policy * out, axis=-1))

    def batch_loss(out: Array, action: Array, target: Array) -> tuple[Array, Array]:
        td_error = target - jnp.take_along_axis(out, action[:, None], axis=-1)[:, 0]
        return penalty(td_error), td_error

    return Head(q_values=lambda out: out, target=target, loss=batch_loss)
