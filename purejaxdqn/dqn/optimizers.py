"""Optimisers: optax's, with the numbers of a run and the clipping of gradients by their global norm."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from purejaxdqn.core import kernels
from purejaxdqn.core.choices import Axis, Choice, Fault
from purejaxdqn.core.config import Config, HParams
from purejaxdqn.core.types import Array, Params

Transformation = Callable[[HParams, Array], optax.GradientTransformation]
"""hparams, learning rate [] -> the gradient transformation of one step. Its state depends on neither."""

Mask = Callable[[Params], Any]
"""parameters -> a tree of Python's bools."""


class Optimizer(NamedTuple):
    """A gradient step."""

    init: Callable[[Params], Any]  # parameters -> state
    step: Callable[[HParams, Array, Params, Any, Params], tuple[Params, Any, Array]]
    # learning rate [], gradients, state, parameters -> parameters, state, global norm [] before clipping


def make_optimizer(transformation: Transformation, *, apart: Mask) -> Optimizer:
    """Clip gradients by their global norm to ``optimizer.max_grad_norm``, and take a step of ``transformation``.

    Args:
      transformation: the optimiser.
      apart: parameters that are trained at ``distribution.fraction_rate`` times the learning rate, with gradients that
        are neither clipped nor part of the norm, as FQF trains its proposal of fractions (Yang et al. 2019).
    """

    def together(params: Params) -> Any:
        return jax.tree.map(lambda alone: not alone, apart(params))

    def chain(hparams: HParams, rate: Any) -> optax.GradientTransformation:
        return optax.chain(
            optax.masked(clip_by_global_norm(hparams.optimizer_max_grad_norm), together),
            transformation(hparams, rate),
            optax.masked(optax.scale(hparams.distribution_fraction_rate), apart),
        )

    def init(params: Params) -> Any:
        return chain(Config().hparams(), jnp.zeros(())).init(params)  # the state depends on no number

    def step(hparams: HParams, rate: Array, grads: Params, state: Any, params: Params) -> tuple[Params, Any, Array]:
        clipped = jax.tree.map(lambda grad, some: grad if some else None, grads, together(grads))
        updates, state = chain(hparams, rate).update(grads, state, params)
        return optax.apply_updates(params, updates), state, kernels.global_norm(clipped)

    return Optimizer(init, step)


def clip_by_global_norm(limit: Array) -> optax.GradientTransformation:
    """Scale gradients down to the global norm ``limit`` [] where it is larger (Pascanu et al. 2013, algorithm 1).

    Unlike optax's own, it leaves gradients as they are where their norm exceeds float32 and the limit is infinite.
    """

    def update(grads: Params, state: Any, params: Params = None) -> tuple[Params, Any]:
        norm = kernels.global_norm(grads)
        scale = jnp.where(norm > limit, limit / norm, 1.0)
        return jax.tree.map(lambda grad: scale * grad, grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def nothing_apart(params: Params) -> Any:
    """All parameters are trained together."""
    return jax.tree.map(lambda _: False, params)


def as_transformation(optimizer: optax.GradientTransformation | Transformation) -> Transformation:
    """An optimiser of optax, which has a learning rate of its own, or a function of the run's numbers and rate."""
    if isinstance(optimizer, optax.GradientTransformation):
        return lambda hparams, rate: optimizer
    return optimizer


def adam(config: Config) -> Transformation:
    """Adam (Kingma and Ba 2015)."""
    return lambda hparams, rate: optax.adam(rate, eps=hparams.optimizer_eps)


def adamw(config: Config) -> Transformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    return lambda hparams, rate: optax.adamw(
        rate, eps=hparams.optimizer_eps, weight_decay=hparams.optimizer_weight_decay
    )


def radam(config: Config) -> Transformation:
    """Adam whose steps are rectified while the variance of its second moment is large (Liu et al. 2020)."""
    return lambda hparams, rate: optax.radam(rate, eps=hparams.optimizer_eps)


def sgd(config: Config) -> Transformation:
    """Stochastic gradient descent."""
    return lambda hparams, rate: optax.sgd(rate)


def rmsprop(config: Config) -> Transformation:
    """RMSProp with decay 0.95 (Tieleman and Hinton 2012); centred, it divides by the deviation (Graves 2013)."""
    if not config.optimizer.centered:
        return lambda hparams, rate: optax.rmsprop(rate, decay=0.95, eps=hparams.optimizer_eps)

    def centered(hparams: HParams, rate: Array) -> optax.GradientTransformation:
        return optax.chain(_scale_by_deviation(0.95, hparams.optimizer_eps), optax.scale_by_learning_rate(rate))

    return centered


def _scale_by_deviation(decay: float, eps: Array) -> optax.GradientTransformation:
    """Divide by the root of the running variance plus ``eps`` (Graves 2013, eq. 38 to 41).

    optax's own takes the root of a difference that rounding can make negative where a gradient hardly changes.
    """

    def init(params: Params) -> tuple[Params, Params]:
        return optax.tree.zeros_like(params), optax.tree.zeros_like(params)

    def update(grads: Params, state: tuple[Params, Params], params: Params = None) -> tuple[Params, Any]:
        mean = optax.tree.update_moment(grads, state[0], decay, 1)
        square = optax.tree.update_moment(grads, state[1], decay, 2)

        def scale(grad: Array, mean: Array, square: Array) -> Array:
            return grad * jax.lax.rsqrt(jnp.maximum(square - mean**2, 0.0) + eps)

        return jax.tree.map(scale, grads, mean, square), (mean, square)

    return optax.GradientTransformation(init, update)


def _centered_alone(config: Config) -> Iterator[Fault]:
    if config.optimizer.centered:
        message = f"true needs optimizer.name rmsprop, not {config.optimizer.name}"
        yield Fault("optimizer.centered", message, ("optimizer.name",))


_EPS = ("optimizer.eps",)
OPTIMIZERS = Axis(
    "optimizer.name",
    {
        "adam": Choice(adam, keys=_EPS, faults=_centered_alone),
        "adamw": Choice(adamw, keys=(*_EPS, "optimizer.weight_decay"), faults=_centered_alone),
        "radam": Choice(radam, keys=_EPS, faults=_centered_alone),
        "rmsprop": Choice(rmsprop, keys=_EPS),
        "sgd": Choice(sgd, faults=_centered_alone),
    },
)
