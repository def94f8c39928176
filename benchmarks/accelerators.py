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

Rows are counted in the order of their importance, since all of them take hours. First come plain DQN on CartPole and on
MinAtar's Breakout and PQN on both, for every device, then the other presets with one seed and with 1,024, for a TPU v5e
and an H100. Last come the other presets for a TPU v6e and an H200, and with 64 seeds. An H200 has rows of its own,
although its architecture is an H100's: XLA fuses operations by the bandwidth of the memory, too, and the programs for
the two may differ.

Rows are kept as they finish, with the tables of devices and of targets: a second call continues. It counts missing rows
first, then rows of another version of jax or libtpu or of an unknown machine, and last what took too long or was
killed. A row that failed says why, and is tried again only with `--again`, like rows of other commits and machines. The
limit of a row is processor time, so that other programs do not matter. The run of one seed is compiled for the CPU once
for all devices, if machine and version of jax are the same.

Each row's compiled text, memory and times are kept in `build/accelerators` (ignored by git; `--texts` for another
folder): `--recount` counts a changed or new column in these texts, without compiling.

    python -m benchmarks.accelerators             all rows: hours of one core
    python -m benchmarks.accelerators --quick     one row of each device whose compiler is installed, nothing kept
    python -m benchmarks.accelerators --only "TPU v5e" --configs minatar/breakout    some of them
    python -m benchmarks.accelerators --configs cartpole_pqn+env.num_envs=64 --seeds 8    others
    python -m benchmarks.accelerators --recount   rows whose compiled text is kept, counted again: seconds each
    python -m benchmarks.accelerators --tried     what was tried, beside what is shipped: half an hour
    python -m benchmarks.accelerators --kernels "H100" --configs cartpole_cleanrl --seeds 1024    an iteration's kernels
