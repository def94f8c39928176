"""Ensembles: masks, priors, members against a member alone, whom an environment follows, deviation against counts."""

import csv
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats

from purejaxdqn import ConfigError, load_config
from purejaxdqn.config.building import make_algorithm, make_estimates, make_members, make_parts, make_program
from purejaxdqn.core.algorithm import ActorView
from purejaxdqn.core.config import Config
from purejaxdqn.core.draws import ActDraws
from purejaxdqn.core.keys import run_key
from purejaxdqn.core.schedules import make_clock
from purejaxdqn.core.types import Rollout
from purejaxdqn.dqn.ensemble import batch_learner, disagreement, q_values
from purejaxdqn.dqn.learner import make_learner
from purejaxdqn.dqn.masks import first_rows, masks, step_numbers
from purejaxdqn.dqn.networks import adapt
from purejaxdqn.dqn.priors import add_prior
from purejaxdqn.dqn.replay import example_step
from purejaxdqn.dqn.rings import make_sequence_ring
from purejaxdqn.dqn.types import Batch, Transition
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.export import main as export
from purejaxdqn.policies.exports import acting_of, choose_agent
from purejaxdqn.policies.policies import load_policy
from purejaxdqn.policies.programs import TrainedAgent, to_checked_onnx
from purejaxdqn.runs.metrics import COLUMNS, read_metrics
from purejaxdqn.sweep import main as sweep
from purejaxdqn.train import main as train
from tests.conftest import PQN, TINY, jit_quickly, mostly_slow

K, E, B = 3, 4, 8
SEQUENCES = ["replay.sequence=6", "replay.burn_in=2", "replay.period=2", "replay.size=320"]
ENSEMBLE = [*TINY, f"ensemble={{members: {K}, prior_scale: 2.0, mask: 0.5}}", "exploration={start: 0.0, end: 0.0}"]


@pytest.fixture(scope="module")
def config():
    return load_config("cartpole_cleanrl", ENSEMBLE)


@pytest.fixture(scope="module")
def env(config):
    return make_environment(**config.env.making())


@pytest.fixture(scope="module")
def algorithm(config, env):
    return make_algorithm(config, env)


@pytest.fixture(scope="module")
def members(config, env):
    return make_members(config, make_parts(config, env))


@pytest.fixture(scope="module")
def trained(config):
    """The states of a tiny run before its first period and after the last, and its rows."""
    program, hparams = make_program(config), config.hparams()

    def run(key):
        before = program.init(hparams, key)
        after, rows = program.segment(hparams, before, 8)
        return before, after, rows

    return jit_quickly(run)(run_key(np.uint32(0), np.uint32(0)))


def hparams_with(config, **numbers):
    return config.hparams()._replace(**{name: np.float32(value) for name, value in numbers.items()})


def member_of(tree, k):
    """Member k, or members k; numbers of updates are those of all."""
    return jax.tree.map(lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf[k], tree)


def assert_same_bits(one, other):
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)


# Masks


def masks_of(share, number, *, salt=7, size=5):
    hparams = hparams_with(Config(), ensemble_mask=share)
    return np.asarray(jax.jit(masks, static_argnums=3)(hparams, jnp.uint32(salt), jnp.asarray(number), size))


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_mask_is_1_as_often_as_asked_for_each_member_and_for_each_pair_of_members(share):
    steps = 20_000
    mask = masks_of(share, np.arange(steps))
    assert set(np.unique(mask)) <= {0.0, 1.0}
    for one in mask:
        assert stats.binomtest(int(one.sum()), steps, share).pvalue > 1e-4 or share == 1
    for j in range(5):
        for k in range(j):
            assert stats.binomtest(int((mask[j] * mask[k]).sum()), steps, share**2).pvalue > 1e-4 or share == 1
    together = int((mask[:, 1:] * mask[:, :-1]).sum())  # of a step and the next
    assert stats.binomtest(together, mask[:, 1:].size, share**2).pvalue > 1e-4 or share == 1


