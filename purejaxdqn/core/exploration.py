"""Exploration: the epsilon-greedy policy and its schedule."""

import jax.numpy as jnp

from purejaxdqn.core.draws import Draws
from purejaxdqn.core.types import Array, HParams


def epsilon(hparams: HParams, env_step: Array, *, warmup: int) -> Array:
    """Return the chance of a random action at ``env_step``: linear from start to end, from the end of the warm-up on.

    The decay takes ``epsilon_fraction`` of the horizon, in environment steps over all environments.
    """
    decay_steps = jnp.maximum(hparams.epsilon_fraction * hparams.horizon, 1.0)
    progress = jnp.clip((env_step - warmup) / decay_steps, 0.0, 1.0)
    return hparams.epsilon_start + progress * (hparams.epsilon_end - hparams.epsilon_start)


def epsilon_greedy(q_values: Array, epsilon: Array, draws: Draws) -> Array:
    """Actions [E]: the greedy ones of q_values [E, A], or the drawn ones with chance ``epsilon``."""
    return jnp.where(draws.explore < epsilon, draws.random_action, jnp.argmax(q_values, axis=-1))
