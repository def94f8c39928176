"""Only the matrix products of a PQN run: the upper bound for the rate of an agent that computes them."""

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.baselines.setting import RolloutSetting

LAYOUTS = ("columns", "columns, copied", "rows")
"""Columns W x, or rows x W; the transposed factors of gradients can be copied first."""
COPIED = 2**14
"""Elements from which on a transposed factor is copied."""
PLACES = 64
"""Of a picture of 10 x 10, at which a convolution is computed."""
CALLS = 3
"""Rollouts that a timed call computes."""


def fastest_products(setting: RolloutSetting, rounds: int) -> float:
    """Return the seconds of a rollout's products alone, in the layout and with the library that are fastest here."""
    ways = {(layout, ynn): products(setting, layout, ynn=ynn) for layout in LAYOUTS for ynn in (False, True)}
    first = {name: min(way() for _ in range(2)) for name, way in ways.items()}
    return statistics.median(ways[min(first, key=first.__getitem__)]() for _ in range(rounds))


def products(setting: RolloutSetting, layout: str, *, ynn: bool) -> Callable[[], float]:
    """Return a function that measures the seconds of a rollout's products alone, in the order of their dependencies.

    They are: a forward pass of every acting step; one of each minibatch for the targets; and in each epoch, for every
    minibatch a forward pass, the gradients of the weights, and those of all layers' inputs but the first's. The product
    of a convolution is that of its patches, which are not cut out here.

    Args:
      setting: sizes.
      layout: of ``LAYOUTS``.
      ynn: whether XLA may call its library YNN.
    """
    import jax
    import jax.numpy as jnp

    from purejaxdqn.system.compiling import compile_runs

    weights, inputs = random_arrays(setting, rows=layout == "rows")

    def repeated(function: Callable[..., list[Any]], batch: int, times: int) -> Callable[[Any], Any]:
        """``times`` calls, each of which needs the last one's results in the first layer's weights."""
        x = inputs(batch)

        def body(first: Any, _: None) -> tuple[Any, None]:
            found = function([first, *weights[1:]], x, layout)
            return first + 1e-30 * sum(jnp.sum(one) for one in found), None

        return lambda first: jax.lax.scan(body, first, None, length=times)[0]

    parts = (
        repeated(output, setting.num_envs, setting.steps),
        repeated(output, setting.batch_size, setting.minibatches),
        repeated(gradients, setting.batch_size, setting.epochs * setting.minibatches),
    )

    def rollout(first: Any, _: None) -> tuple[Any, None]:
        return functools.reduce(lambda first, part: part(first), parts, first), None

    jitted = jax.jit(lambda first: jax.lax.scan(rollout, first, None, length=CALLS)[0])
    compiled = jitted.lower(weights[0]).compile() if ynn else compile_runs(jitted, "cpu", weights[0])
    return timed(lambda: compiled(weights[0]), CALLS)


def random_arrays(setting: RolloutSetting, *, rows: bool) -> tuple[list[Any], Callable[[int], Any]]:
    """Return the weights of all layers, and a function that makes the inputs of a batch: patches for a convolution."""
    import jax

    shapes = shapes_of(setting)
    *keys, input_key = jax.random.split(jax.random.key(0), len(shapes) + 1)
    weights = [jax.random.normal(key, shape[::-1] if rows else shape) for key, shape in zip(keys, shapes, strict=True)]

    def inputs(batch: int) -> Any:
        size = (shapes[0][1], batch * (PLACES if setting.convolution else 1))
        return jax.random.normal(input_key, size[::-1] if rows else size)

    return weights, inputs


def forward(weights: Sequence[Any], x: Any, layout: str) -> list[Any]:
    """Return the input of every layer, and the output of the last.

    What a convolution found at all places of a picture becomes one column or row.
    """
    found = []
    for weight in weights:
        x = x.reshape(-1, weight.shape[0]) if layout == "rows" else x.reshape(weight.shape[1], -1)
        found.append(x)
        x = x @ weight if layout == "rows" else weight @ x
    return [*found, x]


def output(weights: Sequence[Any], x: Any, layout: str) -> list[Any]:
    """Return the output of the last layer."""
    return forward(weights, x, layout)[-1:]


def gradients(weights: Sequence[Any], x: Any, layout: str) -> list[Any]:
    """Return the gradients of half the squared output by the weights, the last layer's first."""
    import jax

    def transposed(x: Any) -> Any:
        return jax.lax.optimization_barrier(x.T) if layout == "columns, copied" and x.size >= COPIED else x.T

    *inputs, error = forward(weights, x, layout)
    found = []
    for weight, before in reversed(list(zip(weights, inputs, strict=True))):
        if layout == "rows":
            error = error.reshape(-1, weight.shape[1])
            found.append(transposed(before) @ error)
            error = error @ transposed(weight)
        else:
            error = error.reshape(weight.shape[0], -1)
            found.append(error @ transposed(before))
            error = transposed(weight) @ error
    return found  # the compiler drops the gradient of the first layer's input, which nothing reads


def shapes_of(setting: RolloutSetting) -> list[tuple[int, int]]:
    """Return the shapes [outputs, inputs] of all layers' weights."""
    from purejaxdqn.environments.registry import make_environment

    env = make_environment(setting.env_id)
    *_, channels = env.obs_shape
    widths = (16 * PLACES if setting.convolution else channels, *setting.hidden, env.num_actions)
    convolution = [(16, 9 * channels)] if setting.convolution else []
    return [*convolution, *((b, a) for a, b in itertools.pairwise(widths))]


def forward_flops(setting: RolloutSetting) -> float:
    """Return the floating-point operations of a forward pass of every step of a rollout."""
    return setting.rollout * sum(_flops_by_layer(setting))


def flops_of(setting: RolloutSetting) -> float:
    """Return the floating-point operations of a rollout's products."""
    layers, forward = _flops_by_layer(setting), forward_flops(setting)
    backward = 2 * forward - setting.rollout * layers[0]  # no gradient of the first layer's input
    return 2 * forward + setting.epochs * (forward + backward)


def _flops_by_layer(setting: RolloutSetting) -> list[float]:
    """Of one transition."""
    shapes = shapes_of(setting)
    places = [PLACES if setting.convolution and not layer else 1 for layer in range(len(shapes))]
    return [2.0 * a * b * n for (a, b), n in zip(shapes, places, strict=True)]


def timed(call: Callable[[], Any], iterations: int) -> Callable[[], float]:
    """Call once, and return a function that calls and returns the seconds of one of ``iterations``."""
    import jax

    jax.block_until_ready(call())

    def seconds() -> float:
        start = time.perf_counter()
        jax.block_until_ready(call())
        return (time.perf_counter() - start) / iterations

    return seconds
