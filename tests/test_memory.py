"""Recurrent cells against loops in NumPy, starts of episodes within sequences, and agents that must remember."""

import json

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn import evaluate_policy, load_config, load_policy, make_train
from purejaxdqn.config.building import Own, make_program
from purejaxdqn.core.algorithm import ActorView
from purejaxdqn.core.schedules import make_clock
from purejaxdqn.core.types import Rollout, Step
from purejaxdqn.dqn import memory
from purejaxdqn.dqn.memory import gru, lru
from purejaxdqn.environments.registry import from_gymnax
from purejaxdqn.evaluate import main as evaluate
from purejaxdqn.export import main as export
from purejaxdqn.policies.episodes import record_episode
from purejaxdqn.policies.policies import load_params
from purejaxdqn.train import main as train
from tests.conftest import PQN, jit_quickly, mostly_slow
from tests.probes import TIME_LIMIT, TableMDP

F, L, B, H = 3, 9, 4, 5
CELLS = {"gru": gru(H), "lru": lru(H)}


def sequence(cell, seed=0):
    """Parameters none of which is 0, inputs, a carry and starts of episodes, the first step's among them."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), cell.init(jax.random.key(seed), F)
    )
    x = rng.normal(size=(F, L, B)).astype(np.float32)
    carry = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), cell.carry(B))
    start = rng.uniform(size=(L, B)) < 0.3
    start[0, :2] = True, False
    return params, x, carry, start


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_loop(params, x, carry, start):
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    w_r, w_z, w_n = np.split(p["input"], 3)
    u_r, u_z, u_n = np.split(p["recurrent"], 3)
    b_r, b_z, b_n = np.split(p["bias"], 3)
    y = np.zeros((H, L, B))
    for b in range(B):
        h = np.asarray(carry[b], np.float64)
        for t in range(L):
            h = np.zeros(H) if start[t, b] else h
            r = sigmoid(w_r @ x[:, t, b] + u_r @ h + b_r)
            z = sigmoid(w_z @ x[:, t, b] + u_z @ h + b_z)
            n = np.tanh(w_n @ x[:, t, b] + b_n + r * (u_n @ h + p["candidate_bias"]))
            h = (1 - z) * n + z * h
            y[:, t, b] = h
    return y


def lru_loop(params, x, carry, start):
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    decay = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"]))
    scale = np.sqrt(1 - np.abs(decay) ** 2)
    into, out = p["b_real"] + 1j * p["b_imag"], p["c_real"] + 1j * p["c_imag"]
    y = np.zeros((H, L, B))
    for b in range(B):
        h = np.asarray(carry[b, 0], np.float64) + 1j * np.asarray(carry[b, 1])
        for t in range(L):
            h = decay * (0 if start[t, b] else h) + scale * (into @ x[:, t, b])
            y[:, t, b] = (out @ h).real + p["d"] @ x[:, t, b]
    return y


@pytest.mark.parametrize("name", CELLS)
def test_a_sequence_is_that_of_a_loop(name):
    arguments = sequence(CELLS[name])
    y, _ = jax.jit(CELLS[name].unroll)(*arguments)
    np.testing.assert_allclose(y, {"gru": gru_loop, "lru": lru_loop}[name](*arguments), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_a_sequence_is_its_steps_one_by_one_and_so_are_its_gradients(name):
    cell = CELLS[name]
    params, x, carry, start = sequence(cell)
    weight = np.random.default_rng(1).normal(size=(H, L, B)).astype(np.float32)

    def loss(cell, params, x, carry):
        y, carries = memory.unroll(cell, params, x, carry, start)
        return jnp.sum(weight * y), (y, carries)

    results = [
        jax.jit(jax.value_and_grad(lambda *args, one=one: loss(one, *args), (0, 1, 2), has_aux=True))(params, x, carry)
        for one in (cell, cell._replace(unroll=None))
    ]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5), *results)


@pytest.mark.parametrize("name", mostly_slow(CELLS, fast=["gru"]))
def test_the_parts_of_a_sequence_make_up_the_whole(name):
    cell = CELLS[name]
    params, x, carry, start = sequence(cell)
    whole, carries = cell.unroll(params, x, carry, start)
    first, after = cell.unroll(params, x[:, :4], carry, start[:4])
    second, last = cell.unroll(params, x[:, 4:], jax.tree.map(lambda leaf: leaf[-1], after), start[4:])
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one[-1], other[-1], rtol=1e-4, atol=1e-5), last, carries)


@pytest.mark.parametrize("name", mostly_slow(CELLS, fast=["gru"]))
@pytest.mark.slow
def test_nothing_passes_the_start_of_an_episode(name):
    cell = CELLS[name]
    params, x, carry, _ = sequence(cell)
    start = np.zeros((L, B), bool)
    start[4] = True
    jacobian = jax.jacrev(lambda x: jnp.sum(cell.unroll(params, x, carry, start)[0], axis=(0, 2)))(x)  # [L, F, L, B]
    assert (np.abs(jacobian[4:, :, :4]) == 0).all()
    assert (np.abs(jacobian[6, :, 4]) > 0).all()
    into = jax.jacrev(lambda carry: jnp.sum(cell.unroll(params, x, carry, start)[0], axis=(0, 2)))(carry)
    assert (np.abs(into[4:]) == 0).all() and (np.abs(into[3]) > 0).any()


def test_a_linear_unit_starts_within_its_ring():
    params = lru(500).init(jax.random.key(0), F)
    decay = np.exp(-np.exp(params["nu"]))
    assert 0.9 <= decay.min() < 0.91 and 0.99 < decay.max() <= 0.999
    assert np.exp(params["theta"]).max() < np.pi / 10 + 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [["network.memory=gru"], ["network.memory=lru", "env.num_envs=8"]], ids=["gru", "lru"]
)
def test_a_time_limit_is_no_termination_for_an_agent_with_a_memory(overrides):
    """And an episode within a rollout starts afresh: rollouts of 8 steps hold episodes of 3."""
    config = load_config(
        "cartpole_cleanrl",
        [
            *PQN,
            "total_timesteps=6400",
            "gamma=0.5",
            "exploration={start: 1, end: 1}",
            "optimizer={name: adam, learning_rate: 5e-3, anneal: true}",
            "rollout={epochs: 4, minibatches: 2, lambda: 0.65}",
            *overrides,
        ],
    )
    env = from_gymnax(TIME_LIMIT)
    params = env.default_params.replace(max_steps_in_episode=3)
    program = make_program(config, Own(env=env._replace(with_params=lambda overrides: params)))
    policy = jit_quickly(program.train)(config.hparams(), jax.random.key(3)).params
    q, carry = [], jax.tree.map(lambda leaf: leaf + 9.0, program.algorithm.memory(1))  # of another episode
    for step, state in enumerate((0, 1, 2, 2)):
        view = ActorView(jnp.eye(3)[None, state], memory=carry, start=jnp.array([step == 0]))
        values, carry = program.algorithm.values(config.hparams(), policy, view)
        q.append(np.asarray(values[0]))
    # The history that goes on after the limit is never trained on: its value is what the network makes of it.
    np.testing.assert_allclose(q[2], 1 + 0.5 * q[3].max(), atol=0.05)
    assert q[2].min() > 1.5
    np.testing.assert_allclose(q[1], 0.5 * q[2].max(), atol=0.05)
    np.testing.assert_allclose(q[0], 0.5 * q[1].max(), atol=0.05)


class Recalled(TableMDP):
    """The first of three steps shows one of two signs, and the last pays 1 for the action of that sign."""

    def __init__(self):
        super().__init__([[1, 1], [1, 1]], [[0, 0], [0, 0]], [False] * 2)

    def reset_env(self, key, params):
        _, state = super().reset_env(key, params)
        state = state.replace(place=jax.random.bernoulli(key).astype(jnp.int32))
        return self.get_obs(state), state

    def step_env(self, key, state, action, params):
        time = state.time + 1
        reward = jnp.where(time == 3, (action == state.place).astype(jnp.float32), 0.0)
        state = state.replace(time=time)
        return self.get_obs(state), state, reward, time == 3, {}

    def get_obs(self, state, params=None, key=None):
        return jnp.where(state.time == 0, jax.nn.one_hot(state.place, 2), 0.0)


@pytest.mark.parametrize(
    ("kind", "reached"),
    [
        ("gru", True),
        pytest.param("lru", True, marks=pytest.mark.slow),
        pytest.param("none", False, marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_what_was_shown_two_steps_ago_is_remembered(kind, reached):
    config = load_config(
        "cartpole_cleanrl",
        [
            *PQN,
            "total_timesteps=6400",
            f"network.memory={kind}",
            "env.num_envs=8",
            "optimizer={name: adam, learning_rate: 5e-3, anneal: true}",
            "rollout={epochs: 4, minibatches: 2}",
            "evaluation.final_episodes=40",
            "env.params={}",
        ],
    )
    returns = jit_quickly(make_train(config, env=from_gymnax(Recalled())))(
        config.hparams(), jax.random.key(0)
    ).final_returns
    assert (returns == 1).all() == reached
    assert reached or 0.2 < returns.mean() < 0.8  # a coin


def test_an_actor_forgets_where_an_episode_starts_and_remembers_elsewhere():
    config = load_config("cartpole_cleanrl", [*PQN, "network={memory: gru, memory_size: 4}", "rollout.minibatches=2"])
    hparams, algorithm = config.hparams(), make_program(config).algorithm
    policy = algorithm.policy(algorithm.init(hparams, jax.random.key(0)))
    obs, fresh = jax.random.normal(jax.random.key(1), (2, 4)), algorithm.memory(2)
    start = jnp.array([True, False])
    (expected, carry), (found, after) = (
        algorithm.values(hparams, policy, ActorView(obs, (), memory, start)) for memory in (fresh, fresh + 1)
    )
    for one, other in ((expected, found), (carry, after)):
        np.testing.assert_array_equal(one[0], other[0])
        assert np.any(one[1] != other[1])


@pytest.mark.slow
def test_a_policy_with_a_memory_is_played_and_stepped_from_its_directory(quietly, barely_compiled, tmp_path):
    """In gymnax and in Gymnasium, as a film's episode, and by hand: step by step as in an evaluation."""
    run = tmp_path / "run"
    overrides = [*PQN, "network.memory=lru", "rollout.minibatches=2", "num_seeds=2"]
    assert quietly(train, "--config", "cartpole_cleanrl", "--out", run, "--quiet", *overrides)[0] == 0
    for backend in ("gymnax", "gymnasium"):
        code, out, _ = quietly(evaluate, run, "--episodes", "3", "--backend", backend, "--json")
        assert code == 0 and np.shape(json.loads("".join(out))["returns"]) == (2, 3)
    config, params = load_params(run)
    one = jax.tree.map(lambda leaf: leaf[1], params)
    episode = record_episode(config, one, seed=5)
    assert episode.rewards.sum() == evaluate_policy(config, params, episodes=1, seed=5)[1, 0]
    policy = load_policy(run, seed_index=1)
    state = jax.tree.map(lambda leaf: leaf + 3.0, policy.initial_state(1))  # of another episode
    env = gymnasium.make("CartPole-v1").unwrapped
    env.reset()
    for step, obs in enumerate(episode.obs[:-1]):
        env.state = obs.astype(np.float64)
        action, state = policy.step(obs[None], state, np.array([step == 0]))
        np.testing.assert_allclose(env.step(int(action[0]))[0], episode.obs[step + 1], atol=1e-5)
    with pytest.raises(ValueError, match="has a memory"):
        policy(episode.obs[0])
    with pytest.raises(ValueError, match="start is int64"):
        policy.step(episode.obs[:1], state, np.array([1]))
    assert quietly(export, run, "--format", "onnx", "--out", tmp_path / "exported")[0] == 0


