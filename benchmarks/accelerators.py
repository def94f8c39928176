"""How much memory, traffic and computation would a whole run need on a TPU or a GPU? No such device is needed.

XLA compiles the whole training (warm-up, learning, evaluations) of many seeds at once for a TPU v5e, a TPU v6e, an H100
and an H200 from their descriptions (`devices.py`). A row says whether that is one program without host calls and
branches, how long XLA took, the memory of a seed and the sum of what it must keep, and how many bytes and FLOPs an
iteration takes (acting, environment, replay, update; without replay a rollout and all gradient steps on it):

- the sum: the state (replay, networks, optimiser, environments), and the random draws and the rollout of a period or
  the environments of an evaluation, whichever is larger, both without any padding;
- the bytes: what kernels read and write in the device's memory, of a buffer only the entries they touch; caches save
  some. On a GPU, matrix products are counted before XLA's autotuning, which needs the device;
- FLOPs of the matrix products in the program, before compilation;
- the steps a second that memory allows: the bandwidth of the data sheet divided by the bytes of a step.

Rows are kept as they finish: a second call continues. Rows of another commit are kept, too, unless `--again`.

    python -m benchmarks.accelerators             all rows: hours of one core
    python -m benchmarks.accelerators --quick     one row of each device whose compiler is installed, nothing kept
    python -m benchmarks.accelerators --only "TPU v5e" --configs minatar/breakout    some of them
    python -m benchmarks.accelerators --kernels "H100" --configs cartpole_cleanrl --seeds 1024    an iteration's kernels
"""

import csv
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks import harness
from benchmarks.devices import ACCELERATORS, described, missing
from benchmarks.guard import PRESETS

TABLE, SUMMARY = "accelerators", "accelerators_devices"
CARTPOLE, BREAKOUT = "cartpole_cleanrl", "minatar/breakout"
SEEDS = {CARTPOLE: (1, 64, 1_024), BREAKOUT: (1, 8, 30)}
CONFIGS = {CARTPOLE: (CARTPOLE, *(f"{CARTPOLE}+{preset}" for preset in PRESETS[1:])), BREAKOUT: (BREAKOUT,)}
CONFIGS[BREAKOUT] += tuple(f"{BREAKOUT}+{preset}" for preset in ("per", "n_step", "rainbow", "pqn"))
MINUTES = 15.0
"""A row that takes longer to compile is left out."""


class Case(NamedTuple):
    """One row."""

    device: str
    config: str  # names joined by +
    seeds: int


def main() -> None:
    parser = harness.parser(__doc__, quick="one row of each device, nothing kept")
    parser.add_argument("--only", nargs="+", metavar="DEVICE", choices=ACCELERATORS, default=list(ACCELERATORS))
    parser.add_argument("--configs", nargs="+", metavar="CONFIG[+CONFIG]", help="default all")
    parser.add_argument("--seeds", nargs="+", type=harness.positive, help="default the table's")
    parser.add_argument("--again", action="store_true", help="count rows that are there, too")
    parser.add_argument("--kernels", metavar="DEVICE", choices=ACCELERATORS, help="list the kernels of an iteration")
    parser.add_argument(
        "--summary", action="store_true", help="only the table of devices, from the rows that are there"
    )
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(count(**arguments.worker)))
    elif arguments.kernels:
        _print_kernels(Case(arguments.kernels, (arguments.configs or [CARTPOLE])[0], (arguments.seeds or [1_024])[0]))
    elif arguments.summary:
        print(harness.table(rows := summarise(stored())), harness.write(SUMMARY, rows, of=TABLE), sep="\n")
    else:
        _count_all(list(_chosen(arguments)), keep=not arguments.quick, again=arguments.again)


def _chosen(arguments: Any) -> Iterator[Case]:
    """The rows that are asked for; all devices have their first configs before any has its last."""
    for device in list(arguments.only):
        if reason := missing(device):
            print(f"{device} is left out: {reason}", file=sys.stderr)
            arguments.only.remove(device)
    if arguments.quick:
        yield from (Case(device, CARTPOLE, 1) for device in arguments.only)
        return
    for config in arguments.configs or [name for names in CONFIGS.values() for name in names]:
        for seeds in arguments.seeds or SEEDS[BREAKOUT if config.startswith("minatar/") else CARTPOLE]:
            yield from (Case(device, config, seeds) for device in arguments.only)


def _count_all(cases: Sequence[Case], *, keep: bool, again: bool) -> None:
    rows = stored() if keep else {}
    for case in cases:
        if case in rows and not again:
            continue
        one_seed = next((row for key, row in rows.items() if key.config == case.config and row["on a CPU (s)"]), None)
        cpu = one_seed["on a CPU (s)"] if one_seed else _ask(Case("CPU", case.config, 1))["seconds"]
        rows[case] = {**case._asdict(), **_row(_ask(case), cpu if case.seeds == 1 else "")}
        print(harness.table([rows[case]]), flush=True)
        if keep:
            harness.write(TABLE, [rows[one] for one in sorted(rows, key=_order)])
    if keep:
        harness.write(SUMMARY, summarise(rows), of=TABLE)


def _order(case: Case) -> tuple[int, int, int]:
    """Rows are in the order of the tables of this script, whenever they were counted."""
    names = [name for names in CONFIGS.values() for name in names]
    place = names.index(case.config) if case.config in names else len(names)
    return list(ACCELERATORS).index(case.device), place, case.seeds


def _ask(case: Case) -> dict[str, Any]:
    process = harness.start(__spec__.name, {"device": case.device, "config": case.config, "seeds": case.seeds})
    try:
        return harness.answer(process, timeout=60 * MINUTES)
    except subprocess.TimeoutExpired:
        return {"problem": f"not compiled within {MINUTES:g} minutes"}


