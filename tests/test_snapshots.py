"""Checkpoints of earlier versions: the paths of their arrays lead to today's."""

import jax
import pytest

from purejaxdqn import load_config
from purejaxdqn.runs.snapshots import _path_today
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
