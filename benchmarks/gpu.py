"""Measures peers, the time to a solved agent, scaling, PQN, Breakout and the limit on one GPU, within eight minutes.

`bash benchmarks/gpu.sh` prepares the packages and runs this. The most important parts come first, and each case runs in
a process of its own. Cases that do not fit into the time, or need a missing package, are listed as left out. All peers
train for the same number of steps. Results: `gpu.json`, with everything, and one table, `gpu.md`.

    python -m benchmarks.gpu               on a machine with a GPU and all packages
    python -m benchmarks.gpu --rehearse    the same parts with tiny sizes, on any device: three minutes
    python -m benchmarks.gpu --quick       under a minute: without peers, nothing kept
"""

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness

CONFIG = "cartpole_cleanrl"


class Size(NamedTuple):
    """How much each part measures."""

    seeds: tuple[int, ...]  # numbers of seeds, for scaling
    many: int  # number of seeds for the other axes, for peers that use vmap, and for the limit
    steps: int  # environment steps per seed after the warm-up, for scaling
    peer_steps: int  # environment steps per seed, for peers
    population: tuple[int, int]  # seeds and steps of the run of a whole population
    axes: Mapping[str, tuple[int, ...]]  # values of the other axes of `scaling.py`
    pqn: tuple[tuple[int, int], ...]  # numbers of seeds and of environments of each, for PQN
    rollouts: int  # of each seed, for PQN
    pictures: tuple[int, ...]  # numbers of seeds, for MinAtar's Breakout with replay
    periods: int  # target periods of each seed, for Breakout
    solved: tuple[str, ...]  # contenders of `solved.py`
    rounds: int  # rounds of the limit
    seconds: float  # time for all parts


FULL = Size(
    seeds=(1, 8, 64, 256, 1_024, 2_048, 4_096),
    many=256,
    steps=20_000,
    peer_steps=21_000,
    population=(1_000, 500_000),
    axes={"environments": (10, 100, 1_000), "width": (64, 256, 1_024), "batch": (32, 512)},
    pqn=((1_024, 32), (1, 4_096), (1_024, 512), (64, 4_096), (1_024, 4_096), (64, 512), (1, 512), (64, 32), (1, 32)),
    rollouts=5,
    pictures=(30, 256, 8, 1),
    periods=20,
    solved=("purejaxdqn, cartpole.yaml", "purejaxdqn", "scan and cond"),
    rounds=2,
    seconds=450.0,
)
REHEARSAL = Size(
    seeds=(2,),
    many=2,
    steps=1_000,
    peer_steps=2_000,
    population=(2, 12_000),
    axes={"environments": (20,)},
    pqn=((2, 32),),
    rollouts=2,
    pictures=(1,),
    periods=1,
    solved=("purejaxdqn, cartpole.yaml",),
    rounds=1,
    seconds=600.0,
)
QUICK = REHEARSAL._replace(seeds=(1,), peer_steps=0, solved=(), axes={}, pqn=((1, 32),))
NEEDS = {"PyTorch": "torch", "Stable-Baselines3": "stable_baselines3"}
"""Packages that contenders need and this project does not depend on."""
TARGET_RATE = 20e6
"""This project's target for environment steps per second over all seeds, at the best number of seeds."""
TARGET_SECONDS = 60.0
"""This project's target for the whole population in seconds, including compilation."""


