"""Compiling a program of runs, with what a CPU's large matrix products need."""

import itertools
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params

LARGE_PRODUCT = 2**14
"""Elements of a matrix product from which on XLA may cut it into tasks for several threads.

Seen with jaxlib 0.10.2: products of 30,720 elements and more are cut, none of 15,360 by a pool of up to 64 threads."""


def compile_runs(jitted: Any, platform: str, *arguments: Any) -> Any:
    """Trace, lower and compile what ``map_runs`` gave, or another jitted function, for arguments of these shapes.

    On a CPU, a program with large matrix products does without YNN, XLA's library for them. YNN cuts them into
    tasks that stay in memory until a thread of the pool is free to look at them, and with a run on every thread none
    is before the program ends: tens of megabytes a second. It is left out on a single device too, since its sums
    round differently and results must not hang on the number of devices.
    """
    traced = jitted.trace(*arguments)
    lowered = traced.lower()
    if platform != "cpu" or largest_product(traced.jaxpr.jaxpr) < LARGE_PRODUCT:
        return lowered.compile()
    try:
        return lowered.compile(compiler_options={"xla_cpu_experimental_ynn_fusion_type": ""})
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return lowered.compile()  # a release of XLA without that option


def largest_product(jaxpr: Any) -> int:
    """Elements of the largest result of a ``dot_general``, those of inner jaxprs included."""
    inner = (largest_product(one) for equation in jaxpr.eqns for one in jaxprs_in_params(equation.params))
    dots = (equation.outvars[0].aval.size for equation in jaxpr.eqns if equation.primitive.name == "dot_general")
    return max(itertools.chain(inner, dots), default=0)
