"""Gymnax's interface, checked before an environment of the user's own is wrapped."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from purejaxdqn.core.types import Array
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

    def reset_and_step(key: Array) -> tuple[Any, Any]:
        obs, state = env.reset(key, params)
        return (obs, state), env.step(key, state, jnp.int32(0), params)

    try:
        params = env.default_params if params is None else params
        env.action_space(params)
        (obs, state), stepped = jax.eval_shape(reset_and_step, jax.random.key(0))
    except Exception as error:  # whatever a user's environment may raise
        raise _refuse(env_id, first_line(error)) from error
    if not isinstance(stepped, tuple) or len(stepped) != 6:
        raise _refuse(env_id, "step gives obs, state, reward, terminated, truncated, info since gymnax 1.0")
    if not isinstance(stepped[5], dict) or "final_observation" not in stepped[5]:
        raise _refuse(env_id, 'step gives no info["final_observation"], the observation before a reset')
    if any(jax.tree.leaves(jax.tree.map(jnp.shape, stepped[2:5]))):
        raise _refuse(env_id, "reward, terminated and truncated of a step are single values")
    describe = functools.partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype))
    if not describe(obs) == describe(stepped[0]) == describe(stepped[5]["final_observation"]):
        raise _refuse(env_id, 'the observations of reset, step and info["final_observation"] differ in shape or type')
    if describe(state) != describe(stepped[1]):
        raise _refuse(env_id, "the states of reset and step differ in structure, shape or type")