class Report:
    """Collects the rows of the table and the cases left out; no case runs beyond ``seconds`` after the start."""

    def __init__(self, seconds: float):
        self.start = time.monotonic()
        self.deadline = self.start + seconds
        self.rows: list[dict[str, Any]] = []
        self.parts: dict[str, Any] = {}
        self.left_out: dict[str, str] = {}

    def ask(self, what: str, process: Callable[[], subprocess.Popen[str]]) -> dict[str, Any] | None:
        """Return a worker's answer; None if it failed or ran out of time, which is noted under ``left_out``."""
        left = self.deadline - time.monotonic()
        if left < 5.0:
            self.left_out[what] = "no time left"
            return None
        try:
            return harness.answer(process(), timeout=left)
        except subprocess.TimeoutExpired:
            self.left_out[what] = "not finished in the time left"
        except (SystemExit, json.JSONDecodeError) as error:
            self.left_out[what] = str(error)
        return None

    def add(self, part: str, what: str, seeds: int, *, rate: float, **others: Any) -> None:
        """Add a row; ``rate`` is in environment steps per second over all seeds, ``others`` are further columns."""
        row = {"part": part, "what": what, "seeds": seeds, "environment steps a second": float(rate)}
        self.rows.append({**row, "compile (s)": "", "peak memory (MB)": "", "target": "", **others})
        print(f"{time.monotonic() - self.start:5.0f} s  {part}: {what}, {seeds} seeds: {rate:,.0f}", file=sys.stderr)


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--rehearse", action="store_true", help="the same parts with tiny sizes, on any device")
    parser.add_argument("--quick", action="store_true", help="tiny sizes without peers and other axes; nothing kept")
    parser.add_argument("--rejax", metavar="DIR", help="directory with rejax and its gymnax 0.0.9")
    parser.add_argument("--out", type=Path, default=harness.RESULTS, metavar="DIR")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        print(json.dumps(describe()))
        return
    size = QUICK if arguments.quick else REHEARSAL if arguments.rehearse else FULL
    report = Report(size.seconds)
    device = harness.answer(harness.start(__spec__.name, {}))
    if device["platform"] == "cpu" and size is FULL:
        parser.error("JAX sees no accelerator here; --rehearse runs the same parts with tiny sizes")
    scale(report, size)
    train_population(report, size)
    if size.peer_steps:
        compare_peers(report, size, arguments.rejax)
    scale_pqn(report, size)
    scale_pictures(report, size)
    measure_limit(report, size)
    time_to_solved(report, size)
    scale_axes(report, size)
    about = {**device, "machine": harness.machine(), "commit": harness.commit(), "rehearsal": size is not FULL}
    about["seconds"] = round(time.monotonic() - report.start, 1)
    text = harness.table(report.rows)
    left_out = "".join(f"\nleft out: {what}: {why}" for what, why in report.left_out.items())
    heading = ", ".join(f"{name} {value}" for name, value in about.items())
    print(f"{heading}\n\n{text}{left_out}")
    if arguments.quick:
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "gpu.md").write_text(f"{heading}\n\n{text}\n{left_out}\n", encoding="utf-8")
    whole = {**about, "table": report.rows, "parts": report.parts, "left_out": report.left_out}
    (arguments.out / "gpu.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def describe() -> dict[str, Any]:
    """Return JAX's default device and the versions of JAX and Python."""
    import jax

    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def scale(report: Report, size: Size) -> None:
    """Measure the rate for each number of seeds, and for the best one also with ``precision=default``."""
    for seeds in size.seeds:
        overrides = [f"num_seeds={seeds}"]
        _scale_one(report, size, f"{seeds} seeds", overrides, part="scaling", seeds=seeds)
    if not report.rows:
        return
    fastest = max(report.rows, key=lambda row: row["environment steps a second"])
    # The target is for float32 products; precision=default below may use a faster, less precise type.
    fastest["target"] = f"{TARGET_RATE:,.0f} steps a second"
    seeds = fastest["seeds"]
    overrides = [f"num_seeds={seeds}", "precision=default"]
    _scale_one(report, size, f"{seeds} seeds, precision default", overrides, part="scaling", seeds=seeds)


def scale_axes(report: Report, size: Size) -> None:
    """Measure the other axes of `scaling.py`, with many seeds."""
    from benchmarks.scaling import AXES

    for axis, values in size.axes.items():
        for value in values:
            overrides = [f"num_seeds={size.many}", *AXES[axis][1](value)]
            _scale_one(report, size, f"{axis} {value}", overrides, part="scaling, one axis", seeds=size.many)


def scale_pqn(report: Report, size: Size) -> None:
    """Measure PQN, which learns from rollouts, for numbers of seeds and of environments of each seed."""
    for seeds, environments in size.pqn:
        task = {"seeds": seeds, "environments": environments, "rollouts": size.rollouts}
        _measure_one(report, f"{seeds} seeds x {environments} environments", task, part="PQN", seeds=seeds)


def scale_pictures(report: Report, size: Size) -> None:
    """Measure MinAtar's Breakout, whose replay takes most of the memory, for numbers of seeds."""
    for seeds in size.pictures:
        task = {"game": "breakout", "seeds": seeds, "periods": size.periods}
        _measure_one(report, f"{seeds} seeds", task, part="Breakout", seeds=seeds)


def _scale_one(report: Report, size: Size, what: str, overrides: list[str], *, part: str, seeds: int) -> None:
    _measure_one(report, what, {"overrides": overrides, "steps": size.steps}, part=part, seeds=seeds)


def _measure_one(report: Report, what: str, task: Mapping[str, Any], *, part: str, seeds: int) -> None:
    reply = report.ask(f"{part}: {what}", lambda: harness.start("benchmarks.scaling", task))
    if reply:
        megabytes = {"compile (s)": reply["compile_seconds"], "peak memory (MB)": reply["peak"] / 1e6}
        report.add(part, what, seeds, rate=reply["rate"], **megabytes)
        report.parts.setdefault(part, {})[what] = reply


def train_population(report: Report, size: Size) -> None:
    """Time the command for a whole population, including compilation, training, evaluation and files."""
    seeds, steps = size.population
    what = f"{seeds:,} seeds x {steps:,} steps by the command"
    with tempfile.TemporaryDirectory() as scratch:
        numbers = [f"num_seeds={seeds}", f"total_timesteps={steps}"]
        command = [sys.executable, "-m", "purejaxdqn.train", "--config", CONFIG, "--quiet", "--no-cache", *numbers]
        left, start = report.deadline - time.monotonic(), time.perf_counter()
        try:
            subprocess.run(
                [*command, "--out", f"{scratch}/run"],
                cwd=harness.ROOT,
                check=True,
                timeout=left,
                stdout=subprocess.DEVNULL,
            )
        except (subprocess.SubprocessError, OSError) as error:
            report.left_out[what] = str(error)
            return
        seconds = time.perf_counter() - start
        summary = json.loads(Path(scratch, "run", "summary.json").read_text(encoding="utf-8"))
    kept = ("import_seconds", "compile_seconds", "run_seconds", "iqm", "iqm_ci95")
    report.parts["population"] = {"seconds": seconds, **{name: summary[name] for name in kept}}
    target = f"{TARGET_SECONDS:g} s (took {seconds:.1f} s)"
    compiling = summary["compile_seconds"]
    report.add("population", what, seeds, rate=seeds * steps / seconds, target=target, **{"compile (s)": compiling})


def compare_peers(report: Report, size: Size, rejax: str | None) -> None:
    """Measure all contenders with one seed, and those that use vmap with many; all train for the same steps."""
    from benchmarks.peers import CONTENDERS, PRODUCTS

    agents = {name: contender for name, contender in CONTENDERS.items() if name != PRODUCTS}  # the limit has products
    for seeds in (1, size.many):
        for name in [name for name, contender in agents.items() if seeds == 1 or not contender.loop]:
            if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
                report.left_out[f"peers: {name}, {seeds} seeds"] = f"{NEEDS[name]} is not installed"
                continue
            if name == "rejax" and not rejax:
                report.left_out[f"peers: rejax, {seeds} seeds"] = "--rejax is not given"
                continue
            env = {"PYTHONPATH": rejax} if name == "rejax" and rejax else {}
            task = {"name": name, "seeds": seeds, "steps": size.peer_steps, "seed": 0}
            reply = report.ask(f"peers: {name}, {seeds} seeds", _starter("benchmarks.peers", task, env))
            if reply:
                report.add("peers", name, seeds, rate=reply["rate"], **{"compile (s)": reply["compile_seconds"]})
                report.parts.setdefault("peers", []).append({"contender": name, "seeds": seeds, **reply})


def _starter(module: str, task: Mapping[str, Any], env: Mapping[str, str]) -> Callable[[], subprocess.Popen[str]]:
    return lambda: harness.start(module, task, env=env)


def time_to_solved(report: Report, size: Size) -> None:
    """Measure the time from the start of a process to a greedy return of 475, with an empty cache and one seed."""
    from benchmarks import solved

    for name in size.solved:
        left = report.deadline - time.monotonic()
        if left < 5.0:
            report.left_out[f"solved: {name}"] = "no time left"
            continue
        try:
            with tempfile.TemporaryDirectory() as cache:
                curve = solved.train(solved.CONTENDERS[name], 0, Path(cache), seconds=left)
        except SystemExit as error:
            report.left_out[f"solved: {name}"] = str(error)
            continue
        if not curve or curve[-1].greedy_return < solved.SOLVED:
            report.left_out[f"solved: {name}"] = "not solved in the time left"
            continue
        seconds, steps, _ = curve[-1]
        report.add("solved", f"{name}, after {seconds:.1f} s", 1, rate=steps / seconds)
        report.parts.setdefault("solved", {})[name] = [point._asdict() for point in curve]


def measure_limit(report: Report, size: Size) -> None:
    """Measure matrix products alone, a gradient step and a whole iteration."""
    task = {"rounds": size.rounds, "seeds": size.many, "large": None if size is FULL else 256}
    reply = report.ask("limit", lambda: harness.start("benchmarks.limit", task))
    if reply:
        report.parts["limit"] = reply
        for row in reply["step"]:
            report.add("limit", row["what"], size.many, rate=row["environment steps/s"])


if __name__ == "__main__":
    main()
