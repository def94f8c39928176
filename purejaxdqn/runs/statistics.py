"""Statistics over seeds, after Agarwal et al. (2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice"): interquartile mean, performance profile, probability of improvement, with bootstrap intervals.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import scipy.stats

from purejaxdqn.system.messages import in_figures

RESAMPLES = 2_000
EXACT = 6
"""The largest number of seeds whose interval comes from all resamples: with 2,000, ends are off by a tenth of it."""
FEWEST = 5
"""The smallest number of seeds with a bootstrap interval. With fewer seeds, their range is shown instead."""


def iqm(values: np.ndarray) -> float:
    """Interquartile mean: the mean of the middle half of ``values`` [S], without a quarter at each end."""
    with np.errstate(invalid="ignore", over="ignore"):
        return float(scipy.stats.trim_mean(values, 0.25))


def iqm_of_columns(values: np.ndarray) -> np.ndarray:
    """The ``iqm`` over the first axis: [S, T] -> [T]."""
    with np.errstate(invalid="ignore", over="ignore"):
        return scipy.stats.trim_mean(values, 0.25, axis=0)


def iqm_interval(values: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES) -> tuple[float, float] | None:
    """Percentile bootstrap interval of ``iqm`` over seeds [S]; None below ``FEWEST``, or if an end is not finite.

    Up to ``EXACT`` seeds it is that of all S^S resamples. Of more, resamples are drawn with a fixed seed, so that the
    same values always give the same interval.
    """
    if len(values) < FEWEST:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        if len(values) <= EXACT:
            kinds, counts = _all_resamples(len(values))
            ends = _weighted_percentiles(scipy.stats.trim_mean(values[kinds], 0.25, axis=1), counts, level)
        else:
            drawn = np.random.default_rng(0).choice(values, (resamples, len(values)))
            ends = _percentiles(scipy.stats.trim_mean(drawn, 0.25, axis=1), level)
    return (float(ends[0]), float(ends[1])) if np.isfinite(ends).all() else None


def spread(values: np.ndarray, *, resamples: int = RESAMPLES) -> tuple[float, float] | None:
    """What is shown around the ``iqm`` of seeds [S], see ``name_of_spread``; None for fewer than two seeds.

    The ``iqm_interval`` of ``FEWEST`` seeds or more, and the smallest and largest of fewer; None if one is not finite.
    """
    if len(values) >= FEWEST:
        return iqm_interval(values, resamples=resamples)
    return (float(values.min()), float(values.max())) if len(values) > 1 and np.isfinite(values).all() else None


def name_of_spread(seeds: int) -> str:
    """``95% CI``, or ``range`` of seeds that are too few for one."""
    return "95% CI" if seeds >= FEWEST else "range"


def spread_in_words(values: Sequence[float | None] | np.ndarray) -> str:
    """``, 95% CI 1.000 to 2.000``, or ``range``; nothing if there is none, or a value is None or not finite."""
    found = spread(np.array([np.nan if value is None else value for value in values], np.float64))
    return f", {name_of_spread(len(values))} {in_figures(found[0])} to {in_figures(found[1])}" if found else ""


@functools.cache
def _all_resamples(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct resamples of ``count`` values, as places [K, count], and how many of all resamples are each [K]."""
    kinds = np.array(list(itertools.combinations_with_replacement(range(count), count)))
    repeats = [np.bincount(kind, minlength=count) for kind in kinds]
    return kinds, np.array([math.factorial(count) // math.prod(map(math.factorial, one)) for one in repeats])


def _weighted_percentiles(values: np.ndarray, counts: np.ndarray, level: float) -> np.ndarray:
    """``_percentiles`` [2] of values [K] of which each occurs ``counts`` [K] times."""
    order = np.argsort(values)
    values, until = values[order], counts[order].cumsum()
    tail = 0.5 * (1.0 - level)
    place = np.array([tail, 1.0 - tail]) * (until[-1] - 1)
    below = values[np.searchsorted(until, np.floor(place), side="right")]
    above = values[np.searchsorted(until, np.ceil(place), side="right")]
    return below + (place - np.floor(place)) * (above - below)


def performance_profile(
    values: np.ndarray, thresholds: np.ndarray, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray | None]:
    """Share of runs that score above each threshold (Agarwal et al. 2021, equation 2, with one task).

    Args:
      values: [S] scores.
      thresholds: [T].
      level: of the pointwise bootstrap interval.

    Returns:
      The shares [T], and their interval [2, T], as exact as ``iqm_interval``; None below ``FEWEST`` seeds.
    """
    shares = (values[:, None] > thresholds).mean(0)
    if len(values) < FEWEST:
        return shares, None
    if len(values) <= EXACT:
        kinds, counts = _all_resamples(len(values))
        resampled = values[kinds][..., None] > thresholds
        ends = [_weighted_percentiles(column, counts, level) for column in resampled.mean(1).T]
        return shares, np.stack(ends, -1)
    resamples = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    resampled = np.stack([(resamples > threshold).mean(-1) for threshold in thresholds], -1)
    return shares, _percentiles(resampled, level)


def probability_of_improvement(
    values: np.ndarray, others: np.ndarray, *, level: float = 0.95
) -> tuple[float, tuple[float, float] | None]:
    """Probability that a run of ``values`` [S] scores higher than a run of ``others`` [S']; a tie counts half.

    The Mann-Whitney statistic over S * S' pairs (Agarwal et al. 2021, section 4.3), with a bootstrap interval, which is
    that of all pairs of resamples if both have up to ``EXACT`` seeds, and None if one has fewer than ``FEWEST``. Scores
    are counted by rank, since the pairs of all resamples would not fit in memory. NaN neither wins nor ties.
    """
    scores, ranks = np.unique(np.concatenate([values, others]), return_inverse=True)
    ordered = int((~np.isnan(scores)).sum())  # NaN comes last

    def count(rows: np.ndarray) -> np.ndarray:
        return _count_ranks(rows, len(scores))[:, :ordered]

    def share(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        pairs, lower = len(values) * len(others), theirs.cumsum(-1) - theirs
        return (mine * lower).sum(-1) / pairs + 0.5 * ((mine * theirs).sum(-1) / pairs)

    both = np.split(ranks, [len(values)])
    probability = float(share(*(count(one[None]) for one in both))[0])
    if min(map(len, both)) < FEWEST:
        return probability, None
    if max(map(len, both)) <= EXACT:
        (kinds, often), (other_kinds, as_often) = (_all_resamples(len(one)) for one in both)
        resampled = share(count(both[0][kinds])[:, None], count(both[1][other_kinds]))
        ends = _weighted_percentiles(resampled.ravel(), np.outer(often, as_often).ravel(), level)
    else:
        generator = np.random.default_rng(0)
        resampled = share(*(count(generator.choice(one, (RESAMPLES, len(one)))) for one in both))
        ends = _percentiles(resampled, level)
    return probability, (float(ends[0]), float(ends[1]))


def improvement_in_words(values: np.ndarray, others: np.ndarray) -> str:
    """``0.68 (0.54 to 0.81)``: ``probability_of_improvement`` with its interval, or alone without one."""
    probability, interval = probability_of_improvement(values, others)
    return f"{probability:.2f} ({interval[0]:.2f} to {interval[1]:.2f})" if interval else f"{probability:.2f}"


def _count_ranks(ranks: np.ndarray, count: int) -> np.ndarray:
    """How often each of ``count`` ranks occurs in each row: [N, S] -> [N, count]."""
    rows = len(ranks)
    places = ranks + count * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count)


def _percentiles(resampled: np.ndarray, level: float) -> np.ndarray:
    """The ends [2, ...] of the percentile interval over the first axis."""
    tail = 50.0 * (1.0 - level)
    with np.errstate(invalid="ignore"):  # between two infinities there is NaN
        return np.percentile(resampled, [tail, 100.0 - tail], axis=0)


def trailing_mean(means: np.ndarray, counts: np.ndarray, *, at_least: int = 100) -> np.ndarray:
    """Mean return of about the last ``at_least`` episodes, at each epoch.

    Args:
      means: [T] mean return of the episodes that finished in each epoch; read only where counts > 0.
      counts: [T] number of these episodes.
      at_least: whole epochs are counted backwards until they hold this many episodes.

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
