"""Random keys of runs, and of the episodes that are played after training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxdqn.core.types import Array

KEY_KIND = "threefry2x32"
"""The generator of random keys: what a key yields does not depend on the keys that are vmapped with it."""


def run_key(seed: Any, seed_index: Any) -> Array:
    """The key [] of one run: it depends on the seed and the run's index, never on the number of runs.

    Args:
      seed: [] uint32, the config's ``seed``.
      seed_index: [] uint32, from 0.
    """
    return jax.random.fold_in(jax.random.key(seed, impl=KEY_KIND), seed_index)


def episodes_key(seed: int) -> Array:
    """The key [] of episodes played after training: its index is one that no run has, so no run shares this key."""
    return run_key(seed, np.uint32(2**32 - 1))


def typed_keys(keys: Any) -> Array:
    """Keys [S] as JAX's typed keys; legacy ones, of ``jax.random.PRNGKey``, are words [S, W].

    Raises:
      ValueError: they are neither, or there is none.
    """
    keys = jnp.asarray(keys)
    if keys.dtype == jnp.uint32 and keys.ndim == 2:
        keys = jax.random.wrap_key_data(keys)
    if not is_key(keys) or keys.ndim != 1 or not len(keys):
        found = f"{keys.dtype}{list(keys.shape)}"
        raise ValueError(f"keys must be random keys [S], as of jax.random.split(jax.random.key(0), S), not {found}")
    return keys


def is_key(leaf: Any) -> bool:
    """Whether an array, or a description of one, is of typed keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def data_of_keys(tree: Any) -> Any:
    """``tree`` with keys [...] as their words [..., W]."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)


def keys_of(words: Array) -> Array:
    """Keys [...] of their words [..., 2] uint32."""
    return jax.random.wrap_key_data(words, impl=KEY_KIND)


def with_keys(tree: Any, like: Any) -> Any:
    """The inverse of ``data_of_keys``; ``like`` has keys where words become keys."""
    return jax.tree.map(lambda leaf, one: keys_of(leaf) if is_key(one) else leaf, tree, like)
