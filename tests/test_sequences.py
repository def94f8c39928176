"""Sequences from replay against plain NumPy: where they begin, what they hold, and what a network learns from them."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn import load_config
from purejaxdqn.config.building import Own, make_parts, make_program
from purejaxdqn.core.algorithm import ActorView
from purejaxdqn.core.config import Config
from purejaxdqn.core.types import Rollout, Step
from purejaxdqn.dqn import learner as learning
from purejaxdqn.dqn.memory import Memory
from purejaxdqn.dqn.replay import REPLAYS, prioritised_replay, uniform_replay
from purejaxdqn.dqn.rings import make_sequence_ring
from purejaxdqn.environments.registry import from_gymnax, make_environment
from tests.conftest import TINY, jit_quickly, mostly_slow
from tests.probes import TableMDP

HPARAMS = Config().hparams()._replace(gamma=np.float32(0.9), replay_alpha=np.float32(1))


class Lengths(NamedTuple):
    """Of a ring, in steps of each environment, but for the number of environments."""

    held: int
    sequence: int
    burn_in: int
    period: int
    block: int  # of a rollout
    warmup: int  # blocks of one step come first
    num_envs: int = 2
    n_step: int = 1

    def ring(self):
        return make_sequence_ring(
            size=self.held * self.num_envs,
            n_step=self.n_step,
            num_envs=self.num_envs,
            sequence=self.sequence,
            burn_in=self.burn_in,
            period=self.period,
        )

    def starts(self, time):
        """The steps at which sequences begin that are in the ring after ``time`` steps."""
        first = max(0, time - self.held)
        return [t for t in range(0, time, self.period) if first <= t <= time - self.sequence]


LENGTHS = {
    "overlapping": Lengths(held=24, sequence=10, burn_in=2, period=4, block=2, warmup=12),
    "with gaps in the burn-in": Lengths(held=20, sequence=9, burn_in=5, period=4, block=1, warmup=9),
    "side by side": Lengths(held=15, sequence=5, burn_in=0, period=5, block=5, warmup=10),
    "single steps": Lengths(held=4, sequence=1, burn_in=0, period=1, block=1, warmup=1),
    "n steps": Lengths(held=24, sequence=8, burn_in=2, period=3, block=3, warmup=9, n_step=3),
}


def history(steps, num_envs, *, seed=0):
    """Steps whose observations are their number and environment, which end often, in all ways."""
    rng, shape = np.random.default_rng(seed), (steps, num_envs)
    time, env = np.indices(shape)
    obs = np.stack([time, env], axis=-1).astype(np.float32)
    terminated, truncated = rng.random((2, *shape)) < 0.1
    reward = rng.normal(size=shape).astype(np.float32)
    return Step(obs, (time % 7).astype(np.int32), reward, terminated, truncated, obs + 0.5)


def filling(lengths, replay, blocks, *, masked=lambda steps: steps):
    """The replay after the warm-up and each of some rollouts; actors carry the number of the step that is next."""
    total = lengths.warmup + blocks * lengths.block
    steps = masked(history(total, lengths.num_envs))
    example = Rollout(jax.tree.map(lambda leaf: leaf[0, 0], steps), jnp.zeros((1, 3)))
    state, add = replay.init(example), jax.jit(replay.add)
    for begin, end in itertools.pairwise([*range(lengths.warmup), *range(lengths.warmup, total + 1, lengths.block)]):
        carry = jnp.full((lengths.num_envs, 3), begin, jnp.float32)
        state = add(HPARAMS, state, Rollout(jax.tree.map(lambda leaf, b=begin, e=end: leaf[b:e], steps), carry))
        if end >= lengths.warmup:
            yield steps, end, state


def sampling(replay, draws=1000):
    bits = jax.random.bits(jax.random.key(0), (draws,))
    return jit_quickly(lambda state: replay.sample(HPARAMS, state, bits, lambda: jnp.float32(1)))


@pytest.mark.parametrize("kind", [uniform_replay, prioritised_replay])
@pytest.mark.parametrize("name", mostly_slow(LENGTHS, fast=["overlapping", "side by side"]))
def test_every_sequence_that_is_wholly_kept_is_drawn_and_no_other(name, kind):
    lengths = LENGTHS[name]
    replay = kind(lengths.ring())
    sample = sampling(replay)
    for _, total, state in filling(lengths, replay, 14):
        obs = sample(state).transition.obs[0]
        found = sorted(set(map(tuple, np.asarray(obs).tolist())))
        assert found == [
            (begin + lengths.burn_in, env) for begin in lengths.starts(total) for env in range(lengths.num_envs)
        ]


def test_sequences_keep_the_legal_actions_beside_the_observations():
    def legal(obs):
        """Other actions for each observation."""
        number = (2 * obs[..., 0] + 5 * obs[..., 1] + 1).astype(np.int32)
        return (number[..., None] >> np.arange(3)) % 2 == 1

    lengths = LENGTHS["n steps"]
    replay = uniform_replay(lengths.ring())
    with_legal = functools.partial(
        filling, masked=lambda steps: steps._replace(legal=legal(steps.obs), next_legal=legal(steps.next_obs))
    )
    *_, (_, _, state) = with_legal(lengths, replay, 14)
    transition = jax.tree.map(np.asarray, sampling(replay, 200)(state).transition)
    np.testing.assert_array_equal(transition.legal, legal(transition.obs))
    np.testing.assert_array_equal(transition.next_legal, legal(transition.next_obs))


@pytest.mark.parametrize("name", mostly_slow(LENGTHS, fast=["n steps"]))
def test_a_sequence_holds_the_steps_of_one_environment_and_what_was_carried_into_them(name):
    """Transitions end with the episode or the sequence, whichever comes first."""
    lengths = LENGTHS[name]
    replay = uniform_replay(lengths.ring())
    *_, (steps, _, state) = filling(lengths, replay, 7)
    batch = sampling(replay, draws=40)(state)
    about, found = batch.sequence, batch.transition
    ended = steps.terminated | steps.truncated
    for b in range(40):
        begin, env = int(found.obs[0, b, 0]) - lengths.burn_in, int(found.obs[0, b, 1])
        np.testing.assert_array_equal(about.carry[b], np.full(3, begin))
        np.testing.assert_array_equal(about.burn_in[:, b], steps.obs[begin : begin + lengths.burn_in, env])
        starts = [False, *ended[begin : begin + lengths.sequence - 1, env]]
        np.testing.assert_array_equal(about.start[:, b], starts)
        end = begin + lengths.sequence
        for i, t in enumerate(range(begin + lengths.burn_in, end)):
            reward, k = 0.0, t
            for k in range(t, min(t + lengths.n_step, end)):
                reward += 0.9 ** (k - t) * steps.reward[k, env]
                if ended[k, env]:
                    break
            np.testing.assert_array_equal(found.obs[i, b], steps.obs[t, env])
            assert found.action[i, b] == steps.action[t, env]
            np.testing.assert_allclose(found.reward[i, b], reward, rtol=1e-5, atol=1e-6)
            discount = 0 if steps.terminated[k, env] else 0.9 ** (k - t + 1)
            np.testing.assert_allclose(found.discount[i, b], discount, rtol=1e-5)
            np.testing.assert_array_equal(found.next_obs[i, b], steps.next_obs[k, env])
            assert about.after[i, b] == k - begin - lengths.burn_in


# A network, its learner, and a ring that was filled by actors of this network, whose parameters never changed.

OVERRIDES = [
    *TINY,
    "network={memory: gru, memory_size: 6, hidden: [8, 8]}",
    "replay={kind: prioritised, size: 240, batch_size: 5, sequence: 12, burn_in: 5, period: 6, alpha: 0.5}",
    "n_step=2",
    "optimizer={name: sgd, learning_rate: 0.1}",
    "schedule.warmup=80",
]


class Acted(NamedTuple):
    parts: learning.Parts
    learner: learning.Learner
    hparams: object
    state: learning.LearnerState
    batch: object
    before: np.ndarray  # [T, E, H] what actors remembered before each step
    updated: tuple  # ``Learner.update`` of the batch


@functools.cache
def acted():
    config = load_config("cartpole_cleanrl", OVERRIDES)
    env = make_environment(**config.env.making())
    parts = make_parts(config, env)
    learner, replay, hparams = learning.make_learner(parts), REPLAYS.make(config), config.hparams()
    state = learner.init(hparams, jax.random.key(0))
    state = state._replace(target=jax.tree.map(lambda leaf: 1.1 * leaf, state.target))
    policy, (total, envs, block) = learner.policy(state), (96, 4, 2)
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(2, total, envs, 4)).astype(np.float32)
    terminated, truncated = rng.random((2, total, envs)) < 0.08
    steps = Step(
        obs[0], rng.integers(0, 2, (total, envs)), rng.normal(size=(total, envs)), terminated, truncated, obs[1]
    )
    steps = steps._replace(action=steps.action.astype(np.int32), reward=steps.reward.astype(np.float32))
    remember = jax.jit(
        lambda obs, carry, start: learner.q_values(hparams, policy, obs, None, learning.Recall(carry, start))[1]
    )
    before, carry = [], learner.memory.carry(envs)
    for t in range(total):  # step by step, from the start of every episode
        start = np.ones(envs, bool) if t == 0 else terminated[t - 1] | truncated[t - 1]
        carry = jnp.where(start[:, None], 0.0, carry)
        before.append(np.asarray(carry))
        carry = remember(steps.obs[t], carry, np.zeros((1, envs), bool))[0]
    example = Rollout(jax.tree.map(lambda leaf: leaf[0, 0], steps), learner.memory.carry(1))
    kept, add = replay.init(example), jax.jit(replay.add)
    for t in range(0, total, block):
        kept = add(hparams, kept, Rollout(jax.tree.map(lambda leaf: leaf[t : t + block], steps), before[t]))  # noqa: B023
    batch = replay.sample(hparams, kept, jax.random.bits(jax.random.key(3), (5,)), lambda: jnp.float32(0.7))
    updated = jit_quickly(learner.update)(hparams, state, batch, jax.random.key(5), jnp.float32(0.1))
    return Acted(parts, learner, hparams, state, batch, (steps, np.array(before)), updated), replay, kept


def place_of(batch, steps, b):
    """The step and the environment of the first transition of sequence ``b``."""
    return tuple(np.argwhere((steps.obs == np.asarray(batch.transition.obs[0, b])).all(-1))[0])


@pytest.mark.slow
def test_after_the_burn_in_the_memory_is_that_of_the_episodes_start():
    agent, _, _ = acted()
    steps, before = agent.before
    no_draws = learning.Draws(None, None, None, None, None)
    recalls = learning._burnt_in(agent.parts, agent.hparams, agent.state, agent.batch.sequence, no_draws)
    for b in range(5):
        t, env = place_of(agent.batch, steps, b)
        carry = np.where(agent.batch.sequence.start[5, b], 0, recalls.online.carry[b])
        np.testing.assert_allclose(carry, before[t, env], rtol=1e-5, atol=1e-6)
        assert (before[t, env] != 0).any() or agent.batch.sequence.start[5, b]


def wanted_errors(agent):
    """TD errors [L, B] of two steps, each value from its own episode, step by step."""
    steps, _ = agent.before
    length, envs = 7, 5
    ended = steps.terminated | steps.truncated
    q_values = jax.jit(
        lambda p, obs, carry: agent.learner.q_values(
            agent.hparams, p, obs, None, learning.Recall(carry, np.zeros((1, 1), bool))
        )
    )
    errors = np.zeros((length, envs))
    for b in range(envs):
        first, env = place_of(agent.batch, steps, b)
        begin = first - 5  # the burn-in
        q, after = {}, {}
        for name, params in (("online", agent.state.online), ("target", agent.state.target)):
            carry = agent.batch.sequence.carry[b][None]
            for t in range(begin, begin + 12):
                if t > begin and ended[t - 1, env]:
                    carry = jnp.zeros_like(carry)
                values, carries = q_values(params, steps.obs[t, env][None], carry)
                carry = carries[0]
                q[name, t] = np.asarray(values[0])
                after[name, t] = np.asarray(q_values(params, steps.next_obs[t, env][None], carry)[0][0])
        for i in range(length):
            t = k = first + i
            value, discount = 0.0, 1.0
            for k in range(t, min(t + 2, begin + 12)):
                value, discount = value + discount * steps.reward[k, env], discount * 0.99
                if ended[k, env]:
                    break
            future = 0 if steps.terminated[k, env] else after["target", k].max()
            errors[i, b] = value + discount * future - q["online", t][steps.action[t, env]]
    return errors


@pytest.mark.slow
def test_targets_never_mix_episodes_and_priorities_weigh_the_largest_and_the_mean_error():
    """Against loops that take every step of every episode by itself."""
    agent, replay, kept = acted()
    wanted = wanted_errors(agent)
    assert np.asarray(agent.batch.sequence.start[5:]).sum() > 1  # episodes end where it is learned
    _, priority, stats = agent.updated
    mixed = 0.9 * np.abs(wanted).max(axis=0) + 0.1 * np.abs(wanted).mean(axis=0)
    np.testing.assert_allclose(priority, mixed, rtol=1e-4)
    np.testing.assert_allclose(stats.loss, np.mean(np.asarray(agent.batch.weight) * np.square(wanted)), rtol=1e-4)
    after = replay.reprioritise(agent.hparams, kept, agent.batch.indices, priority)
    for place, size in zip(np.asarray(agent.batch.indices), mixed, strict=True):
        np.testing.assert_allclose(after.tree[place], (size + 1e-6) ** 0.5, rtol=1e-4)


@pytest.mark.slow
def test_no_gradient_flows_into_the_burn_in():
    """The step is that from the memory after the burn-in, given as a number."""
    agent, _, _ = acted()
    no_draws = learning.Draws(None, None, None, None, None)
    state = agent.state._replace(target=agent.state.online)  # both networks remember the same
    about = agent.batch.sequence
    recalls = learning._burnt_in(agent.parts, agent.hparams, state, about, no_draws)
    numbers = about._replace(burn_in=about.burn_in[:0], carry=recalls.online.carry, start=about.start[5:])
    update = jit_quickly(agent.learner.update)
    rest = jax.random.key(5), jnp.float32(0.1)
    one = update(agent.hparams, state, agent.batch, *rest)
    other = update(agent.hparams, state, agent.batch._replace(sequence=numbers), *rest)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), one[0].online, other[0].online)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one[0].online, state.online)
    assert min(jax.tree.leaves(moved["params"]["memory"])) > 1e-5


class Shown(TableMDP):
    """The first of two steps shows one of two signs; the second, blank, pays 1 for the action of that sign."""

    def __init__(self):
        super().__init__([[1, 1], [1, 1]], [[0, 0], [0, 0]], [False] * 2)

    def reset_env(self, key, params):
        _, state = super().reset_env(key, params)
        state = state.replace(place=jax.random.bernoulli(key).astype(jnp.int32))
        return self.get_obs(state), state

    def step_env(self, key, state, action, params):
        time = state.time + 1
        reward = jnp.where(time == 2, (action == state.place).astype(jnp.float32), 0.0)
        state = state.replace(time=time)
        return self.get_obs(state), state, reward, time == 2, {}

    def get_obs(self, state, params=None, key=None):
        return jnp.where(state.time == 0, jax.nn.one_hot(state.place, 2), 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["gru", "lru", "none"])
def test_a_memory_makes_the_values_those_of_the_branch_and_none_those_of_the_mixture(memory):
    config = load_config(
        "cartpole_cleanrl",
        [
            *TINY,
            "total_timesteps=4080",
            "gamma=0.5",
            "exploration={start: 1, end: 1}",
            "optimizer={name: adam, learning_rate: 1e-2, anneal: true}",
            f"network={{memory: {memory}, memory_size: 8}}",
            "replay={size: 2000, batch_size: 16, sequence: 5, burn_in: 1, period: 2}",
            "evaluation.every=2000",
        ],
    )
    program = make_program(config, Own(env=from_gymnax(Shown())))
    policy = jit_quickly(program.train)(config.hparams(), jax.random.key(0)).params
    for sign in (0, 1):
        carry, q = program.algorithm.memory(1), []
        for step, obs in enumerate((np.eye(2)[sign], np.zeros(2))):
            view = ActorView(jnp.asarray(obs, jnp.float32)[None], (), carry, jnp.array([step == 0]))
            values, carry = program.algorithm.values(config.hparams(), policy, view)
            q.append(np.asarray(values[0]))
        right = np.eye(2)[sign] if memory != "none" else [0.5, 0.5]
        np.testing.assert_allclose(q[1], right, atol=0.06)
        np.testing.assert_allclose(q[0], np.max(right) / 2, atol=0.06)


def _register():
    """A memory of one's own, which adds up its inputs."""
    return Memory(
        init=lambda key, inputs: {"scale": 0.1 * jnp.ones((inputs, 1))},
        carry=lambda batch: jnp.zeros((batch, 16)),
        step=lambda params, x, carry: (params["scale"] * x + carry.T, carry + (params["scale"] * x).T),
    )


