"""Performance tricks, each next to the plain expression that it computes.

The rest of the package calls a kernel by the name of what it computes; ``plain_...`` is the reference that
``tests/test_kernels.py`` compares it with. Measurements are in ``benchmarks/results/tried.csv``.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental.layout import Layout, with_layout_constraint

from purejaxdqn.core.types import Array

LARGE_PRODUCT = 2**14
"""Elements of a matrix product from which on XLA may cut it into tasks for several threads.

Seen with jaxlib 0.10.2: products of 30,720 elements and more are cut, none of 15,360 by a pool of up to 64 threads."""
_LARGE_TRANSPOSED = 2**14
"""Elements of a matrix from which on XLA's CPU backend takes longer over the product of it transposed than over a copy
and a plain product; below, the copy costs more than it gains."""


def affine(weight: Array, x: Array, bias: Array) -> Array:
    """W x + b of columns: weight [width, inputs], x [inputs, ...], bias [width] -> [width, ...].

    As a product of two matrices, for which XLA's CPU backend has the fastest sums.
    """
    return (_product(weight, x.reshape(x.shape[0], -1)) + bias[:, None]).reshape(-1, *x.shape[1:])


def plain_affine(weight: Array, x: Array, bias: Array) -> Array:
    """The reference of ``affine``."""
    return jnp.tensordot(weight, x, 1) + bias.reshape(-1, *(1,) * (x.ndim - 1))


def one_hot_affine(weight: Array, x: Array, bias: Array) -> Array:
    """W x + b of columns that have at most one 1: weight [inputs, width], x [B, inputs], bias [width] -> [width, B].

    A row of the weights is fetched in place of a product with zeros. Weights and x are the other way round than in
    ``affine``, so that what is fetched lies together; x passes no gradient.
    """
    x = jax.lax.stop_gradient(x)
    rows = jnp.take(weight, jnp.argmax(x, axis=-1), axis=0, mode="clip")
    return (rows * jnp.max(x, axis=-1)[:, None] + bias).T


def plain_one_hot_affine(weight: Array, x: Array, bias: Array) -> Array:
    """The reference of ``one_hot_affine``."""
    return (jax.lax.stop_gradient(x) @ weight + bias).T


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


def _transposed(x: Array) -> Array:
    if x.size < _LARGE_TRANSPOSED:
        return x.T
    return jax.lax.platform_dependent(x, cpu=lambda x: jax.lax.optimization_barrier(x.T), default=jnp.transpose)


def convolution(weight: Array, x: Array, bias: Array, stride: int = 1) -> Array:
    """A convolution without padding: weight [F, C, k, k], x [C, H, W, B], bias [F] -> [F, H', W', B].

    H' is (H - k) / stride + 1, rounded down. As k^2 shifted slices and one matrix product: on a CPU several times as
    fast as XLA's convolution at the sizes of small pictures.
    """
    kernel = weight.shape[-1]
    channels, height, width = x.shape[0], *((side - kernel) // stride + 1 for side in x.shape[1:3])
    rows, columns = ((size - 1) * stride + 1 for size in (height, width))

    def shifted(i: int, j: int) -> Array:
        # Not ``x[:, i::stride, j::stride]``: JAX traces that to a gather, which the export to ONNX does not translate.
        ends, strides = (channels, i + rows, j + columns, x.shape[3]), (1, stride, stride, 1)
        return jax.lax.slice(x, (0, i, j, 0), ends, strides)[:, None]

    parts = [shifted(i, j) for i in range(kernel) for j in range(kernel)]
    patches = jnp.concatenate(parts, axis=1).reshape(kernel**2 * channels, height, width, -1)
    return affine(weight.reshape(weight.shape[0], -1), patches, bias)


def plain_convolution(weight: Array, x: Array, bias: Array, stride: int = 1) -> Array:
    """The reference of ``convolution``."""
    layout, strides = ("CHWN", "OIHW", "CHWN"), (stride, stride)
    return (
        jax.lax.conv_general_dilated(x, weight, strides, "VALID", dimension_numbers=layout) + bias[:, None, None, None]
    )


def signed_root(values: Array) -> Array:
    """f(e) = sign(e) sqrt|e| of normal numbers e (Fortunato et al. 2018, section 3.1b).

    As e / sqrt|e|, because XLA computes a division once. It would fuse a product with the sign into every kernel that
    uses it, and with it the generation of the normal numbers, for every weight. The tiny number makes f(0) 0 and keeps
    the division a division.
    """
    return values / (jnp.sqrt(jnp.abs(values)) + 1e-30)


def plain_signed_root(values: Array) -> Array:
    """The reference of ``signed_root``."""
    return jnp.sign(values) * jnp.sqrt(jnp.abs(values))


def cos_pi(x: Array) -> Array:
    """cos(pi x), to 2e-7.

    By a polynomial, because XLA's CPU backend takes several times as long over ``jnp.cos`` as over the matrix product
    that follows; it is also the more exact of the two, since its argument is not rounded by a product with pi. The
    outer ``where`` also keeps XLA from fusing the polynomial into that product, where it would be slow again.
    """
    y = jnp.abs(x - 2 * jnp.round(x / 2))  # in [0, 1]; past its half the cosine is that of 1 - y, negative
    past = y > 0.5
    square = jnp.square(jnp.where(past, 1 - y, y))
    coefficients = ((-1) ** n * math.pi ** (2 * n) / math.factorial(2 * n) for n in reversed(range(7)))
    cosine = functools.reduce(lambda total, coefficient: total * square + coefficient, coefficients)
    return jnp.where(past, -cosine, cosine)


def plain_cos_pi(x: Array) -> Array:
    """The reference of ``cos_pi``."""
    return jnp.cos(jnp.pi * x)


def sum_over_pairs(term: Callable[..., Any], left: tuple[Array, ...], right: tuple[Array, ...]) -> Any:
    """The sums [B, I] over j of term(*left_i, *right_j), for left [B, I] or [I] and right [B, J] or [J].

    On a CPU one j after another, with the batch innermost: the sums stay in its cache and its vectors are full, which
    makes it several times as fast as one large sum. A GPU would launch a kernel for each j, and takes the plain sum.
    """

    def one_by_one(left: tuple[Array, ...], right: tuple[Array, ...]) -> Any:
        left, right = jax.tree.map(lambda x: jnp.atleast_2d(x).T, (left, right))  # [I, B] or [I, 1]

        def add(sums: Any, right: tuple[Array, ...]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, term(*left, *right)), None

        start = jax.tree.map(jnp.zeros_like, term(*left, *(x[0] for x in right)))
        return jax.tree.map(jnp.transpose, jax.lax.scan(add, start, right)[0])

    plain = functools.partial(plain_sum_over_pairs, term)
    return jax.lax.platform_dependent(left, right, cpu=one_by_one, default=plain)


def plain_sum_over_pairs(term: Callable[..., Any], left: tuple[Array, ...], right: tuple[Array, ...]) -> Any:
    """The reference of ``sum_over_pairs``."""
    terms = term(*(x[..., :, None] for x in left), *(x[..., None, :] for x in right))
    return jax.tree.map(lambda x: jnp.sum(x, axis=-1), terms)


@jax.custom_vjp
def quantile_huber(values: Array, fractions: Array, returns: Array, weights: Array, kappa: Array) -> Array:
    """The quantile Huber loss [B] of values [B, K] at fractions, against weighted returns [B, K'].

    sum_i sum_j weight_j |fraction_i - [d_ij < 0]| huber(d_ij, kappa) / kappa with d_ij = return_j - value_i (Dabney et
    al. 2018a, eq. 10). Only the values pass a gradient. It is computed along with the loss: differentiated by JAX,
    the terms of all pairs would be kept in memory.

    Args:
      values: [B, K].
      fractions: [B, K] or [K], in (0, 1).
      returns: [B, K'].
      weights: [B, K'] or [K'], sum 1.
      kappa: [] where the loss turns from square to linear.
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

    losses, slopes = sum_over_pairs(pair, (values, fractions), (returns, weights / kappa))
    return jnp.sum(losses, axis=-1), -slopes


def _pull_back(gradient: Array, cotangent: Array) -> tuple[Array, None, None, None, None]:
    return cotangent[:, None] * gradient, None, None, None, None


quantile_huber.defvjp(_quantile_huber, _pull_back)


def plain_quantile_huber(values: Array, fractions: Array, returns: Array, weights: Array, kappa: Array) -> Array:
    """The reference of ``quantile_huber``, which JAX differentiates."""
    error = returns[:, None, :] - values[:, :, None]
    fraction = jnp.broadcast_to(fractions, values.shape)[:, :, None]
    weight = jnp.broadcast_to(weights, returns.shape)[:, None, :]
    terms = weight * jnp.abs(fraction - (error < 0.0)) * optax.huber_loss(error, delta=kappa) / kappa
    return jnp.sum(terms, axis=(1, 2))


def gated_step(weight: Array, bias: Array, gates: Array, h: Array) -> Array:
    """A step of a gated recurrent unit (Cho et al. 2014) whose products with the input are given: h [H, B] -> h'.

    r = sigmoid(g_r + U_r h), z = sigmoid(g_z + U_z h), n = tanh(g_n + r (U_n h + c)) and h' = (1 - z) n + z h.

    Args:
      weight: U, [3 H, H], of r, z and n.
      bias: c, [H].
      gates: g, [3 H, B].
      h: [H, B].
    """
    return _gated(weight, bias, gates, h)[0]


def _gated(weight: Array, bias: Array, gates: Array, h: Array) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    """h', and r, z, n and U_n h + c, each [H, B]."""
    of_reset, of_update, of_candidate = jnp.split(gates, 3)
    reset, update, inner = jnp.split(weight @ h, 3)
    reset, update, inner = jax.nn.sigmoid(of_reset + reset), jax.nn.sigmoid(of_update + update), inner + bias[:, None]
    proposed = jnp.tanh(of_candidate + reset * inner)
    return (1 - update) * proposed + update * h, (reset, update, proposed, inner)


def plain_gated_step(weight: Array, bias: Array, gates: Array, h: Array) -> Array:
    """The reference of ``gated_step``, a gate after the other."""
    (g_r, g_z, g_n), (u_r, u_z, u_n) = jnp.split(gates, 3), jnp.split(weight, 3)
    r, z = jax.nn.sigmoid(g_r + u_r @ h), jax.nn.sigmoid(g_z + u_z @ h)
    n = jnp.tanh(g_n + r * (u_n @ h + bias[:, None]))
    return (1 - z) * n + z * h


@jax.custom_vjp
def gated_recurrence(weight: Array, bias: Array, gates: Array, carry: Array, start: Array) -> Array:
    """The states [L, H, B] after each of L times ``gated_step``, which begins with h = 0 where an episode starts.

    JAX would add up the gradient of U in every step of the backward loop; here it is one product after the loop.

    Args:
      weight: U, [3 H, H].
      bias: c, [H].
      gates: g, [L, 3 H, B].
      carry: h before the first step, [H, B].
      start: [L, B] bool.
    """
    return _recur(weight, bias, gates, carry, start)[0]


def _recur(weight: Array, bias: Array, gates: Array, carry: Array, start: Array) -> tuple[Array, tuple[Array, ...]]:
    """The states, and the parts of each step."""

    def step(h: Array, xs: tuple[Array, Array]) -> tuple[Array, tuple[Array, tuple[Array, ...]]]:
        gates, start = xs
        h, parts = _gated(weight, bias, gates, jnp.where(start, 0.0, h))
        return h, (h, parts)

    return jax.lax.scan(step, carry, (gates, start))[1]


def _recur_forward(weight: Array, bias: Array, gates: Array, carry: Array, start: Array) -> tuple[Array, Any]:
    states, parts = _recur(weight, bias, gates, carry, start)
    before = jnp.where(start[:, None], 0.0, jnp.concatenate([carry[None], states[:-1]]))
    return states, (weight, before, start, parts)


def _recur_backward(kept: Any, cotangents: Array) -> tuple[Array, Array, Array, Array, None]:
    weight, before, start, (reset, update, proposed, inner) = kept
    size, transposed = before.shape[1], _transposed(weight)
    by_proposed = (1 - update) * (1 - jnp.square(proposed))
    by_update = (before - proposed) * update * (1 - update)
    by_reset = inner * reset * (1 - reset)

    def back(slope: Array, xs: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        cotangent, start, reset, update, by_reset, by_update, by_proposed = xs
        slope = slope + cotangent
        of_candidate = slope * by_proposed
        of_products = jnp.concatenate([of_candidate * by_reset, slope * by_update, of_candidate * reset])
        return jnp.where(start, 0.0, slope * update + transposed @ of_products), (of_products, of_candidate)

    xs = cotangents, start, reset, update, by_reset, by_update, by_proposed
    of_carry, (of_products, of_candidate) = jax.lax.scan(back, jnp.zeros_like(before[0]), xs, reverse=True)
    of_gates = jnp.concatenate([of_products[:, : 2 * size], of_candidate], axis=1)
    of_products, before = (jnp.moveaxis(x, 1, 0).reshape(x.shape[1], -1) for x in (of_products, before))
    of_bias = jnp.sum(of_products[2 * size :], axis=1)
    return of_products @ _transposed(before), of_bias, of_gates, of_carry, None


gated_recurrence.defvjp(_recur_forward, _recur_backward)


def plain_gated_recurrence(weight: Array, bias: Array, gates: Array, carry: Array, start: Array) -> Array:
    """The reference of ``gated_recurrence``, which JAX differentiates."""

    def step(h: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        gates, start = xs
        h = plain_gated_step(weight, bias, gates, jnp.where(start, 0.0, h))
        return h, h

    return jax.lax.scan(step, carry, (gates, start))[1]


def global_norm(tree: Any) -> Array:
    """The Euclidean norm [] of all leaves together.

    A large gradient comes from a large product, and a program with one is compiled without the library whose sums are
    fast (``compiling.compile_lowered``). XLA's own sums add one number after the other, unless many short ones stand
    beside each other: so the norm of a large leaf is that of the norms of its parts.
    """
    return optax.tree.norm(jax.tree.map(lambda x: x if x.size < LARGE_PRODUCT else _norms_of_parts(x), tree))


def _norms_of_parts(x: Array) -> Array:
    """The norms of parts of ``x`` of up to 32 entries each."""
    pieces = x.reshape(math.gcd(x.size, 32), -1)
    return jnp.sqrt(functools.reduce(jnp.add, jnp.square(pieces)))


def plain_global_norm(tree: Any) -> Array:
    """The reference of ``global_norm``."""
    return optax.tree.norm(tree)


def in_parts(function: Callable[[Any], Any], x: Any, parts: int) -> Any:
    """``function`` of a batch, leaves [N, ...], that treats its items apart, in as many parts as given; they divide N.

    Part after part, as a CPU's cache would not hold the hidden layers of a large batch, and those of many runs together
    would take most of an accelerator's memory (``benchmarks/results/accelerators_tried.csv``).
    """
    split = jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), x)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), jax.lax.map(function, split))


