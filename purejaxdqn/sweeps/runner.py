"""One sweep: train what is missing of it in its directory, then write its tables."""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from purejaxdqn.core.plan import make_plan
from purejaxdqn.policies.summaries import SUMMARY_FILE, is_altered, write_summary
from purejaxdqn.runs.directory import provenance
from purejaxdqn.runs.memory import check_results
from purejaxdqn.runs.progress import WorkProgress
from purejaxdqn.runs.training import Training
from purejaxdqn.sweeps.directory import (
    SWEEP_FILE,
    Times,
    check_directory,
    describe,
    done_runs,
    hold_directory,
    load_pieces,
    load_times,
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
    if options.process == 0 and (work.runs or not _has_summary(folder)):
        write_summary(folder, {**_totals(points, folder, options.seeds), **provenance(work.devices)})


def _train_work(points: Sequence[Point], folder: Path, work: Work, options: SweepOptions, stop: StopSignals) -> None:
    """Train all pieces, and save each with the times that it took."""
    start, compiled, before = time.perf_counter(), dict[Any, Any](), Times(0.0, 0.0)
    with WorkProgress(work.env_steps, quiet=options.quiet) as progress:
        controls = Controls(stop.check, progress.update, compiled, progress.compiling)
        for piece in train_stage(points, work, whole_runs(), controls):
            now = _times_since(start, compiled)
            save_piece(folder, piece, Times(now.compiling - before.compiling, now.running - before.running))
            before = now
    times = _times_since(start, compiled)
    rate = work.env_steps / times.running if work.runs else 0.0
    if not options.quiet:
        print(
            f"compiled in {times.compiling:.1f} s, ran in {times.running:.1f} s, "
            f"{rate:,.0f} environment steps a second of all runs together",
            file=sys.stderr,
        )


def _times_since(start: float, compiled: Mapping[Any, Training]) -> Times:
    compiling = sum(training.compile_seconds for training in compiled.values())
    return Times(compiling, time.perf_counter() - start - compiling)


def _totals(points: Sequence[Point], folder: Path, seeds: int) -> dict[str, Any]:
    """Sizes and times of a finished sweep, in however many parts and by however many processes it was trained.

    Pieces of earlier versions have no times; the rate is that of the others.
    """
    timed = list(load_times(folder))
    steps = sum(points[run.point].config.total_timesteps for runs, _ in timed for run in runs)
    seconds = sum(times.running for _, times in timed)
    return {
        "points": len(points),
        "seeds": seeds,
        "programs": len({point.config.static() for point in points}),
        "runs": len(points) * seeds,
        "env_steps": seeds * sum(point.config.total_timesteps for point in points),
        "compile_seconds": round(sum(times.compiling for _, times in timed), 3),
        "run_seconds": round(seconds, 3),
        "env_steps_per_second": round(steps / seconds) if seconds else None,
    }


def _has_summary(folder: Path) -> bool:
    try:
        return not is_altered(read_json(folder / SUMMARY_FILE))
    except (OSError, ValueError, AttributeError):
        return False


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
