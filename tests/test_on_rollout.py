"""Learning without replay: lambda-returns against a loop, minibatches, time limits, and what it does not go with."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from purejaxdqn import load_config, make_train, run_many
from purejaxdqn.config.building import Own, make_program
from purejaxdqn.core.algorithm import ActorView
from purejaxdqn.core.config import Config
from purejaxdqn.core.environment import Environment
from purejaxdqn.core.keys import run_key
from purejaxdqn.core.many import lay_out, map_runs
from purejaxdqn.dqn import on_rollout
from purejaxdqn.dqn.bootstrap import Estimates, munchausen
from purejaxdqn.dqn.heads import categorical_head, gaussian_histogram, hl_gauss_head, quantile_head, scalar_head
from purejaxdqn.dqn.learner import Bootstrapped
from purejaxdqn.dqn.on_rollout import lambda_returns
from purejaxdqn.dqn.units import sequences, single_steps
from purejaxdqn.environments.registry import from_gymnax
from tests.conftest import PQN, jit_quickly, mostly_slow
from tests.probes import DISCOUNTING, EVERYTHING, TIME_LIMIT, CoinMDP, Table, TableMDP

GAMMA, T, E = 0.9, 7, 64


def hparams_with(**numbers):
    return Config().hparams()._replace(**{name: np.float32(value) for name, value in numbers.items()})


def random_rollout(value_shape=()):
    """Values, rewards, terminations and truncations: both, either and none occur at every step, the last included."""
    rng = np.random.default_rng(5)
    values = rng.uniform(size=(T, E, *value_shape))
    terminated, truncated = rng.uniform(size=(2, T, E)) < 0.4
    for flags in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert ((terminated == flags[0]) & (truncated == flags[1])).any(axis=1).all()
    return values, rng.normal(size=(T, E)), terminated, truncated


def ours(head, lam, values, reward, terminated, truncated, **numbers):
    steps = Bootstrapped(values, reward, np.where(terminated, 0, GAMMA))
    steps = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), steps)
    hparams = hparams_with(rollout_lambda=lam, **numbers)
    return np.asarray(jax.jit(functools.partial(lambda_returns, head))(hparams, steps, terminated | truncated))


@pytest.mark.parametrize("lam", [0.0, 0.65, 1.0])
def test_lambda_returns_are_those_of_a_loop(lam):
    values, reward, terminated, truncated = random_rollout()
    wanted = np.zeros((T, E))
    for e in range(E):
        for t in reversed(range(T)):
            if terminated[t, e]:
                wanted[t, e] = reward[t, e]
            elif truncated[t, e] or t == T - 1:
                wanted[t, e] = reward[t, e] + GAMMA * values[t, e]
            else:
                wanted[t, e] = reward[t, e] + GAMMA * ((1 - lam) * values[t, e] + lam * wanted[t + 1, e])
    np.testing.assert_allclose(
        ours(scalar_head("squared"), lam, values, reward, terminated, truncated), wanted, rtol=1e-5, atol=1e-5
    )


def test_lambda_0_gives_one_step_targets_and_1_the_discounted_return_and_what_follows():
    values, reward, terminated, truncated = random_rollout()
    one_step = reward + np.where(terminated, 0, GAMMA) * values
    np.testing.assert_allclose(
        ours(scalar_head("squared"), 0, values, reward, terminated, truncated), one_step, rtol=1e-5, atol=1e-5
    )
    whole = np.zeros((T, E))
    for e in range(E):
        for start in range(T):
            t, discount = start, 1.0
            while True:
                whole[start, e] += discount * reward[t, e]
                discount *= GAMMA
                if terminated[t, e] or truncated[t, e] or t == T - 1:
                    break
                t += 1
            whole[start, e] += 0 if terminated[t, e] else discount * values[t, e]
    np.testing.assert_allclose(
        ours(scalar_head("squared"), 1, values, reward, terminated, truncated), whole, rtol=1e-5, atol=1e-5
    )


def projected(mixture, low, high, atoms):
    """Mass of a mixture, (return, mass) pairs, on evenly spaced atoms: each goes to its two neighbours."""
    mass, spacing = np.zeros(atoms), (high - low) / (atoms - 1)
    for one, share in mixture:
        place = np.clip((one - low) / spacing, 0, atoms - 1)
        below = min(int(place), atoms - 2)
        mass[below] += share * (1 - (place - below))
        mass[below + 1] += share * (place - below)
    return mass


@pytest.mark.parametrize("lam", [0.0, 0.65, 1.0])
def test_categorical_lambda_returns_are_mixtures_of_shifted_distributions(lam):
    low, high, atoms = -4.0, 5.0, 13
    support = np.linspace(low, high, atoms)
    values, reward, terminated, truncated = random_rollout((atoms,))
    values /= values.sum(axis=-1, keepdims=True)
    target = ours(
        categorical_head(atoms),
        lam,
        values,
        reward,
        terminated,
        truncated,
        distribution_v_min=low,
        distribution_v_max=high,
    )
    np.testing.assert_allclose(target.sum(axis=-1), 1, atol=1e-5)
    for e in range(E):
        after = np.zeros(atoms)
        for t in reversed(range(T)):
            alone = terminated[t, e] or truncated[t, e] or t == T - 1
            parts = [(1.0, values[t, e])] if alone else [(1 - lam, values[t, e]), (lam, after)]
            discount = 0 if terminated[t, e] else GAMMA
            mixture = [
                (reward[t, e] + discount * place, share * mass)
                for share, masses in parts
                for place, mass in zip(support, masses, strict=True)
            ]
            after = projected(mixture, low, high, atoms)
            np.testing.assert_allclose(target[t, e], after, atol=1e-5)


def test_the_target_of_munchausen_is_its_equation():
    """With lambda: the mixture takes the place of the policy's mean, and bonus and entropy stay those of the step."""
    rng = np.random.default_rng(6)
    q_next, q_now = rng.normal(size=(2, T, E, 3))
    action = rng.integers(3, size=(T, E))
    _, reward, terminated, truncated = random_rollout()
    temperature, alpha, lam = 0.3, 0.9, 0.65
    hparams = hparams_with(bootstrap_temperature=temperature, bootstrap_alpha=alpha, bootstrap_clip=-1)
    flat = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32).reshape(T * E, -1), (q_next, q_now))
    backup = munchausen(
        hparams, Estimates(lambda: flat[0], lambda: flat[0], lambda: flat[1], jnp.asarray(action.reshape(-1)))
    )
    discount = np.where(terminated, 0, GAMMA)
    extra = np.asarray(backup.bonus).reshape(T, E) + discount * np.asarray(backup.entropy).reshape(T, E)
    values = np.sum(np.asarray(backup.policy).reshape(T, E, 3) * q_next, axis=-1)
    target = ours(scalar_head("squared"), lam, values, reward + extra, terminated, truncated)

    def log_policy(q):
        return (q - temperature * np.log(np.sum(np.exp(q / temperature)))) / temperature

    for e in range(E):
        after = 0.0
        for t in reversed(range(T)):
            log_next = log_policy(q_next[t, e])
            policy = np.exp(log_next)
            mean, entropy = policy @ q_next[t, e], -temperature * policy @ log_next
            if not (terminated[t, e] or truncated[t, e] or t == T - 1):
                mean = (1 - lam) * mean + lam * after
            bonus = alpha * np.clip(temperature * log_policy(q_now[t, e])[action[t, e]], -1, 0)
            after = reward[t, e] + bonus + discount[t, e] * (mean + entropy)
            np.testing.assert_allclose(target[t, e], after, rtol=1e-4, atol=1e-4)


