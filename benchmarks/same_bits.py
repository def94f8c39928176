"""Do the working tree and another revision give the same results, bit for bit? For refactoring.

Small runs of every axis of the family, one seed and several, segments, resuming, sweeps, searches, exports and Python
are made with both trees on this machine, through the command line and the public names alone; then their metrics,
policies, tables, summaries (times aside), configs and exit codes are compared. Files, columns and keys that only
today's tree writes are noted and do not count as a difference. The exit code is 1 if values differ that are not in
``EXPECTED``. A machine with a GPU needs ``JAX_PLATFORMS=cpu``, as sums on a GPU have no fixed order.

    python -m benchmarks.same_bits --base REV                    all cases
    python -m benchmarks.same_bits --base REV --only dqn resume  some
    python -m benchmarks.same_bits --base REV --out DIR          keeps what the runs left
"""

import concurrent.futures
import io
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import harness
from benchmarks.differences import Comparison, Difference, compare, summarise
from purejaxdqn.system.git import run_git

PROBES = Path(__file__).with_name("same_bits_probes.py")
EXIT_CODES = "exit_codes.json"


class Expected(NamedTuple):
    """Values that differ from those of earlier revisions on purpose; names are patterns as in ``fnmatch``."""

    file: str
    name: str
    largest: float  # relative difference that is expected; infinite for values that are not numbers
    reason: str


EXPECTED = (
    Expected("evaluate.json", "mean", 1e-6, "evaluate sums returns up in 64 bits since commit 18046cd"),
    Expected("evaluate.json", "iqm", 1e-6, "as for the mean"),
    Expected(
        "*.json", "*iqm_ci95", math.inf, "fewer than five seeds have a range, not an interval, since commit 64b009b"
    ),
)

TINY = """
total_timesteps: 600
env: {id: CartPole-v1, num_envs: 4}
network: {hidden: [16, 16]}
optimizer: {learning_rate: 1.0e-3}
replay: {size: 300, batch_size: 8}
schedule: {warmup: 80, train_every: 8, gradient_steps: 2, target_every: 40, tau: 0.5}
evaluation: {episodes: 3, final_episodes: 4}
"""
"""The config under all cases. It is not a shipped one, which may be tuned again."""
SPACE = """
optimizer.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
exploration.end: {low: 0.0, high: 0.5}
"""


class Case(NamedTuple):
    """Commands that run one after another in one directory.

    A command is the words after ``python -m purejaxdqn.``, or after ``probe`` those for ``same_bits_probes.py``, or
    after ``script`` a Python file; ``> FILE`` keeps its standard output.
    """

    commands: tuple[str, ...]
    code: int = 0  # that every command must end with
    alike: tuple[tuple[str, str], ...] = ()  # directories that must be equal within one revision, too


def _train(overrides: str = "", *more: str, code: int = 0) -> Case:
    return Case((f"train --quiet --config tiny.yaml --out run {overrides}", *more), code)


PQN = (
    "--config pqn total_timesteps=640 env.num_envs=4 'rollout={steps: 8, epochs: 2, minibatches: 4}' "
    "schedule.tau=0.5 evaluation.every=320"
)
"""After tiny.yaml: the preset, with rollouts that divide the run. Revisions from before it fail at the base."""
LONGER = "total_timesteps=60080 evaluation.every=1000 checkpoint.every=2000 replay.kind=prioritised n_step=2"
_SEARCH = "search --quiet --config tiny.yaml --space space.yaml --out search --objective auc --seeds 2 --retest 3"

