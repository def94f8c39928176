"""Counts what whole runs need that are compiled for a described device: the workers of ``accelerators.py``."""

import gzip
import importlib.metadata
import json
import math
import os
import re
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.devices import ACCELERATORS, described

UNDISTURBED = 0.9
"""Processor time over wall-clock time of a compilation, at least, for the wall-clock time to be kept.

With less, the compiler waited for other programs of this machine."""
OFF_CHIP = {"xla_msa_enable": "false"}
"""Options for a TPU: nothing is moved to on-chip memory between kernels."""
VARIANTS = ("merged", "flattened", "whole", "off chip", "O0")
"""Other ways of compiling or writing a run: products that share a matrix merged; Adam on one vector; the values of a
rollout computed at once, and not in parts; everything in a TPU's large memory; with JAX_OPTIMIZATION_LEVEL=O0."""
NAMED = {
    "largest PQN of gpu.py": "cartpole_cleanrl+pqn+env.num_envs=4096+rollout.steps=16+rollout.epochs=2"
    "+rollout.minibatches=16+total_timesteps=1310720+evaluation.every=327680"
}
"""Configs with many overrides, by the names that tables have for them.

Five rollouts lie between two evaluations: with one, its loop would be that of an epoch, and hold the evaluation."""
ON_A_CPU = ("on a CPU (s)", "on a CPU (CPU s)")
"""Columns of compiling a run of one seed for this machine's CPU."""


def count(
    *, device: str, config: str, seeds: int, on_a_cpu: Mapping[str, Any] | None = None, texts: str = ""
) -> dict[str, Any]:
    """Compile a whole run for a device, and count -> columns of the table.

    With one seed, the same run is then compiled for this machine's CPU, too, whose times stand beside the device's.

    Args:
      device: one of ``ACCELERATORS``.
      config: names and overrides, joined by +, or one of ``NAMED``.
      seeds: of the run.
      on_a_cpu: what another row has in the columns ``ON_A_CPU``, so that nothing is compiled for the CPU.
      texts: folder in which the compiled text, its memory and the times are kept for ``count_kept``; empty for none.
    """
    devices = described(device)
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    draft, program = read_config(config, seeds)
    found: dict[str, Any] = {"jax": version_of(device)}
    try:
        compiled, seconds, used = timed(*lower(draft, program, devices))
    except jax.errors.JaxRuntimeError as error:
        return {**found, "one program": reason(str(error))}
    found |= {"compile (s)": seconds, "compile (CPU s)": used}
    if seeds == 1:
        found |= on_a_cpu or _compiled_for_the_cpu(draft, program)
    text, memory = compiled.as_text(), compiled.memory_analysis()
    if texts:
        keep(path_in(texts, device, config, seeds), text, memory, found)
    return {**found, **_columns(text, memory, device, draft, program)}


def _compiled_for_the_cpu(config: Any, program: Any) -> dict[str, Any]:
    _, seconds, used = timed(*lower(config, program, None))
    return dict(zip(ON_A_CPU, (seconds, used), strict=True))


def _columns(text: str, memory: Any, device: str, config: Any, program: Any) -> dict[str, Any]:
    """The columns that follow from a compiled program and its config."""
    from purejaxdqn.runs.memory import memory_needs

    needs, seeds = memory_needs(config), config.num_seeds
    a_seed, kept = bytes_of(memory) / seeds / 1e6, (needs.state + needs.working) / 1e6
    return {
        "one program": _one_program(text, ACCELERATORS[device].platform),
        "machine code (MB)": memory.generated_code_size_in_bytes / 1e6 or "",  # of a GPU not known
        "memory a seed (MB)": a_seed,
        "sum (MB)": kept,
        "memory / sum": a_seed / kept,
        "MFLOP an iteration": seeds * flops_of_iteration(config, program) / 1e6,
        **_traffic(text, program.plan, seeds, device),
    }


def _one_program(text: str, platform: str) -> str:
    """Yes, or what calls the host; of a GPU with the loops whose conditions the host reads."""
    from benchmarks import hlo

    calls, loops = hlo.host_calls(text), hlo.open_loops(text) if platform == "gpu" else []
    if calls or not loops:
        return ", ".join(calls) or "yes"
    return f"yes; {len(loops)} loop{'s' * (len(loops) > 1)} of unknown length: {', '.join(dict.fromkeys(loops))}"


def path_in(texts: str | Path, device: str, config: str, seeds: int) -> Path:
    """Return where a row's compiled text is kept, without the ending ``.txt.gz`` or ``.json``."""
    return Path(texts, re.sub(r"[^\w.=+-]+", "_", f"{device}_{config}_{seeds}"))


def keep(path: Path, text: str, memory: Any, found: Mapping[str, Any]) -> None:
    """Keep a compiled program's text (``.txt.gz``), and its memory and the columns of compiling it (``.json``)."""
    from benchmarks import harness

    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(f"{path}.txt.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    sizes = {name: getattr(memory, name) for name in dir(memory) if name.endswith("_in_bytes")}
    about = {"commit": harness.commit(), "machine": harness.machine()}
    Path(f"{path}.json").write_text(json.dumps({"columns": {**found, **about}, "memory": sizes}, indent=1) + "\n")


def count_kept(*, device: str, config: str, seeds: int, texts: str | Path) -> dict[str, Any] | None:
    """Count a program that ``count`` has kept, without compiling -> columns; None if there is none.

    The config is read anew, so that a column of it is only right if the run has not changed since.
    """
    path = path_in(texts, device, config, seeds)
    if not Path(f"{path}.json").exists():
        return None
    kept = json.loads(Path(f"{path}.json").read_text())
    with gzip.open(f"{path}.txt.gz", "rt", encoding="utf-8") as file:
        text = file.read()
    found = _columns(text, types.SimpleNamespace(**kept["memory"]), device, *read_config(config, seeds))
    return {**kept["columns"], **found}


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
    """Kernels of an iteration (of a GPU), its MB, memory of a seed, time to compile; empty if not counted."""
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
    if variant == "O0":
        jax.config.update("jax_optimization_level", "O0")
    before = sum(os.times()[:4])
    if variant in ("merged", "off chip"):
        compiled = lowered.program.compile(compiler_options=OFF_CHIP if variant == "off chip" else None)
    else:
        compiled = compile_lowered(lowered, platform)
    used = sum(os.times()[:4]) - before
    found = _traffic(compiled.as_text(), program.plan, seeds, device)
    return {
        "kernels": found.get("kernels", ""),
        "MB an iteration": found.get("MB an iteration", ""),
        "memory a seed (MB)": bytes_of(compiled.memory_analysis()) / seeds / 1e6,
        "compile (CPU s)": used,
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


def version_of(device: str) -> str:
    """Return the version of jax, and of a TPU's compiler; a GPU's comes with jax."""
    version = importlib.metadata.version
    return version("jax") + (f", libtpu {version('libtpu')}" if ACCELERATORS[device].platform == "tpu" else "")


def jax_of(version: str) -> str:
    """Return the version of jax alone."""
    return version.split(",", maxsplit=1)[0]


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