def test_the_histogram_of_hl_gauss_is_the_papers():
    low, high, bins, ratio = -2.0, 3.0, 11, 0.75
    edges = np.linspace(low, high, bins + 1)
    mean = np.array([-7.0, -2.0, -1.9, 0.0, 0.31, 2.9, 3.0, 5.0])
    normal = stats.norm(np.clip(mean, low, high)[:, None], ratio * (high - low) / bins)
    cumulative = normal.cdf(edges)
    wanted = np.diff(cumulative) / (cumulative[:, -1:] - cumulative[:, :1])
    mass = gaussian_histogram(jnp.asarray(edges, jnp.float32), jnp.asarray(mean, jnp.float32), jnp.float32(ratio))
    np.testing.assert_allclose(mass, wanted, atol=1e-5)
    np.testing.assert_allclose(np.sum(mass, axis=-1), 1, atol=1e-6)


def test_the_mean_of_a_fitted_hl_gauss_head_is_the_target_inside_the_support():
    """At an edge half of the distribution is cut off: the mean is then that of the half that is left."""
    head, bins = hl_gauss_head(51), 51
    hparams = hparams_with(distribution_v_min=-10, distribution_v_max=10)
    target = jnp.asarray([-10.0, -5.0, 0.123, 7.77, 10.0])
    edges = jnp.linspace(-10, 10, bins + 1)
    logits = jnp.log(jnp.maximum(gaussian_histogram(edges, target, jnp.float32(0.75)), 1e-30))[:, None]
    q_values = np.asarray(head.q_values(hparams, logits))[:, 0]
    np.testing.assert_allclose(q_values[1:4], target[1:4], atol=1e-4)
    width = 20 / bins
    centres = np.asarray(edges[1:] + edges[:-1]) / 2
    half = np.diff(stats.norm(10, 0.75 * width).cdf(np.asarray(edges))) * 2
    np.testing.assert_allclose(q_values[[0, 4]], [-(half @ centres), half @ centres], atol=1e-4)
    # The cross-entropy is least, and its gradient 0, where the head has the histogram itself.
    gradient = jax.grad(lambda out: jnp.sum(head.loss(hparams, out, jnp.zeros(5, jnp.int32), target)[0]))(logits)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


