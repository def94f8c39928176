"""The buffer against plain NumPy and against Gymnasium, which shares no code with gymnax."""

import dataclasses
import functools
import itertools
import re

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn import load_config
from purejaxdqn.config.building import make_algorithm
from purejaxdqn.core.config import Config
from purejaxdqn.core.draws import draw, random_action, uniform_from_bits
from purejaxdqn.core.schedules import annealed_beta
from purejaxdqn.core.types import Step
from purejaxdqn.dqn.replay import REPLAYS, example_step, prioritised_replay, uniform_replay
from purejaxdqn.dqn.rings import fold, make_ring
from purejaxdqn.dqn.sum_tree import make_sum_tree
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.system.compiling import inner_jaxprs

KINDS = {"uniform": uniform_replay, "prioritised": prioritised_replay}
HPARAMS = Config().hparams()._replace(gamma=np.float32(0.5))
N_STEP = HPARAMS._replace(gamma=np.float32(0.9), reward_scale=np.float32(0.5), reward_clip=np.float32(0.4))
ALPHA = HPARAMS._replace(replay_alpha=np.float32(0.6), replay_beta=np.float32(0.4), schedule_horizon=np.float32(1000))
SIZES = (1, 2, 8, 9, 64, 65, 1000)  # of sum trees


def _steps(first, count):
    """Steps [count, 1] that carry their number in every field."""
    numbers = jnp.arange(first, first + count, dtype=jnp.float32)[:, None]
    obs = jnp.stack([numbers, -numbers], axis=-1)
    ended = numbers.astype(jnp.int32) % 2 == 0
    return Step(obs, numbers.astype(jnp.int32), numbers, ended, ~ended, obs + 0.5)


def _episodes(steps, num_envs, *, seed=0):
    """Steps [steps, num_envs] of NumPy arrays that end often, in all ways; ``action`` is their number."""
    rng, shape = np.random.default_rng(seed), (steps, num_envs)
    numbers = np.arange(steps * num_envs, dtype=np.int32).reshape(shape)
    obs = np.stack([numbers, -numbers], axis=-1).astype(np.float32)
    terminated, truncated = rng.random((2, *shape)) < 0.2
    return Step(obs, numbers, rng.normal(size=shape).astype(np.float32), terminated, truncated, obs + 0.5)


def _part(steps, start, count):
    return jax.tree.map(lambda leaf: leaf[start : start + count], steps)


def _replay(kind, *, size, n_step=1, num_envs=1):
    return KINDS[kind](make_ring(size=size, n_step=n_step, num_envs=num_envs))


def _at(hparams, env_step, *, warmup=0):
    """The exponent of importance weights at ``env_step``."""
    return functools.partial(annealed_beta, hparams, jnp.int32(env_step), warmup=warmup)


def _make(kind="uniform", *, size, n_step=1, num_envs=1):
    """A replay, compiled, and its empty state."""
    replay = _replay(kind, size=size, n_step=n_step, num_envs=num_envs)
    state = replay.init(example_step(jnp.zeros(2)))
    compiled = jax.jit(lambda hparams, state, bits, beta: replay.sample(hparams, state, bits, lambda: beta))

    def sample(hparams, state, bits, beta):
        return compiled(hparams, state, bits, beta())

    return replay._replace(add=jax.jit(replay.add), sample=sample, reprioritise=jax.jit(replay.reprioritise)), state


def _ring(state):
    return getattr(state, "ring", state)


