"""What an environment of the user's own must give, checked before it is wrapped."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxdqn.core.types import Array
from purejaxdqn.environments.batched import Single
from purejaxdqn.environments.wrappers import EnvironmentRefusedError, first_line


def _refuse(env_id: str, message: str) -> EnvironmentRefusedError:
    return EnvironmentRefusedError("env.id", f"{env_id} does not have gymnax's interface: {message}")


def check_parts(env: Any, env_id: str) -> None:
    """Refuse an environment, or its class, that lacks a function of gymnax's interface; calls nothing."""
    lacks = [part for part in ("reset", "step", "action_space") if not callable(getattr(env, part, None))]
    if lacks:
        raise _refuse(env_id, f"it lacks {', '.join(lacks)}")


def check_interface(env: Any, env_id: str, params: Any = None) -> None:
    """Trace a reset and a step, so that a missing part is reported here and not from within a program.

    Args:
      env: the environment.
      env_id: its name, for messages.
      params: its parameters, ``env.default_params`` unless given.

    Raises:
      EnvironmentRefusedError: names the part.
    """
    check_parts(env, env_id)
    if isinstance(env, type):
        raise _refuse(env_id, "it is a class; an instance is needed")

    def reset_and_step(key: Array, action: Array) -> tuple[Any, Any]:
        obs, state = env.reset(key, params)
        return (obs, state), env.step(key, state, action, params)

    try:
        params = env.default_params if params is None else params
        env.action_space(params)
        (obs, state), stepped = jax.eval_shape(reset_and_step, jax.random.key(0), jnp.int32(0))
    except Exception as error:  # whatever a user's environment may raise
        raise _refuse(env_id, first_line(error)) from error
    if not isinstance(stepped, tuple) or len(stepped) != 6:
        raise _refuse(env_id, "step gives obs, state, reward, terminated, truncated, info since gymnax 1.0")
    if not isinstance(stepped[5], dict) or "final_observation" not in stepped[5]:
        raise _refuse(env_id, 'step gives no info["final_observation"], the observation before a reset')
    if any(jax.tree.leaves(jax.tree.map(jnp.shape, stepped[2:5]))):
        raise _refuse(env_id, "reward, terminated and truncated of a step are single values")
    if not _kinds(obs) == _kinds(stepped[0]) == _kinds(stepped[5]["final_observation"]):
        raise _refuse(env_id, 'the observations of reset, step and info["final_observation"] differ in shape or type')
    if _kinds(state) != _kinds(stepped[1]):
        raise _refuse(env_id, "the states of reset and step differ in structure, shape or type")


def check_single(single: Single, *, key: str = "env.id") -> None:
    """Trace the functions of a ``Single``, so that a fault is reported here and not from within a program.

    Args:
      single: one environment.
      key: the config key at fault.

    Raises:
      EnvironmentRefusedError: names the function.
    """

    def refuse(message: str) -> EnvironmentRefusedError:
        return EnvironmentRefusedError(key, f"{single.env_id}: {message}")

    def trace(name: str, function: Any, *given: Any) -> Any:
        try:
            return jax.eval_shape(lambda *given: function(*given, single.params), *given)
        except Exception as error:  # whatever a user's environment may raise
            raise refuse(f"{name} fails: {first_line(error)}") from error

    if not isinstance(single.num_actions, int | np.integer) or single.num_actions < 1:
        raise refuse(f"num_actions: {single.num_actions!r} is not a number of actions")
    check_limit(f"the time limit of {single.env_id}", single.time_limit, key=key)
    rng = jax.random.key(0)
    start = trace("reset", single.reset, rng)
    if not isinstance(start, tuple) or len(start) != 2:
        raise refuse("reset gives obs, state")
    obs, state = start
    if not isinstance(obs, jax.ShapeDtypeStruct) or not is_storable(obs.dtype):
        raise refuse(f"observations are {getattr(obs, 'dtype', 'not one array')}")
    stepped = trace("step", single.step, rng, state, jnp.int32(0))
    if not isinstance(stepped, tuple) or len(stepped) != 5:
        raise refuse("step gives obs, state, reward, terminated, truncated")
    if _kinds(obs) != _kinds(stepped[0]):
        raise refuse("the observations of reset and step differ in shape or type")
    if _kinds(state) != _kinds(stepped[1]):
        raise refuse("the states of reset and step differ in structure, shape or type")
    if any(jax.tree.leaves(jax.tree.map(jnp.shape, stepped[2:]))):
        raise refuse("reward, terminated and truncated of a step are single values")
    if single.legal is None:
        return
    legal = trace("legal", single.legal, state)
    if _kinds(legal) != _kinds(jax.ShapeDtypeStruct((single.num_actions,), np.dtype(bool))):
        raise refuse(f"legal gives {legal}; it must be bool of shape ({single.num_actions},)")


def check_limit(name: str, limit: Any, *, key: str) -> None:
    """Refuse a time limit that is no number of steps."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | np.integer) or limit < 1):
        raise EnvironmentRefusedError(key, f"{name}: {limit!r} is not a number of steps")


def is_storable(dtype: Any) -> bool:
    """Whether replay can keep such numbers: real ones of a byte or more."""
    if jnp.issubdtype(dtype, jnp.integer):
        return bool(jnp.iinfo(dtype).bits >= 8)
    return dtype == np.dtype(bool) or (jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 8)


def _kinds(tree: Any) -> Any:
    """The structure of a tree, and shapes and types of its leaves.

    They are not a tree again, because a record of a suite may compare arrays in its own ``__eq__``.
    """
    return jax.tree.structure(tree), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]
