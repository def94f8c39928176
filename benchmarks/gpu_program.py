"""How many kernels does an iteration run on a GPU, and how many bytes do they move? No GPU is needed.

XLA compiles each program for an H100 from a description of the device, with its default options ("as it comes") and
with ours (`purejaxdqn.core.compiling`). Kernels and bytes are counted in the compiled program, for one iteration:
acting, environment, replay, update; without replay (PQN), a rollout and all that is learned of it. Bytes are what the
kernels read and write; of a buffer, only the entries that they touch. On a device, caches save some of them. Matrix
products are counted before XLA's autotuning, which needs the device.

    python -m benchmarks.gpu_program            the table: five minutes
    python -m benchmarks.gpu_program --quick    one row
    python -m benchmarks.gpu_program --kernels minatar/breakout --seeds 30    an iteration's kernels, largest first

Needs JAX's GPU packages, five gigabytes: pip install -e '.[cuda]'. To compile for a described device, two of them will
do, half a gigabyte: pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt, in the version of jax.
"""

import math
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks import harness

BYTES_A_SECOND = 3.35e12
"""Memory bandwidth of an H100 SXM (NVIDIA's data sheet)."""

DEVICE = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000
  device_memory_size: 84942979072
  l2_cache_size: 52428800
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_core_limit: 2048
  threads_per_block_limit: 1024
  threads_per_warp: 32
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""Description of an H100 SXM for XLA (``GpuTargetConfigProto``)."""

ROWS = (
    *((("cartpole_cleanrl",), seeds) for seeds in (1, 64, 256, 1_024, 4_096)),
    *((("cartpole_cleanrl", preset), 1_024) for preset in ("double_dqn", "qr_dqn", "iqn", "rainbow")),
    (("minatar/breakout",), 30),
    (("minatar/breakout", "rainbow"), 30),
    (("cartpole_cleanrl", "pqn"), 1_024),
    (("minatar/breakout", "pqn"), 30),
)


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--quick", action="store_true", help="one row, nothing kept")
    parser.add_argument("--kernels", metavar="CONFIG[+CONFIG]", help="list the kernels of an iteration")
    parser.add_argument("--seeds", type=harness.positive, default=1_024, help="with --kernels (default 1024)")
    arguments = parser.parse_args()
    devices = described_devices()
    if arguments.kernels:
        from purejaxdqn.config.reading import ConfigError

        try:
            config, program = read_config(tuple(arguments.kernels.split("+")), arguments.seeds)
        except ConfigError as error:
            parser.error(str(error))
        kernels = iteration(compile_epoch(config, program, devices).as_text(), trips_of(program.plan))
        for one in sorted(kernels, key=lambda one: -one.times * (one.read + one.written)):
            times = f"{one.times} x " if one.times > 1 else ""
            print(f"{one.read / 1e6:10.3f} MB read {one.written / 1e6:10.3f} written  {times}{one.name}  {one.source}")
        return
    lines = []
    for configs, seeds in ROWS[:1] if arguments.quick else ROWS:
        lines.append(line(configs, seeds, devices))
        print(harness.table(lines[-1:]), flush=True)
    if not arguments.quick:
        print(harness.table(lines))
        print(harness.write("gpu_program", lines))


def described_devices() -> Any:
    """Return JAX devices for the described GPU."""
    # Set before JAX starts, which would otherwise look for a driver.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    from jax.experimental import topologies

    try:
        shape = "1x1x1"
        return topologies.get_topology_desc(shape, platform="cuda", topology=shape, target_config=DEVICE).devices
    except NotImplementedError:
        print("error: JAX's GPU packages are not installed: pip install -e '.[cuda]'", file=sys.stderr)
        raise SystemExit(2) from None


def line(configs: tuple[str, ...], seeds: int, devices: Any) -> dict[str, Any]:
    """Return a row of the table."""
    config, program = read_config(configs, seeds)
    compiled = [compile_epoch(config, program, devices, as_it_comes=as_it_comes) for as_it_comes in (False, True)]
    ours, default = (iteration(one.as_text(), trips_of(program.plan)) for one in compiled)
    memory = compiled[0].memory_analysis()
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes  # outputs reuse the arguments' memory
    steps = seeds * config.env.num_envs * program.plan.rollout
    return {
        "config": "+".join(configs),
        "seeds": seeds,
        "kernels": sum(one.times for one in ours),
        "MB": float(traffic(ours) / 1e6),
        "kernels as it comes": sum(one.times for one in default),
        "MB as it comes": float(traffic(default) / 1e6),
        "ours / as it comes": float(traffic(ours) / traffic(default)),
        "steps a second that its memory allows": float(steps * BYTES_A_SECOND / traffic(ours)),
        "memory per seed (MB)": float(needed / seeds / 1e6),
    }


def trips_of(plan: Any) -> int:
    """Return how often the loop around one iteration runs in an epoch: without a target network a period has one."""
    return int(plan.iterations if plan.iterations > 1 else plan.periods)


def read_config(configs: tuple[str, ...], seeds: int) -> Any:
    """Return a config and its program."""
    from purejaxdqn import load_config
    from purejaxdqn.config.building import make_program

    config = load_config(configs, [f"num_seeds={seeds}"])
    return config, make_program(config)


def compile_epoch(config: Any, program: Any, devices: Any, *, as_it_comes: bool = False) -> Any:
    """Compile an epoch of all seeds together, with our options, or with XLA's defaults if ``as_it_comes``."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn.core.compiling import compile_lowered, lower_runs
    from purejaxdqn.core.many import lay_out, map_runs

    def start() -> Any:
        keys = jax.random.split(jax.random.key(0), config.num_seeds)
        hparams = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (config.num_seeds,)), config.hparams())
        return hparams, jax.vmap(program.init)(hparams, keys)

    layout = lay_out(config.num_seeds, devices=devices)
    segment = map_runs(lambda hparams, state: program.segment(hparams, state, 1), layout, in_place=True)
    lowered = lower_runs(segment, *jax.eval_shape(start))
    return lowered.program.compile() if as_it_comes else compile_lowered(lowered, layout.platform)


