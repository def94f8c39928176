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
- the steps a second that memory allows: the bandwidth of the data sheet divided by the bytes of a step;
- seconds: of the wall clock (empty if other programs kept the compiler waiting) and of the processor, of all threads.
  Beside each row of one seed, the same run is compiled for this machine's CPU.

Rows are counted in the order of their importance, since all of them take hours. Every device gets plain DQN on CartPole
and on MinAtar's Breakout, and PQN on both. The other presets, and other replays, are counted for a TPU v5e and an H100
only: as the rows of plain DQN show, XLA makes nearly the same programs for a TPU v6e and an H200. The other presets are
counted with one seed and with 1,024; 64 lie between.

Rows are kept as they finish, with the tables of devices and of targets: a second call continues. A row that failed says
why. It is tried again if it took too long or was killed, and otherwise only with `--again`, like rows of other commits.

    python -m benchmarks.accelerators             all rows: hours of one core
    python -m benchmarks.accelerators --quick     one row of each device whose compiler is installed, nothing kept
    python -m benchmarks.accelerators --only "TPU v5e" --configs minatar/breakout    some of them
    python -m benchmarks.accelerators --configs cartpole_pqn+env.num_envs=64 --seeds 8    others
    python -m benchmarks.accelerators --tried     what was tried, beside what is shipped: half an hour
    python -m benchmarks.accelerators --kernels "H100" --configs cartpole_cleanrl --seeds 1024    an iteration's kernels
"""

import csv
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks import compiled, harness
from benchmarks.devices import ACCELERATORS, described, missing
from benchmarks.guard import PRESETS

TABLE, SUMMARY, TARGETS, TRIED = (f"accelerators{name}" for name in ("", "_devices", "_targets", "_tried"))
CARTPOLE, BREAKOUT = "cartpole_cleanrl", "minatar/breakout"
PQN, PQN_PICTURES = "cartpole_pqn", "minatar/breakout_pqn"
BREAKOUT_PARTS = tuple(f"{BREAKOUT}+{part}" for part in ("per", "n_step", "replay.size=99_999"))
"""Other replays of pictures; the last one's size is not a multiple of the number of environments."""
LARGE_PQN = "largest PQN of gpu.py"
ON_CARTPOLE = tuple(f"{CARTPOLE}+{preset}" for preset in PRESETS[1:])
ALL, LEADERS = tuple(ACCELERATORS), ("TPU v5e", "H100")
BLOCKS: tuple[tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]], ...] = (
    ((CARTPOLE,), (1, 1_024), ALL),
    ((BREAKOUT,), (1, 8), ALL),
    ((LARGE_PQN,), (1_024,), ("H100",)),
    ((PQN_PICTURES,), (1, 8), ALL),
    ((PQN,), (1, 1_024), ALL),
    (BREAKOUT_PARTS, (8,), LEADERS),
    ((BREAKOUT, PQN_PICTURES), (30,), ALL),
    ((CARTPOLE, PQN), (64,), ALL),
    (ON_CARTPOLE, (1_024,), LEADERS),
    (ON_CARTPOLE, (1,), LEADERS),
)
"""Configs, numbers of seeds and devices; the most telling first."""
COLUMNS = (
    *("device", "config", "seeds", "one program"),
    *("compile (s)", "compile (CPU s)", "on a CPU (s)", "on a CPU (CPU s)", "machine code (MB)"),
    *("memory a seed (MB)", "sum (MB)", "memory / sum"),
    *("kernels", "MB an iteration", "MFLOP an iteration", "steps a second that memory allows"),
    *("note", "jax", "commit"),
)
MINUTES = 15.0
"""How long a row may take, unless said otherwise."""
STOPPED, KILLED = "stopped", "killed"
"""First words of the notes on rows that a later call tries again."""
VARIANTS: tuple[tuple[str, str, tuple[tuple[str, str, int], ...]], ...] = (
    ("Adam on one flattened vector", "flattened", (("H100", CARTPOLE, 1_024),)),
    ("products that share a matrix merged", "merged", (("H100", CARTPOLE, 1_024), ("H100", BREAKOUT, 30))),
    ("values of a rollout at once", "whole", (("H100", LARGE_PQN, 1_024), ("H100", PQN_PICTURES, 8))),
    ("precision=default", "precision=default", (("H100", CARTPOLE, 1_024), ("TPU v5e", CARTPOLE, 64))),
    ("precision=high", "precision=high", (("H100", CARTPOLE, 1_024), ("TPU v5e", CARTPOLE, 64))),
)
"""What was tried, its name for ``compiled.count_variant``, and device, config and seeds of the runs."""