def _held(replay, state, draws=4000):
    return replay.sample(HPARAMS, state, jax.random.bits(jax.random.key(1), (draws,)), _at(HPARAMS, 0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("added", [3, 9, 10, 13, 34])
def test_the_buffer_holds_the_last_transitions_in_whole(added, kind):
    (replay, state), kept = _make(kind, size=10), []
    for first in range(0, added, 3):  # blocks that do not divide the size
        block = min(3, added - first)
        state = replay.add(HPARAMS, state, _steps(first, block))
        kept = (kept + list(range(first, first + block)))[-10:]
    batch = _held(replay, state)
    np.testing.assert_array_equal(np.unique(batch.transition.action), kept)
    number = np.asarray(batch.transition.action, np.float32)
    np.testing.assert_array_equal(batch.transition.obs, np.stack([number, -number], 1))
    np.testing.assert_array_equal(batch.transition.next_obs, np.stack([number, -number], 1) + 0.5)
    np.testing.assert_array_equal(batch.transition.reward, number)
    np.testing.assert_array_equal(batch.transition.discount, np.where(number % 2, 0.5, 0.0))
    np.testing.assert_array_equal(batch.weight, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_unwritten_is_ever_sampled(kind):
    replay, state = _make(kind, size=1000)
    ring = _ring(state)
    ring = dataclasses.replace(ring, experience=jax.tree.map(lambda leaf: jnp.full_like(leaf, 77), ring.experience))
    state = ring if kind == "uniform" else state._replace(ring=ring)
    state = replay.add(HPARAMS, state, _steps(0, 5))
    np.testing.assert_array_equal(np.unique(_held(replay, state).transition.action), np.arange(5))


def test_learning_begins_with_the_warm_up_in_the_buffer(config, program):
    state = jax.jit(program.init)(config.hparams(), jax.random.key(0))
    assert int(state.algorithm.replay.current_index) == config.schedule.warmup == int(state.actors.env_step)
    assert not bool(state.algorithm.replay.is_full)


def test_every_transition_is_as_likely_as_any_other():
    replay, state = _make(size=16)
    state = replay.add(HPARAMS, state, _steps(0, 13))
    counts = np.bincount(_held(replay, state, 130_000).transition.action, minlength=13)
    chi_square = np.sum((counts - 10_000) ** 2 / 10_000)
    assert chi_square < 32.9  # 0.1% of the chi-square distribution with 12 degrees of freedom


@pytest.mark.parametrize("kind", KINDS)
def test_observations_keep_their_type_and_nothing_in_the_state_is_weakly_typed(kind):
    replay = _replay(kind, size=8, n_step=2, num_envs=2)
    before = replay.init(example_step(jnp.zeros((3, 3, 2), bool)))
    steps = jax.tree.map(jnp.asarray, _episodes(3, 2))
    steps = steps._replace(obs=jnp.ones((3, 2, 3, 3, 2), bool), next_obs=jnp.ones((3, 2, 3, 3, 2), bool))
    state = replay.add(HPARAMS, before, steps)
    batch = replay.sample(HPARAMS, state, jnp.arange(4, dtype=jnp.uint32), _at(HPARAMS, 0))
    state = replay.reprioritise(HPARAMS, state, batch.indices, batch.transition.reward)
    assert batch.transition.obs.dtype == batch.transition.next_obs.dtype == bool
    assert batch.transition.obs.all()
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(state), strict=True):
        assert (old.dtype, old.shape) == (new.dtype, new.shape)
        assert not old.weak_type and not new.weak_type


def _fold_by_hand(steps, t, e, n, hparams=N_STEP):
    """Reward, discount, next_obs and number of the steps from [t, e] on."""
    gamma, total = float(hparams.gamma), 0.0
    for k in range(n):
        reward = float(hparams.reward_scale) * steps.reward[t + k, e]
        total += gamma**k * min(max(reward, -hparams.reward_clip), hparams.reward_clip)
        if steps.terminated[t + k, e] or steps.truncated[t + k, e]:
            break
    discount = 0.0 if steps.terminated[t + k, e] else gamma ** (k + 1)
    return total, discount, steps.next_obs[t + k, e], k + 1


@pytest.mark.parametrize("shape", [(3, 2, 2), (5,), ()])
def test_observations_come_back_in_their_shape_from_the_vectors_that_are_kept(shape):
    replay, steps, rng = _replay("uniform", size=6, n_step=2, num_envs=2), _episodes(3, 2), np.random.default_rng(2)
    obs, next_obs = rng.normal(size=(2, 3, 2, *shape)).astype(np.float32)
    steps = steps._replace(obs=obs, next_obs=next_obs)
    state = replay.init(example_step(jnp.zeros(shape)))
    state = replay.add(HPARAMS, state, jax.tree.map(jnp.asarray, steps))
    assert state.experience.obs.shape == state.experience.next_obs.shape == (1, 6, np.prod(shape, dtype=int))
    transition = replay.sample(HPARAMS, state, jnp.arange(4, dtype=jnp.uint32), _at(HPARAMS, 0)).transition
    np.testing.assert_array_equal(transition.action, np.arange(4))
    np.testing.assert_array_equal(transition.obs, obs.reshape(6, *shape)[:4])
    last = [_fold_by_hand(steps, *divmod(number, 2), 2, HPARAMS)[2] for number in range(4)]
    np.testing.assert_array_equal(transition.next_obs, np.stack(last))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("rollout", [1, 3])
def test_n_step_transitions_are_those_of_a_fold_in_numpy(n, rollout, kind):
    """After every block, every candidate: across the ring's end, the rollouts' ends, and every way to end."""
    num_envs, size, steps, met = 3, 31, _episodes(36, 3), set()  # three environments do not divide the size
    replay, state = _make(kind, size=size, n_step=n, num_envs=num_envs)
    bits = np.arange(96, dtype=np.uint32) * np.uint32(1 if kind == "uniform" else 2**31 + 1)
    for t in range(0, 36, rollout):
        state = replay.add(N_STEP, state, _part(steps, t, rollout))
        added = (t + rollout) * num_envs
        oldest, end = max(added - size, 0), added - (n - 1) * num_envs
        if end <= oldest:
            continue
        transition, _, indices, _ = jax.tree.map(np.asarray, replay.sample(N_STEP, state, bits, _at(N_STEP, 0)))
        numbers = transition.action
        np.testing.assert_array_equal(np.unique(numbers), np.arange(oldest, end))  # all of them, and no others
        np.testing.assert_array_equal(indices, numbers % size)
        if kind == "uniform":
            np.testing.assert_array_equal(numbers, oldest + bits % (end - oldest))
        for i, number in enumerate(numbers):
            reward, discount, next_obs, length = _fold_by_hand(steps, *divmod(number, num_envs), n)
            np.testing.assert_allclose(transition.reward[i], reward, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(transition.discount[i], discount, rtol=1e-6)
            np.testing.assert_array_equal(transition.next_obs[i], next_obs)
            np.testing.assert_array_equal(transition.obs[i], [number, -number])
            met.add((length, discount > 0))
    assert met == {(length, future) for length in range(1, n + 1) for future in (True, False)}


def test_a_fold_stops_at_the_first_end_of_every_pattern():
    ends = np.array(list(itertools.product([False, True], repeat=6))).reshape(64, 3, 2)
    rewards = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    obs = np.arange(3 * 64 * 4, dtype=np.float32).reshape(3, 64, 2, 2)  # every observation is a picture
    steps = Step(obs, np.arange(192).reshape(3, 64), rewards, ends[..., 0].T, ends[..., 1].T, obs + 0.5)
    folded = fold(
        jax.tree.map(jnp.asarray, steps), gamma=N_STEP.gamma, scale=N_STEP.reward_scale, clip=N_STEP.reward_clip
    )
    for i in range(64):
        reward, discount, next_obs, _ = _fold_by_hand(steps, 0, i, 3)
        np.testing.assert_allclose(folded.reward[i], reward, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(folded.discount[i], discount, rtol=1e-6)
        np.testing.assert_array_equal(folded.next_obs[i], next_obs)
        np.testing.assert_array_equal(folded.obs[i], obs[0, i])


def _equations(jaxpr, times=1):
    """Every primitive equation, and how often a call of ``jaxpr`` runs it."""
    for equation in jaxpr.eqns:
        inner = list(inner_jaxprs(equation))
        runs = times * equation.params.get("length", 1) if equation.primitive.name == "scan" else times
        assert equation.primitive.name != "while", "nobody knows how often"
        for one in inner:
            yield from _equations(one, runs)
        if not inner:
            yield equation, times


def _sampling(kind, size, n_step, batch_size=128):
    replay = _replay(kind, size=size, n_step=n_step, num_envs=4)
    state = jax.eval_shape(replay.init, example_step(jnp.zeros((5, 7))))
    bits = jax.ShapeDtypeStruct((batch_size,), jnp.uint32)

    def sample(hparams, state, bits, env_step):
        return replay.sample(hparams, state, bits, _at(hparams, env_step))

    return replay, state, jax.make_jaxpr(sample)(HPARAMS, state, bits, jnp.int32(0))


@pytest.mark.parametrize("n", [1, 5])
def test_a_transition_of_n_steps_reads_two_observations_and_n_rewards(n):
    *_, jaxpr = _sampling("uniform", 1000, n)
    read = [one.outvars[0].aval.shape for one, _ in _equations(jaxpr.jaxpr) if one.primitive.name == "gather"]
    assert sorted(read) == sorted([(128,), *[(128, 35)] * 2, *[(n, 128)] * 3])


def _numbers(state):
    """What the tree holds of each row."""
    size = _ring(state).experience.reward.shape[1]
    return np.asarray(state.tree)[:size]


def _random_priorities(*, size=40, hparams=ALPHA, n_step=1, seed=0):
    """A full ring of four environments with random TD errors, some far below 1; the priorities [size], float64."""
    replay, state = _make("prioritised", size=size, n_step=n_step, num_envs=4)
    state = replay.add(hparams, state, _episodes(size // 4, 4))
    rng, ready = np.random.default_rng(seed), size - 4 * (n_step - 1)
    td_error = (rng.normal(size=ready) * 10.0 ** rng.integers(-2, 2, ready)).astype(np.float32)
    state = replay.reprioritise(hparams, state, jnp.arange(ready), td_error)
    priority = (np.abs(td_error).astype(float) + 1e-6) ** float(hparams.replay_alpha)
    return replay, state, np.concatenate([priority, np.zeros(size - ready)])


def test_a_priority_below_one_or_between_integers_is_kept_as_it_is():
    replay, state = _make("prioritised", size=8)
    state = replay.add(ALPHA, state, _steps(0, 8))
    td_error = jnp.array([0.0, -0.3, 2.9, 1e-3, -7.75])
    state = replay.reprioritise(ALPHA, state, jnp.array([1, 2, 4, 5, 7]), td_error)
    kept = (np.array([1, 1e-6, 0.3, 1, 2.9, 1e-3, 1, 7.75]) + np.array([0, 0, 1, 0, 1, 1, 0, 1]) * 1e-6) ** 0.6
    np.testing.assert_allclose(_numbers(state), kept, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 3])
def test_rows_are_drawn_as_often_as_their_priorities_say(n):
    replay, state, priority = _random_priorities(n_step=n)
    bits = jax.random.bits(jax.random.key(3), (200_000, 1))  # batches of one are independent of each other
    drawn = jax.jit(jax.vmap(lambda bits: replay.sample(ALPHA, state, bits, _at(ALPHA, 0, warmup=100)).indices))(bits)
    counts, expected = np.bincount(np.ravel(drawn), minlength=40), 200_000 * priority / priority.sum()
    assert counts[priority == 0].sum() == 0
    assert expected[priority > 0].min() > 20
    chi_square = np.sum((counts - expected)[priority > 0] ** 2 / expected[priority > 0])
    assert chi_square < {1: 72.1, 3: 61.1}[n]  # 0.1% with 39 and 31 degrees of freedom


def test_a_batch_takes_one_row_from_each_equal_share_of_the_priorities():
    replay, state, priority = _random_priorities()
    bits = jax.random.bits(jax.random.key(4), (256,))
    indices = np.asarray(replay.sample(ALPHA, state, bits, _at(ALPHA, 0, warmup=100)).indices)
    ends = np.cumsum(priority) / priority.sum() * 256
    assert (indices[1:] >= indices[:-1]).all()
    assert (ends[indices] > np.arange(256) - 1e-3).all()
    assert ((ends - priority / priority.sum() * 256)[indices] < np.arange(256) + 1 + 1e-3).all()
    batches = jax.vmap(lambda bits: replay.sample(ALPHA, state, bits, _at(ALPHA, 0, warmup=100)).indices)(
        jax.random.bits(jax.random.key(5), (500, 16))
    )
    counts, expected = np.bincount(np.ravel(batches), minlength=40), 8000 * priority / priority.sum()
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected.max())  # ... and anywhere inside of its share


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("env_step", [100, 325, 1000, 4000])
def test_importance_weights_are_those_of_the_paper(env_step, n):
    replay, state, priority = _random_priorities(n_step=n)
    batch = replay.sample(ALPHA, state, jax.random.bits(jax.random.key(6), (64,)), _at(ALPHA, env_step, warmup=100))
    beta = {100: 0.4, 325: 0.4 + 0.6 * 0.25, 1000: 1.0, 4000: 1.0}[env_step]
    chance = priority / priority.sum()
    weight = (np.sum(priority > 0) * chance[np.asarray(batch.indices)]) ** -beta
    np.testing.assert_allclose(batch.weight, weight / weight.max(), rtol=2e-5)
    assert batch.weight.max() == 1
    assert batch.weight.min() < 0.7


def test_beta_goes_in_a_straight_line_from_the_warm_up_to_the_horizon_and_stays():
    steps = np.array([0, 100, 101, 550, 999, 1000, 1_000_000], np.int32)
    beta = [float(annealed_beta(ALPHA, step, warmup=100)) for step in steps]
    np.testing.assert_allclose(beta, [0.4, 0.4, 0.4 + 0.6 / 900, 0.7, 1 - 0.6 / 900, 1, 1], rtol=1e-6)
    assert np.isfinite(annealed_beta(ALPHA, jnp.int32(1000), warmup=1000))


def test_weights_are_numbers_and_rows_exist_even_where_there_is_nothing_to_draw():
    replay, state = _make("prioritised", size=20)
    batch = replay.sample(ALPHA, state, jax.random.bits(jax.random.key(0), (16,)), _at(ALPHA, 0))
    assert jnp.isfinite(batch.weight).all()
    assert ((batch.indices >= 0) & (batch.indices < 20)).all()


@pytest.mark.parametrize("size", [24, 31])
@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("rollout", [1, 2, 8])
def test_the_tree_follows_what_comes_in_and_goes_out(rollout, n, size):
    """New candidates get the largest priority there was, overwritten and incomplete rows none; against a dictionary."""
    num_envs, rng, priorities, largest, added = 3, np.random.default_rng(1), {}, 1.0, 0
    replay, state = _make("prioritised", size=size, n_step=n, num_envs=num_envs)
    steps = _episodes(64, num_envs)
    for t in range(0, 64, rollout):
        state = replay.add(ALPHA, state, _part(steps, t, rollout))
        ready, added = max(added - (n - 1) * num_envs, 0), added + rollout * num_envs
        candidates = range(max(added - size, 0), added - (n - 1) * num_envs)
        priorities |= dict.fromkeys(range(ready, added - (n - 1) * num_envs), largest)
        priorities = {number: priorities[number] for number in candidates}
        expected = np.zeros(size)
        expected[[number % size for number in candidates]] = np.array(list(priorities.values())) ** 0.6
        np.testing.assert_allclose(_numbers(state), expected, rtol=1e-5)
        if not priorities:
            continue
        chosen = rng.choice(list(candidates), size=5)
        td_error = dict(zip(chosen, rng.normal(size=5).astype(np.float32) * (5 if t < 40 else 1), strict=True))
        rows, errors = np.array(list(td_error)), np.array(list(td_error.values()))
        rows, errors = np.pad(rows, (0, 5 - len(rows)), "edge"), np.pad(errors, (0, 5 - len(errors)), "edge")
        state = replay.reprioritise(ALPHA, state, rows % size, errors)
        priorities |= {number: abs(float(error)) + 1e-6 for number, error in td_error.items()}
        largest = max(largest, *(priorities[number] for number in td_error))
        assert float(state.max_priority) == pytest.approx(largest)
    assert largest > 5


def test_of_a_row_twice_in_a_batch_the_larger_error_counts_in_any_order():
    replay, state, _ = _random_priorities()
    trees = []
    for order in itertools.permutations(range(4)):
        indices, td_error = (
            jnp.array([3, 3, 9, 3])[jnp.array(order)],
            jnp.array([0.1, -5.0, 2.0, 3.0])[jnp.array(order)],
        )
        trees.append(replay.reprioritise(ALPHA, state, indices, td_error).tree)
        np.testing.assert_allclose(trees[-1][jnp.array([3, 9])], np.array([5.0, 2.0]) ** 0.6, rtol=1e-5)
        np.testing.assert_array_equal(trees[-1], trees[0])


def test_with_alpha_zero_every_candidate_is_as_likely_as_any_other():
    replay, state, _ = _random_priorities(hparams=ALPHA._replace(replay_alpha=np.float32(0)), n_step=3)
    np.testing.assert_array_equal(_numbers(state), np.arange(40) < 32)
    batch = replay.sample(ALPHA, state, jnp.arange(32, dtype=jnp.uint32), _at(ALPHA, 0, warmup=100))
    np.testing.assert_array_equal(batch.indices, np.arange(32))  # one from each share
    np.testing.assert_array_equal(batch.weight, 1)


def test_steps_of_another_number_of_environments_are_refused():
    replay, state = _make(size=20, n_step=2, num_envs=3)
    with pytest.raises(ValueError, match="4 environments for a replay of 3"):
        replay.add(HPARAMS, state, _episodes(3, 4))


def test_an_unknown_kind_is_refused():
    config = Config()
    config = config.model_copy(update={"replay": config.replay.model_copy(update={"kind": "per"})})
    with pytest.raises(ValueError, match="'per' is not one of uniform, prioritised"):
        REPLAYS.make(config)


def _history(hparams, key):
    """The state after a full ring and some updates."""
    replay = _replay("prioritised", size=50, n_step=3, num_envs=2)
    steps = jax.tree.map(jnp.asarray, _episodes(60, 2))
    blocks = jax.tree.map(lambda leaf: leaf.reshape(20, 3, *leaf.shape[1:]), steps)
    blocks = blocks._replace(reward=blocks.reward + jax.random.normal(key, blocks.reward.shape))

    def body(state, xs):
        block, bits = xs
        state = replay.add(hparams, state, block)
        batch = replay.sample(hparams, state, bits, _at(hparams, 500))
        return replay.reprioritise(hparams, state, batch.indices, batch.transition.reward), batch

    return jax.lax.scan(body, replay.init(example_step(jnp.zeros(2))), (blocks, jax.random.bits(key, (20, 16))))


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_users")
def test_a_seed_draws_the_same_whether_or_not_others_run_beside_it():
    keys = jax.random.split(jax.random.key(8), 5)
    together = jax.jit(jax.vmap(_history, (None, 0)))(ALPHA, keys)
    alone = jax.jit(_history)(ALPHA, keys[3])
    jax.tree.map(lambda one, many: np.testing.assert_array_equal(one, many[3]), alone, together)


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_copies_neither_the_ring_nor_the_tree(kind):
    replay = _replay(kind, size=100_000, n_step=3, num_envs=4)
    state = jax.eval_shape(replay.init, example_step(jnp.zeros(2)))

    def body(carry, xs):
        (state, total), (block, bits) = carry, xs
        state = replay.add(ALPHA, state, block)
        batch = replay.sample(ALPHA, state, bits, _at(ALPHA, 500))
        # Of a learner's TD errors, too, XLA knows that they do not depend on the weights.
        return (replay.reprioritise(ALPHA, state, batch.indices, batch.transition.reward), total + batch.weight), None

    blocks = jax.tree.map(lambda leaf: leaf.reshape(5, 1, *leaf.shape[1:]), _episodes(5, 4))
    run = jax.jit(lambda state, *xs: jax.lax.scan(body, (state, jnp.zeros(32)), xs), donate_argnums=0)
    compiled = run.lower(state, blocks, jax.ShapeDtypeStruct((5, 32), jnp.uint32)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 100_000  # the smallest copy, of the flags, is as large


def _levels(numbers):
    """The tree [8 * rows] of its numbers."""
    rows = []
    while not rows or len(rows[-1]) > 1:
        rows.append(np.pad(numbers, (0, -len(numbers) % 8)).reshape(-1, 8))
        numbers = rows[-1].sum(1)
    return np.concatenate(rows).ravel()


@pytest.mark.parametrize("size", SIZES)
def test_sums_are_those_of_numpy_whatever_is_set(size):
    tree, rng = make_sum_tree(size), np.random.default_rng(size)
    array, numbers, write = tree.init(), np.zeros(size, np.float32), jax.jit(tree.set)
    assert not array.any()
    for _ in range(20):
        indices = rng.integers(0, size, 13)
        values = rng.lognormal(sigma=3, size=13).astype(np.float32) * rng.integers(0, 2, 13).astype(np.float32)
        array = write(array, indices, values)
        numbers[indices] = 0
        np.maximum.at(numbers, indices, values)
        np.testing.assert_allclose(array, _levels(numbers), rtol=1e-6)
        np.testing.assert_array_equal(tree.get(array, np.arange(size)), numbers)


def _filled(numbers):
    tree = make_sum_tree(len(numbers))
    return tree, jax.jit(tree.set)(tree.init(), jnp.arange(len(numbers)), jnp.asarray(numbers, jnp.float32))


@pytest.mark.parametrize("size", SIZES)
def test_an_index_is_where_the_running_sum_passes_the_target(size):
    numbers = np.random.default_rng(size).integers(0, 4, size) + (np.arange(size) == size // 2)
    tree, array = _filled(numbers)
    targets = np.arange(numbers.sum()) + 0.5  # exact: small integers and halves
    indices = jax.jit(tree.sample)(array, (targets / numbers.sum()).astype(np.float32))
    np.testing.assert_array_equal(indices, np.searchsorted(np.cumsum(numbers), targets, side="right"))


@pytest.mark.parametrize("size", [2, 9, 65, 1000, 100_000])
@pytest.mark.parametrize("spread", [0.0, 30.0])
def test_a_zero_is_never_drawn(size, spread):
    """Zeros everywhere, among them the last; numbers between 10^-spread and 10^spread; u up to 1 itself."""
    rng = np.random.default_rng(7)
    numbers = 10.0 ** rng.uniform(-spread, spread, size) * (rng.random(size) < 0.3)
    numbers[rng.integers(size)] = 1.0
    numbers[-3:] = 0.0 if size > 3 else numbers[-3:]
    numbers = numbers if numbers.any() else np.ones(size)
    tree, array = _filled(numbers)
    u = np.concatenate([np.linspace(0, 1, 5000), 1 - 2.0 ** -np.arange(20, 26), 2.0 ** -np.arange(20, 140, 5)])
    indices = np.asarray(jax.jit(tree.sample)(array, u.astype(np.float32)))
    assert (numbers[indices] > 0).all()


@pytest.mark.parametrize("last", [2990, 2995, 2999])
def test_a_zero_is_not_drawn_where_rounding_leads_past_the_last_number(last):
    """The largest target comes out above what there is in the last nodes, or would without care."""
    numbers = (1 + 2.0**-12 + np.arange(4096) % 7 * 2.0**-20) * (np.arange(4096) <= last)
    tree, array = _filled(numbers)
    indices = jax.jit(tree.sample)(array, np.float32(1 - 2.0 ** -np.arange(15, 26)))
    assert (numbers[np.asarray(indices)] > 0).all()
    assert indices[-1] == last


def _cost(jaxpr):
    """Numbers read and written; of a look-up or a write in place only what is looked up or written."""
    total, places = 0, ("gather", "slice", "dynamic_slice", "scatter", "scatter-max", "dynamic_update_slice")
    for equation, times in _equations(jaxpr.jaxpr):
        name, variables = equation.primitive.name, [*equation.invars, *equation.outvars]
        if name in places:
            variables = variables[1:-1] if name.startswith("scatter") else variables[1:]
        total += times * sum(variable.aval.size for variable in variables)
    return total


def test_the_cost_of_a_draw_grows_like_the_logarithm_of_the_size():
    costs = [_cost(_sampling("prioritised", size, 3)[2]) for size in (1000, 1_000_000)]
    assert costs[0] < costs[1] < 2 * costs[0]
    trees = [make_sum_tree(size) for size in (1000, 1_000_000)]
    args = jax.ShapeDtypeStruct((128,), jnp.int32), jax.ShapeDtypeStruct((128,), jnp.float32)
    costs = [_cost(jax.make_jaxpr(tree.set)(jax.eval_shape(tree.init), *args)) for tree in trees]
    assert costs[0] < costs[1] < 2 * costs[0] + 1


def test_no_loop_goes_over_items():
    """Loops in the compiled program go over the tree's levels, six for 100,000 rows."""
    replay, state, _ = _sampling("prioritised", 100_000, 3)

    def update(hparams, state, bits):
        batch = replay.sample(hparams, state, bits, _at(hparams, 0))
        return replay.reprioritise(hparams, state, batch.indices, batch.transition.reward)

    text = jax.jit(update).lower(ALPHA, state, jax.ShapeDtypeStruct((128,), jnp.uint32)).compile().as_text()
    lengths = [int(one) for one in re.findall(r'known_trip_count":\{"n":"(\d+)"', text)]
    assert len(lengths) == text.count(" while(")
    assert max(lengths, default=0) <= 6


def test_draws_have_their_shapes_and_ranges():
    config = load_config("cartpole_cleanrl", ["schedule.gradient_steps=2", "replay.batch_size=11"])
    wanted = make_algorithm(config, make_environment("CartPole-v1")).draws
    steps, learning = draw(jax.random.key(0), 50, rollout=3, num_envs=5, learning=wanted)
    acting = steps.act
    assert acting.explore.shape == acting.choice.shape == steps.env_keys.shape == (50, 3, 5)
    assert learning.sample.shape == (50, 2, 11)
    assert acting.key.shape == (50, 3)
    assert learning.key.shape == (50, 2)
    assert 0 <= acting.explore.min() < 0.02
    assert 0.98 < acting.explore.max() < 1
    counts = np.bincount(np.ravel(random_action(acting.choice, (), 7)), minlength=7)
    assert len(counts) == 7
    assert np.sum((counts - 750 / 7) ** 2 / (750 / 7)) < 22.5  # 0.1%, 6 degrees of freedom
    keys = [jax.random.key_data(keys).reshape(-1, 2) for keys in (steps.env_keys, acting.key, learning.key)]
    assert len(np.unique(np.concatenate(keys), axis=0)) == 750 + 150 + 100


@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
def test_100_000_transitions_of_breakout_take_at_most_90_megabytes(kind):
    env = make_environment("Breakout-MinAtar")
    replay = _replay(kind, size=100_000, n_step=3, num_envs=4)
    state = jax.eval_shape(lambda: replay.init(example_step(jnp.zeros(env.obs_shape, env.obs_dtype))))
    assert 80e6 < sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) <= 90e6


def test_uniform_numbers_stay_below_one():
    extremes = jnp.array([0, 2**32 - 1], jnp.uint32)
    np.testing.assert_array_equal(uniform_from_bits(extremes), np.float32([0, 1 - 2**-24]))


def test_the_buffer_is_what_gymnasium_makes_of_the_same_actions(config, program):
    """Every stored step, taken again in Gymnasium's CartPole from the stored observation."""

    def run(hparams, key):
        return program.segment(hparams, program.init(hparams, key), 13)[0].algorithm.replay

    replay = jax.jit(run)(config.hparams(), jax.random.key(5))
    assert bool(replay.is_full)
    order = (np.arange(300) + int(replay.current_index)) % 300  # oldest first
    stored = jax.tree.map(lambda leaf: np.asarray(leaf)[0, order].reshape(75, 4, *leaf.shape[2:]), replay.experience)
    env = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    ends = 0
    for t in range(75):
        for e in range(4):
            env.state, env.steps_beyond_terminated = stored.obs[t, e].astype(float), None
            next_obs, reward, terminated, _, _ = env.step(int(stored.action[t, e]))
            np.testing.assert_allclose(stored.next_obs[t, e], next_obs, rtol=1e-5, atol=1e-6)
            assert stored.reward[t, e] == reward
            assert stored.terminated[t, e] == terminated
            assert not stored.truncated[t, e]
            ends += terminated
            if t + 1 < 75 and not terminated:  # the next step goes on from here
                np.testing.assert_array_equal(stored.obs[t + 1, e], stored.next_obs[t, e])
            elif t + 1 < 75:
                assert np.abs(stored.obs[t + 1, e]).max() <= 0.05  # a fresh start
    assert ends >= 2
