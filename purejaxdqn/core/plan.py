"""The schedule of a run as static lengths: intervals in environment steps become lengths of nested scans."""

from typing import NamedTuple

from purejaxdqn.core.config import Config

MAX_EPOCHS = 20
"""Epochs of a run whose config leaves ``evaluation.every`` open, at most."""


class Plan(NamedTuple):
    """Lengths of the scans, outermost first. Their product and the warm-up make up ``total_timesteps``."""

    num_envs: int  # E
    warmup: int  # steps of every environment before learning
    epochs: int  # each ends with an evaluation and a row of metrics
    periods: int  # per epoch; each ends with ``Algorithm.sync``
    iterations: int  # per period
    rollout: int  # T, steps of every environment per iteration
    episodes: int  # of each evaluation
    final_episodes: int  # of the last


def make_plan(config: Config) -> Plan:
    """The lengths of a config without faults."""
    schedule, learning = config.schedule, config.total_timesteps - config.schedule.warmup
    periods = learning // schedule.target_every
    every = config.evaluation.every
    epochs = learning // every if every else most_epochs(periods)
    return Plan(
        num_envs=config.env.num_envs,
        warmup=schedule.warmup // config.env.num_envs,
        epochs=epochs,
        periods=periods // epochs,
        iterations=schedule.target_every // schedule.train_every,
        rollout=schedule.train_every // config.env.num_envs,
        episodes=config.evaluation.episodes,
        final_episodes=config.evaluation.final_episodes,
    )


def most_epochs(periods: int) -> int:
    """The epochs of a run of ``periods`` periods whose config leaves ``evaluation.every`` open."""
    return max(n for n in range(1, MAX_EPOCHS + 1) if periods % n == 0)
