"""ONNX translations of JAX primitives, and the graph that they add nodes to.

A translation takes the graph, the equation of the jaxpr and its operands, and returns the name of the result. An
operand is an array if it is constant, and the name of a tensor if it depends on the inputs. A primitive with several
results has a list of names.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from purejaxdqn.system.faults import UserError

Translation = Callable[..., str | list[str]]


class Graph:
    """Nodes and constants of a model under construction; ``batch`` is the symbolic batch size."""

    def __init__(self, batch: Any):
        self.batch = batch
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def add(self, op: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        import onnx

        output = f"v{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op, [self.name(x) for x in inputs], [output], **attributes))
        return output

    def name(self, value: Any) -> str:
        """Return the name of a value; an array becomes a constant of the model."""
        import onnx

        if isinstance(value, str):
            return value
        name = f"c{len(self.initializers)}"
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def reshape(self, x: Any, shape: Sequence[Any]) -> str:
        """Reshape ``x``; at most one length of ``shape`` may depend on the batch size."""
        symbolic = [length for length in shape if not isinstance(length, int)]
        if len(symbolic) > 1:
            raise untranslatable("reshape to two lengths that depend on the batch size")
        return self.add("Reshape", x, _int64(length if isinstance(length, int) else -1 for length in shape))

    def expand(self, x: Any, shape: Sequence[Any]) -> str:
        """Repeat ``x`` along its axes of length 1 to ``shape``; a 1 in ``shape`` keeps an axis as it is."""
        if self.batch not in [length for length in shape if not isinstance(length, int)]:
            return self.add("Expand", x, _int64(shape))
        batch = self.add("Slice", self.add("Shape", "obs"), _int64([0]), _int64([1]))
        parts = [_int64([length]) if isinstance(length, int) else batch for length in shape]
        return self.add("Expand", x, self.add("Concat", *parts, axis=0))


def untranslatable(what: str) -> UserError:
    """Return the error for an operation without a translation."""
    return UserError(f"--format onnx: the network uses an operation that has no translation: {what}")


def find_translation(primitive: str) -> Translation | None:
    """Return the translation of a primitive, or None if there is none."""
    if op := _SAME_OPERANDS.get(primitive):
        return lambda graph, equation, *operands: graph.add(op, *operands)
    if op := _REDUCTIONS.get(primitive):
        return lambda graph, equation, x: graph.add(op, x, _int64(equation.params["axes"]), keepdims=0)
    return _TRANSLATIONS.get(primitive)


def _int64(values: Any) -> np.ndarray:
    return np.asarray(list(values), np.int64)


def _broadcast(graph: Graph, equation: Any, x: Any) -> str:
    shape, dims = equation.params["shape"], equation.params["broadcast_dimensions"]
    before = dict(zip(dims, equation.invars[0].aval.shape, strict=True))
    x = graph.reshape(x, [before.get(axis, 1) for axis in range(len(shape))])
    repeats = [1 if before.get(axis, 1) == length else length for axis, length in enumerate(shape)]
    return x if all(isinstance(count, int) and count == 1 for count in repeats) else graph.expand(x, repeats)


def _cast(graph: Graph, equation: Any, x: Any) -> str:
    return _cast_to(graph, x, equation.params["new_dtype"])


def _cast_to(graph: Graph, x: Any, dtype: Any) -> str:
    import onnx

    return graph.add("Cast", x, to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _dot(graph: Graph, equation: Any, x: Any, y: Any) -> str:
    """Matrix product of x's last axis and y's first; y has one or two axes. Or products of matrices [K, ..., ...]."""
    contracted, batched = equation.params["dimension_numbers"]
    ranks = [len(atom.aval.shape) for atom in equation.invars]
    if (contracted, batched, ranks) == (((2,), (1,)), ((0,), (0,)), [3, 3]):
        return graph.add("MatMul", x, y)
    if contracted != ((ranks[0] - 1,), (0,)) or any(batched) or ranks[1] > 2:
        raise untranslatable(f"a product over the axes {contracted}, {batched}")
    return graph.add("MatMul", x, y)


def _slice(graph: Graph, equation: Any, x: Any) -> str:
    strides = equation.params["strides"] or (1,) * len(equation.params["start_indices"])
    bounds = equation.params["start_indices"], equation.params["limit_indices"]
    return _strided_slice(graph, equation, x, bounds, strides)


def _gather(graph: Graph, equation: Any, x: Any, indices: Any) -> str:
    """A slice at a constant index, to which JAX traces indexing with a symbolic batch size, or rows of a constant."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    shape = equation.outvars[0].aval.shape
    if isinstance(indices, str) and (axis := _fetched_axis(equation)) is not None:
        return graph.add("Gather", x, graph.reshape(indices, [shape[axis]]), axis=axis)
    if isinstance(indices, str) or indices.ndim != 1 or numbers.offset_dims != tuple(range(len(shape))):
        raise untranslatable("primitive 'gather' other than a slice at a constant index")
    starts = [0] * len(sizes)
    for axis, index in zip(numbers.start_index_map, indices, strict=True):
        starts[axis] = int(index)
    stops = [start + size for start, size in zip(starts, sizes, strict=True)]
    part = _strided_slice(graph, equation, x, (starts, stops), (1,) * len(sizes))
    return graph.reshape(part, shape) if numbers.collapsed_slice_dims else part