def _row(found: dict[str, Any], cpu: Any) -> dict[str, Any]:
    """A row's columns; those that could not be counted are empty."""
    columns = ("kernels", "MB an iteration", "MFLOP an iteration", "steps a second that memory allows")
    return {
        "one program": found.get("problem") or "yes",
        "compile (s)": found.get("seconds", ""),
        "on a CPU (s)": cpu,
        "memory a seed (MB)": found.get("memory", ""),
        "sum (MB)": found.get("sum", ""),
        "memory / sum": found["memory"] / found["sum"] if "memory" in found else "",
        **{name: found.get(name, "") for name in columns},
        "jax": found.get("jax", ""),
        "commit": harness.commit(),
    }


def stored() -> dict[Case, dict[str, Any]]:
    """Read the rows that earlier calls have left."""
    path = harness.RESULTS / f"{TABLE}.csv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {Case(row["device"], row["config"], int(row["seeds"])): row for row in csv.DictReader(file)}


def summarise(rows: dict[Case, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row a device: what compiles for it, and what its memory would hold."""
    return [_summary(device, {k: row for k, row in rows.items() if k.device == device}) for device in ACCELERATORS]


def _summary(device: str, rows: dict[Case, dict[str, Any]]) -> dict[str, Any]:
    whole = [row for row in rows.values() if row["one program"] == "yes"]

    def cell(case: Case, column: str, value: Any = lambda number: number) -> Any:
        text = rows.get(case, {}).get(column, "")
        return value(float(text)) if text != "" else ""

    def seeds_held(memory: float) -> str:
        return f"{ACCELERATORS[device].memory / 1e6 / memory:.0f}"

    cartpole, breakout = Case(device, CARTPOLE, 1_024), Case(device, BREAKOUT, 30)
    return {
        "device": device,
        "whole runs compiled for it": f"{len(whole)} of {len(rows)}",
        "run on it": "not yet",
        "seeds of CartPole in its memory": cell(cartpole, "memory a seed (MB)", seeds_held),
        "seeds of Breakout": cell(breakout, "memory a seed (MB)", seeds_held),
        "steps a second of 1,024 seeds that memory allows": cell(cartpole, "steps a second that memory allows"),
    }


def count(*, device: str, config: str, seeds: int) -> dict[str, Any]:
    """Compile a whole run for a device, or for this machine's CPU, and count."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    devices = described(device) if device in ACCELERATORS else None
    import jax

    from benchmarks import hlo
    from purejaxdqn.runs.memory import memory_needs
    from purejaxdqn.system.compiling import compile_lowered

    jax.config.update("jax_enable_compilation_cache", False)
    draft, program = read_config(config, seeds)
    lowered, platform = lower(draft, program, devices)
    start, found = time.perf_counter(), {"jax": jax.__version__}
    try:
        compiled = compile_lowered(lowered, platform)
    except jax.errors.JaxRuntimeError as error:
        return {**found, "problem": reason(str(error))}
    found["seconds"] = time.perf_counter() - start
    if devices is None:
        return found
    text, memory, needs = compiled.as_text(), compiled.memory_analysis(), memory_needs(draft)
    kernels = hlo.iteration(text, nest_of(program.plan))
    moved = hlo.traffic(kernels)
    steps = seeds * program.plan.num_envs * program.plan.rollout
    return {
        **found,
        "problem": ", ".join(hlo.host_calls(text)),
        "memory": bytes_of(memory) / seeds / 1e6,
        "sum": (needs.state + needs.working) / 1e6,
        "kernels": sum(one.times for one in kernels) if platform == "gpu" else "",
        "MB an iteration": moved / 1e6,
        "MFLOP an iteration": seeds * flops_of_iteration(draft, program) / 1e6,
        "steps a second that memory allows": float(steps * ACCELERATORS[device].bytes_a_second / moved),
    }


def reason(error: str) -> str:
    """Return the part of a compiler's error that says why, in one line."""
    line = next((one for one in error.splitlines() if one.strip()), "no reason given")
    return line if len(line) <= 160 else f"{line[:160]} ..."


def bytes_of(memory: Any) -> int:
    """Return what a compiled program takes at most: arguments, results and what it keeps meanwhile."""
    shared = memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + memory.output_size_in_bytes - shared + memory.temp_size_in_bytes


def nest_of(plan: Any) -> tuple[int, ...]:
    """Return the lengths of the loops around an iteration, the outermost first."""
    return plan.epochs, plan.periods, plan.iterations


def read_config(config: str, seeds: int) -> Any:
    """Return a config and its program."""
    from purejaxdqn import load_config
    from purejaxdqn.config.building import make_program

    found = load_config(tuple(config.split("+")), [f"num_seeds={seeds}"])
    return found, make_program(found)


def lower(config: Any, program: Any, devices: Any) -> tuple[Any, str]:
    """Trace and lower the training of all seeds together for a device -> lowered program, platform."""
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


def _print_kernels(case: Case) -> None:
    devices = described(case.device)
    from benchmarks import hlo
    from purejaxdqn.config.reading import ConfigError
    from purejaxdqn.system.compiling import compile_lowered

    try:
        config, program = read_config(case.config, case.seeds)
    except ConfigError as error:
        sys.exit(f"error: {error}")
    text = compile_lowered(*lower(config, program, devices)).as_text()
    for one in sorted(
        hlo.iteration(text, nest_of(program.plan)), key=lambda one: -one.times * (one.read + one.written)
    ):
        times = f"{one.times} x " if one.times > 1 else ""
        print(f"{one.read / 1e6:10.3f} MB read {one.written / 1e6:10.3f} written  {times}{one.name}  {one.source}")


if __name__ == "__main__":
    main()
