"""Heads: what a network's output means, the target it is moved towards, and the loss between them.

A head answers for the agent, which never looks inside a network's output itself. One is chosen by name:

    scalar         the expected return                            Mnih et al. 2015
    categorical    probabilities of evenly spaced returns         C51: Bellemare et al. 2017
    quantile       returns at evenly spaced fractions             QR-DQN: Dabney et al. 2018a
    iqn            returns at fractions drawn at random           IQN: Dabney et al. 2018b
    fqf            returns at fractions the network proposes      FQF: Yang et al. 2019
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from purejaxdqn.core.types import Array, HParams, Quantiles


class Head(NamedTuple):
    """Pure functions over network outputs ``out``; a target is made at next_obs and held fixed."""

    q_values: Callable[[HParams, Any], Array]  # out -> [B, A]
    target: Callable[[HParams, Any, Array, Array, Array], Any]
    # out at next_obs, policy[B, A], reward[B], discount[B] -> target
    loss: Callable[[HParams, Any, Array, Any], tuple[Array, Array]]
    # out at obs, action[B], target -> loss [B], TD error [B] (its size is the priority)
    acting_fractions: Callable[[HParams], Array | None]  # -> [K] at which to ask the network for Q-values
    draws_fractions: bool  # whether target and loss want the network at fractions drawn at random


def make_head(kind: str, *, loss: str, atoms: int, risk: str) -> Head:
    """The head of a distribution; the names are the config's."""
    match kind:
        case "scalar":
            return scalar_head(loss)
        case "categorical":
            return categorical_head(atoms)
        case "quantile" | "fqf":
            return quantile_head(atoms)
        case "iqn":
            return implicit_quantile_head(atoms, risk)
        case _:
            raise ValueError(f"no distribution is called {kind!r}")


def scalar_head(loss: str) -> Head:
    """The expected return as one number per action (Watkins 1989; Mnih et al. 2015, eq. 2): out [B, A].

    target = reward + discount * sum_a policy(a) q(next_obs, a)

    Args:
      loss: ``huber``, half the squared TD error up to 1 and its absolute value less a half beyond;
        ``squared``, the squared TD error.
    """
    match loss:
        case "huber":
            penalty = optax.huber_loss
        case "squared":
            penalty = jnp.square
        case _:
            raise ValueError(f"loss is huber or squared, not {loss!r}")

    def target(hparams: HParams, out: Array, policy: Array, reward: Array, discount: Array) -> Array:
        return jax.lax.stop_gradient(reward + discount * jnp.sum(policy * out, axis=-1))

    def batch_loss(hparams: HParams, out: Array, action: Array, target: Array) -> tuple[Array, Array]:
        td_error = target - _taken(out, action)
        return penalty(td_error), td_error

    return Head(lambda hparams, out: out, target, batch_loss, lambda hparams: None, draws_fractions=False)


def categorical_head(atoms: int) -> Head:
    """Probabilities of the returns v_min, ..., v_max (Bellemare et al. 2017): out [B, A, K] are logits.

    The target distribution, moved by reward and discount, is projected on the same returns; the loss is the
    cross-entropy, and the TD error the Kullback-Leibler divergence (Hessel et al. 2018, section "Integrated Agent").
    """

    def support(hparams: HParams) -> Array:
        return hparams.v_min + (hparams.v_max - hparams.v_min) * jnp.arange(atoms) / (atoms - 1)

    def q_values(hparams: HParams, out: Array) -> Array:
        return jax.nn.softmax(out) @ support(hparams)

    def target(hparams: HParams, out: Array, policy: Array, reward: Array, discount: Array) -> Array:
        probabilities = jnp.sum(policy[..., None] * jax.nn.softmax(out), axis=1)
        returns = reward[:, None] + discount[:, None] * support(hparams)
        return jax.lax.stop_gradient(project(hparams, returns, probabilities))

    def loss(hparams: HParams, out: Array, action: Array, target: Array) -> tuple[Array, Array]:
        cross_entropy = -jnp.sum(target * jax.nn.log_softmax(_taken(out, action)), axis=-1)
        entropy = -jnp.sum(jax.scipy.special.xlogy(target, target), axis=-1)
        return cross_entropy, jax.lax.stop_gradient(cross_entropy - entropy)

    return Head(q_values, target, loss, lambda hparams: None, draws_fractions=False)