CASES = {
    "dqn": _train("", "evaluate run --episodes 5 --json > evaluate.json", "probe act run > act.json"),
    "seeds": _train(
        "num_seeds=3 seed=7",
        "evaluate run --episodes 3 --seed-index 2 --json > evaluate.json",
        "evaluate run --episodes 2 --backend gymnasium --json > gymnasium.json",
    ),
    "batched": _train("num_seeds=4 replay.kind=prioritised --seeds-at-once 2"),
    "segments": Case(
        tuple(
            f"train --quiet --config tiny.yaml --out of_{n} --segments {n} num_seeds=2 total_timesteps=560"
            for n in (1, 3)
        ),
        alike=(("of_1", "of_3"),),
    ),
    "resume": _train("num_seeds=2 total_timesteps=320", "train --quiet --resume run total_timesteps=600"),
    "interrupt": Case(
        (
            f"train --quiet --config tiny.yaml --out whole {LONGER}",
            f"probe interrupt cut --quiet --config tiny.yaml {LONGER}",
            "train --quiet --resume cut",
        ),
        alike=(("whole", "cut"),),
    ),
    "diverged": _train("num_seeds=2 optimizer.learning_rate=1e30 loss=squared", code=3),
    "double-dueling": _train("bootstrap.kind=double network.dueling=true loss=squared optimizer.anneal=true"),
    "n_step-prioritised": _train("n_step=3 replay.kind=prioritised optimizer.max_grad_norm=0.5 optimizer.eps=1e-5"),
    "categorical": _train(
        "distribution.kind=categorical distribution.v_min=-10 distribution.v_max=30 replay.kind=prioritised"
    ),
    "quantile": _train(
        "distribution.kind=quantile distribution.atoms=7 optimizer.name=adamw optimizer.max_grad_norm=1"
    ),
    "iqn": _train(
        "distribution.kind=iqn distribution.atoms=4 distribution.risk=cvar bootstrap.kind=double network.dueling=true"
    ),
    "fqf": _train("distribution.kind=fqf distribution.atoms=4 optimizer.name=rmsprop optimizer.centered=true"),
    "munchausen": _train("bootstrap.kind=munchausen optimizer.name=rmsprop"),
    "munchausen-categorical": _train(
        "bootstrap.kind=munchausen n_step=2 distribution.kind=categorical distribution.atoms=11 "
        "distribution.v_min=-10 distribution.v_max=30"
    ),
    "noisy": _train("network.noisy=true exploration.end=0.1 optimizer.name=sgd optimizer.anneal=true"),
    "layer_norm-normalize": _train("network.layer_norm=true network.activation=gelu env.normalize=true num_seeds=2"),
    "one_hot-sticky": _train("env.id=FrozenLake-misc env.one_hot=true env.sticky_actions=0.25"),
    "one_hot-flatten": _train("env.id=FourRooms-misc env.one_hot=true env.flatten=true n_step=2"),
    "env.params-reward": _train(
        "env.params.gravity=12.5 reward.scale=0.5 reward.clip=0.4 precision=default schedule.tau=1 gamma=0.97"
    ),
    "env.kwargs": _train("env.id=Catch-bsuite env.kwargs.rows=6 env.flatten=true network.hidden=[8]"),
    "minatar": Case(
        (
            "train --quiet --config minatar/breakout --config tiny.yaml --config rainbow --out run network.hidden=[16] "
            "env.id=Breakout-MinAtar total_timesteps=320 evaluation.every=80 distribution.atoms=11",
        )
    ),
    "pqn": _train(f"{PQN} num_seeds=2", "evaluate run --episodes 3 --json > evaluate.json"),
    "pqn-hl_gauss": _train(
        f"{PQN} distribution.kind=hl_gauss distribution.atoms=11 distribution.v_min=-10 distribution.v_max=30 "
        "schedule.target_every=64 bootstrap.kind=double network.noisy=true env.normalize=true"
    ),
    "pqn-gru": _train(f"{PQN} network.memory=gru network.memory_size=8 rollout.minibatches=2"),
    "r2d2": _train(
        "'network={memory: lru, memory_size: 8}' 'replay={kind: prioritised, size: 320, sequence: 8, burn_in: 2, "
        "period: 2}' bootstrap.kind=double"
    ),
    "ensemble": _train("'ensemble={members: 3, prior_scale: 3.0, mask: 0.5}' num_seeds=2"),
    "ensemble-pqn-gru": _train(
        f"{PQN} network.memory=gru network.memory_size=8 rollout.minibatches=2 "
        "'ensemble={members: 2, prior_scale: 1.0, mask: 0.7}'"
    ),
    "hl_gauss": _train("distribution={kind: hl_gauss, atoms: 11, v_min: -10, v_max: 30}".join("''")),
    "torso-resets-scale": _train(
        "env.id=DeepSea-bsuite network.torso=one_hot env.resets=2 evaluation.every=80 replay.kind=prioritised"
    ),
    "observe-frame_stack": _train("env.observe=[0,2] env.frame_stack=2 optimizer.name=radam"),
    "cnn": _train(
        "env.id=Breakout-MinAtar 'network={torso: cnn, channels: [4], hidden: [8]}' total_timesteps=320 "
        "evaluation.every=80"
    ),
    "stop": _train("stop.return=5 evaluation.every=40"),
    "sweep": Case(
        (
            "sweep --quiet --config tiny.yaml --out sweep --seeds 2 optimizer.learning_rate=1e-3,1e-2 "
            "bootstrap.kind=greedy,double",
        )
    ),
    "risks": Case(
        (
            "sweep --quiet --config tiny.yaml --out sweep --seeds 1 distribution.kind=iqn distribution.atoms=4 "
            "distribution.risk=neutral,cpw,wang",
        )
    ),
    "draws": Case(("sweep --quiet --config tiny.yaml --out sweep --seeds 3 --space space.yaml --points 3",)),
    "search": Case((f"{_SEARCH} --trials 14 --batch 4",)),
    "halving": Case((f"{_SEARCH} --trials 6 --batch 4 --halving 2 --rungs 2 --sampler random",)),
    "export": _train(
        "num_seeds=2 network.dueling=true",
        "export run --format safetensors --out weights",
        "export run --format stablehlo --out stablehlo --best",
        "export run --format onnx --out onnx --seed-index 1",
        "probe act run weights stablehlo onnx > act.json",
        "script stablehlo/run_policy.py obs.npy > stablehlo.json",
        "script onnx/run_policy.py obs.npy > onnx.json",
    ),
    "python": Case(("probe many many",)),
}


