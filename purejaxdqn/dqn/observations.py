"""Running statistics of observations: pure, and part of what a run carries."""

from typing import NamedTuple

import jax.numpy as jnp

from purejaxdqn.core.types import Array


class Statistics(NamedTuple):
    """Of all observations seen so far."""

    seen: Array  # [] float32
    mean: Array  # [O]
    variance: Array  # [O]


def nothing_seen(obs: Array) -> Statistics:
    """Statistics that leave observations like ``obs`` [O] as they are."""
    return Statistics(jnp.float32(0), jnp.zeros(obs.shape), jnp.ones(obs.shape))


def see(statistics: Statistics, obs: Array) -> Statistics:
    """Take in observations [N, O], as if they had all been seen one by one (Chan, Golub and LeVeque 1983, eq. 2.1)."""
    obs = obs.astype(jnp.float32)
    count = statistics.seen + obs.shape[0]
    share = obs.shape[0] / count
    shift = jnp.mean(obs, axis=0) - statistics.mean
    variance = (1 - share) * statistics.variance + share * jnp.var(obs, axis=0) + share * (1 - share) * shift**2
    return Statistics(count, statistics.mean + share * shift, variance)


def normalize(statistics: Statistics, obs: Array) -> Array:
    """Observations [B, O] with mean 0 and variance 1, no further out than 10."""
    scaled = (obs.astype(jnp.float32) - statistics.mean) / jnp.sqrt(statistics.variance + 1e-8)
    return jnp.clip(scaled, -10.0, 10.0)