def test_a_step_has_the_same_mask_whenever_it_is_sampled_and_in_whatever_batch():
    whole = masks_of(0.5, np.arange(300))
    np.testing.assert_array_equal(masks_of(0.5, [[5, 299], [5, 0]]), whole[:, [[5, 299], [5, 0]]])
    assert (masks_of(0.5, np.arange(300), salt=8) != whole).mean() > 0.4


def test_the_number_of_a_step_is_that_of_a_list_of_all_steps():
    for capacity, blocks in ((12, [4] * 9), (10, [4] * 9), (7, [3, 3, 1, 5, 7, 2])):
        rows, total = [None] * capacity, 0
        for block in blocks:
            for _ in range(block):
                rows[total % capacity] = total
                total += 1
            filled = [row for row, number in enumerate(rows) if number is not None]
            found = step_numbers(jnp.array(filled), jnp.int32(total), capacity)
            np.testing.assert_array_equal(found, [rows[row] for row in filled])


@pytest.mark.slow
def test_a_sequence_has_the_number_of_its_first_step():
    """Of a ring whose observations are the numbers of their steps, partly filled and written over."""
    period, sequence, size = 3, 5, 48
    ring = make_sequence_ring(size=size, n_step=1, num_envs=E, sequence=sequence, burn_in=0, period=period)
    state, hparams = ring.init(Rollout(example_step(jnp.zeros(())), jnp.zeros(1))), Config().hparams()
    add = jax.jit(ring.add)
    for t in range(40):
        obs = jnp.float32(t * E + jnp.arange(E))[None]
        steps = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (1, E)), example_step(jnp.zeros(())))
        state = add(state, Rollout(steps._replace(obs=obs, next_obs=obs), jnp.zeros(E)))
        oldest, count = ring.candidates(state)
        if t not in (10, 17, 25, 39):
            continue
        indices, transition, _ = ring.transitions(hparams, state, oldest + jnp.arange(int(count)))
        rows = first_rows(indices, num_envs=E, period=period)
        numbers = step_numbers(rows, jnp.int32((t + 1) * E), size)
        np.testing.assert_array_equal(transition.obs[0], numbers)
        assert len(numbers) >= 4


def test_rows_of_the_ring_are_the_steps_of_the_run_in_their_order(trained, config):
    """Replay writes to row n modulo its size what ``seen`` counts as step n: the newest is where that says."""
    for state in trained[:2]:
        learner, ring = state.algorithm.learner, state.algorithm.replay
        assert int(learner.seen) == int(state.actors.env_step)
        assert int(ring.current_index) == int(learner.seen) % config.replay.size
    assert bool(trained[1].algorithm.replay.is_full)


# Priors


def test_priors_never_change_and_no_optimiser_knows_them(trained, members):
    before, after = (state.algorithm.learner for state in trained[:2])
    assert_same_bits(before.prior, after.prior)
    for one, other in zip(jax.tree.leaves(before.learner.online), jax.tree.leaves(after.learner.online), strict=True):
        assert (np.asarray(one) != np.asarray(other)).any(axis=tuple(range(1, one.ndim))).all()  # each member learned
    plain = jax.eval_shape(make_learner(members.parts).init, Config().hparams(), jax.random.key(0))
    wanted = jax.tree.map(lambda leaf: (K, *leaf.shape) if leaf.dtype == jnp.float32 else (), plain.opt_state)
    assert jax.tree.map(lambda leaf: leaf.shape, after.learner.opt_state) == wanted


def test_members_start_apart_and_have_priors_apart(trained):
    learner = trained[0].algorithm.learner
    for leaf in jax.tree.leaves((learner.learner.online, learner.prior)):
        if np.asarray(leaf).any():  # biases start at 0
            assert len({np.asarray(one).tobytes() for one in leaf}) == K


