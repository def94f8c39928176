"""Targets, losses and updates against rlax, the formulas in NumPy, and hand-computed tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from scipy.special import logsumexp

from purejaxdqn import load_config
from purejaxdqn.config.building import Own, make_algorithm, make_parts
from purejaxdqn.core.algorithm import ActorView
from purejaxdqn.core.config import Config
from purejaxdqn.core.draws import ActDraws
from purejaxdqn.core.kernels import global_norm
from purejaxdqn.core.schedules import epsilon, make_clock
from purejaxdqn.dqn.bootstrap import Estimates, double, greedy, munchausen
from purejaxdqn.dqn.heads import scalar_head
from purejaxdqn.dqn.learner import make_learner
from purejaxdqn.dqn.optimizers import OPTIMIZERS
from purejaxdqn.dqn.types import Batch, Transition
from purejaxdqn.environments.registry import from_gymnax
from tests.probes import Table, TableMDP

B, S, A = 64, 3, 2


@pytest.fixture
def values():
    generator = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(generator.normal(size=shape) * 3, jnp.float32)  # noqa: E731
    return {
        "q": draw(B, A),
        "next_target_q": draw(B, A),
        "next_online_q": draw(B, A),
        "target_q": draw(B, A),
        "action": jnp.asarray(generator.integers(0, A, B)),
        "reward": draw(B),
        "discount": jnp.asarray(0.9 * generator.integers(0, 2, B), jnp.float32),
    }


HPARAMS = Config().hparams()


def estimates(values):
    return Estimates(
        target_next=lambda: values["next_target_q"],
        online_next=lambda: values["next_online_q"],
        target_now=lambda: values["target_q"],
        action=values["action"],
    )


def td_error_of(bootstrap, values):
    head, backup = scalar_head("squared"), bootstrap(HPARAMS, estimates(values))
    reward = values["reward"] + backup.bonus + values["discount"] * backup.entropy
    target = head.target(HPARAMS, values["next_target_q"], backup.policy, reward, values["discount"])
    return head.loss(HPARAMS, values["q"], values["action"], target)[1]


def test_the_greedy_td_error_is_rlax_q_learning(values):
    td_error = td_error_of(greedy, values)
    expected = jax.vmap(rlax.q_learning)(
        values["q"], values["action"], values["reward"], values["discount"], values["next_target_q"]
    )
    np.testing.assert_allclose(td_error, expected, rtol=1e-6, atol=1e-6)


def test_the_double_td_error_is_rlax_double_q_learning(values):
    td_error = td_error_of(double, values)
    expected = jax.vmap(rlax.double_q_learning)(
        values["q"],
        values["action"],
        values["reward"],
        values["discount"],
        values["next_target_q"],
        values["next_online_q"],
    )
    np.testing.assert_allclose(td_error, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "oracle"), [("huber", rlax.huber_loss), ("squared", lambda td_error: 2 * rlax.l2_loss(td_error))]
)
def test_losses_are_rlax_losses_of_the_td_error(values, loss, oracle):
    losses, td_error = scalar_head(loss).loss(HPARAMS, values["q"], values["action"], values["reward"])
    assert np.abs(td_error).min() < 1 < np.abs(td_error).max()  # both sides of Huber's corner
    np.testing.assert_allclose(losses, oracle(td_error), rtol=1e-6)


@pytest.mark.parametrize(("temperature", "clip"), [(0.03, -1.0), (1.0, -1.0), (1.0, -100.0), (20.0, -30.0)])
def test_the_munchausen_td_error_is_the_papers_in_float64(values, temperature, clip):
    """Vieillard et al. 2020, eq. 2, with every softmax written out."""
    q, next_q, target_q = (np.asarray(values[name], np.float64) for name in ("q", "next_target_q", "target_q"))
    rows, action = np.arange(B), np.asarray(values["action"])

    def log_policy(q):
        return q / temperature - logsumexp(q / temperature, axis=-1, keepdims=True)

    bonus = temperature * log_policy(target_q)[rows, action]
    clipped = np.clip(bonus, clip, 0)
    assert (
        (0 < np.mean(clipped != bonus) < 1) if clip == -1 else np.all(clipped == bonus)
    )  # the bound is reached, or not
    policy = np.exp(log_policy(next_q))
    soft_value = np.sum(policy * (next_q - temperature * log_policy(next_q)), -1)
    wanted = (
        values["reward"] + 0.9 * clipped + np.asarray(values["discount"], np.float64) * soft_value - q[rows, action]
    )
    hparams = HPARAMS._replace(bootstrap_temperature=np.float32(temperature), bootstrap_clip=np.float32(clip))
    backup = munchausen(hparams, estimates(values))
    reward = values["reward"] + backup.bonus + values["discount"] * backup.entropy
    head = scalar_head("squared")
    target = head.target(hparams, values["next_target_q"], backup.policy, reward, values["discount"])
    np.testing.assert_allclose(
        head.loss(hparams, values["q"], values["action"], target)[1], wanted, rtol=1e-4, atol=1e-4
    )


MDP = TableMDP([[1, 2], [1, 0], [2, 2]], [[0, 1], [2, -1], [0, 0]], [False, False, True])


OWN = Own(network=Table(np.zeros((S, A))))


def _learning(*overrides):
    """A config, and the learner of a table that it describes."""
    config = load_config("cartpole_cleanrl", overrides)
    return config, make_learner(make_parts(config, from_gymnax(MDP), OWN))


def _clock(config, env_step=0):
    read = make_clock(warmup=config.schedule.warmup, anneal=config.optimizer.anneal)
    return read(config.hparams(), jnp.int32(env_step))


def _batch(values):
    states, next_states = np.arange(B) % S, (np.arange(B) * 2) % S
    transition = Transition(
        obs=jax.nn.one_hot(states, S),
        action=values["action"],
        reward=values["reward"],
        discount=values["discount"],
        next_obs=jax.nn.one_hot(next_states, S),
    )
    weight = jnp.linspace(0.5, 1.5, B)
    return states, next_states, Batch(transition, weight, jnp.arange(B))


@pytest.mark.parametrize("max_grad_norm", ["null", "0.25", "1000"])
@pytest.mark.parametrize("kind", ["greedy", "double"])
def test_an_sgd_update_of_a_table_is_the_formula_in_numpy(values, max_grad_norm, kind):
    config, learning = _learning(
        "optimizer.name=sgd",
        "optimizer.learning_rate=0.1",
        f"optimizer.max_grad_norm={max_grad_norm}",
        f"bootstrap.kind={kind}",
    )
    states, next_states, batch = _batch(values)
    generator = np.random.default_rng(2)
    online, target = generator.normal(size=(2, S, A))
    learner = learning.init(config.hparams(), jax.random.key(0))._replace(
        online={"q": jnp.asarray(online, jnp.float32)}, target={"q": jnp.asarray(target, jnp.float32)}
    )
    new, td_error, stats = learning.update(
        config.hparams(), learner, batch, jax.random.key(1), _clock(config).learning_rate()
    )

    action, reward, discount, weight = (np.asarray(x, np.float64) for x in (*batch.transition[1:4], batch.weight))
    action = action.astype(int)
    best = (online if kind == "double" else target)[next_states].argmax(-1)
    wanted = reward + discount * target[next_states, best]
    error = wanted - online[states, action]
    gradient = np.zeros((S, A))
    np.add.at(gradient, (states, action), -2 * weight * error / B)
    norm = np.linalg.norm(gradient)
    limit = np.inf if max_grad_norm == "null" else float(max_grad_norm)
    np.testing.assert_allclose(td_error, error, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(stats.grad_norm, norm, rtol=1e-5)
    np.testing.assert_allclose(stats.loss, np.mean(weight * error**2), rtol=1e-5)
    np.testing.assert_allclose(stats.q_value, np.mean(online[states, action]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(new.online["q"], online - 0.1 * min(1, limit / norm) * gradient, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(new.target["q"], learner.target["q"])


def test_gradients_without_a_limit_stay_where_their_norm_leaves_float32(values):
    config, learning = _learning("optimizer.name=sgd", "optimizer.learning_rate=1e-20", "optimizer.max_grad_norm=null")
    states, _, batch = _batch({**values, "reward": jnp.full(B, 1e25)})
    learner = learning.init(config.hparams(), jax.random.key(0))
    new, _, stats = learning.update(config.hparams(), learner, batch, jax.random.key(1), _clock(config).learning_rate())

    wanted = np.array(learner.online["q"], np.float64)
    np.add.at(wanted, (states, np.asarray(batch.transition.action)), 1e-20 * 2 * np.asarray(batch.weight) * 1e25 / B)
    assert np.isinf(stats.grad_norm)
    np.testing.assert_allclose(new.online["q"], wanted, rtol=1e-5)


@pytest.mark.parametrize("shape", [(127, 129), (128, 128), (120, 150), (16_385,), (64, 3, 10, 10), (5, 2, 2)], ids=str)
def test_the_norm_of_a_gradient_of_any_size_is_euclidean(shape):
    gradient = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    tree = {"weight": jnp.asarray(gradient), "bias": jnp.asarray([3.0, -4.0])}
    wanted = np.sqrt(np.sum(np.square(gradient, dtype=np.float64)) + 25.0)
    np.testing.assert_allclose(global_norm(tree), wanted, rtol=1e-6)


def test_the_norm_of_a_large_gradient_is_no_long_sum():
    sums = [one for one in jax.make_jaxpr(global_norm)(jnp.ones((128, 130))).eqns if one.primitive.name == "reduce_sum"]
    assert [one.invars[0].aval.size for one in sums] == [128 * 130 / 32]


@pytest.mark.parametrize("tau", [1.0, 0.25])
def test_a_sync_moves_the_target_by_tau(tau):
    config, learning = _learning(f"schedule.tau={tau}")
    learner = learning.init(config.hparams(), jax.random.key(0))
    learner = learner._replace(online={"q": jnp.full((S, A), 4.0)}, target={"q": jnp.full((S, A), 2.0)})
    synced = learning.sync(config.hparams(), learner)
    np.testing.assert_allclose(synced.target["q"], 2.0 + 2.0 * tau)
    np.testing.assert_array_equal(synced.online["q"], learner.online["q"])


def _first_updates(name, *overrides, env_step=0):
    config, learning = _learning(f"optimizer.name={name}", "optimizer.learning_rate=0.01", *overrides)
    learner = learning.init(config.hparams(), jax.random.key(0))
    ones = Transition(jax.nn.one_hot([0], S), jnp.array([0]), jnp.ones(1), jnp.zeros(1), jax.nn.one_hot([0], S))
    batch = Batch(ones, jnp.ones(1), jnp.zeros(1, int))
    new, _, _ = learning.update(
        config.hparams(), learner, batch, jax.random.key(1), _clock(config, env_step).learning_rate()
    )
    return float(new.online["q"][0, 0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", 0.01 * 2),  # the gradient of (1 - q)^2 at q = 0 is -2
        ("adam", 0.01),  # the first step has the length of the rate
        ("adamw", 0.01),  # nothing to decay at 0
        ("rmsprop", 0.01 / np.sqrt(0.05)),  # the mean square starts at 0 and decays by 0.95
        ("rmsprop, centered: true", 0.01 / np.sqrt(0.05 - 0.05**2)),  # less the square of the mean
    ],
)
def test_the_first_step_of_each_optimizer_has_its_known_length(name, expected):
    name, *centered = name.split(", ")
    overrides = ["optimizer.centered=true"] if centered else []
    assert _first_updates(name, *overrides) == pytest.approx(expected, rel=1e-4)


def test_centred_rmsprop_stays_finite_where_a_gradient_hardly_changes():
    config = load_config("cartpole_cleanrl", ["optimizer={name: rmsprop, centered: true}"])
    optimizer = OPTIMIZERS.make(config)(HPARAMS, HPARAMS.optimizer_learning_rate)
    sizes = np.geomspace(1e-2, 1e3, 200).astype(np.float32)
    noise = 1 + 1e-5 * np.random.default_rng(0).normal(size=(2000, 200)).astype(np.float32)

    def step(state, grads):
        updates, state = optimizer.update(grads, state)
        return state, updates

    _, updates = jax.lax.scan(step, optimizer.init(jnp.asarray(sizes)), jnp.asarray(sizes * noise))
    assert np.all(np.isfinite(updates))


@pytest.mark.parametrize(("env_step", "share"), [(0, 1.0), (125_000, 0.75), (500_000, 0.0), (600_000, 0.0)])
def test_annealing_takes_the_rate_to_zero_over_the_run(env_step, share):
    assert _first_updates("sgd", "optimizer.anneal=true", env_step=env_step) == pytest.approx(0.02 * share, abs=1e-9)


@pytest.mark.parametrize(
    ("env_step", "expected"),
    [(0, 1.0), (10_000, 1.0), (10_000 + 25_000, 0.525), (10_000 + 50_000, 0.05), (100_000, 0.05)],
)
def test_epsilon_falls_in_a_line_from_the_end_of_the_warm_up(env_step, expected):
    hparams = Config().hparams()  # half of 100,000 steps, from 1 to 0.05
    assert float(epsilon(hparams, jnp.int32(env_step), warmup=10_000)) == pytest.approx(expected, abs=1e-6)


def test_a_decay_of_no_length_is_a_jump():
    hparams = Config().hparams()._replace(exploration_fraction=np.float32(0))
    assert float(epsilon(hparams, jnp.int32(10_001), warmup=10_000)) == pytest.approx(0.05)


def test_epsilon_greedy_takes_the_drawn_action_just_where_the_draw_is_below_epsilon():
    config = load_config("cartpole_cleanrl", [])
    algorithm = make_algorithm(config, from_gymnax(MDP), OWN)
    q_values = {"q": jnp.array([[0.0, 1.0], [1.0, 0.0], [7.0, 7.0]])}
    seen = ActorView(jax.nn.one_hot(jnp.array([0, 1, 0, 1]), S))
    draws = ActDraws(jnp.array([0.1, 0.1, 0.3, 0.2]), jnp.array([0, 1, 2, 3], jnp.uint32), jax.random.key(0))
    clock = _clock(config)._replace(epsilon=lambda: jnp.float32(0.2))
    action, memory = algorithm.act(config.hparams(), q_values, seen, draws, clock)
    np.testing.assert_array_equal(action, [0, 1, 1, 0])
    assert memory == ()
