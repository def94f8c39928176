"""The environment record against Gymnasium, and what it refuses."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn.core.environments import EnvironmentRefusedError, environment_ids, from_gymnax, make_environment
from purejaxdqn.core.evaluation import greedy_returns
from tests.probes import TableMDP


def _balance(obs, step):
    """Keep the pole up, for longer than the time limit, but for a random action now and then."""
    return int(obs[2] + 0.5 * obs[3] + 0.01 * obs[0] + 0.03 * obs[1] > 0)


@pytest.mark.parametrize("clumsy", [0.0, 0.6])
def test_cartpole_is_gymnasiums_cartpole_step_for_step(clumsy):
    ours, theirs = make_environment("CartPole-v1"), gymnasium.make("CartPole-v1")
    params, generator = ours.default_params, np.random.default_rng(0)
    step = jax.jit(ours.step)
    keys = jax.random.split(jax.random.key(0), 1300)
    obs, state = ours.reset(params, keys[:1])
    theirs.reset(seed=0)
    theirs.unwrapped.state = np.asarray(obs[0], float)
    ends = []
    for t in range(1, 1300):
        action = int(generator.integers(2)) if generator.random() < clumsy else _balance(np.asarray(obs[0]), t)
        obs, state, happened = step(params, keys[t : t + 1], state, obs, jnp.array([action]))
        next_obs, reward, terminated, truncated, _ = theirs.step(action)
        np.testing.assert_allclose(happened.next_obs[0], next_obs, rtol=1e-5, atol=1e-5)
        assert (happened.reward[0], happened.terminated[0], happened.truncated[0]) == (reward, terminated, truncated)
        if terminated or truncated:
            ends.append(truncated)
            theirs.reset()
        # Both go on from the same state, so that rounding does not add up.
        theirs.unwrapped.state = np.asarray(obs[0], float)
    assert (True in ends) if clumsy == 0 else (len(ends) > 5 and not all(ends))


def test_next_obs_is_the_one_before_the_reset():
    mdp = TableMDP([[1], [2], [2]], [[0], [1], [0]], [False, False, True])
    env = from_gymnax(mdp)
    obs, state = env.reset(env.default_params, jax.random.split(jax.random.key(0), 2))
    for _ in range(2):
        keys = jax.random.split(jax.random.key(1), 2)
        obs, state, step = env.step(env.default_params, keys, state, obs, jnp.zeros(2, int))
    np.testing.assert_array_equal(step.next_obs.argmax(-1), [2, 2])
    np.testing.assert_array_equal(step.terminated, [True, True])
    np.testing.assert_array_equal(obs.argmax(-1), [0, 0])


def test_greedy_returns_count_one_episode_each():
    # Action 1 earns 2 and ends the episode at once; action 0 earns 1 and goes on to a state that earns 5 and ends.
    mdp = TableMDP([[1, 2], [2, 2], [2, 2]], [[1, 2], [5, 5], [0, 0]], [False, False, True])
    env, key = from_gymnax(mdp), jax.random.key(0)
    for wanted, q in ((6.0, [1.0, 0.0]), (2.0, [0.0, 1.0])):
        returns = greedy_returns(
            env, lambda obs, q=q: jnp.tile(jnp.array(q), (4, 1)), mdp.default_params, key, episodes=4
        )
        np.testing.assert_array_equal(returns, wanted)


def test_an_episode_that_ends_early_is_not_counted_twice():
    """Two environments end after two steps and begin again while the others take their third."""
    mdp = TableMDP([[1, 2], [2, 2], [3, 3], [3, 3]], np.ones((4, 2)), [False, False, False, True])
    mixed = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    returns = greedy_returns(from_gymnax(mdp), lambda obs: mixed, mdp.default_params, jax.random.key(0), episodes=4)
    np.testing.assert_array_equal(returns, [3, 2, 3, 2])


def test_parameters_can_be_set_and_keep_their_types():
    env = make_environment("CartPole-v1")
    params = env.with_params({"gravity": np.asarray(10), "max_steps_in_episode": np.asarray(30)})
    assert params.gravity.dtype == jnp.float32
    assert params.max_steps_in_episode.dtype == jnp.int32
    assert env.with_params({}) is env.default_params


@pytest.mark.parametrize("env_id", environment_ids())
def test_every_environment_with_discrete_actions_steps_and_the_others_are_refused(env_id):
    try:
        env = make_environment(env_id)
    except EnvironmentRefusedError as error:
        assert "continuous" in str(error)
        assert env_id in {
            "Pendulum-v1",
            "MountainCarContinuous-v0",
            "PointRobot-misc",
            "GaussianBandit-misc",
            "Reacher-misc",
            "Swimmer-misc",
        }
        return

    def reset_and_step(keys):
        obs, state = env.reset(env.default_params, keys)
        return obs, state, env.step(env.default_params, keys, state, obs, jnp.zeros(3, int))

    obs, state, (next_obs, next_state, step) = jax.eval_shape(reset_and_step, jax.random.split(jax.random.key(0), 3))
    assert obs.shape == next_obs.shape == step.next_obs.shape == (3, *env.obs_shape)
    assert obs.dtype == next_obs.dtype == step.next_obs.dtype == env.obs_dtype
    assert step.reward.dtype == jnp.float32
    describe = lambda tree: [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(tree)]  # noqa: E731
    assert describe(state) == describe(next_state)
