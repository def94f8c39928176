"""Counts what whole runs need that are compiled for a described device: the workers of ``accelerators.py``."""

import importlib.metadata
import math
import os
import time
from typing import Any

from benchmarks.devices import ACCELERATORS, described

UNDISTURBED = 0.9
"""Processor time over wall-clock time of a compilation, at least, for the wall-clock time to be kept.

With less, the compiler waited for other programs of this machine."""
VARIANTS = ("merged", "flattened", "whole")
"""Other ways of compiling or writing a run: products that share a matrix merged; Adam on one vector; the values of a
rollout computed at once, and not in parts."""
NAMED = {
    "largest PQN of gpu.py": "cartpole_cleanrl+pqn+env.num_envs=4096+rollout.steps=16+rollout.epochs=2"
    "+rollout.minibatches=16+total_timesteps=1310720"
}
"""Configs with many overrides, by the names that tables have for them."""


def count(*, device: str, config: str, seeds: int) -> dict[str, Any]:
    """Compile a whole run for a device, and count -> columns of the table.

    With one seed, the same run is then compiled for this machine's CPU, too, whose times stand beside the device's.
    """
    devices = described(device)
    import jax

    from benchmarks import hlo
    from purejaxdqn.runs.memory import memory_needs

    jax.config.update("jax_enable_compilation_cache", False)
    draft, program = read_config(config, seeds)
    found: dict[str, Any] = {"jax": jax.__version__ + compiler_of(device)}
    try:
        compiled, seconds, used = timed(*lower(draft, program, devices))
    except jax.errors.JaxRuntimeError as error:
        return {**found, "one program": reason(str(error))}
    found |= {"compile (s)": seconds, "compile (CPU s)": used}
    if seeds == 1:
        _, seconds, used = timed(*lower(draft, program, None))
        found |= {"on a CPU (s)": seconds, "on a CPU (CPU s)": used}
    text, memory, needs = compiled.as_text(), compiled.memory_analysis(), memory_needs(draft)
    a_seed, kept = bytes_of(memory) / seeds / 1e6, (needs.state + needs.working) / 1e6
    return {
        **found,
        "one program": ", ".join(hlo.host_calls(text)) or "yes",
        "machine code (MB)": memory.generated_code_size_in_bytes / 1e6 or "",  # of a GPU not known
        "memory a seed (MB)": a_seed,
        "sum (MB)": kept,
        "memory / sum": a_seed / kept,
        "MFLOP an iteration": seeds * flops_of_iteration(draft, program) / 1e6,
        **_traffic(text, program.plan, seeds, device),
    }


def _traffic(text: str, plan: Any, seeds: int, device: str) -> dict[str, Any]:
    """The columns that are counted in the compiled iteration, or a note that says why they are empty."""
    from benchmarks import hlo

    try:
        kernels = hlo.iteration(text, nest_of(plan))
    except ValueError as error:
        return {"note": f"bytes not counted: {reason(str(error))}"}
    moved, steps = hlo.traffic(kernels), seeds * plan.num_envs * plan.rollout
    return {
        "kernels": sum(one.times for one in kernels) if ACCELERATORS[device].platform == "gpu" else "",
        "MB an iteration": moved / 1e6,
        "steps a second that memory allows": float(steps * ACCELERATORS[device].bytes_a_second / moved),
    }


def count_variant(*, device: str, config: str, seeds: int, variant: str) -> dict[str, Any]:
    """Count an iteration and the memory of a run as it is shipped, and of a variant -> columns of both.

    Args:
      device: one of ``ACCELERATORS``.
      config: names and overrides, joined by +.
      seeds: of the run.
      variant: one of ``VARIANTS``, or overrides joined by +.
    """
    devices = described(device)
    shipped, changed = (_count_one(device, devices, config, seeds, one) for one in ("", variant))
    return {name: cell for column in shipped for name, cell in _beside(column, shipped, changed)}


def _beside(column: str, shipped: dict[str, Any], changed: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(column, shipped[column]), (f"{column}, with it", changed[column])]


