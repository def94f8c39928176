"""Statistics over seeds: the interquartile mean and its bootstrap interval (Agarwal et al. 2021)."""

import numpy as np
import scipy.stats

RESAMPLES = 2_000


def iqm(values: np.ndarray) -> float:
    """Interquartile mean: the mean of the middle half of ``values`` [S], a quarter cut at each end."""
    return float(scipy.stats.trim_mean(values, 0.25))


def iqm_interval(values: np.ndarray, *, level: float = 0.95) -> tuple[float, float] | None:
    """Percentile bootstrap interval of ``iqm`` over seeds [S]; None for fewer than two.

    The resamples come from a fixed seed, so that a table repeats exactly.
    """
    if len(values) < 2:
        return None
    generator = np.random.default_rng(0)
    resamples = generator.choice(values, (RESAMPLES, len(values)))
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(scipy.stats.trim_mean(resamples, 0.25, axis=1), [tail, 100.0 - tail])
    return float(low), float(high)


def trailing_mean(means: np.ndarray, counts: np.ndarray, *, at_least: int = 100) -> np.ndarray:
    """Mean over the last ``at_least`` episodes or a few more, epoch by epoch.

    Args:
      means: [T] mean return of the episodes that finished in each epoch; read only where counts > 0.
      counts: [T] how many those were.
      at_least: whole epochs are taken, backwards, until they hold this many episodes.

    Returns:
      [T]; NaN before the first episode.
    """
    sums = np.where(counts > 0, means * counts, 0.0)
    out = np.full(len(counts), np.nan)
    for end in range(1, len(counts) + 1):
        held = np.cumsum(counts[:end][::-1])
        epochs = int(np.searchsorted(held, at_least)) + 1
        first = max(0, end - epochs)
        if counts[first:end].sum():
            out[end - 1] = sums[first:end].sum() / counts[first:end].sum()
    return out
