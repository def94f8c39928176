"""Compiling a program of runs, with options for the CPU or the GPU."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from purejaxdqn.core.kernels import LARGE_PRODUCT
from purejaxdqn.system.collector import collector_paused

ONCE = {"xla_backend_optimization_level": 1}
"""Options for programs that run once: they compile faster and keep the bits (``benchmarks/results/tried.csv``).

Without XLA's fusion emitters they would compile faster still, but sums would have another order."""
WITHOUT_EMITTERS = {"xla_cpu_use_fusion_emitters": False}
"""Compiles faster, with other bits; for tests that compare none. jaxlib 0.11 has no such option."""
WITHOUT_YNN = {"xla_cpu_experimental_ynn_fusion_type": ""}
APART = {"xla_gpu_dot_merger_threshold_mb": 0}
"""Options for a GPU: products that share a matrix stay separate.

XLA would merge those of acting and learning, and write activations to memory once more for that: on CartPole up to a
fifth of all that an iteration moves through memory (``benchmarks/results/gpu_program.csv``)."""


class Lowered(NamedTuple):
    """A program before XLA compiles it."""

    program: Any  # jax.stages.Lowered
    largest_product: int  # elements


def compile_runs(jitted: Any, platform: str, *arguments: Any) -> Any:
    """Trace, lower and compile what ``map_runs`` gave, or another jitted function, for arguments of these shapes."""
    return compile_lowered(lower_runs(jitted, *arguments), platform)


def lower_runs(jitted: Any, *arguments: Any) -> Lowered:
    """The part of ``compile_runs`` that Python does, in which threads block each other."""
    with collector_paused():
        traced = jitted.trace(*arguments)
        return Lowered(traced.lower(), largest_product(traced.jaxpr.jaxpr))


def compile_lowered(lowered: Lowered, platform: str, *, once: bool = False) -> Any:
    """The part of ``compile_runs`` that XLA does, in which threads help.

    On a CPU, a program with large matrix products is compiled without YNN, XLA's library for them. YNN splits them
    into tasks that stay in memory until a thread of the pool is free to inspect them; with a run on every thread none
    is free before the program ends, which leaks tens of megabytes a second. YNN is also left out on a single device,
    because its sums round differently and results must not depend on the number of devices. On a GPU, products stay
    ``APART``.

    Args:
      lowered: the program.
      platform: ``cpu``, ``gpu`` or ``tpu``.
      once: whether the program runs once and briefly, so that on a CPU compiling it takes longer than running it.
    """
    options: dict[str, Any] = dict(APART) if platform == "gpu" else {}
    if platform == "cpu" and once:
        options |= ONCE
    if platform == "cpu" and lowered.largest_product >= LARGE_PRODUCT:
        options |= WITHOUT_YNN
    return compile_known(lowered.program, options)[0]


def compile_known(program: Any, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Compile a lowered program with those of the options that this release of XLA has -> compiled, those options.

    They are private to XLA, so a release may lack some: these are left out.
    """
    known = dict(options)
    while True:
        try:
            return program.compile(compiler_options=known or None), known
        except jax.errors.JaxRuntimeError as error:
            unknown = [name for name in known if "No such compile option" in str(error) and name in str(error)]
            if not unknown:
                raise
            for name in unknown:
                del known[name]


def known_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that this release of XLA has, found by compiling an empty program."""
    return compile_known(jax.jit(lambda: 0).lower(), options)[1]


def largest_product(jaxpr: Any) -> int:
    """Elements of the largest result of a ``dot_general``, those of inner jaxprs included."""
    inner = (largest_product(one) for equation in jaxpr.eqns for one in inner_jaxprs(equation))
    dots = (equation.outvars[0].aval.size for equation in jaxpr.eqns if equation.primitive.name == "dot_general")
    return max(itertools.chain(inner, dots), default=0)


def inner_jaxprs(equation: Any) -> Iterator[Any]:
    """The jaxprs that an equation calls. JAX's own function for this is private, and moves between releases."""
    for parameter in equation.params.values():
        for value in parameter if isinstance(parameter, tuple | list) else (parameter,):
            jaxpr = getattr(value, "jaxpr", value)  # out of a closed one, which may be the same
            if hasattr(jaxpr, "eqns"):
                yield jaxpr
