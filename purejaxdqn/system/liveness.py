"""The memory that a traced program needs for what it makes, estimated before XLA compiles it."""

import math
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np

from purejaxdqn.system.compiling import inner_jaxprs

_LOOPS = ("scan", "while")
_ELEMENTWISE = frozenset(
    (
        *("abs", "add", "and", "atan2", "broadcast_in_dim", "ceil", "clamp", "convert_element_type", "copy", "cos"),
        *("div", "eq", "erf", "exp", "exp2", "expand_dims", "expm1", "floor", "ge", "gt", "integer_pow", "iota"),
        *("is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "pow"),
        *("rem", "reshape", "round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic"),
        *("shift_right_logical", "sign", "sin", "sqrt", "square", "squeeze", "stop_gradient", "sub", "tan", "tanh"),
        "xor",
    )
)
"""Primitives whose results XLA fuses with what reads them; one that is not named here counts in full."""
_REDUCTIONS = frozenset(
    (
        *("argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum"),
        "reduce_xor",
    )
)


def most_alive(jaxpr: Any, free: Sequence[bool] = ()) -> int:
    """Bytes of the arrays that a program makes, at the moment at which there are most of them.

    An array lives from the equation that makes it to the last that reads it. A result of the shape and type of an
    operand that ends there takes its place, as XLA lets it; of a loop, only the carries do. An array that is computed
    element by element, and that only such computations or reductions read, takes no memory: XLA fuses it with them.
    XLA makes fewer arrays by other fusions, and larger ones by padding them. The arguments count nothing.

    Args:
      jaxpr: of the program.
      free: for each argument, whether a result may take its place; none may unless given.
    """
    fused = _fused(jaxpr)
    last = _last_reads(jaxpr, fused)
    ending: list[list[Any]] = [[] for _ in range(len(jaxpr.eqns) + 1)]
    for variable, place in last.items():
        ending[place].append(variable)
    arguments = zip(jaxpr.invars, free or repeat(False), strict=False)
    fixed = {*jaxpr.constvars, *(variable for variable, is_free in arguments if not is_free)}
    held = dict.fromkeys((*jaxpr.invars, *jaxpr.constvars), 0)
    alive = most = 0
    for equation, ends in zip(jaxpr.eqns, ending, strict=False):
        free_places = [variable for variable in ends if variable not in fixed]
        places = _places(equation, free_places)
        made = 0
        for result in equation.outvars:
            if result in places:
                held[result] = held.pop(places[result])
            else:
                held[result] = 0 if result in fused else _bytes_of(result)
                made += held[result]
        inside = 0 if fused.issuperset(equation.outvars) else _most_inside(equation, free_places)
        most = max(most, alive + (made + inside if equation.primitive.name in _LOOPS else max(made, inside)))
        unread = [result for result in equation.outvars if result not in last]
        alive += made - sum(held.pop(variable, 0) for variable in (*ends, *unread))
    return most


def _most_inside(equation: Any, free_places: Sequence[Any]) -> int:
    """The most that is alive in a program that an equation calls, such as the body of a loop."""
    most = 0
    for jaxpr in inner_jaxprs(equation):
        if equation.primitive.name in _LOOPS:
            first, carries = len(jaxpr.invars) - _slices(equation), len(_carries(equation))
            free = [first - carries <= place < first for place in range(len(jaxpr.invars))]
        else:  # a call or a branch, whose operands are the last ones
            free = [operand in free_places for operand in equation.invars[-len(jaxpr.invars) :]]
        most = max(most, most_alive(jaxpr, free))
    return most


def _places(equation: Any, free_places: Sequence[Any]) -> dict[Any, Any]:
    """Result -> the operand whose place it takes."""
    found, left = {}, list(free_places)
    loop = equation.primitive.name in _LOOPS
    carries = [[carry] for carry in _carries(equation)] if loop else []
    for place, result in enumerate(equation.outvars):
        candidates = left if not loop else carries[place] if place < len(carries) else []
        taken = next((one for one in candidates if one in left and _kind(one) == _kind(result)), None)
        if taken is not None:
            left.remove(taken)
            found[result] = taken
    return found


def _carries(loop: Any) -> Sequence[Any]:
    """The operands of a loop that it carries from one pass to the next."""
    end = len(loop.invars) - _slices(loop)
    if loop.primitive.name == "while":
        return loop.invars[end - len(loop.outvars) :]
    (body,) = inner_jaxprs(loop)
    stacked = _differing(loop.outvars, body.outvars)
    return loop.invars[end - (len(loop.outvars) - stacked) : end]


def _slices(loop: Any) -> int:
    """The number of operands of which each pass of a loop reads a slice."""
    if loop.primitive.name == "while":
        return 0
    (body,) = inner_jaxprs(loop)
    return _differing(loop.invars, body.invars)


def _differing(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """How many have another shape in a scan than in its body; the numbers that say so have moved between releases."""
    return sum(_kind(one) != _kind(other) for one, other in zip(outside, inside, strict=True))


def _fused(jaxpr: Any) -> set[Any]:
    """The results that XLA is expected to fuse with what reads them.

    Booleans are not among them. On a GPU, XLA keeps those of a forward pass for the gradient, as a quarter of the bytes
    that they are computed from: in QR-DQN's loss, one for each pair of quantiles.
    """
    stored = set(_variables(jaxpr.outvars))
    for equation in jaxpr.eqns:
        if not (equation.primitive.name in _REDUCTIONS or _is_elementwise(equation)):
            stored.update(_variables(equation.invars))
    results = (result for one in jaxpr.eqns if _is_elementwise(one) for result in one.outvars)
    return {result for result in results if result not in stored and getattr(result.aval, "dtype", None) != np.bool_}


def _is_elementwise(equation: Any) -> bool:
    """Whether each element of the results depends on few elements of the operands; ``jnp.where`` is a call."""
    name = equation.primitive.name
    if name in _ELEMENTWISE:
        return True
    called = [] if name in (*_LOOPS, "cond") else list(inner_jaxprs(equation))
    return bool(called) and all(_is_elementwise(one) for jaxpr in called for one in jaxpr.eqns)


def _last_reads(jaxpr: Any, fused: set[Any]) -> dict[Any, int]:
    """Variable -> place of the last equation that reads it; what a fused array is made of is read with that."""
    last = dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))
    for place, equation in reversed(list(enumerate(jaxpr.eqns))):
        read = max((last.get(result, place) for result in equation.outvars if result in fused), default=place)
        for variable in _variables(equation.invars):
            last[variable] = max(last.get(variable, 0), read)
    return last


def _variables(atoms: Sequence[Any]) -> list[Any]:
    """Those that are not literals. Only a literal has a value; its class is among what JAX keeps for extensions."""
    return [one for one in atoms if not hasattr(one, "val")]


def _kind(variable: Any) -> tuple[Any, Any]:
    return getattr(variable.aval, "shape", None), getattr(variable.aval, "dtype", None)


def _bytes_of(variable: Any) -> int:
    shape, dtype = _kind(variable)
    return math.prod(shape) * dtype.itemsize if dtype is not None else 0
