"""What is wrong between the keys of a config, what is allowed and rarely meant, and what has no effect."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from purejaxdqn.core.choices import Fault
from purejaxdqn.core.config import Config
from purejaxdqn.core.plan import intervals_of, make_plan, most_epochs
from purejaxdqn.dqn.axes import AXES

FEW_EPOCHS = 10
"""Fewer make a poor curve."""

_SEARCHED = 100_000  # multiples that are tried on either side for a value to propose


def resolve(config: Config) -> Config:
    """The same config with the values it left open written out."""
    every = (config.total_timesteps - intervals_of(config).warmup) // make_plan(config).epochs
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": every})})


def find_faults(config: Config) -> Iterator[Fault]:
    """Everything wrong between the keys of a config whose single keys are right."""
    yield from find_family_faults(config)
    yield from _find_interval_faults(config)
    yield from _find_length_faults(config)


class _Names(NamedTuple):
    """How messages name the intervals of a schedule, and the keys that they depend on."""

    train: str
    period: str
    keys: tuple[str, ...]


def _names_of(config: Config) -> _Names:
    if config.replay.kind != "none":
        keys = ("schedule.target_every", "schedule.warmup")
        return _Names("schedule.train_every", "schedule.target_every", keys)
    rollout, keys = "env.num_envs x rollout.steps", ("env.num_envs", "rollout.steps")
    if config.schedule.target_every:
        return _Names(rollout, "schedule.target_every", ("schedule.target_every", *keys))
    return _Names(rollout, rollout, keys)


def _find_interval_faults(config: Config) -> Iterator[Fault]:
    """Intervals are multiples of each other."""
    num_envs, total, (warmup, train, period) = config.env.num_envs, config.total_timesteps, intervals_of(config)
    names, batch_size = _names_of(config), config.replay.batch_size or 0

    def multiple(key: str, value: int, unit_key: str, unit: int, fits: Callable[[int], bool]) -> Iterator[Fault]:
        if value % unit:
            near = _nearest(value, unit, fits)
            yield Fault(key, f"{value} is not a multiple of {unit_key} ({unit}){near}", (unit_key,))

    def leaves_whole_periods(n: int) -> bool:
        return batch_size <= n < total and (total - n) % period == 0

    yield from multiple("schedule.warmup", warmup, "env.num_envs", num_envs, leaves_whole_periods)
    yield from multiple("schedule.train_every", train, "env.num_envs", num_envs, lambda n: period % n == 0)
    yield from multiple("schedule.target_every", period, names.train, train, lambda n: (total - warmup) % n == 0)


def _find_length_faults(config: Config) -> Iterator[Fault]:
    """The run is a whole number of periods, evaluations and checkpoints."""
    total, every, (warmup, _, period) = config.total_timesteps, config.evaluation.every, intervals_of(config)
    learning, names = total - warmup, _names_of(config)
    if learning <= 0:
        message = f"{total} leaves nothing after schedule.warmup ({warmup})"
        yield Fault("total_timesteps", message, ("schedule.warmup",))
    elif learning % period:
        near = _nearest(learning, period, lambda n: True, offset=warmup)
        less = f" less schedule.warmup ({warmup})" if warmup else ""
        message = f"{total}{less} is not a multiple of {names.period} ({period}){near}"
        yield Fault("total_timesteps", message, names.keys)
    elif every and (every % period or learning % every):
        near = _nearest(every, period, lambda n: learning % n == 0)
        less = " less schedule.warmup" if warmup else ""
        yield Fault(
            "evaluation.every",
            f"{every} is not a multiple of {names.period} ({period}) that divides "
            f"total_timesteps{less} ({learning}){near}",
            ("total_timesteps", *names.keys),
        )
    else:
        yield from _find_checkpoint_faults(config, learning // make_plan(config).epochs)


def _find_checkpoint_faults(config: Config, epoch: int) -> Iterator[Fault]:
    """Checkpoints fall between epochs of ``epoch`` environment steps."""
    every = config.checkpoint.every
    if every and every % epoch:
        near = _nearest(every, epoch, lambda n: True)
        message = f"{every} is not a multiple of evaluation.every ({epoch}){near}"
        yield Fault("checkpoint.every", message, ("evaluation.every", "total_timesteps", *_names_of(config).keys))


def find_family_faults(config: Config) -> Iterator[Fault]:
    """Choices of the family that do not go together."""
    for axis in AXES:
        yield from axis.choice(config).faults(config)


def find_warnings(config: Config) -> Iterator[str]:
    """What is allowed but rarely meant in a config without faults, before ``resolve``."""
    exploration, total, (warmup, _, period) = config.exploration, config.total_timesteps, intervals_of(config)
    if config.network.noisy and max(exploration.start, exploration.end) > 0:
        yield "network.noisy explores by itself, and exploration adds random actions: set both of its ends to 0"
    if not config.network.noisy and max(exploration.start, exploration.end) == 0:
        yield "nothing explores: exploration.start and exploration.end are 0, and network.noisy is false"
    horizon = config.schedule.horizon or total
    if config.optimizer.anneal and horizon < total:
        yield f"nothing is learned after step {horizon} (schedule.horizon), where optimizer.anneal ends at a rate of 0"
    decayed = warmup + exploration.fraction * horizon
    if exploration.start != exploration.end and decayed > total:
        after = f" after schedule.warmup ({warmup})" if warmup else ""
        yield (
            f"exploration.end is not reached: its decay takes exploration.fraction ({exploration.fraction:g}) of "
            f"{horizon} steps{after}, and the run ends at {total}"
        )
    learning = total - warmup
    epochs = make_plan(config).epochs
    if not config.evaluation.every and epochs < FEW_EPOCHS <= learning // period:
        near = _nearest(learning, period, lambda n: most_epochs(n // period) >= FEW_EPOCHS, offset=warmup)
        yield (
            f"only {epochs} evaluation{'s divide' if epochs > 1 else ' divides'} this run (evaluation.every is open, "
            f"total_timesteps is {total}){near}"
        )


def find_idle(config: Config) -> dict[str, str]:
    """Keys that have no effect in this config, and what they need: ``{"network.sigma": "network.noisy true"}``."""
    idle = {key: need for axis in AXES for key, need in axis.idle(config).items()}
    if config.exploration.start == config.exploration.end:
        idle["exploration.fraction"] = "exploration.start and exploration.end that differ"
    if config.schedule.target_every is None:
        idle["schedule.tau"] = "schedule.target_every"
    return idle


def _nearest(value: int, unit: int, fits: Callable[[int], bool], *, offset: int = 0) -> str:
    """``; the nearest are a or b``: multiples of ``unit`` next below and above ``value`` that fit, if there are any."""
    first = value // unit
    below = (n * unit for n in range(first, max(0, first - _SEARCHED), -1))
    above = (n * unit for n in range(first + 1, first + 1 + _SEARCHED))
    near = [n for side in (below, above) if (n := next(filter(fits, side), None))]
    if not near:
        return ""
    return f"; the nearest {'is' if len(near) == 1 else 'are'} {' or '.join(str(n + offset) for n in near)}"
