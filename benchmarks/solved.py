"""How many seconds pass between the shell prompt and a solved CartPole agent?

The clock starts with the process, so interpreter, imports, compilation and evaluation count; compilation caches are
empty unless the name says otherwise. Every contender of `peers.py` trains CartPole with evaluations (10 greedy episodes
every 5,000 steps, reported at once) until the first mean return of 475 or more, or to its end. All use CleanRL's
hyperparameters; ours and Stable-Baselines3's also run with their own, from `cartpole.yaml` and `cartpole_pqn.yaml`
(with their own number and interval of evaluations) and rl-zoo3.

    python -m benchmarks.solved            about 10 minutes on two cores
    python -m benchmarks.solved --quick    under a minute: one seed of ours and of the scan
"""

import csv
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness
from benchmarks.baselines.setting import Setting
from benchmarks.baselines.venvs import interpreter
from benchmarks.pictures import save

SOLVED = 475.0
EVERY = 5_000
TARGET = 20.0
"""This project's target in seconds, with an empty compilation cache."""
OFTEN = (f"evaluation.every={EVERY}", "--segments", str((Setting().total_timesteps - Setting().warmup) // EVERY))
"""Options that make ours evaluate as often as the others, and report each evaluation at once."""


class Contender(NamedTuple):
    """One implementation and its hyperparameters."""

    config: str = ""  # a config of this project, trained by its command
    options: tuple[str, ...] = ()  # further options of the command
    worker: str = ""  # without a config: what this script's worker trains
    venv: str = ""  # virtual environment of the worker; this process's own if empty
    cached: bool = False  # whether the compilation cache is filled
    target: float | str = ""  # seconds


CONTENDERS = {
    "PyTorch": Contender(worker="PyTorch", venv="torch"),
    "Stable-Baselines3, rl-zoo3's setting": Contender(worker="Stable-Baselines3", venv="torch"),
    "JAX loop": Contender(worker="JAX loop"),
    "rejax": Contender(worker="rejax", venv="rejax"),
    "scan and cond": Contender(worker="scan and cond"),
    "purejaxdqn": Contender("cartpole_cleanrl", OFTEN, target=TARGET),
    "purejaxdqn, cartpole.yaml": Contender("cartpole", target=TARGET),
    "purejaxdqn, cartpole.yaml, cached": Contender("cartpole", cached=True),
    "purejaxdqn, cartpole_pqn.yaml": Contender("cartpole_pqn", target=6.0),
    "purejaxdqn, cartpole_pqn.yaml, cached": Contender("cartpole_pqn", cached=True, target=3.5),
}
QUICK = ("scan and cond", "purejaxdqn, cartpole.yaml", "purejaxdqn, cartpole.yaml, cached")


class Point(NamedTuple):
    """An evaluation."""

    seconds: float  # from the start of the process until it was reported
    steps: int  # environment steps
    greedy_return: float


def main() -> None:
    parser = harness.parser(__doc__, quick="one seed of ours and of the scan")
    parser.add_argument("--picture", action="store_true", help="draw the picture again, from results/solved_curves.csv")
    parser.add_argument(
        "--seeds", type=harness.positive, default=3, help="number of seeds, one after another (default 3)"
    )
    arguments = parser.parse_args()
    if arguments.worker:
        work(**arguments.worker)
        return
    if arguments.picture:
        print(draw(read_curves()))
        return
    names, seeds = (QUICK, 1) if arguments.quick else (tuple(CONTENDERS), arguments.seeds)
    curves: dict[str, list[list[Point]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as cache:
        for name in names:
            if CONTENDERS[name].cached:
                train(CONTENDERS[name], 0, Path(cache), until=math.inf)  # a run that is stopped may not have them all
        for seed in range(seeds):
            for name in names:
                curve = train(CONTENDERS[name], seed, Path(cache))
                curves[name].append(curve)
                print(f"{name}, seed {seed}: {curve[-1]}", file=sys.stderr, flush=True)
    rows = [summarise(name, found) for name, found in curves.items()]
    print(f"{harness.machine()}; {seeds} seeds, contenders interleaved\n")
    print(harness.table(rows))
    if not arguments.quick:
        points = [
            {"contender": name, "seed": seed, **point._asdict()}
            for name, found in curves.items()
            for seed, curve in enumerate(found)
            for point in curve
        ]
        print(harness.write("solved", rows), harness.write("solved_curves", points), draw(curves))


def summarise(name: str, curves: Sequence[Sequence[Point]]) -> dict[str, Any]:
    """Return a row of the table; a seed that was never solved has an infinite time."""
    times = [curve[-1].seconds if curve[-1].greedy_return >= SOLVED else math.inf for curve in curves]
    solved = [curve[-1] for curve in curves if curve[-1].greedy_return >= SOLVED]
    return {
        "contender": name,
        "solved": f"{len(solved)} of {len(curves)}",
        "seconds (median)": statistics.median(times),
        "quickest": min(times),
        "slowest": max(times),
        "target": CONTENDERS[name].target,
        "first evaluation after (s)": statistics.median(curve[0].seconds for curve in curves),
        "steps (median)": f"{statistics.median(point.steps for point in solved):,.0f}" if solved else "-",
    }


def train(
    contender: Contender, seed: int, cache: Path, *, seconds: float = math.inf, until: float = SOLVED
) -> list[Point]:
    """Train a contender, record its evaluations, and stop it at the return ``until`` or after ``seconds``."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        compiled = cache if contender.cached else folder / "cache"
        env = harness.clean_environment() | {"JAX_COMPILATION_CACHE_DIR": str(compiled)}
        if contender.config:
            line = [sys.executable, "-m", "purejaxdqn.train", "--config", contender.config, f"seed={seed}", "--quiet"]
            line += contender.options
            watch = watch_metrics(folder / "run" / "metrics.csv")
            line += ["--out", str(folder / "run")]
        else:
            python = interpreter(contender.venv) if contender.venv else sys.executable
            task = json.dumps({"name": contender.worker, "seed": seed, "report": str(folder / "report")})
            line, watch = [python, "-m", __spec__.name, "--worker", task], watch_report(folder / "report")
            env |= {"NPROC": "1"} if contender.worker == "JAX loop" else {}
        start, curve = time.perf_counter(), list[Point]()
        process = subprocess.Popen(line, cwd=harness.ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while True:
            ended = process.poll() is not None
            for steps, value in next(watch):
                curve.append(Point(round(time.perf_counter() - start, 3), steps, value))
                if value >= until:
                    process.kill()
                    process.communicate()
                    return curve
            if time.perf_counter() - start > seconds:
                process.kill()
                process.communicate()
                return curve
            if ended:
                _, error = process.communicate()
                if process.returncode or not curve:
                    raise SystemExit(f"{contender} failed:\n{error.decode()[-2000:]}")
                return curve
            time.sleep(0.01)


def watch_metrics(path: Path) -> Iterator[list[tuple[int, float]]]:
    """Yield, at each ``next``, the new rows of a run's ``metrics.csv`` as (steps, greedy return)."""
    seen = 0
    while True:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole_lines = text[: text.rfind("\n") + 1].splitlines()
        found = [(int(row["env_step"]), float(row["eval_return"])) for row in csv.DictReader(whole_lines)]
        yield found[seen:]
        seen = len(found)


def watch_report(path: Path) -> Iterator[list[tuple[int, float]]]:
    """Yield, at each ``next``, the new lines of a worker's report as (steps, greedy return)."""
    seen = 0
    while True:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        found = [(int(steps), float(value)) for steps, value in (line.split() for line in lines)]
        yield found[seen:]
        seen = len(found)


def work(*, name: str, seed: int, report: str) -> None:
    """Train a contender other than ours; append a line to the file ``report`` for each evaluation."""
    setting = Setting()

    def tell(steps: Any, value: Any) -> bool:
        with Path(report).open("a", encoding="utf-8") as file:
            file.write(f"{int(steps)} {float(value)}\n")
        return float(value) >= SOLVED

    match name:
        case "Stable-Baselines3":
            from benchmarks.baselines.sb3_dqn import run_tuned

            run_tuned(seed, every=EVERY, until=tell)
        case "rejax":
            import jax

            from benchmarks.baselines.rejax_dqn import make_algorithm

            algorithm = make_algorithm(setting, every=EVERY, report=lambda steps, value: (tell(steps, value), None)[1])
            jax.block_until_ready(jax.jit(algorithm.train)(jax.random.key(seed)))
            jax.effects_barrier()
        case "scan and cond":
            train_scan(setting, seed, tell)
        case _:
            train_loop(name, setting, seed, tell)


def train_loop(name: str, setting: Setting, seed: int, tell: Callable[[int, float], bool]) -> None:
    """Train a Python loop; ``tell(steps, value)`` reports an evaluation and returns whether to stop."""
    from benchmarks.baselines import python_loop

    agent: python_loop.Agent
    if name == "PyTorch":
        from benchmarks.baselines.torch_dqn import TorchAgent

        agent = TorchAgent(setting, seed)
    else:
        from benchmarks.baselines.jax_dqn import JaxAgent

        agent = JaxAgent(setting, seed)

    def until(steps: int) -> bool:
        return tell(steps, python_loop.evaluate(agent, seed))

    python_loop.run(agent, setting, seed, every=EVERY, until=until)


def train_scan(setting: Setting, seed: int, tell: Callable[[int, float], bool]) -> None:
    """Train the scan, which returns to Python after every 5,000 steps for an evaluation."""
    import jax

    from benchmarks.baselines.scan_dqn import make_parts

    parts = make_parts(setting)
    steps = jax.jit(lambda carry: jax.lax.scan(parts.step, carry, None, EVERY // setting.num_envs)[0])
    evaluate = jax.jit(lambda params, key: parts.evaluate(params, key).mean())
    key, carry = jax.random.key(seed + 1_000), jax.jit(parts.init)(jax.random.key(seed))
    for count in range(EVERY, setting.total_timesteps + 1, EVERY):
        carry = steps(carry)
        if tell(count, evaluate(carry[0], jax.random.fold_in(key, count))):
            return


def read_curves() -> dict[str, list[list[Point]]]:
    """Read ``results/solved_curves.csv``: the curves of each contender, one per seed."""
    curves: dict[str, dict[str, list[Point]]] = {}
    with (harness.RESULTS / "solved_curves.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            point = Point(float(row["seconds"]), int(row["steps"]), float(row["greedy_return"]))
            curves.setdefault(row["contender"], {}).setdefault(row["seed"], []).append(point)
    return {name: list(found.values()) for name, found in curves.items()}


_CACHED = ", cached"


def _is_ours(name: str) -> bool:
    return name.startswith("purejaxdqn")


def draw(curves: Mapping[str, Sequence[Sequence[Point]]]) -> Path:
    """Draw the greedy return against seconds since the start of the process: ``results/solved_curves.png``.

    A line is the seed with the median time; a dot is where a seed was solved. Ours are blue, a line style for each
    config, and paler with hollow dots where programs were cached.
    """
    from matplotlib.ticker import NullFormatter

    from purejaxdqn.pictures.figures import legend_below, style, subplots
    from purejaxdqn.pictures.palette import EVALUATION_COLOR, LINES, SOLVED_COLOR, look

    others = itertools.count(1)
    configs = [name for name in curves if _is_ours(name) and not name.endswith(_CACHED)]
    lines = dict(zip(configs, itertools.cycle(LINES), strict=False))
    with style():
        figure, axes = subplots(figsize=(7.2, 4.6))
        for name, found in curves.items():
            by_time = sorted(found, key=lambda curve: curve[-1].seconds)
            middle = by_time[len(by_time) // 2]
            seconds, values = [point.seconds for point in middle], [point.greedy_return for point in middle]
            ours, cached = _is_ours(name), name.endswith(_CACHED)
            own_look = EVALUATION_COLOR, lines.get(name.removesuffix(_CACHED), "-"), "o"
            color, line, marker = own_look if ours else look(next(others))
            width, alpha = 2.4 if ours else 1.2, 0.5 if cached else 1.0
            axes.plot(
                seconds, values, color=color, linestyle=line, linewidth=width, alpha=alpha, label=name, zorder=2 + ours
            )
            ends = [curve[-1] for curve in found if curve[-1].greedy_return >= SOLVED]
            dots = [end.seconds for end in ends], [end.greedy_return for end in ends]
            face = "white" if cached else color
            axes.plot(*dots, marker, color=color, markerfacecolor=face, markersize=4.5, clip_on=False, zorder=4)
        axes.axhline(SOLVED, color=SOLVED_COLOR, linestyle=":", linewidth=1.2)
        axes.axvline(TARGET, color=SOLVED_COLOR, linestyle=":", linewidth=1.2)
        axes.set(xscale="log", xlabel="seconds since the process started", ylabel="greedy return", ylim=(0, 510))
        axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axes.set_xlim(left=1)
        axes.xaxis.set_minor_formatter(NullFormatter())
        legend_below(figure)
        return save(figure, "solved_curves")


if __name__ == "__main__":
    main()
