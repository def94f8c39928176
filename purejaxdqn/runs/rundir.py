"""The directory a run leaves behind."""

import contextlib
import itertools
import json
import math
import os
import platform
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

import purejaxdqn
from purejaxdqn.config.reading import CONFIG_FILE, to_yaml
from purejaxdqn.core.config import Config
from purejaxdqn.environments.registry import SOLVED_AT
from purejaxdqn.runs.divergence import diverged_at
from purejaxdqn.runs.metrics import Metrics, first_solved_steps
from purejaxdqn.runs.training import Outcome, Training
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import write_text

_LIBRARIES = ("jax", "jaxlib", "gymnax", "flashbax", "flax", "optax", "chex", "numpy")


def default_directories(config_names: Sequence[str]) -> Iterator[Path]:
    """``runs/<config name>/<timestamp>``, and what to take in turn where that is taken."""
    parent = Path("runs") / "+".join(Path(name).stem for name in config_names)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    yield parent / stamp
    for n in itertools.count(2):
        yield parent / f"{stamp}-{n}"


@contextlib.contextmanager
def default_directory(config_names: Sequence[str]) -> Iterator[Path]:
    """The first of the default directories that did not exist, made and empty; gone afterwards if it stayed so.

    Commands that begin in the same second are after the same name: it is theirs who make it first.

    Raises:
      UserError: it cannot be made.
    """
    for folder in default_directories(config_names):
        missing = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"--out: {folder} cannot be made: {error.strerror}") from error
        try:
            yield folder
        finally:
            _remove_empty(missing)
        return


def create_directory(folders: Iterable[Path], config: Config) -> Path:
    """Make the first of ``folders`` that does not exist; returns it.

    Raises:
      UserError: all of them exist, or one cannot be made.
    """
    for folder in folders:
        if _take(folder, config):
            return folder
    raise UserError(f"--out: {folder} exists; a run never overwrites one")


def _take(folder: Path, config: Config) -> bool:
    """Make a directory with ``config.yaml`` in it, at no moment without; False if something stands in its place.

    Runs that begin in the same second are after the same default name: it is theirs who rename first.
    """
    missing = [one for one in folder.parents if not os.path.lexists(one)]
    # Random, as a process on another machine that sees the same folder may have this one's number.
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        if os.path.lexists(folder):
            return False
        part.mkdir(parents=True)
        write_config(part, config)
        part.rename(folder)
    except OSError as error:
        if os.path.lexists(folder):
            return False
        raise UserError(f"--out: {folder} cannot be made: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        _remove_empty(missing)
    return True


def _remove_empty(folders: Iterable[Path]) -> None:
    """Leave nothing behind that nothing came into; innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def write_config(folder: Path, config: Config) -> None:
    """Write or replace ``config.yaml``."""
    write_text(folder / CONFIG_FILE, to_yaml(config))


def summarise(
    config: Config,
    metrics: Metrics,
    outcome: Outcome,
    training: Training,
    *,
    import_seconds: float,
    run_seconds: float,
) -> dict[str, Any]:
    """The contents of ``summary.json``; numbers that are not finite become null."""
    from purejaxdqn.runs.statistics import iqm, iqm_interval, trailing_mean  # SciPy: late, as it loads slowly

    final = outcome.final_returns.mean(-1, dtype=np.float64)
    training_returns = [trailing_mean(*both)[-1] for both in zip(metrics.episode_return, metrics.episodes, strict=True)]
    diverged = diverged_at(metrics, outcome.params)
    env_steps = int(metrics.env_step[:, -1].sum())
    return {
        "env_id": config.env.id,
        "num_seeds": config.num_seeds,
        "total_timesteps": config.total_timesteps,
        "import_seconds": round(import_seconds, 3),
        "compile_seconds": round(training.compile_seconds, 3),
        "run_seconds": round(run_seconds, 3),
        "env_steps_per_second": round(env_steps / run_seconds),
        "final_eval_return": [_or_none(value) for value in final],
        "iqm": _or_none(iqm(final)),
        "iqm_ci95": list(iqm_interval(final) or ()) or None,
        "training_return": [_or_none(value) for value in training_returns],
        "solved_at": SOLVED_AT.get(config.env.id),
        "first_solved_step": first_solved_steps(metrics, SOLVED_AT.get(config.env.id)),
        "diverged": [step is not None for step in diverged],
        "diverged_step": diverged,
        **provenance(training.layout.devices),
    }


def provenance(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """What numbers were made with: ``device``, ``versions`` and ``git_commit``."""
    device = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), {platform.machine()}"
    return {"device": device, "versions": _versions(), "git_commit": _git_commit()}


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write ``summary.json``."""
    write_text(folder / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")


def draw_run(folder: Path, metrics: Metrics, config: Config) -> None:
    """Draw ``learning_curve.png`` and ``report.png``."""
    from purejaxdqn.pictures.runs import draw_learning_curve, draw_report  # Matplotlib: likewise

    title = f"{config.env.id}, {config.num_seeds} seed{'s' if config.num_seeds > 1 else ''}"
    solved_at = SOLVED_AT.get(config.env.id)
    draw_learning_curve(folder / "learning_curve.png", metrics, title=title, solved_at=solved_at)
    draw_report(folder / "report.png", metrics, title=title, solved_at=solved_at)


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _versions() -> dict[str, str]:
    ours = {"python": platform.python_version(), "purejaxdqn": purejaxdqn.__version__}
    return ours | {name: metadata.version(name) for name in _LIBRARIES}


def _git_commit() -> str | None:
    """The commit of the checkout this package runs from, with ``-dirty`` where it was changed; None elsewhere."""
    package = Path(__file__).parents[1]
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", str(package.parent), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