class Case(NamedTuple):
    """One row."""

    device: str
    config: str  # names and overrides, joined by +, or one of ``compiled.NAMED``
    seeds: int


def main() -> None:
    parser = harness.parser(__doc__, quick="one row of each device, nothing kept")
    parser.add_argument("--only", nargs="+", metavar="DEVICE", choices=ACCELERATORS, default=list(ACCELERATORS))
    parser.add_argument("--configs", nargs="+", metavar="CONFIG[+CONFIG][+key=value]", help="default the table's")
    parser.add_argument("--seeds", nargs="+", type=harness.positive, help="default the table's")
    parser.add_argument("--minutes", type=harness.positive, default=MINUTES, help=f"of a row (default {MINUTES:g})")
    parser.add_argument("--again", action="store_true", help="count rows that are there, too")
    parser.add_argument("--kernels", metavar="DEVICE", choices=ACCELERATORS, help="list the kernels of an iteration")
    parser.add_argument("--tried", action="store_true", help="compare what was tried with what is shipped")
    parser.add_argument("--summary", action="store_true", help="only the tables of devices and targets, from the rows")
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(_work(arguments.worker)))
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    for config in arguments.configs or ():
        if fault := fault_of(config):
            parser.error(fault)
    if arguments.kernels:
        _print_kernels(Case(arguments.kernels, (arguments.configs or [CARTPOLE])[0], (arguments.seeds or [1_024])[0]))
    elif arguments.summary:
        write_summaries(stored())
    elif arguments.tried:
        _count_tried(arguments.minutes, keep=not arguments.quick)
    else:
        cases = list(_chosen(arguments))
        _count_all(cases, keep=not arguments.quick, again=arguments.again, minutes=arguments.minutes)


def table_cases() -> list[Case]:
    """Return the rows of the table, the most telling first."""
    return [
        Case(device, config, number)
        for configs, seeds, devices in BLOCKS
        for config in configs
        for number in seeds
        for device in devices
    ]


def _chosen(arguments: Any) -> Iterator[Case]:
    """The rows that are asked for, of devices whose compiler is installed."""
    for device in list(arguments.only):
        if reason := missing(device):
            print(f"{device} is left out: {reason}", file=sys.stderr)
            arguments.only.remove(device)
    if arguments.quick:
        yield from (Case(device, CARTPOLE, 1) for device in arguments.only)
    elif not (arguments.configs or arguments.seeds):
        yield from (case for case in table_cases() if case.device in arguments.only)
    else:
        known = table_cases()
        for config in arguments.configs or dict.fromkeys(case.config for case in known):
            usual = dict.fromkeys(case.seeds for case in known if case.config == config) or (1,)
            for seeds in arguments.seeds or usual:
                yield from (Case(device, config, seeds) for device in arguments.only)


def _count_all(cases: Sequence[Case], *, keep: bool, again: bool, minutes: float) -> None:
    rows = stored() if keep else {}
    for case in cases:
        before = rows.get(case)
        if before and not (again or is_unfinished(before)):
            continue
        row = {**dict.fromkeys(COLUMNS, ""), **_ask(case._asdict(), minutes), **case._asdict()}
        row["commit"] = harness.commit()
        print(harness.table([row]), flush=True)
        if keep and not (before and is_unfinished(row)):  # what was counted before is worth more
            rows[case] = row
            harness.write(TABLE, [rows[one] for one in sorted(rows, key=_order)])
            write_summaries(rows)


