"""The environment record against Gymnasium, what is laid round it, and what it refuses."""

import contextlib
import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn import ConfigError, load_config
from purejaxdqn.core import evaluation
from purejaxdqn.core.evaluation import greedy_returns
from purejaxdqn.environments import registry
from purejaxdqn.environments.batched import Single, batched
from purejaxdqn.environments.gymnax import is_binary
from purejaxdqn.environments.interface import check_single
from purejaxdqn.environments.registry import INPUTS, environment_ids, from_gymnax, make_environment
from purejaxdqn.environments.wrappers import EnvironmentRefusedError
from tests.conftest import jit_barely, jit_quickly, mostly_slow
from tests.probes import State, TableMDP


def values_of(q_values):
    """The values of a policy whose Q-values are a function of observations."""
    return lambda view: (q_values(view.obs), view.memory)


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
            env, values_of(lambda obs, q=q: jnp.tile(jnp.array(q), (4, 1))), mdp.default_params, key, episodes=4
        )
        np.testing.assert_array_equal(returns, wanted)


def test_an_episode_that_ends_early_is_not_counted_twice():
    """Two environments end after two steps and begin again while the others take their third."""
    mdp = TableMDP([[1, 2], [2, 2], [3, 3], [3, 3]], np.ones((4, 2)), [False, False, False, True])
    mixed = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    values = values_of(lambda obs: mixed)
    returns = greedy_returns(from_gymnax(mdp), values, mdp.default_params, jax.random.key(0), episodes=4)
    np.testing.assert_array_equal(returns, [3, 2, 3, 2])


def test_an_episode_that_has_ended_waits_where_it_did_and_nothing_is_reset_for_it():
    """One ends in place 2, after which there is nothing but NaN, while the other takes three steps."""

    class Abyss(TableMDP):
        resets = 0

        def get_obs(self, state, params=None, key=None):
            return jnp.where(state.place == 3, jnp.nan, super().get_obs(state))

        def reset_env(self, key, params):
            self.resets += 1
            return super().reset_env(key, params)

    mdp = Abyss(
        [[1, 2], [4, 4], [3, 3], [3, 3], [5, 5], [5, 5]], np.ones((6, 2)), [place in (2, 5) for place in range(6)]
    )
    env, key = from_gymnax(mdp), jax.random.key(0)
    env.reset(mdp.default_params, jax.random.split(key, 2))
    traced = mdp.resets
    with jax.debug_nans(True):
        returns = greedy_returns(env, values_of(lambda obs: jnp.eye(2)), mdp.default_params, key, episodes=2)
    np.testing.assert_array_equal(returns, [3, 1])
    assert mdp.resets == traced


def test_a_step_of_an_environments_own_is_what_is_evaluated():
    class Twice(TableMDP):
        def step(self, key, state, action, params):
            obs, state, reward, *rest = super().step(key, state, action, params)
            return obs, state, 2 * reward, *rest

    mdp = Twice([[1], [2], [2]], [[1], [3], [0]], [False, False, True])
    values = values_of(lambda obs: jnp.zeros((2, 1)))
    returns = greedy_returns(from_gymnax(mdp), values, mdp.default_params, jax.random.key(0), episodes=2)
    np.testing.assert_array_equal(returns, 2 * (1 + 3))


def test_an_episode_without_an_end_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_STEPS", 50)
    mdp = TableMDP([[0, 0]], [[2, 2]], [False])
    values = values_of(lambda obs: jnp.zeros((3, 2)))
    returns = greedy_returns(from_gymnax(mdp), values, mdp.default_params, jax.random.key(0), episodes=3)
    np.testing.assert_array_equal(returns, 100)


def test_parameters_can_be_set_and_keep_their_types():
    env = make_environment("CartPole-v1")
    params = env.with_params({"gravity": np.asarray(10), "max_steps_in_episode": np.asarray(30)})
    assert params.gravity.dtype == jnp.float32
    assert params.max_steps_in_episode.dtype == jnp.int32
    assert env.with_params({}) is env.default_params


def test_gymnax_environments_can_share_fresh_states():
    env = make_environment("CartPole-v1", resets=2)
    params = env.with_params({"max_steps_in_episode": np.asarray(5)})

    @jit_quickly
    def play(keys):
        def body(carry, keys):
            obs, state = carry
            obs_after, state, happened = env.step(params, keys, state, obs, jnp.zeros(6, jnp.int32))
            return (obs_after, state), (happened, obs_after)

        return jax.lax.scan(body, env.reset(params, keys[0]), keys[1:])[1]

    happened, shown = play(jax.random.split(jax.random.key(0), (21, 6)))
    np.testing.assert_array_equal(happened.truncated, np.tile(np.arange(1, 21)[:, None] % 5 == 0, 6))
    assert [len(np.unique(row[:, 0])) for row in shown[4::5]] == [2] * 4
    assert len(np.unique(shown[3][:, 0])) == 6  # the first states are all fresh
    going = ~happened.truncated[:-1]
    np.testing.assert_array_equal(happened.next_obs[:-1][going], happened.obs[1:][going])