@pytest.mark.slow
def test_the_gradient_of_a_network_with_a_prior_is_that_of_the_network_alone(members, env):
    """d/d f of loss(f + scale p) is the gradient of f's output pulled back by f alone."""
    network, obs = members.parts.network, jax.random.normal(jax.random.key(0), (B, 4))
    online, prior = (network.init(jax.random.key(k), obs[:1], 0.5) for k in (1, 2))
    summed = add_prior(network, prior, jnp.float32(3))
    out, pull_back = jax.vjp(lambda params: network.apply(params, obs, None, None)[0], online)
    both = summed.apply(online, obs, None, None)[0]
    np.testing.assert_allclose(both, out + 3 * network.apply(prior, obs, None, None)[0], rtol=1e-5)
    (wanted,) = pull_back(2 * both)
    found = jax.grad(lambda params: jnp.sum(jnp.square(summed.apply(params, obs, None, None)[0])))(online)
    chex_close(found, wanted)


def chex_close(one, other, **tolerance):
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(x, y, **{"rtol": 1e-5, "atol": 1e-6} | tolerance)


# Members against a member alone


def batches(count, obs_shape=(4,)):
    """Random batches, leaves [count, B, ...]."""
    keys = jax.random.split(jax.random.key(3), 4)
    shape = (count, B)
    obs, next_obs = jax.random.normal(keys[0], (2, *shape, *obs_shape))
    reward, action = jax.random.normal(keys[1], shape), jax.random.randint(keys[2], shape, 0, 2)
    indices = jax.random.randint(keys[3], shape, 0, 300)
    transition = Transition(obs, action, reward, jnp.full(shape, 0.9), next_obs)
    return Batch(transition, jnp.ones(shape), indices)


def learn_from(learner, hparams, state, data):
    """Updates and syncs, one after another -> the last state, TD errors and stats."""

    @jit_quickly
    def run(state, data):
        def body(state, batch):
            state, td_error, seen = learner.update(hparams, state, batch, jax.random.key(0), jnp.float32(1e-2))
            return learner.sync(hparams, state), (td_error, seen)

        return jax.lax.scan(body, state, data)

    return run(state, data)


@pytest.mark.slow
def test_a_member_learns_what_it_would_learn_alone_given_the_same_data(config, members, trained):
    """Alone: among copies of itself, bit for bit; and as a plain learner, whose products XLA sums in another order."""
    hparams, capacity, data = config.hparams(), config.replay.size, batches(12)
    state = trained[0].algorithm.learner
    after, _ = learn_from(batch_learner(members, capacity=capacity), hparams, state, data)
    numbers = step_numbers(data.indices, state.seen, capacity)
    mask = masks(hparams, state.salt, numbers, K)
    two, everything = batch_learner(members._replace(size=2), capacity=capacity), hparams_with(config, ensemble_mask=1)
    for k in range(K):
        own = data._replace(weight=data.weight * mask[k])
        copies = state._replace(
            learner=member_of(state.learner, jnp.array([k, k])),
            prior=member_of(state.prior, jnp.array([k, k])),
        )
        alone, _ = learn_from(two, everything, copies, own)
        assert_same_bits(member_of(alone.learner, 0), member_of(after.learner, k))
        prior = add_prior(members.parts.network, member_of(state.prior, k), hparams.ensemble_prior_scale)
        plain = make_learner(members.parts._replace(network=prior))
        plainly, _ = learn_from(plain, hparams, member_of(state.learner, k), own)
        chex_close(plainly, member_of(after.learner, k), atol=1e-5)


@pytest.mark.slow
def test_the_priority_of_a_step_is_the_mean_error_of_those_who_learn_from_it(config, members, trained):
    hparams, state, data = config.hparams(), trained[0].algorithm.learner, batches(1)
    _, (shared, means) = learn_from(batch_learner(members, capacity=300), hparams, state, data)
    mask = np.asarray(masks(hparams, state.salt, step_numbers(data.indices[0], state.seen, 300), K))
    errors = []
    for k in range(K):
        prior = add_prior(members.parts.network, member_of(state.prior, k), hparams.ensemble_prior_scale)
        plain = make_learner(members.parts._replace(network=prior))
        own = data._replace(weight=data.weight * mask[k])
        errors.append(learn_from(plain, hparams, member_of(state.learner, k), own)[1])
    assert {0, 1} <= set(mask.ravel()) and (mask.sum(0) > 0).any()
    found = np.abs([np.asarray(td_error[0]) for td_error, _ in errors])
    wanted = [(found[:, b][mask[:, b] > 0]).mean() if mask[:, b].any() else 0 for b in range(B)]
    np.testing.assert_allclose(shared[0], wanted, rtol=1e-4, atol=1e-6)
    for name in ("loss", "q_value", "grad_norm"):
        wanted = np.mean([getattr(one, name)[0] for _, one in errors])
        np.testing.assert_allclose(getattr(means, name)[0], wanted, rtol=1e-4)


