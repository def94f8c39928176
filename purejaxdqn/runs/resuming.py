"""``train --resume RUN_DIR``: which config, from which checkpoint, and what stands in the way."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from purejaxdqn.config.reading import CONFIG_FILE, Draft, read_config
from purejaxdqn.core.config import Config, config_keys, value_at
from purejaxdqn.policies.cards import DESCRIPTION_FILE
from purejaxdqn.runs.checkpoints import Checkpoints, DamagedError
from purejaxdqn.system.faults import UserError

FREE = ("total_timesteps", "schedule.horizon", "checkpoint.every", "checkpoint.keep", "log")
"""Keys in which a checkpoint may differ from the run that goes on from it."""


def read_run(folder: Path, overrides: Sequence[str]) -> Draft:
    """The config that a run goes on with: its own, with another end if the overrides say so.

    Schedules that are shares of the run keep the end they had: ``schedule.horizon`` takes it over.

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
    old, new = read_config(folder / CONFIG_FILE), read_config(folder / CONFIG_FILE, overrides)
    if new.lines or new.faults:
        return new
    changed = [key for key in config_keys() if value_at(old.config, key) != value_at(new.config, key)]
    wrong = [
        f"{key}: --resume cannot change it from {value_at(old.config, key)!r} to {value_at(new.config, key)!r}; "
        "only total_timesteps may change"
        for key in changed
        if key != "total_timesteps"
    ]
    if wrong:
        raise UserError(*wrong)
    return _extended(old.config, new) if changed else new


def _extended(old: Config, new: Draft) -> Draft:
    warmup, every = old.schedule.warmup, old.evaluation.every
    total = new.config.total_timesteps
    if every and (total - warmup) % every:
        below = total - (total - warmup) % every
        near = " or ".join(str(one) for one in (below, below + every) if one > warmup)
        message = f"{total} less schedule.warmup ({warmup}) is not a multiple of evaluation.every ({every})"
        raise UserError(f"total_timesteps: {message}; the nearest are {near}")
    schedule = old.schedule.model_copy(update={"horizon": old.schedule.horizon or old.total_timesteps})
    return new._replace(config=new.config.model_copy(update={"schedule": schedule}))


def read_end(folder: Path, config: Config) -> list[bool] | None:
    """Which seeds had diverged when a run came to the end that ``config`` gives it; None if it has not come there.

    Its summary is the last thing a run writes.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return list(summary["diverged"]) if summary["total_timesteps"] == config.total_timesteps else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def newest_snapshot(checkpoints: Checkpoints, config: Config) -> tuple[Any, dict[int, str]]:
    """The snapshot of the newest sound checkpoint, None if the run was killed before its first.

    Beside it the newer checkpoints, which are refused, and why: ``set_aside`` is for them.

    Raises:
      UserError: there are checkpoints, and none of them is sound, or the run is asked to end before them.
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
        raise UserError(*lines, f"--resume: {checkpoints.folder} holds no other; without it the run would begin anew")
    return None, refused


def set_aside(checkpoints: Checkpoints, refused: Mapping[int, str], *, sound: int) -> None:
    """Move refused checkpoints out of the way of a run that goes on from step ``sound``, and say so."""
    for step, reason in refused.items():
        place = checkpoints.set_aside(step)
        print(f"warning: checkpoint {step} is refused and now in {place}: {reason}", file=sys.stderr)
    if refused:
        print(f"going on from the one before, step {sound}", file=sys.stderr)


def _check_same_run(theirs: Config, ours: Config) -> None:
    """Whether a checkpoint is of this run.

    Raises:
      DamagedError: it is not; names the keys.
    """
    if horizon(theirs) != horizon(ours):
        raise DamagedError(f"it is of another run: its schedules end at {horizon(theirs)}, not {horizon(ours)}")
    for key in config_keys():
        if key not in FREE and value_at(theirs, key) != value_at(ours, key):
            values = f"{value_at(theirs, key)!r}, not {value_at(ours, key)!r}"
            raise DamagedError(f"it is of another run: its {key} is {values}")


def horizon(config: Config) -> int:
    """Environment steps that schedules take for the whole run."""
    return config.schedule.horizon or config.total_timesteps
