"""The loop knows an ``Algorithm`` and an ``Environment`` by their records alone: toy ones show what it hands over."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn.core.algorithm import Algorithm, greedy
from purejaxdqn.core.config import Config
from purejaxdqn.core.draws import LearnDraws, random_action
from purejaxdqn.core.loop import build_program
from purejaxdqn.core.plan import Plan
from purejaxdqn.core.schedules import make_clock
from purejaxdqn.core.types import UpdateStats
from purejaxdqn.environments.gymnax import from_gymnax
from tests.conftest import jit_quickly
from tests.probes import TableMDP

E, T = 3, 4
PLAN = Plan(num_envs=E, warmup=5, epochs=2, periods=2, iterations=3, rollout=T, episodes=2, final_episodes=3)
CLOCK = make_clock(warmup=15, anneal=False)
HPARAMS = Config(total_timesteps=100).hparams()
CYCLE = TableMDP([[1, 1], [2, 2], [0, 0]], [[1, 0], [0, 5], [4, 2]], [False] * 3, time_limit=5)


class Counted(NamedTuple):
    """What the toy algorithm was called with."""

    observed: jax.Array  # environment steps
    learned: jax.Array  # calls
    synced: jax.Array  # calls
    epsilon: jax.Array  # at the last call of ``learn``
    words: jax.Array  # sum of the words drawn for ``learn``
    memory: jax.Array  # sum over steps of what the actors remembered


def counting(**changed):
    """An algorithm that counts its calls. Its actors remember how many steps their episode has taken."""

    def act(hparams, policy, view, draws, clock):
        memory = jnp.where(view.start, 0, view.memory) + 1
        return (memory % 2).astype(jnp.int32), memory

    def values(hparams, policy, view):
        memory = jnp.where(view.start, 0, view.memory) + 1
        return jax.nn.one_hot(memory % 2, 2), memory

    def observe(hparams, state, rollout):
        steps = rollout.steps
        return state._replace(observed=state.observed + steps.reward.size, memory=state.memory + jnp.sum(steps.action))

    def learn(hparams, state, rollout, draws, clock):
        learned = observe(hparams, state, rollout)._replace(
            learned=state.learned + 1, epsilon=clock.epsilon(), words=state.words + jnp.sum(draws % 2)
        )
        return learned, UpdateStats(jnp.float32(1), jnp.float32(2), jnp.float32(3))

    toy = Algorithm(
        init=lambda hparams, key: Counted(*(jnp.int32(0),) * 3, jnp.float32(0), jnp.uint32(0), jnp.int32(0)),
        policy=lambda state: {"nothing": state.learned},
        act=act,
        values=values,
        observe=observe,
        learn=learn,
        sync=lambda hparams, state: state._replace(synced=state.synced + 1),
        draws=LearnDraws(shapes=((2, 3),), read=lambda words: words),
        memory=lambda num_envs: jnp.full(num_envs, 100, jnp.int32),
    )
    return toy._replace(**changed)


def train(algorithm, env):
    program = build_program(env, algorithm, PLAN, CLOCK)

    def run(key):
        state, rows = program.segment(HPARAMS, program.init(HPARAMS, key), PLAN.epochs)
        return state, rows, program.finish(HPARAMS, state)

    return jit_quickly(run)(jax.random.key(0))


@pytest.fixture(scope="module")
def trained():
    return train(counting(), from_gymnax(CYCLE))


def test_the_loop_calls_an_algorithm_as_often_as_the_plan_says(trained):
    state, rows, _ = trained
    counted, updates = state.algorithm, PLAN.epochs * PLAN.periods * PLAN.iterations
    assert int(counted.observed) == E * (PLAN.warmup + updates * T) == int(state.actors.env_step)
    assert int(counted.learned) == updates
    assert int(counted.synced) == PLAN.epochs * PLAN.periods
    assert 0 < int(counted.words) < updates * 6  # of 6 random bits in each call some are set, some are not
    np.testing.assert_array_equal(rows.loss, [1, 1])
    np.testing.assert_array_equal(rows.grad_norm, [3, 3])


def test_the_clock_reads_the_steps_of_all_environments(trained):
    state, rows, _ = trained
    half = HPARAMS.exploration_fraction * HPARAMS.schedule_horizon
    expected = 1 - 0.95 * np.minimum((np.array(rows.env_step) - 15) / half, 1)
    np.testing.assert_allclose(rows.epsilon, expected, rtol=1e-6)
    np.testing.assert_allclose(state.algorithm.epsilon, rows.epsilon[-1])


def test_actors_remember_their_episode_and_are_told_of_its_start(trained):
    """After the random warm-up, in which nobody remembers, the n-th step of an episode is action n modulo 2."""
    state, _, returns = trained
    steps = PLAN.epochs * PLAN.periods * PLAN.iterations * T  # episodes of 5 steps, the first of which is the warm-up
    np.testing.assert_array_equal(state.actors.memory, [steps % 5] * E)
    # An evaluation episode starts anew: actions 1, 0, 1, 0, 1 in states 0, 1, 2, 0, 1 pay 0, 0, 2, 1, 5.
    np.testing.assert_array_equal(returns, [8, 8, 8])


def test_an_algorithm_without_a_memory_carries_none():
    plain = counting(
        act=lambda hparams, policy, view, draws, clock: (random_action(draws.choice, view.legal, 2), view.memory),
        values=lambda hparams, policy, view: (jnp.zeros((view.obs.shape[0], 2)), view.memory),
        memory=lambda num_envs: (),
    )
    state, _, returns = train(plain, from_gymnax(CYCLE))
    assert state.actors.memory == state.actors.start == ()
    np.testing.assert_array_equal(returns, [6, 6, 6])  # action 0 all along


def only(actions, env):
    """``env`` in which only these actions are legal."""
    legal = jnp.zeros(env.num_actions, bool).at[jnp.array(actions)].set(True)
    return env._replace(legal=lambda params, state: jnp.broadcast_to(legal, (jax.tree.leaves(state)[0].shape[0], 2)))


def test_acting_at_random_and_evaluating_keep_to_legal_actions():
    """Action 1 is the greedy one, and illegal."""
    plain = counting(
        act=lambda hparams, policy, view, draws, clock: (random_action(draws.choice, view.legal, 2), view.memory),
        values=lambda hparams, policy, view: (jnp.ones((view.obs.shape[0], 1)) * jnp.array([0.0, 1.0]), view.memory),
        memory=lambda num_envs: (),
    )
    state, _, returns = train(plain, only([0], from_gymnax(CYCLE)))
    assert int(state.algorithm.memory) == 0  # no action but 0 was ever taken, the warm-up included
    np.testing.assert_array_equal(returns, [6, 6, 6])
    state, _, returns = train(plain, from_gymnax(CYCLE))
    assert int(state.algorithm.memory) > 0
    np.testing.assert_array_equal(returns, [12, 12, 12])


def test_random_legal_actions_are_uniform():
    legal = jnp.array([[True, False, True, True], [False, False, False, True]])
    bits = jax.random.bits(jax.random.key(0), (6000, 2), jnp.uint32)
    actions = np.asarray(jax.vmap(lambda bits: random_action(bits, legal, 4))(bits))
    shares = np.bincount(actions[:, 0], minlength=4) / len(actions)
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.03)
    np.testing.assert_array_equal(actions[:, 1], 3)
    plain = np.asarray(random_action(bits[:, 0], (), 4))
    np.testing.assert_array_equal(plain, np.asarray(bits[:, 0]) % 4)


def test_greedy_actions_are_legal_even_where_all_values_are_low():
    q_values = jnp.array([[-1e30, 5.0], [1.0, 0.0]])
    legal = jnp.array([[True, False], [True, True]])
    np.testing.assert_array_equal(greedy(q_values, legal), [0, 0])
    np.testing.assert_array_equal(greedy(q_values, ()), [1, 0])


WRONG = {
    "algorithm.act: the actions": {"act": lambda h, p, view, d, c: (jnp.zeros((E, 1), jnp.int32), view.memory)},
    "algorithm.act: the memory": {"act": lambda h, p, view, d, c: (jnp.zeros(E, jnp.int32), view.memory[:1])},
    "algorithm.values: the Q-values": {"values": lambda h, p, view: (jnp.zeros((view.obs.shape[0], 3)), view.memory)},
    "algorithm.values: .*Q-values": {
        "values": lambda h, p, view: (jnp.zeros((view.obs.shape[0], 2), jnp.int32), view.memory)
    },
    "algorithm.observe: the state": {"observe": lambda h, state, steps: state._replace(observed=jnp.float32(0))},
    "algorithm.learn: loss": {
        "learn": lambda h, state, s, d, c: (state, UpdateStats(jnp.zeros(2), jnp.zeros(()), jnp.zeros(())))
    },
    "algorithm.sync: the state": {"sync": lambda h, state: state._replace(synced=None)},
}


@pytest.mark.parametrize("part", WRONG)
def test_what_an_algorithm_hands_over_is_checked_when_it_is_traced(part):
    with pytest.raises(AssertionError, match=part):
        train(counting(**WRONG[part]), from_gymnax(CYCLE))


def _stepping(env, **changed):
    def step(*arguments):
        obs, state, happened = env.step(*arguments)
        return obs, state, happened._replace(**{name: change(happened) for name, change in changed.items()})

    return env._replace(step=step)


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("reward of step", {"reward": lambda step: step.reward[:, None]}),
        ("terminated of step", {"terminated": lambda step: step.terminated.astype(jnp.int32)}),
        ("next_obs of step", {"next_obs": lambda step: step.next_obs.astype(jnp.int8)}),
    ],
)
def test_what_a_step_of_an_environment_hands_over_is_checked_when_it_is_traced(part, changed):
    with pytest.raises(AssertionError, match=f"environment TableMDP: {part}"):
        train(counting(), _stepping(from_gymnax(CYCLE), **changed))


@pytest.mark.parametrize("part", ["reset", "advance", "legal"])
def test_what_else_an_environment_hands_over_is_checked_when_it_is_traced(part):
    env = from_gymnax(CYCLE)

    def advance(*arguments):
        obs, state, happened = env.advance(*arguments)
        return obs, state, happened._replace(reward=happened.reward[:, None])

    wrong = {
        "reset": lambda params, keys: (env.reset(params, keys)[0][:, None], env.reset(params, keys)[1]),
        "advance": advance,
        "legal": lambda params, state: jnp.ones((len(jax.tree.leaves(state)[0]), 1), bool),
    }[part]
    with pytest.raises(AssertionError, match=f"environment TableMDP: .*{part}"):
        train(counting(), env._replace(**{part: wrong}))


def test_a_run_is_traced_once():
    """However many epochs, periods and iterations: init, segment and finish are traced once each."""
    chex.clear_trace_counter()
    program = build_program(from_gymnax(CYCLE), counting(), PLAN, CLOCK)
    init = jax.jit(chex.assert_max_traces(program.init, n=1))
    segment = jax.jit(chex.assert_max_traces(lambda hparams, state: program.segment(hparams, state, 1), n=1))
    state = init(HPARAMS, jax.random.key(0))
    init(HPARAMS._replace(gamma=np.float32(0.5)), jax.random.key(1))
    for _ in range(PLAN.epochs):
        state, _ = segment(HPARAMS, state)
    finish = jax.jit(chex.assert_max_traces(program.finish, n=1))
    for gamma in (0.5, 0.9):
        finish(HPARAMS._replace(gamma=np.float32(gamma)), state)
