"""Masks: which members of an ensemble learn from a step. They are computed from the number of the step, not stored."""

import jax
import jax.numpy as jnp

from purejaxdqn.core.config import HParams
from purejaxdqn.core.draws import uniform_from_bits
from purejaxdqn.core.keys import keys_of
from purejaxdqn.core.types import Array


def masks(hparams: HParams, salt: Array, number: Array, size: int) -> Array:
    """Which members learn from steps: [size, *shape] float32, 1 with probability ``ensemble_mask`` and else 0.

    Args:
      hparams: the numbers of the run.
      salt: [] uint32, of the run.
      number: [*shape] int32, of the steps among all steps of the run.
      size: K.
    """
    # The same key whenever a step is sampled again: its mask is drawn once, as if it were stored.
    words = jnp.stack([jnp.broadcast_to(salt, number.shape), number.astype(jnp.uint32)], axis=-1).reshape(-1, 2)
    bits = jax.vmap(lambda key: jax.random.bits(key, (size,)))(keys_of(words))
    chosen = uniform_from_bits(bits) < hparams.ensemble_mask
    return chosen.astype(jnp.float32).T.reshape(size, *number.shape)


def first_rows(indices: Array, *, num_envs: int, period: int) -> Array:
    """The rows [B] of the steps with which sequences of these indices begin: see ``rings.make_sequence_ring``."""
    return indices // num_envs * (period * num_envs) + indices % num_envs


def step_numbers(rows: Array, seen: Array, capacity: int) -> Array:
    """The numbers [B], from 0, of the steps in these rows of a ring, to which ``seen`` [] steps have been added."""
    age = (seen - 1 - rows) % capacity  # 0 is the newest
    return seen - 1 - age