def plain_in_parts(function: Callable[[Any], Any], x: Any, parts: int) -> Any:
    """The reference of ``in_parts``."""
    return function(x)


def permutations(bits: Array) -> Array:
    """Random permutations [..., N] int32 of 0 to N - 1, from uint32 bits [..., N]: where each of the bits is in order.

    The low bits of each number are replaced by its place, and the numbers are sorted: XLA's CPU backend sorts single
    numbers several times as fast as pairs. The high bits decide the order, and equal ones keep theirs, which favours
    one order of a pair by less than N / 2^32.
    """
    mask = _low_bits(bits.shape[-1])
    return (jnp.sort(bits & ~mask | jnp.arange(bits.shape[-1], dtype=jnp.uint32)) & mask).astype(jnp.int32)


def _low_bits(length: int) -> Array:
    """The bits of numbers below ``length``, as a mask."""
    return jnp.uint32(2 ** (length - 1).bit_length() - 1)


def plain_permutations(bits: Array) -> Array:
    """The reference of ``permutations``."""
    return jnp.argsort(bits & ~_low_bits(bits.shape[-1]), stable=True)


def after(read: Array, indices: Array) -> Array:
    """``indices`` [B] int32, available only once ``read`` [B], which is never negative, has been computed.

    A later write at ``indices`` then waits for the read. Without that order, XLA may write first, for which it copies
    the whole array in every update.
    """
    return jnp.where(read >= 0.0, indices, 0)


