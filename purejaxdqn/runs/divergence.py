"""Runs that lost their numbers: which, and since when."""

import sys
from typing import Any

import jax
import numpy as np

from purejaxdqn.runs.metrics import Metrics


def diverged_at(metrics: Metrics, params: Any) -> list[int | None]:
    """Per run the environment step at which it was first seen to have diverged, None if it has not.

    Args:
      metrics: [R, T]; the first epoch whose loss is not finite counts.
      params: leaves [R, ...] at the end of ``metrics``; where these alone are not finite, its last epoch counts.
    """
    lost = ~np.isfinite(metrics.loss)
    lost[:, -1] |= ~finite_runs(params)
    return [
        int(steps[where.argmax()]) if where.any() else None for steps, where in zip(metrics.env_step, lost, strict=True)
    ]


def finite_runs(params: Any) -> np.ndarray:
    """Which runs [R] have none but finite parameters; leaves [R, ...]."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    return np.all([np.isfinite(leaf.reshape(len(leaf), -1)).all(-1) for leaf in leaves], axis=0)


class Watch:
    """Names each run that diverges on standard error, once."""

    def __init__(self, num_runs: int):
        self._lost = np.zeros(num_runs, bool)

    @property
    def all_diverged(self) -> bool:
        """Whether no run is left."""
        return bool(self._lost.all())

    def look(self, part: Metrics, params: Any) -> list[int]:
        """Look at a segment's rows [R, T] and the parameters at its end; returns the runs newly lost."""
        steps = diverged_at(part, params)
        new = [run for run, step in enumerate(steps) if step is not None and not self._lost[run]]
        for run in new:
            finite = np.isfinite(part.loss[run]).all()
            what = "its parameters are" if finite else "its loss is"
            print(f"seed {run} diverged: {what} not finite at step {steps[run]}", file=sys.stderr)
        self._lost[new] = True
        return new
