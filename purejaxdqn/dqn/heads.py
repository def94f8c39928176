"""Heads: what a network's output means, the target it is moved towards, and the loss between them.

Only a head looks inside a network's output. The names of ``distribution.kind``:

    scalar         the expected return                            Mnih et al. 2015
    categorical    probabilities of evenly spaced returns         C51: Bellemare et al. 2017
    hl_gauss       the expected return, by classification         HL-Gauss: Farebrother et al. 2024
    quantile       returns at evenly spaced fractions             QR-DQN: Dabney et al. 2018a
    iqn            returns at fractions drawn at random           IQN: Dabney et al. 2018b
    fqf            returns at fractions the network proposes      FQF: Yang et al. 2019
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from purejaxdqn.core import kernels
from purejaxdqn.core.choices import Axis, Choice, Fault
from purejaxdqn.core.config import Config, HParams
from purejaxdqn.core.types import Array, Params
from purejaxdqn.dqn.networks import is_fraction_proposal
from purejaxdqn.dqn.optimizers import nothing_apart
from purejaxdqn.dqn.types import Quantiles


class Head(NamedTuple):
    """Pure functions over network outputs ``out`` [B, ...].

    A *value* is what the head predicts about the return that follows a state. A target is the value of a state,
    scaled by the discount and shifted by the reward of the step before it, so it is a value, too; no gradient flows
    through it.

    ``scalar_head("squared")._replace(loss=...)`` makes a head of your own from another.
    """

    q_values: Callable[[HParams, Any], Array]  # out -> [B, A]
    value: Callable[[HParams, Any, Array], Any]  # out at next_obs, policy[B, A] -> value, leaves [B, ...]
    backup: Callable[[HParams, Any, Array, Array], Any]  # value, reward[B], discount[B] -> target
    loss: Callable[[HParams, Any, Array, Any], tuple[Array, Array]]
    # out at obs, action[B], target -> loss [B], TD error [B] (its size is the priority)
    outputs: tuple[int, ...] = ()  # numbers of the network for each action: () for one, (K,) for K
    fractions: Literal["none", "given", "proposed"] = "none"  # at which the network gives quantiles
    acting_fractions: Callable[[HParams], Array | None] = lambda hparams: None  # -> [K] for Q-values
    draw_fractions: Callable[[Array, int], tuple[Any, Any]] = lambda key, batch_size: (None, None)
    # key (consumed), B -> fractions [B, K] for the loss and for the target, where they are drawn at random
    apart: Callable[[Params], Any] = nothing_apart  # see ``optimizers.make_optimizer``
    mixes: bool = False  # whether a weighted sum of values is the value of the mixture, and targets have the form of
    # values, as lambda-returns need

    def target(self, hparams: HParams, out: Any, policy: Array, reward: Array, discount: Array) -> Any:
        """The target of a step with ``reward`` [B] and ``discount`` [B], from the network's output after it."""
        return self.backup(hparams, self.value(hparams, out, policy), reward, discount)


_PENALTIES: dict[str, Callable[[Array], Array]] = {"huber": optax.huber_loss, "squared": jnp.square}


def scalar_head(loss: str) -> Head:
    """The expected return as one number per action (Watkins 1989; Mnih et al. 2015, eq. 2): out [B, A].

    target = reward + discount * sum_a policy(a) q(next_obs, a)

    Args:
      loss: ``huber``, half the squared TD error up to 1 and its absolute value less a half beyond;
        ``squared``, the squared TD error.
    """
    penalty = _PENALTIES[loss]

    def value(hparams: HParams, out: Array, policy: Array) -> Array:
        return jnp.sum(policy * out, axis=-1)

    def batch_loss(hparams: HParams, out: Array, action: Array, target: Array) -> tuple[Array, Array]:
        td_error = target - _taken(out, action)
        return penalty(td_error), td_error

    return Head(lambda hparams, out: out, value, _expected_target, batch_loss, mixes=True)


def _expected_target(hparams: HParams, value: Array, reward: Array, discount: Array) -> Array:
    """The target [B] where a value is an expected return [B]."""
    return jax.lax.stop_gradient(reward + discount * value)


