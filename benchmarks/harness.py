"""What the benchmark scripts share: measuring in processes of their own, tables, and where results go."""

import argparse
import contextlib
import csv
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.pictures import PICTURES, RESULTS, draw

ROOT = Path(__file__).parents[1]

_UNSET = ("NPROC", "XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "OMP_NUM_THREADS")


def start(
    module: str, task: Mapping[str, Any], *, env: Mapping[str, str] | None = None, python: str = sys.executable
) -> subprocess.Popen[str]:
    """Start ``python -m module --worker TASK`` in a process of its own."""
    return subprocess.Popen(
        [python, "-m", module, "--worker", json.dumps(task)],
        cwd=ROOT,
        env={**clean_environment(), **(env or {})},
        stdout=subprocess.PIPE,
        text=True,
    )


def clean_environment() -> dict[str, str]:
    """This process's environment without what would decide a comparison from the caller's shell."""
    return {name: value for name, value in os.environ.items() if name not in _UNSET}


def answer(process: subprocess.Popen[str], *, timeout: float | None = None) -> dict[str, Any]:
    """Wait for a worker and read the JSON object on its last line; one that takes longer (seconds) is killed."""
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    if process.returncode:
        raise SystemExit(f"a worker failed with exit code {process.returncode}: {process.args}")
    return json.loads(out.splitlines()[-1])


class Options(argparse.ArgumentParser):
    """The options of a script, whose own text is their help; what is wrong with them is said in a line."""

    def __init__(self, doc: str | None) -> None:
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        self.exit(2, f"error: {message} (see --help)\n")


def parser(doc: str, *, quick: str, rounds: int | None = None) -> Options:
    """What the options of scripts that measure have in common.

    Args:
      doc: the script's own.
      quick: what ``--quick`` leaves out.
      rounds: how often everything is measured, in turn, unless ``--rounds`` says otherwise; None has no such option.
    """
    common = Options(doc)
    common.add_argument("--quick", action="store_true", help=quick)
    if rounds is not None:
        common.add_argument(
            "--rounds", type=positive, default=rounds, help=f"of everything, in turn (default {rounds})"
        )
    common.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    return common


def positive(text: str) -> int:
    """A count, for an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return int(text)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_text(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(name: str, rows: Sequence[Mapping[str, Any]], *, of: str | None = None) -> Path:
    """Write rows to ``results/<name>.csv``, the machine, versions and commit beside them, and the picture.

    Args:
      name: of the table.
      rows: of the table.
      of: the results that it was worked out from, whose machine, versions and commit are the table's too.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    about = {"machine": machine(), "python": platform.python_version(), "commit": commit()}
    if of is not None:
        about = json.loads((RESULTS / f"{of}.json").read_text(encoding="utf-8"))
    (RESULTS / f"{name}.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    if name in PICTURES:
        draw(name, rows)
    return path


@contextlib.contextmanager
def runs_in(out: Path | None) -> Iterator[Path]:
    """Where runs go: ``out``, to be kept, or a directory that is gone afterwards."""
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch) if out is None else out.resolve()


def train(configs: Sequence[str], overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Train with the command, or go on with what is in ``folder`` -> the finished run's summary.

    Raises:
      SystemExit: the run that is there has another config, or training ends with a code that is not 0.
    """
    import jax

    from purejaxdqn.config.reading import CONFIG_FILE, read_config

    begun = folder / CONFIG_FILE
    options = [option for config in configs for option in ("--config", config)]
    how = [*options, *overrides, "--quiet", "--out", str(folder)]
    if begun.exists():
        jax.config.update("jax_platforms", "cpu")  # checking starts JAX, and here it would take a GPU's memory
        if read_config((str(begun),), ()).checked() != read_config(configs, overrides).checked():
            print(f"error: {folder} has a run of another config; move it away, or name another --out", file=sys.stderr)
            raise SystemExit(2)
        how = ["--resume", str(folder), "--quiet"]
    summary = folder / "summary.json"
    if not summary.exists():
        print(" ".join(how), file=sys.stderr, flush=True)
        run_to_its_end([sys.executable, "-m", "purejaxdqn.train", *how])
    return dict(json.loads(summary.read_text(encoding="utf-8")))


def run_to_its_end(command: Sequence[str]) -> None:
    """Run a command that may take its time to stop, as training does: SIGINT and SIGTERM are its own to answer.

    Raises:
      SystemExit: with its exit code, if that is not 0.
    """
    # In a session of its own, so that a signal to all processes of this one does not reach it twice: at a second one
    # training stops without a checkpoint.
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: process.send_signal(number)) for number in numbers]
    try:
        code = process.wait()
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def machine() -> str:
    """The processor's name, its family and model where they are known, and how many cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line]
        about = {key.strip(): value.strip() for key, value in lines}
        name = about.get("model name", name)
        if {"cpu family", "model"} <= about.keys():  # a virtual machine's name says little
            name += f" (family {about['cpu family']}, model {about['model']})"
    return f"{name}, {cores} cores"


def commit() -> str:
    """The commit of this checkout, with ``-dirty`` where anything but results was changed."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("diff", "--name-only", "HEAD", "--", ".", f":!{RESULTS.relative_to(ROOT)}")
    return git("describe", "--always", "--exclude=*") + ("-dirty" if changed else "")


def _text(value: Any) -> str:
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