class Kernel(NamedTuple):
    """One instruction that the device runs."""

    name: str
    read: int  # bytes
    written: int  # bytes
    times: int  # runs per iteration
    source: str  # name of the JAX operation


def traffic(kernels: list[Kernel]) -> int:
    """Return the bytes that the kernels read and write in an iteration."""
    return sum(one.times * (one.read + one.written) for one in kernels)


def iteration(text: str, trips: int) -> list[Kernel]:
    """Return the kernels in the body of the loop with ``trips`` iterations.

    Args:
      text: a compiled module, as printed by XLA.
      trips: the loop's number of iterations.

    Raises:
      ValueError: the module does not have exactly one such loop, or the loop has contents that cannot be counted.
    """
    computations = read_computations(text)
    loops = [one for computation in computations.values() for one in computation.values() if one.op == "while"]
    bodies = [_called(one, "body") for one in loops if _trips(one) == trips]
    if len(bodies) != 1:
        raise ValueError(f"{len(bodies)} loops have {trips} iterations, not one")
    return list(_kernels(computations, bodies[0], 1))


class Instruction(NamedTuple):
    """One instruction of a compiled module."""

    name: str
    type: str
    op: str
    operands: tuple[str, ...]
    rest: str  # attributes
    root: bool


Computation = dict[str, Instruction]

_HEAD = re.compile(r"^(?:ENTRY )?%([\w.-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"^\s+(ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)(?:, (.*))?$")
_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
_SIZES |= {"f64": 8, "s64": 8, "u64": 8}
_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "partition-id", "replica-id"}
_VIEWS = {"bitcast", "convert", "copy", "reshape", "transpose"}