# Acting


def test_an_environment_follows_a_member_until_its_episode_ends(algorithm, config, members, trained):
    hparams, policy = config.hparams(), algorithm.policy(trained[1].algorithm)
    clock, envs = make_clock(warmup=0, anneal=False)(hparams, jnp.int32(0)), 40

    @jit_quickly
    def run(key):
        def body(following, key):
            keys = jax.random.split(key, 4)
            view = ActorView(
                jax.random.normal(keys[0], (envs, 4)), (), following, jax.random.bernoulli(keys[1], 0.2, (envs,))
            )
            draws = ActDraws(jax.random.uniform(keys[2], (envs,)), jnp.zeros(envs, jnp.uint32), keys[3])
            action, after = algorithm.act(hparams, policy, view, draws, clock)
            found, _ = q_values(members, hparams, policy, view, None)
            return after, (view.start, following.member, after.member, action, found)

        return jax.lax.scan(body, algorithm.memory(envs), jax.random.split(key, 100))[1]

    start, before, member, action, found = map(np.asarray, run(jax.random.key(1)))
    np.testing.assert_array_equal(before[0], np.arange(envs) % K)
    np.testing.assert_array_equal(member[~start], before[~start])
    drawn = np.bincount(member[start], minlength=K)
    assert stats.chisquare(drawn).pvalue > 1e-4
    steps, actors = np.indices(member.shape)
    np.testing.assert_array_equal(action, found[steps, member, actors].argmax(-1))
    assert (found.argmax(-1) != found.argmax(-1)[:, :1]).any()  # members differ, so it matters whom one follows


