"""Contradictions between the keys of a config, warnings about unlikely settings, and keys without effect."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from purejaxdqn.core.choices import Fault
from purejaxdqn.core.config import Config
from purejaxdqn.core.plan import intervals_of, make_plan
from purejaxdqn.dqn.axes import AXES


def resolve(config: Config) -> Config:
    """The same config with the values it left open written out."""
    every = (config.total_timesteps - intervals_of(config).warmup) // make_plan(config).epochs
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": every})})


def find_faults(config: Config) -> Iterator[Fault]:
    """All contradictions between keys that are valid by themselves."""
    if config.env.resets != "all" and config.env.resets > config.env.num_envs:
        message = (
            f"{config.env.resets} is more than env.num_envs ({config.env.num_envs}); all makes as many as there are"
        )
        yield Fault("env.resets", message, ("env.num_envs",))
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
    """Intervals that are not multiples of each other, in a config that ``fitting.fit`` has not or could not change."""
    num_envs, (warmup, train, period), names = config.env.num_envs, intervals_of(config), _names_of(config)

    def multiple(key: str, value: int, unit_key: str, unit: int) -> Iterator[Fault]:
        if value % unit:
            yield Fault(key, f"{value} is not a multiple of {unit_key} ({unit})", (unit_key,))

    yield from multiple("schedule.warmup", warmup, "env.num_envs", num_envs)
    yield from multiple("schedule.train_every", train, "env.num_envs", num_envs)
    yield from multiple("schedule.target_every", period, names.train, train)


def _find_length_faults(config: Config) -> Iterator[Fault]:
    """The run is a whole number of periods and evaluations, of each at least one."""
    total, every, (warmup, _, period) = config.total_timesteps, config.evaluation.every, intervals_of(config)
    learning, names = total - warmup, _names_of(config)
    less = f" less schedule.warmup ({warmup})" if warmup else ""
    if learning <= 0:
        message = f"{total} leaves no steps after schedule.warmup ({warmup})"
        yield Fault("total_timesteps", message, ("schedule.warmup",))
    elif learning < period:
        yield Fault("total_timesteps", f"{total}{less} is below {names.period} ({period})", names.keys)
    elif learning % period:
        yield Fault("total_timesteps", f"{total}{less} is not a multiple of {names.period} ({period})", names.keys)
    elif every and (every % period or learning % every):
        multiple = f"a multiple of {names.period} ({period}) that divides total_timesteps{less}"
        yield Fault("evaluation.every", f"{every} is not {multiple}", ("total_timesteps", *names.keys))


def find_family_faults(config: Config) -> Iterator[Fault]:
    """Choices of the family that do not go together."""
    for axis in AXES:
        yield from axis.choice(config).faults(config)


def find_warnings(config: Config) -> Iterator[str]:
    """What is allowed but rarely meant in a config without faults, before ``resolve``."""
    exploration, total, warmup = config.exploration, config.total_timesteps, intervals_of(config).warmup
    if config.network.noisy and max(exploration.start, exploration.end) > 0:
        yield "network.noisy already explores, and epsilon adds random actions: set exploration.start and .end to 0"
    explores = config.network.noisy or config.ensemble.members > 1
    if not explores and max(exploration.start, exploration.end) == 0:
        yield "the agent does not explore: exploration.start and exploration.end are 0, and network.noisy is false"
    if config.ensemble.prior and config.env.normalize:
        yield "env.normalize changes the input of the priors while its statistics change; fixed bounds would not"
    if config.optimizer.anneal:
        yield from _find_annealing_warnings(config)
    horizon = config.schedule.horizon or total
    decayed = warmup + exploration.fraction * horizon
    if exploration.start != exploration.end and decayed > total:
        after = f" after schedule.warmup ({warmup})" if warmup else ""
        yield (
            f"exploration.end is not reached: its decay takes exploration.fraction ({exploration.fraction:g}) of "
            f"{horizon} steps{after}, and the run ends at {total}"
        )


def _find_annealing_warnings(config: Config) -> Iterator[str]:
    """Learning that a rate of 0 leaves out: all of it, or that after the horizon."""
    horizon, intervals = config.schedule.horizon or config.total_timesteps, intervals_of(config)
    first = intervals.warmup + intervals.train
    if horizon <= first:
        yield (
            f"nothing is learned: optimizer.anneal reads the learning rate at the end of each rollout, and the first "
            f"ends at step {first}, where the rate is 0"
        )
    elif horizon < config.total_timesteps:
        yield f"nothing is learned after step {horizon} (schedule.horizon), where optimizer.anneal reaches a rate of 0"


def find_idle(config: Config) -> dict[str, str]:
    """Keys that have no effect in this config, and what they need: ``{"network.sigma": "network.noisy true"}``."""
    idle = {key: need for axis in AXES for key, need in axis.idle(config).items()}
    if config.exploration.start == config.exploration.end:
        idle["exploration.fraction"] = "exploration.start and exploration.end that differ"
    if config.ensemble.members == 1:
        idle["ensemble.mask"] = "ensemble.members of 2 or more"
    if config.schedule.target_every is None:
        idle["schedule.tau"] = "schedule.target_every"
    return idle


def describe_idle(config: Config, keys: Iterable[str]) -> str:
    """Which of these keys have no effect in this config, and what they need, as one line; empty if all have one."""
    idle = find_idle(config)
    words = [f"{key} (needs {idle[key]})" for key in keys if key in idle]
    return f"keys without effect: {', '.join(words)}" if words else ""
