"""The Q-network: a torso, one or two streams on it, and what an output needs, as flax modules.

torso      observations -> features: an MLP, or the MinAtar convolution and an MLP
streams    the last hidden layer and the output; dueling has one for the value and one for the advantages
output     K numbers for each action; or the quantile function at fractions that are given or proposed

Inside, features stand first and the batch B behind them: a layer is y = W x + b, as in the textbooks, of columns x. A
CPU's vectors then hold items of the batch, which fill them whatever the width of a layer, and products need fewer
transposed copies than with the batch first (``benchmarks/tried.py`` says what that gives).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from purejaxdqn.core.types import Array, Network, Params, Quantiles

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
}
_COSINES = 64
"""Features of a fraction (Dabney et al. 2018b, eq. 4)."""


_FRACTIONS = "fractions"


class QFunction(NamedTuple):
    """A network as the agent uses it."""

    init: Callable[[Array, Array, Any], Params]  # key (consumed), obs[1, O], sigma[] -> parameters
    apply: Callable[[Params, Array, Array | None, Array | None], Any]
    # obs[B, O], noise [noise_size] for the whole batch or [B, noise_size] or None, fractions [K] or [B, K] or None
    # -> [B, A], [B, A, K] or Quantiles


def make_network(
    *,
    num_actions: int,
    distribution: str,
    atoms: int,
    torso: str,
    hidden: tuple[int, ...],
    activation: str,
    layer_norm: bool,
    dueling: bool,
    noisy: bool,
) -> QFunction:
    """The Q-network that a config describes; the names are the config's."""
    build = functools.partial(
        QNetwork,
        num_actions=num_actions,
        distribution=distribution,
        atoms=atoms,
        convolves=torso == "minatar_cnn",
        hidden=hidden,
        activation=_ACTIVATIONS[activation],
        layer_norm=layer_norm,
        dueling=dueling,
        noisy=noisy,
    )

    def init(key: Array, obs: Array, sigma: Any) -> Params:
        return build(sigma=sigma).init(key, obs, None, jnp.zeros(atoms))

    return QFunction(init, build().apply)


def adapt(network: Network) -> QFunction:
    """A user's network, which takes neither noise nor fractions."""
    return QFunction(
        init=lambda key, obs, sigma: network.init(key, obs),
        apply=lambda params, obs, noise, fractions: network.apply(params, obs),
    )


def noise_size(params: Params) -> int:
    """How many independent normal numbers one draw of all noisy layers takes."""
    if not isinstance(params, dict):
        return 0
    leaves = traverse_util.flatten_dict(params).items()
    return sum(sum(leaf.shape[-2:]) for path, leaf in leaves if path[-1] == "weight_sigma")


def proposes_fractions(params: Params) -> Any:
    """Whether each leaf belongs to what proposes fractions: a tree of bools, which are Python's."""
    return traverse_util.path_aware_map(lambda path, _: _FRACTIONS in path, params)


