"""The end of a run before its ``total_timesteps`` (the config's section ``stop``)."""

from collections.abc import Iterable

from purejaxdqn.core.config import Config, value_at
from purejaxdqn.runs.metrics import Metrics


def is_reached(config: Config, metrics: Metrics, diverged: Iterable[bool]) -> bool:
    """Whether the last ``stop.evaluations`` evaluations of every seed reach ``stop.return``; False if that is null.

    Args:
      config: of the run.
      metrics: [S, T], all epochs so far.
      diverged: [S], which seeds have diverged. These reach nothing, whatever return their first action has.
    """
    wanted, count = value_at(config, "stop.return"), value_at(config, "stop.evaluations")
    if wanted is None or any(diverged) or metrics.eval_return.shape[1] < count:
        return False
    return bool((metrics.eval_return[:, -count:] >= wanted).all())
