"""The randomness of many iterations, drawn in one call of the generator outside the inner scans.

Every call of threefry is compiled into the program again and costs as much as a small kernel, so the
scans take their random numbers as inputs instead of splitting keys as they go.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.core.keys import keys_of
from purejaxdqn.core.types import Array


class ActDraws(NamedTuple):
    """What one call of ``Algorithm.act`` consumes, for all environments. Axes [..., T] in front hold many calls."""

    explore: Array  # [E] float32, uniform in [0, 1): below epsilon the action is random
    choice: Array  # [E] uint32: which action it is then
    key: Array  # [] PRNG key, for whatever else acting draws, such as the noise of noisy layers


class StepDraws(NamedTuple):
    """What one step of all environments consumes."""

    act: ActDraws
    env_keys: Array  # [E] PRNG keys


class LearnDraws(NamedTuple):
    """How the 32-bit random words of a call of ``Algorithm.learn`` become what it consumes."""

    shapes: tuple[tuple[int, ...], ...]  # of the parts of the words
    read: Callable[..., Any]  # parts uint32 [N, *shape] -> what N calls consume, leaves [N, ...]


def draw(key: Array, length: int, *, rollout: int, num_envs: int, learning: LearnDraws) -> tuple[StepDraws, Any]:
    """Make the draws of ``length`` iterations from one ``key``, which is consumed.

    A PRNG key is itself 64 random bits of the generator, which is all that ``jax.random.split`` makes.

    Returns:
      Draws for acting, leaves [length, rollout, ...], and for learning, leaves [length, ...].
    """
    steps = (rollout, num_envs)
    shapes = (steps, steps, (*steps, 2), (rollout, 2), *learning.shapes)
    sizes = [math.prod(shape) for shape in shapes]
    bits = jax.random.bits(key, (length, sum(sizes)), jnp.uint32)
    ends = [sum(sizes[:i]) for i in range(1, len(sizes))]
    explore, choice, env_keys, act_keys, *words = (
        part.reshape(length, *shape) for part, shape in zip(jnp.split(bits, ends, axis=1), shapes, strict=True)
    )
    act = ActDraws(uniform_from_bits(explore), choice, keys_of(act_keys))
    return StepDraws(act, keys_of(env_keys)), learning.read(*words)


NO_LEARNING = LearnDraws((), lambda: ())
"""For the warm-up, in which nothing is learned."""


def random_action(bits: Array, legal: Any, num_actions: int) -> Array:
    """Uniformly random legal actions [E] int32 from uint32 bits [E].

    Bits modulo the number of actions favour none by more than num_actions / 2^32.

    Args:
      bits: [E] uint32.
      legal: [E, A] bool, or () where all actions are legal.
      num_actions: A.
    """
    if isinstance(legal, tuple):
        return (bits % num_actions).astype(jnp.int32)
    count = jnp.sum(legal, axis=-1, dtype=jnp.uint32)
    nth = (bits % jnp.maximum(count, 1)).astype(jnp.int32)
    return jnp.argmax(jnp.cumsum(legal, axis=-1) > nth[:, None], axis=-1).astype(jnp.int32)


def uniform_from_bits(bits: Array) -> Array:
    """Map uint32 to float32, uniform in [0, 1), on the grid of 2^-24."""
    return (bits >> 8).astype(jnp.float32) * jnp.float32(2**-24)