class QNetwork(nn.Module):
    """The whole network; see ``QFunction`` for what goes in and comes out."""

    num_actions: int
    distribution: str
    atoms: int
    convolves: bool
    hidden: tuple[int, ...]
    activation: Callable[[Array], Array]
    layer_norm: bool
    dueling: bool
    noisy: bool
    sigma: Any = 0.5

    @nn.compact
    def __call__(self, obs: Array, noise: Array | None = None, fractions: Array | None = None) -> Any:
        """Of observations [B, O] of any type, which become float32 here and no earlier."""
        rest = _Noise(noise)
        x = obs.astype(jnp.float32)
        if self.convolves:
            x = self.activation(Convolution(features=16)(jnp.transpose(x, (3, 1, 2, 0))))
            x = x.reshape(-1, x.shape[-1])
        else:
            x = x.reshape(x.shape[0], -1).T
        for width in self.hidden[:-1]:
            x = self._layer(x, width, rest)
        match self.distribution:
            case "scalar":
                return self._streams(x, rest)[..., 0].T
            case "categorical" | "quantile":
                return _batch_first(self._streams(x, rest))
            case "iqn":
                assert fractions is not None
                (values,) = self._streams(x, rest, self._embeddings(jnp.atleast_2d(fractions)))
                return Quantiles(_batch_first(values), fractions, widths=jnp.full(self.atoms, 1 / self.atoms))
            case "fqf":
                return self._proposing(x, rest)
            case _:
                raise ValueError(f"no distribution is called {self.distribution!r}")

    def _proposing(self, x: Array, noise: "_Noise") -> Quantiles:
        """Fractions that the network chooses itself (Yang et al. 2019, section 3.2): a softmax of widths, summed up.

        Only ``edges`` passes a gradient to the proposal, and the proposal none to the torso.
        """
        # Nearly even at the start.
        small = nn.initializers.variance_scaling(1e-4, "fan_avg", "uniform", in_axis=1, out_axis=0)
        widths = jax.nn.softmax(Dense(self.atoms, small, name=_FRACTIONS)(jax.lax.stop_gradient(x)).T)
        upper = jnp.cumsum(widths, axis=-1)
        fractions = jax.lax.stop_gradient(upper - widths / 2)
        # Apart, so that the values at edges are computed only where they are used, and never differentiated. The last
        # edge, 1, is none, and there to keep the length even.
        embeddings = self._embeddings(fractions, jax.lax.stop_gradient(upper))
        values, edge_values = self._streams(x, noise, embeddings)
        return Quantiles(
            values=_batch_first(values),
            fractions=fractions,
            widths=jax.lax.stop_gradient(widths),
            edges=upper[:, :-1],
            edge_values=_batch_first(jax.lax.stop_gradient(edge_values))[..., :-1],
        )

    def _embeddings(self, *fractions: Array) -> tuple[Array, ...]:
        """Of each, fractions [B or 1, K] -> features [F, B or 1, K] by cosines (Dabney et al. 2018b, eq. 4)."""
        layer = Dense(self.hidden[-1], name="embedding")

        def embed(fractions: Array) -> Array:
            cosines = _cos_pi(jnp.arange(_COSINES)[:, None] * fractions.reshape(-1))
            return jax.nn.relu(layer(cosines)).reshape(-1, *fractions.shape)

        return tuple(embed(some) for some in fractions)

    def _streams(self, x: Array, noise: "_Noise", embeddings: tuple[Array, ...] | None = None) -> Any:
        """Features [F, B] -> [A, B, K]; dueling: value plus advantages less their mean (Wang et al. 2016, eq. 9).

        With embeddings of fractions, one such array for each.
        """
        advantages = self._stream(x, self.num_actions, noise, embeddings)
        if not self.dueling:
            return advantages
        value = self._stream(x, 1, noise, embeddings)
        return jax.tree.map(lambda v, a: v + a - jnp.mean(a, axis=0), value, advantages)

    def _stream(self, x: Array, rows: int, noise: "_Noise", embeddings: tuple[Array, ...] | None) -> Any:
        """The last hidden layer and the output: [F, B] -> [rows, B, K].

        The embedding of fractions multiplies the last hidden layer, where it is cheapest: only the output layer is
        computed once a fraction.
        """
        x = self._layer(x, self.hidden[-1], noise)
        if embeddings is None:
            return self._dense(x.shape[0], rows * self.atoms, noise)(x).reshape(rows, self.atoms, -1).swapaxes(1, 2)
        output = self._dense(x.shape[0], rows, noise)
        return tuple(output(x[..., None] * embedding) for embedding in embeddings)

    def _layer(self, x: Array, width: int, noise: "_Noise") -> Array:
        x = self._dense(x.shape[0], width, noise)(x)
        return self.activation(nn.LayerNorm(reduction_axes=0, feature_axes=0)(x) if self.layer_norm else x)

    def _dense(self, inputs: int, width: int, noise: "_Noise") -> Callable[[Array], Array]:
        """A layer, which may be applied more than once."""
        if not self.noisy:
            return Dense(width)
        layer, before, after = NoisyDense(width, self.sigma), noise.take(inputs), noise.take(width)
        return lambda x: layer(x, before, after)


