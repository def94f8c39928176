"""From JAX to ONNX, for the functions that the family's networks are made of.

A function is traced with a symbolic batch. What does not depend on the observations is computed here and now; the rest
is a few dozen primitives, each of which becomes one to three ONNX nodes. Anything else is refused by its name.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from purejaxdqn.host.faults import UserError

OPSET = 18
_IR_VERSION = 9  # of the file format, as old as the operator set allows: more runtimes read it

_ALIKE = {
    "abs": "Abs", "add": "Add", "and": "And", "div": "Div", "eq": "Equal", "erf": "Erf", "exp": "Exp",
    "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "log": "Log", "logistic": "Sigmoid", "lt": "Less",
    "max": "Max", "min": "Min", "mul": "Mul", "neg": "Neg", "not": "Not", "or": "Or", "sqrt": "Sqrt",
    "stop_gradient": "Identity", "sub": "Sub", "tanh": "Tanh",
}  # fmt: skip
"""Primitives that are one node with the same operands."""
_REDUCTIONS = {"reduce_max": "ReduceMax", "reduce_sum": "ReduceSum"}
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
"""Primitives that call a function, and the parameter that holds it."""


def to_onnx(function: Callable[[Any], Any], *, obs_shape: tuple[int, ...], obs_dtype: Any) -> Any:
    """The ONNX model of ``function``: obs [batch, *obs_shape] -> q_values [batch, A]; and action [batch], its argmax.

    Raises:
      UserError: a primitive has no translation.
    """
    import onnx

    (batch,) = export.symbolic_shape("batch")
    traced = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((batch, *obs_shape), obs_dtype))
    graph = _Graph(batch)
    (q_values,) = _translate(graph, traced.jaxpr, traced.consts, ["obs"])
    nodes = _needed(
        [*graph.nodes, *_outputs(graph.name(q_values))],
        {"q_values", "action"},
    )
    used = {name for node in nodes for name in node.input}

    def value(name: str, dtype: Any, shape: Sequence[int]) -> Any:
        element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return onnx.helper.make_tensor_value_info(name, element, ["batch", *shape])

    actions = traced.out_avals[0].shape[-1]
    whole = onnx.helper.make_graph(
        nodes,
        "policy",
        [value("obs", obs_dtype, obs_shape)],
        [value("q_values", np.float32, [actions]), value("action", np.int64, [])],
        [one for one in graph.initializers if one.name in used],
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(whole, opset_imports=opset, ir_version=_IR_VERSION, producer_name="purejaxdqn")
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and constants under construction. A value is an array, where it is known, or the name of a tensor."""

    def __init__(self, batch: Any):
        self.batch = batch
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def add(self, op: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node with one output; returns its name."""
        import onnx

        output = f"v{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op, [self.name(one) for one in inputs], [output], **attributes))
        return output

    def name(self, value: Any) -> str:
        """The name of a value; one that is known becomes a constant of the model."""
        import onnx

        if isinstance(value, str):
            return value
        name = f"c{len(self.initializers)}"
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def reshape(self, x: Any, shape: Sequence[Any]) -> str:
        """``x`` in another shape, in which one length may hang on the batch."""
        unknown = [length for length in shape if not isinstance(length, int)]
        if len(unknown) > 1:
            raise _refusal("reshape to two lengths that hang on the batch")
        return self.add("Reshape", x, _integers(length if isinstance(length, int) else -1 for length in shape))

    def expand(self, x: Any, shape: Sequence[Any]) -> str:
        """``x`` repeated along axes of length 1 to ``shape``; 1 leaves an axis as it is."""
        if self.batch not in [length for length in shape if not isinstance(length, int)]:
            return self.add("Expand", x, _integers(shape))
        batch = self.add("Slice", self.add("Shape", "obs"), _integers([0]), _integers([1]))
        parts = [_integers([length]) if isinstance(length, int) else batch for length in shape]
        return self.add("Expand", x, self.add("Concat", *parts, axis=0))


def _outputs(q_values: str) -> list[Any]:
    import onnx

    return [
        onnx.helper.make_node("Identity", [q_values], ["q_values"]),
        onnx.helper.make_node("ArgMax", [q_values], ["action"], axis=-1, keepdims=0),
    ]


def _needed(nodes: list[Any], wanted: set[str]) -> list[Any]:
    """The nodes that ``wanted`` tensors hang on."""
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


def _translate(graph: _Graph, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Walk through a function; returns the values of its results."""
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*map(np.asarray, consts), *arguments], strict=True))

    def read(atom: Any) -> Any:
        return np.asarray(atom.val, atom.aval.dtype) if hasattr(atom, "val") else known[atom]

    for equation in jaxpr.eqns:
        name, operands = equation.primitive.name, [read(atom) for atom in equation.invars]
        if name in _CALLS:
            called = equation.params[_CALLS[name]]
            results = _translate(graph, called.jaxpr, called.consts, operands)
        elif not any(isinstance(one, str) for one in operands) and _is_static(equation):
            results = _compute(equation, operands)
        elif name in _ALIKE:
            results = [graph.add(_ALIKE[name], *operands)]
        elif name in _REDUCTIONS:
            results = [graph.add(_REDUCTIONS[name], operands[0], _integers(equation.params["axes"]), keepdims=0)]
        elif name in _TRANSLATIONS:
            results = [_TRANSLATIONS[name](graph, equation, *operands)]
        else:
            raise _refusal(f"primitive {name!r}")
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _is_static(equation: Any) -> bool:
    """Whether an equation of known operands is known itself: nothing in it hangs on the batch."""
    lengths = (length for atom in equation.outvars for length in atom.aval.shape)
    return equation.primitive.name != "dim_as_value" and all(isinstance(length, int) for length in lengths)


