"""Move the intervals of a schedule to the nearest that fit: each must be a multiple of the one below it."""

from collections.abc import Callable

from purejaxdqn.core.config import Config, value_at
from purejaxdqn.core.plan import intervals_of, most_epochs

FEW_EPOCHS, ENOUGH_EPOCHS, MANY_EPOCHS = 10, 15, 100
"""A run that leaves ``evaluation.every`` open and has fewer evaluations than the first is given the second, or more.

An interval of evaluations that was written for another length of the run stays if it gives the first to the third.
"""
_KEPT = 0.1
"""The share by which ``evaluation.every`` may move so that the length of a run need not."""
_SEARCHED = 10_000  # numbers on either side
LONGEST = 2**31 - 1  # environment steps of a run
_KEYS = (
    "schedule.warmup",
    "schedule.train_every",
    "schedule.target_every",
    "replay.size",
    "total_timesteps",
    "evaluation.every",
    "checkpoint.every",
)
"""What may be moved, in the order in which it is."""


def fit(config: Config, *, written_for: float | None = None) -> Config:
    """The config with intervals that fit; equal to ``config`` if all do.

    Args:
      config: to fit.
      written_for: the ``total_timesteps`` beside which ``evaluation.every`` was written; None for that of ``config``.
        If they differ, and the interval gives too few or too many evaluations (``_misses``), it is set anew.

    ``warmup`` and ``train_every`` become multiples of the number of environments, ``target_every`` of ``train_every``,
    and the rest of ``total_timesteps`` after the warm-up of ``evaluation.every``, which is a multiple of
    ``target_every``. Checkpoints fall between evaluations. With a network with a memory, the warm-up becomes a multiple
    of ``train_every``, and replay holds whole sequences. What cannot be meant is left for ``checks`` to refuse.
    """
    config = _fit_replay(_fit_schedule(config))
    if written_for is not None and _misses(config, written_for):
        config = _evaluate_anew(config)
    return _fit_checkpoints(_fit_length(config))


def describe_moves(before: Config, after: Config) -> str:
    """What ``fit`` has moved, as one line; empty if nothing."""
    pairs = [(key, value_at(before, key), value_at(after, key)) for key in _KEYS]
    words = [f"{key} {old} -> {new}" for key, old, new in pairs if old != new]
    return f"moved to fit the schedule: {', '.join(words)}" if words else ""


def _fit_schedule(config: Config) -> Config:
    """Warm-up, training and target network; as they are if their units are longer than the run."""
    num_envs, total, (warmup, train, period) = config.env.num_envs, config.total_timesteps, intervals_of(config)
    if config.replay.kind != "none":
        train = nearest_multiple(train, num_envs, most=total)
        warmup = nearest_multiple(warmup, num_envs if config.network.memory == "none" else train, most=total)
    period = nearest_multiple(period, train, most=total - warmup)
    if warmup + period > total:
        return config
    if config.replay.kind != "none":
        config = _with(_with(config, "schedule.warmup", warmup), "schedule.train_every", train)
    return _with(config, "schedule.target_every", period) if config.schedule.target_every else config


def _fit_replay(config: Config) -> Config:
    """The size of a replay of sequences, of which one begins in every environment each ``period`` steps."""
    if config.replay.kind == "none" or config.network.memory == "none" or not config.replay.size:
        return config
    unit = config.env.num_envs * config.replay.period_of_sequences()
    return _with(config, "replay.size", nearest_multiple(config.replay.size, unit))


def _misses(config: Config, written_for: float) -> bool:
    """Whether ``evaluation.every`` was written for another length of the run, and gives too few or many evaluations.

    Fewer than 10 are too few and more than 100 too many; if the length for which it was written has fewer or more, that
    number is the limit.
    """
    every, warmup = config.evaluation.every, intervals_of(config).warmup
    if every is None or config.total_timesteps == written_for:
        return False
    count, meant = (round((total - warmup) / every) for total in (config.total_timesteps, written_for))
    return not min(FEW_EPOCHS, meant) <= count <= max(MANY_EPOCHS, meant)


def _evaluate_anew(config: Config) -> Config:
    """The config with the length and the interval that it has if it leaves ``evaluation.every`` open."""
    warmup, _, period = intervals_of(config)
    if config.total_timesteps - warmup < period:
        return config
    config = _fit_length(_with(config, "evaluation.every", None))
    learning = config.total_timesteps - warmup
    return _with(config, "evaluation.every", learning // most_epochs(learning // period))


def _fit_length(config: Config) -> Config:
    """The length of a run and of its epochs, in whole periods."""
    warmup, _, period = intervals_of(config)
    learning, every = config.total_timesteps - warmup, config.evaluation.every
    if learning < period:
        return config
    most = (LONGEST - warmup) // period
    periods = nearest_multiple(learning, period, most=LONGEST - warmup) // period
    if every is None:
        if most_epochs(periods) < FEW_EPOCHS <= periods:
            periods = _nearest(periods, lambda n: n <= most and most_epochs(n) >= ENOUGH_EPOCHS)
    else:
        epoch = min(nearest_multiple(every, period) // period, periods)
        divisor = _nearest(epoch, lambda n: periods % n == 0)
        if abs(divisor - epoch) <= _KEPT * epoch:
            epoch = divisor
        config = _with(config, "evaluation.every", epoch * period)
        periods = nearest_multiple(periods, epoch, most=most)
    return _with(config, "total_timesteps", warmup + periods * period)


def _fit_checkpoints(config: Config) -> Config:
    warmup, _, period = intervals_of(config)
    learning, every = config.total_timesteps - warmup, config.checkpoint.every
    if learning < period or every is None:
        return config
    epoch = config.evaluation.every or learning // most_epochs(learning // period)
    return _with(config, "checkpoint.every", nearest_multiple(every, epoch))


def nearest_multiple(value: int, unit: int, *, most: int = LONGEST) -> int:
    """The multiple of ``unit`` nearest to ``value``, at least ``unit``; of two the larger.

    It is at most ``most`` unless ``value`` or ``unit`` is larger.
    """
    return max(1, min((2 * value + unit) // (2 * unit), max(most, value) // unit)) * unit


def _nearest(value: int, fits: Callable[[int], bool]) -> int:
    """The number nearest to ``value`` that fits, of two the larger; ``value`` itself if none near it does."""
    for distance in range(_SEARCHED):
        for number in (value + distance, value - distance):
            if number > 0 and fits(number):
                return number
    return value


def _with(config: Config, key: str, value: int | None) -> Config:
    """The config with another value at a dotted key; the same object if it has that value."""
    if value_at(config, key) == value:
        return config
    section, _, name = key.rpartition(".")
    if not section:
        return config.model_copy(update={name: value})
    return config.model_copy(update={section: getattr(config, section).model_copy(update={name: value})})
