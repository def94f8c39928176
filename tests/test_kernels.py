"""Each kernel computes what its plain reference does, and so do its gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn.core import kernels

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def uniform(*shape):
    return jnp.asarray(RNG.uniform(size=shape), jnp.float32)


def weighted(value, ret):
    """A term of a pair of the kind that heads sum up."""
    return jnp.abs(value - ret) * ret


QUANTILES = (normal(5, 7), uniform(5, 7), normal(5, 3), jnp.full((5, 3), 1 / 3), jnp.float32(0.7))
SHARED = (normal(5, 7), uniform(7), normal(5, 3), jnp.full(3, 1 / 3), jnp.float32(0.7))
CASES = {
    "affine": ("affine", (normal(6, 4), normal(4, 8), normal(6))),
    "affine, large": ("affine", (normal(140, 130), normal(130, 150), normal(140))),  # transposed copies on a CPU
    "affine, several axes": ("affine", (normal(6, 4), normal(4, 3, 5), normal(6))),
    "one_hot_affine": ("one_hot_affine", (normal(9, 4), jnp.eye(9)[jnp.array([8, 0, 3, 3])].at[0].set(0.0), normal(4))),
    "convolution": ("convolution", (normal(5, 2, 3, 3), normal(2, 6, 7, 4), normal(5))),
    "signed_root": ("signed_root", (normal(50),)),
    "cos_pi": ("cos_pi", (jnp.linspace(-4.0, 4.0, 1001),)),
    "quantile_huber": ("quantile_huber", QUANTILES),
    "quantile_huber, shared fractions": ("quantile_huber", SHARED),
    "gated_step": ("gated_step", (normal(12, 4), normal(4), normal(12, 5), normal(4, 5))),
    "gated_recurrence": (
        "gated_recurrence",
        (normal(12, 4), normal(4), normal(6, 12, 5), normal(4, 5), jnp.asarray(RNG.integers(2, size=(6, 5)), bool)),
    ),
    "permutations": ("permutations", (jnp.asarray(RNG.integers(2**32, size=(3, 100)), jnp.uint32),)),
    "permutations of a power of two": ("permutations", (jnp.asarray(RNG.integers(9, size=(2, 64)), jnp.uint32),)),
    "overwrite": ("overwrite", (jnp.arange(21).reshape(7, 3), -jnp.ones((2, 3), jnp.int32), jnp.int32(5))),
    "global_norm": ("global_norm", ({"a": normal(7, 3), "b": normal(200, 100)},)),
}
"""Kernel and arguments."""


def test_every_kernel_has_a_reference_and_a_case():
    plain = {name.removeprefix("plain_") for name in vars(kernels) if name.startswith("plain_")}
    public = {
        name
        for name, one in vars(kernels).items()
        if callable(one) and getattr(one, "__module__", "") == kernels.__name__ and not name.startswith(("_", "plain_"))
    }
    assert plain == public
    assert {kernel for kernel, _ in CASES.values()} | {"sum_over_pairs", "after", "in_parts"} == plain


def test_rows_of_many_runs_are_written_as_one_slice_wherever_an_axis_is_mapped():
    kept, block, start = normal(2, 4, 1, 7, 3), normal(2, 4, 1, 2, 3), jnp.full((2, 4), 3)
    write = functools.partial(kernels.overwrite, axis=1)
    many = jax.jit(jax.vmap(jax.vmap(write)))
    expected = kept.at[..., 3:5, :].set(block)
    np.testing.assert_array_equal(many(kept, block, start), expected)
    text = str(jax.make_jaxpr(many)(kept, block, start))
    assert "dynamic_update_slice" in text and "scatter" not in text
    shared = jax.vmap(jax.vmap(write, (0, 0, None)), (0, None, None))(kept, block[0], jnp.int32(3))
    np.testing.assert_array_equal(shared, kept.at[..., 3:5, :].set(block[:1]))


@pytest.mark.parametrize("length", [1, 3, 7])
def test_rows_beyond_the_end_are_written_at_the_beginning(length):
    """Also of many runs, without a scatter, which would copy all of their rows on a TPU."""
    kept, block = normal(2, 7, 3), normal(2, length, 3)
    write = jax.jit(jax.vmap(functools.partial(kernels.overwrite, wraps=True)))
    plain = jax.vmap(functools.partial(kernels.plain_overwrite, wraps=True))
    for start in range(7):
        at = jnp.full(2, start)
        np.testing.assert_array_equal(write(kept, block, at), plain(kept, block, at))
    text = str(jax.make_jaxpr(write)(kept, block, at))
    assert "dynamic_update_slice" in text and "scatter" not in text


def test_a_batch_in_parts_is_the_batch():
    x = {"a": normal(12, 3), "b": normal(12)}

    def function(x):
        return x["a"] * 2 + x["b"][:, None], jnp.sum(x["a"], axis=-1)

    for one, other in zip(kernels.in_parts(function, x, 4), kernels.plain_in_parts(function, x, 4), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert "length=4" in str(jax.make_jaxpr(lambda x: kernels.in_parts(function, x, 4))(x))


@pytest.mark.parametrize("case", CASES)
def test_a_kernel_computes_what_its_reference_does(case):
    name, arguments = CASES[case]
    ours, plain = getattr(kernels, name), getattr(kernels, f"plain_{name}")
    np.testing.assert_allclose(jax.jit(ours)(*arguments), jax.jit(plain)(*arguments), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.startswith(("signed_root", "cos_pi", "permutations", "overwrite"))]
)
def test_a_kernel_has_the_gradients_of_its_reference(case):
    """Of the arguments for which the kernel has some."""
    name, arguments = CASES[case]
    count = {"quantile_huber": 1, "global_norm": 1, "gated_step": 4, "gated_recurrence": 4}.get(name, 2)
    shape = jax.eval_shape(getattr(kernels, name), *arguments).shape
    weight = normal(*shape)

    def gradients(function):
        def loss(*arguments):
            return jnp.sum(weight * function(*arguments))

        return jax.jit(jax.grad(loss, argnums=tuple(range(count))))(*arguments)

    ours, plain = gradients(getattr(kernels, name)), gradients(getattr(kernels, f"plain_{name}"))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), ours, plain)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 1), (4, 2), (3, 2), (2, 3)])
def test_a_convolution_with_a_stride_is_the_plain_one(sizes):
    kernel, stride = sizes
    arguments = normal(5, 2, kernel, kernel), normal(2, 9, 8, 4), normal(5)

    def both(function):
        def loss(*arguments):
            return jnp.sum(jnp.sin(function(*arguments, stride)))

        return function(*arguments, stride), jax.grad(loss, argnums=(0, 1, 2))(*arguments)

    ours, plain = both(kernels.convolution), both(kernels.plain_convolution)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), ours, plain)


@pytest.mark.parametrize(
    ("left", "right"),
    [((5, 4), (5, 3)), ((4,), (5, 3)), ((5, 4), (3,))],
    ids=["batched", "left shared", "right shared"],
)
def test_pairs_are_summed_as_the_plain_sum_does(left, right):
    left, right = (normal(*left),), (normal(*right),)
    ours = jax.jit(lambda left, right: kernels.sum_over_pairs(weighted, left, right))(left, right)
    plain = kernels.plain_sum_over_pairs(weighted, left, right)
    np.testing.assert_allclose(ours, jnp.broadcast_to(plain, ours.shape), rtol=1e-5, atol=1e-6)


def test_signed_roots_of_zero_are_zero():
    np.testing.assert_array_equal(kernels.signed_root(jnp.zeros(3)), jnp.zeros(3))


def test_the_order_of_a_read_and_a_write_changes_no_index():
    indices, read = jnp.arange(5), uniform(5)
    np.testing.assert_array_equal(kernels.after(read, indices), kernels.plain_after(read, indices))
    first = jax.make_jaxpr(kernels.after)(read, indices).jaxpr.eqns[0]
    assert first.primitive.name == "ge"  # the indices depend on what is read
