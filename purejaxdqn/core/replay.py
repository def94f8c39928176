"""Replay: what is remembered of the steps and how it is drawn again. The only file that imports flashbax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flashbax
import jax
import jax.numpy as jnp

from purejaxdqn.core.types import Array, Batch, Step, Transition


class Replay(NamedTuple):
    """A buffer as pure functions; its state is one pytree, updated in place where it is donated."""

    init: Callable[[Transition], Any]  # an example without leading axes -> empty state
    add: Callable[[Any, Transition], Any]  # state, transitions with leaves [M, ...] -> state
    sample: Callable[[Any, Array], Batch]  # state, random bits uint32[B] -> Batch of B
    reprioritise: Callable[[Any, Array, Array], Any]  # state, indices[B], TD error[B] -> state


def uniform_replay(*, size: int) -> Replay:
    """The last ``size`` transitions, each as likely as any other, with replacement (Lin 1992; Mnih et al. 2015).

    An index is bits modulo the number of transitions held, which favours none by more than size / 2^32.
    Sampling from an empty buffer is not noticed: fill it first.
    """
    buffer = flashbax.make_item_buffer(max_length=size, min_length=1, sample_batch_size=1, add_batches=True)

    def sample(state: Any, bits: Array) -> Batch:
        held = jnp.where(state.is_full, size, state.current_index).astype(jnp.uint32)
        indices = (bits % held).astype(jnp.int32)
        transition = jax.tree.map(lambda leaf: leaf[0, indices], state.experience)
        return Batch(transition, weight=jnp.ones(bits.shape), indices=indices)

    return Replay(buffer.init, buffer.add, sample, lambda state, indices, td_error: state)


def one_step(steps: Step, *, gamma: Array) -> Transition:
    """Steps [T, E] -> one-step transitions [T * E]. Only a termination ends the future; a time limit does not."""
    transition = Transition(
        obs=steps.obs,
        action=steps.action,
        reward=steps.reward,
        discount=gamma * (1.0 - steps.terminated),
        next_obs=steps.next_obs,
    )
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), transition)