def read_computations(text: str) -> dict[str, Computation]:
    """Parse the text of a compiled module: instructions by the names of their computation and their own."""
    found: dict[str, Computation] = {}
    current: Computation | None = None
    for row in text.splitlines():
        if head := _HEAD.match(row):
            current = found.setdefault(head[1], {})
        elif row.startswith("}"):
            current = None
        elif current is not None:
            match = _LINE.match(row)
            if match is None:
                raise ValueError(f"not an instruction: {row}")
            root, name, kind, op, operands, rest = match.groups()
            names = tuple(re.findall(r"%([\w.-]+)", operands))
            current[name] = Instruction(name, kind, op, names, rest or "", bool(root))
    return found


def bytes_of(kind: str) -> int:
    """Return the size of an array type, or of all arrays of a tuple type, such as ``f32[8,4]``."""
    shapes = re.findall(r"\b([a-z]\w*)\[([\d,]*)\]", kind)
    return sum(_SIZES[name] * math.prod(int(n) for n in dims.split(",") if n) for name, dims in shapes)


def _kernels(computations: dict[str, Computation], name: str, times: int) -> Iterator[Kernel]:
    computation = computations[name]
    for one in computation.values():
        if one.op == "while":
            trips = _trips(one)
            if trips is None:
                raise ValueError(f"{one.name} is a loop of unknown length")
            yield from _kernels(computations, _called(one, "body"), times * trips)
        elif one.op in ("call", "conditional") or one.op.endswith(("-start", "-done", "-update")):
            raise ValueError(f"{one.name}: the cost of a {one.op} is unknown")
        elif one.op not in _FREE and 'custom_call_target="AllocateBuffer"' not in one.rest:
            source = re.search(r'op_name="([^"]*)"', one.rest)
            read, written = _traffic_of(one, computation, computations)
            yield Kernel(one.name, read, written, times, re.sub(r".*closed_call/", "", source[1]) if source else "")


def _traffic_of(one: Instruction, around: Computation, computations: dict[str, Computation]) -> tuple[int, int]:
    if one.op != "fusion":
        return sum(bytes_of(around[name].type) for name in one.operands), bytes_of(one.type)
    inside = computations[_called(one, "calls")]
    users: dict[str, list[tuple[Instruction, int]]] = {}
    for user in inside.values():
        for place, name in enumerate(user.operands):
            users.setdefault(name, []).append((user, place))
    parameters = [inner for inner in inside.values() if inner.op == "parameter"]
    read = sum(_read(inner.name, bytes_of(inner.type), users) for inner in parameters)
    return read, _written(next(inner for inner in inside.values() if inner.root), inside)


def _read(name: str, whole: int, users: dict[str, list[tuple[Instruction, int]]]) -> int:
    """Return the bytes read of an operand of ``whole`` bytes; fewer if it is only indexed or written in place."""
    total = 0
    for user, place in users.get(name, []):
        if user.op in ("gather", "dynamic-slice", "slice") and place == 0:
            total += bytes_of(user.type)
        elif user.op in _VIEWS:
            total += whole if user.root else _read(user.name, whole, users)
        elif user.op not in ("scatter", "dynamic-update-slice") or place != 0:
            return whole
    return min(total, whole)


def _written(one: Instruction, inside: Computation) -> int:
    if one.op == "tuple":
        return sum(_written(inside[name], inside) for name in one.operands)
    if one.op == "bitcast":
        return _written(inside[one.operands[0]], inside)
    updates = {"scatter": 2, "dynamic-update-slice": 1}.get(one.op)
    return bytes_of(one.type if updates is None else inside[one.operands[updates]].type)


def _called(one: Instruction, role: str) -> str:
    found = re.search(rf"\b{role}=%([\w.-]+)", one.rest)
    if found is None:
        raise ValueError(f"{one.name} has no {role}")
    return found[1]


def _trips(one: Instruction) -> int | None:
    found = re.search(r'"known_trip_count":\{"n":"(\d+)"', one.rest)
    return int(found[1]) if found else None


if __name__ == "__main__":
    main()