def fitting(mdp, *overrides, network=None, iterations=120):
    """A function of lambda: the Q-values [S, A] of random behaviour, of a table or the config's own small network."""
    config = load_config(
        ["cartpole_cleanrl", "pqn"],
        [
            "env.num_envs=4",
            "gamma=0.5",
            "network={hidden: [32], layer_norm: false}",
            "optimizer={name: sgd, learning_rate: 0.5, anneal: false, max_grad_norm: null}",
            "exploration={start: 1, end: 1}",
            "rollout={steps: 8, epochs: 4, minibatches: 2, lambda: 0}",
            "evaluation={episodes: 1, final_episodes: 1}",
            "env.params.max_steps_in_episode=50",  # evaluation must end although some of these MDPs do not
            f"total_timesteps={(512 if MANY in overrides else 32) * iterations}",
            *overrides,
        ],
    )
    env = from_gymnax(mdp)
    params = env.default_params.replace(max_steps_in_episode=min(50, mdp.time_limit))
    env = env._replace(with_params=lambda overrides: params)
    program = make_program(config, Own(env=env, network=network))
    train = jit_quickly(program.train)

    def fit(trace):
        hparams = config.hparams()._replace(rollout_lambda=np.float32(trace))
        policy = train(hparams, jax.random.key(3)).params
        return np.asarray(program.algorithm.values(hparams, policy, ActorView(jnp.eye(len(mdp.terminal))))[0])

    return fit


def fitted(*arguments, trace=0.0, **options):
    return fitting(*arguments, **options)(trace)


MANY = "env.num_envs=64"
ADAM = "optimizer={name: adam, learning_rate: 0.05, anneal: true}"
OWN = "optimizer={name: adam, learning_rate: 5e-3, anneal: true}"
CATEGORICAL = "distribution={kind: categorical, atoms: 13, v_min: -1, v_max: 5}"
HL_GAUSS = "distribution={kind: hl_gauss, atoms: 24, v_min: -2, v_max: 4}"
HEADS = {
    "scalar": ("optimizer={name: sgd, learning_rate: 2.0, anneal: true}",),
    "categorical": (ADAM, CATEGORICAL),
    "hl_gauss": (ADAM, HL_GAUSS),
}


def fitting_everything(head):
    """``fitting`` of the MDP that has everything, by a table of this head. Its terminal state has a value at first."""
    atoms = {"scalar": (), "categorical": (13,), "hl_gauss": (24,)}[head]
    start = np.full((*EVERYTHING.reward.shape, *atoms), 3.0)
    return fitting(EVERYTHING, MANY, *HEADS[head], network=Table(start), iterations=200)


