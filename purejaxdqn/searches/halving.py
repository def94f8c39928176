"""Successive halving: at each rung the weaker trials of a batch are stopped, and the others continue.

Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization". On a CPU the runs
of a survivor are bit for bit the runs it would have had alone.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from purejaxdqn.core.config import Config
from purejaxdqn.core.plan import make_plan
from purejaxdqn.runs.memory import available_memory, in_bytes
from purejaxdqn.system.faults import UserError


class Halving(NamedTuple):
    """When trials are compared, and how many of them continue."""

    factor: int  # one trial in so many continues
    rungs: int  # how often trials are compared

    @property
    def fractions(self) -> list[float]:
        """Where the rungs are, as fractions of a run's epochs: with factor 2 and three rungs 1/8, 1/4 and 1/2."""
        return [self.factor ** (rung - self.rungs) for rung in range(self.rungs)]

    def counts(self, trials: int) -> list[int]:
        """The number of trials that train up to each rung, and to the end."""
        return [-(-trials // self.factor**rung) for rung in range(self.rungs + 1)]

    def epochs(self, config: Config) -> list[int]:
        """The epochs of the rungs, and of the end."""
        epochs = make_plan(config).epochs
        return [max(1, round(fraction * epochs)) for fraction in (*self.fractions, 1.0)]

    def env_steps(self, trials: int, config: Config) -> int:
        """Environment steps of a batch with one seed for each trial."""
        ends = [0.0, *self.fractions, 1.0]
        shares = [count * (ends[k + 1] - ends[k]) for k, count in enumerate(self.counts(trials))]
        return round(sum(shares) * config.total_timesteps)


NO_HALVING = Halving(factor=1, rungs=0)
"""Every trial trains to its end."""


def check_rungs(halving: Halving, config: Config) -> None:
    """Refuse rungs between which a run has no evaluation.

    Raises:
      UserError: two rungs are at the same epoch.
    """
    epochs = make_plan(config).epochs
    # More rungs than epochs are not even listed.
    if halving.rungs >= epochs or len(set(halving.epochs(config))) <= halving.rungs:
        raise UserError(
            f"--rungs: {halving.rungs} rungs of a run with {epochs} evaluations coincide; "
            "use fewer, or make evaluation.every smaller"
        )


def check_room(sizes: Sequence[int], *, seeds: int, memory: int | None = None) -> None:
    """Refuse a batch whose states do not fit in memory: runs pause on the host until all have reached the rung.

    Args:
      sizes: bytes of the state of one run, for each trial.
      seeds: of each trial.
      memory: bytes to use at most; by default most of what the machine has.

    Raises:
      UserError: the batch is too large.
    """
    runs, needed = seeds * len(sizes), seeds * sum(sizes)
    if needed > (memory or int(0.8 * available_memory())):
        raise UserError(f"--memory: halving keeps a batch of {runs} runs in memory ({in_bytes(needed)}); lower --batch")


def best_points(scores: dict[int, float], count: int) -> list[int]:
    """The points with the highest scores, in their order; NaN is lowest, and of equal scores the first point wins."""
    ranked = sorted(scores, key=lambda point: (-scores[point] if math.isfinite(scores[point]) else math.inf, point))
    return sorted(ranked[:count])