class Setting(NamedTuple):
    """The two revisions, what they share, and where cases run."""

    base: Path
    today: Path
    cache: Path  # of compiled programs
    runs: Path

    def environment(self, tree: Path) -> dict[str, str]:
        """Of every command: the same for both trees but for where the package is.

        Both keep compiled programs in one directory. JAX finds a program there by its StableHLO, the compiler's options
        and version and the device, without the source lines that operations come from; these are the compiler's whole
        input but for debugging information. So the second tree takes the first one's executable only where it would
        have handed the same program to the compiler, and a program with one operation more, fewer or elsewhere is
        compiled by itself.
        """
        return {
            **harness.clean_environment(),
            "PYTHONPATH": str(tree),
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "MPLBACKEND": "Agg",
            "JAX_TRACEBACK_FILTERING": "off",  # whose note would hide what was wrong
        }


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--base", required=True, metavar="REV", help="the revision to compare with")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=CASES, help="cases: " + "; ".join(CASES))
    parser.add_argument("--jobs", type=harness.positive, default=2, metavar="N", help="cases at a time (default 2)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep what the runs left here")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep compiled programs here, for another call")
    arguments = parser.parse_args()
    names = arguments.only or list(CASES)
    with harness.runs_in(None) as scratch, harness.runs_in(arguments.out) as runs:
        setting = Setting(scratch / "base", scratch / "today", (arguments.cache or scratch / "cache").resolve(), runs)
        check_out(arguments.base, setting.base)
        copy_tree(setting.today)
        check_imports(setting)
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            outcomes = pool.map(lambda name: run_case(name, CASES[name], setting), names)
            failed = [show(name, outcome) for name, outcome in zip(names, outcomes, strict=True)]
    if any(failed):
        raise SystemExit(1)


def check_out(revision: str, folder: Path) -> None:
    """Write the files of a revision to a folder.

    Raises:
      SystemExit: there is no such revision.
    """
    archive = run_git(harness.ROOT, "archive", revision)
    if archive.returncode:
        print(f"error: revision {revision}: {archive.stderr.decode().strip()}", file=sys.stderr)
        raise SystemExit(2)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")


