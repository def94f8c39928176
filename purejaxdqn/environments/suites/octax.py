"""Octax (Radji et al. 2025): games of the CHIP-8, emulated."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from octax.environments import create_environment

from purejaxdqn.core.types import Array
from purejaxdqn.environments.batched import Single

_NEVER = 2**30  # steps


def make(name: str, kwargs: Mapping[str, Any]) -> Single:
    """A game of Octax. Observations are the frames of a step as channels, [32, 64, 4] bool.

    A reset draws no random numbers, and many games draw few: episodes of one policy may be alike.
    """
    limit = {"max_num_steps_per_episodes": 4500, **kwargs}["max_num_steps_per_episodes"]
    with _quiet():
        env, _ = create_environment(name, **{**kwargs, "max_num_steps_per_episodes": _NEVER})

    def see(frames: Array) -> Array:  # [4, width, height]
        return jnp.transpose(frames, (2, 1, 0)).astype(bool)

    def reset(key: Array, params: Any) -> tuple[Array, Any]:
        state, frames, _ = env.reset(key)
        return see(frames), state

    def step(key: Array, state: Any, action: Array, params: Any) -> tuple:
        with _quiet():
            state, frames, reward, terminated, _, _ = env.step(state, action)
        return see(frames), state, reward, terminated, jnp.bool_(False)

    return Single(
        env_id=f"octax:{name}",
        num_actions=env.num_actions,
        reset=reset,
        step=step,
        time_limit=limit,
        render=lambda params, state: _render(np.asarray(state.display)),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """While octax is traced, JAX warns of the types of its machine code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _render(display: np.ndarray) -> np.ndarray:
    """A display [width, height] of lights that are on or off."""
    picture = np.where(display.T[..., None].astype(bool), (240, 240, 236), (24, 27, 33)).astype(np.uint8)
    return picture.repeat(8, 0).repeat(8, 1)