def project(hparams: HParams, returns: Array, probabilities: Array) -> Array:
    """Distributions over ``returns`` [B, K] on the K even returns from v_min to v_max (Bellemare et al. 2017, eq. 7).

    Each probability goes to the two neighbours of its return, in proportion to nearness; what lies outside goes to
    the edge.
    """
    atoms = returns.shape[-1]
    spacing = (hparams.v_max - hparams.v_min) / (atoms - 1)
    places = jnp.clip((returns - hparams.v_min) / spacing, 0.0, atoms - 1.0)

    def arriving(to: Array, place: Array, probability: Array) -> Array:
        return probability * jnp.maximum(0.0, 1.0 - jnp.abs(place - to))

    return _sum_over_pairs(arriving, (jnp.arange(atoms, dtype=places.dtype),), (places, probabilities))


class Samples(NamedTuple):
    """The target of the quantile heads: returns and their weights."""

    returns: Array  # [B, K]
    weights: Array  # [B, K] or [K], sum 1


def quantile_head(atoms: int) -> Head:
    """Returns at K fractions: out is ``Quantiles``, or [B, A, K] at the midpoints of K even intervals.

    The loss is the quantile Huber loss, summed over the predicted fractions and averaged over the target's returns
    (Dabney et al. 2018a, eq. 10; 2018b, eq. 3; Yang et al. 2019, eq. 9). The average weighs each return by the width
    of its interval, which for even ones is the papers'. Proposed fractions add their own loss, whose gradient for the
    fraction between two intervals is 2 F(edge) - F(left midpoint) - F(right midpoint) (Yang et al. 2019, eq. 7).
    """

    def q_values(hparams: HParams, out: Any) -> Array:
        quantiles = _as_quantiles(out, atoms)
        return jnp.sum(quantiles.values * _per_action(quantiles.widths), axis=-1)

    def target(hparams: HParams, out: Any, policy: Array, reward: Array, discount: Array) -> Samples:
        quantiles = _as_quantiles(out, atoms)
        returns = reward[:, None] + discount[:, None] * jnp.sum(policy[..., None] * quantiles.values, axis=1)
        return jax.lax.stop_gradient(Samples(returns, quantiles.widths))

    def loss(hparams: HParams, out: Any, action: Array, target: Samples) -> tuple[Array, Array]:
        quantiles = _as_quantiles(out, atoms)
        values = _taken(quantiles.values, action)
        losses = quantile_huber(values, quantiles.fractions, target.returns, target.weights, hparams.kappa)
        td_error = jax.lax.stop_gradient(losses)
        if quantiles.edges is None or quantiles.edge_values is None:
            return losses, td_error
        pull = 2 * _taken(quantiles.edge_values, action) - values[:, :-1] - values[:, 1:]
        pulled = jnp.sum(jax.lax.stop_gradient(pull) * quantiles.edges, axis=-1)
        gradient_alone = pulled - jax.lax.stop_gradient(pulled)  # the value of what has this gradient means nothing
        return losses + gradient_alone, td_error

    return Head(q_values, target, loss, lambda hparams: None, draws_fractions=False)


def implicit_quantile_head(atoms: int, risk: str) -> Head:
    """``quantile_head`` at fractions drawn uniformly at random, K for the target and K for the loss.

    Q-values are means over the midpoints of K even intervals, distorted by ``risk`` (Dabney et al. 2018b, section 3.1):
    neutral leaves them; with e the risk level, cvar(f) = e f, cpw(f) = f^e / (f^e + (1 - f)^e)^(1/e), and
    wang(f) = Phi(Phi^-1(f) + e). The paper draws them at random; midpoints give the same mean without noise.
    """

    def acting_fractions(hparams: HParams) -> Array:
        return distort(risk, hparams.risk_level, _midpoints(atoms))

    return quantile_head(atoms)._replace(acting_fractions=acting_fractions, draws_fractions=True)


