"""Greedy episodes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purejaxdqn.core.algorithm import ActorView, all_starting, greedy
from purejaxdqn.core.environment import Environment
from purejaxdqn.core.types import Array

MAX_STEPS = 100_000
"""The largest number of steps of an evaluation episode, as not every environment has a time limit."""

Values = Callable[[ActorView], tuple[Array, Any]]
"""What the actors see [N] -> Q-values [N, A], memory."""


def greedy_returns(
    env: Environment, values: Values, env_params: Any, key: Array, *, episodes: int, memory: Any = ()
) -> Array:
    """Undiscounted returns [episodes] of the greedy policy, one episode in each of as many environments.

    Runs until the last episode ends; environments whose episode has ended wait in their last state. An episode that
    is longer than ``MAX_STEPS`` counts with the return of its first ``MAX_STEPS`` steps. Consumes ``key``.

    Args:
      env: the environment.
      values: the Q-values of the policy.
      env_params: the environment's parameters.
      key: for resets and steps.
      episodes: N.
      memory: of N actors before their first step, leaves [N, ...].
    """
    keys = jax.random.split(key, episodes + 1)
    obs, env_state = env.reset(env_params, keys[1:])
    start = all_starting(memory, episodes)

    def body(carry: tuple) -> tuple:
        time, key, obs, env_state, memory, start, running, returns = carry
        keys = jax.random.split(key, episodes + 1)
        legal = env.legal(env_params, env_state)
        q_values, memory = values(ActorView(obs, legal, memory, start))
        *after, step = env.advance(env_params, keys[1:], env_state, obs, greedy(q_values, legal))
        obs, env_state = jax.tree.map(functools.partial(_where, running), tuple(after), (obs, env_state))
        returns = returns + jnp.where(running, step.reward, 0.0)
        running = running & ~(step.terminated | step.truncated)
        return time + 1, keys[0], obs, env_state, memory, jax.tree.map(jnp.zeros_like, start), running, returns

    running, returns = jnp.ones(episodes, bool), jnp.zeros(episodes)
    carry = (jnp.int32(0), keys[0], obs, env_state, memory, start, running, returns)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[6]) & (carry[0] < MAX_STEPS), body, carry)[7]


def _where(condition: Array, x: Array, y: Array) -> Array:
    """``jnp.where`` with a condition [E] for leaves [E, ...]."""
    return jnp.where(condition.reshape(condition.shape + (1,) * (x.ndim - condition.ndim)), x, y)
