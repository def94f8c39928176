"""Checkpoints of earlier versions: the paths of their arrays lead to today's."""

import jax
import numpy as np
import pytest

from purejaxdqn import load_config
from purejaxdqn.core.keys import data_of_keys
from purejaxdqn.runs.snapshots import _path_today, _today
from purejaxdqn.runs.training import shapes_of_run
from tests.conftest import TINY

# Paths that version 0.1.0 wrote, of each part of the state.
BEFORE = {
    ".learner.online['params']['Dense_0']['weight']": ".algorithm.learner.online['params']['Dense_0']['weight']",
    ".learner.target['params']['Dense_1']['bias']": ".algorithm.learner.target['params']['Dense_1']['bias']",
    ".learner.opt_state[0].count": ".algorithm.learner.opt_state[1][0].count",
    ".learner.opt_state[0].mu['params']['Dense_0']['bias']": (
        ".algorithm.learner.opt_state[1][0].mu['params']['Dense_0']['bias']"
    ),
    ".learner.observations.mean": ".algorithm.learner.observations.mean",
    ".actors.env_state.x": ".actors.env_state.x",
    ".actors.episodes.return_sum": ".actors.episodes.return_sum",
    ".replay.ring.experience.obs": ".algorithm.replay.ring.experience.obs",
    ".replay.tree": ".algorithm.replay.tree",
    ".key": ".key",
}


@pytest.mark.parametrize("before", BEFORE)
def test_an_array_of_version_0_1_0_has_a_place_today(before):
    config = load_config("cartpole_cleanrl", [*TINY, "env.normalize=true", "replay.kind=prioritised"])
    paths = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(shapes_of_run(config))}
    assert _path_today(before) == BEFORE[before]
    assert BEFORE[before] in paths
    assert _path_today(BEFORE[before]) == BEFORE[before]


@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
def test_pictures_that_replay_kept_in_their_shape_become_the_vectors_of_today(kind):
    config = load_config("minatar/breakout", [*TINY, f"replay.kind={kind}"])
    shapes = jax.eval_shape(data_of_keys, shapes_of_run(config))
    pictures = [
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree.leaves_with_path(shapes)
        if leaf.shape[-1:] == (400,)
    ]
    assert len(pictures) == 2
    before = np.random.default_rng(0).random((2, 1, 300, 10, 10, 4)) < 0.5  # of two runs
    for path, leaf in pictures:
        today, kept = _today(path.removeprefix(".algorithm"), before)
        assert (today, kept.shape) == (path, (2, *leaf.shape))
        np.testing.assert_array_equal(kept[1, 0, 7].reshape(10, 10, 4), before[1, 0, 7])
        np.testing.assert_array_equal(_today(path, kept)[1], kept)


def test_a_sum_tree_of_rows_of_eight_becomes_the_vector_of_today():
    shapes = shapes_of_run(load_config("cartpole_cleanrl", [*TINY, "replay.kind=prioritised"]))
    before = np.arange(2.0 * shapes.algorithm.replay.tree.size).reshape(2, -1, 8)  # of two runs
    path, kept = _today(".replay.tree", before)
    assert (path, kept.shape) == (".algorithm.replay.tree", (2, *shapes.algorithm.replay.tree.shape))
    np.testing.assert_array_equal(kept, before.reshape(2, -1))
    np.testing.assert_array_equal(_today(path, kept)[1], kept)


def test_only_observations_and_the_tree_of_replay_change_their_shape():
    for path in (".algorithm.replay.ring.experience.reward", ".actors.obs", ".algorithm.replay.own.obs"):
        assert _today(path, np.zeros((2, 1, 3, 4, 5)))[1].shape == (2, 1, 3, 4, 5)