def error(fit, trace):
    """Largest error over the pairs of states and actions that are ever tried."""
    return np.abs(fit(trace) - EVERYTHING.exact_mixed_q(0.5, trace, steps=8))[~EVERYTHING.terminal].max()


@pytest.mark.parametrize("head", mostly_slow(HEADS, fast=["scalar"]))
def test_lambda_returns_reach_the_exact_solution_with_every_head(head):
    """With lambda 0 that of the greedy policy, and else that of a mixture with random behaviour."""
    fit = fitting_everything(head)
    assert error(fit, 0) < (1e-4 if head == "scalar" else 0.01)
    assert error(fit, 0.65) < 0.01


def test_the_exact_solutions_with_and_without_lambda_differ():
    alive = ~EVERYTHING.terminal
    one_step, mixed = (EVERYTHING.exact_mixed_q(0.5, trace, steps=8)[alive] for trace in (0, 0.65))
    np.testing.assert_allclose(one_step, EVERYTHING.exact_q(0.5)[alive], atol=1e-12)
    assert np.abs(one_step - mixed).max() > 0.2
    assert np.ptp(mixed, axis=-1).min() > 0.3  # in no state are the actions alike


ENDINGS = {
    "a time limit is a termination": lambda steps: {"terminated": steps.terminated | steps.truncated},
    "a termination is a time limit": lambda steps: {"terminated": jnp.zeros_like(steps.terminated)},
}


@pytest.mark.parametrize(
    ("ending", "head"),
    [
        ("a time limit is a termination", "scalar"),
        pytest.param("a time limit is a termination", "categorical", marks=pytest.mark.slow),
        pytest.param("a time limit is a termination", "hl_gauss", marks=pytest.mark.slow),
        pytest.param("a termination is a time limit", "scalar", marks=pytest.mark.slow),
    ],
)
def test_a_wrong_ending_is_told_apart(monkeypatch, ending, head):
    right = on_rollout.fold
    monkeypatch.setattr(
        on_rollout, "fold", lambda steps, **numbers: right(steps._replace(**ENDINGS[ending](steps)), **numbers)
    )
    assert error(fitting_everything(head), 0.65) > 0.2


def test_targets_of_a_target_network_reach_it_too():
    q = fitted(
        DISCOUNTING,
        "schedule={target_every: 64}",
        "bootstrap.kind=double",
        network=Table(np.zeros((3, 2))),
        iterations=160,
    )
    np.testing.assert_allclose(q, DISCOUNTING.exact_q(0.5), atol=1e-3)


def test_targets_are_those_of_the_target_network():
    """Without a copy of the online network the whole run is one step of value iteration from the start."""
    start = np.full((3, 2), 3.0)
    q = fitted(DISCOUNTING, "schedule={target_every: 3840}", network=Table(start))
    np.testing.assert_allclose(q, DISCOUNTING.exact_q(0.5, 1, start=start), atol=1e-3)


@pytest.mark.parametrize(
    "overrides",
    [
        [OWN, "bootstrap={kind: munchausen, temperature: 1e-3}"],
        pytest.param([OWN, "network={dueling: true, noisy: true}"], marks=pytest.mark.slow),
        pytest.param([OWN, "env.normalize=true"], marks=pytest.mark.slow),
        pytest.param([OWN, "optimizer.name=radam"], marks=pytest.mark.slow),
    ],
)
def test_a_time_limit_is_no_termination_under_every_choice(overrides):
    """Q(2, .) is 2 by what comes after the limit; a limit taken for an end makes it 1. No action matters."""
    np.testing.assert_allclose(fitted(TIME_LIMIT, *overrides, trace=0.65), TIME_LIMIT.exact_q(0.5), atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CATEGORICAL, HL_GAUSS])
def test_a_distribution_reaches_the_mean_of_a_random_return(kind):
    atoms = 13 if kind == CATEGORICAL else 24
    network = Table(np.zeros((4, 2, atoms)))
    q = fitted(CoinMDP(), ADAM, kind, "env.params={}", network=network, iterations=250)
    np.testing.assert_allclose(q[:3], [[0.25, 0.25], [2, 2], [-1, -1]], atol=0.08)