def test_a_greedy_policy_takes_the_mean_of_the_members(algorithm, config, env, members, trained):
    hparams, policy = config.hparams(), algorithm.policy(trained[1].algorithm)
    obs, network = jax.random.normal(jax.random.key(5), (B, 4)), members.parts.network
    each = [
        network.apply(member_of(policy["members"], k), obs, None, None)[0]
        + 2.0 * network.apply(member_of(policy["prior"], k), obs, None, None)[0]
        for k in range(K)
    ]
    found, memory = algorithm.values(hparams, policy, ActorView(obs))
    assert memory == ()
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-4, atol=1e-6)
    mean, deviation, carry = make_estimates(config, env)(hparams, policy, ActorView(obs))
    assert carry == ()
    np.testing.assert_allclose(mean, found, rtol=1e-6)
    np.testing.assert_allclose(deviation, np.std(each, axis=0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("some_illegal", [False, True])
def test_disagreement_is_the_deviation_of_the_greedy_actions_value(
    config, env, members, algorithm, trained, some_illegal
):
    hparams, policy = config.hparams(), algorithm.policy(trained[1].algorithm)
    obs = jax.random.normal(jax.random.key(5), (64, 4))
    mean, deviation, _ = make_estimates(config, env)(hparams, policy, ActorView(obs))
    legal = np.eye(2, dtype=bool)[np.argmin(mean, axis=1)] if some_illegal else np.ones((64, 2), bool)
    step = example_step(obs, 2, some_illegal=True)._replace(legal=jnp.asarray(legal) if some_illegal else ())
    rollout = Rollout(jax.tree.map(lambda leaf: leaf[None], step), (), jnp.zeros((1, 64), bool))
    best = np.where(legal, mean, -np.inf).argmax(axis=1)
    expected = np.mean(np.asarray(deviation)[np.arange(64), best])
    np.testing.assert_allclose(disagreement(members, hparams, policy, rollout), expected, rtol=1e-4)


def test_a_row_has_the_mean_disagreement_of_its_epoch(trained):
    rows = trained[2]
    assert rows.disagreement.shape == (8,)
    assert (np.asarray(rows.disagreement) > 0).all()


# A bandit whose posterior is known


class Table:
    """A number for each state, which starts at a normal number."""

    def init(self, key, obs):
        return jax.random.normal(key, (obs.shape[-1], 1))

    def apply(self, params, obs):
        return obs @ params


COUNTS = (0, 16, 64, 256)


@pytest.fixture(scope="module")
def bandit(members):
    """Estimates [M, states] of M members of the mean rewards of four bandits that were played so often, and rewards."""
    size, scale, total = 300, 2.0, sum(COUNTS)
    network, example = adapt(Table()), jnp.zeros((1, len(COUNTS)))
    config = load_config("cartpole_cleanrl", [*TINY, "optimizer.name=sgd", "loss=squared", "ensemble.members=2"])
    parts = make_parts(config, make_environment("CartPole-v1"))
    parts = parts._replace(network=network, example=example, num_actions=1)
    many = members._replace(parts=parts, size=size)
    learner, hparams = (
        batch_learner(many, capacity=total),
        hparams_with(config, ensemble_mask=0.5, ensemble_prior_scale=scale),
    )
    played = np.repeat(np.arange(len(COUNTS)), COUNTS)
    reward = np.random.default_rng(0).normal(size=total)
    obs, nothing = jnp.eye(len(COUNTS))[played], jnp.zeros(total)
    transition = Transition(obs, jnp.zeros(total, jnp.int32), jnp.float32(reward), nothing, obs)
    batch = Batch(transition, jnp.ones(total), jnp.arange(total))

    @jit_quickly
    def run(key):
        state = learner.init(hparams, key)._replace(seen=jnp.int32(total))
        rate = jnp.float32(total / 256)

        def body(state, _):
            return learner.update(hparams, state, batch, key, rate)[0], None

        state, _ = jax.lax.scan(body, state, None, length=400)
        mask = masks(hparams, state.salt, jnp.arange(total), size)
        return (state.learner.online + scale * state.prior)[..., 0], mask

    return *map(np.asarray, run(jax.random.key(11))), played, reward


def test_members_learn_the_means_of_their_own_shares_of_the_data(bandit):
    estimates, mask, played, reward = bandit
    for state in range(1, len(COUNTS)):
        chosen = mask * (played == state)
        some = chosen.sum(1) > 0
        wanted = (chosen * reward).sum(1)[some] / chosen.sum(1)[some]
        np.testing.assert_allclose(estimates[some, state], wanted, atol=0.01)


def test_members_disagree_as_much_as_the_posterior_says_where_data_is_scarce(bandit):
    """With n rewards of variance 1 the posterior of their mean has a deviation of 1 / sqrt(n), less a weak prior.

    A member's mean is over half of the rewards, without replacement: its variance given them is that of n of them.
    Where there are none, the deviation is that of f + 2 p, both normal: sqrt(5).
    """
    estimates, _, played, reward = bandit
    deviations = estimates.std(axis=0)
    np.testing.assert_allclose(deviations[0], np.sqrt(5), rtol=0.15)
    for state, count in list(enumerate(COUNTS))[1:]:
        own = reward[played == state].std() / np.sqrt(count)
        np.testing.assert_allclose(deviations[state], own, rtol=0.2)
        np.testing.assert_allclose(deviations[state], 1 / np.sqrt(count), rtol=0.45)
    assert (np.diff(deviations) < 0).all()


# The program


def lowered_lines(size, overrides):
    config = load_config("cartpole_cleanrl", [*overrides, f"ensemble.members={size}"])
    program, hparams = make_program(config), config.hparams()
    text = jax.jit(program.train).lower(hparams, jax.random.key(0)).as_text()
    return len(text.splitlines())


def update_flops(size, members):
    many = members._replace(size=size)
    learner, hparams = batch_learner(many, capacity=300), Config().hparams()
    state = jax.eval_shape(learner.init, hparams, jax.random.key(0))
    batch = jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], batches(1)))
    lowered = jax.jit(learner.update).lower(hparams, state, batch, jax.random.key(0), jnp.float32(1e-3))
    return lowered.cost_analysis()["flops"]


