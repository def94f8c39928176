"""The randomness of many iterations, drawn in one call of the generator outside the inner scans.

Every call of threefry is compiled into the program again and costs as much as a small kernel, so the
scans take their random numbers as inputs instead of splitting keys as they go.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.core.types import Array


class Draws(NamedTuple):
    """What the steps of one iteration consume. A further axis in front holds several iterations."""

    explore: Array  # [T, E] float32, uniform in [0, 1)
    random_action: Array  # [T, E] int32
    step_keys: Array  # [T, E] PRNG keys
    noise_key: Array  # [T] PRNG keys, for the noise of acting


class UpdateDraws(NamedTuple):
    """What the gradient steps of one iteration consume."""

    sample: Array  # [G, B] uint32, for ``Replay.sample``
    key: Array  # [G] PRNG keys, for ``Agent.update``


def draw(
    key: Array, length: int, *, rollout: int, num_envs: int, num_actions: int, gradient_steps: int, batch_size: int
) -> tuple[Draws, UpdateDraws]:
    """Make the draws of ``length`` iterations from one ``key``, which is consumed.

    A PRNG key is itself 64 random bits of the generator, which is all that ``jax.random.split`` makes.
    An action is bits modulo ``num_actions``, which favours none by more than num_actions / 2^32.

    Returns:
      Draws for acting and for learning, with an axis ``length`` in front.
    """
    steps, batches = (rollout, num_envs), (gradient_steps, batch_size)
    shapes = (steps, steps, (*steps, 2), (rollout, 2), batches, (gradient_steps, 2))
    sizes = [math.prod(shape) for shape in shapes]
    bits = jax.random.bits(key, (length, sum(sizes)), jnp.uint32)
    ends = [sum(sizes[:i]) for i in range(1, len(sizes))]
    explore, action, step_keys, noise, samples, update = (
        part.reshape(length, *shape) for part, shape in zip(jnp.split(bits, ends, axis=1), shapes, strict=True)
    )
    acting = Draws(
        explore=uniform_from_bits(explore),
        random_action=(action % num_actions).astype(jnp.int32),
        step_keys=_as_keys(step_keys),
        noise_key=_as_keys(noise),
    )
    return acting, UpdateDraws(samples, _as_keys(update))


def _as_keys(words: Array) -> Array:
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def uniform_from_bits(bits: Array) -> Array:
    """Map uint32 to float32, uniform in [0, 1), on the grid of 2^-24."""
    return (bits >> 8).astype(jnp.float32) * jnp.float32(2**-24)
