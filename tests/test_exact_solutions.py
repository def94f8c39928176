"""Tiny MDPs solved exactly, and each classic fault of a DQN told apart from the right program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn import load_config
from purejaxdqn.config.building import Own, make_program
from purejaxdqn.core import loop
from purejaxdqn.core.algorithm import ActorView
from purejaxdqn.core.plan import most_epochs
from purejaxdqn.dqn import algorithm, rings
from purejaxdqn.environments.registry import from_gymnax
from tests.conftest import jit_quickly, mostly_slow
from tests.probes import DISCOUNTING, EVERYTHING, TERMINAL, TIME_LIMIT, CoinMDP, KeyProbe, Table

GAMMA = 0.5
MDPS = {"discounting": DISCOUNTING, "terminal": TERMINAL, "everything, and a time limit": EVERYTHING}


def fitted(mdp, periods, *, network=None, overrides=()):
    """The program and its parameters after ``periods`` target periods of random behaviour."""
    config = load_config(
        "cartpole_cleanrl",
        [
            f"total_timesteps={400 + 240 * periods}",
            "env.num_envs=4",
            f"gamma={GAMMA}",
            "optimizer={name: sgd, learning_rate: 1.0}",
            "exploration={start: 1, end: 1}",
            "replay={size: 400, batch_size: 64}",
            "schedule={warmup: 400, train_every: 4, target_every: 240}",
            f"evaluation={{every: {240 * periods // most_epochs(periods)}, episodes: 1, final_episodes: 1}}",
            # Evaluation must end although some of these MDPs do not.
            "env.params.max_steps_in_episode=50",
            *overrides,
        ],
    )
    env = from_gymnax(mdp)
    params = env.default_params.replace(max_steps_in_episode=min(50, mdp.time_limit))
    env = env._replace(with_params=lambda overrides: params)
    program = make_program(config, Own(env=env, network=network))
    return config, program, jit_quickly(program.train)(config.hparams(), jax.random.key(3)).params


def fitted_q(mdp, periods, *, start=0.0, overrides=()):
    """Q [S, A] of a table, each period being long enough to fit its target exactly."""
    return np.asarray(
        fitted(mdp, periods, network=Table(np.full(mdp.reward.shape, start)), overrides=overrides)[2]["q"]
    )


def error(mdp, periods, wanted, **kwargs):
    """Largest error over the pairs of states and actions that are ever tried."""
    alive = ~mdp.terminal
    return np.abs(fitted_q(mdp, periods, **kwargs) - wanted)[alive].max()


@pytest.mark.parametrize("kind", mostly_slow(["greedy", "double"], fast=["greedy"]))
@pytest.mark.parametrize("name", MDPS)
def test_q_values_reach_the_exact_solution(name, kind):
    mdp = MDPS[name]
    assert error(mdp, 25, mdp.exact_q(GAMMA), overrides=[f"bootstrap.kind={kind}"]) < 1e-4


@pytest.mark.parametrize("periods", mostly_slow([1, 2, 3], fast=[2]))
def test_each_target_period_is_one_step_of_value_iteration(periods):
    wanted = DISCOUNTING.exact_q(GAMMA, periods, start=np.full((3, 2), 3.0))
    assert error(DISCOUNTING, periods, wanted, start=3.0) < 1e-3


def _patch_fold(monkeypatch, wrong):
    right = rings.fold
    monkeypatch.setattr(rings, "fold", lambda steps, **numbers: right(wrong(steps), **numbers))


def _through_termination(monkeypatch):
    _patch_fold(monkeypatch, lambda steps: steps._replace(terminated=jnp.zeros_like(steps.terminated)))


def _not_through_truncation(monkeypatch):
    _patch_fold(monkeypatch, lambda steps: steps._replace(terminated=steps.terminated | steps.truncated))


def _reset_obs_as_next_obs(monkeypatch):
    right = loop.rollout

    def wrong(env, *args):
        def step(*args):
            obs, state, happened = env.step(*args)
            return obs, state, happened._replace(next_obs=obs)

        return right(env._replace(step=step), *args)

    monkeypatch.setattr(loop, "rollout", wrong)


def _patch_learner(monkeypatch, **wrong):
    right = algorithm.make_learner

    def make_learner(*args):
        learning = right(*args)
        return learning._replace(**{name: make(learning) for name, make in wrong.items()})

    monkeypatch.setattr(algorithm, "make_learner", make_learner)


def _online_network_for_targets(monkeypatch):
    _patch_learner(
        monkeypatch,
        update=lambda learning: (
            lambda hparams, learner, *args: learning.update(hparams, learner._replace(target=learner.online), *args)
        ),
    )


def _never_syncing(monkeypatch):
    _patch_learner(monkeypatch, sync=lambda learning: lambda hparams, learner: learner)


def _the_other_action(monkeypatch):
    def other(batch):
        return batch._replace(transition=batch.transition._replace(action=1 - batch.transition.action))

    _patch_learner(
        monkeypatch,
        update=lambda learning: (
            lambda hparams, learner, batch, *args: learning.update(hparams, learner, other(batch), *args)
        ),
    )


@pytest.mark.parametrize(
    ("fault", "mdp", "periods"),
    [
        (_through_termination, TERMINAL, 25),
        (_not_through_truncation, EVERYTHING, 25),
        pytest.param(_reset_obs_as_next_obs, EVERYTHING, 25, marks=pytest.mark.slow),
        pytest.param(_online_network_for_targets, DISCOUNTING, 1, marks=pytest.mark.slow),
        pytest.param(_never_syncing, DISCOUNTING, 2, marks=pytest.mark.slow),
        pytest.param(_the_other_action, DISCOUNTING, 25, marks=pytest.mark.slow),
    ],
)
def test_each_classic_fault_is_told_apart(monkeypatch, fault, mdp, periods):
    wanted = mdp.exact_q(GAMMA, periods, start=np.full(mdp.reward.shape, 3.0))
    assert error(mdp, periods, wanted, start=3.0) < 1e-3
    fault(monkeypatch)
    assert error(mdp, periods, wanted, start=3.0) > 0.1


ADAM = "optimizer={name: adam, learning_rate: 0.05, anneal: true}"
OWN = "optimizer={name: adam, learning_rate: 3e-3, anneal: true}"
SUPPORT = "distribution={kind: categorical, atoms: 13, v_min: -1, v_max: 2}"
COIN = [
    "replay.size=4000",
    "schedule={warmup: 4000, gradient_steps: 2}",
    f"total_timesteps={4000 + 240 * 25}",
    "env.params={}",
]


def tabled(mdp, *overrides, atoms=None):
    """The Q-values [S, A] that a table of [S, A, atoms] comes to, or without atoms the config's own small network."""
    network = Table(np.zeros((*mdp.reward.shape, atoms))) if atoms else None
    config, program, params = fitted(mdp, 25, network=network, overrides=["network.hidden=[32]", *overrides])
    states = jnp.eye(len(mdp.terminal))
    return np.asarray(program.algorithm.values(config.hparams(), params, ActorView(states))[0]), params