CONTINUOUS = {"Pendulum-v1", "MountainCarContinuous-v0", "PointRobot-misc", "Reacher-misc", "Swimmer-misc"}
DISCRETE = [env_id for env_id in environment_ids() if env_id not in CONTINUOUS]


@pytest.mark.parametrize("env_id", sorted(CONTINUOUS))
def test_continuous_actions_are_refused(env_id):
    with pytest.raises(EnvironmentRefusedError, match="continuous"):
        make_environment(env_id)


def test_the_inputs_that_are_known_before_jax_starts_are_what_networks_get():
    def most(env_id):
        sizes = []
        for one_hot in (False, True):
            with contextlib.suppress(EnvironmentRefusedError):  # one-hot does not suit most
                env = make_environment(env_id, one_hot=one_hot, flatten=True)
                blank = jax.ShapeDtypeStruct((1, *env.obs_shape), env.obs_dtype)
                sizes.append(jax.eval_shape(env.features, blank).shape[1])
        return max(sizes)

    assert {env_id: most(env_id) for env_id in DISCRETE} == {env_id: INPUTS[env_id] for env_id in DISCRETE}


@pytest.mark.parametrize("sticky_actions", mostly_slow([0.0, 0.25], fast=[0.0]))
@pytest.mark.parametrize("env_id", DISCRETE)
def test_every_environment_with_discrete_actions_steps_and_evaluates(env_id, sticky_actions):
    """In the abstract; ``test_commands.py`` trains in each, evaluation included."""
    assert len(DISCRETE) == 20
    env = make_environment(env_id, sticky_actions=sticky_actions)
    keys = jax.random.split(jax.random.key(0), 3)

    def play(keys):
        obs, state = env.reset(env.default_params, keys)
        stepped = env.step(env.default_params, keys, state, obs, jnp.zeros(3, jnp.int32))
        values = values_of(lambda obs: jnp.zeros((obs.shape[0], env.num_actions)))
        return obs, state, stepped, greedy_returns(env, values, env.default_params, keys[0], episodes=3)

    obs, state, (next_obs, next_state, step), returns = jax.eval_shape(play, keys)
    assert obs.shape == next_obs.shape == step.next_obs.shape == (3, *env.obs_shape)
    assert obs.dtype == next_obs.dtype == step.next_obs.dtype == env.obs_dtype
    assert (step.reward.dtype, step.terminated.dtype, step.truncated.dtype) == (jnp.float32, bool, bool)
    describe = lambda tree: [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(tree)]  # noqa: E731
    assert describe((obs, state)) == describe((next_obs, next_state))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((obs, state, step)))
    assert returns.shape == (3,)


@pytest.mark.parametrize(("env_id", "any_chance"), [("SpaceInvaders-MinAtar", False), ("Breakout-MinAtar", True)])
def test_space_invaders_has_no_chance_in_it(env_id, any_chance):
    """`docs/results/learning.md` says so: a hundred greedy episodes are one. A key that is split decides nothing."""
    env, params = gymnax.make(env_id)

    def play(key):
        _, state = env.reset(key, params)
        return env.step(key, state, jnp.int32(0), params)

    assert ("random_bits" in str(jax.make_jaxpr(play)(jax.random.key(0)))) == any_chance


ROLLOUTS = [(env_id, {}) for env_id in DISCRETE] + [("FourRooms-misc", {"use_visual_obs": True})]
QUICK = {"Catch-bsuite", "DeepSea-bsuite"}


ADVANCED = [(env_id, 0.0) for env_id in DISCRETE] + [("CartPole-v1", 0.25), ("DeepSea-bsuite", 0.25)]
AT_ONCE = {("CartPole-v1", 0.0), ("FrozenLake-misc", 0.0), ("DeepSea-bsuite", 0.25)}  # the second has chance in a step