def _count_one(device: str, devices: Any, config: str, seeds: int, variant: str) -> dict[str, Any]:
    """The kernels of an iteration (of a GPU), the MB that it moves, and the memory of a seed; empty if not counted."""
    import jax
    import optax

    from purejaxdqn.core import kernels
    from purejaxdqn.system.compiling import compile_lowered

    def flattened(hparams: Any, rate: Any) -> Any:
        return optax.flatten(optax.adam(rate, eps=hparams.optimizer_eps))

    jax.config.update("jax_enable_compilation_cache", False)
    if variant == "whole":  # the process ends with this variant
        kernels.in_parts = kernels.plain_in_parts
    optimizer = flattened if variant == "flattened" else None
    words = config if variant in ("", *VARIANTS) else f"{config}+{variant}"
    draft, program = read_config(words, seeds, optimizer)
    lowered, platform = lower(draft, program, devices)
    compiled = lowered.program.compile() if variant == "merged" else compile_lowered(lowered, platform)
    found = _traffic(compiled.as_text(), program.plan, seeds, device)
    return {
        "kernels": found.get("kernels", ""),
        "MB an iteration": found.get("MB an iteration", ""),
        "memory a seed (MB)": bytes_of(compiled.memory_analysis()) / seeds / 1e6,
    }


def timed(lowered: Any, platform: str) -> tuple[Any, Any, float]:
    """Compile -> compiled, seconds (empty if other programs disturbed it), seconds of processor time.

    The processor time is that of all threads, and of processes that the compiler started.
    """
    from purejaxdqn.system.compiling import compile_lowered

    start, before = time.perf_counter(), sum(os.times()[:4])
    compiled = compile_lowered(lowered, platform)
    seconds, used = time.perf_counter() - start, sum(os.times()[:4]) - before
    return compiled, (seconds if used >= UNDISTURBED * seconds else ""), used


def compiler_of(device: str) -> str:
    """Return the version of a TPU's compiler; a GPU's comes with jax."""
    return f", libtpu {importlib.metadata.version('libtpu')}" if ACCELERATORS[device].platform == "tpu" else ""


def reason(error: str) -> str:
    """Return the part of an error that says why, in one line."""
    line = next((one for one in error.splitlines() if one.strip()), "no reason given")
    return line if len(line) <= 160 else f"{line[:160]} ..."


def bytes_of(memory: Any) -> int:
    """Return what a compiled program takes at most: arguments, results and what it keeps meanwhile."""
    shared = memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + memory.output_size_in_bytes - shared + memory.temp_size_in_bytes


def nest_of(plan: Any) -> tuple[int, ...]:
    """Return the lengths of the loops around an iteration, the outermost first."""
    return plan.epochs, plan.periods, plan.iterations


def read_config(config: str, seeds: int, optimizer: Any = None) -> Any:
    """Return a config and its program; ``config`` has names and overrides, joined by +, or is one of ``NAMED``."""
    from purejaxdqn import load_config
    from purejaxdqn.config.building import Own, make_program

    words = NAMED.get(config, config).split("+")
    names, overrides = [one for one in words if "=" not in one], [one for one in words if "=" in one]
    found = load_config(tuple(names), [*overrides, f"num_seeds={seeds}"])
    return found, make_program(found, Own(optimizer=optimizer))


def lower(config: Any, program: Any, devices: Any) -> tuple[Any, str]:
    """Trace and lower the training of all seeds together for a device, or this CPU -> lowered program, platform."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn.core.many import lay_out, map_runs
    from purejaxdqn.system.compiling import lower_runs

    layout = lay_out(config.num_seeds, devices=devices or jax.local_devices()[:1])

    def start() -> Any:
        hparams = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (config.num_seeds,)), config.hparams())
        return hparams, jax.random.split(jax.random.key(0), config.num_seeds)

    return lower_runs(map_runs(program.train, layout), *jax.eval_shape(start)), layout.platform


def flops_of_iteration(config: Any, program: Any) -> float:
    """Return the FLOPs of one seed's matrix products in an iteration, as its jaxpr asks for them."""
    import jax

    state = jax.eval_shape(program.init, config.hparams(), jax.random.key(0))
    jaxpr = jax.make_jaxpr(lambda state: program.segment(config.hparams(), state, 1))(state).jaxpr
    for length in (1, program.plan.periods, program.plan.iterations):
        scans = (one for one in jaxpr.eqns if one.primitive.name == "scan" and one.params["length"] == length)
        jaxpr = next(scans).params["jaxpr"].jaxpr
    return _flops(jaxpr)


def _flops(jaxpr: Any) -> float:
    from purejaxdqn.system.compiling import inner_jaxprs

    total = 0.0
    for one in jaxpr.eqns:
        if one.primitive.name == "dot_general":
            (contracted, _), _ = one.params["dimension_numbers"]
            shape = one.invars[0].aval.shape
            total += 2.0 * one.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
        elif one.primitive.name != "platform_index":
            times = one.params.get("length", 1) if one.primitive.name == "scan" else 1
            inner = [_flops(inner) for inner in inner_jaxprs(one)]
            # Of branches for platforms one is taken; they compute the same.
            total += max(inner, default=0.0) if one.primitive.name == "cond" else times * sum(inner)
    return total
