"""Numbers that change over a run: epsilon, the exponent of importance weights, the learning rate.

All three read one clock, the number of environment steps over all environments, warm-up included, and take
``schedule_horizon`` for the length of the run.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from purejaxdqn.core.config import HParams
from purejaxdqn.core.types import Array


class Clock(NamedTuple):
    """A moment of a run. The schedules are functions without arguments: what nothing reads is never traced."""

    env_step: Array  # [] int32
    epsilon: Callable[[], Array]  # -> [] chance of a random action
    beta: Callable[[], Array]  # -> [] exponent of importance weights
    learning_rate: Callable[[], Array]  # -> []


ReadClock = Callable[[HParams, Array], Clock]
"""hparams, env_step [] -> the moment."""


def make_clock(*, warmup: int, anneal: bool) -> ReadClock:
    """The clock of a run whose learning begins after ``warmup`` environment steps.

    Args:
      warmup: environment steps over all environments.
      anneal: whether the learning rate decays.
    """

    def read(hparams: HParams, env_step: Array) -> Clock:
        rate = annealed_rate if anneal else constant_rate
        return Clock(
            env_step=env_step,
            epsilon=functools.partial(epsilon, hparams, env_step, warmup=warmup),
            beta=functools.partial(annealed_beta, hparams, env_step, warmup=warmup),
            learning_rate=functools.partial(rate, hparams, env_step),
        )

    return read


def epsilon(hparams: HParams, env_step: Array, *, warmup: int) -> Array:
    """Return the chance of a random action at ``env_step``: linear from start to end, from the end of the warm-up on.

    The decay takes ``exploration_fraction`` of the horizon, in environment steps over all environments.
    """
    decay_steps = jnp.maximum(hparams.exploration_fraction * hparams.schedule_horizon, 1.0)
    progress = jnp.clip((env_step - warmup) / decay_steps, 0.0, 1.0)
    return hparams.exploration_start + progress * (hparams.exploration_end - hparams.exploration_start)


def annealed_beta(hparams: HParams, env_step: Array, *, warmup: int) -> Array:
    """Exponent of the importance weights: from ``replay_beta`` when learning begins to 1 at the horizon."""
    progress = (env_step - warmup) / jnp.maximum(hparams.schedule_horizon - warmup, 1.0)
    return hparams.replay_beta + (1.0 - hparams.replay_beta) * jnp.clip(progress, 0.0, 1.0)


def constant_rate(hparams: HParams, env_step: Array) -> Array:
    """The learning rate of the config."""
    return hparams.optimizer_learning_rate


def annealed_rate(hparams: HParams, env_step: Array) -> Array:
    """The learning rate, which decays linearly from the run's start to 0 at the horizon."""
    return hparams.optimizer_learning_rate * jnp.maximum(0.0, 1.0 - env_step / hparams.schedule_horizon)