@pytest.mark.parametrize(
    ("env_id", "sticky_actions"),
    [pytest.param(*one, marks=() if one in AT_ONCE else pytest.mark.slow) for one in ADVANCED],
)
def test_advancing_is_stepping_but_for_the_reset(env_id, sticky_actions):
    """On the way of a policy that acts at random, which begins many episodes."""
    env = make_environment(env_id, sticky_actions=sticky_actions)
    params, num_envs = env.with_params({"max_steps_in_episode": np.asarray(12)}), 20
    both = jit_barely(lambda *those: (env.step(*those), env.advance(*those)))  # what they share is compiled once
    obs, state = env.reset(params, jax.random.split(jax.random.key(0), num_envs))
    generator, ended = np.random.default_rng(0), 0
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)  # sums may be ordered differently
    for t in range(40):
        keys = jax.random.split(jax.random.key(t), num_envs)
        action = jnp.asarray(generator.integers(env.num_actions, size=num_envs))
        (*after, happened), (*onward, also_happened) = both(params, keys, state, obs, action)
        done = np.asarray(happened.terminated | happened.truncated)
        jax.tree.map(close, happened, also_happened)
        jax.tree.map(close, *jax.tree.map(lambda leaf, done=done: leaf[~done], (tuple(after), tuple(onward))))
        ended += done.sum()
        obs, state = after
    assert ended


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [pytest.param(*one, marks=() if one[0] in QUICK else pytest.mark.slow) for one in ROLLOUTS],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_observations_are_boolean_just_where_all_that_gymnax_gives_are_0_or_1(env_id, kwargs):
    """Of 3,000 steps under random actions, in gymnax itself."""
    env, params = gymnax.make(env_id, **kwargs)
    num_actions = env.action_space(params).n
    all_binary = lambda obs: jnp.all((obs == 0) | (obs == 1))  # noqa: E731

    def body(carry, key):
        state, binary = carry
        keys = jax.random.split(key, 21)
        action = jax.random.randint(keys[0], (20,), 0, num_actions)
        obs, state, _, _, _, info = jax.vmap(env.step, (0, 0, 0, None))(keys[1:], state, action, params)
        return (state, binary & all_binary(obs) & all_binary(info["final_observation"])), None

    @jit_barely
    def play(key):
        obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(key, 20), params)
        return jax.lax.scan(body, (state, all_binary(obs)), jax.random.split(key, 150))[0][1]

    is_boolean = make_environment(env_id, kwargs).obs_dtype == jnp.bool_
    assert is_boolean == play(jax.random.key(0))
    assert is_boolean == (is_binary(env_id) and (env_id != "FourRooms-misc" or bool(kwargs)))


def test_boolean_observations_are_the_floats_they_were():
    mdp = TableMDP([[1], [2], [2]], [[0], [1], [0]], [False, False, True])
    records = [from_gymnax(mdp), from_gymnax(mdp, binary=True)]
    keys = jax.random.split(jax.random.key(0), 2)
    (obs, state), (bools, _) = (env.reset(mdp.default_params, keys) for env in records)
    for _ in range(3):
        assert bools.dtype == bool
        np.testing.assert_array_equal(bools, obs)
        (obs, after, step), (bools, _, bool_step) = (
            env.step(mdp.default_params, keys, state, seen, jnp.zeros(2, int))
            for env, seen in zip(records, (obs, bools), strict=True)
        )
        state = after
        assert bool_step.obs.dtype == bool_step.next_obs.dtype == bool
        np.testing.assert_array_equal(bool_step.next_obs, step.next_obs)


def test_100_000_transitions_of_breakout_take_at_most_90_megabytes():
    env, keys = make_environment("Breakout-MinAtar"), jax.random.split(jax.random.key(0), 1)

    def first_step():
        obs, state = env.reset(env.default_params, keys)
        return env.step(env.default_params, keys, state, obs, jnp.zeros(1, jnp.int32))[2]

    sizes = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(first_step))]
    assert 100_000 * sum(sizes) <= 90_000_000


# Sticky actions. The reward shows the action that was executed; episodes take three steps.
REVEALING = [[0, 1, 2]] * 4
THREE_STEPS = ([[1] * 3, [2] * 3, [3] * 3, [3] * 3], REVEALING, [False] * 3 + [True])


def play_sticky(env, policy, *, steps, num_envs=20):
    """Executed and chosen actions [steps, num_envs]; ``policy`` chooses from the last executed one."""

    def body(carry, key):
        obs, state, last = carry
        keys = jax.random.split(key, num_envs)
        obs, state, step = env.step(env.default_params, keys, state, obs, policy(last))
        executed = step.reward.astype(jnp.int32)
        return (obs, state, executed), (executed, step.action)

    obs, state = env.reset(env.default_params, jax.random.split(jax.random.key(1), num_envs))
    start = (obs, state, jnp.zeros(num_envs, jnp.int32))
    keys = jax.random.split(jax.random.key(0), steps)
    return [np.asarray(one) for one in jax.jit(lambda: jax.lax.scan(body, start, keys)[1])()]