"""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import compiled, harness
from benchmarks.devices import ACCELERATORS, described, missing
from benchmarks.guard import PRESETS

TABLE, SUMMARY, TARGETS, TRIED = (f"accelerators{name}" for name in ("", "_devices", "_targets", "_tried"))
CARTPOLE, BREAKOUT = "cartpole_cleanrl", "minatar/breakout"
PQN, PQN_PICTURES = "cartpole_pqn", "minatar/breakout_pqn"
BREAKOUT_PARTS = tuple(f"{BREAKOUT}+{part}" for part in ("per", "n_step=1", "replay.size=99_999"))
"""Other replays of pictures: plain Breakout has three steps, and the last one's size is no multiple of env.num_envs."""
MANY_QUANTILES = f"{CARTPOLE}+qr_dqn+distribution.atoms=200"
"""As many as in the paper; the loss has a term for each pair."""
LARGE_PQN = "largest PQN of gpu.py"
ON_CARTPOLE = tuple(f"{CARTPOLE}+{preset}" for preset in PRESETS[1:])
ALL, LEADERS, OTHERS = tuple(ACCELERATORS), ("TPU v5e", "H100"), ("TPU v6e", "H200")
Blocks = tuple[tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]], ...]
BLOCKS: Blocks = (
    ((CARTPOLE,), (1,), ALL),
    ((BREAKOUT,), (1, 8), ALL),
    ((CARTPOLE,), (1_024,), ("H100", "H200")),
    ((LARGE_PQN,), (1_024,), ("H100",)),
    ((PQN, PQN_PICTURES), (1,), ALL),
    ((PQN_PICTURES,), (8,), ALL),
    ((CARTPOLE,), (64,), ALL),
    (BREAKOUT_PARTS, (8,), LEADERS),
    ((PQN,), (64, 1_024), ALL),
    ((CARTPOLE,), (1_024,), ("TPU v5e", "TPU v6e")),
    ((BREAKOUT, PQN_PICTURES), (30,), ALL),
    (ON_CARTPOLE, (1,), LEADERS),
    (ON_CARTPOLE, (1_024,), LEADERS),
)
"""Configs, numbers of seeds and devices; what is cheap and decides targets first."""
LAST_BLOCKS: Blocks = (
    (ON_CARTPOLE, (1,), OTHERS),
    (ON_CARTPOLE, (64,), ALL),
    (ON_CARTPOLE, (1_024,), OTHERS),
    (BREAKOUT_PARTS[:2], (1, 8, 30), ("TPU v5e", "TPU v6e")),
    ((MANY_QUANTILES,), (64,), LEADERS),
)
"""What is counted when all others have been."""
COLUMNS = (
    *("device", "config", "seeds", "one program"),
    *("compile (s)", "compile (CPU s)", "on a CPU (s)", "on a CPU (CPU s)", "machine code (MB)"),
    *("memory a seed (MB)", "sum (MB)", "memory / sum"),
    *("kernels", "MB an iteration", "MFLOP an iteration", "steps a second that memory allows"),
    *("note", "jax", "machine", "commit"),
)
MINUTES = 15.0
"""Processor time that a row may take, unless said otherwise."""
WAITING = 10
"""Wall-clock time that a row may take, relative to its processor time."""
STOPPED, KILLED = "stopped", "killed"
"""First words of the notes on rows that a later call tries again."""
AGAIN = "counted again: "
"""What such a note follows if the row was there before, and stays."""
TEXTS = harness.ROOT / "build" / "accelerators"
VARIANTS: tuple[tuple[str, str, tuple[tuple[str, str, int], ...]], ...] = (
    ("Adam on one flattened vector", "flattened", (("H100", CARTPOLE, 1_024),)),
    ("products that share a matrix merged", "merged", (("H100", CARTPOLE, 1_024), ("H100", BREAKOUT, 30))),
    ("values of a rollout at once", "whole", (("H100", LARGE_PQN, 1_024), ("H100", PQN_PICTURES, 8))),
    ("precision=default", "precision=default", (("H100", CARTPOLE, 1_024), ("TPU v5e", CARTPOLE, 64))),
    ("precision=high", "precision=high", (("H100", CARTPOLE, 1_024), ("TPU v5e", CARTPOLE, 64))),
    ("no on-chip memory", "off chip", (("TPU v5e", CARTPOLE, 64), ("TPU v5e", BREAKOUT, 8), ("TPU v6e", BREAKOUT, 1))),
    ("optimisation level O0", "O0", (("TPU v5e", CARTPOLE, 64), ("TPU v5e", BREAKOUT, 8))),
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
    parser.add_argument(
        "--minutes", type=harness.positive, default=MINUTES, help=f"processor time of a row (default {MINUTES:g})"
    )
    parser.add_argument("--texts", type=Path, default=TEXTS, metavar="DIR", help="where compiled texts are kept")
    parser.add_argument("--recount", action="store_true", help="count the kept texts again, compile nothing")
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
    elif arguments.recount:
        if not _recount(arguments.texts.resolve()):
            parser.error(f"--texts: {arguments.texts} has no compiled texts of the table's rows")
    elif arguments.tried:
        _count_tried(arguments.minutes, keep=not arguments.quick)
    else:
        if arguments.texts.exists() and not arguments.texts.is_dir():
            parser.error(f"--texts: {arguments.texts} is not a directory")
        texts = None if arguments.quick else arguments.texts.resolve()
        _count_all(list(_chosen(arguments)), texts=texts, again=arguments.again, minutes=arguments.minutes)


def table_cases() -> list[Case]:
    """Return the rows of the table, in the order in which they are counted."""
    return list(dict.fromkeys(_cases((*BLOCKS, *LAST_BLOCKS))))


def _cases(blocks: Blocks) -> list[Case]:
    return [
        Case(device, config, number)
        for configs, seeds, devices in blocks
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


def _count_all(cases: Sequence[Case], *, texts: Path | None, again: bool, minutes: float) -> None:
    """Count the cases and keep rows and compiled texts; without a folder for texts, keep nothing."""
    rows = stored() if texts else {}
    machine, commit = harness.machine(), harness.commit()
    for case in queue(cases, rows, again=again):
        task = {**case._asdict(), "on_a_cpu": on_a_cpu(rows, case, machine), "texts": str(texts or "")}
        found = _ask(task, minutes)
        row = {**dict.fromkeys(COLUMNS, ""), **found, **case._asdict(), "machine": machine, "commit": commit}
        print(harness.table([row]), flush=True)
        if texts is None:
            continue
        if case in rows and is_unfinished(row):  # what was counted before is worth more
            note = rows[case]["note"]
            row = rows[case] if is_unfinished(rows[case]) else {**rows[case], "note": _noted(note, row["note"])}
        _keep(rows | {case: row})
        rows[case] = row


def _noted(before: str, note: str) -> str:
    """A row's note and what happened when it was counted again, once."""
    return "; ".join([part for part in before.split("; ") if part and AGAIN not in part] + [AGAIN + note])


def _keep(rows: dict[Case, dict[str, Any]]) -> None:
    harness.write(TABLE, [rows[one] for one in sorted(rows, key=_order)])
    write_summaries(rows)


def queue(cases: Sequence[Case], rows: dict[Case, dict[str, Any]], *, again: bool) -> list[Case]:
    """Return the cases that have to be counted: missing ones, old ones, those for last, and what was stopped."""
    last = set(_cases(LAST_BLOCKS)) - set(_cases(BLOCKS))

    def rank(case: Case) -> int:
        note = rows.get(case, {}).get("note", "")
        if note.startswith((STOPPED, KILLED)) or AGAIN in note:
            return 3
        return 2 if case in last else int(case in rows)

    open_ones = (
        case for case in cases if case not in rows or again or is_unfinished(rows[case]) or _is_old(rows, case)
    )
    return sorted(open_ones, key=rank)


def _is_old(rows: dict[Case, dict[str, Any]], case: Case) -> bool:
    """Whether a row was counted with another version of jax or of a TPU's compiler, or on an unknown machine."""
    jax, machine = rows[case]["jax"], rows[case]["machine"]
    return bool(jax) and (jax != compiled.version_of(case.device) or not machine)


def on_a_cpu(rows: dict[Case, dict[str, Any]], case: Case, machine: str) -> dict[str, Any] | None:
    """Return the columns of compiling for the CPU of another device's row, of this machine and version of jax."""
    if case.seeds != 1:
        return None
    jax = compiled.jax_of(compiled.version_of(case.device))
    for one, row in rows.items():
        same = (one.config, one.seeds, row["machine"], compiled.jax_of(row["jax"])) == (case.config, 1, machine, jax)
        if same and row[compiled.ON_A_CPU[1]] != "":
            return {column: row[column] and float(row[column]) for column in compiled.ON_A_CPU}
    return None


def _recount(texts: Path) -> int:
    """Count all rows anew whose compiled text is kept; the others stay -> how many there were."""
    rows, counted = stored(), {}
    for case in dict.fromkeys([*rows, *table_cases()]):
        if found := compiled.count_kept(**case._asdict(), texts=texts):
            counted[case] = {**dict.fromkeys(COLUMNS, ""), **found, **case._asdict()}
            print(harness.table([counted[case]]), flush=True)
    if counted:
        _keep(rows | counted)
    return len(counted)


def _ask(task: dict[str, Any], minutes: float) -> dict[str, Any]:
    """Let a process count -> the columns of a row that it found, or a note that says why there are none."""
    process = harness.start(__spec__.name, {**task, "minutes": minutes})
    try:
        return harness.answer(process, timeout=WAITING * 60 * minutes)
    except subprocess.TimeoutExpired:
        return {"note": f"{STOPPED} after {WAITING * minutes:g} minutes"}
    except (SystemExit, json.JSONDecodeError, IndexError):
        code = process.returncode
        if code == -signal.SIGXCPU:
            return {"note": f"{STOPPED} after {minutes:g} minutes of processor time"}
        return {"note": f"{KILLED} by signal {-code}" if code < 0 else f"the worker failed with exit code {code}"}


def _work(task: dict[str, Any]) -> dict[str, Any]:
    """Count in this process; an error becomes a note, so that the other rows are counted."""
    _limit_processor_time(task.pop("minutes", None))
    try:
        return (compiled.count_variant if "variant" in task else compiled.count)(**task)
    except Exception as error:
        traceback.print_exc()
        return {"note": compiled.reason(f"{type(error).__name__}: {error}")}


def _limit_processor_time(minutes: float | None) -> None:
    """Let the system end this process by SIGXCPU after so much processor time of all its threads."""
    if minutes is None:
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(60 * minutes), resource.getrlimit(resource.RLIMIT_CPU)[1]))


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
    whole = [row for row in rows.values() if row["one program"].startswith("yes")]

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