def plain_after(read: Array, indices: Array) -> Array:
    """The reference of ``after``."""
    return indices


def overwrite(kept: Array, block: Array, start: Array, axis: int = 0, *, wraps: bool = False) -> Array:
    """``kept`` [..., N, ...] with ``block`` [..., M, ...] from ``start`` [] on, M <= N.

    Mapped over runs, ``start`` must be the same for all, as it is for the replay of runs that take steps together. It
    then remains one slice that is written. As a scatter of every run's rows, a TPU would copy the whole array in every
    iteration to the order of axes that the scatter wants, and hold it twice. Where rows are
    numbers, a TPU is also told to keep the axes in their order: it would pad the number of runs to 128. There is no
    gradient.

    Args:
      kept: what is overwritten.
      block: what is written.
      start: below N; without ``wraps`` at most N - M.
      axis: of N and M.
      wraps: whether what is beyond the end is written at the beginning. There are then two slices: M rows up to the end
        at the latest, and the first M, both with what they had where the block does not reach.
    """
    return _overwriting(axis, wraps)(kept, block, start)


def plain_overwrite(kept: Array, block: Array, start: Array, axis: int = 0, *, wraps: bool = False) -> Array:
    """The reference of ``overwrite``."""
    rows = (slice(None),) * axis + ((start + jnp.arange(block.shape[axis])) % kept.shape[axis],)
    return kept.at[rows].set(block)


