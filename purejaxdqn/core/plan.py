"""The schedule of a run as static lengths: intervals in environment steps become lengths of nested scans."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from purejaxdqn.core.config import Config

MAX_EPOCHS = 20
"""Epochs of a run whose config leaves ``evaluation.every`` open, at most."""


FEW_EPOCHS = 10
"""Fewer make a poor curve."""

_SEARCHED = 100_000  # multiples looked at on either side for a value to propose


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
    epochs = learning // every if every else _most_epochs(periods)
    return Plan(
        warmup=schedule.warmup // config.env.num_envs,
        epochs=epochs,
        periods=periods // epochs,
        iterations=schedule.target_every // schedule.train_every,
        rollout=schedule.train_every // config.env.num_envs,
        gradient_steps=schedule.gradient_steps,
    )


def _most_epochs(periods: int) -> int:
    return max(n for n in range(1, MAX_EPOCHS + 1) if periods % n == 0)


def resolve(config: Config) -> Config:
    """The same run with what the config left open written out."""
    every = (config.total_timesteps - config.schedule.warmup) // make_plan(config).epochs
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": every})})


def find_faults(config: Config) -> Iterator[Fault]:
    """Everything wrong between the keys of a config whose single keys are right."""
    yield from find_family_faults(config)
    schedule, replay = config.schedule, config.replay
    num_envs, batch_size, total = config.env.num_envs, config.replay.batch_size, config.total_timesteps
    learning = total - schedule.warmup

    def multiple(key: str, value: int, unit_key: str, unit: int, fits: Callable[[int], bool]) -> Iterator[Fault]:
        if value % unit:
            near = _nearest(value, unit, fits)
            yield Fault(key, f"{value} is not a multiple of {unit_key} ({unit}){near}", (unit_key,))

    def at_least(key: str, value: int, bound_key: str, bound: int, why: str) -> Iterator[Fault]:
        if value < bound:
            yield Fault(key, f"{value} is below {bound_key} ({bound}): {why}", (bound_key,))

    yield from multiple(
        "schedule.warmup",
        schedule.warmup,
        "env.num_envs",
        num_envs,
        lambda n: batch_size <= n < total and (total - n) % schedule.target_every == 0,
    )
    yield from multiple(
        "schedule.train_every",
        schedule.train_every,
        "env.num_envs",
        num_envs,
        lambda n: schedule.target_every % n == 0,
    )
    yield from multiple(
        "schedule.target_every",
        schedule.target_every,
        "schedule.train_every",
        schedule.train_every,
        lambda n: learning % n == 0,
    )
    yield from at_least(
        "schedule.warmup", schedule.warmup, "replay.batch_size", batch_size, "the first batch would repeat itself"
    )
    unfinished = (config.n_step - 1) * num_envs
    if config.n_step > 1:
        why = f"the newest {unfinished} steps (n_step - 1 of each environment) are not ready, and a batch must be"
        for key, value in (("schedule.warmup", schedule.warmup), ("replay.size", replay.size)):
            yield from at_least(key, value, "n_step and replay.batch_size", unfinished + batch_size, why)
    yield from at_least("replay.size", replay.size, "replay.batch_size", batch_size, "the buffer must hold a batch")
    yield from at_least(
        "replay.size", replay.size, "schedule.train_every", schedule.train_every, "new steps would overwrite each other"
    )
    if learning <= 0:
        message = f"{total} leaves nothing after schedule.warmup ({schedule.warmup})"
        yield Fault("total_timesteps", message, ("schedule.warmup",))
        return
    period, every = schedule.target_every, config.evaluation.every
    if learning % period:
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
    distribution, bootstrap = config.distribution, config.bootstrap
    if distribution.kind == "categorical":
        low, high = distribution.v_min, distribution.v_max
        for name, bound in (("v_min", low), ("v_max", high)):
            if bound is None:
                message = "missing: a categorical distribution needs the lowest and the highest return of its support"
                yield Fault(f"distribution.{name}", message, ("distribution.kind",))
        if low is not None and high is not None and not _distinct(low, high, distribution.atoms):
            message = f"{low:g} is not below distribution.v_max ({high:g}) by steps that float32 can tell apart"
            yield Fault("distribution.v_min", message, ("distribution.v_max",))
    if distribution.kind == "scalar" and distribution.atoms != 1:
        message = f"{distribution.atoms}, but distribution.kind is scalar, which has one number an action"
        yield Fault("distribution.atoms", message, ("distribution.kind",))
    if distribution.kind != "scalar" and distribution.atoms < 2:
        message = f"{distribution.atoms} is below 2: a {distribution.kind} distribution needs at least two"
        yield Fault("distribution.atoms", message, ("distribution.kind",))
    if distribution.risk != "neutral" and distribution.kind != "iqn":
        message = f"{distribution.risk!r} needs distribution.kind iqn, which alone can ask for any fraction"
        yield Fault("distribution.risk", message, ("distribution.kind",))
    if distribution.risk == "cvar" and not 0 < distribution.risk_level <= 1:
        message = f"{distribution.risk_level:g} must be above 0 and at most 1: the share of the worst returns"
        yield Fault("distribution.risk_level", message, ("distribution.risk",))
    if distribution.risk == "cpw" and not 0.1 <= distribution.risk_level <= 10:
        message = f"{distribution.risk_level:g} must be from 0.1 to 10"
        yield Fault("distribution.risk_level", message, ("distribution.risk",))
    if config.optimizer.centered and config.optimizer.name != "rmsprop":
        message = f"true needs optimizer.name rmsprop, not {config.optimizer.name}"
        yield Fault("optimizer.centered", message, ("optimizer.name",))
    if bootstrap.kind == "munchausen" and bootstrap.temperature < 1e-6:
        yield Fault("bootstrap.temperature", f"{bootstrap.temperature:g} is too small for float32", ("bootstrap.kind",))


def _distinct(low: float, high: float, atoms: int) -> bool:
    """Whether evenly spaced returns from ``low`` to ``high`` differ in float32."""
    largest = np.float32(max(abs(low), abs(high)))
    with np.errstate(over="ignore"):
        spacing = (np.float32(high) - np.float32(low)) / np.float32(max(atoms - 1, 1))
        return bool(0 < spacing < np.inf and largest + spacing != largest)


def find_warnings(config: Config) -> Iterator[str]:
    """What is allowed and rarely meant, of a config without faults, before ``resolve``."""
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
        near = _nearest(learning, period, lambda n: _most_epochs(n // period) >= FEW_EPOCHS, offset=schedule.warmup)
        yield (
            f"only {epochs} evaluation{'s divide' if epochs > 1 else ' divides'} this run (evaluation.every is open, "
            f"total_timesteps is {total}){near}"
        )


def find_idle(config: Config) -> dict[str, str]:
    """Keys that do nothing in this config, and what they need instead: ``{"network.sigma": "network.noisy"}``."""
    kind, constant = config.distribution.kind, config.exploration.start == config.exploration.end
    needs: Mapping[str, tuple[bool, tuple[str, ...]]] = {
        "distribution.kind scalar": (kind == "scalar", ("loss",)),
        "distribution.kind categorical": (kind == "categorical", ("distribution.v_min", "distribution.v_max")),
        "distribution.kind quantile, iqn or fqf": (kind in ("quantile", "iqn", "fqf"), ("distribution.kappa",)),
        "distribution.kind fqf": (kind == "fqf", ("distribution.fraction_rate",)),
        "distribution.risk cvar, cpw or wang": (config.distribution.risk != "neutral", ("distribution.risk_level",)),
        "bootstrap.kind munchausen": (
            config.bootstrap.kind == "munchausen",
            ("bootstrap.alpha", "bootstrap.temperature", "bootstrap.clip"),
        ),
        "replay.kind prioritised": (config.replay.kind == "prioritised", ("replay.alpha", "replay.beta")),
        "network.noisy": (config.network.noisy, ("network.sigma",)),
        "an optimizer.name other than sgd": (config.optimizer.name != "sgd", ("optimizer.eps",)),
        "exploration.start and exploration.end that differ": (not constant, ("exploration.fraction",)),
    }
    return {key: need for need, (met, keys) in needs.items() if not met for key in keys}


def _nearest(value: int, unit: int, fits: Callable[[int], bool], *, offset: int = 0) -> str:
    """``; the nearest are a or b``: multiples of ``unit`` next below and above ``value`` that fit, if there are any."""
    first = value // unit
    below = (n * unit for n in range(first, max(0, first - _SEARCHED), -1))
    above = (n * unit for n in range(first + 1, first + 1 + _SEARCHED))
    near = [n for side in (below, above) if (n := next(filter(fits, side), None))]
    if not near:
        return ""
    return f"; the nearest {'is' if len(near) == 1 else 'are'} {' or '.join(str(n + offset) for n in near)}"
