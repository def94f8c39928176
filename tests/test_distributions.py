"""Heads of return distributions against rlax, the papers' formulas in float64 NumPy, and tables made by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from scipy import stats

from purejaxdqn.core.config import Config
from purejaxdqn.core.kernels import quantile_huber
from purejaxdqn.dqn.heads import HEADS, RISKS, project
from purejaxdqn.dqn.types import Quantiles

B, A, K = 32, 3, 7
LOW, HIGH = -4.0, 9.0


def supported(low, high):
    """The numbers of a run, with a support from ``low`` to ``high``."""
    return Config().hparams()._replace(distribution_v_min=np.float32(low), distribution_v_max=np.float32(high))


HPARAMS = supported(LOW, HIGH)._replace(distribution_kappa=np.float32(1.0))


def head_of(kind, atoms=K, risk="neutral"):
    distribution = {"kind": kind, "atoms": atoms, "risk": risk}
    return HEADS.make(Config.model_validate({"loss": "huber", "distribution": distribution}))


@pytest.fixture
def values():
    generator = np.random.default_rng(3)
    draw = lambda *shape: jnp.asarray(generator.normal(size=shape) * 2, jnp.float32)  # noqa: E731
    return {
        "out": draw(B, A, K),
        "next_out": draw(B, A, K),
        "selector": draw(B, A),
        "action": jnp.asarray(generator.integers(0, A, B)),
        "reward": draw(B),
        "discount": jnp.asarray(0.9 * generator.integers(0, 2, B), jnp.float32),
        "fractions": jnp.asarray(generator.uniform(size=(B, K)), jnp.float32),
    }


def one_hot(q):
    return jax.nn.one_hot(jnp.argmax(q, -1), A)


def loss_of(head, values, policy, out=None, next_out=None):
    out, next_out = values["out"] if out is None else out, values["next_out"] if next_out is None else next_out
    target = head.target(HPARAMS, next_out, policy, values["reward"], values["discount"])
    return head.loss(HPARAMS, out, values["action"], target)


@pytest.mark.slow
def test_the_categorical_loss_is_rlax_categorical_q_learning(values):
    head, atoms = head_of("categorical"), jnp.linspace(LOW, HIGH, K)
    losses, _ = loss_of(head, values, one_hot(head.q_values(HPARAMS, values["next_out"])))
    expected = jax.vmap(rlax.categorical_q_learning, (None, 0, 0, 0, 0, None, 0))(
        atoms, values["out"], values["action"], values["reward"], values["discount"], atoms, values["next_out"]
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)


def test_the_categorical_double_loss_is_rlax_categorical_double_q_learning(values):
    atoms = jnp.linspace(LOW, HIGH, K)
    losses, _ = loss_of(head_of("categorical"), values, one_hot(values["selector"]))
    expected = jax.vmap(rlax.categorical_double_q_learning, (None, 0, 0, 0, 0, None, 0, 0))(
        atoms,
        values["out"],
        values["action"],
        values["reward"],
        values["discount"],
        atoms,
        values["next_out"],
        values["selector"],
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)


def test_the_categorical_priority_is_the_divergence_from_the_target(values):
    head, policy = head_of("categorical"), one_hot(values["selector"])
    target = np.asarray(head.target(HPARAMS, values["next_out"], policy, values["reward"], values["discount"]))
    predicted = np.asarray(jax.nn.softmax(values["out"]))[np.arange(B), values["action"]]
    np.testing.assert_allclose(
        loss_of(head, values, policy)[1], stats.entropy(target, predicted, axis=-1), rtol=1e-4, atol=1e-5
    )


def projected(returns, probabilities, low, high):
    """Bellemare et al. 2017, algorithm 1, in a loop."""
    atoms = returns.shape[-1]
    result = np.zeros(returns.shape)
    for b in range(returns.shape[0]):
        for j in range(atoms):
            place = (min(max(returns[b, j], low), high) - low) / ((high - low) / (atoms - 1))
            lower, upper = int(np.floor(place)), int(np.ceil(place))
            if lower == upper:
                result[b, lower] += probabilities[b, j]
            else:
                result[b, lower] += probabilities[b, j] * (upper - place)
                result[b, upper] += probabilities[b, j] * (place - lower)
    return result


@pytest.mark.parametrize("seed", range(5))
def test_the_projection_is_the_papers_loop_over_random_supports(seed):
    generator = np.random.default_rng(seed)
    atoms = int(generator.integers(2, 60))
    low = generator.normal() * 5
    high = low + generator.exponential() * 10
    returns = generator.normal(size=(B, atoms)) * 8
    returns[0], returns[1] = low - 3, high + 3  # all below, all above
    returns[2] = np.linspace(low, high, atoms)  # just on the support
    probabilities = generator.dirichlet(np.ones(atoms), B)
    hparams = supported(low, high)
    ours = np.asarray(project(hparams, jnp.asarray(returns, jnp.float32), jnp.asarray(probabilities, jnp.float32)))
    np.testing.assert_allclose(ours, projected(returns, probabilities, low, high), atol=2e-5)
    np.testing.assert_allclose(ours.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(ours[0, 0], 1, atol=1e-5)
    np.testing.assert_allclose(ours[1, -1], 1, atol=1e-5)


def test_a_projection_made_by_hand():
    """Support 0, 1, 2. A return of 1.25 gives a quarter of its probability to 2; 5 goes to the edge."""
    hparams = supported(0, 2)
    ours = project(hparams, jnp.array([[1.25, 5.0, 0.5]]), jnp.array([[0.4, 0.2, 0.4]]))
    np.testing.assert_allclose(ours, [[0.2, 0.3 + 0.2, 0.1 + 0.2]], atol=1e-6)


def test_categorical_q_values_are_the_means_of_the_distributions():
    logits = jnp.log(jnp.array([[[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]]]))
    hparams = supported(-1, 3)
    np.testing.assert_allclose(head_of("categorical", 3).q_values(hparams, logits), [[0.0, 2.5]], atol=1e-6)


def quantile_loss(values, fractions, returns, weights, kappa=1.0):
    """Dabney et al. 2018a, eq. 9 and 10, in float64."""
    values, fractions, returns, weights = (np.asarray(x, np.float64) for x in (values, fractions, returns, weights))
    error = returns[:, None, :] - values[:, :, None]
    huber = np.where(np.abs(error) <= kappa, error**2 / 2, kappa * (np.abs(error) - kappa / 2))
    slope = np.abs(np.broadcast_to(fractions, values.shape)[:, :, None] - (error < 0))
    return np.sum(slope * huber / kappa * np.broadcast_to(weights, returns.shape)[:, None, :], (1, 2))


@pytest.mark.parametrize("kappa", [0.1, 1.0, 5.0])
def test_the_quantile_loss_and_its_gradient_are_the_papers_in_float64(values, kappa):
    predicted, returns = values["out"][:, 0], values["next_out"][:, 1]
    weights = jax.nn.softmax(values["next_out"][:, 2])
    arguments = (values["fractions"], returns, weights)
    ours = quantile_huber(predicted, *arguments, jnp.float32(kappa))
    np.testing.assert_allclose(ours, quantile_loss(predicted, *arguments, kappa), rtol=2e-5)
    gradient = jax.grad(lambda predicted: jnp.sum(quantile_huber(predicted, *arguments, jnp.float32(kappa)) ** 2))(
        predicted
    )
    step, numeric = 1e-6, np.zeros((B, K))
    for i in range(K):
        up, down = (np.array(predicted, np.float64) for _ in range(2))
        up[:, i] += step
        down[:, i] -= step
        rise, fall = quantile_loss(up, *arguments, kappa) ** 2, quantile_loss(down, *arguments, kappa) ** 2
        numeric[:, i] = (rise - fall) / (2 * step)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=1e-4)


def test_a_quantile_loss_made_by_hand():
    """One value 0 at fraction 0.25 against returns 3 and -0.5: 0.25 * 2.5 and 0.75 * 0.125, each half."""
    ours = quantile_huber(
        jnp.zeros((1, 1)), jnp.array([0.25]), jnp.array([[3.0, -0.5]]), jnp.array([0.5, 0.5]), jnp.float32(1)
    )
    np.testing.assert_allclose(ours, [0.5 * 0.25 * 2.5 + 0.5 * 0.75 * 0.125])


def test_the_quantile_loss_is_rlax_quantile_q_learning(values):
    head = head_of("quantile")
    losses, _ = loss_of(head, values, one_hot(head.q_values(HPARAMS, values["next_out"])))
    midpoints = (jnp.arange(K) + 0.5) / K
    expected = jax.vmap(
        lambda out, a, r, d, next_out: rlax.quantile_q_learning(out.T, midpoints, a, r, d, next_out.T, next_out.T, 1.0)
    )(values["out"], values["action"], values["reward"], values["discount"], values["next_out"])
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)


def test_the_implicit_loss_is_rlax_quantile_q_learning_at_the_drawn_fractions(values):
    head, uniform = head_of("iqn"), jnp.full(K, 1 / K)
    out = Quantiles(values["out"], values["fractions"], uniform)
    losses, _ = loss_of(
        head, values, one_hot(values["selector"]), out, Quantiles(values["next_out"], values["fractions"], uniform)
    )
    selector = jnp.repeat(values["selector"][:, None], K, axis=1)
    expected = jax.vmap(
        lambda out, tau, a, r, d, select, next_out: rlax.quantile_q_learning(
            out.T, tau, a, r, d, select, next_out.T, 1.0
        )
    )(
        values["out"],
        values["fractions"],
        values["action"],
        values["reward"],
        values["discount"],
        selector,
        values["next_out"],
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)


def test_a_mixed_policy_mixes_distributions(values):
    """Probabilities for the categorical head, quantile functions for the others."""
    policy = jax.nn.softmax(values["selector"])
    reward, discount = jnp.zeros(B), jnp.ones(B)
    mixed = np.einsum("ba,bak->bk", policy, jax.nn.softmax(values["next_out"]))
    ours = head_of("categorical").target(HPARAMS, values["next_out"], policy, reward, discount)
    np.testing.assert_allclose(ours, mixed, atol=1e-5)
    ours = head_of("quantile").target(HPARAMS, values["next_out"], policy, reward, discount)
    np.testing.assert_allclose(ours.returns, np.einsum("ba,bak->bk", policy, values["next_out"]), atol=1e-5)


@pytest.mark.parametrize("kind", ["scalar", "categorical", "quantile"])
def test_no_gradient_flows_through_the_target(values, kind):
    head = head_of(kind)
    next_out = values["selector"] if kind == "scalar" else values["next_out"]

    def target_sum(next_out):
        policy = one_hot(head.q_values(HPARAMS, next_out))
        target = head.target(HPARAMS, next_out, policy, values["reward"], values["discount"])
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(target))

    assert target_sum(next_out) > 0
    assert not np.any(jax.grad(target_sum)(next_out))


def quantile_function(fractions):
    return 3 * fractions**2 - 1


def distance(edges):
    """The 1-Wasserstein distance between the quantile function and its staircase with these edges, by quadrature."""
    edges = np.concatenate([[0.0], edges, [1.0]])
    total = 0.0
    for low, high in itertools.pairwise(edges):
        grid = low + (high - low) * (np.arange(20_000) + 0.5) / 20_000
        total += np.mean(np.abs(quantile_function(grid) - quantile_function((low + high) / 2))) * (high - low)
    return total


def test_the_fraction_loss_goes_down_the_wasserstein_distance():
    """Yang et al. 2019, proposition 1: its gradient by the edges is the distance's, here found by quadrature."""
    edges = np.array([0.1, 0.35, 0.8])
    bounds = np.concatenate([[0.0], edges, [1.0]])
    middles = (bounds[1:] + bounds[:-1]) / 2
    head = head_of("fqf", 4)

    def loss(edges):
        out = Quantiles(
            values=jnp.asarray(quantile_function(middles), jnp.float32)[None, None],
            fractions=jnp.asarray(middles, jnp.float32)[None],
            widths=jnp.asarray(np.diff(bounds), jnp.float32)[None],
            edges=edges,
            edge_values=jnp.asarray(quantile_function(bounds[1:-1]), jnp.float32)[None, None],
        )
        target = head.target(HPARAMS, out, jnp.ones((1, 1)), jnp.ones(1), jnp.ones(1))
        losses, td_error = head.loss(HPARAMS, out, jnp.array([0]), target)
        return losses[0], td_error[0]

    (value, td_error), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.asarray(edges, jnp.float32)[None])
    assert value == td_error > 0  # what is reported is the quantile loss; the other part is a gradient alone
    gradient = gradient[0]
    step = 1e-4
    numeric = [(distance(edges + step * unit) - distance(edges - step * unit)) / (2 * step) for unit in np.eye(3)]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=1e-3)


