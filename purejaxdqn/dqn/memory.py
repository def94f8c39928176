"""Memories: recurrent cells between the torso and the streams of a network.

Features stand first, as everywhere in ``dqn.networks``: x [F, B] of one step, [F, L, B] of a sequence of L steps. What
is carried from step to step has the batch first, leaves [B, ...], as all that actors keep.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from purejaxdqn.core import kernels
from purejaxdqn.core.choices import Axis, Choice
from purejaxdqn.core.environment import assert_same_structure
from purejaxdqn.core.types import Array, Params


class Memory(NamedTuple):
    """A recurrent cell with H outputs, as pure functions.

    ``init``, ``carry`` and ``step`` make one; ``unroll`` is for a cell that can do better than step after step.
    """

    init: Callable[[Array, int], Params]  # key (consumed), F -> parameters
    carry: Callable[[int], Any]  # B -> what an actor carries into the first step of an episode, leaves [B, ...]
    step: Callable[[Params, Array, Any], tuple[Array, Any]]  # parameters, x[F, B], carry -> y[H, B], carry
    unroll: Callable[[Params, Array, Any, Array], tuple[Array, Any]] | None = None
    # parameters, x[F, L, B], carry, start[L, B] -> y[H, L, B], carries after each step, leaves [L, B, ...]


def unroll(memory: Memory, params: Params, x: Array, carry: Any, start: Array) -> tuple[Array, Any]:
    """The outputs [H, L, B] of a sequence, and the carries after each of its steps, leaves [L, B, ...].

    Args:
      memory: the cell.
      params: its parameters.
      x: [F, L, B].
      carry: before the first step, leaves [B, ...].
      start: [L, B] bool: a step is the first of its episode, which begins with a fresh carry.
    """
    if x.shape[1] == 1:  # acting and export: a loop of one step would only cost time
        y, after = _step(memory, params, x[:, 0], restarted(memory, carry, start[0]))
        return y[:, None], jax.tree.map(lambda leaf: leaf[None], after)
    if memory.unroll is not None:
        y, carries = memory.unroll(params, x, carry, start)
        chex.assert_shape(y, (None, *start.shape), custom_message="memory.unroll: the outputs")
        chex.assert_tree_shape_prefix(carries, start.shape, custom_message="memory.unroll: the carries")
        return y, carries

    def body(carry: Any, xs: tuple[Array, Array]) -> tuple[Any, tuple[Array, Any]]:
        x, start = xs
        y, carry = _step(memory, params, x, restarted(memory, carry, start))
        return carry, (y, carry)

    _, (y, carries) = jax.lax.scan(body, carry, (jnp.moveaxis(x, 1, 0), start))
    return jnp.moveaxis(y, 0, 1), carries


def _step(memory: Memory, params: Params, x: Array, carry: Any) -> tuple[Array, Any]:
    y, after = memory.step(params, x, carry)
    chex.assert_shape(y, (None, x.shape[1]), custom_message="memory.step: the outputs")
    assert_same_structure(carry, after, "memory.step: the carry")
    return y, after


def restarted(memory: Memory, carry: Any, start: Array) -> Any:
    """``carry``, leaves [B, ...], which is fresh where an episode starts [B]."""

    def choose(fresh: Array, going: Array) -> Array:
        return jnp.where(start.reshape(start.shape + (1,) * (going.ndim - 1)), fresh, going)

    return jax.tree.map(choose, memory.carry(start.shape[0]), carry)


def gru(size: int) -> Memory:
    """The gated recurrent unit (Cho et al. 2014, eq. 5 to 8), with H = ``size`` units.

    r = sigmoid(W_r x + U_r h + b_r), z = sigmoid(W_z x + U_z h + b_z), n = tanh(W_n x + b_n + r (U_n h + c)) and
    h' = (1 - z) n + z h. The reset gate multiplies after the product, as in cuDNN, so that all products with h are one.
    """

    def init(key: Array, inputs: int) -> Params:
        input_key, recurrent_key = jax.random.split(key)
        lecun, orthogonal = nn.initializers.lecun_normal(in_axis=1, out_axis=0), nn.initializers.orthogonal()
        return {
            "input": lecun(input_key, (3 * size, inputs)),
            "recurrent": jnp.concatenate([orthogonal(one, (size, size)) for one in jax.random.split(recurrent_key, 3)]),
            "bias": jnp.zeros(3 * size),
            "candidate_bias": jnp.zeros(size),
        }

    def carry(batch: int) -> Array:
        return jnp.zeros((batch, size))

    def step(params: Params, x: Array, carry: Array) -> tuple[Array, Array]:
        gates = kernels.affine(params["input"], x, params["bias"])
        h = kernels.gated_step(params["recurrent"], params["candidate_bias"], gates, carry.T)
        return h, h.T

    def unroll(params: Params, x: Array, carry: Array, start: Array) -> tuple[Array, Array]:
        """The products with the inputs of all steps are one."""
        gates = jnp.moveaxis(kernels.affine(params["input"], x, params["bias"]), 1, 0)
        h = kernels.gated_recurrence(params["recurrent"], params["candidate_bias"], gates, carry.T, start)
        return jnp.moveaxis(h, 0, 1), jnp.swapaxes(h, 1, 2)

    return Memory(init, carry, step, unroll)


def lru(size: int) -> Memory:
    """The linear recurrent unit (Orvieto et al. 2023), with H = ``size`` complex units and as many outputs.

    h' = lambda h + gamma (B x), y = Re(C h') + D x, with lambda = exp(-exp(nu) + i exp(theta)) and
    gamma = sqrt(1 - |lambda|^2). A sequence is a parallel scan. lambda starts uniformly in a part of a ring, as in the
    paper; its radii, 0.9 to 0.999, and its largest phase, pi / 10, are this project's choice.
    """
    smallest, largest, phase = 0.9, 0.999, math.pi / 10

    def init(key: Array, inputs: int) -> Params:
        keys = jax.random.split(key, 7)
        radius, angle = jax.random.uniform(keys[0], (size,)), jax.random.uniform(keys[1], (size,))
        square = radius * (largest**2 - smallest**2) + smallest**2
        normal = functools.partial(jax.random.normal, dtype=jnp.float32)
        return {
            "nu": jnp.log(-0.5 * jnp.log(square)),
            "theta": jnp.log(phase * angle + 1e-6),
            "b_real": normal(keys[2], (size, inputs)) / math.sqrt(2 * inputs),
            "b_imag": normal(keys[3], (size, inputs)) / math.sqrt(2 * inputs),
            "c_real": normal(keys[4], (size, size)) / math.sqrt(size),
            "c_imag": normal(keys[5], (size, size)) / math.sqrt(size),
            "d": normal(keys[6], (size, inputs)) / math.sqrt(inputs),
        }

    def carry(batch: int) -> Array:
        return jnp.zeros((batch, 2, size))  # real and imaginary parts

    def unroll(params: Params, x: Array, carry: Array, start: Array) -> tuple[Array, Array]:
        decay = jnp.exp(-jnp.exp(params["nu"]) + 1j * jnp.exp(params["theta"]))
        scale = jnp.sqrt(1 - jnp.exp(-2 * jnp.exp(params["nu"])))
        none = jnp.zeros(size)
        into = jax.lax.complex(kernels.affine(params["b_real"], x, none), kernels.affine(params["b_imag"], x, none))
        into = scale[:, None, None] * into  # [H, L, B]
        factor = jnp.where(start, 0, decay[:, None, None])
        # The carry enters with the first step, as the input of a step before it would.
        before = jax.lax.complex(carry[:, 0].T, carry[:, 1].T)
        into = into.at[:, 0].add(factor[:, 0] * before)

        def compose(one: tuple[Array, Array], then: tuple[Array, Array]) -> tuple[Array, Array]:
            return one[0] * then[0], then[0] * one[1] + then[1]

        h = jax.lax.associative_scan(compose, (factor, into), axis=1)[1]
        out = kernels.affine(params["c_real"], h.real, none) - kernels.affine(params["c_imag"], h.imag, none)
        y = out + kernels.affine(params["d"], x, none)
        return y, jnp.moveaxis(jnp.stack([h.real, h.imag]), (0, 1), (2, 3))

    def step(params: Params, x: Array, carry: Array) -> tuple[Array, Array]:
        """In real numbers, which formats for exported programs are made of."""
        radius, angle, none = jnp.exp(-jnp.exp(params["nu"])), jnp.exp(params["theta"]), jnp.zeros(size)
        cosine, sine = ((radius * wave)[:, None] for wave in (jnp.cos(angle), jnp.sin(angle)))
        scale = jnp.sqrt(1 - jnp.square(radius))[:, None]
        real, imag = carry[:, 0].T, carry[:, 1].T
        into_real, into_imag = (kernels.affine(params[name], x, none) for name in ("b_real", "b_imag"))
        real, imag = cosine * real - sine * imag + scale * into_real, sine * real + cosine * imag + scale * into_imag
        out = kernels.affine(params["c_real"], real, none) - kernels.affine(params["c_imag"], imag, none)
        carry = jnp.concatenate([real.T[:, None], imag.T[:, None]], axis=1)
        return out + kernels.affine(params["d"], x, none), carry

    return Memory(init, carry, step, unroll)


_KEYS = ("network.memory_size", "replay.sequence", "replay.burn_in", "replay.period", "replay.eta")
MEMORIES = Axis(
    "network.memory",
    {
        "none": Choice(lambda config: None),
        "gru": Choice(lambda config: gru(config.network.memory_size), keys=_KEYS),
        "lru": Choice(lambda config: lru(config.network.memory_size), keys=_KEYS),
    },
)
"""The memory that each name stands for; None without one."""
