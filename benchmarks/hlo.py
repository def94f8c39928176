"""Reads modules that XLA has compiled: an iteration's kernels with the bytes that they move, and calls of the host.

Counted are what the kernels of one iteration read and write: acting, environment, replay, update; without replay (PQN),
a rollout and all that is learned of it. Of a buffer, only the entries that they touch. On a device, caches save some of
that.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

HOST = ("infeed", "outfeed", "send", "recv", "conditional")
"""Instructions that a program without a call of the host, and without a branch for scheduling, does not have."""


def host_calls(text: str) -> list[str]:
    """Return the names of instructions that wait for the host or branch, and the targets of calls of the host."""
    found = [op for op in HOST if re.search(rf" {op}(?:-start|-done)?\(", text)]
    called = set(re.findall(r'custom_call_target="([^"]*)"', text))
    return [*found, *sorted(name for name in called if re.search(r"(?i)callback|host", name))]


def open_loops(text: str) -> list[str]:
    """Return the source files of loops whose length the module does not say, one for each loop, sorted.

    A GPU's host reads the condition of such a loop after each pass, and waits for it (``WhileThunk`` in XLA's
    ``xla/backends/gpu/runtime/while_thunk.cc``), unless the loop is part of a command buffer. Of a TPU it says nothing:
    its compiler does not write lengths, and the device reads conditions itself.
    """
    tables = {
        name: dict(re.findall(r'^(\d+) [{"](.*)[}"]$', body, re.MULTILINE))
        for name, body in re.findall(r"^(FileNames|FileLocations|StackFrames)\n((?:\d+ .*\n)*)", text, re.MULTILINE)
    }

    def number(table: str, key: str, column: str) -> str:
        found = re.search(rf"\b{column}=(\d+)", tables.get(table, {}).get(key, ""))
        return found[1] if found else ""

    def source(line: str) -> str:
        frame = re.search(r"\bstack_frame_id=(\d+)", line)
        place = number("StackFrames", frame[1], "file_location_id") if frame else ""
        file = tables.get("FileNames", {}).get(number("FileLocations", place, "file_name_id"), "unknown source")
        return file.rsplit("/", 1)[-1]

    return sorted(
        source(line) for line in text.splitlines() if " while(" in line and '"known_trip_count":{"n"' not in line
    )


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


def iteration(text: str, nest: Sequence[int]) -> list[Kernel]:
    """Return the kernels in the body of the innermost loop of a nest.

    Args:
      text: a compiled module, as printed by XLA.
      nest: how often the loops of the nest run, the outermost first; those that run once are no loops when compiled.

    Raises:
      ValueError: the module does not have exactly one such nest, or the loop has contents that cannot be counted.
    """
    computations, wanted = read_computations(text), [trips for trips in nest if trips > 1]
    bodies = [body for body, around in _loops(computations).items() if around[-len(wanted) :] == wanted]
    if len(bodies) != 1:
        raise ValueError(f"{len(bodies)} loops run {' x '.join(map(str, wanted))} times, not one")
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
_SIZES |= {"f64": 8, "s64": 8, "u64": 8, "token": 0}
_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "partition-id", "replica-id"}
_VIEW_CALLS = re.compile(r'custom_call_target="(AllocateBuffer|ConcatBitcast)"')
_VIEWS = {"bitcast", "convert", "copy", "reshape", "transpose"}


def _loops(computations: dict[str, Computation]) -> dict[str, list[int]]:
    """How often each loop runs that encloses a loop's body, and that loop itself, by the body's name."""
    around = {
        _called(one, "body"): (name, _trips(one, computations))
        for name, computation in computations.items()
        for one in computation.values()
        if one.op == "while"
    }

    def chain(body: str) -> list[int]:
        if body not in around:
            return []
        outer, trips = around[body]
        return [*chain(outer), trips or 0]

    return {body: chain(body) for body in around}


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
            names = (operands,) if op == "constant" else tuple(re.findall(r"%([\w.-]+)", operands))
            current[name] = Instruction(name, kind, op, names, rest or "", bool(root))
    return found


def bytes_of(kind: str) -> int:
    """Return the size of an array type, or of all arrays of a tuple type, such as ``f32[8,4]``.

    What a TPU keeps in its core, in a memory space of its own such as ``f32[8,4]{1,0:S(1)}``, counts nothing.
    """
    shapes = re.findall(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?", kind)
    return sum(
        _SIZES[name] * math.prod(int(n) for n in dims.split(",") if n)
        for name, dims, layout in shapes
        if "S(" not in layout
    )


def _kernels(computations: dict[str, Computation], name: str, times: int) -> Iterator[Kernel]:
    computation = computations[name]
    for one in computation.values():
        if one.op == "while":
            trips = _trips(one, computations)
            if trips is None:
                raise ValueError(f"{one.name} is a loop of unknown length")
            yield from _kernels(computations, _called(one, "body"), times * trips)
        elif one.op in ("copy-done", "slice-done"):
            yield Kernel(one.name, *_moved(one), times, "")
        elif one.op == "call-start":  # what a TPU v6e does on its sparse cores
            yield from _kernels(computations, _called(one, "to_apply"), times)
        elif one.op in ("call", "conditional") or one.op.endswith(("-start", "-done", "-update")):
            if one.op not in ("copy-start", "slice-start", "call-done"):
                raise ValueError(f"{one.name}: the cost of a {one.op} is unknown")
        elif one.op not in _FREE and not _VIEW_CALLS.search(one.rest):
            source = re.search(r'op_name="([^"]*)"', one.rest)
            read, written = _traffic_of(one, computation, computations)
            yield Kernel(one.name, read, written, times, re.sub(r".*closed_call/", "", source[1]) if source else "")


def _moved(done: Instruction) -> tuple[int, int]:
    """What a copy between a TPU's memory and its core reads of the memory, or writes to it."""
    size = bytes_of(re.sub(r"S\(\d+\)", "", done.type))
    return (0, size) if bytes_of(done.type) else (size, 0)


def _traffic_of(one: Instruction, around: Computation, computations: dict[str, Computation]) -> tuple[int, int]:
    if one.op == "dynamic-update-slice":
        return (bytes_of(around[one.operands[1]].type),) * 2
    if one.op in ("gather", "dynamic-slice", "slice"):
        return (bytes_of(one.type),) * 2
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


def _trips(one: Instruction, computations: dict[str, Computation]) -> int | None:
    """How often a loop runs: as XLA says, or (for a TPU it does not) the constant that its counter stays below."""
    if found := re.search(r'"known_trip_count":\{"n":"(\d+)"', one.rest):
        return int(found[1])
    found = re.search(r"\bcondition=%([\w.-]+)", one.rest)
    condition = computations.get(found[1], {}) if found else {}
    last = next((inner for inner in condition.values() if inner.root), None)
    if last is None or last.op != "compare" or "direction=LT" not in last.rest:
        return None
    bound = condition[last.operands[1]]
    return int(bound.operands[0]) if bound.op == "constant" else None
