"""The Q-network: a torso, one or two streams on it, and what an output needs, as flax modules.

torso      observations -> features: an MLP, behind convolutions or a layer for one-hot observations or none
memory     features of a step, and what is carried from the steps before -> features (``dqn.memory``); or none
streams    the last hidden layer and the output; dueling has one for the value and one for the advantages
output     K numbers for each action; or the quantile function at fractions that are given or proposed

Inside, features stand first and the batch B behind them: a layer is y = W x + b, as in the textbooks, of columns x. The
vectors of a CPU then hold items of the batch, which fill them whatever the width of a layer, and products need fewer
transposed copies than with the batch first.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from purejaxdqn.core import kernels
from purejaxdqn.core.choices import Axis, Choice, Fault
from purejaxdqn.core.config import Config, NetworkConfig
from purejaxdqn.core.types import Array, Network, Params
from purejaxdqn.dqn.memory import Memory, unroll
from purejaxdqn.dqn.types import Quantiles

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
    """A network as the learner uses it."""

    init: Callable[[Array, Array, Any], Params]  # key (consumed), obs[1, O], sigma[] -> parameters
    apply: Callable[..., tuple[Any, Any]]
    # parameters, obs[B, O], noise [noise_size] for the whole batch or [B, noise_size] or None, fractions [K] or [B, K]
    # or None, carry=(), start=() -> [B, A], [B, A, K] or Quantiles; carries. With a memory, B is L * B', sequences with
    # time first, from a carry with leaves [B', ...] and start[L, B'] to carries with leaves [L, B', ...]
    memory: Memory | None = None


def make_network(
    config: Config, *, num_actions: int, outputs: tuple[int, ...], fractions: str, memory: Memory | None = None
) -> QFunction:
    """The Q-network that ``config.network`` describes.

    Args:
      config: the run's.
      num_actions: A.
      outputs: see ``heads.Head``.
      fractions: see ``heads.Head``.
      memory: between torso and streams; None without one.
    """
    build = functools.partial(
        QNetwork,
        num_actions=num_actions,
        outputs=outputs,
        fractions=fractions,
        torso=TORSOS.make(config),
        hidden=config.network.hidden,
        activation=_ACTIVATIONS[config.network.activation],
        layer_norm=config.network.layer_norm,
        dueling=config.network.dueling,
        noisy=config.network.noisy,
        memory=memory,
    )

    def init(key: Array, obs: Array, sigma: Any) -> Params:
        recall = (memory.carry(1), jnp.ones((1, 1), bool)) if memory else ()
        return build(sigma=sigma).init(key, obs, None, jnp.zeros(outputs or 1), *recall)

    return QFunction(init, build().apply, memory)


def adapt(network: Network) -> QFunction:
    """A network of the user's own, which takes neither noise nor fractions."""
    return QFunction(
        init=lambda key, obs, sigma: network.init(key, obs),
        apply=lambda params, obs, noise, fractions, carry=(), start=(): (network.apply(params, obs), carry),
    )


def draw_noise(params: Params, key: Array, *shape: int) -> Array | None:
    """Independent normal numbers [*shape, noise_size] for all noisy layers; None if there are none."""
    size = noise_size(params)
    return jax.random.normal(key, (*shape, size)) if size else None


def noise_size(params: Params) -> int:
    """How many independent normal numbers one draw of all noisy layers takes."""
    if not isinstance(params, dict):
        return 0
    leaves = traverse_util.flatten_dict(params).items()
    return sum(sum(leaf.shape[-2:]) for path, leaf in leaves if path[-1] == "weight_sigma")


def is_fraction_proposal(params: Params) -> Any:
    """Whether each parameter belongs to the proposal of fractions: a tree of Python's bools."""
    return traverse_util.path_aware_map(lambda path, _: _FRACTIONS in path, params)


Torso = Callable[[Array, Callable[[Array], Array]], Array]
"""obs [B, O] float32, activation -> features [F, B]. It may make flax modules, which become the network's."""


def flat_torso(obs: Array, activation: Callable[[Array], Array]) -> Array:
    """Observations of any shape as one axis of features."""
    return obs.reshape(obs.shape[0], -1).T


class Filters(NamedTuple):
    """A layer of convolutions without padding."""

    channels: int  # how many
    kernel: int  # the side of each
    stride: int


MINATAR = (Filters(16, 3, 1),)
"""The network of Young and Tian (2019) for MinAtar."""


def filters_of(network: NetworkConfig) -> tuple[Filters, ...]:
    """The convolutions of a torso; () where it has none."""
    match network.torso:
        case "mlp" | "one_hot":
            return ()
        case "minatar_cnn":
            return MINATAR
        case "cnn":
            return tuple(map(Filters, network.channels, network.kernels, network.strides))