def test_the_program_does_not_grow_with_the_number_of_members():
    """Lines before compilation. Of 2, 3 or 5 keys there are others in the program, with which the code is shared."""
    assert lowered_lines(7, ENSEMBLE) == lowered_lines(20, ENSEMBLE)


def test_an_update_of_ten_members_costs_ten_updates_of_one(members):
    assert 9 * update_flops(1, members) < update_flops(10, members) < 1.1 * 10 * update_flops(1, members)


def test_a_single_member_is_the_algorithm_itself(config, env):
    alone = load_config("cartpole_cleanrl", [*TINY, "ensemble={members: 1, prior_scale: 0, mask: 1}"])
    assert alone == load_config("cartpole_cleanrl", TINY)
    algorithm = make_algorithm(alone, env)
    state = jax.eval_shape(algorithm.init, alone.hparams(), jax.random.key(0))
    assert set(algorithm.policy(state)) == {"params"}
    assert algorithm.memory(5) == ()


COMPOSED = {
    "double, dueling, n steps, prioritised": [
        "bootstrap.kind=double",
        "network.dueling=true",
        "n_step=3",
        "replay.kind=prioritised",
    ],
    "munchausen, noisy": ["bootstrap.kind=munchausen", "network.noisy=true"],
    "categorical": ["distribution={kind: categorical, v_min: -10, v_max: 10}"],
    "hl_gauss": ["distribution={kind: hl_gauss, v_min: -10, v_max: 10}"],
    "quantile": ["distribution.kind=quantile"],
    "iqn, risk": ["distribution={kind: iqn, risk: cvar}"],
    "fqf without priors": ["distribution.kind=fqf", "ensemble={prior_scale: 0, prior: false}"],
    "normalised": ["env.normalize=true", "network.layer_norm=true"],
    "memory from replay, prioritised": [
        "network.memory=gru",
        "network.memory_size=8",
        *SEQUENCES,
        "replay.kind=prioritised",
    ],
    "memory from replay without priors": [
        *("network.memory=lru", "network.memory_size=8", *SEQUENCES),
        "ensemble={prior_scale: 0, prior: false}",
    ],
    "frames": ["env.frame_stack=3"],
    "pqn": PQN,
    "pqn, normalised, categorical": [
        *PQN,
        "env.normalize=true",
        "distribution={kind: categorical, v_min: -10, v_max: 10}",
    ],
    "pqn, target network, noisy": [*PQN, "schedule.target_every=32", "network.noisy=true"],
    "pqn, memory": [*PQN, "network.memory=gru", "network.memory_size=8", "rollout.minibatches=2"],
    "pqn, memory without priors": [*PQN, "network.memory=lru", "ensemble={prior_scale: 0, prior: false}"],
}

AT_ONCE = ["double, dueling, n steps, prioritised", "memory from replay, prioritised", "pqn, target network, noisy"]


