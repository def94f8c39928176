"""Translates JAX functions to ONNX models, for the functions that make up this package's networks.

The function is traced with a symbolic batch size. Values that do not depend on the observations are computed during
translation and become constants of the model; each remaining primitive becomes one to three ONNX nodes
(``onnx_primitives``). A primitive without a translation raises a ``UserError`` that names it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from purejaxdqn.core.algorithm import ILLEGAL
from purejaxdqn.policies.onnx_primitives import Graph, find_translation, untranslatable

OPSET = 18
_IR_VERSION = 9  # of the file format: the oldest one that the opset allows, which the most runtimes read

_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
"""Primitives that call a function, and the name of the parameter that holds its jaxpr."""


Inputs = Callable[[Any], dict[str, Any]]
"""Batch size -> the shape and type of each argument of a function, by name; all have the batch as their first axis."""


def observations(shape: tuple[int, ...], dtype: Any) -> Inputs:
    """A single argument, obs [batch, *shape]."""
    return lambda batch: {"obs": jax.ShapeDtypeStruct((batch, *shape), dtype)}


def to_onnx(function: Callable[..., Any], inputs: Inputs, *, more: Sequence[str] = (), masked: bool = False) -> Any:
    """Translate ``function`` to an ONNX model.

    Args:
      function: maps ``inputs`` to Q-values [batch, A], or to these and others [batch, ...].
      inputs: of ``function``, one of them ``obs``.
      more: the names of the others.
      masked: whether the model has one more input, ``legal`` [batch, A] bool, and chooses among these actions.

    Returns:
      A ``ModelProto`` with these inputs and outputs ``q_values`` [batch, A] float32, ``action`` [batch] int64, the
      argmax of the Q-values, and ``more``.

    Raises:
      UserError: the function uses a primitive that has no translation.
    """
    import onnx

    (batch,) = export.symbolic_shape("batch")
    given = inputs(batch)
    traced = jax.make_jaxpr(function)(*given.values())
    graph = Graph(batch)
    results = [graph.name(one) for one in _translate(graph, traced.jaxpr, traced.consts, list(given))]
    outputs = _output_nodes(graph, results, more, masked=masked)
    nodes = _ancestors([*graph.nodes, *outputs], {"q_values", "action", *more})
    used = {name for node in nodes for name in node.input}

    def value_info(name: str, dtype: Any, shape: Sequence[int]) -> Any:
        element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return onnx.helper.make_tensor_value_info(name, element, ["batch", *shape])

    q_values, *others = (value.shape[1:] for value in traced.out_avals)
    whole = onnx.helper.make_graph(
        nodes,
        "policy",
        [
            *(value_info(name, one.dtype, one.shape[1:]) for name, one in given.items()),
            *([value_info("legal", np.bool_, q_values)] if masked else []),
        ],
        [
            value_info("q_values", np.float32, q_values),
            value_info("action", np.int64, []),
            *(value_info(name, np.float32, shape) for name, shape in zip(more, others, strict=True)),
        ],
        [constant for constant in graph.initializers if constant.name in used],
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(whole, opset_imports=opset, ir_version=_IR_VERSION, producer_name="purejaxdqn")
    onnx.checker.check_model(model, full_check=True)
    return model


def _output_nodes(graph: Graph, results: Sequence[str], more: Sequence[str], *, masked: bool) -> list[Any]:
    import onnx

    q_values, *others = results
    chosen_from, masking = q_values, []
    if masked:
        chosen_from = "legal_q_values"
        masking = [onnx.helper.make_node("Where", ["legal", q_values, graph.name(np.float32(ILLEGAL))], [chosen_from])]
    return [
        onnx.helper.make_node("Identity", [q_values], ["q_values"]),
        *masking,
        onnx.helper.make_node("ArgMax", [chosen_from], ["action"], axis=-1, keepdims=0),
        *(onnx.helper.make_node("Identity", [one], [name]) for name, one in zip(more, others, strict=True)),
    ]


def _ancestors(nodes: list[Any], tensors: set[str]) -> list[Any]:
    """Return the nodes, of a topologically sorted list, that ``tensors`` depend on."""
    kept = []
    for node in reversed(nodes):
        if tensors & set(node.output):
            tensors |= set(node.input)
            kept.append(node)
    return kept[::-1]


def _translate(graph: Graph, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Add a jaxpr's equations to ``graph``; return its outputs as arrays (if constant) or tensor names."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*map(np.asarray, consts), *arguments], strict=True))

    def read(atom: Any) -> Any:
        return np.asarray(atom.val, atom.aval.dtype) if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        name, operands = equation.primitive.name, [read(atom) for atom in equation.invars]
        if name in _CALLS:
            called = equation.params[_CALLS[name]]
            results = _translate(graph, called.jaxpr, called.consts, operands)
        elif not any(isinstance(operand, str) for operand in operands) and _has_static_shape(equation):
            results = _compute(equation, operands)
        elif translation := find_translation(name):
            translated = translation(graph, equation, *operands)
            results = translated if isinstance(translated, list) else [translated]
        else:
            raise untranslatable(f"primitive {name!r}")
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _has_static_shape(equation: Any) -> bool:
    """Whether the results' shapes do not depend on the batch size; constant operands then give constant results."""
    lengths = (length for atom in equation.outvars for length in atom.aval.shape)
    return equation.primitive.name != "dim_as_value" and all(isinstance(length, int) for length in lengths)


def _compute(equation: Any, operands: Sequence[Any]) -> list[np.ndarray]:
    """Evaluate an equation whose operands are all constant."""
    results = equation.primitive.bind(*operands, **equation.params)
    return [np.asarray(one) for one in (results if equation.primitive.multiple_results else [results])]
