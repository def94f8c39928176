"""``train --resume RUN_DIR``: which config and which checkpoint a run continues with, and when it is refused."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from purejaxdqn.config.fitting import LONGEST, describe_moves, nearest_multiple
from purejaxdqn.config.reading import CONFIG_FILE, Draft, read_config, read_exactly
from purejaxdqn.core.config import Config, config_keys, value_at
from purejaxdqn.core.plan import intervals_of
from purejaxdqn.policies.cards import DESCRIPTION_FILE
from purejaxdqn.policies.summaries import warn_of_changes
from purejaxdqn.runs.checkpoints import Checkpoints, DamagedError
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import read_json
from purejaxdqn.system.messages import tell

_STOP = ("stop.return", "stop.evaluations")
FREE = ("total_timesteps", "schedule.horizon", "checkpoint.every", "checkpoint.keep", "log", *_STOP)
"""Keys in which a checkpoint may differ from the run that is resumed from it."""


def read_run(folder: Path, overrides: Sequence[str]) -> Draft:
    """The config with which a run is resumed: its own, with another end if the overrides change that.

    Schedules that are fractions of the run keep their end, which ``schedule.horizon`` then holds.

    Raises:
      UserError: there is no run, or the overrides change anything else.
    """
    try:
        found, exported = ((folder / name).is_file() for name in (CONFIG_FILE, DESCRIPTION_FILE))
    except OSError as error:
        raise UserError(f"--resume: {folder} cannot be read: {error.strerror}") from error
    if not found:
        raise UserError(f"--resume: {folder} is not a run: it has no {CONFIG_FILE}")
    if exported:
        raise UserError(f"--resume: {folder} is not a run but a policy that was exported from one")
    old, new = read_config(folder / CONFIG_FILE), read_exactly(folder / CONFIG_FILE, overrides)
    if new.lines or new.faults:
        return new
    changed = [key for key in config_keys() if value_at(old.config, key) != value_at(new.config, key)]
    wrong = [
        f"{key}: --resume cannot change it from {value_at(old.config, key)!r} to {value_at(new.config, key)!r}; "
        "only total_timesteps and stop may change"
        for key in changed
        if key not in ("total_timesteps", *_STOP)
    ]
    if wrong:
        raise UserError(*wrong)
    return _extended(old.config, new) if "total_timesteps" in changed else new


def _extended(old: Config, new: Draft) -> Draft:
    """The draft of a run with another end: whole epochs from its warm-up on, and schedules that keep their length."""
    warmup, every, total = intervals_of(old).warmup, old.evaluation.every, new.config.total_timesteps
    if every and total > warmup:
        total = warmup + nearest_multiple(total - warmup, every, most=LONGEST - warmup)
    schedule = old.schedule.model_copy(update={"horizon": old.schedule.horizon or old.total_timesteps})
    config = new.config.model_copy(update={"total_timesteps": total, "schedule": schedule})
    return new._replace(config=config, moves=describe_moves(new.config, config))


def read_end(folder: Path, config: Config) -> list[bool] | None:
    """Which seeds of a finished run have diverged; None if the run has not reached the end that ``config`` sets.

    A run writes its summary when everything but its pictures is written. One that ended early is finished if
    ``config`` would end it there, too.
    """
    try:
        summary = read_json(folder / "summary.json")
        diverged = list(summary["diverged"]) if summary["total_timesteps"] == config.total_timesteps else None
        if summary.get("stopped_at") is not None and not _ends_there(folder, config, diverged):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    warn_of_changes(folder)
    return diverged


def _ends_there(folder: Path, config: Config, diverged: list[bool] | None) -> bool:
    from purejaxdqn.runs.metrics import METRICS_FILE, read_metrics  # JAX
    from purejaxdqn.runs.stopping import is_reached

    return is_reached(config, read_metrics(folder / METRICS_FILE), diverged or [])


def newest_snapshot(checkpoints: Checkpoints, config: Config) -> tuple[Any, dict[int, str]]:
    """The snapshot of the newest sound checkpoint, None if the run was killed before its first.

    Returns:
      The snapshot; and the newer checkpoints, which are refused, with the reasons (see ``set_aside``).

    Raises:
      UserError: no checkpoint is sound, or the run would end before them.
    """
    from purejaxdqn.runs.snapshots import read_snapshot  # JAX

    refused: dict[int, str] = {}
    for step in reversed(checkpoints.steps()):
        try:
            snapshot = read_snapshot(checkpoints.load(step))
            _check_same_run(snapshot.config, config)
        except (DamagedError, KeyError, TypeError, ValueError) as error:
            refused[step] = str(error)
            continue
        if step > config.total_timesteps:
            raise UserError(f"total_timesteps: {config.total_timesteps} is below the {step} steps that are done")
        return snapshot, refused
    if refused:
        lines = [f"--resume: checkpoint {step} is refused: {reason}" for step, reason in refused.items()]
        raise UserError(*lines, f"--resume: {checkpoints.folder} has no other checkpoint to continue from")
    return None, refused


def set_aside(checkpoints: Checkpoints, refused: Mapping[int, str], *, sound: int) -> None:
    """Move refused checkpoints away from a run that is resumed at step ``sound``, and say so."""
    for step, reason in refused.items():
        place = checkpoints.set_aside(step)
        tell(f"warning: checkpoint {step} is refused and now in {place}: {reason}")
    if refused:
        print(f"resuming from the previous checkpoint, step {sound}", file=sys.stderr)


def _check_same_run(theirs: Config, ours: Config) -> None:
    """Check that a checkpoint is of this run.

    Raises:
      DamagedError: it is not; names a key that differs.
    """
    if horizon(theirs) != horizon(ours):
        raise DamagedError(f"it belongs to another run: its schedules end at {horizon(theirs)}, not {horizon(ours)}")
    for key in config_keys():
        if key not in FREE and value_at(theirs, key) != value_at(ours, key):
            values = f"{value_at(theirs, key)!r}, not {value_at(ours, key)!r}"
            raise DamagedError(f"it belongs to another run: its {key} is {values}")


def horizon(config: Config) -> int:
    """The environment steps over which schedules run."""
    return config.schedule.horizon or config.total_timesteps
