"""The files of a run's directory that are not written while it trains: the config and the contents of the summary."""

import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

import purejaxdqn
from purejaxdqn.config.reading import CONFIG_FILE, to_yaml
from purejaxdqn.config.trust import sign
from purejaxdqn.core.config import Config
from purejaxdqn.runs.divergence import diverged_at
from purejaxdqn.runs.metrics import Metrics, first_solved_steps, solved_at
from purejaxdqn.runs.population import FinalAgents
from purejaxdqn.runs.training import Training
from purejaxdqn.system import directories
from purejaxdqn.system.faults import StorageError
from purejaxdqn.system.files import finite, write_text
from purejaxdqn.system.git import run_git

_LIBRARIES = ("jax", "jaxlib", "gymnax", "flashbax", "flax", "optax", "chex", "numpy")


def create_directory(folders: Iterable[Path], config: Config) -> Path:
    """Make the first of ``folders`` that does not exist, with ``config.yaml`` in it from the beginning, signed.

    Raises:
      UserError: all of them exist, or one cannot be made.
    """

    def fill(folder: Path) -> None:
        write_config(folder, config)
        sign(folder, config)

    return directories.create_directory(folders, fill, kind="run")


def write_config(folder: Path, config: Config) -> None:
    """Write or replace ``config.yaml``."""
    write_text(folder / CONFIG_FILE, to_yaml(config))


def check_there(folder: Path) -> None:
    """Refuse to write more into a directory that was deleted or moved: writing would make a part of it anew.

    Raises:
      StorageError: it is gone.
    """
    if not (folder / CONFIG_FILE).exists():
        raise StorageError(f"{folder} was deleted or moved during the run")


def summarise(
    config: Config,
    metrics: Metrics,
    agents: FinalAgents,
    training: Training,
    *,
    import_seconds: float,
    run_seconds: float,
) -> dict[str, Any]:
    """The contents of ``summary.json``; numbers that are not finite are None."""
    from purejaxdqn.runs.statistics import iqm, iqm_interval, trailing_mean  # SciPy: late, as it loads slowly

    final = agents.final_returns.mean(-1, dtype=np.float64)
    training_returns = [
        float(trailing_mean(*both)[-1]) for both in zip(metrics.episode_return, metrics.episodes, strict=True)
    ]
    diverged = diverged_at(metrics, agents.params)
    env_steps = int(metrics.env_step[:, -1].sum())
    summary = {
        "env_id": config.env.id,
        "num_seeds": config.num_seeds,
        "total_timesteps": config.total_timesteps,
        "import_seconds": round(import_seconds, 3),
        "compile_seconds": round(training.compile_seconds, 3),
        "run_seconds": round(run_seconds, 3),
        "env_steps_per_second": round(env_steps / run_seconds),
        "final_eval_return": final.tolist(),
        "iqm": iqm(final),
        "iqm_ci95": list(iqm_interval(final) or ()) or None,
        "training_return": training_returns,
        "solved_at": solved_at(config),
        "first_solved_step": first_solved_steps(metrics, solved_at(config)),
        "diverged": [step is not None for step in diverged],
        "diverged_step": diverged,
        **provenance(training.layout.devices),
    }
    return finite(summary)


def provenance(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """What produced the numbers: ``device``, ``versions`` and ``git_commit``."""
    device = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), {platform.machine()}"
    return {"device": device, "versions": _versions(), "git_commit": _git_commit()}


def _versions() -> dict[str, str]:
    ours = {"python": platform.python_version(), "purejaxdqn": purejaxdqn.__version__}
    return ours | {name: metadata.version(name) for name in _LIBRARIES}


def _git_commit() -> str | None:
    """The commit of the checkout that this package runs from, with ``-dirty`` if it has changes; None elsewhere."""
    package = Path(__file__).parents[1]
    if not (package.parent / ".git").exists():
        return None
    try:
        done = run_git(package.parent, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
    return None if done.returncode else done.stdout.decode().strip()
