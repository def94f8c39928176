"""One sweep: train what is missing of it in its directory, then write its tables."""

import contextlib
import operator
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from purejaxdqn.core.plan import make_plan
from purejaxdqn.policies.summaries import SUMMARY_FILE, write_summary
from purejaxdqn.runs.directory import provenance
from purejaxdqn.runs.memory import check_results
from purejaxdqn.runs.progress import WorkProgress
from purejaxdqn.runs.training import Training
from purejaxdqn.sweeps.directory import (
    SWEEP_FILE,
    check_directory,
    describe,
    done_runs,
    hold_directory,
    load_pieces,
    save_piece,
    wait_for_runs,
)
from purejaxdqn.sweeps.pieces import Work, all_runs, plan_work
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.results import PointResult, RunResult, collect, summarise_points, write_points, write_results
from purejaxdqn.sweeps.stages import Controls, train_stage, whole_runs
from purejaxdqn.system.directories import how_to_resume
from purejaxdqn.system.faults import drawing, resumable
from purejaxdqn.system.files import read_json
from purejaxdqn.system.messages import counted, tell
from purejaxdqn.system.signals import StopSignals
from purejaxdqn.system.status import Status

Draw = Callable[[Path, Sequence[Point], Sequence[RunResult], Sequence[PointResult]], Any]


class SweepOptions(NamedTuple):
    """How a sweep is trained; only ``seeds`` changes the results."""

    seeds: int  # of each point
    memory: int | None  # bytes to use at most
    devices: int | None  # to use at most
    quiet: bool
    process: int = 0  # the number of this process
    processes: int = 1  # that share the sweep


def run_sweep(points: Sequence[Point], folder: Path, options: SweepOptions, *, draw: Draw) -> list[PointResult] | None:
    """Train what is missing of a sweep, write its tables and draw its pictures.

    Args:
      points: of the sweep.
      folder: its directory, which is made if it does not exist.
      options: how to train.
      draw: draws the pictures of a finished sweep into its directory.

    Returns:
      The results of the points; None in a process whose number is not 0, which leaves the tables to process 0.

    Raises:
      Stopped: a signal arrived; finished pieces have been saved.
      UserError: the directory is refused, or a run does not fit in memory.
    """
    with contextlib.ExitStack() as held:  # the directory, until the last picture is drawn
        with resumable(how_to_resume(folder), label=folder / SWEEP_FILE), StopSignals() as stop:
            _train(points, folder, options, held, stop)
        return _finish(points, folder, draw, quiet=options.quiet) if options.process == 0 else None


