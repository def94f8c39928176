"""The sparse environments: their dynamics against other code, and that they are hard for chance and can be solved."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn import ConfigError, load_config
from purejaxdqn.config.building import make_program
from purejaxdqn.environments.gymnax import construct_gymnax
from purejaxdqn.environments.listed import LISTED
from purejaxdqn.environments.registry import from_gymnax, make_environment, own_module
from purejaxdqn.environments.suites import sparse

E, T = 64, 200


@functools.cache
def play(name, seed=0):
    """T steps of E environments with random actions -> observations [T, E, O] and the steps."""
    env = make_environment(name)

    @jax.jit
    def run(key):
        keys = jax.random.split(key, 3)
        obs, state = env.reset(env.default_params, jax.random.split(keys[0], E))
        action = jax.random.randint(keys[1], (T, E), 0, env.num_actions)

        def body(carry, xs):
            obs, state = carry
            action, key = xs
            obs, state, step = env.step(env.default_params, jax.random.split(key, E), state, obs, action)
            return (obs, state), step

        return jax.lax.scan(body, (obs, state), (action, jax.random.split(keys[2], T)))[1]

    return jax.tree.map(np.asarray, run(jax.random.key(seed)))


def test_the_mountain_car_moves_as_gymnaxs_does():
    steps, theirs = play("sparse:MountainCar"), construct_gymnax("MountainCar-v0", {})
    params = theirs.default_params
    kind = type(theirs.reset(jax.random.key(0), params)[1])

    @jax.jit
    @jax.vmap
    def move(obs, action):
        state = kind(position=obs[0] * 0.9 - 0.3, velocity=obs[1] * 0.07, time=0)
        obs, _, _, done, _ = theirs.step_env(jax.random.key(0), state, action, params)
        return jnp.stack([(obs[0] + 0.3) / 0.9, obs[1] / 0.07]), done

    obs, done = jax.vmap(move)(steps.obs, steps.action)
    np.testing.assert_allclose(steps.next_obs, obs, atol=1e-4)
    np.testing.assert_array_equal(steps.terminated, done)
    np.testing.assert_array_equal(steps.reward, steps.terminated.astype(np.float32))
    assert steps.truncated[-1].all() and not steps.truncated[:-1].any()


def test_the_pole_moves_as_a_loop_says():
    steps = play("sparse:CartPoleSwingUp")
    x, x_dot = np.float64(steps.obs[..., 0]) * 3, np.float64(steps.obs[..., 1]) * 3
    theta, theta_dot = np.arctan2(steps.obs[..., 2], steps.obs[..., 3]), np.float64(steps.obs[..., 4])
    force = 10.0 * (steps.action - 1)
    temp = (force + 0.05 * theta_dot**2 * np.sin(theta)) / 1.1
    theta_acc = (9.8 * np.sin(theta) - np.cos(theta) * temp) / (0.5 * (4 / 3 - 0.1 * np.cos(theta) ** 2 / 1.1))
    x_acc = temp - 0.05 * theta_acc * np.cos(theta) / 1.1
    x, x_dot = x + 0.02 * x_dot, x_dot + 0.02 * x_acc
    theta, theta_dot = theta + 0.02 * theta_dot, theta_dot + 0.02 * theta_acc
    wanted = np.stack([x / 3, x_dot / 3, np.sin(theta), np.cos(theta), theta_dot], axis=-1)
    np.testing.assert_allclose(steps.next_obs[..., :5], wanted, atol=1e-4)
    np.testing.assert_array_equal(steps.terminated, np.abs(x) > 3)
    paid = (np.cos(theta) > 0.8) & (np.abs(x) < 1) & (np.abs(theta_dot) < 1)
    np.testing.assert_allclose(steps.reward, paid - 0.1 * (steps.action != 1), atol=1e-6)


def test_an_episode_begins_at_rest_with_the_pole_hanging_and_the_car_in_the_valley():
    car, pole = play("sparse:MountainCar").obs[0], play("sparse:CartPoleSwingUp").obs[0]
    assert ((car[:, 0] * 0.9 - 0.3 >= -0.6) & (car[:, 0] * 0.9 - 0.3 <= -0.4)).all() and (car[:, 1] == 0).all()
    np.testing.assert_allclose(pole[:, 3], -1, atol=2e-3)
    assert np.abs(pole[:, [0, 1, 2, 4]]).max() < 0.06 and len(np.unique(pole[:, 2])) == E


@pytest.mark.parametrize("name", sparse.NAMES)
def test_random_actions_see_no_reward(name):
    assert not (play(name).reward > 0).any()


def returns_of(name, policy, **kwargs):
    env = make_environment(name, kwargs)

    @jax.jit
    def run(key):
        obs, state = env.reset(env.default_params, jax.random.split(key, 8))

        def body(carry, _):
            obs, state, alive = carry
            _, state, step = env.advance(env.default_params, jax.random.split(key, 8), state, obs, policy(obs))
            going = alive & ~(step.terminated | step.truncated)
            return (step.next_obs, state, going), jnp.where(alive, step.reward, 0.0)

        return jax.lax.scan(body, (obs, state, jnp.ones(8, bool)), None, length=env.time_limit)[1].sum(0)

    return np.asarray(run(jax.random.key(0)))


def test_pushing_along_with_the_car_reaches_the_top():
    returns = returns_of("sparse:MountainCar", lambda obs: jnp.where(obs[:, 1] >= 0, 2, 0))
    np.testing.assert_array_equal(returns, 1)


def test_pumping_energy_swings_the_pole_up():
    """The pole's energy is brought to that of standing, and the cart held near the middle (Astrom and Furuta 2000)."""

    def policy(obs):
        x, x_dot, sin, cos, theta_dot, _ = obs.T
        energy = theta_dot**2 / 3 - 9.8 * (1 - cos)
        ahead = 3 * x + 0.6 * 3 * x_dot  # where the cart is about to be
        pump = jnp.where(jnp.abs(ahead) > 1.5, -jnp.sign(ahead), jnp.sign(energy * theta_dot * cos))
        balance = jnp.sign(10 * sin + 3 * theta_dot + 3 * x_dot + 3 * x)
        return jnp.where(cos > 0.8, balance, pump).astype(jnp.int32) + 1

    assert (returns_of("sparse:CartPoleSwingUp", policy) > 250).all()
    assert math.isclose(float(returns_of("sparse:CartPoleSwingUp", lambda obs: jnp.ones(8, jnp.int32)).max()), 0)


def test_names_are_looked_up_before_modules_and_arguments_are_checked():
    assert set(sparse.NAMES) == {one for one in LISTED if one.startswith("sparse:")}
    assert own_module("sparse:MountainCar") is None and own_module("sparse:Other") is None
    assert make_environment("sparse:MountainCar", {"time_limit": 7}).time_limit == 7
    with pytest.raises(ConfigError) as caught:
        load_config("mountaincar_sparse", ["env.kwargs.slope=2"])
    assert len(caught.value.lines) == 1 and "slope" in caught.value.lines[0]
    with pytest.raises(ConfigError, match="sparse has no environment 'Mountaincar'; did you mean 'sparse:MountainCar'"):
        load_config("mountaincar_sparse", ["env.id=sparse:Mountaincar"])


@pytest.mark.parametrize("name", ["mountaincar_sparse", "swingup"])
def test_its_config_can_be_trained_with_and_without_the_ensemble(name):
    for presets in ([name], [name, "dqn"]):
        config = load_config(presets)
        jax.eval_shape(make_program(config).train, config.hparams(), jax.random.key(0))


def test_gymnax_is_wrapped_as_before():
    assert from_gymnax(construct_gymnax("MountainCar-v0", {})).num_actions == 3
