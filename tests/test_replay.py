"""The buffer against plain NumPy and against Gymnasium, which shares no code with gymnax."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn.core.config import Config
from purejaxdqn.core.draws import draw, uniform_from_bits
from purejaxdqn.core.replay import uniform_replay
from purejaxdqn.core.types import Step


def _steps(first, count):
    """Steps [1, count] that carry their number in every field."""
    numbers = jnp.arange(first, first + count, dtype=jnp.float32)[None]
    obs = jnp.stack([numbers, -numbers], axis=-1)
    ended = numbers.astype(jnp.int32) % 2 == 0
    return Step(obs, numbers.astype(jnp.int32), numbers, ended, ~ended, obs + 0.5)


HPARAMS = Config().hparams()._replace(gamma=np.float32(0.5))


def _empty(size):
    replay = uniform_replay(size=size)
    return replay, replay.init(jnp.zeros(2))


def _held(replay, state, draws=4000):
    return replay.sample(HPARAMS, state, jax.random.bits(jax.random.key(1), (draws,)), jnp.int32(0))


@pytest.mark.parametrize("added", [3, 9, 10, 13, 34])
def test_the_buffer_holds_the_last_transitions_in_whole(added):
    (replay, state), kept = _empty(10), []
    for first in range(0, added, 3):  # blocks that do not divide the size
        block = min(3, added - first)
        state = replay.add(HPARAMS, state, _steps(first, block))
        kept = (kept + list(range(first, first + block)))[-10:]
    batch = _held(replay, state)
    np.testing.assert_array_equal(np.unique(batch.transition.action), kept)
    number = np.asarray(batch.transition.action, np.float32)
    np.testing.assert_array_equal(batch.transition.obs, np.stack([number, -number], 1))
    np.testing.assert_array_equal(batch.transition.next_obs, np.stack([number, -number], 1) + 0.5)
    np.testing.assert_array_equal(batch.transition.reward, number)
    np.testing.assert_array_equal(batch.transition.discount, np.where(number % 2, 0.5, 0.0))
    np.testing.assert_array_equal(batch.weight, 1)


def test_nothing_unwritten_is_ever_sampled():
    replay, state = _empty(1000)
    state = state.replace(experience=jax.tree.map(lambda leaf: jnp.full_like(leaf, 77), state.experience))
    state = replay.add(HPARAMS, state, _steps(0, 5))
    np.testing.assert_array_equal(np.unique(_held(replay, state).transition.action), np.arange(5))


def test_learning_begins_with_the_warm_up_in_the_buffer(config, program):
    state = jax.jit(program.init)(config.hparams(), jax.random.key(0))
    assert int(state.replay.current_index) == config.schedule.warmup == int(state.actors.env_step)
    assert not bool(state.replay.is_full)


def test_every_transition_is_as_likely_as_any_other():
    replay, state = _empty(16)
    state = replay.add(HPARAMS, state, _steps(0, 13))
    counts = np.bincount(_held(replay, state, 130_000).transition.action, minlength=13)
    chi_square = np.sum((counts - 10_000) ** 2 / 10_000)
    assert chi_square < 32.9  # 0.1% of the chi-square distribution with 12 degrees of freedom


def test_draws_have_their_shapes_and_ranges():
    acting, samples = draw(jax.random.key(0), 50, rollout=3, num_envs=5, num_actions=7, gradient_steps=2, batch_size=11)
    assert acting.explore.shape == acting.random_action.shape == acting.step_keys.shape == (50, 3, 5)
    assert samples.shape == (50, 2, 11)
    assert 0 <= acting.explore.min() < 0.02
    assert 0.98 < acting.explore.max() < 1
    counts = np.bincount(np.ravel(acting.random_action), minlength=7)
    assert np.sum((counts - 750 / 7) ** 2 / (750 / 7)) < 22.5  # 0.1%, 6 degrees of freedom
    keys = np.asarray(jax.random.key_data(acting.step_keys)).reshape(-1, 2)
    assert len(np.unique(keys, axis=0)) == 750


def test_uniform_numbers_stay_below_one():
    extremes = jnp.array([0, 2**32 - 1], jnp.uint32)
    np.testing.assert_array_equal(uniform_from_bits(extremes), np.float32([0, 1 - 2**-24]))


def test_the_buffer_is_what_gymnasium_makes_of_the_same_actions(config, program):
    """Every stored step, taken again in Gymnasium's CartPole from the stored observation."""
    config = config.model_copy(update={"gamma": 0.97})

    def run(hparams, key):
        return program.segment(hparams, program.init(hparams, key), 13)[0].replay

    replay = jax.jit(run)(config.hparams(), jax.random.key(5))
    assert bool(replay.is_full)
    order = (np.arange(300) + int(replay.current_index)) % 300  # oldest first
    stored = jax.tree.map(lambda leaf: np.asarray(leaf)[0, order].reshape(75, 4, *leaf.shape[2:]), replay.experience)
    env = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    ends = 0
    for t in range(75):
        for e in range(4):
            env.state, env.steps_beyond_terminated = stored.obs[t, e].astype(float), None
            next_obs, reward, terminated, _, _ = env.step(int(stored.action[t, e]))
            np.testing.assert_allclose(stored.next_obs[t, e], next_obs, rtol=1e-5, atol=1e-6)
            assert stored.reward[t, e] == reward
            assert stored.discount[t, e] == (0 if terminated else np.float32(0.97))
            ends += terminated
            if t + 1 < 75 and not terminated:  # the next step goes on from here
                np.testing.assert_array_equal(stored.obs[t + 1, e], stored.next_obs[t, e])
            elif t + 1 < 75:
                assert np.abs(stored.obs[t + 1, e]).max() <= 0.05  # a fresh start
    assert ends >= 2