def least_side(layers: Sequence[Filters]) -> int:
    """Height and width of the smallest picture from which these convolutions leave anything."""
    return functools.reduce(lambda side, layer: (side - 1) * layer.stride + layer.kernel, reversed(layers), 1)


def convolutional_torso(layers: Sequence[Filters]) -> "Torso":
    """Convolutions over pictures [B, H, W, ...], whose last axes are taken as one of channels."""

    def torso(obs: Array, activation: Callable[[Array], Array]) -> Array:
        pictures = obs.reshape(*obs.shape[:3], -1)
        x = jnp.transpose(pictures, (3, 1, 2, 0))
        for layer in layers:
            x = activation(Convolution(*layer)(x))
        return x.reshape(-1, x.shape[-1])

    return torso


def _find_layer_faults(config: Config) -> Iterator[Fault]:
    """Every convolution has a kernel and a stride."""
    network = config.network
    for name in ("kernels", "strides"):
        sizes, count = getattr(network, name), len(network.channels)
        if len(sizes) != count:
            message = f"{list(sizes)} has {len(sizes)} numbers and network.channels has {count}"
            yield Fault(f"network.{name}", message, ("network.channels",))


def one_hot_torso(width: int) -> Torso:
    """A first layer of ``width`` units over observations that have at most one 1, whatever their shape.

    It computes what the first layer of an MLP does, without the products with zeros.
    """

    def torso(obs: Array, activation: Callable[[Array], Array]) -> Array:
        return activation(Embedding(width)(obs.reshape(obs.shape[0], -1)))

    return torso


TORSOS = Axis(
    "network.torso",
    {
        "mlp": Choice(lambda config: flat_torso),
        "one_hot": Choice(lambda config: one_hot_torso(config.network.hidden[0])),
        "minatar_cnn": Choice(lambda config: convolutional_torso(MINATAR)),
        "cnn": Choice(
            lambda config: convolutional_torso(filters_of(config.network)),
            keys=("network.channels", "network.kernels", "network.strides"),
            faults=_find_layer_faults,
        ),
    },
)
NOISE = Axis(
    "network.noisy", {False: Choice(lambda config: False), True: Choice(lambda config: True, keys=("network.sigma",))}
)


class QNetwork(nn.Module):
    """The whole network; see ``QFunction`` for what goes in and comes out."""

    num_actions: int
    outputs: tuple[int, ...]
    fractions: str
    torso: Torso
    hidden: tuple[int, ...]
    activation: Callable[[Array], Array]
    layer_norm: bool
    dueling: bool
    noisy: bool
    sigma: Any = 0.5
    memory: Memory | None = None

    @nn.compact
    def __call__(
        self,
        obs: Array,
        noise: Array | None = None,
        fractions: Array | None = None,
        carry: Any = (),
        start: Any = (),
    ) -> tuple[Any, Any]:
        """Map observations [B, O] of any type, which become float32 here and not earlier."""
        rest = _Noise(noise)
        x = self.torso(obs.astype(jnp.float32), self.activation)
        for width in self.hidden[:-1]:
            x = self._layer(x, width, rest)
        x, carries = self._remember(x, carry, start)
        return self._output(x, rest, fractions), carries

    def _remember(self, x: Array, carry: Any, start: Any) -> tuple[Array, Any]:
        """Features [F, B] with those of the steps before, and carries; the identity without a memory."""
        if self.memory is None:
            return x, carry
        params = self.param("memory", self.memory.init, x.shape[0])
        y, carries = unroll(self.memory, params, x.reshape(-1, *start.shape), carry, start)
        return y.reshape(y.shape[0], -1), carries

    def _output(self, x: Array, rest: "_Noise", fractions: Array | None) -> Any:
        match self.fractions:
            case "none":
                out = self._streams(x, rest)
                return _batch_first(out) if self.outputs else out[..., 0].T
            case "given":
                assert fractions is not None
                (values,) = self._streams(x, rest, self._embeddings(jnp.atleast_2d(fractions)))
                return Quantiles(_batch_first(values), fractions, widths=jnp.full(self._atoms, 1 / self._atoms))
            case "proposed":
                return self._proposing(x, rest)
            case _:
                raise ValueError(f"fractions are none, given or proposed, not {self.fractions!r}")

    @property
    def _atoms(self) -> int:
        return self.outputs[0] if self.outputs else 1

    def _proposing(self, x: Array, noise: "_Noise") -> Quantiles:
        """Quantiles at proposed fractions: cumulative sums of a softmax (Yang et al. 2019, section 3.2).

        Only ``edges`` passes a gradient to the proposal, and the proposal passes none to the torso.
        """
        # Nearly even at the start.
        small = nn.initializers.variance_scaling(1e-4, "fan_avg", "uniform", in_axis=1, out_axis=0)
        widths = jax.nn.softmax(Dense(self._atoms, small, name=_FRACTIONS)(jax.lax.stop_gradient(x)).T)
        upper = jnp.cumsum(widths, axis=-1)
        fractions = jax.lax.stop_gradient(upper - widths / 2)
        # Apart, so that the values at edges are computed only where they are used, and never differentiated. The last
        # upper bound, 1, is no edge; it stays in until the end so that the length is even.
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
        """Each argument, fractions [B or 1, K], as features [F, B or 1, K] by cosines (Dabney et al. 2018b, eq. 4)."""
        layer = Dense(self.hidden[-1], name="embedding")

        def embed(fractions: Array) -> Array:
            cosines = kernels.cos_pi(jnp.arange(_COSINES)[:, None] * fractions.reshape(-1))
            return jax.nn.relu(layer(cosines)).reshape(-1, *fractions.shape)

        return tuple(embed(some) for some in fractions)

    def _streams(self, x: Array, noise: "_Noise", embeddings: tuple[Array, ...] | None = None) -> Any:
        """Map features [F, B] to [A, B, K]; dueling: value plus advantages less their mean (Wang et al. 2016, eq. 9).

        With embeddings of fractions, it returns one such array for each of them.
        """
        advantages = self._stream(x, self.num_actions, noise, embeddings)
        if not self.dueling:
            return advantages
        value = self._stream(x, 1, noise, embeddings)
        return jax.tree.map(lambda v, a: v + a - jnp.mean(a, axis=0), value, advantages)

    def _stream(self, x: Array, rows: int, noise: "_Noise", embeddings: tuple[Array, ...] | None) -> Any:
        """The last hidden layer and the output: [F, B] -> [rows, B, K].

        The embedding of fractions multiplies the last hidden layer, where it is cheapest: only the output layer is
        then computed for each fraction.
        """
        x = self._layer(x, self.hidden[-1], noise)
        if embeddings is None:
            return self._dense(x.shape[0], rows * self._atoms, noise)(x).reshape(rows, self._atoms, -1).swapaxes(1, 2)
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
    def __call__(self, x: Array) -> Array:  # noqa: D102  (the class says it)
        weight = self.param("weight", self.weights, (self.width, x.shape[0]))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        return kernels.affine(weight, x, bias)


