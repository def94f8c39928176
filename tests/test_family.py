"""The family: every combination builds, and many of them learn."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn import load_config
from purejaxdqn.config.building import Own, make_algorithm, make_parts, make_program
from purejaxdqn.core.algorithm import ActorView
from purejaxdqn.core.draws import draw
from purejaxdqn.dqn import observations
from purejaxdqn.dqn.learner import make_learner
from purejaxdqn.dqn.observations import no_statistics, normalize
from purejaxdqn.dqn.types import Batch, Transition
from purejaxdqn.environments.registry import from_gymnax
from tests.conftest import TINY, jit_quickly, mostly_slow
from tests.probes import Table, TableMDP

DISTRIBUTIONS = {
    "scalar": "distribution.kind=scalar",
    "categorical": "distribution={kind: categorical, atoms: 21, v_min: 0, v_max: 10}",
    "quantile": "distribution={kind: quantile, atoms: 11}",
    "iqn": "distribution={kind: iqn, atoms: 8}",
    "fqf": "distribution={kind: fqf, atoms: 8}",
}
BOOTSTRAPS = ("greedy", "double", "munchausen")
REPLAYS = ("uniform", "prioritised")
STEPS = (1, 3)
OFF_ON = ("false", "true")


def overrides(choice):
    distribution, bootstrap, replay, n_step, dueling, noisy = choice
    return [
        DISTRIBUTIONS[distribution],
        f"bootstrap.kind={bootstrap}",
        f"replay.kind={replay}",
        f"n_step={n_step}",
        f"network.dueling={dueling}",
        f"network.noisy={noisy}",
    ]


MDP = TableMDP([[1, 0], [0, 1]], [[0, 1], [1, 0]], [False, False], time_limit=6)


CHOICES = list(itertools.product(REPLAYS, STEPS, OFF_ON, OFF_ON))


def choices_of(distribution, bootstrap):
    """Half of the sixteen: any three of the four axes take all their values. Neighbours have the other half."""
    parity = (list(DISTRIBUTIONS).index(distribution) + BOOTSTRAPS.index(bootstrap)) % 2
    ons = [sum(one in ("prioritised", 3, "true") for one in choice) for choice in CHOICES]
    return [choice for choice, on in zip(CHOICES, ons, strict=True) if on % 2 == parity]


def test_half_of_the_choices_are_every_choice_of_any_three_axes():
    for distribution, bootstrap in itertools.product(DISTRIBUTIONS, BOOTSTRAPS):
        half = choices_of(distribution, bootstrap)
        for three in itertools.combinations(range(4), 3):
            assert len({tuple(choice[axis] for axis in three) for choice in half}) == len(half) == 8


PAIRS = list(itertools.product(DISTRIBUTIONS, BOOTSTRAPS))
FAST_PAIRS = [
    (name, BOOTSTRAPS[n % len(BOOTSTRAPS)]) for n, name in enumerate(DISTRIBUTIONS) if name in ("scalar", "categorical")
]
"""The distributions that compile fastest, one after another with the next bootstrap."""


@pytest.mark.parametrize(
    ("pair", "all_choices"),
    [(pair, False) for pair in FAST_PAIRS] + [pytest.param(pair, True, marks=pytest.mark.slow) for pair in PAIRS],
    ids=lambda one: "-".join(one) if isinstance(one, tuple) else "all" if one else "half",
)
def test_every_combination_builds_and_has_its_shapes(pair, all_choices):
    """Half of the choices for some pairs by default, all for all of them where tests may be slow (two minutes)."""
    distribution, bootstrap = pair
    for choice in CHOICES if all_choices else choices_of(distribution, bootstrap):
        config = load_config("cartpole_cleanrl", [*TINY, *overrides((distribution, bootstrap, *choice))])
        program = make_program(config, Own(env=from_gymnax(MDP)))
        state = jax.eval_shape(program.init, config.hparams(), jax.random.key(0))
        after, rows = jax.eval_shape(lambda s, p=program, c=config: p.segment(c.hparams(), s, 13), state)
        jax.tree.map(lambda one, other: (one.shape, one.dtype) == (other.shape, other.dtype) or 1 / 0, state, after)
        assert rows.eval_returns.shape == (13, 3)
        assert {leaf.dtype for leaf in jax.tree.leaves(after.algorithm.learner)} <= {
            jnp.dtype("float32"),
            jnp.dtype("int32"),
        }
        assert ("noisy" in str(after.algorithm.learner.online).lower()) == (choice[3] == "true")


SHORT = [
    "total_timesteps=12_800",
    "env.num_envs=8",
    "network.hidden=[32,32]",
    "optimizer={learning_rate: 2e-3, eps: 1e-5, anneal: true}",
    "reward.scale=0.1",
    "replay={size: 12_800, batch_size: 32}",
    "exploration={end: 0.05, fraction: 0.4}",
    "schedule={warmup: 512, train_every: 16, gradient_steps: 8, target_every: 256}",
    "evaluation={episodes: 10, final_episodes: 20}",
]
LEARNING = [
    # distribution, bootstrap, replay, n, dueling, noisy
    ("scalar", "greedy", "uniform", 1, "false", "false"),
    ("scalar", "double", "prioritised", 3, "true", "false"),
    ("scalar", "double", "uniform", 1, "false", "true"),
    ("scalar", "munchausen", "uniform", 1, "false", "false"),
    ("scalar", "munchausen", "prioritised", 3, "true", "true"),
    ("categorical", "greedy", "uniform", 1, "false", "false"),
    ("categorical", "double", "prioritised", 3, "true", "true"),
    ("categorical", "munchausen", "uniform", 1, "false", "false"),
    ("categorical", "double", "uniform", 3, "false", "false"),
    ("quantile", "greedy", "uniform", 1, "false", "false"),
    ("quantile", "double", "prioritised", 1, "false", "false"),
    ("quantile", "munchausen", "uniform", 3, "true", "false"),
    ("quantile", "double", "uniform", 1, "true", "true"),
    ("iqn", "greedy", "uniform", 1, "false", "false"),
    ("iqn", "double", "prioritised", 3, "true", "false"),
    ("iqn", "munchausen", "uniform", 1, "false", "false"),
    ("iqn", "double", "uniform", 3, "false", "true"),
    ("fqf", "greedy", "uniform", 1, "false", "false"),
    ("fqf", "double", "prioritised", 3, "true", "false"),
    ("fqf", "munchausen", "uniform", 1, "false", "false"),
    ("fqf", "greedy", "uniform", 3, "true", "true"),
]
MARGIN = 70.0
"""Steps of CartPole by which the greedy return grows; the untrained networks here stay up for 9 to 48."""


@pytest.mark.slow
@pytest.mark.parametrize("choice", LEARNING, ids=lambda choice: "-".join(map(str, choice)))
def test_a_short_run_ends_better_than_it_began(choice):
    config = load_config("cartpole_cleanrl", [*SHORT, *overrides(choice)])
    program = make_program(config)

    def run(hparams, key):
        start = program.init(hparams, key)
        return start, program.segment(hparams, start, program.plan.epochs)[0]

    ends = jit_quickly(run)(config.hparams(), jax.random.key(1))
    finish = jit_quickly(program.finish)  # compiled once for both
    first, last = (finish(config.hparams(), state) for state in ends)
    assert np.mean(last) > np.mean(first) + MARGIN


def jitted(learning):
    return learning._replace(**{name: jit_quickly(getattr(learning, name)) for name in ("init", "q_values", "update")})


def test_noise_is_fresh_for_each_action_and_each_update_and_absent_in_evaluation():
    config = load_config("cartpole_cleanrl", [*TINY, "network.noisy=true"])
    learning = jitted(make_learner(make_parts(config, from_gymnax(MDP))))
    learner = learning.init(config.hparams(), jax.random.key(0))
    same = jnp.tile(jnp.array([[1.0, 0.0]]), (4, 1))

    def q_values(*key):
        return np.asarray(learning.q_values(config.hparams(), learning.policy(learner), same, *key)[0])

    one, other = q_values(jax.random.key(1)), q_values(jax.random.key(2))
    assert len(np.unique(one[:, 0])) == 4  # each environment has its own
    assert not np.any(one == other)  # and each step
    np.testing.assert_array_equal(one, q_values(jax.random.key(1)))
    assert len(np.unique(q_values(), axis=0)) == 1  # evaluation has none
    batch = Batch(Transition(same, jnp.zeros(4, int), jnp.ones(4), jnp.full(4, 0.9), same), jnp.ones(4), jnp.arange(4))
    rate = config.hparams().optimizer_learning_rate
    updated = [learning.update(config.hparams(), learner, batch, jax.random.key(k), rate)[2].loss for k in (1, 1, 2)]
    assert updated[0] == updated[1] != updated[2]


@pytest.mark.slow
def test_the_loop_gives_every_action_and_every_update_a_noise_of_its_own():
    """No key is drawn twice, and the loop uses none twice."""
    config = load_config("cartpole_cleanrl", [*TINY, "network.noisy=true"])
    wanted = make_algorithm(config, from_gymnax(MDP)).draws
    steps, learning = draw(jax.random.key(0), 6, rollout=3, num_envs=4, learning=wanted)
    keys = [jax.random.key_data(keys).reshape(-1, 2) for keys in (steps.act.key, learning.key, steps.env_keys)]
    assert [len(part) for part in keys] == [18, 12, 72]
    assert len(np.unique(np.concatenate(keys), axis=0)) == 102
    with jax.debug_key_reuse(True):
        jax.jit(make_program(config, Own(env=from_gymnax(MDP))).train)(config.hparams(), jax.random.key(0))


@pytest.mark.slow
def test_evaluation_has_no_noise_in_the_program_either():
    """With huge noise, episodes of a game without chance differ only if noise is on: action 1 pays, 0 does not."""
    config = load_config("cartpole_cleanrl", [*TINY, "network={noisy: true, sigma: 50}"])
    mdp = TableMDP([[0, 0]], [[0, 1]], [False], time_limit=20)
    program = make_program(config, Own(env=from_gymnax(mdp)))
    state = jax.jit(program.init)(config.hparams(), jax.random.key(0))
    returns = np.asarray(jax.jit(program.finish)(config.hparams(), state))
    assert returns[0] in (0, 20)
    assert np.all(returns == returns[0])
    rows = jax.jit(lambda hparams, state: program.segment(hparams, state, 2)[1])(config.hparams(), state)
    assert set(np.ravel(rows.eval_returns)) <= {0.0, 20.0}
    # The training episodes have it on: they do both.
    assert 0 < np.nanmean(rows.episode_return) < 20


@pytest.mark.parametrize(("precision", "wanted"), [("highest", "HIGHEST"), ("high", "HIGH"), ("default", "DEFAULT")])
def test_every_matrix_product_has_the_precision_that_was_set(precision, wanted):
    config = load_config("cartpole_cleanrl", [*TINY, f"precision={precision}", DISTRIBUTIONS["iqn"]])
    program = make_program(config, Own(env=from_gymnax(MDP)))
    text = jax.jit(program.train).lower(config.hparams(), jax.random.key(0)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) > 10
    assert all(f"precision = [{wanted}, {wanted}]" in line for line in products)


def test_fractions_are_drawn_anew_for_each_item_and_each_update():
    config = load_config("cartpole_cleanrl", [*TINY, DISTRIBUTIONS["iqn"]])
    seen, parts = [], make_parts(config, from_gymnax(MDP))

    def apply(params, obs, noise, fractions, *recall):
        if fractions is not None:
            jax.debug.callback(lambda fractions: seen.append(np.asarray(fractions)), fractions)
        return parts.network.apply(params, obs, noise, fractions, *recall)

    learning = jitted(make_learner(parts._replace(network=parts.network._replace(apply=apply))))
    learner, rate = learning.init(config.hparams(), jax.random.key(0)), config.hparams().optimizer_learning_rate
    same = jnp.tile(jnp.array([[1.0, 0.0]]), (4, 1))
    batch = Batch(Transition(same, jnp.zeros(4, int), jnp.ones(4), jnp.full(4, 0.9), same), jnp.ones(4), jnp.arange(4))
    drawn = []
    for k in (1, 2):
        seen.clear()
        jax.block_until_ready(learning.update(config.hparams(), learner, batch, jax.random.key(k), rate))
        jax.effects_barrier()
        drawn += [one for one in seen if one.shape == (4, 8)]
    everything = np.concatenate([np.ravel(one) for one in drawn])
    assert len(everything) == 2 * 2 * 4 * 8  # online and target, two updates
    assert len(np.unique(everything)) == len(everything)
    assert 0 <= everything.min() < 0.1
    assert 0.9 < everything.max() < 1


@pytest.mark.slow
@pytest.mark.parametrize("max_grad_norm", mostly_slow(["null", "1e-3"], fast=["1e-3"]))
def test_what_proposes_fractions_learns_apart_from_the_rest(max_grad_norm):
    """Without momentum an update is the gradient: the proposal's is slowed down, not clipped, and not in the norm."""

    def moves(rate, limit):
        numbers = [f"distribution.fraction_rate={rate}", f"optimizer.max_grad_norm={limit}"]
        sgd = ["optimizer.name=sgd", "optimizer.learning_rate=1", DISTRIBUTIONS["fqf"], *numbers]
        config = load_config("cartpole_cleanrl", [*TINY, *sgd])
        hparams = config.hparams()
        new, _, stats = update(hparams, learner, batch, jax.random.key(1), hparams.optimizer_learning_rate)
        moved = jax.tree.map(lambda new, old: np.asarray(new - old, np.float64), new.online, learner.online)["params"]
        proposal = moved.pop("fractions")
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moved)]), proposal["weight"], stats.grad_norm

    config = load_config("cartpole_cleanrl", [*TINY, "optimizer.name=sgd", DISTRIBUTIONS["fqf"]])
    learning = make_learner(make_parts(config, from_gymnax(MDP)))
    update, learner = jax.jit(learning.update), learning.init(config.hparams(), jax.random.key(0))
    obs = jax.random.normal(jax.random.key(5), (4, 2))
    batch = Batch(Transition(obs, jnp.zeros(4, int), jnp.ones(4), jnp.full(4, 0.9), obs), jnp.ones(4), jnp.arange(4))
    rest, proposal, norm = moves(0.5, "null")
    np.testing.assert_allclose(norm, np.linalg.norm(rest), rtol=1e-3)
    assert np.abs(proposal).max() > 1e-5
    limited, slower, same = moves(0.25, max_grad_norm)
    assert same == norm
    np.testing.assert_allclose(limited, rest * min(1, float(max_grad_norm.replace("null", "inf")) / norm), atol=1e-6)
    np.testing.assert_allclose(slower, proposal / 2, atol=1e-6)


