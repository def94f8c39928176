"""The schedule of a run as static lengths: intervals in environment steps become lengths of nested scans."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from purejaxdqn.core.config import Config

MAX_EPOCHS = 20
"""Epochs of a run whose config leaves ``evaluation.every`` open, at most."""


class Plan(NamedTuple):
    """Lengths of the scans, outermost first. Their product and the warm-up make up ``total_timesteps``."""

    warmup: int  # steps of every environment before learning
    epochs: int  # each ends with an evaluation and a row of metrics
    periods: int  # per epoch; each ends with a target sync
    iterations: int  # per period
    rollout: int  # T, steps of every environment per iteration
    gradient_steps: int  # G, per iteration


class Fault(NamedTuple):
    """Something wrong in a config: the key to blame, its value and what is allowed, all keys it hangs on."""

    key: str
    message: str
    involved: tuple[str, ...]


def make_plan(config: Config) -> Plan:
    """The lengths that a config without faults asks for."""
    schedule, learning = config.schedule, config.total_timesteps - config.schedule.warmup
    periods = learning // schedule.target_every
    every = config.evaluation.every
    epochs = learning // every if every else max(n for n in range(1, MAX_EPOCHS + 1) if periods % n == 0)
    return Plan(
        warmup=schedule.warmup // config.env.num_envs,
        epochs=epochs,
        periods=periods // epochs,
        iterations=schedule.target_every // schedule.train_every,
        rollout=schedule.train_every // config.env.num_envs,
        gradient_steps=schedule.gradient_steps,
    )


def resolve(config: Config) -> Config:
    """The same run with what the config left open written out."""
    every = (config.total_timesteps - config.schedule.warmup) // make_plan(config).epochs
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": every})})


def find_faults(config: Config) -> Iterator[Fault]:
    """Everything wrong between the keys of a config whose single keys are right."""
    schedule, replay = config.schedule, config.replay
    num_envs, learning = config.env.num_envs, config.total_timesteps - schedule.warmup

    def must_divide(key: str, value: int, unit: int, unit_key: str) -> Iterator[Fault]:
        if value % unit:
            near = " or ".join(map(str, _multiples_near(value, unit)))
            yield Fault(key, f"{value} is not a multiple of {unit_key} ({unit}); the nearest are {near}", (unit_key,))

    def at_least(key: str, value: int, bound: int, bound_key: str, why: str) -> Iterator[Fault]:
        if value < bound:
            yield Fault(key, f"{value} is below {bound_key} ({bound}): {why}", (bound_key,))

    yield from must_divide("schedule.warmup", schedule.warmup, num_envs, "env.num_envs")
    yield from must_divide("schedule.train_every", schedule.train_every, num_envs, "env.num_envs")
    yield from must_divide("schedule.target_every", schedule.target_every, schedule.train_every, "schedule.train_every")
    batch_size = replay.batch_size
    yield from at_least(
        "schedule.warmup", schedule.warmup, batch_size, "replay.batch_size", "the first batch would repeat itself"
    )
    yield from at_least("replay.size", replay.size, batch_size, "replay.batch_size", "the buffer must hold a batch")
    yield from at_least(
        "replay.size", replay.size, schedule.train_every, "schedule.train_every", "new steps would overwrite each other"
    )
    if learning <= 0:
        yield Fault(
            "total_timesteps",
            f"{config.total_timesteps} leaves nothing after schedule.warmup ({schedule.warmup})",
            ("schedule.warmup",),
        )
        return
    if learning % schedule.target_every:
        near = " or ".join(str(schedule.warmup + n) for n in _multiples_near(learning, schedule.target_every))
        yield Fault(
            "total_timesteps",
            f"{config.total_timesteps} less schedule.warmup ({schedule.warmup}) is not a multiple of "
            f"schedule.target_every ({schedule.target_every}); the nearest are {near}",
            ("schedule.warmup", "schedule.target_every"),
        )
        return
    every, periods = config.evaluation.every, learning // schedule.target_every
    if every and (every % schedule.target_every or learning % every):
        near = " or ".join(str(n) for n in _divisors_near(every, periods, schedule.target_every))
        yield Fault(
            "evaluation.every",
            f"{every} is not a multiple of schedule.target_every ({schedule.target_every}) that divides "
            f"total_timesteps less schedule.warmup ({learning}); the nearest are {near}",
            ("schedule.target_every", "total_timesteps", "schedule.warmup"),
        )


def _multiples_near(value: int, unit: int) -> list[int]:
    below = value // unit * unit
    return [n for n in (below, below + unit) if n > 0]


def _divisors_near(value: int, periods: int, unit: int) -> list[int]:
    """The values n * unit, n a divisor of ``periods``, next below and above ``value``."""
    small = [n for n in range(1, math.isqrt(periods) + 1) if periods % n == 0]
    allowed = sorted({n * unit for n in small} | {periods // n * unit for n in small})
    below = [n for n in allowed if n < value][-1:]
    return below + [n for n in allowed if n > value][:1]
