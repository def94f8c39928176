"""Does a run that is killed and resumed many times end with the same results as one that is never interrupted?

Four runs (plain; prioritised replay with n-step returns; Rainbow; eight seeds) are killed with SIGKILL 25 times each,
at random times between the start of the process and the end of the run, and resumed after each kill. Then their
metrics, policy, pictures and summary (without times) are compared with those of an uninterrupted run.

    python -m benchmarks.kills            about 13 minutes on two cores
    python -m benchmarks.kills --quick    under a minute: three kills of one short run, nothing kept
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness

SMALL = (
    "network.hidden=[32,32]", "replay.size=2000", "replay.batch_size=32", "schedule.warmup=1000",
    "schedule.target_every=100", "evaluation={every: 500, episodes: 3, final_episodes: 10}", "checkpoint.every=1000",
)  # fmt: skip
RUNS: dict[str, tuple[str, ...]] = {
    "plain": ("total_timesteps=301000",),
    "PER and n steps": ("total_timesteps=201000", "replay.kind=prioritised", "n_step=3"),
    "Rainbow": ("--config", "rainbow", "total_timesteps=101000", "distribution.atoms=21"),
    "eight seeds": ("total_timesteps=101000", "num_seeds=8"),
}
NAMES = ("config.yaml", "metrics.csv", "policy.safetensors", "learning_curve.png", "report.png")


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--quick", action="store_true", help="three kills of one short run")
    parser.add_argument("--kills", type=int, default=25, help="number of kills per run (default 25)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times of the kills (default 0)")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    runs = {"plain, short": ("total_timesteps=51000",)} if arguments.quick else RUNS
    with tempfile.TemporaryDirectory() as place:
        rows = [
            kill_and_resume(name, what, Path(place) / str(number), 3 if arguments.quick else arguments.kills, generator)
            for number, (name, what) in enumerate(runs.items())
        ]
    print(harness.table(rows))
    if not arguments.quick:
        print(harness.write("kills", rows))
    if any(row["equal at the end"] != "yes" for row in rows):
        raise SystemExit("a killed run has other results")


def kill_and_resume(
    name: str, what: Sequence[str], place: Path, kills: int, generator: random.Random
) -> dict[str, Any]:
    """Kill and resume a run ``kills`` times, compare its results with an uninterrupted run's, and return a row."""
    begin = ["--config", "cartpole_cleanrl", *SMALL, *what]
    whole, cut = place / "whole", place / "cut"
    start([*begin, "--out", str(whole)]).wait()  # fills the cache: else most kills would fall into compilation
    before = time.perf_counter()
    start([*begin, "--out", str(place / "timed")]).wait()
    seconds = time.perf_counter() - before
    arguments, done, ended, resumed = [*begin, "--out", str(cut)], 0, 0, 0
    moments = []
    while done < kills:
        process = start(arguments)
        moment = generator.uniform(0.0, seconds if ended else 0.6 * seconds)
        try:
            code = process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code == -signal.SIGKILL:
            done += 1
            moments.append(moment)
        elif code:
            raise SystemExit(f"{name}: exit code {code} after {done} kills")
        else:  # the run ended before the kill: start a new one
            check(whole, cut, name)
            ended += 1
            cut = place / f"cut{ended}"
        there = (cut / "config.yaml").exists()
        resumed += there and code == -signal.SIGKILL
        arguments = ["--resume", str(cut)] if there else [*begin, "--out", str(cut)]
    if start(arguments).wait():
        raise SystemExit(f"{name}: it could not be resumed")
    check(whole, cut, name)
    print(f"{name}: same results after {done} kills", file=sys.stderr, flush=True)
    return {
        "run": name,
        "kills": done,
        "resumed": resumed,
        "killed before there was a run": done - resumed,
        "runs ended": ended + 1,
        "equal at the end": "yes",
        "earliest kill (s)": min(moments),
        "latest kill (s)": max(moments),
    }


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start the training command without output except errors."""
    command = [sys.executable, "-m", "purejaxdqn.train", "--quiet", *arguments]
    return subprocess.Popen(command, cwd=harness.ROOT, env=dict(os.environ), stdout=subprocess.DEVNULL)


def check(whole: Path, cut: Path, name: str) -> None:
    """Exit with a message unless both runs have the same results."""
    differing = [one for one in NAMES if (whole / one).read_bytes() != (cut / one).read_bytes()]
    if summary(whole) != summary(cut):
        differing.append("summary.json")
    if differing:
        raise SystemExit(f"{name}: {', '.join(differing)} of {cut} and {whole} differ")


def summary(folder: Path) -> dict[str, Any]:
    """Read a summary without its times, and without the commit, which may change while this script runs."""
    times = ("import_seconds", "compile_seconds", "run_seconds", "env_steps_per_second", "git_commit", "summary_sha256")
    read = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {key: value for key, value in read.items() if key not in times}


if __name__ == "__main__":
    main()