def categorical_head(atoms: int) -> Head:
    """Probabilities of the returns v_min, ..., v_max (Bellemare et al. 2017): out [B, A, K] are logits.

    The target distribution, moved by reward and discount, is projected on the same returns; the loss is the
    cross-entropy, and the TD error the Kullback-Leibler divergence (Hessel et al. 2018, section "Integrated Agent").
    """

    def support(hparams: HParams) -> Array:
        return hparams.distribution_v_min + (hparams.distribution_v_max - hparams.distribution_v_min) * jnp.arange(
            atoms
        ) / (atoms - 1)

    def q_values(hparams: HParams, out: Array) -> Array:
        return jax.nn.softmax(out) @ support(hparams)

    def value(hparams: HParams, out: Array, policy: Array) -> Array:
        return jnp.sum(policy[..., None] * jax.nn.softmax(out), axis=1)

    def backup(hparams: HParams, probabilities: Array, reward: Array, discount: Array) -> Array:
        returns = reward[:, None] + discount[:, None] * support(hparams)
        return jax.lax.stop_gradient(project(hparams, returns, probabilities))

    def loss(hparams: HParams, out: Array, action: Array, target: Array) -> tuple[Array, Array]:
        cross_entropy = -jnp.sum(target * jax.nn.log_softmax(_taken(out, action)), axis=-1)
        entropy = -jnp.sum(jax.scipy.special.xlogy(target, target), axis=-1)
        return cross_entropy, jax.lax.stop_gradient(cross_entropy - entropy)

    return Head(q_values, value, backup, loss, outputs=(atoms,), mixes=True)


def hl_gauss_head(atoms: int) -> Head:
    """The expected return, learned by classification (HL-Gauss: Farebrother et al. 2024): out [B, A, K].

    The outputs are logits of K bins of equal width between v_min and v_max, and a Q-value is the mean of the bins'
    centres. The target is that of the scalar head, clipped to the support. The loss is the cross-entropy to the mass in
    each bin of a normal distribution that has the target as its mean and is cut off at the ends of the support.
    """

    def edges(hparams: HParams) -> Array:
        low, high = hparams.distribution_v_min, hparams.distribution_v_max
        return low + (high - low) * jnp.arange(atoms + 1) / atoms

    def q_values(hparams: HParams, out: Array) -> Array:
        bounds = edges(hparams)
        return jax.nn.softmax(out) @ ((bounds[1:] + bounds[:-1]) / 2)

    def value(hparams: HParams, out: Array, policy: Array) -> Array:
        return jnp.sum(policy * q_values(hparams, out), axis=-1)

    def loss(hparams: HParams, out: Array, action: Array, target: Array) -> tuple[Array, Array]:
        logits = _taken(out, action)
        mass = gaussian_histogram(edges(hparams), target, hparams.distribution_sigma_ratio)
        td_error = target - q_values(hparams, logits)
        return -jnp.sum(mass * jax.nn.log_softmax(logits), axis=-1), jax.lax.stop_gradient(td_error)

    return Head(q_values, value, _expected_target, loss, outputs=(atoms,), mixes=True)


def gaussian_histogram(edges: Array, mean: Array, sigma_ratio: Array) -> Array:
    """The mass [B, K] in each of K bins of normal distributions [B], cut off at the ends (Farebrother et al. 2024).

    Args:
      edges: [K + 1] of the bins, evenly spaced.
      mean: [B], clipped to the ends.
      sigma_ratio: [] the standard deviation in widths of a bin.
    """
    scale = sigma_ratio * (edges[1] - edges[0]) * math.sqrt(2)
    below = jax.scipy.special.erf((edges - jnp.clip(mean, edges[0], edges[-1])[:, None]) / scale)
    return (below[:, 1:] - below[:, :-1]) / (below[:, -1:] - below[:, :1])


