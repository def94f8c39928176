"""Environments: gymnax behind a small record of batched pure functions. The only file that imports gymnax."""

import difflib
import functools
import importlib
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.core.types import Array, Step


class _Later(types.ModuleType):
    """Stands in for a module that is imported when something in it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@functools.cache
def _gymnax() -> Any:
    """Import gymnax late and light.

    Late, because its import makes arrays and so starts JAX, after which threads and devices are settled.
    Light, because at its top it imports plotting libraries that only its renderers use, half of its time.
    """
    stand_ins = {name: _Later(name) for name in ("seaborn", "matplotlib.pyplot") if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("gymnax")
    finally:
        for name in stand_ins:
            del sys.modules[name]


# Downloads data when it is constructed.
_LEFT_OUT = ("MNISTBandit-bsuite",)

SOLVED_AT: Mapping[str, float] = {"CartPole-v1": 475.0, "Acrobot-v1": -100.0, "MountainCar-v0": -110.0}
"""Return at or above which an environment counts as solved, where the field agrees on one."""


class Environment(NamedTuple):
    """A batch of environments that reset themselves. ``params`` is what ``with_params`` returns."""

    env_id: str
    obs_shape: tuple[int, ...]
    obs_dtype: Any
    num_actions: int
    default_params: Any
    with_params: Callable[[Mapping[str, Any]], Any]  # overrides -> environment parameters
    reset: Callable[[Any, Array], tuple[Array, Any]]  # params, keys[E] -> obs[E, O], state
    step: Callable[[Any, Array, Any, Array, Array], tuple[Array, Any, Step]]
    # params, keys[E], state, obs[E, O], action[E] -> the obs to act on next[E, O], state, Step[E]


class EnvironmentRefusedError(ValueError):
    """An environment that cannot be made; ``key`` is the config key at fault."""

    def __init__(self, key: str, message: str):
        super().__init__(message)
        self.key = key


def environment_ids() -> list[str]:
    """The gymnax environments that can be trained on without downloading anything."""
    return [name for name in _gymnax().registered_envs if name not in _LEFT_OUT]


def make_environment(env_id: str, kwargs: Mapping[str, Any] | None = None) -> Environment:
    """Make the gymnax environment ``env_id`` (``kwargs`` go to ``gymnax.make``).

    Raises:
      EnvironmentRefusedError: the id is unknown, the arguments do not fit, or the actions are not discrete.
    """
    if env_id not in environment_ids():
        close = difflib.get_close_matches(env_id, environment_ids(), n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise EnvironmentRefusedError("env.id", f"{env_id!r} is not an environment gymnax has{hint}")
    try:
        env, params = _gymnax().make(env_id, **(kwargs or {}))
    except Exception as error:  # whatever an environment's constructor may raise
        raise EnvironmentRefusedError("env.kwargs", f"{dict(kwargs or {})} do not fit {env_id}: {error}") from error
    return from_gymnax(env, params, env_id=env_id)


def from_gymnax(env: Any, params: Any = None, *, env_id: str | None = None) -> Environment:
    """Wrap one environment with gymnax's interface (``reset``, ``step``, ``action_space`` ...).

    Args:
      env: the environment; its ``step`` resets by itself and reports ``info["final_observation"]``.
      params: its parameters, ``env.default_params`` unless given.
      env_id: a name, the environment's own unless given.

    Raises:
      EnvironmentRefusedError: the actions are not discrete.
    """
    default_params = env.default_params if params is None else params
    env_id = env_id or str(env.name)
    actions = env.action_space(default_params)
    if not hasattr(actions, "n"):
        raise EnvironmentRefusedError("env.id", f"{env_id!r} has continuous actions; Q-learning needs discrete ones")
    observation = jax.eval_shape(lambda: env.reset(jax.random.key(0), default_params)[0])

    def with_params(overrides: Mapping[str, Any]) -> Any:
        cast = {name: _cast_like(getattr(default_params, name), value) for name, value in overrides.items()}
        return default_params.replace(**cast) if cast else default_params

    def reset(params: Any, keys: Array) -> tuple[Array, Any]:
        obs, state = jax.vmap(env.reset, (0, None))(keys, params)
        return obs, _strengthen(state)

    def step(params: Any, keys: Array, state: Any, obs: Array, action: Array) -> tuple[Array, Any, Step]:
        reset_obs, state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
            keys, state, action, params
        )
        happened = Step(
            obs=obs,
            action=action,
            reward=reward.astype(jnp.float32),
            terminated=terminated,
            truncated=truncated,
            next_obs=info["final_observation"],
        )
        return reset_obs, _strengthen(state), happened

    return Environment(
        env_id=env_id,
        obs_shape=observation.shape,
        obs_dtype=observation.dtype,
        num_actions=int(actions.n),
        default_params=default_params,
        with_params=with_params,
        reset=reset,
        step=step,
    )


def _cast_like(default: Any, value: Any) -> Array:
    return jnp.asarray(value, jnp.result_type(default))


def _strengthen(state: Any) -> Any:
    """Fix the dtypes of a state: gymnax's resets carry weak types, which would trace a scan twice."""
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.result_type(leaf)), state)
