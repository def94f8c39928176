"""The score of a trial."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from purejaxdqn.runs.statistics import iqm
from purejaxdqn.sweeps.results import RunResult


class Score(NamedTuple):
    """The score of a trial, or why it has none."""

    value: float | None
    reason: str | None


def score(results: Sequence[RunResult], objective: str) -> Score:
    """The IQM over a trial's seeds of the final greedy return (``final``) or the area under the curve (``auc``)."""
    if all(result.diverged for result in results):
        return Score(None, "every seed diverged")
    values = [result.final_eval_return if objective == "final" else result.auc for result in results]
    value = iqm(np.array(values))
    return Score(value, None) if np.isfinite(value) else Score(None, "its score is not a finite number")
