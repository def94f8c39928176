"""What the minibatches of a rollout are made of: single steps, or with a memory whole sequences.

A rollout has leaves [T, E, ...]: T steps of E environments. It is cut into U units, which minibatches draw at random.
A network takes the items of a batch of units in one axis, B; those of sequences with time first.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.dqn.learner import NO_RECALL, Recall, flat


class Units(NamedTuple):
    """How a rollout is cut into units, and back. The functions are mapped over the leaves of any pytree."""

    number: int  # U
    cut: Callable[[Any], Any]  # [T, E, ...] -> [U, ...]
    uncut: Callable[[Any], Any]  # its inverse
    items: Callable[[Any], Any]  # of some units [U', ...] -> [B, ...]
    of_items: Callable[[Any], Any]  # its inverse
    recall: Callable[[Any, Any], Recall]  # carry before the units, their ``start`` -> what a network starts from


def single_steps(steps: int, num_envs: int) -> Units:
    """Each of the ``steps`` x ``num_envs`` steps is a unit, [T * E, ...], and an item."""

    def uncut(units: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.reshape(steps, num_envs, *leaf.shape[1:]), units)

    return Units(
        number=steps * num_envs,
        cut=lambda rollout: jax.tree.map(flat, rollout),
        uncut=uncut,
        items=lambda units: units,
        of_items=lambda items: items,
        recall=lambda carry, start: NO_RECALL,
    )


def sequences(steps: int, num_envs: int) -> Units:
    """All ``steps`` of an environment, in their order, are a unit, [E, T, ...]; each step is an item."""

    def swapped(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), tree)

    def of_items(items: Any) -> Any:
        return swapped(jax.tree.map(lambda leaf: leaf.reshape(steps, -1, *leaf.shape[1:]), items))

    return Units(
        number=num_envs,
        cut=swapped,
        uncut=swapped,
        items=lambda units: jax.tree.map(flat, swapped(units)),
        of_items=of_items,
        recall=lambda carry, start: Recall(carry, start.T),
    )
