"""Statistics against their published definitions, and the coverage of the interval by simulation."""

import numpy as np
import pytest
import scipy.stats

from purejaxdqn.host.statistics import (
    iqm,
    iqm_interval,
    performance_profile,
    probability_of_improvement,
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


def test_an_interval_needs_two_seeds_and_repeats():
    assert iqm_interval(np.array([1.0])) is None
    values = np.array([1.0, 5.0, 2.0, 8.0])
    assert iqm_interval(values) == iqm_interval(values)
    low, high = iqm_interval(values)
    assert low < iqm(values) < high


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
    shares, (low, high) = performance_profile(np.array([1.0, 2.0, 2.0, 4.0]), np.array([0.0, 1.0, 1.5, 2.0, 4.0]))
    np.testing.assert_array_equal(shares, [1.0, 0.75, 0.75, 0.25, 0.0])  # strictly above, as in the paper
    assert (low <= shares).all()
    assert (shares <= high).all()
    assert (low[0], high[0], low[-1], high[-1]) == (1.0, 1.0, 0.0, 0.0)  # no resample scores otherwise


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


def test_the_interval_of_the_probability_of_improvement_covers_the_true_one():
    generator, hits = np.random.default_rng(0), 0
    truth = scipy.stats.norm.cdf(0.5 / np.sqrt(2.0))
    for _ in range(100):
        _, (low, high) = probability_of_improvement(generator.normal(0.5, 1.0, 20), generator.normal(0.0, 1.0, 20))
        hits += low <= truth <= high
    assert 0.88 <= hits / 100 <= 1.0