def project(hparams: HParams, returns: Array, probabilities: Array) -> Array:
    """Distributions over ``returns`` [B, K] on the K even returns from v_min to v_max (Bellemare et al. 2017, eq. 7).

    Each probability goes to the two neighbours of its return, in proportion to nearness; what lies outside goes to
    the edge.
    """
    atoms = returns.shape[-1]
    spacing = (hparams.distribution_v_max - hparams.distribution_v_min) / (atoms - 1)
    places = jnp.clip((returns - hparams.distribution_v_min) / spacing, 0.0, atoms - 1.0)

    def arriving(to: Array, place: Array, probability: Array) -> Array:
        return probability * jnp.maximum(0.0, 1.0 - jnp.abs(place - to))

    return kernels.sum_over_pairs(arriving, (jnp.arange(atoms, dtype=places.dtype),), (places, probabilities))


class Samples(NamedTuple):
    """The value of the quantile heads: returns and their weights."""

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

    def value(hparams: HParams, out: Any, policy: Array) -> Samples:
        quantiles = _as_quantiles(out, atoms)
        return Samples(jnp.sum(policy[..., None] * quantiles.values, axis=1), quantiles.widths)

    def backup(hparams: HParams, value: Samples, reward: Array, discount: Array) -> Samples:
        returns = reward[:, None] + discount[:, None] * value.returns
        return jax.lax.stop_gradient(value._replace(returns=returns))

    def loss(hparams: HParams, out: Any, action: Array, target: Samples) -> tuple[Array, Array]:
        quantiles = _as_quantiles(out, atoms)
        values = _taken(quantiles.values, action)
        losses = kernels.quantile_huber(
            values, quantiles.fractions, target.returns, target.weights, hparams.distribution_kappa
        )
        td_error = jax.lax.stop_gradient(losses)
        if quantiles.edges is None or quantiles.edge_values is None:
            return losses, td_error
        pull = 2 * _taken(quantiles.edge_values, action) - values[:, :-1] - values[:, 1:]
        pulled = jnp.sum(jax.lax.stop_gradient(pull) * quantiles.edges, axis=-1)
        gradient_alone = pulled - jax.lax.stop_gradient(pulled)  # its value is 0; only its gradient counts
        return losses + gradient_alone, td_error

    return Head(q_values, value, backup, loss, outputs=(atoms,))


def proposed_quantile_head(atoms: int) -> Head:
    """``quantile_head`` at K fractions that the network proposes, whose proposal learns apart (Yang et al. 2019)."""
    return quantile_head(atoms)._replace(fractions="proposed", apart=is_fraction_proposal)


def implicit_quantile_head(atoms: int, distort: "Distortion") -> Head:
    """``quantile_head`` at fractions drawn uniformly at random, K for the target and K for the loss.

    Q-values are means over the midpoints of K even intervals, distorted by the attitude to risk (Dabney et al. 2018b,
    section 3.1). The paper draws these fractions at random, too; midpoints give the same mean without noise.
    """

    def acting_fractions(hparams: HParams) -> Array:
        return distort(hparams.distribution_risk_level, _midpoints(atoms))

    def draw_fractions(key: Array, batch_size: int) -> tuple[Array, Array]:
        online, target = jax.random.uniform(key, (2, batch_size, atoms))
        return online, target

    return quantile_head(atoms)._replace(
        fractions="given", acting_fractions=acting_fractions, draw_fractions=draw_fractions
    )


Distortion = Callable[[Array, Array], Array]
"""risk level [], fractions [...] -> fractions as a policy with this attitude to risk weighs them."""


def neutral(level: Array, fractions: Array) -> Array:
    """The mean of the return: fractions as they are."""
    return fractions


def cvar(level: Array, fractions: Array) -> Array:
    """The mean of the worst returns, ``level`` of all: level * f (Dabney et al. 2018b, section 3.1)."""
    return level * fractions


def cpw(level: Array, fractions: Array) -> Array:
    """Cumulative probability weighting: f^e / (f^e + (1 - f)^e)^(1/e) with e the level (ibid.)."""
    powers = fractions**level + (1 - fractions) ** level
    return fractions**level / powers ** (1 / level)


def wang(level: Array, fractions: Array) -> Array:
    """Wang's distortion: Phi(Phi^-1(f) + e) with e the level; risk-averse below 0 (ibid.)."""
    return jax.scipy.stats.norm.cdf(jax.scipy.stats.norm.ppf(fractions) + level)


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