def _split(graph: Graph, equation: Any, x: Any) -> list[str]:
    stops = np.cumsum(equation.params["sizes"])
    axis = _int64([equation.params["axis"]])
    return [
        graph.add("Slice", x, _int64([stop - size]), _int64([stop]), axis)
        for stop, size in zip(stops, equation.params["sizes"], strict=True)
    ]


def _fetched_axis(equation: Any) -> int | None:
    """The axis along which a gather fetches whole slices at indices [B, 1]; None if it does anything else."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    operand, indices = (atom.aval.shape for atom in equation.invars)
    if len(numbers.collapsed_slice_dims) != 1 or len(indices) != 2:
        return None
    (axis,) = numbers.collapsed_slice_dims
    rest = tuple(place for place in range(len(operand)) if place != axis)
    whole = all(sizes[place] == operand[place] for place in rest) and not numbers.operand_batching_dims
    return axis if numbers.start_index_map == (axis,) and numbers.offset_dims == rest and whole else None


def _argmax(graph: Graph, equation: Any, x: Any) -> str:
    (axis,) = equation.params["axes"]
    return _cast_to(graph, graph.add("ArgMax", x, axis=axis, keepdims=0), equation.params["index_dtype"])


def _strided_slice(graph: Graph, equation: Any, x: Any, bounds: tuple[Any, Any], strides: Sequence[int]) -> str:
    """Slice ``x`` from starts to stops, along its axes of constant length; axes that depend on the batch stay whole."""
    lengths = equation.invars[0].aval.shape
    axes = [axis for axis, length in enumerate(lengths) if isinstance(length, int)]
    starts, stops = (_int64(ends[axis] for axis in axes) for ends in bounds)
    return graph.add("Slice", x, starts, stops, _int64(axes), _int64(strides[axis] for axis in axes))


def _round(graph: Graph, equation: Any, x: Any) -> str:
    if equation.params["rounding_method"] != jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        raise untranslatable("primitive 'round' away from zero")
    return graph.add("Round", x)


def _select(graph: Graph, equation: Any, which: Any, *cases: Any) -> str:
    if len(cases) != 2 or equation.invars[0].aval.dtype != bool:
        raise untranslatable("primitive 'select_n' with other than two cases")
    return graph.add("Where", which, cases[1], cases[0])


def _expm1(graph: Graph, equation: Any, x: Any) -> str:
    """2 t / (1 - t) with t = tanh(x / 2), because exp(x) - 1 loses precision near 0."""
    tanh = graph.add("Tanh", graph.add("Mul", x, np.float32(0.5)))
    return graph.add("Div", graph.add("Mul", tanh, np.float32(2)), graph.add("Sub", np.float32(1), tanh))


_SAME_OPERANDS = {
    "abs": "Abs", "add": "Add", "and": "And", "div": "Div", "eq": "Equal", "erf": "Erf", "exp": "Exp",
    "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "log": "Log", "logistic": "Sigmoid", "lt": "Less",
    "max": "Max", "min": "Min", "mul": "Mul", "neg": "Neg", "not": "Not", "or": "Or", "sqrt": "Sqrt",
    "stop_gradient": "Identity", "sub": "Sub", "tanh": "Tanh",
}  # fmt: skip
"""Primitives that translate to one node with the same operands."""
_REDUCTIONS = {"reduce_max": "ReduceMax", "reduce_sum": "ReduceSum"}
_TRANSLATIONS: dict[str, Translation] = {
    "argmax": _argmax,
    "broadcast_in_dim": _broadcast,
    "clamp": lambda graph, equation, low, x, high: graph.add("Min", graph.add("Max", x, low), high),
    "concatenate": lambda graph, equation, *xs: graph.add("Concat", *xs, axis=equation.params["dimension"]),
    "convert_element_type": _cast,
    "cumsum": lambda graph, equation, x: graph.add(
        "CumSum", x, np.int64(equation.params["axis"]), reverse=int(equation.params["reverse"])
    ),
    "dot_general": _dot,
    "expm1": _expm1,
    "gather": _gather,
    "integer_pow": lambda graph, equation, x: graph.add("Pow", x, np.float32(equation.params["y"])),
    "reshape": lambda graph, equation, x: graph.reshape(x, equation.params["new_sizes"]),
    "round": _round,
    "rsqrt": lambda graph, equation, x: graph.add("Reciprocal", graph.add("Sqrt", x)),
    "select_n": _select,
    "slice": _slice,
    "split": _split,
    "square": lambda graph, equation, x: graph.add("Mul", x, x),
    "squeeze": lambda graph, equation, x: graph.reshape(x, equation.outvars[0].aval.shape),
    "transpose": lambda graph, equation, x: graph.add("Transpose", x, perm=equation.params["permutation"]),
}