@pytest.mark.parametrize("name", mostly_slow(list(COMPOSED), fast=AT_ONCE))
def test_an_ensemble_goes_with_every_part(name):
    """Traced, which checks shapes and types at every seam."""
    config = load_config("cartpole_cleanrl", [*ENSEMBLE, *COMPOSED[name]])
    result = jax.eval_shape(make_program(config).train, config.hparams(), jax.random.key(0))
    assert result.rows.disagreement.shape == result.rows.loss.shape
    assert all(leaf.shape[0] == K for leaf in jax.tree.leaves(result.params["members"].get("params", ())))
    assert ("prior" in result.params) == config.ensemble.prior


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["ensemble.members=0"], "ensemble.members: 0 must be greater than or equal to 1"),
        (["ensemble.members=2", "ensemble.mask=0"], "ensemble.mask: 0 must be greater than 0"),
        (["ensemble.members=2", "ensemble.mask=1.5"], "ensemble.mask: 1.5 must be less than or equal to 1"),
        (["ensemble.members=2", "ensemble.prior_scale=-1"], "ensemble.prior_scale: -1 must be greater than or equal"),
        (["ensemble.prior_scale=3"], "ensemble.prior_scale: 3.0 needs ensemble.members of 2 or more"),
        (["ensemble.mask=0.5"], "ensemble.mask: 0.5 needs ensemble.members of 2 or more"),
        (["ensemble.prior=true"], "ensemble.prior: True needs ensemble.members of 2 or more"),
        (
            ["ensemble={members: 2, prior: false, prior_scale: 3}"],
            "ensemble.prior_scale: 3 needs ensemble.prior true or unset",
        ),
        (
            ["ensemble={members: 2, prior_scale: 3}", "distribution.kind=fqf"],
            "distribution.kind: 'fqf' does not work with priors",
        ),
    ],
)
def test_bad_input_is_one_line_a_fault(overrides, line):
    with pytest.raises(ConfigError) as caught:
        load_config("cartpole_cleanrl", [*TINY, *overrides])
    assert len(caught.value.lines) == 1
    assert line in caught.value.lines[0]


# With memory


@pytest.mark.slow
def test_a_member_with_a_memory_remembers_what_it_would_alone():
    overrides = [*ENSEMBLE, *PQN, "network.memory=gru", "network.memory_size=8", "rollout.minibatches=2"]
    config = load_config("cartpole_cleanrl", overrides)
    env = make_environment(**config.env.making())
    members, hparams = make_members(config, make_parts(config, env)), config.hparams()
    algorithm = make_algorithm(config, env)
    policy = algorithm.policy(algorithm.init(hparams, jax.random.key(0)))
    obs, start = (
        jax.random.normal(jax.random.key(1), (5, E, 4)),
        jnp.zeros((5, E), bool).at[0].set(True).at[3, 1].set(True),
    )
    memory, found = algorithm.memory(E), []
    for t in range(5):
        each, carry = q_values(members, hparams, policy, ActorView(obs[t], (), memory, start[t]), None)
        memory = memory._replace(carry=carry)
        found.append(each)
    network = members.parts.network
    for k in range(K):
        fresh = network.memory.carry(E)
        arguments = obs.reshape(-1, 4), None, None, fresh, start
        learned, known = (network.apply(member_of(policy[name], k), *arguments)[0] for name in ("members", "prior"))
        chex_close(jnp.stack(found)[:, k], (learned + 2 * known).reshape(5, E, 2))


# Commands


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a tiny finished run of two ensembles."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("purejaxdqn.train.configure_cpu_for", lambda config: None)
        assert train(["--config", "cartpole_cleanrl", "--out", str(folder), "--quiet", "num_seeds=2", *ENSEMBLE]) == 0
    return folder


@pytest.mark.slow
def test_a_run_of_ensembles_is_evaluated_and_loaded(run, config):
    metrics = read_metrics(run / "metrics.csv")
    assert (metrics.disagreement > 0).all()
    policy = load_policy(run, seed_index=1)
    assert policy(np.zeros((7, 4))).shape == (7,)
    assert policy.initial_state(3) == ()
    weights = load_file(run / "policy.safetensors")
    assert {name.split("/")[0] for name in weights} == {"members", "prior"}
    assert all(leaf.shape[:2] == (2, K) for leaf in weights.values())


@pytest.mark.slow
def test_a_metrics_file_of_an_earlier_version_is_read(run, tmp_path):
    lines = (run / "metrics.csv").read_text().splitlines()
    assert lines[0].split(",") == list(COLUMNS) and COLUMNS[-1] == "disagreement"
    path = tmp_path / "metrics.csv"
    path.write_text("".join(line.rpartition(",")[0] + "\n" for line in lines))
    before, now = read_metrics(path), read_metrics(run / "metrics.csv")
    assert np.isnan(before.disagreement).all()
    assert_same_bits(before._replace(disagreement=0), now._replace(disagreement=0))


