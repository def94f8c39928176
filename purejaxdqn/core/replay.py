"""Replay: what is remembered of the steps and how it is drawn again. The only file that imports flashbax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flashbax
import jax
import jax.numpy as jnp

from purejaxdqn.core.types import Array, Batch, HParams, Step, Transition


class Replay(NamedTuple):
    """A buffer as pure functions; its state is one pytree, updated in place where it is donated."""

    init: Callable[[Array], Any]  # an observation [O] as an example -> empty state
    add: Callable[[HParams, Any, Step], Any]  # state, steps with leaves [T, E, ...] -> state
    sample: Callable[[HParams, Any, Array, Array], Batch]  # state, bits uint32[B], env_step[] -> Batch
    reprioritise: Callable[[HParams, Any, Array, Array], Any]  # state, indices[B], TD error[B] -> state


def uniform_replay(*, size: int) -> Replay:
    """The last ``size`` transitions, each as likely as any other, with replacement (Lin 1992; Mnih et al. 2015).

    An index is bits modulo the number of transitions held, which favours none by more than size / 2^32.
    Sampling from an empty buffer is not noticed: fill it first.
    """
    buffer = flashbax.make_item_buffer(max_length=size, min_length=1, sample_batch_size=1, add_batches=True)

    def init(obs: Array) -> Any:
        return buffer.init(Transition(obs, jnp.int32(0), jnp.float32(0), jnp.float32(0), obs))

    def add(hparams: HParams, state: Any, steps: Step) -> Any:
        return buffer.add(state, one_step(steps, gamma=hparams.gamma))

    def sample(hparams: HParams, state: Any, bits: Array, env_step: Array) -> Batch:
        held = jnp.where(state.is_full, size, state.current_index).astype(jnp.uint32)
        indices = (bits % held).astype(jnp.int32)
        transition = jax.tree.map(lambda leaf: leaf[0, indices], state.experience)
        return Batch(transition, weight=jnp.ones(bits.shape), indices=indices)

    def reprioritise(hparams: HParams, state: Any, indices: Array, td_error: Array) -> Any:
        return state

    return Replay(init, add, sample, reprioritise)


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
