"""``--debug-nans``: run the segment in which a run diverged again, with every operation checked for NaNs."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import checkify

import purejaxdqn
from purejaxdqn.config.building import make_program
from purejaxdqn.core.config import Config
from purejaxdqn.core.keys import run_key
from purejaxdqn.runs.population import Position
from purejaxdqn.runs.snapshots import fetch_state, state_of_run
from purejaxdqn.runs.training import Population, Training


class FoundNan(Exception):
    """A run diverged under ``--debug-nans``; the message says which operation gave the first NaN."""


class Debugger:
    """Keeps the state at the beginning of the current segment, so that the segment can be run again.

    JAX's own ``jax_debug_nans`` stops at NaNs that mean "no episode ended", and names a whole scan at most.
    """

    def __init__(self, config: Config, training: Training, population: Population, *, segment_epochs: int):
        self._config, self._training, self._population = config, training, population
        self._epochs = segment_epochs
        self._kept: dict[str, np.ndarray] | None = None

    def keep(self, position: Position) -> None:
        """Copy the state, whose memory the next segment takes over; before the warm-up there is none."""
        if position.state is not None:
            state = fetch_state(position.state, self._training.layout)
            self._kept = {path: np.array(leaf) for path, leaf in state.items()}

    def find(self, run: int) -> str:
        """Run the segment in which ``run`` diverged again; returns a line about the operation that gave NaN first."""
        program = make_program(self._config)
        hparams, seed, seed_index = jax.tree.map(lambda leaf: leaf[run], self._population)

        def from_start(hparams: Any, key: Any) -> Any:
            return program.segment(hparams, program.init(hparams, key), self._epochs)

        def from_state(hparams: Any, state: Any) -> Any:
            return program.segment(hparams, state, self._epochs)

        if self._kept is None:
            error = _checked(from_start, hparams, run_key(seed, seed_index))
        else:
            error = _checked(from_state, hparams, state_of_run(self._kept, run, self._training))
        if error is None:
            return f"seed {run}: its numbers became infinite, and no operation of that segment gave NaN"
        return f"seed {run}: the first NaN came from {error.prim} at {_places(error)}"


def _checked(function: Callable, hparams: Any, argument: Any) -> Any:
    error, _ = jax.jit(checkify.checkify(function, errors=checkify.nan_checks))(hparams, argument)
    return error.get_exception()


def _places(error: Any) -> str:
    """The lines of this package and of the user's modules that led to an operation, innermost first."""
    package, libraries = Path(purejaxdqn.__file__).parent, Path(jax.__file__).parents[1]
    lines = []
    for frame in reversed(traceback.extract_tb(error.traceback_info.as_python_traceback())):
        path = Path(frame.filename)
        if path.is_relative_to(package):
            path = path.relative_to(package.parent)
        elif path.is_relative_to(libraries):
            continue
        lines.append(f"{path}:{frame.lineno} ({frame.name})")
    return ", called from ".join(lines)
