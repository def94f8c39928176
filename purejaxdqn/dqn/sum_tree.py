"""A sum tree: draws one of n numbers in proportion to its size in O(log n) operations."""

from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxdqn.core.types import Array

FAN_OUT = 8
"""Children of a node. On a CPU 8 is faster than 4, 16 or 32: few enough for XLA to keep their sums in registers."""

_BELOW_ONE = 1 - 2**-24  # the float32 next to 1: times it, a normal number becomes the one next below or less


class SumTree(NamedTuple):
    """A tree as pure functions; a donated array is changed in place.

    The array is [8 * rows]. A row is the 8 children of one node: first come the rows of the numbers themselves, then
    those of their sums, and so on up to the root's. Functions go through the levels one by one, with the whole batch.
    It has one axis because a TPU pads a last axis of 8 to 128, which would take 16 times the memory.
    """

    init: Callable[[], Array]  # -> a tree of zeros
    get: Callable[[Array, Array], Array]  # tree, indices[B] -> numbers[B]
    set: Callable[[Array, Array, Array], Array]  # tree, indices[B], numbers[B], none below 0 -> tree
    sample: Callable[[Array, Array], Array]  # tree, u[B] in [0, 1] -> indices[B]


def make_sum_tree(size: int) -> SumTree:
    """Make a tree of ``size`` float32 numbers.

    ``set`` keeps the largest of several numbers for one index. It adds up sums from their terms again, so errors do not
    accumulate. ``sample`` takes the first index whose running sum is above ``u`` times the total, and never one whose
    number is 0: running sums never decrease, so the first above a target belongs to a positive child, and there is one
    because the target is kept below the last. A tree of zeros is not detected. float32 resolves ``u``, and so an
    index's probability, to about 6e-8.
    """
    starts = _first_rows(size)

    def init() -> Array:
        return jnp.zeros((starts[-1] + 1) * FAN_OUT)

    def get(tree: Array, indices: Array) -> Array:
        return tree[indices]

    def set(tree: Array, indices: Array, numbers: Array) -> Array:
        def sum_up(carry: tuple[Array, Array], start: Any) -> tuple[tuple[Array, Array], None]:
            (tree, child), (children, parents) = carry, start
            node = child // FAN_OUT
            sums = jnp.sum(_rows(tree, children + node), axis=-1)
            return (tree.at[parents * FAN_OUT + node].set(sums), node), None

        tree = tree.at[indices].set(0.0).at[indices].max(numbers)  # in any order, with the same result
        return jax.lax.scan(sum_up, (tree, indices), (starts[:-1], starts[1:]))[0][0]

    def sample(tree: Array, u: Array) -> Array:
        def descend(carry: tuple[Array, Array], start: Any) -> tuple[tuple[Array, Array], None]:
            node, target = carry
            child, target = _choose(_rows(tree, start + node), target)
            return (node * FAN_OUT + child, target), None

        root = jnp.zeros(u.shape, jnp.int32), u * jnp.sum(tree[-FAN_OUT:])
        return jax.lax.scan(descend, root, starts[::-1])[0][0]

    return SumTree(init, get, set, sample)


def _first_rows(size: int) -> np.ndarray:
    """The first row of each level [levels] int32, from the leaves to the root."""
    rows = [-(-size // FAN_OUT)]
    while rows[-1] > 1:
        rows.append(-(-rows[-1] // FAN_OUT))
    return np.cumsum([0, *rows[:-1]], dtype=np.int32)


def _rows(tree: Array, rows: Array) -> Array:
    """The children [B, 8] of nodes, by their rows [B]."""
    return jax.vmap(lambda row: jax.lax.dynamic_slice(tree, (row * FAN_OUT,), (FAN_OUT,)))(rows)


def _choose(children: Array, target: Array) -> tuple[Array, Array]:
    """The first of children [B, 8] whose running sum is above target [B], and the target less the sums before it."""
    sums = list(
        accumulate(children[:, k] for k in range(FAN_OUT))
    )  # unlike those of ``jnp.cumsum``, they never decrease
    target = jnp.minimum(target, sums[-1] * jnp.float32(_BELOW_ONE))
    child, passed = jnp.zeros(target.shape, jnp.int32), jnp.zeros_like(target)
    for running in sums[:-1]:
        child = child + (running <= target)
        passed = jnp.where(running <= target, running, passed)
    return child, target - passed