def test_the_mean_of_proposed_fractions_weighs_each_by_its_width():
    out = Quantiles(jnp.array([[[1.0, 5.0]]]), jnp.array([[0.375, 0.875]]), jnp.array([[0.75, 0.25]]))
    np.testing.assert_allclose(head_of("fqf", 2).q_values(HPARAMS, out), [[2.0]])


F = np.linspace(0.01, 0.99, 25)


@pytest.mark.parametrize(
    ("risk", "level", "expected"),
    [
        ("neutral", 0.3, F),
        ("cvar", 0.25, 0.25 * F),
        ("cpw", 0.71, F**0.71 / (F**0.71 + (1 - F) ** 0.71) ** (1 / 0.71)),
        ("wang", -0.75, stats.norm.cdf(stats.norm.ppf(F) - 0.75)),
        ("wang", 0.75, stats.norm.cdf(stats.norm.ppf(F) + 0.75)),
    ],
)
def test_risk_distorts_fractions_as_in_the_paper(risk, level, expected):
    distort = RISKS.names[risk].make(Config())
    ours = distort(jnp.float32(level), jnp.asarray(F, jnp.float32))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
    head = head_of("iqn", 25, risk)
    acting = head.acting_fractions(HPARAMS._replace(distribution_risk_level=np.float32(level)))
    assert np.all(np.diff(acting) > 0)
    assert 0 < acting[0] < acting[-1] < 1


def test_an_averse_policy_looks_at_the_worst_returns():
    """Of a safe action worth 1 and a gamble worth -4 or 8, the mean takes the gamble and CVaR the safe one."""
    hparams = HPARAMS._replace(distribution_risk_level=np.float32(0.25))

    def q_values(risk):
        head = head_of("iqn", 8, risk)
        fractions = head.acting_fractions(hparams)
        gamble = jnp.where(fractions < 0.5, -4.0, 8.0)
        return head.q_values(hparams, Quantiles(jnp.stack([jnp.ones(8), gamble])[None], fractions, jnp.full(8, 1 / 8)))

    np.testing.assert_allclose(q_values("neutral"), [[1.0, 2.0]])
    np.testing.assert_allclose(q_values("cvar"), [[1.0, -4.0]])