def test_a_sticky_action_repeats_the_executed_one_as_often_as_asked_and_the_choice_is_stored():
    env = from_gymnax(TableMDP([[0, 0, 0]], REVEALING[:1], [False]), sticky_actions=0.25)
    executed, chosen = play_sticky(env, lambda last: (last + 1) % 3, steps=400)
    before = np.concatenate([np.zeros((1, 20), int), executed[:-1]])
    np.testing.assert_array_equal(chosen, (before + 1) % 3)
    repeated = executed == before
    assert ((executed == chosen) | repeated).all()
    assert abs(repeated.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / repeated.size)
    # No environment repeats because its neighbour, or its own last step, did.
    assert abs(np.corrcoef(repeated[:, 0], repeated[:, 1])[0, 1]) < 0.2
    assert abs(np.corrcoef(repeated[1:].ravel(), repeated[:-1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_the_first_step_of_an_episode_repeats_action_0_and_not_what_the_last_episode_ended_with(ends):
    mdp = TableMDP(*THREE_STEPS) if ends == "terminated" else TableMDP([[0] * 3], REVEALING[:1], [False], time_limit=3)
    env = from_gymnax(mdp, sticky_actions=0.5)
    executed, _ = play_sticky(env, lambda last: jnp.full_like(last, 2), steps=300)
    first = executed[3::3]
    assert set(np.unique(first)) == {0, 2}
    assert abs((first == 0).mean() - 0.5) < 4 * np.sqrt(0.25 / first.size)
    assert abs((executed[5::3] == 0).mean() - 0.125) < 0.05  # the last of three steps: 0 was repeated all the way


def test_without_sticky_actions_the_program_is_as_it_was():
    mdp = TableMDP(*THREE_STEPS)
    keys, sticky = jax.random.split(jax.random.key(0), 2), from_gymnax(mdp, sticky_actions=0.1)

    def program(env):
        obs, state = env.reset(mdp.default_params, keys)
        assert isinstance(state, State) == (env is not sticky)
        return str(jax.make_jaxpr(env.step)(mdp.default_params, keys, state, obs, jnp.zeros(2, jnp.int32)))

    assert program(from_gymnax(mdp, sticky_actions=0.0)) == program(from_gymnax(mdp))
    assert program(sticky) != program(from_gymnax(mdp))


# Features.
@pytest.mark.parametrize(
    ("env_id", "options", "shape"),
    [
        ("CartPole-v1", {}, (4,)),
        ("Breakout-MinAtar", {}, (10, 10, 4)),
        ("Breakout-MinAtar", {"flatten": True}, (400,)),
        ("FrozenLake-misc", {}, ()),
        ("FrozenLake-misc", {"flatten": True}, (1,)),
        ("FrozenLake-misc", {"one_hot": True}, (16,)),
        ("FourRooms-misc", {"one_hot": True}, (4, 12)),
        ("FourRooms-misc", {"one_hot": True, "flatten": True}, (48,)),
    ],
)
def test_features_have_the_shape_asked_for_and_observations_stay_what_they_are(env_id, options, shape):
    plain, env = make_environment(env_id), make_environment(env_id, **options)
    assert (env.obs_shape, env.obs_dtype) == (plain.obs_shape, plain.obs_dtype)
    obs, _ = env.reset(env.default_params, jax.random.split(jax.random.key(0), 3))
    assert obs.dtype == env.obs_dtype
    seen = env.features(obs)
    assert seen.shape == (3, *shape)
    if options.get("one_hot"):
        np.testing.assert_array_equal(seen.reshape(3, *env.obs_shape, -1).argmax(-1), obs)
        np.testing.assert_array_equal(seen.reshape(3, *env.obs_shape, -1).sum(-1), 1)
    else:
        np.testing.assert_array_equal(seen.reshape(obs.shape), obs)


def _pictures(**more):
    """A ``Single`` whose observations [2, 2, 3] are all 51."""
    obs = jnp.full((2, 2, 3), 51, jnp.uint8)
    end = (jnp.float32(0), jnp.bool_(False), jnp.bool_(False))
    single = Single("pictures", 2, lambda key, params: (obs, 0), lambda key, state, action, params: (obs, state, *end))
    return single._replace(**more)


@pytest.mark.parametrize(
    ("parts", "options", "shape", "value"),
    [
        ({"scale": 255.0}, {}, (2, 2, 3), 0.2),
        ({"scale": 255.0}, {"scale": 51.0}, (2, 2, 3), 1.0),
        ({"scale": 255.0}, {"flatten": True}, (12,), 0.2),
        ({"scale": 255.0}, {"frame_stack": 2}, (2, 2, 6), 0.2),
        ({"features": lambda obs: obs[..., :2] + 51}, {}, (2, 2, 2), 102),
        ({"features": lambda obs: obs[..., :2] + 51}, {"scale": 510.0, "flatten": True}, (8,), 0.2),
    ],
)
def test_features_are_divided_once_and_keep_the_environments_own(parts, options, shape, value, monkeypatch):
    """Also where ``batched`` makes the environment, without a config."""
    single = _pictures(**parts)
    monkeypatch.setattr(registry, "underlying_environment", lambda *_: single)
    env = make_environment("pictures", **options)
    made = [env, batched(single)] if not options else [env]
    for one in made:
        obs, _ = one.reset((), jax.random.split(jax.random.key(0), 1))
        seen = one.features(obs)
        assert (obs.dtype, seen.shape) == (np.uint8, (1, *shape))
        np.testing.assert_allclose(seen, value, rtol=1e-6)


def test_gymnaxs_observations_are_divided_too():
    env = make_environment("FrozenLake-misc", scale=4.0)
    assert env.features(jnp.array([6], jnp.int32)).tolist() == [1.5]
    both = make_environment("FrozenLake-misc", scale=4.0, one_hot=True)
    assert both.features(jnp.array([6], jnp.int32)).sum() == 1  # one-hot features are not divided


def test_features_of_an_environments_own_do_not_become_one_hot(monkeypatch):
    single = _pictures(features=lambda obs: obs, bounds=lambda: (0, 255))
    monkeypatch.setattr(registry, "underlying_environment", lambda *_: single)
    with pytest.raises(EnvironmentRefusedError, match="makes features of its own") as caught:
        make_environment("pictures", one_hot=True)
    assert caught.value.key == "env.one_hot"


def test_one_hot_features_tell_the_highest_place_from_all_others():
    env = make_environment("FourRooms-misc", one_hot=True)
    np.testing.assert_array_equal(env.features(jnp.array([[1, 11, 11, 2]])).argmax(-1), [[1, 11, 11, 2]])


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Breakout-MinAtar"])
def test_one_hot_features_of_what_is_no_integer_are_refused(env_id):
    with pytest.raises(EnvironmentRefusedError, match="not integers") as caught:
        make_environment(env_id, one_hot=True)
    assert caught.value.key == "env.one_hot"


# Environments of a user's own.
WALK = '''
import jax, jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

@struct.dataclass
class State:
    place: jax.Array
    time: jax.Array

@struct.dataclass
class Params:
    wind: float = 0.1
    max_steps_in_episode: int = 50
    label: str = struct.field(pytree_node=False, default="calm")

class Walk(environment.Environment):
    """Walk to the right end of a line."""
    def __init__(self, length=7, low=0):
        self.length, self.low = length + 0, low
    @property
    def default_params(self):
        return Params()
    def reset_env(self, key, params):
        state = State(jnp.int32(0), jnp.int32(0))
        return state.place, state
    def step_env(self, key, state, action, params):
        blown = jax.random.bernoulli(key, params.wind)
        place = jnp.clip(state.place + jnp.where((action == 1) & ~blown, 1, -1), 0, self.length - 1)
        state = State(place, state.time + 1)
        return place, state, -1.0, (place == self.length - 1).astype(int), {}
    def action_space(self, params=None):
        return spaces.Discrete(2)
    def observation_space(self, params):
        return spaces.Box(self.low, self.length - 1, (), jnp.int32)

class Boundless(Walk):
    observation_space = environment.Environment.observation_space

class OldStep(Walk):
    def step(self, key, state, action, params=None):
        obs, state, reward, terminated, _, info = super().step(key, state, action, params)
        return obs, state, reward, terminated, info

class Forgetful(Walk):
    def step(self, key, state, action, params=None):
        *rest, info = super().step(key, state, action, params)
        return *rest, {}

class Drifting(Walk):
    def step(self, key, state, action, params=None):
        obs, *rest = super().step(key, state, action, params)
        return obs[None], *rest

class Arriving(Walk):
    def reset(self, key, params=None):
        obs, state = super().reset(key, params)
        return obs[None], state

class Vector(Walk):
    def step_env(self, key, state, action, params):
        obs, state, reward, terminated, info = super().step_env(key, state, action, params)
        return obs, state, jnp.ones(3), terminated, info

class Growing(Walk):
    def step(self, key, state, action, params=None):
        obs, state, *rest = super().step(key, state, action, params)
        return obs, State(state.place, state.time + 0.5), *rest

class Twofold(Walk):
    def reset_env(self, key, params):
        obs, state = super().reset_env(key, params)
        return {"a": obs}, state
    def step_env(self, key, state, action, params):
        obs, *rest = super().step_env(key, state, action, params)
        return {"a": obs}, *rest

class Chooser(Walk):
    def step(self, key, state, action, params=None):
        return super().step(key, state, 1 if action else 0, params)

class MultiDiscrete:
    nvec = (2, 3)

class Several(Walk):
    def action_space(self, params=None):
        return MultiDiscrete()

class Plain:
    def __init__(self):
        self.name = "plain"

number = 3
'''


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A working directory with a module ``workshop`` in it, where Python does not look by itself."""
    (tmp_path / "workshop.py").write_text(WALK, encoding="utf-8")
    (tmp_path / "broken.py").write_text("raise ValueError('two\\nlines')\n", encoding="utf-8")
    (tmp_path / "lacking.py").write_text("import no_such_library\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    yield tmp_path
    for name in ("workshop", "broken", "lacking"):
        sys.modules.pop(name, None)


def test_an_environment_of_ones_own_is_found_beside_the_config_and_steps(workshop):
    env = make_environment("workshop:Walk", {"length": 4}, one_hot=True)
    assert (env.env_id, env.obs_shape, env.num_actions) == ("workshop:Walk", (), 2)
    params = env.with_params({"wind": np.asarray(0.0)})
    go = values_of(lambda obs: jnp.tile(jnp.array([0.0, 1.0]), (obs.shape[0], 1)))
    np.testing.assert_array_equal(greedy_returns(env, go, params, jax.random.key(0), episodes=3), -3)
    assert env.features(jnp.zeros(5, jnp.int32)).shape == (5, 4)
    with pytest.raises(ConfigError, match=re.escape("env.params.wnd: workshop:Walk has no such parameter; did you")):
        load_config("cartpole_cleanrl", ["env.id=workshop:Walk", "env.params.wnd=0"])
    with pytest.raises(ConfigError, match=re.escape("env.params.label: 'storm' must be left unset")):
        load_config("cartpole_cleanrl", ["env.id=workshop:Walk", "env.params.label=storm"])


@pytest.mark.parametrize(
    ("env_id", "kwargs", "reason"),
    [
        ("DeepSea-bsuite", {"size": 0}, "division by zero"),
        ("Catch-bsuite", {"rows": 10**10}, "Python integer 9999999999"),
    ],
)
def test_an_environment_that_cannot_be_reset_is_refused(env_id, kwargs, reason):
    with pytest.raises(EnvironmentRefusedError, match=f"{env_id} with {kwargs} cannot be used: {reason}"):
        make_environment(env_id, kwargs)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "line"),
    [
        ("nowhere:Walk", {}, "env.id: nowhere:Walk: 'nowhere' cannot be imported: there is no such module here or"),
        ("nowhere.deep:Walk", {}, "env.id: nowhere.deep:Walk: 'nowhere.deep' cannot be imported: there is no such"),
        ("broken:Walk", {}, "env.id: broken:Walk: 'broken' cannot be imported: two"),
        ("lacking:Walk", {}, "env.id: lacking:Walk: 'lacking' cannot be imported: No module named 'no_such_library'"),
        (":Walk", {}, "env.id: :Walk: '' cannot be imported: Empty module name"),
        ("workshop:Wlk", {}, "env.id: workshop:Wlk: 'workshop' has no class 'Wlk'; did you mean 'Walk'?"),
        ("workshop:number", {}, "env.id: workshop:number: 'workshop' has no class 'number'"),
        ("workshop:Walk", {"size": 3}, "env.kwargs: {'size': 3} do not fit workshop:Walk: "),
        ("workshop:Walk", {"length": "x"}, "env.kwargs: {'length': 'x'} do not fit workshop:Walk: "),
        (
            "workshop:Plain",
            {},
            "env.id: workshop:Plain does not have gymnax's interface: it lacks reset, step, action_space",
        ),
        ("workshop:OldStep", {}, "env.id: workshop:OldStep does not have gymnax's interface: step gives obs, state,"),
        ("workshop:Forgetful", {}, "env.id: workshop:Forgetful does not have gymnax's interface: step gives no info"),
        ("workshop:Drifting", {}, "env.id: workshop:Drifting does not have gymnax's interface: the observations of"),
        ("workshop:Arriving", {}, "env.id: workshop:Arriving does not have gymnax's interface: the observations of"),
        ("workshop:Vector", {}, "env.id: workshop:Vector does not have gymnax's interface: reward, terminated and"),
        ("workshop:Growing", {}, "env.id: workshop:Growing does not have gymnax's interface: the states of reset and"),
        ("workshop:Chooser", {}, "env.id: workshop:Chooser does not have gymnax's interface: "),
        ("workshop:Several", {}, "env.id: actions of 'workshop:Several' are MultiDiscrete; Q-learning needs one"),
        ("workshop:Twofold", {}, "env.id: observations of workshop:Twofold are not one array"),
        ("workshop:Boundless", {}, "env.one_hot: workshop:Boundless does not declare the range of its observations: "),
        ("workshop:Walk", {"low": -1}, "env.one_hot: observations of workshop:Walk range from -1 to 6; one-hot needs"),
        ("workshop:Walk", {"length": 2**30}, "env.one_hot: observations of workshop:Walk range from 0 to 10737"),
    ],
)
def test_an_environment_of_ones_own_that_does_not_fit_is_refused_in_one_line(workshop, env_id, kwargs, line):
    overrides = [
        f"env.id='{env_id}'",
        "env.one_hot=true",
        *(f"env.kwargs.{name}={one}" for name, one in kwargs.items()),
    ]
    with pytest.raises(ConfigError) as caught:
        load_config("cartpole_cleanrl", overrides)
    (told,) = caught.value.lines
    assert told.startswith(line)
    assert "\n" not in told


END = "jnp.bool_(False), jnp.bool_(False)"
STAY = f"step=lambda key, state, action, params: (jnp.zeros(3), state, jnp.float32(0), {END})"


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        (f"step=lambda key, state, action, params: (jnp.zeros(3), state, {END})", "step gives obs, state, reward,"),
        (f"step=lambda key, state, action, params: (jnp.zeros(4), state, 1.0, {END})", "the observations of reset and"),
        (f"step=lambda key, state, action, params: (jnp.zeros(3), 0.5, 1.0, {END})", "the states of reset and step"),
        (f"step=lambda key, state, action, params: (jnp.zeros(3), 0, jnp.zeros(2), {END})", "reward, terminated and"),
        (f"step=lambda key, state, action, params: (jnp.zeros(3), 0, [1.0][action], {END})", "step fails: "),
        (f"step=lambda key, state, action, params: (jnp.zeros(3), 0, 1 if action else 0, {END})", "step fails: "),
        ("reset=lambda key, params: ({'seen': jnp.zeros(3)}, 0)", "observations are not one array"),
        ("reset=lambda key, params: (jnp.zeros(3, complex), 0)", "observations are complex64"),
        ("reset=lambda key, params: jnp.zeros(3)", "reset gives obs, state"),
        ("reset=lambda key: (jnp.zeros(3), 0)", "reset fails: "),
        ("legal=lambda state, params: jnp.ones(2, int)", "legal gives ShapeDtypeStruct(shape=(2,), dtype=int32); it"),
        ("legal=lambda state, params: jnp.ones(3, bool)", "legal gives ShapeDtypeStruct(shape=(3,), dtype=bool); it"),
        ("num_actions=0", "num_actions: 0 is not a number of actions"),
    ],
)
def test_a_single_of_ones_own_that_does_not_fit_is_refused_in_one_line(workshop, monkeypatch, part, fault):
    lines = "import jax.numpy as jnp\nfrom purejaxdqn.environments.batched import Single\n"
    whole = f"one = Single('one', 2, lambda key, params: (jnp.zeros(3), 0), lambda: 0)._replace({STAY})"
    (workshop / "shed.py").write_text(f"{lines}{whole}\nother = one._replace({part})\n")
    monkeypatch.delitem(sys.modules, "shed", raising=False)
    assert make_environment("shed:one").obs_shape == (3,)
    with pytest.raises(ConfigError) as caught:
        load_config("cartpole_cleanrl", ["env.id=shed:other"])
    (told,) = caught.value.lines
    assert told.startswith(f"env.id: shed:other: {fault}")


def test_states_that_compare_their_own_arrays_are_accepted():
    """As navix's records do; what is compared here are shapes and types."""

    class Event(NamedTuple):
        place: jax.Array

        def __eq__(self, other):
            raise AssertionError("arrays were compared")

        __ne__ = __eq__
        __hash__ = None

    end = (jnp.float32(0), jnp.bool_(False), jnp.bool_(False))
    place = Event(jnp.int32(0))
    check_single(
        Single("one", 2, lambda key, params: (jnp.zeros(3), place), lambda *given: (jnp.zeros(3), place, *end))
    )


def test_a_time_limit_of_ones_own_single_is_a_number_of_steps():
    with pytest.raises(EnvironmentRefusedError, match="the time limit of one: 0 is not a number of steps"):
        check_single(_pictures(time_limit=0, env_id="one"))


@pytest.mark.slow
def test_a_console_script_finds_an_environment_in_the_working_directory(workshop, tmp_path_factory):
    """A script's own folder stands first on Python's path, and the working directory nowhere."""
    script = tmp_path_factory.mktemp("bin") / "script.py"
    script.write_text(
        "from purejaxdqn import load_config\n"
        "print(load_config('cartpole_cleanrl', ['env.id=workshop:Walk', 'env.kwargs.length=5']).env.id)\n",
        encoding="utf-8",
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, script], cwd=workshop, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "workshop:Walk\n", done.stderr


# What a config can ask that an environment cannot give.
NO_IMAGES = "network.torso: 'minatar_cnn' needs images [height, width, channels] of 3 x 3 or more;"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["network.torso=minatar_cnn"],
            f"{NO_IMAGES} CartPole-v1 gives [4]",
        ),
        (
            ["network.torso=minatar_cnn", "env.id=Breakout-MinAtar", "env.flatten=true"],
            f"{NO_IMAGES} Breakout-MinAtar gives [400] after env.flatten",
        ),
        (
            ["network.torso=minatar_cnn", "env.id=FourRooms-misc", "env.one_hot=true"],
            f"{NO_IMAGES} FourRooms-misc gives [4, 12] after env.one_hot",
        ),
        (
            ["network.torso=one_hot"],
            "network.torso: 'one_hot' needs observations with at most one 1, unlike those of CartPole-v1",
        ),
        (
            ["network.torso=one_hot", "env.id=DeepSea-bsuite", "env.frame_stack=2", "env.normalize=false"],
            "network.torso: 'one_hot' needs observations with at most one 1, unlike env.frame_stack 2",
        ),
        (
            ["network.torso=one_hot", "env.id=DeepSea-bsuite", "env.normalize=true"],
            "env.normalize: true does not work with the torso 'one_hot', which needs zeros",
        ),
        (
            ["network={torso: cnn, channels: [8, 8], kernels: [8, 3], strides: [4, 1]}", "env.id=Breakout-MinAtar"],
            "network.torso: 'cnn' needs images [height, width, channels] of 16 x 16 or more; Breakout-MinAtar gives "
            "[10, 10, 4]",
        ),
        (
            ["network={torso: cnn, channels: [8, 8], kernels: [3]}", "env.id=Breakout-MinAtar"],
            "network.kernels: [3] has 1 numbers and network.channels has 2",
        ),
        (["env.one_hot=true"], "env.one_hot: observations of CartPole-v1 are float32, not integers"),
        (
            ["env.id=FrozenLake-misc", "env.one_hot=true", "env.normalize=true"],
            "env.normalize: true with env.one_hot; one-hot features need no normalisation",
        ),
        (["env.sticky_actions=1"], "env.sticky_actions: 1 must be less than 1"),
        (
            ["env.id=DiscountingChain-bsuite", "env.params.reward_timestep=1"],
            "env.params.reward_timestep: 1 must be left unset: only parameters that are single numbers can be set",
        ),
    ],
)
def test_what_a_network_cannot_take_is_refused_in_one_line(overrides, line):
    with pytest.raises(ConfigError) as caught:
        load_config("cartpole_cleanrl", overrides)
    assert caught.value.lines == (line,)