class Embedding(nn.Module):
    """W x + b of one-hot x, [B, inputs] -> [width, B]; the weights are [inputs, width]."""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102  (the class says it)
        weight = self.param("embedding", nn.initializers.lecun_normal(), (x.shape[1], self.width))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        return kernels.one_hot_affine(weight, x, bias)


class NoisyDense(nn.Module):
    """A layer with factorised Gaussian noise on its weights (Fortunato et al. 2018, section 3.1b).

    y = (W + sigma * outer(f(e'), f(e))) x + b + bias_sigma * f(e') with f(e) = sign(e) sqrt|e|; without noise the
    means alone.
    """

    width: int
    sigma: Any  # [] initial

    @nn.compact
    def __call__(self, x: Array, before: Array | None, after: Array | None) -> Array:
        """Map x [inputs, B, ...], with f(e) and f(e') for the whole batch or with a last axis B."""
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
            return kernels.affine(weight, x, bias)
        if before.ndim == 1:  # one weight matrix serves the batch, in one product
            return kernels.affine(weight + weight_sigma * jnp.outer(after, before), x, bias + bias_sigma * after)
        # A draw for each item: the factors stand outside the product, so that no item needs a matrix of its own.
        before, after = (factor.reshape(*factor.shape, *(1,) * (x.ndim - 2)) for factor in (before, after))
        return kernels.affine(weight, x, bias) + kernels.affine(weight_sigma, x * before, bias_sigma) * after


class Convolution(nn.Module):
    """Convolutions without padding, [C, H, W, B] -> [features, H', W', B]; see ``kernels.convolution``."""

    features: int
    kernel: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102  (the class says it)
        initial = nn.initializers.lecun_normal(in_axis=1, out_axis=0)
        weight = self.param("weight", initial, (self.features, x.shape[0], self.kernel, self.kernel))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return kernels.convolution(weight, x, bias, self.stride)


def _batch_first(x: Array) -> Array:
    """[A, B, K] -> [B, A, K]."""
    return jnp.swapaxes(x, 0, 1)


class _Noise:
    """Hands f(e) = sign(e) sqrt|e| of normal numbers e to the layers, in the order in which they are built."""

    def __init__(self, values: Array | None):
        self.values = None if values is None else kernels.signed_root(values)
        self.taken = 0

    def take(self, count: int) -> Array | None:
        """The next numbers, [count] for the whole batch or [count, B]."""
        if self.values is None:
            return None
        self.taken += count
        return self.values[..., self.taken - count : self.taken].T
