"""What the network sees of observations: their features as they are, or normalised by running statistics."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.core.types import Array, Params


class Observations(NamedTuple):
    """How observations reach the network. The statistics are part of what a run carries; () without normalisation."""

    init: Callable[[], Any]  # -> statistics
    observe: Callable[[Any, Array], Any]  # statistics, obs[N, O] -> statistics
    inputs: Callable[[Any, Array], Array]  # statistics, obs[B, O] -> what the network sees [B, ...]
    pack: Callable[[Params, Any], Params]  # parameters, statistics -> what acting needs of both
    unpack: Callable[[Params], tuple[Params, Any]]  # the inverse of ``pack``


def plain_observations(features: Callable[[Array], Array]) -> Observations:
    """The network sees ``features(obs)``."""
    return Observations(
        init=lambda: (),
        observe=lambda statistics, obs: statistics,
        inputs=lambda statistics, obs: features(obs),
        pack=lambda params, statistics: params,
        unpack=lambda policy: (policy, ()),
    )


def normalized_observations(features: Callable[[Array], Array], example: Array) -> Observations:
    """The network sees ``features(obs)`` with mean 0 and variance 1 over all observations of the run so far.

    Args:
      features: of a batch of observations.
      example: [1, O] an observation.
    """

    def observe(statistics: Statistics, obs: Array) -> Statistics:
        return update(statistics, features(obs))

    return Observations(
        init=lambda: no_statistics(jax.eval_shape(features, example).shape[1:]),
        observe=observe,
        inputs=lambda statistics, obs: normalize(statistics, features(obs)),
        pack=lambda params, statistics: {"network": params, "observations": statistics._asdict()},
        unpack=lambda policy: (policy["network"], Statistics(**policy["observations"])),
    )


class Statistics(NamedTuple):
    """Mean and variance of all features so far."""

    seen: Array  # [] float32
    mean: Array  # [F]
    variance: Array  # [F]


def no_statistics(shape: tuple[int, ...]) -> Statistics:
    """Statistics that leave features of this shape as they are."""
    return Statistics(jnp.float32(0), jnp.zeros(shape), jnp.ones(shape))


def update(statistics: Statistics, features: Array) -> Statistics:
    """Add features [N, F], as if they had been added one by one (Chan, Golub and LeVeque 1983, eq. 2.1)."""
    features = features.astype(jnp.float32)
    count = statistics.seen + features.shape[0]
    share = features.shape[0] / count
    shift = jnp.mean(features, axis=0) - statistics.mean
    variance = (1 - share) * statistics.variance + share * jnp.var(features, axis=0) + share * (1 - share) * shift**2
    return Statistics(count, statistics.mean + share * shift, variance)


def normalize(statistics: Statistics, features: Array) -> Array:
    """Features [B, F] with mean 0 and variance 1, clipped to [-10, 10]."""
    scaled = (features.astype(jnp.float32) - statistics.mean) / jnp.sqrt(statistics.variance + 1e-8)
    return jnp.clip(scaled, -10.0, 10.0)
