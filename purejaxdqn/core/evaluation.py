"""Greedy episodes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purejaxdqn.core.types import Array
from purejaxdqn.environments.registry import Environment

MAX_STEPS = 100_000
"""Steps of an episode that are waited for: an agent may balance for ever where nothing else ends an episode."""


def greedy_returns(
    env: Environment, q_values: Callable[[Array], Array], env_params: Any, key: Array, *, episodes: int
) -> Array:
    """Undiscounted returns [episodes] of the greedy policy, one episode in each of as many environments.

    Runs until the last episode ends, while those that have ended wait where they did; of one that goes on after
    ``MAX_STEPS``, what it has earned till then counts. Consumes ``key``.
    """
    keys = jax.random.split(key, episodes + 1)
    obs, env_state = env.reset(env_params, keys[1:])

    def body(carry: tuple) -> tuple:
        time, key, obs, env_state, running, returns = carry
        keys = jax.random.split(key, episodes + 1)
        action = jnp.argmax(q_values(obs), axis=-1)
        *after, step = env.advance(env_params, keys[1:], env_state, obs, action)
        obs, env_state = jax.tree.map(functools.partial(_where, running), tuple(after), (obs, env_state))
        returns = returns + jnp.where(running, step.reward, 0.0)
        running = running & ~(step.terminated | step.truncated)
        return time + 1, keys[0], obs, env_state, running, returns

    start = (jnp.int32(0), keys[0], obs, env_state, jnp.ones(episodes, bool), jnp.zeros(episodes))
    return jax.lax.while_loop(lambda carry: jnp.any(carry[4]) & (carry[0] < MAX_STEPS), body, start)[5]


def _where(condition: Array, x: Array, y: Array) -> Array:
    """``jnp.where`` with a condition [E] for leaves [E, ...]."""
    return jnp.where(condition.reshape(condition.shape + (1,) * (x.ndim - condition.ndim)), x, y)