@pytest.mark.slow
def test_learning_starts_from_what_was_remembered_unless_an_episode_starts():
    config = load_config("cartpole_cleanrl", [*PQN, "network.memory=gru", "rollout.minibatches=2"])
    algorithm = make_program(config).algorithm
    rng, (steps, envs) = np.random.default_rng(0), (8, 4)
    obs = rng.normal(size=(2, steps, envs, 4)).astype(np.float32)
    taken = Step(
        jnp.asarray(obs[0]),
        jnp.zeros((steps, envs), jnp.int32),
        jnp.ones((steps, envs)),
        jnp.zeros((steps, envs), bool),
        jnp.zeros((steps, envs), bool),
        jnp.asarray(obs[1]),
    )
    words = [jax.random.bits(jax.random.key(1), (1, *shape), jnp.uint32) for shape in algorithm.draws.shapes]
    draws = jax.tree.map(lambda leaf: leaf[0], algorithm.draws.read(*words))
    hparams = config.hparams()._replace(optimizer_learning_rate=np.float32(1e-30), rollout_lambda=np.float32(0))
    clock, state = make_clock(warmup=0, anneal=False)(hparams, 0), algorithm.init(hparams, jax.random.key(0))

    @jit_quickly
    def learned(memory, start):
        return algorithm.learn(hparams, state, Rollout(taken, memory, start), draws, clock)[1].loss

    def wanted(memory):
        """The mean squared one-step TD error of a network that does not change, step by step."""
        errors, no = [], np.zeros(envs, bool)
        policy = algorithm.policy(state)
        for t in range(steps):
            q, memory = algorithm.values(hparams, policy, ActorView(taken.obs[t], (), memory, no))
            after, _ = algorithm.values(hparams, policy, ActorView(taken.next_obs[t], (), memory, no))
            errors.append(1 + 0.99 * after.max(axis=1) - q[:, 0])
        return np.mean(np.square(errors))

    fresh = algorithm.memory(envs)
    going = np.zeros((steps, envs), bool)
    starting = going.copy()
    starting[0] = True
    assert learned(fresh, going) == learned(fresh, starting) == learned(fresh + 1, starting)
    np.testing.assert_allclose(learned(fresh + 1, going), wanted(fresh + 1), rtol=1e-5)
    assert abs(wanted(fresh + 1) / wanted(fresh) - 1) > 1e-3


def test_a_memory_of_your_own_takes_three_functions():
    """A register that adds up its inputs, without an ``unroll``."""
    own = memory.Memory(
        init=lambda key, inputs: {"scale": jnp.ones((inputs, 1))},
        carry=lambda batch: jnp.zeros((batch, F)),
        step=lambda params, x, carry: (params["scale"] * x + carry.T, carry + (params["scale"] * x).T),
    )
    params, x, carry, start = own.init(None, F), *sequence(CELLS["gru"])[1:2], own.carry(B), np.zeros((L, B), bool)
    start[3, 1] = True
    y, carries = memory.unroll(own, params, x, carry, start)
    wanted = np.cumsum(x, axis=1)
    wanted[:, 3:, 1] -= wanted[:, 2, None, 1]
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(carries, np.moveaxis(wanted, 0, 2), rtol=1e-5, atol=1e-5)
