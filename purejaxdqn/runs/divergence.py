"""Runs that have diverged, that is, whose loss or parameters are no longer finite: which, and since when."""

import sys
from typing import Any

import jax
import numpy as np

from purejaxdqn.runs.metrics import Metrics


def diverged_at(metrics: Metrics, params: Any) -> list[int | None]:
    """For each run the environment step at which its divergence first shows, None if it has not diverged.

    Args:
      metrics: [R, T]; the first epoch with a loss that is not finite counts.
      params: leaves [R, ...] at the end of ``metrics``; if only these are not finite, the last epoch counts.
    """
    lost = ~np.isfinite(metrics.loss)
    lost[:, -1] |= ~finite_runs(params)
    return [
        int(steps[where.argmax()]) if where.any() else None for steps, where in zip(metrics.env_step, lost, strict=True)
    ]


def finite_runs(params: Any) -> np.ndarray:
    """Which runs [R] have only finite parameters; leaves [R, ...]."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    return np.all([np.isfinite(leaf.reshape(len(leaf), -1)).all(-1) for leaf in leaves], axis=0)


class DivergenceWatch:
    """Reports each run that diverges on standard error, once."""

    def __init__(self, num_runs: int):
        self.diverged = np.zeros(num_runs, bool)

    @property
    def all_diverged(self) -> bool:
        """Whether every run has diverged."""
        return bool(self.diverged.all())

    def look(self, part: Metrics, params: Any) -> list[int]:
        """Check a segment's rows [R, T] and the parameters at its end; returns the runs that have newly diverged."""
        steps = diverged_at(part, params)
        new = [run for run, step in enumerate(steps) if step is not None and not self.diverged[run]]
        for run in new:
            finite = np.isfinite(part.loss[run]).all()
            what = "its parameters are" if finite else "its loss is"
            print(f"seed {run} diverged: {what} not finite at step {steps[run]}", file=sys.stderr)
        self.diverged[new] = True
        return new