def _ask(task: dict[str, Any], minutes: float) -> dict[str, Any]:
    """Let a process count -> the columns of a row that it found, or a note that says why there are none."""
    process = harness.start(__spec__.name, task)
    try:
        return harness.answer(process, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return {"note": f"{STOPPED} after {minutes:g} minutes"}
    except (SystemExit, json.JSONDecodeError, IndexError):
        code = process.returncode
        return {"note": f"{KILLED} by signal {-code}" if code < 0 else f"the worker failed with exit code {code}"}


def _work(task: dict[str, Any]) -> dict[str, Any]:
    """Count in this process; an error becomes a note, so that the other rows are counted."""
    try:
        return (compiled.count_variant if "variant" in task else compiled.count)(**task)
    except Exception as error:
        traceback.print_exc()
        return {"note": compiled.reason(f"{type(error).__name__}: {error}")}


def is_unfinished(row: dict[str, Any]) -> bool:
    """Whether a row says only that its process was stopped or killed, so that a later call tries it again."""
    return row["note"].startswith((STOPPED, KILLED))


def _order(case: Case) -> tuple[int, int, int]:
    """Rows are in the order of the tables of this script, whenever they were counted."""
    names = list(dict.fromkeys(one.config for one in table_cases()))
    place = names.index(case.config) if case.config in names else len(names)
    return list(ACCELERATORS).index(case.device), place, case.seeds


def stored() -> dict[Case, dict[str, Any]]:
    """Read the rows that earlier calls have left."""
    path = harness.RESULTS / f"{TABLE}.csv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{column: row.get(column, "") for column in COLUMNS} for row in csv.DictReader(file)]
    return {Case(row["device"], row["config"], int(row["seeds"])): row for row in rows}


def write_summaries(rows: dict[Case, dict[str, Any]]) -> None:
    """Write the tables of devices and of targets."""
    from benchmarks.accelerator_targets import judge

    harness.write(SUMMARY, summarise(rows), of=TABLE)
    harness.write(TARGETS, judge(rows), of=TABLE)


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
        "not tried yet": sum(case.device == device and case not in rows for case in table_cases()),
        "run on it": "not yet",
        "seeds of CartPole in its memory": cell(cartpole, "memory a seed (MB)", seeds_held),
        "seeds of Breakout": cell(breakout, "memory a seed (MB)", seeds_held),
        "steps a second of 1,024 seeds that memory allows": cell(cartpole, "steps a second that memory allows"),
    }


def _count_tried(minutes: float, *, keep: bool) -> None:
    """Count every variant beside what is shipped; one that fails, or whose compiler is missing, is left out."""
    rows = []
    for what, variant, device, config, seeds in _variants():
        if reason := missing(device):
            print(f"{what}, {device} is left out: {reason}", file=sys.stderr)
            continue
        case = Case(device, config, seeds)
        found = _ask({**case._asdict(), "variant": variant}, minutes)
        if "note" in found:
            print(f"{what}, {device}, {config} is left out: {found['note']}", file=sys.stderr)
            continue
        rows.append({"what was tried": what, **case._asdict(), **found})
        print(harness.table(rows[-1:]), flush=True)
        if keep:
            harness.write(TRIED, rows)


def _variants() -> Iterable[tuple[str, str, str, str, int]]:
    return ((what, variant, *case) for what, variant, cases in VARIANTS for case in cases)


def fault_of(config: str) -> str:
    """Return what is wrong with a config, or nothing."""
    from purejaxdqn.config.reading import ConfigError

    try:
        compiled.read_config(config, 1)
    except ConfigError as error:
        return str(error).replace("\n", "; ")
    return ""


def _print_kernels(case: Case) -> None:
    devices = described(case.device)
    from benchmarks import hlo
    from purejaxdqn.system.compiling import compile_lowered

    config, program = compiled.read_config(case.config, case.seeds)
    text = compile_lowered(*compiled.lower(config, program, devices)).as_text()
    for one in sorted(
        hlo.iteration(text, compiled.nest_of(program.plan)), key=lambda one: -one.times * (one.read + one.written)
    ):
        times = f"{one.times} x " if one.times > 1 else ""
        print(f"{one.read / 1e6:10.3f} MB read {one.written / 1e6:10.3f} written  {times}{one.name}  {one.source}")


if __name__ == "__main__":
    main()
