"""Environments of the user's own: ``module:Class``, with gymnax's interface."""

import difflib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from purejaxdqn.core.types import Array
from purejaxdqn.environments.gymnax import construct, first_line
from purejaxdqn.environments.wrappers import EnvironmentRefusedError


def construct_custom(env_id: str, kwargs: Mapping[str, Any]) -> Any:
    """The environment that ``module:Class`` names. The module may be in the working directory.

    Raises:
      EnvironmentRefusedError: it cannot be imported or constructed, or lacks a part of gymnax's interface.
    """
    env = construct(_find_class(env_id), env_id, kwargs)
    _check_interface(env, env_id)
    return env


def _find_class(env_id: str) -> Callable[..., Any]:
    """The class that ``module:Class`` names."""
    module_name, _, name = env_id.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the working directory, where ``python -m`` looks and a console script does not
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module may raise
        missing = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        message = "there is no such module here or where Python looks" if missing else first_line(error)
        raise EnvironmentRefusedError("env.id", f"{env_id}: {module_name!r} cannot be imported: {message}") from error
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        close = difflib.get_close_matches(
            name, [one for one in vars(module) if inspect.isclass(getattr(module, one))], n=1
        )
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise EnvironmentRefusedError("env.id", f"{env_id}: {module_name!r} has no class {name!r}{hint}")
    # Before anything is called with arguments of the config's: a config must not be able to start a program.
    lacks = [part for part in ("reset", "step", "action_space") if not callable(getattr(found, part, None))]
    if lacks:
        message = f"{env_id} does not have gymnax's interface: it lacks {', '.join(lacks)}"
        raise EnvironmentRefusedError("env.id", message)
    return found


def _check_interface(env: Any, env_id: str) -> None:
    """Trace a reset and a step, so that a missing part is reported here and not from within a program."""

    def refuse(message: str) -> EnvironmentRefusedError:
        return EnvironmentRefusedError("env.id", f"{env_id} does not have gymnax's interface: {message}")

    def reset_and_step(key: Array) -> tuple[Any, Any]:
        obs, state = env.reset(key, env.default_params)
        return obs, env.step(key, state, jnp.int32(0), env.default_params)

    try:
        env.action_space(env.default_params)
        obs, stepped = jax.eval_shape(reset_and_step, jax.random.key(0))
    except Exception as error:  # whatever a user's environment may raise
        raise refuse(first_line(error)) from error
    if not isinstance(stepped, tuple) or len(stepped) != 6:
        raise refuse("step gives obs, state, reward, terminated, truncated, info since gymnax 1.0")
    if not isinstance(stepped[5], dict) or "final_observation" not in stepped[5]:
        raise refuse('step gives no info["final_observation"], the observation before a reset')
    if any(jnp.shape(part) for part in stepped[2:5]):
        raise refuse("reward, terminated and truncated of a step are single values")
    describe = functools.partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype))
    if not describe(obs) == describe(stepped[0]) == describe(stepped[5]["final_observation"]):
        raise refuse('the observations of reset, step and info["final_observation"] differ in shape or type')