@pytest.mark.parametrize(
    ("overrides", "atoms", "tolerance"),
    [
        ([ADAM, SUPPORT], 13, 0.03),
        pytest.param([ADAM, "distribution={kind: quantile, atoms: 9}"], 9, 0.06, marks=pytest.mark.slow),
        pytest.param([OWN, "distribution={kind: iqn, atoms: 16}"], None, 0.08, marks=pytest.mark.slow),
        pytest.param([OWN, "distribution={kind: fqf, atoms: 16}"], None, 0.08, marks=pytest.mark.slow),
    ],
)
def test_each_distribution_reaches_the_mean_of_the_exact_one(overrides, atoms, tolerance):
    q, params = tabled(CoinMDP(), *COIN, *overrides, atoms=atoms)
    wanted = [[GAMMA * (2 - 1) / 2, 0.25], [2, 2], [-1, -1]]
    np.testing.assert_allclose(q[:3], wanted, atol=tolerance)
    if SUPPORT in overrides:  # and its probabilities: of returns 2 gamma and -gamma on atoms a quarter apart
        exact = np.zeros(13)
        exact[[8, 2]] = 0.5
        np.testing.assert_allclose(jax.nn.softmax(params["q"][0, 0]), exact, atol=0.05)


@pytest.mark.parametrize(
    ("overrides", "atoms"),
    [
        ([ADAM, "distribution={kind: categorical, atoms: 13, v_min: -1, v_max: 5}"], 13),
        pytest.param(
            [ADAM, "distribution={kind: hl_gauss, atoms: 24, v_min: -2, v_max: 4}"], 24, marks=pytest.mark.slow
        ),
        pytest.param([ADAM, "distribution={kind: quantile, atoms: 9}"], 9, marks=pytest.mark.slow),
        pytest.param([OWN, "distribution={kind: iqn, atoms: 8}"], None, marks=pytest.mark.slow),
        pytest.param([OWN, "distribution={kind: fqf, atoms: 8}"], None, marks=pytest.mark.slow),
        pytest.param([OWN, "network={dueling: true, noisy: true}"], None, marks=pytest.mark.slow),
    ],
)
def test_every_head_and_network_reaches_the_exact_solution(overrides, atoms):
    """With a termination, a time limit, and actions that matter."""
    alive = ~EVERYTHING.terminal
    q, _ = tabled(EVERYTHING, *overrides, atoms=atoms)
    np.testing.assert_allclose(q[alive], EVERYTHING.exact_q(GAMMA)[alive], atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["bootstrap={kind: munchausen, temperature: 1e-3}"],
        ["n_step=3"],
        ["replay.kind=prioritised", "n_step=2"],
    ],
)
def test_a_time_limit_is_no_termination_under_every_choice(overrides):
    """Q(2, .) is 2 by what comes after the limit; a limit taken for an end makes it 1. No action matters."""
    q, _ = tabled(TIME_LIMIT, OWN, *overrides)
    np.testing.assert_allclose(q, TIME_LIMIT.exact_q(GAMMA), atol=0.1)