def test_statistics_of_observations_are_those_of_all_that_was_seen():
    generator = np.random.default_rng(0)
    parts = [generator.normal(3, 5, size=(n, 2)).astype(np.float32) for n in (4, 1, 30)]
    statistics = no_statistics((2,))
    np.testing.assert_allclose(normalize(statistics, jnp.array([[2.0, -7.0]])), [[2.0, -7.0]], rtol=1e-6)
    for part in parts:
        statistics = observations.update(statistics, jnp.asarray(part))
    whole = np.concatenate(parts)
    np.testing.assert_allclose(statistics.mean, whole.mean(0), rtol=1e-4)
    np.testing.assert_allclose(statistics.variance, whole.var(0), rtol=1e-4)
    scaled = normalize(statistics, jnp.asarray(whole))
    np.testing.assert_allclose(np.std(scaled, 0), 1, rtol=1e-3)
    assert np.abs(normalize(statistics, jnp.full((1, 2), 1e9))).max() == 10


@pytest.mark.slow
def test_normalised_observations_are_learned_from_and_acted_on():
    """The run's statistics are those of its own steps, warm-up included, and travel with the policy."""
    config = load_config("cartpole_cleanrl", [*TINY, "env.normalize=true"])
    program = make_program(config)

    def run(hparams, key):
        state, _ = program.segment(hparams, program.init(hparams, key), 5)
        return state

    state = jax.jit(run)(config.hparams(), jax.random.key(0))
    steps = int(state.actors.env_step)
    assert steps == 80 + 5 * 40
    held = np.asarray(state.algorithm.replay.experience.obs[0, :steps])
    learner = state.algorithm.learner
    statistics = learner.observations
    assert int(statistics.seen) == steps
    np.testing.assert_allclose(statistics.mean, held.mean(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(statistics.variance, held.var(0), rtol=1e-3)
    policy = program.algorithm.policy(state.algorithm)
    scaled = (held - held.mean(0)) / held.std(0)
    plain = make_program(load_config("cartpole_cleanrl", TINY)).algorithm
    np.testing.assert_allclose(
        program.algorithm.values(config.hparams(), policy, ActorView(held))[0],
        plain.values(config.hparams(), learner.online, ActorView(scaled.astype(np.float32)))[0],
        rtol=1e-2,
        atol=1e-3,
    )


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("distribution.kind=quantile", "the head needs a network that returns (1, 2, 51), not (1, 2)"),
        ("distribution.kind=iqn", "a distribution with fractions (iqn, fqf) needs the config's own network"),
    ],
)
def test_a_network_that_does_not_fit_the_distribution_is_refused(choice, message):
    config = load_config("cartpole_cleanrl", [*TINY, choice])
    with pytest.raises(ValueError, match=re.escape(message)):
        make_program(config, Own(env=from_gymnax(MDP), network=Table(np.zeros((2, 2)))))
