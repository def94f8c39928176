"""What an agent sees of observations: some features, and stacks of the last ones, against loops in NumPy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn import evaluate_policy, load_config, load_policy
from purejaxdqn.config.building import Own, make_algorithm, make_program
from purejaxdqn.core.config import Config
from purejaxdqn.core.types import Step
from purejaxdqn.dqn.replay import example_step, prioritised_replay, uniform_replay
from purejaxdqn.dqn.rings import make_ring
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.environments.sight import make_sight, with_sight
from purejaxdqn.evaluate import main as evaluate
from purejaxdqn.export import main as export
from purejaxdqn.policies.episodes import record_episode
from purejaxdqn.policies.policies import load_params
from purejaxdqn.train import main as train
from tests.conftest import TINY, jit_quickly, mostly_slow

E, N = 3, 4
HPARAMS = Config().hparams()._replace(gamma=np.float32(1), replay_alpha=np.float32(1))


def stacks_of(obs, next_obs, ended):
    """Stacks [T, E, N, ...] of observations and of those after each step, by the definition."""
    steps, envs = ended.shape
    found = np.zeros((2, steps, envs, N, *obs.shape[2:]), obs.dtype)
    for e in range(envs):
        episode = []
        for t in range(steps):
            episode.append(obs[t, e])
            for kind, seen in enumerate((episode, [*episode, next_obs[t, e]])):
                found[kind, t, e] = np.array(([seen[0]] * N + seen)[-N:])
            if ended[t, e]:
                episode = []
    return found


def played(env, steps, seed=0):
    """Steps [T, E] of random play; the same keys make the same episodes."""
    keys = jax.random.split(jax.random.key(seed), (steps + 1, E))

    def body(carry, xs):
        obs, state = carry
        obs, state, step = env.step(env.default_params, xs[0], state, obs, xs[1])
        return (obs, state), step

    actions = np.random.default_rng(seed).integers(0, env.num_actions, (steps, E)).astype(np.int32)
    start = env.reset(env.default_params, keys[-1])
    return jax.tree.map(np.asarray, jit_quickly(lambda: jax.lax.scan(body, start, (keys[:-1], actions))[1])())


def test_an_agent_sees_the_last_observations_of_its_episode():
    whole = played(make_environment("CartPole-v1"), 40)
    env = make_environment("CartPole-v1", observe=(2, 0), frame_stack=N)
    seen = played(env, 40)
    assert env.obs_shape == (N, 2)
    ended = whole.terminated | whole.truncated
    assert ended.sum() > 3
    obs, next_obs = stacks_of(whole.obs[..., [2, 0]], whole.next_obs[..., [2, 0]], ended)
    np.testing.assert_array_equal(seen.obs, obs)
    np.testing.assert_array_equal(seen.next_obs, next_obs)
    np.testing.assert_array_equal(seen.action, whole.action)
    some = played(make_environment("CartPole-v1", observe=(2, 0)), 40)
    np.testing.assert_array_equal(some.obs, whole.obs[..., [2, 0]])
    np.testing.assert_array_equal(some.next_obs, whole.next_obs[..., [2, 0]])


def test_channels_of_stacked_pictures_follow_each_other_and_so_do_one_hot_features():
    env = make_environment("Breakout-MinAtar", frame_stack=2)
    obs = np.random.default_rng(0).uniform(size=(3, 2, 10, 10, 4)) < 0.5
    np.testing.assert_array_equal(env.features(obs), np.concatenate([obs[:, 0], obs[:, 1]], axis=-1))
    env = make_environment("FrozenLake-misc", frame_stack=2, one_hot=True)
    assert env.obs_shape == (2,)
    np.testing.assert_array_equal(
        env.features(jnp.array([[3, 5]])), np.concatenate([np.eye(16)[[3]], np.eye(16)[[5]]], axis=-1)
    )


def random_steps(steps):
    """Steps [T, E] that end often, whose observations are their number, in stacks."""
    rng, shape = np.random.default_rng(0), (steps, E)
    numbers = np.arange(steps * E, dtype=np.float32).reshape(shape)[..., None]
    terminated, truncated = rng.random((2, *shape)) < 0.08
    obs, next_obs = stacks_of(numbers, numbers + 0.5, terminated | truncated)
    action = numbers[..., 0].astype(np.int32)
    return Step(obs, action, np.ones(shape, np.float32), terminated, truncated, next_obs)


@pytest.mark.parametrize("n_step", mostly_slow([1, 3], fast=[3]))
@pytest.mark.parametrize("kind", [uniform_replay, prioritised_replay])
def test_frames_are_kept_once_and_stacked_again(kind, n_step):
    size, block, steps = 20 * E + 1, 2, random_steps(60)
    replay = kind(make_ring(size=size, n_step=n_step, num_envs=E, frames=N))
    state, add = replay.init(example_step(jnp.zeros((N, 1)))), jax.jit(replay.add)
    assert max(leaf.size for leaf in jax.tree.leaves(state)) < 2 * size  # and not N times as much
    bits = np.arange(500, dtype=np.uint32) * np.uint32(1 if kind is uniform_replay else 2**32 // 500)
    sample = jit_quickly(lambda state: replay.sample(HPARAMS, state, bits, lambda: jnp.float32(1)))
    ended = steps.terminated | steps.truncated
    for t in range(0, 60, block):
        state = add(HPARAMS, state, jax.tree.map(lambda leaf, t=t: leaf[t : t + block], steps))
        added = (t + block) * E
        oldest = max(0, added - size + (N - 1) * E) if added >= size else 0
        end = added - (n_step - 1) * E
        if end <= oldest:
            continue
        found = jax.tree.map(np.asarray, sample(state).transition)
        assert sorted(set(found.action.tolist())) == list(range(oldest, end))
        for i, number in enumerate(found.action):
            first, e = divmod(int(number), E)
            last = next((k for k in range(first, first + n_step) if ended[k, e]), first + n_step - 1)
            np.testing.assert_array_equal(found.obs[i], steps.obs[first, e])
            np.testing.assert_array_equal(found.next_obs[i], steps.next_obs[last, e])


def test_whoever_plays_without_the_wrapper_sees_the_same():
    sight, obs = make_sight((1,), 3), jnp.arange(8.0).reshape(2, 4)
    seen = sight.after(sight.after(sight.first(obs), obs + 10), obs + 20)
    np.testing.assert_array_equal(seen[..., 0], [[1, 11, 21], [5, 15, 25]])


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["env.frame_stack=3", "replay.kind=prioritised", "n_step=2", "env.normalize=true"],
        pytest.param(["network.memory=gru", "replay={size: 320, sequence: 8}"], marks=pytest.mark.slow),
    ],
    ids=["stacked", "remembering"],
)
def test_an_agent_that_sees_a_part_is_trained_played_filmed_and_exported(overrides, quietly, tmp_path, barely_compiled):
    run = tmp_path / "run"
    overrides = ["env.observe=[0, 2]", *overrides]
    code, _, err = quietly(train, "--config", "cartpole_cleanrl", "--out", run, "--quiet", *TINY, *overrides)
    assert code == 0, err
    for backend in ("gymnax", "gymnasium"):
        code, out, _ = quietly(evaluate, run, "--episodes", "2", "--backend", backend, "--json")
        assert code == 0 and np.shape(json.loads("".join(out))["returns"]) == (1, 2)
    config, params = load_params(run)
    episode = record_episode(config, jax.tree.map(lambda leaf: leaf[0], params), seed=5)
    assert episode.obs.shape[1:] == (4,)  # pictures are of the whole
    assert episode.rewards.sum() == evaluate_policy(config, params, episodes=1, seed=5)[0, 0]
    assert quietly(export, run, "--format", "onnx", "--out", tmp_path / "exported")[0] == 0
    described = json.loads((tmp_path / "exported" / "policy.json").read_text())
    shape = make_environment(**config.env.making()).obs_shape
    assert (described["features"]["observe"], described["observation"]["shape"]) == ([0, 2], list(shape))
    obs = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    actions = [
        policy.step(obs, policy.initial_state(6))[0] for policy in map(load_policy, (run, tmp_path / "exported"))
    ]
    np.testing.assert_array_equal(*actions)
    assert "of the features [0, 2]" in (tmp_path / "exported" / "README.md").read_text()


def test_an_environment_of_your_own_stacks_as_the_config_says():
    """CartPole's four features are no four frames."""
    config = load_config("cartpole_cleanrl", [*TINY, "env.frame_stack=4"])
    with pytest.raises(ValueError, match=r"env.frame_stack is 4, but the environment stacks 1"):
        make_program(config, Own(env=make_environment("CartPole-v1")))
    make_program(config, Own(env=with_sight(make_environment("CartPole-v1"), frame_stack=4)))


def test_no_stack_and_all_features_leave_the_program_as_it_is():
    config = load_config("cartpole_cleanrl", TINY)
    env = make_environment(**config.env.making())
    assert env.step.func.__module__ == "purejaxdqn.environments.gymnax"  # nothing is wrapped
    assert make_algorithm(config, env).memory(3) == ()