def distort(risk: str, level: Array, fractions: Array) -> Array:
    """Fractions [...] as a policy of this attitude to risk weighs them (Dabney et al. 2018b, section 3.1)."""
    match risk:
        case "neutral":
            return fractions
        case "cvar":
            return level * fractions
        case "cpw":
            powers = fractions**level + (1 - fractions) ** level
            return fractions**level / powers ** (1 / level)
        case "wang":
            return jax.scipy.stats.norm.cdf(jax.scipy.stats.norm.ppf(fractions) + level)
        case _:
            raise ValueError(f"risk is neutral, cvar, cpw or wang, not {risk!r}")


@jax.custom_vjp
def quantile_huber(values: Array, fractions: Array, returns: Array, weights: Array, kappa: Array) -> Array:
    """The loss [B] of values [B, K] at fractions, against weighted returns [B, K'].

    sum_i sum_j weight_j |fraction_i - [d_ij < 0]| huber(d_ij, kappa) / kappa with d_ij = return_j - value_i. Only the
    values pass a gradient, which is found along with the loss: differentiated by JAX, every pair would be kept.
    """
    return _quantile_huber(values, fractions, returns, weights, kappa)[0]


def _quantile_huber(
    values: Array, fractions: Array, returns: Array, weights: Array, kappa: Array
) -> tuple[Array, Array]:
    """The loss [B] and its gradient [B, K] by the values."""

    def pair(value: Array, fraction: Array, ret: Array, weight: Array) -> tuple[Array, Array]:
        error = ret - value
        clipped = jnp.clip(error, -kappa, kappa)
        slope = weight * jnp.abs(fraction - (error < 0.0)) * clipped
        return slope * (error - clipped / 2), slope

    losses, slopes = _sum_over_pairs(pair, (values, fractions), (returns, weights / kappa))
    return jnp.sum(losses, axis=-1), -slopes


def _pull_back(gradient: Array, cotangent: Array) -> tuple[Array, None, None, None, None]:
    return cotangent[:, None] * gradient, None, None, None, None


quantile_huber.defvjp(_quantile_huber, _pull_back)


def _sum_over_pairs(term: Callable[..., Any], left: tuple[Array, ...], right: tuple[Array, ...]) -> Any:
    """The sums [B, I] over j of term(*left_i, *right_j), for left [B, I] or [I] and right [B, J] or [J].

    A CPU takes one j after another, with the batch innermost: the sums stay in its cache and its vectors are full,
    which makes it several times as fast as with one large sum. That suits a GPU, where each j would be a launch.
    """

    def one_by_one(left: tuple[Array, ...], right: tuple[Array, ...]) -> Any:
        left, right = jax.tree.map(lambda x: jnp.atleast_2d(x).T, (left, right))  # [I, B] or [I, 1]

        def add(sums: Any, right: tuple[Array, ...]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, term(*left, *right)), None

        start = jax.tree.map(jnp.zeros_like, term(*left, *(x[0] for x in right)))
        return jax.tree.map(jnp.transpose, jax.lax.scan(add, start, right)[0])

    def at_once(left: tuple[Array, ...], right: tuple[Array, ...]) -> Any:
        terms = term(*(x[..., :, None] for x in left), *(x[..., None, :] for x in right))
        return jax.tree.map(lambda x: jnp.sum(x, axis=-1), terms)

    return jax.lax.platform_dependent(left, right, cpu=one_by_one, default=at_once)


def _taken(out: Array, action: Array) -> Array:
    """The part of ``out`` [B, A, ...] that belongs to the action [B]."""
    return jnp.take_along_axis(out, action.reshape(-1, *(1,) * (out.ndim - 1)), axis=1)[:, 0]


def _as_quantiles(out: Any, atoms: int) -> Quantiles:
    if isinstance(out, Quantiles):
        return out
    return Quantiles(out, _midpoints(atoms), widths=jnp.full(atoms, 1 / atoms))


def _per_action(widths: Array) -> Array:
    """[K] or [B, K] -> what multiplies [B, A, K]."""
    return widths if widths.ndim == 1 else widths[:, None]


def _midpoints(count: int) -> Array:
    return (jnp.arange(count) + 0.5) / count
