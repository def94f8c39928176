"""Rows: the last steps as they were taken, one a row. The only file that imports flashbax."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flashbax
import jax
import jax.numpy as jnp

from purejaxdqn.core import kernels
from purejaxdqn.core.types import Array, Step


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["experience", "current_index", "is_full"],
    meta_fields=["obs_shape"],
)
@dataclasses.dataclass(frozen=True)
class Rows:
    """Steps in a ring, whose observations are kept as vectors of F numbers.

    A TPU pads two axes of an array to whole tiles. It would keep an observation of [10, 10, 4] in tiles of [4, 128], in
    13 times its bytes; one of [400] takes 1.3 times its bytes.
    """

    experience: Step  # leaves [1, size, ...], observations [1, size, F]
    current_index: Array  # [] int32: the row that is written next
    is_full: Array  # [] bool
    obs_shape: tuple[int, ...]  # O, static

    def obs(self, rows: Array) -> Array:
        """The observations [..., O] at rows [...]."""
        return self._at(self.experience.obs, rows)

    def next_obs(self, rows: Array) -> Array:
        """The observations [..., O] after the steps at rows [...]."""
        return self._at(self.experience.next_obs, rows)

    def _at(self, kept: Array, rows: Array) -> Array:
        return kept[0, rows].reshape(*rows.shape, *self.obs_shape)


class Buffer(NamedTuple):
    """What both rings do with their rows."""

    init: Callable[[Step], Rows]  # one step as an example -> no rows
    add: Callable[[Rows, Step], Rows]  # steps with leaves [T, E, ...]


def make_buffer(size: int, num_envs: int, frames: int = 1) -> Buffer:
    """A buffer of flashbax.

    Args:
      size: rows.
      num_envs: E.
      frames: observations of a stack, which is the first axis of what is added. The newest alone are kept.
    """
    buffer = flashbax.make_item_buffer(max_length=size, min_length=1, sample_batch_size=1, add_batches=True)
    write = functools.partial(_write, wraps=size % num_envs != 0)

    def newest(steps: Step, axes: int) -> Step:
        """Of stacks of observations the newest alone; ``axes`` come before that of the stack."""
        if frames == 1:
            return steps
        place = (slice(None),) * axes + (-1,)
        return steps._replace(obs=steps.obs[place], next_obs=steps.next_obs[place])

    def flat(steps: Step, axes: int) -> Step:
        """Observations as vectors; ``axes`` come before their own."""

        def as_vectors(obs: Array) -> Array:
            return jnp.reshape(obs, (*obs.shape[:axes], math.prod(obs.shape[axes:])))

        return steps._replace(obs=as_vectors(steps.obs), next_obs=as_vectors(steps.next_obs))

    def init(example: Step) -> Rows:
        one = newest(example, 0)
        state = buffer.init(flat(one, 0))
        # flashbax's index is weakly typed: it would not stay so.
        return Rows(state.experience, jnp.int32(0), state.is_full, jnp.shape(one.obs))

    def add(rows: Rows, steps: Step) -> Rows:
        if steps.reward.shape[1] != num_envs:
            raise ValueError(f"steps of {steps.reward.shape[1]} environments for a replay of {num_envs}")
        blocks = flat(newest(steps, 2), 2)
        if len(blocks.reward) == 1:
            return write(rows, jax.tree.map(lambda leaf: leaf[0], blocks))
        return jax.lax.scan(lambda rows, block: (write(rows, block), None), rows, blocks)[0]

    return Buffer(init, add)


def _write(rows: Rows, block: Step, *, wraps: bool) -> Rows:
    """Add a block, leaves [E, ...]; only if it ``wraps`` may it begin at the end of the ring and end at its start."""

    def write(kept: Array, block: Array) -> Array:
        return kernels.overwrite(kept, block[None], rows.current_index, axis=1, wraps=wraps)

    size = rows.experience.reward.shape[1]
    index = rows.current_index + len(block.reward)
    kept = jax.tree.map(write, rows.experience, block)
    return Rows(kept, index % size, rows.is_full | (index >= size), rows.obs_shape)
