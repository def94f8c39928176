"""What is wrong between the keys of a config, what is allowed and rarely meant, and what has no effect."""

from collections.abc import Callable, Iterator

from purejaxdqn.core.choices import Fault
from purejaxdqn.core.config import Config
from purejaxdqn.core.plan import make_plan, most_epochs
from purejaxdqn.dqn.axes import AXES

FEW_EPOCHS = 10
"""Fewer make a poor curve."""

_SEARCHED = 100_000  # multiples that are tried on either side for a value to propose


def resolve(config: Config) -> Config:
    """The same config with the values it left open written out."""
    every = (config.total_timesteps - config.schedule.warmup) // make_plan(config).epochs
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": every})})


def find_faults(config: Config) -> Iterator[Fault]:
    """Everything wrong between the keys of a config whose single keys are right."""
    yield from find_family_faults(config)
    yield from _find_interval_faults(config)
    yield from _find_replay_faults(config)
    yield from _find_length_faults(config)


def _find_interval_faults(config: Config) -> Iterator[Fault]:
    """Intervals are multiples of each other."""
    schedule, total, batch_size = config.schedule, config.total_timesteps, config.replay.batch_size
    learning = total - schedule.warmup

    def multiple(key: str, value: int, unit_key: str, unit: int, fits: Callable[[int], bool]) -> Iterator[Fault]:
        if value % unit:
            near = _nearest(value, unit, fits)
            yield Fault(key, f"{value} is not a multiple of {unit_key} ({unit}){near}", (unit_key,))

    yield from multiple(
        "schedule.warmup",
        schedule.warmup,
        "env.num_envs",
        config.env.num_envs,
        lambda n: batch_size <= n < total and (total - n) % schedule.target_every == 0,
    )
    yield from multiple(
        "schedule.train_every",
        schedule.train_every,
        "env.num_envs",
        config.env.num_envs,
        lambda n: schedule.target_every % n == 0,
    )
    yield from multiple(
        "schedule.target_every",
        schedule.target_every,
        "schedule.train_every",
        schedule.train_every,
        lambda n: learning % n == 0,
    )


def _find_replay_faults(config: Config) -> Iterator[Fault]:
    """The buffer holds a batch before the first update, and a rollout."""
    schedule, replay, batch_size = config.schedule, config.replay, config.replay.batch_size

    def at_least(key: str, value: int, bound_key: str, bound: int, why: str) -> Iterator[Fault]:
        if value < bound:
            yield Fault(key, f"{value} is below {bound_key} ({bound}): {why}", (bound_key,))

    repeats = "the first batch would repeat itself"
    yield from at_least("schedule.warmup", schedule.warmup, "replay.batch_size", batch_size, repeats)
    unfinished = (config.n_step - 1) * config.env.num_envs
    if config.n_step > 1:
        why = f"the newest {unfinished} steps (n_step - 1 of each environment) are not ready, and a batch must be"
        for key, value in (("schedule.warmup", schedule.warmup), ("replay.size", replay.size)):
            yield from at_least(key, value, "n_step and replay.batch_size", unfinished + batch_size, why)
    yield from at_least("replay.size", replay.size, "replay.batch_size", batch_size, "the buffer must hold a batch")
    overwrites = "new steps would overwrite each other"
    yield from at_least("replay.size", replay.size, "schedule.train_every", schedule.train_every, overwrites)


def _find_length_faults(config: Config) -> Iterator[Fault]:
    """The run is a whole number of periods, evaluations and checkpoints."""
    schedule, total, every = config.schedule, config.total_timesteps, config.evaluation.every
    learning, period = total - schedule.warmup, schedule.target_every
    if learning <= 0:
        message = f"{total} leaves nothing after schedule.warmup ({schedule.warmup})"
        yield Fault("total_timesteps", message, ("schedule.warmup",))
    elif learning % period:
        near = _nearest(learning, period, lambda n: True, offset=schedule.warmup)
        yield Fault(
            "total_timesteps",
            f"{total} less schedule.warmup ({schedule.warmup}) is not a multiple of "
            f"schedule.target_every ({period}){near}",
            ("schedule.warmup", "schedule.target_every"),
        )
    elif every and (every % period or learning % every):
        near = _nearest(every, period, lambda n: learning % n == 0)
        yield Fault(
            "evaluation.every",
            f"{every} is not a multiple of schedule.target_every ({period}) that divides "
            f"total_timesteps less schedule.warmup ({learning}){near}",
            ("schedule.target_every", "total_timesteps", "schedule.warmup"),
        )
    else:
        yield from _find_checkpoint_faults(config, learning // make_plan(config).epochs)


def _find_checkpoint_faults(config: Config, epoch: int) -> Iterator[Fault]:
    """Checkpoints fall between epochs of ``epoch`` environment steps."""
    every = config.checkpoint.every
    if every and every % epoch:
        near = _nearest(every, epoch, lambda n: True)
        message = f"{every} is not a multiple of evaluation.every ({epoch}){near}"
        yield Fault("checkpoint.every", message, ("evaluation.every", "total_timesteps", "schedule.warmup"))


def find_family_faults(config: Config) -> Iterator[Fault]:
    """Choices of the family that do not go together."""
    for axis in AXES:
        yield from axis.choice(config).faults(config)


def find_warnings(config: Config) -> Iterator[str]:
    """What is allowed but rarely meant in a config without faults, before ``resolve``."""
    exploration, schedule, total = config.exploration, config.schedule, config.total_timesteps
    if config.network.noisy and max(exploration.start, exploration.end) > 0:
        yield "network.noisy explores by itself, and exploration adds random actions: set both of its ends to 0"
    if not config.network.noisy and max(exploration.start, exploration.end) == 0:
        yield "nothing explores: exploration.start and exploration.end are 0, and network.noisy is false"
    horizon = schedule.horizon or total
    if config.optimizer.anneal and horizon < total:
        yield f"nothing is learned after step {horizon} (schedule.horizon), where optimizer.anneal ends at a rate of 0"
    decayed = schedule.warmup + exploration.fraction * horizon
    if exploration.start != exploration.end and decayed > total:
        yield (
            f"exploration.end is not reached: its decay takes exploration.fraction ({exploration.fraction:g}) of "
            f"{horizon} steps after schedule.warmup ({schedule.warmup}), and the run ends at {total}"
        )
    learning, period = total - schedule.warmup, schedule.target_every
    epochs = make_plan(config).epochs
    if not config.evaluation.every and epochs < FEW_EPOCHS <= learning // period:
        near = _nearest(learning, period, lambda n: most_epochs(n // period) >= FEW_EPOCHS, offset=schedule.warmup)
        yield (
            f"only {epochs} evaluation{'s divide' if epochs > 1 else ' divides'} this run (evaluation.every is open, "
            f"total_timesteps is {total}){near}"
        )


def find_idle(config: Config) -> dict[str, str]:
    """Keys that have no effect in this config, and what they need: ``{"network.sigma": "network.noisy true"}``."""
    idle = {key: need for axis in AXES for key, need in axis.idle(config).items()}
    if config.exploration.start == config.exploration.end:
        idle["exploration.fraction"] = "exploration.start and exploration.end that differ"
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