def _compute(equation: Any, operands: Sequence[Any]) -> list[np.ndarray]:
    """The results of an equation whose operands are known."""
    results = equation.primitive.bind(*operands, **equation.params)
    return [np.asarray(one) for one in (results if equation.primitive.multiple_results else [results])]


def _integers(values: Any) -> np.ndarray:
    return np.asarray(list(values), np.int64)


def _refusal(what: str) -> UserError:
    return UserError(f"--format onnx: the network uses what has no translation: {what}")


def _broadcast(graph: _Graph, equation: Any, x: Any) -> str:
    shape, places = equation.params["shape"], equation.params["broadcast_dimensions"]
    before = dict(zip(places, equation.invars[0].aval.shape, strict=True))
    x = graph.reshape(x, [before.get(axis, 1) for axis in range(len(shape))])
    repeats = [1 if before.get(axis, 1) == length else length for axis, length in enumerate(shape)]
    return x if all(isinstance(one, int) and one == 1 for one in repeats) else graph.expand(x, repeats)


def _cast(graph: _Graph, equation: Any, x: Any) -> str:
    import onnx

    return graph.add("Cast", x, to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"])))


def _dot(graph: _Graph, equation: Any, x: Any, y: Any) -> str:
    """Products over the last axis of x and the first of y, which has one or two."""
    contracted, batched = equation.params["dimension_numbers"]
    ranks = [len(atom.aval.shape) for atom in equation.invars]
    if contracted != ((ranks[0] - 1,), (0,)) or any(batched) or ranks[1] > 2:
        raise _refusal(f"a product over the axes {contracted}, {batched}")
    return graph.add("MatMul", x, y)


def _slice(graph: _Graph, equation: Any, x: Any) -> str:
    strides = equation.params["strides"] or (1,) * len(equation.params["start_indices"])
    return _part(graph, equation, x, equation.params["start_indices"], equation.params["limit_indices"], strides)


def _gather(graph: _Graph, equation: Any, x: Any, places: Any) -> str:
    """A slice at a place that is known, which is how indexing is traced where the batch is symbolic."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    shape = equation.outvars[0].aval.shape
    if isinstance(places, str) or places.ndim != 1 or numbers.offset_dims != tuple(range(len(shape))):
        raise _refusal("primitive 'gather' other than a slice at a fixed place")
    starts = [0] * len(sizes)
    for axis, place in zip(numbers.start_index_map, places, strict=True):
        starts[axis] = int(place)
    stops = [start + size for start, size in zip(starts, sizes, strict=True)]
    part = _part(graph, equation, x, starts, stops, (1,) * len(sizes))
    return graph.reshape(part, shape) if numbers.collapsed_slice_dims else part


def _part(graph: _Graph, equation: Any, x: Any, *places: Any) -> str:
    """``x`` from starts to stops by strides; an axis whose length hangs on the batch is taken whole."""
    starts, stops, strides = places
    lengths = equation.invars[0].aval.shape
    cut = [axis for axis, length in enumerate(lengths) if isinstance(length, int)]
    bounds = [_integers(of[axis] for axis in cut) for of in (starts, stops)]
    return graph.add("Slice", x, *bounds, _integers(cut), _integers(strides[axis] for axis in cut))


def _round(graph: _Graph, equation: Any, x: Any) -> str:
    if equation.params["rounding_method"] != jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        raise _refusal("primitive 'round' away from zero")
    return graph.add("Round", x)


def _select(graph: _Graph, equation: Any, which: Any, *cases: Any) -> str:
    if len(cases) != 2 or equation.invars[0].aval.dtype != bool:
        raise _refusal("primitive 'select_n' among other than two")
    return graph.add("Where", which, cases[1], cases[0])


def _expm1(graph: _Graph, equation: Any, x: Any) -> str:
    """Through the hyperbolic tangent, as exp(x) - 1 loses what is small: 2 t / (1 - t) with t = tanh(x / 2)."""
    tanh = graph.add("Tanh", graph.add("Mul", x, np.float32(0.5)))
    return graph.add("Div", graph.add("Mul", tanh, np.float32(2)), graph.add("Sub", np.float32(1), tanh))


_TRANSLATIONS: dict[str, Callable[..., str]] = {
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
    "square": lambda graph, equation, x: graph.add("Mul", x, x),
    "squeeze": lambda graph, equation, x: graph.reshape(x, equation.outvars[0].aval.shape),
    "transpose": lambda graph, equation, x: graph.add("Transpose", x, perm=equation.params["permutation"]),
}
