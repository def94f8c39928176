"""Compiling a program of runs, with what a CPU's large matrix products need."""

import itertools
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params

LARGE_PRODUCT = 2**14
"""Elements of a matrix product from which on XLA may cut it into tasks for several threads.

Seen with jaxlib 0.10.2: products of 30,720 elements and more are cut, none of 15,360 by a pool of up to 64 threads."""


ONCE = {"xla_backend_optimization_level": 1}
"""Options for what runs once: compiled sooner, the same bits (``benchmarks/tried.py``).

Without XLA's fusion emitters it would be sooner still, but sums come out in another order."""
WITHOUT_YNN = {"xla_cpu_experimental_ynn_fusion_type": ""}


def compile_runs(jitted: Any, platform: str, *arguments: Any, once: bool = False) -> Any:
    """Trace, lower and compile what ``map_runs`` gave, or another jitted function, for arguments of these shapes.

    On a CPU, a program with large matrix products does without YNN, XLA's library for them. YNN cuts them into
    tasks that stay in memory until a thread of the pool is free to look at them, and with a run on every thread none
    is before the program ends: tens of megabytes a second. It is left out on a single device too, since its sums
    round differently and results must not hang on the number of devices.

    Args:
      jitted: the function.
      platform: ``cpu``, ``gpu`` or ``tpu``.
      *arguments: of these shapes.
      once: it runs once and not for long, so that on a CPU the compiler's time counts for more than the program's.
    """
    traced = jitted.trace(*arguments)
    lowered = traced.lower()
    if platform != "cpu":
        return lowered.compile()
    options: dict[str, Any] = dict(ONCE) if once else {}
    if largest_product(traced.jaxpr.jaxpr) >= LARGE_PRODUCT:
        options |= WITHOUT_YNN
    while True:
        try:
            return lowered.compile(compiler_options=options or None)
        except jax.errors.JaxRuntimeError as error:
            unknown = [name for name in options if "No such compile option" in str(error) and name in str(error)]
            if not unknown:
                raise
            for name in unknown:  # a release of XLA without that option
                del options[name]


def largest_product(jaxpr: Any) -> int:
    """Elements of the largest result of a ``dot_general``, those of inner jaxprs included."""
    inner = (largest_product(one) for equation in jaxpr.eqns for one in jaxprs_in_params(equation.params))
    dots = (equation.outvars[0].aval.size for equation in jaxpr.eqns if equation.primitive.name == "dot_general")
    return max(itertools.chain(inner, dots), default=0)
