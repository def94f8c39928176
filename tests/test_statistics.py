"""Statistics against their published definitions, and the coverage of the interval by simulation."""

import itertools
import re
import tracemalloc

import numpy as np
import pytest
import scipy.stats

from purejaxdqn.runs import statistics
from purejaxdqn.runs.statistics import (
    RESAMPLES,
    _weighted_percentiles,
    improvement_in_words,
    iqm,
    iqm_interval,
    name_of_spread,
    performance_profile,
    probability_of_improvement,
    spread,
    spread_in_words,
    trailing_mean,
)


def test_the_iqm_is_the_mean_of_the_middle_half():
    assert iqm(np.array([100.0, 1, 2, 3, 4, 5, 6, -100])) == 3.5
    assert iqm(np.array([7.0])) == 7.0
    # Six values: a quarter of them, rounded down to one, goes at each end (SciPy's trim_mean, as in rliable).
    assert iqm(np.array([0.0, 1, 2, 3, 4, 50])) == 2.5


def test_the_interval_covers_the_true_value_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        low, high = iqm_interval(generator.normal(10.0, 3.0, 30))
        hits += low <= 10.0 <= high
    assert 0.89 <= hits / 300 <= 0.98  # a percentile bootstrap of 30 falls a little short of 95%


def test_the_interval_is_of_the_iqm_and_not_of_the_mean():
    low, high = iqm_interval(np.array([*np.linspace(0.0, 1.0, 19), 1e6]))
    assert 0.0 < low < high < 1.0


def test_an_interval_needs_five_seeds_and_repeats():
    values = np.array([1.0, 5.0, 2.0, 8.0, 3.0, 4.0, 4.5])
    for count in (5, 7):
        assert iqm_interval(values[:count]) == iqm_interval(values[:count])
        low, high = iqm_interval(values[:count])
        assert low < iqm(values[:count]) < high
    assert iqm_interval(values[:4]) is None


def all_resamples(values):
    return np.array(list(itertools.product(values, repeat=len(values))))


@pytest.mark.parametrize("count", [5, 6])
def test_the_interval_of_few_seeds_is_that_of_all_resamples(count):
    values = np.random.default_rng(count).normal(size=count)
    every = scipy.stats.trim_mean(all_resamples(values), 0.25, axis=1)
    assert len(every) == count**count
    np.testing.assert_allclose(iqm_interval(values), np.percentile(every, [2.5, 97.5]), rtol=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.5, 0.6, 0.95, 1.0])
def test_percentiles_of_counted_values_are_those_of_the_values_repeated(level):
    values, counts = np.array([3.0, 1.0, 2.0, 5.0]), np.array([1, 2, 5, 3])
    tail = 50 * (1 - level)
    wanted = np.percentile(np.repeat(values, counts), [tail, 100 - tail])
    np.testing.assert_allclose(_weighted_percentiles(values, counts, level), wanted, rtol=1e-12)


def test_around_few_seeds_their_range_is_shown_and_called_so():
    values = [3.0, 1.0, 2.0, 5.0]
    assert spread(np.array(values)) == (1.0, 5.0)
    assert spread(np.array(values[:1])) is None
    assert spread_in_words(values) == ", range 1.000 to 5.000"
    assert spread_in_words([3.0, None, 2.0]) == ""
    five = np.array([*values, 4.0])
    assert spread(five) == iqm_interval(five)
    assert spread_in_words(five) == ", 95% CI {:#.4g} to {:#.4g}".format(*iqm_interval(five))
    assert [name_of_spread(seeds) for seeds in (2, 4, 5, 30)] == ["range", "range", "95% CI", "95% CI"]


@pytest.mark.parametrize(
    ("means", "counts", "expected"),
    [
        ([1.0, 2.0, 3.0], [100, 100, 100], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [50, 50, 50], [1.0, 1.5, 2.5]),
        ([1.0, np.nan, 4.0], [50, 0, 100], [1.0, 1.0, 4.0]),
        ([np.nan, 2.0], [0, 1], [np.nan, 2.0]),
    ],
)
def test_the_moving_average_reaches_back_until_it_holds_a_hundred_episodes(means, counts, expected):
    np.testing.assert_allclose(trailing_mean(np.array(means), np.array(counts)), expected)


def test_a_performance_profile_is_the_share_of_runs_above_each_threshold():
    values, thresholds = np.array([1.0, 2.0, 2.0, 4.0]), np.array([0.0, 1.0, 1.5, 2.0, 4.0])
    shares, interval = performance_profile(values, thresholds)
    np.testing.assert_array_equal(shares, [1.0, 0.75, 0.75, 0.25, 0.0])  # strictly above, as in the paper
    assert interval is None  # of four seeds
    shares, (low, high) = performance_profile(np.repeat(values, 2), thresholds)
    np.testing.assert_array_equal(shares, [1.0, 0.75, 0.75, 0.25, 0.0])
    assert (low <= shares).all()
    assert (shares <= high).all()
    assert (low[0], high[0], low[-1], high[-1]) == (1.0, 1.0, 0.0, 0.0)  # no resample scores otherwise


@pytest.mark.parametrize("count", [5, 6])
def test_the_interval_of_a_profile_of_few_seeds_is_that_of_all_resamples(count, monkeypatch):
    values, thresholds = np.random.default_rng(count).normal(size=count), np.linspace(-1, 1, 7)
    monkeypatch.delattr(np.random, "default_rng")  # nothing is drawn, though draws would often give the same shares
    every = (all_resamples(values)[:, :, None] > thresholds).mean(1)
    _, interval = performance_profile(values, thresholds)
    np.testing.assert_allclose(interval, np.percentile(every, [2.5, 97.5], axis=0), rtol=1e-12)


