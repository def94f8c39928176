"""The complete state of a training between two segments, as named arrays and back.

Places that only pad the devices are not saved, so that a run can be resumed on any number of devices.
"""

import re
from typing import Any, NamedTuple

import jax
import numpy as np

import purejaxdqn
from purejaxdqn.core.config import Config
from purejaxdqn.core.keys import data_of_keys, is_key, keys_of
from purejaxdqn.core.many import Layout
from purejaxdqn.core.types import RunnerState
from purejaxdqn.runs.checkpoints import Checkpoint, Checkpoints
from purejaxdqn.runs.metrics import Metrics, stored_metrics
from purejaxdqn.runs.training import Training, shapes_of_run
from purejaxdqn.system.faults import UserError


class Snapshot(NamedTuple):
    """What a run is resumed from."""

    state: dict[str, np.ndarray]  # leaves of a RunnerState [R, ...] by their paths, keys as their data
    metrics: Metrics  # [R, T] so far
    config: Config  # of the run when this was saved
    segment_epochs: int  # of the program that ran
    run_seconds: float  # so far
    version: str = purejaxdqn.__version__  # of this package, which saved it

    @property
    def env_step(self) -> int:
        """Environment steps so far, over all environments, warm-up included."""
        return int(self.metrics.env_step[0, -1])

    @property
    def epochs(self) -> int:
        """Epochs so far."""
        return self.metrics.env_step.shape[1]


def save_snapshot(checkpoints: Checkpoints, snapshot: Snapshot) -> None:
    """Save a snapshot under its environment step.

    Raises:
      StorageError: it could not be written.
    """
    arrays = {f"state{path}": leaf for path, leaf in snapshot.state.items()}
    arrays |= {f"metrics.{name}": column for name, column in snapshot.metrics._asdict().items()}
    about = {
        "config": snapshot.config.model_dump(),
        "segment_epochs": snapshot.segment_epochs,
        "run_seconds": round(snapshot.run_seconds, 3),
        "version": snapshot.version,
    }
    checkpoints.save(snapshot.env_step, arrays, about)


def read_snapshot(checkpoint: Checkpoint) -> Snapshot:
    """The snapshot that was saved as ``checkpoint``."""
    state = dict(
        _today(name.removeprefix("state"), one) for name, one in checkpoint.arrays.items() if name.startswith("state")
    )
    # Copied: they live longer than the state, whose small arrays share their memory.
    metrics = stored_metrics(
        {
            name.removeprefix("metrics."): column.copy()
            for name, column in checkpoint.arrays.items()
            if name.startswith("metrics.")
        }
    )
    about = {"version": _UNNAMED, **checkpoint.about}
    known = {name: about[name] for name in ("segment_epochs", "run_seconds", "version")}
    return Snapshot(state, metrics, Config.model_validate(about["config"]), **known)


_UNNAMED = "0.2.0 or earlier"
"""The version of a checkpoint that names none."""
_PATHS_BEFORE_0_2 = {
    ".learner.opt_state": ".algorithm.learner.opt_state[1]",  # now behind clipping in a chain
    ".learner.": ".algorithm.learner.",
    ".replay.": ".algorithm.replay.",
}
"""Where versions before 0.2 kept parts of the state."""


_KEPT_FLAT = {
    re.compile(r"\.algorithm\.replay(\.ring)?(\.rows)?\.experience\.(next_)?obs"): 3,  # runs, 1, slots
    re.compile(r"\.algorithm\.replay\.tree"): 1,  # runs
}
"""Arrays of which today's versions keep so many axes and join the others, which versions before 0.2 kept apart."""


def _today(path: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """The path and the shape in today's ``RunnerState`` of a leaf that this or an earlier version saved."""
    path = _path_today(path)
    for pattern, axes in _KEPT_FLAT.items():
        if pattern.fullmatch(path):
            return path, array.reshape(*array.shape[:axes], -1)
    return path, array


def _path_today(path: str) -> str:
    """The path in today's ``RunnerState`` of a leaf that this or an earlier version saved."""
    for before, today in _PATHS_BEFORE_0_2.items():
        if path.startswith(before):
            return today + path.removeprefix(before)
    return path


def fetch_state(state: RunnerState, layout: Layout) -> dict[str, np.ndarray]:
    """Leaves [size, ...] on devices -> leaves [R, ...] on the host, by their paths.

    They may share the state's memory, which the next segment overwrites.
    """
    fetched = jax.device_get(data_of_keys(state))
    return {jax.tree_util.keystr(path): layout.take(leaf) for path, leaf in jax.tree.leaves_with_path(fetched)}


def check_state(snapshot: Snapshot) -> None:
    """Refuse a snapshot of another version of this package; compiles nothing.

    Raises:
      UserError: names an array of the state that differs.
    """
    shapes, runs = shapes_of_run(snapshot.config), snapshot.config.num_seeds
    wanted = jax.tree.leaves_with_path(jax.eval_shape(data_of_keys, shapes))
    fits = {jax.tree_util.keystr(path): (str(leaf.dtype), (runs, *leaf.shape)) for path, leaf in wanted}
    found = {path: (str(leaf.dtype), leaf.shape) for path, leaf in snapshot.state.items()}
    for path in [*fits, *found]:
        if fits.get(path) != found.get(path):
            versions = f"version {snapshot.version} saved it, this is {purejaxdqn.__version__}"
            what = f"state{path} is {_describe(found.get(path))} in it, but {_describe(fits.get(path))} here"
            raise UserError(f"--resume: the checkpoint does not fit this program: {what}; {versions}")


def place_state(arrays: dict[str, np.ndarray], training: Training) -> RunnerState:
    """The inverse of ``fetch_state``, for the devices of ``training``.

    It empties ``arrays``: each array is freed once it is placed, even if the caller still holds the mapping, so that
    a large state does not exist twice for the rest of a run.
    """
    layout = training.layout

    def place(path: Any, like: Any) -> Any:
        # Copied: the state is donated later, and NumPy's memory must not be.
        leaf = jax.device_put(layout.fill(arrays.pop(jax.tree_util.keystr(path))), layout.sharding, may_alias=False)
        return keys_of(leaf) if is_key(like) else leaf

    return jax.tree.map_with_path(place, training.state)


def state_of_run(arrays: dict[str, np.ndarray], run: int, training: Training) -> RunnerState:
    """The state of one run from the arrays of ``fetch_state``, without the axis over runs."""

    def pick(path: Any, like: Any) -> Any:
        leaf = arrays[jax.tree_util.keystr(path)][run]
        return keys_of(leaf) if is_key(like) else leaf

    return jax.tree.map_with_path(pick, training.state)


def _describe(kind: tuple[str, tuple[int, ...]] | None) -> str:
    return f"{kind[0]}{list(kind[1])}" if kind else "missing"