@pytest.mark.parametrize("make", [single_steps, sequences])
def test_units_are_single_steps_or_all_steps_of_an_environment_with_time_first_in_a_batch(make):
    numbers = np.arange(3 * 4 * 2).reshape(3, 4, 2)  # [T, E, ...]
    units = make(3, 4)
    cut = units.cut({"leaf": numbers})
    wanted = numbers.reshape(12, 2) if make is single_steps else np.stack([numbers[:, e] for e in range(4)])
    np.testing.assert_array_equal(cut["leaf"], wanted)
    assert units.number == len(wanted)
    np.testing.assert_array_equal(units.uncut(cut)["leaf"], numbers)
    some = jax.tree.map(lambda leaf: leaf[np.array([2, 0])], cut)
    items = units.items(some)
    order = [2, 0] if make is single_steps else [2, 0, 6, 4, 10, 8]  # step by step: environments 2 and 0
    np.testing.assert_array_equal(items["leaf"], numbers.reshape(12, 2)[order])
    np.testing.assert_array_equal(units.of_items(items)["leaf"], some["leaf"])


class Line(TableMDP):
    """One state after another in a circle of T x E: each step of a rollout shows another one-hot observation."""

    def __init__(self, length):
        super().__init__([[(i + 1) % length] * 2 for i in range(length)], np.zeros((length, 2)), [False] * length)


LENGTH, EPOCHS, ROLLOUTS, MINIBATCHES = 24, 3, 20, 4


def train_on_a_line(**parts):
    """Train on rollouts that each show every state of a line once; the policy."""
    config = load_config(
        "cartpole_cleanrl",
        [
            *PQN,
            "env.num_envs=1",
            f"total_timesteps={LENGTH * ROLLOUTS}",
            f"rollout={{steps: {LENGTH}, epochs: {EPOCHS}, minibatches: {MINIBATCHES}}}",
            "optimizer={name: sgd, learning_rate: 6.0, anneal: false, max_grad_norm: null}",  # undoes the mean of 6
            "env.params={}",
        ],
    )
    train = make_train(config, env=from_gymnax(Line(LENGTH)), network=Table(np.zeros((LENGTH, 2))), **parts)
    return jit_quickly(train)(config.hparams(), jax.random.key(0)).params


def test_the_gradients_of_a_minibatch_are_those_of_its_steps():
    """The loss is minus the output and the optimiser adds it up: the table counts how often each state is learned."""

    def count(hparams, out, action, target):
        taken = jnp.take_along_axis(out, action[:, None], axis=1)[:, 0]
        return -taken, taken

    policy = train_on_a_line(head=scalar_head("squared")._replace(loss=count))
    np.testing.assert_allclose(np.sum(policy["q"], axis=1), EPOCHS * ROLLOUTS, rtol=1e-5)


def repeats_of_a_run(monkeypatch):
    """What a run repeats of "steps" within an epoch, "orders" of epochs and "keys" of targets and gradient steps."""
    steps, keys = [], []
    sample, draw = on_rollout._sample, on_rollout.draw

    def record(kept, array):
        jax.debug.callback(lambda values: kept.append(np.asarray(values)), array, ordered=True)

    def recorded_sample(parts, units, state, minibatch, key):
        record(steps, jnp.argmax(minibatch[0][0], axis=-1))  # the observation shows which step it is of
        return sample(parts, units, state, minibatch, key)

    def recorded_draw(parts, params, key, size):
        record(keys, jax.random.key_data(key))
        return draw(parts, params, key, size)

    with monkeypatch.context() as patch:
        patch.setattr(on_rollout, "_sample", recorded_sample)
        patch.setattr(on_rollout, "draw", recorded_draw)
        train_on_a_line()
        jax.effects_barrier()
    assert (len(steps), len(keys)) == (ROLLOUTS * EPOCHS * MINIBATCHES, ROLLOUTS * (1 + EPOCHS * MINIBATCHES))
    orders = np.reshape(steps, (ROLLOUTS * EPOCHS, LENGTH))
    repeated = {
        "steps": (np.sort(orders, axis=1) != np.arange(LENGTH)).any(),
        "orders": len(np.unique(orders, axis=0)) < len(orders),
        "keys": len(np.unique(keys, axis=0)) < len(keys),
    }
    return {name for name, is_repeated in repeated.items() if is_repeated}