@functools.cache
def _overwriting(axis: int, wraps: bool) -> Callable[[Array, Array, Array], Array]:
    @jax.custom_batching.custom_vmap
    def write(kept: Array, block: Array, start: Array) -> Array:
        put = _put_around if wraps else jax.lax.dynamic_update_slice_in_dim
        written = put(kept, block, start, axis)
        if written.ndim > axis + 1:
            return written
        return jax.lax.platform_dependent(written, tpu=_in_order, default=lambda x: x)

    @write.def_vmap
    def write_all(runs: int, mapped: Any, kept: Array, block: Array, start: Array) -> tuple[Array, bool]:
        kept, block = (
            x if whether else jnp.broadcast_to(x, (runs, *x.shape))
            for x, whether in zip((kept, block), mapped, strict=False)
        )
        return _overwriting(axis + 1, wraps)(kept, block, start[0] if mapped[2] else start), True

    return write


def _put_around(kept: Array, block: Array, start: Array, axis: int) -> Array:
    size, length = kept.shape[axis], block.shape[axis]
    for first in (jnp.minimum(start, size - length), jnp.zeros_like(start)):
        places = (first + jnp.arange(length) - start) % size  # in the block; those from its length on are not in it
        reached = (places < length).reshape(-1, *(1,) * (kept.ndim - axis - 1))
        before = jax.lax.dynamic_slice_in_dim(kept, first, length, axis)
        after = jnp.where(reached, jnp.take(block, places, axis=axis, mode="clip"), before)
        kept = jax.lax.dynamic_update_slice_in_dim(kept, after, first, axis)
    return kept


def _in_order(x: Array) -> Array:
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))