def test_a_memory_of_your_own_takes_the_place_of_the_configs():
    config = load_config("cartpole_cleanrl", [*TINY, "network.memory=gru", "replay={size: 320, sequence: 8}"])
    program = make_program(config, Own(memory=_register()))
    params = jax.eval_shape(program.algorithm.init, config.hparams(), jax.random.key(0)).learner.online["params"]
    assert params["memory"]["scale"].shape == (16, 1)
    with pytest.raises(ValueError, match=r"network.memory is none, but a memory is passed"):
        make_program(load_config("cartpole_cleanrl", TINY), Own(memory=_register()))


def test_a_network_of_your_own_has_no_memory():
    config = load_config("cartpole_cleanrl", [*TINY, "network.memory=gru", "replay={size: 320, sequence: 8}"])
    with pytest.raises(ValueError, match=r"network.memory must be none with a network of your own"):
        make_program(config, Own(network=object()))


def test_a_replay_of_single_steps_serves_no_network_with_a_memory():
    config = load_config("cartpole_cleanrl", [*TINY, "network.memory=gru", "replay={size: 320, sequence: 8}"])
    single = REPLAYS.make(load_config("cartpole_cleanrl", TINY))
    own = single._replace(init=lambda example: single.init(example.steps), add=lambda h, state, rollout: state)
    program = make_program(config, Own(replay=own))
    with pytest.raises(AssertionError, match="a network with a memory needs sequences"):
        jax.eval_shape(program.train, config.hparams(), jax.random.key(0))