def _train(
    points: Sequence[Point], folder: Path, options: SweepOptions, held: contextlib.ExitStack, stop: StopSignals
) -> None:
    """Train what is missing of this process's share; ``held`` holds the directory from here on."""
    check_results(len(points) * options.seeds, make_plan(points[0].config).epochs, option="--seeds")
    runs, description = all_runs(points, options.seeds), describe(points, options.seeds)
    ours = hold_directory(folder, description, process=options.process if options.processes > 1 else None)
    with Status("reading what is done", quiet=options.quiet):
        found = check_directory(folder, description, wait=options.process > 0)
        if found:
            held.enter_context(ours)
        done = done_runs(load_pieces(folder, _warn)) if found else set()
    # Each process takes its share of all runs, done or not, so that processes need not agree on which are done.
    mine = [run for place, run in enumerate(runs) if place * options.processes // len(runs) == options.process]
    missing = [run for run in mine if run not in done]
    with Status("planning", quiet=options.quiet):
        work = plan_work(points, missing, devices=options.devices, memory=options.memory)
    already = f", {len(mine) - work.runs} already done" if len(mine) > work.runs else ""
    if not options.quiet:
        about_runs = f"{counted(len(points), 'point')} x {counted(options.seeds, 'seed')}{already}"
        print(work.in_words(about_runs), file=sys.stderr)
    if not found:  # only now: a plan that is refused leaves no directory
        held.enter_context(ours)
    _train_work(points, folder, work, options, stop)
    if options.processes > 1 and options.process == 0:
        with Status("waiting for other processes", quiet=options.quiet):
            wait_for_runs(folder, runs, check=stop.check, tell=_tell_waiting)


def _train_work(points: Sequence[Point], folder: Path, work: Work, options: SweepOptions, stop: StopSignals) -> None:
    """Train all pieces and save each; process 0 updates the summary after each, so that a kill loses one piece."""
    start, compiled, env_steps = time.perf_counter(), dict[Any, Any](), 0
    summary = _Summary.of(points, folder, options, work) if options.process == 0 else None
    with WorkProgress(work.env_steps, quiet=options.quiet) as progress:
        controls = Controls(stop.check, progress.update, compiled, progress.compiling)
        for piece in train_stage(points, work, whole_runs(), controls):
            save_piece(folder, piece)
            env_steps += sum(points[run.point].config.total_timesteps for run in piece.runs)
            if summary:
                summary.write(_Times.since(start, compiled, env_steps))
    times = _Times.since(start, compiled, env_steps)
    if summary and not (folder / SUMMARY_FILE).exists():  # a kill came before it was written, or there is no piece
        summary.write(times)
    if not options.quiet:
        print(
            f"compiled in {times.compiling:.1f} s, ran in {times.running:.1f} s, "
            f"{times.rate or 0:,} environment steps a second of all runs together",
            file=sys.stderr,
        )


class _Times(NamedTuple):
    """What training took, and how much was trained."""

    compiling: float  # seconds
    running: float  # seconds without compiling
    env_steps: float

    @classmethod
    def since(cls, start: float, compiled: Mapping[Any, Training], env_steps: int) -> "_Times":
        compiling = sum(training.compile_seconds for training in compiled.values())
        return cls(compiling, time.perf_counter() - start - compiling, env_steps)

    @property
    def rate(self) -> int | None:
        """Environment steps a second; None if nothing was trained."""
        return round(self.env_steps / self.running) if self.env_steps else None


class _Summary(NamedTuple):
    """Writes ``summary.json``. Its times are those of process 0, in all parts of a sweep that was interrupted."""

    folder: Path
    fixed: dict[str, Any]
    earlier: _Times

    @classmethod
    def of(cls, points: Sequence[Point], folder: Path, options: SweepOptions, work: Work) -> "_Summary":
        fixed = {
            "points": len(points),
            "seeds": options.seeds,
            "programs": len({point.config.static() for point in points}),
            "runs": len(points) * options.seeds,
            "env_steps": options.seeds * sum(point.config.total_timesteps for point in points),
        }
        return cls(folder, {**fixed, **provenance(work.devices)}, _times_before(folder))

    def write(self, times: _Times) -> None:
        total = _Times(*map(operator.add, self.earlier, times))
        took = {
            "compile_seconds": round(total.compiling, 3),
            "run_seconds": round(total.running, 3),
            "env_steps_per_second": total.rate,
        }
        write_summary(self.folder, {**self.fixed, **took})


def _times_before(folder: Path) -> _Times:
    """The times of earlier parts of a sweep; zeros if its summary is missing or damaged."""
    try:
        found = read_json(folder / SUMMARY_FILE)
        compiling, running = float(found["compile_seconds"]), float(found["run_seconds"])
        return _Times(compiling, running, float(found["env_steps_per_second"] or 0) * running)
    except (OSError, ValueError, KeyError, TypeError):
        return _Times(0.0, 0.0, 0.0)


def _finish(points: Sequence[Point], folder: Path, draw: Draw, *, quiet: bool) -> list[PointResult]:
    """Write the tables and draw the pictures of a sweep whose pieces are complete."""
    with Status("writing the tables", quiet=quiet):
        results = collect(points, load_pieces(folder))
        summaries = summarise_points(points, results)
        write_results(folder, points, results)
        write_points(folder, points, summaries)
    with drawing(folder), Status("drawing", quiet=quiet):
        draw(folder, points, results, summaries)
    return summaries


def _tell_waiting(missing: int) -> None:
    """This process cannot know whether a process on another machine is slow or dead, so it tells the user."""
    tell(
        f"waiting for {missing} runs of other processes; if one of these has died, stop this process and run the "
        "same command again"
    )


def _warn(line: str) -> None:
    tell(f"warning: {line}")