def test_the_interval_of_a_profile_covers_the_true_share():
    generator, hits = np.random.default_rng(0), 0
    for _ in range(200):
        _, (low, high) = performance_profile(generator.random(30), np.array([0.3]))
        hits += low[0] <= 0.7 <= high[0]
    assert 0.88 <= hits / 200 <= 0.99


@pytest.mark.parametrize(
    ("values", "others", "chance"),
    [
        ([1.0, 2.0, 3.0], [0.0, 0.5], 1.0),
        ([1.0], [1.0], 0.5),
        ([1.0, 3.0], [2.0, 3.0], (0 + 0 + 1 + 0.5) / 4),
        ([0.0, 0.0], [1.0, 2.0, 3.0], 0.0),
    ],
)
def test_the_probability_of_improvement_is_the_share_of_pairs_won(values, others, chance):
    assert probability_of_improvement(np.array(values), np.array(others))[0] == chance
    assert probability_of_improvement(np.array(others), np.array(values))[0] == 1 - chance


def test_the_probability_of_improvement_is_the_mann_whitney_statistic():
    generator = np.random.default_rng(3)
    values, others = generator.normal(0.3, 1.0, 17), generator.normal(0.0, 1.0, 23)
    statistic = scipy.stats.mannwhitneyu(values, others).statistic
    assert probability_of_improvement(values, others)[0] == pytest.approx(statistic / (17 * 23))


def pair_by_pair(values, others):
    """The formula as it stands, over all pairs of all resamples."""

    def share(x, y):
        wins, ties = (compare(x[..., :, None], y[..., None, :]).mean((-1, -2)) for compare in (np.greater, np.equal))
        return wins + 0.5 * ties

    generator = np.random.default_rng(0)
    resampled = share(*(generator.choice(one, (RESAMPLES, len(one))) for one in (values, others)))
    tail = 50.0 * (1.0 - 0.95)
    return float(share(values, others)), tuple(np.percentile(resampled, [tail, 100.0 - tail]).tolist())


@pytest.mark.parametrize("kind", ["no ties", "many ties", "other numbers of seeds", "NaN and infinity"])
def test_the_probability_of_improvement_is_that_of_all_pairs_bit_for_bit(kind):
    generator = np.random.default_rng(7)
    values, others = generator.normal(0.2, 1.0, 30), generator.normal(0.0, 1.0, 17 if kind.startswith("other") else 30)
    if kind == "many ties":
        values, others = values.round(), others.round().astype(np.float32)
    if kind == "NaN and infinity":
        values[:3], others[:4] = [np.nan, np.inf, -np.inf], [np.nan, np.nan, np.inf, -np.inf]
    for one, other in ((values, others), (others, values)):
        assert probability_of_improvement(one, other) == pair_by_pair(one, other)


def test_the_interval_of_an_improvement_of_few_seeds_is_that_of_all_pairs_of_resamples(monkeypatch):
    """By its definition, of four against three seeds: all pairs of resamples of five would not fit in memory."""
    monkeypatch.setattr(statistics, "FEWEST", 3)
    generator = np.random.default_rng(5)
    values, others = generator.normal(0.5, 1.0, 4).round(1), np.array([0.5, np.nan, 0.1])
    x, y = all_resamples(values)[:, None, :, None], all_resamples(others)[:, None, :]
    every = ((x > y) + 0.5 * (x == y)).mean((-1, -2)).ravel()
    assert len(every) == 4**4 * 3**3
    monkeypatch.delattr(np.random, "default_rng")
    probability, interval = probability_of_improvement(values, others)
    np.testing.assert_allclose(interval, np.percentile(every, [2.5, 97.5]), rtol=1e-12)
    assert interval[0] <= probability <= interval[1]


@pytest.mark.parametrize(("seeds", "others"), [(4, 30), (30, 4), (2, 2)])
def test_an_improvement_of_fewer_than_five_seeds_has_no_interval(seeds, others):
    generator = np.random.default_rng(0)
    values, others = generator.normal(size=seeds), generator.normal(size=others)
    probability, interval = probability_of_improvement(values, others)
    assert interval is None
    assert improvement_in_words(values, others) == f"{probability:.2f}"
    assert re.fullmatch(r"0\.\d\d \(0\.\d\d to [01]\.\d\d\)", improvement_in_words(np.arange(5.0), np.arange(5) + 0.5))


def test_the_memory_for_the_probability_of_improvement_grows_with_the_seeds_and_not_with_their_pairs():
    generator, peaks = np.random.default_rng(0), []
    for seeds in (25, 200):
        values, others = generator.normal(size=(2, seeds))
        tracemalloc.start()
        probability_of_improvement(values, others)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 12 * peaks[0]  # for eight times the seeds


def test_the_interval_of_the_probability_of_improvement_covers_the_true_one():
    generator, hits = np.random.default_rng(0), 0
    truth = scipy.stats.norm.cdf(0.5 / np.sqrt(2.0))
    for _ in range(100):
        _, (low, high) = probability_of_improvement(generator.normal(0.5, 1.0, 20), generator.normal(0.0, 1.0, 20))
        hits += low <= truth <= high
    assert 0.88 <= hits / 100 <= 1.0
