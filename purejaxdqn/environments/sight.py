"""What an agent sees of observations: some of their features, and the last of them stacked.

The parts are separate from the wrapper, for playing environments without it: Gymnasium's, and those that are filmed.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from purejaxdqn.core.environment import Environment
from purejaxdqn.core.types import Array, Step
from purejaxdqn.environments.wrappers import EnvironmentRefusedError


class Sight(NamedTuple):
    """Pure functions of observations [E, O] as the environment gives them; what is seen, S, is [P] or [N, P]."""

    first: Callable[[Array], Array]  # obs[E, O] of an episode's start -> seen[E, S]
    after: Callable[[Array, Array], Array]  # seen[E, S] before, obs[E, O] -> seen[E, S]


def make_sight(observe: Sequence[int] = (), frame_stack: int = 1) -> Sight:
    """What is seen.

    Args:
      observe: indices of the features of observations that are vectors; () for whole observations of any shape.
      frame_stack: N, how many observations are seen at once, along a new first axis, the newest last; an episode
        starts with its first one repeated (Mnih et al. 2015, methods). 1 adds no axis.
    """

    def part(obs: Array) -> Array:
        return obs[..., np.array(observe)] if observe else obs

    if frame_stack == 1:
        return Sight(part, lambda seen, obs: part(obs))
    return Sight(
        first=lambda obs: jnp.repeat(part(obs)[:, None], frame_stack, axis=1),
        after=lambda seen, obs: jnp.concatenate([seen[:, 1:], part(obs)[:, None]], axis=1),
    )


def with_sight(env: Environment, observe: Sequence[int] = (), frame_stack: int = 1) -> Environment:
    """``env`` of which an agent sees less, or more at once: see ``make_sight``.

    Raises:
      EnvironmentRefusedError: observations are not vectors, or have no such feature.
    """
    if not observe and frame_stack == 1:
        return env
    _check_observe(env, observe)
    sight = make_sight(observe, frame_stack)
    shape = (len(observe),) if observe else env.obs_shape

    def reset(params: Any, keys: Array) -> tuple[Array, Any]:
        obs, state = env.reset(params, keys)
        return sight.first(obs), state

    def step(params: Any, keys: Array, state: Any, seen: Array, action: Array) -> tuple[Array, Any, Step]:
        obs, state, happened = env.step(params, keys, state, seen, action)
        happened = happened._replace(obs=seen, next_obs=sight.after(seen, happened.next_obs))
        ended = happened.terminated | happened.truncated
        if frame_stack == 1:
            return sight.first(obs), state, happened
        start = ended.reshape(ended.shape + (1,) * (seen.ndim - 1))
        return jnp.where(start, sight.first(obs), sight.after(seen, obs)), state, happened

    def advance(params: Any, keys: Array, state: Any, seen: Array, action: Array) -> tuple[Array, Any, Step]:
        _, state, happened = env.advance(params, keys, state, seen, action)
        happened = happened._replace(obs=seen, next_obs=sight.after(seen, happened.next_obs))
        return happened.next_obs, state, happened

    return env._replace(
        obs_shape=shape if frame_stack == 1 else (frame_stack, *shape),
        reset=reset,
        step=step,
        advance=advance,
        features=functools.partial(stacked_features, env.features, frame_stack),
        frames=frame_stack,
    )


def stacked_features(features: Callable[[Array], Array], frame_stack: int, seen: Array) -> Array:
    """What a network sees [B, ..., N * F] of seen [B, N, ...], by the features [..., F] of each observation."""
    if frame_stack == 1:
        return features(seen)
    each = features(seen.reshape(-1, *seen.shape[2:]))
    each = each.reshape(-1, frame_stack, *(each.shape[1:] or (1,)))
    last = jnp.moveaxis(each, 1, -2)
    return last.reshape(*last.shape[:-2], math.prod(last.shape[-2:]))


def _check_observe(env: Environment, observe: Sequence[int]) -> None:
    if observe and len(env.obs_shape) != 1:
        message = f"{list(observe)} needs observations that are vectors; those of {env.env_id} are"
        raise EnvironmentRefusedError("env.observe", f"{message} {list(env.obs_shape) or 'single numbers'}")
    for index in observe:
        if index >= env.obs_shape[0]:
            last = env.obs_shape[0] - 1
            raise EnvironmentRefusedError(
                "env.observe", f"{index} is no feature of {env.env_id}, which has 0 to {last}"
            )