@pytest.mark.parametrize(
    "overrides",
    [
        ["network.torso=minatar_cnn", "env.id=Breakout-MinAtar", "env.sticky_actions=0.1"],
        ["network.torso=minatar_cnn", "env.id=FourRooms-misc", "env.kwargs.use_visual_obs=true"],
        ["env.id=FourRooms-misc", "env.one_hot=true", "env.flatten=true", "env.sticky_actions=0.25"],
        ["network.torso=one_hot", "env.id=DeepSea-bsuite"],
        ["network.torso=one_hot", "env.id=FrozenLake-misc", "env.one_hot=true"],
        ["env.normalize=true", "env.sticky_actions=0.25"],
    ],
)
def test_what_fits_together_is_accepted(overrides):
    load_config("cartpole_cleanrl", overrides)


def test_a_class_that_is_no_environment_is_never_called(tmp_path):
    """Else a config could start a program."""
    mark = tmp_path / "mark"
    with pytest.raises(EnvironmentRefusedError, match="it lacks reset, step, action_space"):
        make_environment("subprocess:Popen", {"args": f"touch {mark}", "shell": True})
    assert not mark.exists()


class _Scores(TableMDP):
    """Rewards of shape [1]."""

    def step_env(self, *arguments):
        obs, state, reward, terminated, info = super().step_env(*arguments)
        return obs, state, jnp.reshape(reward, 1), terminated, info


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (object(), "object does not have gymnax's interface: it lacks reset, step, action_space"),
        (None, "NoneType does not have gymnax's interface: it lacks reset"),
        (TableMDP, "TableMDP does not have gymnax's interface: it is a class; an instance is needed"),
        (_Scores([[0, 0]], [[0, 0]], [False]), "interface: reward, terminated and truncated of a step are single"),
    ],
    ids=["object", "nothing", "class", "reward"],
)
def test_an_object_is_checked_as_a_class_by_name_is(env, message):
    with pytest.raises(EnvironmentRefusedError, match=message):
        from_gymnax(env)


class _Seen(TableMDP):
    """Observations of another type."""

    def __init__(self, dtype):
        super().__init__([[0, 0]], [[0, 0]], [False])
        self.dtype = dtype

    def reset_env(self, *arguments):
        obs, state = super().reset_env(*arguments)
        return obs.astype(self.dtype), state

    def step_env(self, *arguments):
        obs, *rest = super().step_env(*arguments)
        return obs.astype(self.dtype), *rest


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.uint8, bool, jnp.float8_e4m3fn])
def test_observations_of_real_numbers_are_taken(dtype):
    assert from_gymnax(_Seen(dtype)).obs_dtype == dtype


@pytest.mark.parametrize("dtype", [jnp.uint4, jnp.int2, np.complex64])
def test_observations_of_other_types_are_refused(dtype):
    with pytest.raises(EnvironmentRefusedError, match=f"observations of .* are {jnp.dtype(dtype).name}"):
        from_gymnax(_Seen(dtype))
