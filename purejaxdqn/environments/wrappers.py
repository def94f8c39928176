"""Wrappers around environments of any suite."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.core.environment import Environment, all_legal, render_inner
from purejaxdqn.core.types import Array, Step


class EnvironmentRefusedError(ValueError):
    """An environment that cannot be made; ``key`` is the config key at fault."""

    def __init__(self, key: str, message: str):
        super().__init__(message)
        self.key = key


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


_MAX_DEPTH = 100_000  # of a one-hot axis; a larger range is not a number of states


def observation_features(
    obs: Array,
    *,
    depth: int,
    flatten: bool,
    scale: float | None = None,
    own: Callable[[Array], Array] | None = None,
) -> Array:
    """What a network sees of observations [B, O].

    Args:
      obs: [B, O].
      depth: integers become one-hot along a new last axis of this length, unless it is 0.
      flatten: whether the features get one axis, [B, F].
      scale: observations, or the environment's own features, are divided by it, unless they become one-hot.
      own: the environment's own features.
    """
    if depth:
        seen = jax.nn.one_hot(obs, depth, dtype=bool)
    else:
        seen = obs if own is None else own(obs)
        seen = seen if scale is None else seen.astype(jnp.float32) / scale
    return seen.reshape(seen.shape[0], -1) if flatten else seen


def with_features(env: Environment, *, one_hot: bool = False, flatten: bool = False) -> Environment:
    """``env`` with the features that these options, its ``scale`` and its own features make of its observations.

    Raises:
      EnvironmentRefusedError: observations are not integers of a known range, which ``one_hot`` needs, or the
        environment has features of its own, which ``one_hot`` would replace.
    """
    depth = _one_hot_depth(env) if one_hot else 0
    if not depth and not flatten and env.scale is None:
        return env
    make = functools.partial(observation_features, depth=depth, flatten=flatten, scale=env.scale, own=env.own_features)
    return env._replace(features=make)


def _one_hot_depth(env: Environment) -> int:
    """How many values an integer observation can take."""
    env_id = env.env_id
    if env.own_features is not None:
        raise EnvironmentRefusedError("env.one_hot", f"{env_id} makes features of its own, which are not one-hot")
    if not jnp.issubdtype(env.obs_dtype, jnp.integer):
        raise EnvironmentRefusedError("env.one_hot", f"observations of {env_id} are {env.obs_dtype}, not integers")
    unknown = f"{env_id} does not declare the range of its observations"
    if env.bounds is None:
        raise EnvironmentRefusedError("env.one_hot", unknown)
    try:
        low, high = env.bounds()
    except Exception as error:  # whatever a user's environment may raise
        raise EnvironmentRefusedError("env.one_hot", f"{unknown}: {first_line(error)}") from error
    if not 0 <= low <= high < _MAX_DEPTH:
        message = f"observations of {env_id} range from {low} to {high}; one-hot needs 0 to {_MAX_DEPTH - 1} at most"
        raise EnvironmentRefusedError("env.one_hot", message)
    return int(high) + 1


class _StickyState(NamedTuple):
    env_state: Any  # leaves [E, ...]
    last_action: Array  # [E] int32: the action executed last in this episode, 0 before its first step


def with_sticky_actions(env: Environment, probability: float) -> Environment:
    """``env`` where each step, with ``probability``, repeats the action executed before; ``Step.action`` is the choice.

    This replaces gymnax's ``StickyActionWrapper``, which carries the last action over a reset into the next episode;
    the ALE, whose sticky actions these are (Machado et al. 2018), forgets it. Before the first step of an episode,
    action 0 counts as executed, as in the ALE and in MinAtar, where it does nothing. An action that has become illegal
    is not repeated: it may end the episode.
    """
    if not probability:
        return env

    def reset(params: Any, keys: Array) -> tuple[Array, Any]:
        obs, env_state = env.reset(params, keys)
        return obs, _StickyState(env_state, jnp.zeros(keys.shape[0], jnp.int32))

    def step(
        params: Any, keys: Array, state: Any, obs: Array, action: Array, *, of_env: Callable = env.step
    ) -> tuple[Array, Any, Step]:
        repeat_keys, step_keys = jax.vmap(lambda key: tuple(jax.random.split(key)))(keys)
        repeat = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(repeat_keys)
        if env.legal is not all_legal:
            allowed = env.legal(params, state.env_state)
            repeat = repeat & jnp.take_along_axis(allowed, state.last_action[:, None], axis=1)[:, 0]
        executed = jnp.where(repeat, state.last_action, action)
        next_obs, env_state, happened = of_env(params, step_keys, state.env_state, obs, executed)
        last_action = jnp.where(happened.terminated | happened.truncated, 0, executed)
        return next_obs, _StickyState(env_state, last_action), happened._replace(action=action)

    def legal(params: Any, state: Any) -> Any:
        return env.legal(params, state.env_state)

    return env._replace(
        reset=reset,
        step=step,
        advance=functools.partial(step, of_env=env.advance),
        legal=env.legal if env.legal is all_legal else legal,
        render=render_inner(env.render),
    )
