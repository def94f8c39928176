"""The driver under all commands: positions, and what happens after each segment."""

import chex
import numpy as np
import pytest

from purejaxdqn import load_config
from purejaxdqn.runs.population import BEGINNING, advance, finish_training
from purejaxdqn.runs.training import compile_training, seeds_of
from tests.conftest import TINY

pytestmark = pytest.mark.usefixtures("all_barely_compiled")


@pytest.fixture(scope="module")
def two_seeds():
    """A config, its program of 13 segments, and its population."""
    config = load_config("cartpole_cleanrl", [*TINY, "num_seeds=2"])
    population = seeds_of(config)
    training = compile_training(config, population, segments=13)
    with training.finish:
        yield config, training, population


def drive(two_seeds, position=BEGINNING, *, until=None, stop_at=None):
    steps = []

    def after_segment(position):
        steps.append(position.env_step)
        return position.env_step != stop_at

    position = advance(*two_seeds, position, until=until, after_segment=after_segment)
    return position, steps


def test_after_each_segment_the_caller_sees_the_new_position(two_seeds):
    position, steps = drive(two_seeds)
    assert steps == list(range(120, 601, 40))
    assert position.segments == len(position.parts) == 13
    np.testing.assert_array_equal(position.metrics.env_step, [steps, steps])


def test_a_population_advances_from_any_position_to_any_other_with_the_same_bits(two_seeds):
    _, training, population = two_seeds
    whole, _ = drive(two_seeds)
    position, steps = drive(two_seeds, until=5)
    assert (position.segments, steps[-1]) == (5, 280)
    position, steps = drive(two_seeds, position, stop_at=400)  # the caller does not want more
    assert (position.segments, steps) == (8, [320, 360, 400])
    position, _ = drive(two_seeds, position)
    chex.assert_trees_all_equal(position.metrics, whole.metrics)
    one, other = (finish_training(training, population, one.state) for one in (position, whole))
    chex.assert_trees_all_equal(one, other)
    assert one.final_returns.shape == (2, 4)


def test_at_the_end_there_is_nothing_left_to_advance(two_seeds):
    end, _ = drive(two_seeds, until=2)
    same, steps = drive(two_seeds, end, until=2)
    assert (same, steps) == (end, [])