def test_every_epoch_learns_every_step_once_in_an_order_and_with_keys_of_its_own(monkeypatch):
    assert repeats_of_a_run(monkeypatch) == set()


ORDERS = {
    "one order for all epochs of a rollout": (
        "orders",
        lambda right, bits: jnp.broadcast_to(right(bits[:1]), bits.shape),
    ),
    "the same orders in every rollout": (
        "orders",
        lambda right, bits: right(jax.random.bits(jax.random.key(0), bits.shape)),
    ),
    "steps drawn with replacement": ("steps", lambda right, bits: (bits % LENGTH).astype(jnp.int32)),
}
KEYS = {
    "one key for all gradient steps of a rollout": lambda draws: jnp.broadcast_to(draws.keys[0], draws.keys.shape),
    "the same keys in every epoch": lambda draws: jnp.tile(draws.keys[:MINIBATCHES], EPOCHS),
    "the key of the targets in a gradient step": lambda draws: draws.keys.at[0].set(draws.target_key),
}


@pytest.mark.parametrize("fault", mostly_slow(ORDERS, fast=["one order for all epochs of a rollout"]))
def test_a_repeated_step_or_order_is_told_apart(monkeypatch, fault):
    repeated, order = ORDERS[fault]
    right = on_rollout.kernels.permutations
    monkeypatch.setattr(on_rollout.kernels, "permutations", lambda bits: order(right, bits))
    assert repeats_of_a_run(monkeypatch) == {repeated}


@pytest.mark.parametrize("fault", mostly_slow(KEYS, fast=["one key for all gradient steps of a rollout"]))
def test_a_repeated_key_is_told_apart(monkeypatch, fault):
    right = on_rollout._fit

    def fit(*arguments):
        *others, draws, rate = arguments
        return right(*others, draws._replace(keys=KEYS[fault](draws)), rate)

    monkeypatch.setattr(on_rollout, "_fit", fit)
    assert repeats_of_a_run(monkeypatch) == {"keys"}


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_users")
def test_a_seed_does_not_depend_on_the_seeds_beside_it_nor_on_segments():
    config = load_config("cartpole_cleanrl", [*PQN, "env.normalize=true", "network.noisy=true"])
    keys = jnp.stack([run_key(np.uint32(0), np.uint32(k)) for k in range(3)])
    program, layout = make_program(config), lay_out(1)
    hparams = jax.tree.map(lambda leaf: np.asarray(leaf)[None], config.hparams())
    state = map_runs(program.init, layout)(hparams, keys[2:])
    segment = map_runs(lambda hparams, state: program.segment(hparams, state, 10), layout, in_place=True)
    parts = []
    for _ in range(2):
        state, rows = segment(hparams, state)
        parts.append(rows)
    rows = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1)[0], *jax.device_get(parts))
    many = run_many(config, config.hparams(), keys)
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one, other[0, 2]), rows, jax.device_get(many.rows))
    policy = jax.tree.map(lambda leaf: leaf[0], program.algorithm.policy(state.algorithm))
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one, other[0, 2]), policy, many.params)


def test_no_key_is_used_twice():
    config = load_config("cartpole_cleanrl", [*PQN, "network.noisy=true"])
    with jax.debug_key_reuse(True):
        jax.make_jaxpr(make_program(config).train)(config.hparams(), jax.random.key(0))


def test_a_head_that_cannot_mix_values_is_refused():
    config = load_config("cartpole_cleanrl", PQN)
    with pytest.raises(ValueError, match=r"Head\.mixes"):
        make_train(config, head=quantile_head(4))


def test_a_replay_of_your_own_is_refused():
    config = load_config("cartpole_cleanrl", PQN)
    with pytest.raises(ValueError, match=r"replay\.kind is none"):
        make_train(config, replay=SimpleNamespace())


def test_the_state_holds_neither_a_rollout_nor_a_second_network():
    config = load_config("cartpole_cleanrl", PQN)
    program = make_program(config)
    state = jax.eval_shape(program.init, config.hparams(), jax.random.key(0))
    assert state.algorithm.target == ()
    assert isinstance(program.env, Environment)
    largest = max(leaf.size for leaf in jax.tree.leaves(state))
    assert largest <= 16 * 16