def _keys_seen():
    """Last observations in the buffer (each shows a step's key), and the actions, in the order of iterations."""
    config = load_config(
        "cartpole_cleanrl",
        [
            "total_timesteps=1600",
            "env.num_envs=4",
            "exploration={start: 1, end: 1}",
            "replay={size: 1600, batch_size: 8}",
            "network.hidden=[4]",
            "schedule={warmup: 160, train_every: 16, target_every: 80}",
            "evaluation={every: 720, episodes: 1, final_episodes: 1}",
        ],
    )
    program = make_program(config, Own(env=from_gymnax(KeyProbe())))

    def run(hparams, key):
        return program.segment(hparams, program.init(hparams, key), 2)[0].algorithm.replay.experience

    return jit_quickly(run)(config.hparams(), jax.random.key(0))


def _repeats(experience):
    shown = np.asarray(experience.next_obs[0])
    actions = np.asarray(experience.action[0]).reshape(-1, 16)
    return len(shown) - len(np.unique(shown, axis=0)) + len(actions) - len(np.unique(actions, axis=0))


def test_no_key_is_used_twice():
    experience = _keys_seen()
    assert experience.next_obs.shape == (1, 1600, 2)
    assert _repeats(experience) == 0


@pytest.mark.parametrize("reused", mostly_slow(["in every period", "in every iteration"], fast=["in every iteration"]))
def test_a_reused_key_is_told_apart(monkeypatch, reused):
    right = loop.draw

    def in_every_period(key, length, **kwargs):
        return right(jax.random.key(0), length, **kwargs)

    def in_every_iteration(key, length, **kwargs):
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, length, axis=0), right(key, 1, **kwargs))

    monkeypatch.setattr(loop, "draw", in_every_period if reused == "in every period" else in_every_iteration)
    assert _repeats(_keys_seen()) > 100