def copy_tree(folder: Path) -> None:
    """Copy the files of this checkout as they are now, so that it can be edited meanwhile."""
    listed = run_git(harness.ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed.check_returncode()
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        if (harness.ROOT / name).is_file():  # and was not deleted
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(harness.ROOT / name, folder / name)


def check_imports(setting: Setting) -> None:
    """Refuse to compare a package that is installed with itself.

    Raises:
      SystemExit: the package is imported from elsewhere.
    """
    setting.runs.mkdir(parents=True, exist_ok=True)
    for tree in (setting.base, setting.today):
        command = [sys.executable, "-c", "import purejaxdqn; print(purejaxdqn.__file__)"]
        environment = setting.environment(tree)
        done = subprocess.run(command, cwd=setting.runs, env=environment, capture_output=True, text=True, check=True)
        if not Path(done.stdout.strip()).is_relative_to(tree):
            print(f"error: purejaxdqn is imported from {done.stdout.strip()}, not from {tree}", file=sys.stderr)
            raise SystemExit(1)


class Outcome(NamedTuple):
    """What became of a case."""

    failures: list[Difference]  # commands of the base that did not end as they should
    comparison: Comparison
    seconds: float


def run_case(name: str, case: Case, setting: Setting) -> Outcome:
    """Run a case with both trees, one after the other, and compare."""
    start = time.perf_counter()
    base, today = (setting.runs / name / side for side in ("base", "today"))
    failures = run_commands(case, base, setting.environment(setting.base))
    later = run_commands(case, today, setting.environment(setting.today))
    found = compare(base, today)
    differences = [*(later if later != failures else ()), *found.differences, *unlike(case, today)]
    return Outcome(failures, Comparison(differences, found.additions), time.perf_counter() - start)


def unlike(case: Case, folder: Path) -> list[Difference]:
    """What differs between directories of today's that must be equal."""
    found = [(other, compare(folder / one, folder / other)) for one, other in case.alike]
    return [
        difference._replace(file=f"within today: {other}/{difference.file}")
        for other, comparison in found
        for difference in comparison.differences
    ]


def run_commands(case: Case, folder: Path, environment: Mapping[str, str]) -> list[Difference]:
    """Run a case with one tree in a new directory; returns the commands that ended otherwise than they should."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    np.save(folder / "obs.npy", np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32))
    codes: dict[str, str] = {}
    failures: list[Difference] = []
    for number, command in enumerate(case.commands):
        done = run_command(command, folder, environment)
        label = f"{number} {command.split()[0]}"
        codes[label] = str(done.returncode)
        if done.returncode != case.code:
            last = (done.stderr.strip() or "nothing on standard error").splitlines()[-1]
            failures.append(Difference(label, f"ended with exit code {done.returncode}: {last}"))
    (folder / EXIT_CODES).write_text(json.dumps(codes, indent=2), encoding="utf-8")
    return failures


def run_command(line: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one command in a folder; see ``Case``."""
    line, _, output = line.partition(" > ")
    first, *words = shlex.split(line)
    options = {"probe": ["-P", str(PROBES)], "script": []}.get(first, ["-m", f"purejaxdqn.{first}"])
    command = [sys.executable, *options, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if output:
        (folder / output).write_text(done.stdout, encoding="utf-8")
    return done


def reason_of(difference: Difference) -> str | None:
    """Why a difference is expected; None where it is not."""
    for expected in EXPECTED:
        size = math.inf if difference.relative is None else difference.relative
        named = fnmatch(difference.file, expected.file) and fnmatch(difference.name, expected.name)
        if named and size <= expected.largest:
            return expected.reason
    return None


def show(name: str, outcome: Outcome) -> bool:
    """Print a case's line; returns whether it failed."""
    differences, additions = outcome.comparison
    unexpected = [one for one in differences if reason_of(one) is None]
    reasons = list(dict.fromkeys(filter(None, map(reason_of, differences))))
    failed = bool(outcome.failures or unexpected)
    if outcome.failures:
        text = f"fails at the base: {summarise(outcome.failures)}"
    elif unexpected:
        text = f"differs: {summarise(unexpected)}"
    elif differences:
        text = f"same but for {summarise(differences)} ({'; '.join(reasons)})"
    else:
        text = "same"
    more = [f"and {len(additions) - 3} more"] if len(additions) > 3 else []
    noted = f" (new: {', '.join([*additions[:3], *more])})" if additions else ""
    print(f"{name:<24} {outcome.seconds:4.0f} s  {text}{noted}", flush=True)
    return failed


if __name__ == "__main__":
    main()
