"""Shared code of the benchmark scripts: worker processes, options, tables, and the files in ``results/``."""

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
from purejaxdqn.system.git import run_git

ROOT = Path(__file__).parents[1]

_UNSET = ("NPROC", "XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "OMP_NUM_THREADS")


def start(
    module: str, task: Mapping[str, Any], *, env: Mapping[str, str] | None = None, python: str = sys.executable
) -> subprocess.Popen[str]:
    """Start ``python -m module --worker TASK`` in a new process; ``task`` is passed as JSON, ``env`` is added."""
    return subprocess.Popen(
        [python, "-m", module, "--worker", json.dumps(task)],
        cwd=ROOT,
        env={**clean_environment(), **(env or {})},
        stdout=subprocess.PIPE,
        text=True,
    )


def clean_environment() -> dict[str, str]:
    """Return this process's environment without the variables that would change what is measured."""
    return {name: value for name, value in os.environ.items() if name not in _UNSET}


def answer(process: subprocess.Popen[str], *, timeout: float | None = None) -> dict[str, Any]:
    """Wait for a worker and return the JSON object on its last line of output.

    Raises:
      subprocess.TimeoutExpired: it took longer than ``timeout`` seconds, and was killed.
      SystemExit: it failed.
    """
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
    """An argument parser whose help is the script's docstring, and whose errors are one line."""

    def __init__(self, doc: str | None) -> None:
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with code 2."""
        self.exit(2, f"error: {message} (see --help)\n")


def parser(doc: str, *, quick: str, rounds: int | None = None) -> Options:
    """Return a parser with the options that the measuring scripts share.

    Args:
      doc: docstring of the script.
      quick: help text of ``--quick``: what it measures.
      rounds: default of ``--rounds``, how often everything is measured in turn; None adds no such option.
    """
    common = Options(doc)
    common.add_argument("--quick", action="store_true", help=quick)
    if rounds is not None:
        common.add_argument(
            "--rounds", type=positive, default=rounds, help=f"how often to measure everything (default {rounds})"
        )
    common.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    return common


def positive(text: str) -> int:
    """Parse a whole number of 1 or more, for an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return int(text)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows, which share the first row's keys, as a Markdown table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([text_of(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(name: str, rows: Sequence[Mapping[str, Any]], *, of: str | None = None) -> Path:
    """Write rows to ``results/<name>.csv``, machine, Python and commit to ``.json``, and draw the picture, if any.

    Args:
      name: name of the table.
      rows: the rows, which share the first row's keys.
      of: name of the results that the table was computed from; machine, Python and commit are copied from theirs.

    Returns:
      Path of the CSV file.
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
    """Yield a directory for runs: ``out``, or a temporary one if that is None."""
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch) if out is None else out.resolve()


def train(configs: Sequence[str], overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Train with the command, or resume the run in ``folder``; return the finished run's summary.

    Raises:
      SystemExit: ``folder`` has a run of another config, or training exits with a code other than 0.
    """
    import jax

    from purejaxdqn.config.reading import CONFIG_FILE, read_config

    begun = folder / CONFIG_FILE
    options = [option for config in configs for option in ("--config", config)]
    how = [*options, *overrides, "--quiet", "--out", str(folder)]
    if begun.exists():
        jax.config.update("jax_platforms", "cpu")  # checking a config starts JAX, which would reserve a GPU's memory
        if read_config((str(begun),), ()).checked() != read_config(configs, overrides).checked():
            print(f"error: {folder} has a run of another config; move it, or choose another --out", file=sys.stderr)
            raise SystemExit(2)
        how = ["--resume", str(folder), "--quiet"]
    summary = folder / "summary.json"
    if not summary.exists():
        print(" ".join(how), file=sys.stderr, flush=True)
        run_to_its_end([sys.executable, "-m", "purejaxdqn.train", *how])
    return dict(json.loads(summary.read_text(encoding="utf-8")))


def run_to_its_end(command: Sequence[str]) -> None:
    """Run a command, forward SIGINT and SIGTERM to it, and wait until it ends (training first writes a checkpoint).

    Raises:
      SystemExit: its exit code is not 0; raised with that code.
    """
    # In a session of its own, because a signal to this process's group would reach it twice, and on a second signal
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
    """Return the processor's name, its family and model if known, and the number of cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line]
        about = {key.strip(): value.strip() for key, value in lines}
        name = about.get("model name", name)
        if {"cpu family", "model"} <= about.keys():  # virtual machines often share one generic name
            name += f" (family {about['cpu family']}, model {about['model']})"
    return f"{name}, {cores} core{'' if cores == 1 else 's'}"


def commit() -> str:
    """Return the commit of this checkout, with ``-dirty`` if files other than results have changed."""

    def git(*arguments: str) -> str:
        return run_git(ROOT, *arguments).stdout.decode().strip()

    changed = git("diff", "--name-only", "HEAD", "--", ".", f":!{RESULTS.relative_to(ROOT)}")
    return git("describe", "--always", "--exclude=*") + ("-dirty" if changed else "")


def text_of(value: Any) -> str:
    """Return a cell of a table as text: a float with three digits, or whole."""
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
