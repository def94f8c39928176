"""Benchmark of achievements: what is counted, and until when."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.achievements import main, unlocked, with_score


class State(NamedTuple):
    """Of a world whose achievements come after two and after four steps."""

    time: Any
    length: Any  # of the episode
    achievements: Any  # [2] bool


def world(*, time_limit):
    """Episodes of random length; an observation is the length. After an episode's end, everything is unlocked."""

    def reset(key, params):
        length = jax.random.randint(key, (), 1, 7)
        return length, State(jnp.int32(0), length, jnp.zeros(2, bool))

    def step(key, state, action, params):
        time = state.time + 1
        achievements = (time >= jnp.array([2, 4])) | (time > state.length)
        return state.length, State(time, state.length, achievements), 0.0, time >= state.length, False

    return SimpleNamespace(reset=reset, step=step, with_params=lambda overrides: None, time_limit=time_limit)


@pytest.mark.parametrize("time_limit", [3, 100])
def test_achievements_count_until_the_episode_ends(time_limit):
    lengths = []

    def choose(obs, key):
        jax.debug.callback(lambda obs: lengths.append(np.asarray(obs)), obs)
        return jnp.zeros_like(obs)

    found = np.asarray(unlocked(world(time_limit=time_limit), choose, jax.random.key(0), episodes=30))
    jax.effects_barrier()
    steps = np.minimum(lengths[0], time_limit)
    assert set(lengths[0]) == {1, 2, 3, 4, 5, 6}
    np.testing.assert_array_equal(found, steps[:, None] >= np.array([2, 4]))


def test_the_score_is_the_geometric_mean_of_the_paper():
    shares = np.array([0.5, 0.0, 1.0])
    wanted = np.exp(np.mean(np.log(1 + 100 * shares))) - 1
    np.testing.assert_allclose(100 * with_score(shares), [50, 0, 100, wanted])


def test_a_run_of_another_suite_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["achievements", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