@pytest.mark.slow
def test_a_run_of_ensembles_resumes_exactly(run, quietly, tmp_path):
    part = tmp_path / "part"
    shorter = [*ENSEMBLE, "num_seeds=2", "total_timesteps=320", "schedule.horizon=600"]
    assert quietly(train, "--config", "cartpole_cleanrl", "--out", part, "--quiet", *shorter)[0] == 0
    assert quietly(train, "--resume", part, "--quiet", "total_timesteps=600")[0] == 0
    for name in ("policy.safetensors", "metrics.csv"):
        assert (part / name).read_bytes() == (run / name).read_bytes(), name


@pytest.mark.slow
def test_a_sweep_over_the_numbers_of_an_ensemble(quietly, run, tmp_path):
    """Points without a prior are a program of their own; a point is what the command trains."""
    out = tmp_path / "sweep"
    swept = ["ensemble.prior_scale=0,2", "ensemble.mask=0.5,1"]
    arguments = ["--config", "cartpole_cleanrl", "--seeds", 2, "--out", out, "--quiet", *ENSEMBLE, *swept]
    assert quietly(sweep, *arguments)[0] == 0
    with (out / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    wanted = json.loads((run / "summary.json").read_text())["final_eval_return"]
    same = [r for r in rows if float(r["ensemble.prior_scale"]) == 2 and float(r["ensemble.mask"]) == 0.5]
    np.testing.assert_allclose([float(row["final_eval_return"]) for row in same], wanted, rtol=1e-6)


# Exports


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stablehlo", "onnx", "safetensors"])
def test_an_export_has_all_members_and_gives_mean_and_deviation(kind, run, quietly, tmp_path):
    folder, obs = tmp_path / "policy", np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert quietly(export, run, "--format", kind, "--seed-index", 1, "--out", folder)[0] == 0
    weights, agent = load_file(folder / "policy.safetensors"), choose_agent(run, seed_index=1, best=False)
    assert all(leaf.shape[0] == K for leaf in weights.values())
    assert {name.split("/")[0] for name in weights} == {"members", "prior"}
    wanted = [np.asarray(one) for one in agent.q_values(obs)]
    np.testing.assert_array_equal(load_policy(folder)(obs), wanted[0].argmax(-1))
    described = json.loads((folder / "policy.json").read_text())
    assert described["network"]["ensemble"] == {"members": K, "prior_scale": 2.0}
    assert f"the mean of an ensemble of {K}" in (folder / "README.md").read_text()
    if kind == "safetensors":
        return
    assert described["program"]["outputs"]["deviation"] == {"shape": ["batch", 2], "dtype": "float32"}
    np.save(tmp_path / "obs.npy", obs)
    script = [sys.executable, folder / "run_policy.py", tmp_path / "obs.npy"]
    found = json.loads(subprocess.run(script, capture_output=True, check=True, timeout=120).stdout)
    for name, one in zip(("q_values", "deviation"), wanted, strict=True):
        np.testing.assert_allclose(found[name], one, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["action"], wanted[0].argmax(-1))


def agent_of(*overrides):
    config = load_config("deepsea_ensemble", ["env.kwargs.size=4", "total_timesteps=2000", *overrides])
    env = make_environment(**config.env.making())
    algorithm = make_algorithm(config, env)
    params = algorithm.policy(algorithm.init(config.hparams(), jax.random.key(0)))
    return TrainedAgent(config, {}, 0, params, env, *acting_of(config, env, params))


@pytest.mark.slow
def test_an_ensemble_of_one_hot_torsos_is_translated_to_onnx():
    """Which fetches a row of each member's weights, of itself and of its prior."""
    _, worst = to_checked_onnx(agent_of())
    assert worst <= 1e-6
