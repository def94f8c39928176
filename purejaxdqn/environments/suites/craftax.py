"""Craftax and Craftax-Classic (Matthews et al. 2024)."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from craftax.craftax_env import make_craftax_env_from_name

from purejaxdqn.core.types import Array
from purejaxdqn.environments.batched import Single

_NEVER = 2**30  # steps
_FIXED = (
    "max_timesteps",
    "fractal_noise_angles",
)  # parameters: the limit, which ``batched`` counts, and one that is None


def make(name: str, kwargs: Mapping[str, Any]) -> Single:
    """An environment of Craftax. Craftax reports its time limit as a termination, so ``batched`` counts it instead.

    A new world costs more than ten steps in it (``env.resets``).
    """
    env = make_craftax_env_from_name(name, auto_reset=False, **kwargs)
    defaults = env.default_params
    fields = [field.name for field in dataclasses.fields(defaults) if field.name not in _FIXED]
    types = {field: jax.dtypes.canonicalize_dtype(np.asarray(getattr(defaults, field)).dtype) for field in fields}
    pixels = "Pixels" in name

    def see(obs: Array) -> Array:
        return jnp.round(255 * obs).astype(jnp.uint8) if pixels else obs

    def complete(params: Mapping[str, Any]) -> Any:
        return defaults.replace(max_timesteps=_NEVER, **params)

    def with_params(overrides: Mapping[str, Any]) -> Any:
        return {field: jnp.asarray(overrides[field], types[field]) for field in overrides}

    def reset(key: Array, params: Any) -> tuple[Array, Any]:
        obs, state = env.reset_env(key, complete(params))
        return see(obs), state

    def step(key: Array, state: Any, action: Array, params: Any) -> tuple:
        obs, state, reward, done, _ = env.step_env(key, state, action, complete(params))
        return see(obs), state, reward, done, jnp.bool_(False)

    return Single(
        env_id=f"craftax:{name}",
        num_actions=env.num_actions,
        reset=reset,
        step=step,
        params={},
        with_params=with_params,
        types=types,
        time_limit=defaults.max_timesteps,
        scale=255.0 if pixels else None,
        render=functools.partial(_render, "Classic" in name),
    )


def _render(classic: bool, params: Any, state: Any) -> np.ndarray:
    return np.asarray(_renderer(classic)(state)).astype(np.uint8)


@functools.cache
def _renderer(classic: bool) -> Any:
    if classic:
        from craftax.craftax_classic import renderer
    else:
        from craftax.craftax import renderer
    return jax.jit(renderer.make_craftax_pixel_renderer(16))