def _support_faults(config: Config) -> Iterator[Fault]:
    distribution = config.distribution
    low, high = distribution.v_min, distribution.v_max
    for name, bound in (("v_min", low), ("v_max", high)):
        if bound is None:
            message = f"missing: {distribution.kind} needs the lowest and the highest return of its support"
            yield Fault(f"distribution.{name}", message, ("distribution.kind",))
    if low is not None and high is not None and not _distinct(low, high, distribution.atoms):
        message = f"{low:g} is not below distribution.v_max ({high:g}) by steps that float32 can tell apart"
        yield Fault("distribution.v_min", message, ("distribution.v_max",))
    yield from _several_atoms(config)


def _distinct(low: float, high: float, atoms: int) -> bool:
    """Whether evenly spaced returns from ``low`` to ``high`` differ in float32."""
    largest = np.float32(max(abs(low), abs(high)))
    with np.errstate(over="ignore"):
        spacing = (np.float32(high) - np.float32(low)) / np.float32(max(atoms - 1, 1))
        return bool(0 < spacing < np.inf and largest + spacing != largest)


def _one_atom(config: Config) -> Iterator[Fault]:
    if config.distribution.atoms != 1:
        message = f"{config.distribution.atoms}, but distribution.kind is scalar, which has one number per action"
        yield Fault("distribution.atoms", message, ("distribution.kind",))


def _several_atoms(config: Config) -> Iterator[Fault]:
    kind, atoms = config.distribution.kind, config.distribution.atoms
    if atoms < 2:
        message = f"{atoms} is below 2, the least that distribution.kind {kind} can have"
        yield Fault("distribution.atoms", message, ("distribution.kind",))


def _needs_iqn(config: Config) -> Iterator[Fault]:
    if config.distribution.kind != "iqn":
        message = f"{config.distribution.risk!r} needs distribution.kind iqn, the only one that takes any fraction"
        yield Fault("distribution.risk", message, ("distribution.kind",))


def _cvar_faults(config: Config) -> Iterator[Fault]:
    yield from _needs_iqn(config)
    level = config.distribution.risk_level
    if not 0 < level <= 1:
        message = f"{level:g} must be above 0 and at most 1: the share of the worst returns"
        yield Fault("distribution.risk_level", message, ("distribution.risk",))


def _cpw_faults(config: Config) -> Iterator[Fault]:
    yield from _needs_iqn(config)
    level = config.distribution.risk_level
    if not 0.1 <= level <= 10:
        yield Fault("distribution.risk_level", f"{level:g} must be from 0.1 to 10", ("distribution.risk",))


_KAPPA, _LEVEL = ("distribution.kappa",), ("distribution.risk_level",)
RISKS = Axis(
    "distribution.risk",
    {
        "neutral": Choice(lambda config: neutral),
        "cvar": Choice(lambda config: cvar, keys=_LEVEL, faults=_cvar_faults),
        "cpw": Choice(lambda config: cpw, keys=_LEVEL, faults=_cpw_faults),
        "wang": Choice(lambda config: wang, keys=_LEVEL, faults=_needs_iqn),
    },
)
HEADS = Axis(
    "distribution.kind",
    {
        "scalar": Choice(lambda config: scalar_head(config.loss), keys=("loss",), faults=_one_atom),
        "categorical": Choice(
            lambda config: categorical_head(config.distribution.atoms),
            keys=("distribution.v_min", "distribution.v_max"),
            faults=_support_faults,
        ),
        "hl_gauss": Choice(
            lambda config: hl_gauss_head(config.distribution.atoms),
            keys=("distribution.v_min", "distribution.v_max", "distribution.sigma_ratio"),
            faults=_support_faults,
        ),
        "quantile": Choice(lambda config: quantile_head(config.distribution.atoms), keys=_KAPPA, faults=_several_atoms),
        "iqn": Choice(
            lambda config: implicit_quantile_head(config.distribution.atoms, RISKS.make(config)),
            keys=_KAPPA,
            faults=_several_atoms,
        ),
        "fqf": Choice(
            lambda config: proposed_quantile_head(config.distribution.atoms),
            keys=(*_KAPPA, "distribution.fraction_rate"),
            faults=_several_atoms,
        ),
    },
)
