"""The schedule of a run as static lengths: intervals in environment steps become lengths of nested scans."""

from typing import NamedTuple

from purejaxdqn.core.config import Config

MAX_EPOCHS = 20
"""The largest number of epochs of a run whose ``evaluation.every`` is null."""


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


class Intervals(NamedTuple):
    """The intervals of a schedule, in environment steps over all environments."""

    warmup: int  # before learning
    train: int  # a rollout
    period: int  # between two calls of ``Algorithm.sync``


def intervals_of(config: Config) -> Intervals:
    """The intervals of a config: those of its schedule with replay, and those of its rollout without.

    Without replay and without a target network, a period is a rollout.
    """
    schedule = config.schedule
    if config.replay.kind == "none":
        rollout = config.env.num_envs * config.rollout.steps
        return Intervals(0, rollout, schedule.target_every or rollout)
    assert schedule.warmup and schedule.train_every and schedule.target_every
    return Intervals(schedule.warmup, schedule.train_every, schedule.target_every)


def batch_size_of(config: Config) -> int:
    """Transitions of a gradient step, or steps of its sequences."""
    if config.replay.kind == "none":
        return config.env.num_envs * config.rollout.steps // config.rollout.minibatches
    assert config.replay.batch_size
    steps = config.replay.sequence if config.network.memory != "none" else 1
    return config.replay.batch_size * steps


def make_plan(config: Config) -> Plan:
    """The lengths of a config without faults."""
    num_envs, every, intervals = config.env.num_envs, config.evaluation.every, intervals_of(config)
    learning = config.total_timesteps - intervals.warmup
    periods = learning // intervals.period
    epochs = learning // every if every else most_epochs(periods)
    return Plan(
        num_envs=num_envs,
        warmup=intervals.warmup // num_envs,
        epochs=epochs,
        periods=periods // epochs,
        iterations=intervals.period // intervals.train,
        rollout=intervals.train // num_envs,
        episodes=config.evaluation.episodes,
        final_episodes=config.evaluation.final_episodes,
    )


def most_epochs(periods: int) -> int:
    """The epochs of a run of ``periods`` periods whose config leaves ``evaluation.every`` open."""
    return max(n for n in range(1, MAX_EPOCHS + 1) if periods % n == 0)