class Dense(nn.Module):
    """y = W x + b, [inputs, ...] -> [width, ...]."""

    width: int
    weights: Callable[..., Array] = nn.initializers.lecun_normal(in_axis=1, out_axis=0)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Of columns."""
        weight = self.param("weight", self.weights, (self.width, x.shape[0]))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        return _affine(weight, x, bias)


class NoisyDense(nn.Module):
    """A layer with factorised Gaussian noise on its weights (Fortunato et al. 2018, section 3.1b).

    y = (W + sigma * outer(f(e'), f(e))) x + b + bias_sigma * f(e') with f(e) = sign(e) sqrt|e|; without noise the
    means alone.
    """

    width: int
    sigma: Any  # [] initial

    @nn.compact
    def __call__(self, x: Array, before: Array | None, after: Array | None) -> Array:
        """Of x [inputs, B, ...], with f(e) and f(e') of the layer: for the whole batch, or with a last axis B."""
        inputs = x.shape[0]
        bound = 1 / math.sqrt(inputs)

        def uniform(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        def constant(key: Array, shape: tuple[int, ...]) -> Array:
            return jnp.full(shape, self.sigma * bound, jnp.float32)

        weight = self.param("weight", uniform, (self.width, inputs))
        bias = self.param("bias", uniform, (self.width,))
        weight_sigma = self.param("weight_sigma", constant, (self.width, inputs))
        bias_sigma = self.param("bias_sigma", constant, (self.width,))
        if before is None or after is None:
            return _affine(weight, x, bias)
        if before.ndim == 1:  # one weight matrix serves the batch: one product
            return _affine(weight + weight_sigma * jnp.outer(after, before), x, bias + bias_sigma * after)
        # A draw for each item: the factors stand outside the product, so that no item needs a matrix of its own.
        before, after = (factor.reshape(*factor.shape, *(1,) * (x.ndim - 2)) for factor in (before, after))
        return _affine(weight, x, bias) + _affine(weight_sigma, x * before, bias_sigma) * after


class Convolution(nn.Module):
    """A 3x3 convolution without padding, [C, H, W, B] -> [features, H - 2, W - 2, B].

    Nine shifted slices and one matrix product: on a CPU several times as fast as XLA's convolution at MinAtar's
    sizes.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Of images of any size from 3x3."""
        channels, height, width = x.shape[0], x.shape[1] - 2, x.shape[2] - 2
        initial = nn.initializers.lecun_normal(in_axis=1, out_axis=0)
        weight = self.param("weight", initial, (self.features, channels, 3, 3))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        shifted = [x[:, None, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        patches = jnp.concatenate(shifted, axis=1).reshape(9 * channels, height, width, -1)
        return _affine(weight.reshape(self.features, -1), patches, bias)


def _affine(weight: Array, x: Array, bias: Array) -> Array:
    """W x + b of columns [inputs, ...] -> [width, ...], in two axes, which XLA's CPU has the fastest sums for."""
    return (_product(weight, x.reshape(x.shape[0], -1)) + bias[:, None]).reshape(-1, *x.shape[1:])


@jax.custom_vjp
def _product(weight: Array, x: Array) -> Array:
    """W x, of two matrices; its gradients (reverse mode only) are those of ``@``, some taken of transposed copies."""
    return weight @ x


def _product_forward(weight: Array, x: Array) -> tuple[Array, tuple[Array, Array]]:
    return weight @ x, (weight, x)


def _product_backward(factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    weight, x = factors
    return cotangent @ _transposed(x), _transposed(weight) @ cotangent


_product.defvjp(_product_forward, _product_backward)

_LARGE = 2**14
"""Elements of a matrix from which on XLA's CPU takes longer over the product of it transposed than over a copy and a
plain product; below, the copy costs more than it gains (``benchmarks/tried.py``)."""


def _transposed(x: Array) -> Array:
    if x.size < _LARGE:
        return x.T
    return jax.lax.platform_dependent(x, cpu=lambda x: jax.lax.optimization_barrier(x.T), default=jnp.transpose)


def _batch_first(x: Array) -> Array:
    """[A, B, K] -> [B, A, K]."""
    return jnp.swapaxes(x, 0, 1)


class _Noise:
    """Normal numbers e, handed out as f(e) = sign(e) sqrt|e| to the layers in the order in which they are built."""

    def __init__(self, values: Array | None):
        # e / sqrt|e|, as XLA does a division once: of a product with the sign it would make the normal numbers again in
        # every kernel that uses them, for every weight. The tiny number makes f(0) 0 and keeps the division one.
        self.values = None if values is None else values / (jnp.sqrt(jnp.abs(values)) + 1e-30)
        self.taken = 0

    def take(self, count: int) -> Array | None:
        """The next numbers, [count] for the whole batch or [count, B]."""
        if self.values is None:
            return None
        self.taken += count
        return self.values[..., self.taken - count : self.taken].T


def _cos_pi(x: Array) -> Array:
    """cos(pi x), to 2e-7.

    By a polynomial, as a CPU takes several times as long over ``jnp.cos`` as over the matrix product that follows;
    and the more exact of the two, whose argument is not rounded once more by a product with pi. The outer ``where``
    also keeps XLA from drawing the polynomial into that product, where it would be slow again.
    """
    y = jnp.abs(x - 2 * jnp.round(x / 2))  # in [0, 1]; past its half the cosine is that of 1 - y, negative
    past = y > 0.5
    square = jnp.square(jnp.where(past, 1 - y, y))
    coefficients = ((-1) ** n * math.pi ** (2 * n) / math.factorial(2 * n) for n in reversed(range(7)))
    cosine = functools.reduce(lambda total, coefficient: total * square + coefficient, coefficients)
    return jnp.where(past, -cosine, cosine)
