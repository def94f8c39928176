"""``python -m purejaxdqn.sweep --config CONFIG --seeds N key=v1,v2 ...``: many settings, many seeds, few programs."""

import contextlib
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purejaxdqn.config.reading import Draft
from purejaxdqn.sweeps.distributed import add_devices_option, add_process_options, join_processes
from purejaxdqn.sweeps.points import (
    Candidate,
    Point,
    check_points,
    draw_shares,
    drawn_candidates,
    find_idle_keys,
    grid_candidates,
    read_points,
    read_space,
    refuse_both,
)
from purejaxdqn.system.faults import Parser, UserError, run_command
from purejaxdqn.system.runtime import configure_cpu_for, use_compilation_cache

if TYPE_CHECKING:
    from purejaxdqn.sweeps.pieces import Work
    from purejaxdqn.system.signals import StopSignals


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m purejaxdqn.sweep", description="Train many settings with many seeds.")
    parser.add_argument("--config", action="append", metavar="CONFIG", help="path or shipped name; later ones win")
    parser.add_argument("--configs", metavar="A,B", help="compare these, each laid over --config")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds of every point (default: the config's num_seeds)")
    parser.add_argument("--space", metavar="FILE", help="ranges to draw points from (--points)")
    parser.add_argument("--points", type=int, metavar="N", help="how many points to draw")
    parser.add_argument("--draw", choices=("sobol", "random"), default="sobol", help="how to draw them")
    parser.add_argument("--draw-seed", type=int, default=0, metavar="N", help="seed of the draws")
    parser.add_argument("--out", type=Path, metavar="DIR", help="directory; one of a killed sweep is gone on with")
    parser.add_argument("--memory", metavar="SIZE", help="most memory to use, as in 4GiB")
    parser.add_argument("--no-cache", action="store_true", help="do not keep compiled programs on disk")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_devices_option(parser)
    add_process_options(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=v1,v2", help="dotted keys, YAML values, all combinations")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_intermixed_args(argv)
    candidates = _candidates(arguments)
    drafts = read_points(candidates)
    seeds = arguments.seeds if arguments.seeds is not None else drafts[0].config.num_seeds
    if seeds < 1:
        raise UserError(f"--seeds: {seeds} must be at least 1")
    if arguments.devices is not None and arguments.devices < 1:
        raise UserError(f"--devices: {arguments.devices} must be at least 1")
    from purejaxdqn.sweeps.pieces import parse_memory

    memory = parse_memory(arguments.memory) if arguments.memory else None
    configure_cpu_for(*(draft.config for draft in drafts), runs=seeds * len(drafts), devices=arguments.devices)
    process, processes = join_processes(arguments)  # after the devices are set, before JAX starts
    points = _checked(candidates, drafts)
    for line in find_idle_keys(points) if process == 0 else ():
        _warn(line)
    if not arguments.no_cache:
        use_compilation_cache()
    return sweep(
        points,
        seeds=seeds,
        out=arguments.out,
        names=[name for name in (*(arguments.config or ()), *(arguments.configs or "").split(",")) if name],
        memory=memory,
        share=(process, processes),
        devices=arguments.devices,
        quiet=arguments.quiet,
    )


def _candidates(arguments: object) -> list[Candidate]:
    config, configs, space, count = (getattr(arguments, name) for name in ("config", "configs", "space", "points"))
    overrides: list[str] = arguments.overrides  # type: ignore[attr-defined]
    if not config and not configs:
        raise UserError("--config is missing; python -m purejaxdqn.train --list-configs shows the shipped ones")
    if (space is None) != (count is None):
        raise UserError("--space and --points go together: a file of ranges, and how many points to draw from it")
    if space is None:
        return grid_candidates(config or [], overrides, [name for name in (configs or "").split(",") if name])
    if configs:
        raise UserError("--configs and --space exclude each other")
    if count < 1:
        raise UserError(f"--points: {count} must be at least 1")
    if arguments.draw_seed < 0:  # type: ignore[attr-defined]
        raise UserError(f"--draw-seed: {arguments.draw_seed} must be at least 0")  # type: ignore[attr-defined]
    ranges = read_space(space)
    refuse_both(overrides, ranges, how="drawn from --space")
    shares = draw_shares(count, len(ranges), method=arguments.draw, seed=arguments.draw_seed)  # type: ignore[attr-defined]
    return drawn_candidates(config, overrides, ranges, shares)


def _checked(candidates: Sequence[Candidate], drafts: Sequence[Draft]) -> list[Point]:
    for candidate in candidates:
        if {"num_seeds"} & {word.partition("=")[0] for word in candidate.overrides}:
            raise UserError("num_seeds: a sweep takes its seeds from --seeds")
    return check_points(candidates, drafts)


def sweep(
    points: Sequence[Point],
    *,
    seeds: int,
    out: Path | None,
    names: Sequence[str],
    memory: int | None,
    share: tuple[int, int],
    devices: int | None,
    quiet: bool,
) -> int:
    """Train what is missing of a sweep and write its directory; returns the exit code.

    Args:
      points: what to try.
      seeds: of every point.
      out: the directory.
      names: of the configs, for the directory's default name.
      memory: bytes to use at most.
      share: the number of this process, and how many share the work.
      devices: how many to use; all unless given.
      quiet: say less.
    """
    from purejaxdqn.runs.rundir import default_directory
    from purejaxdqn.system.signals import Stopped, StopSignals

    with contextlib.ExitStack() as held:  # the directory, until its last picture is drawn
        folder = out or held.enter_context(default_directory(["sweep", *names]))
        try:
            with StopSignals() as stop:
                _train(points, seeds, folder, held, memory=memory, share=share, devices=devices, quiet=quiet, stop=stop)
        except Stopped as stopped:
            print(f"stopped by {stopped}; the same command with --out {folder} goes on", file=sys.stderr)
            return stopped.exit_code
        except (OSError, MemoryError, RuntimeError) as error:
            error.add_note(f"the same command with --out {folder} goes on")  # ``run_command`` says it
            raise
        return _finish(folder, points) if share[0] == 0 else 0


def _train(
    points: Sequence[Point],
    seeds: int,
    folder: Path,
    held: contextlib.ExitStack,
    *,
    memory: int | None,
    share: tuple[int, int],
    devices: int | None,
    quiet: bool,
    stop: "StopSignals",
) -> None:
    """Train what is missing of this process's share, in a directory that is ``held`` from here on; see ``sweep``."""
    from purejaxdqn.runs.progress import SweepProgress
    from purejaxdqn.runs.rundir import provenance, write_summary
    from purejaxdqn.sweeps import sweeps
    from purejaxdqn.sweeps.pieces import plan_work

    process, processes = share
    runs = sweeps.all_runs(points, seeds)
    description = sweeps.describe(points, seeds)
    ours = sweeps.directory(folder, description, process=process if processes > 1 else None)
    found = sweeps.check_directory(folder, description, wait=process > 0)
    if found:
        held.enter_context(ours)
    done = sweeps.done_runs(sweeps.load_pieces(folder, _warn)) if found else set()
    # Every process takes its part of all runs, done or not: so they need not agree on what is done.
    mine = [run for place, run in enumerate(runs) if place * processes // len(runs) == process]
    work = plan_work(points, [run for run in mine if run not in done], devices=devices, memory=memory)
    already = f", {len(mine) - work.runs} already done" if len(mine) > work.runs else ""
    print(work.in_words(f"{len(points)} points x {seeds} seeds{already}"), file=sys.stderr)
    if not found:  # only now, as a plan that is refused leaves nothing
        held.enter_context(ours)
    start, compiled = time.perf_counter(), dict[Any, Any]()
    with SweepProgress(work.env_steps, quiet=quiet) as progress:
        train = functools.partial(sweeps.train_work, points, work, check=stop.check, report=progress.update)
        for piece in train(compiled=compiled):
            sweeps.save_piece(folder, piece)
    compiling = sum(training.compile_seconds for training in compiled.values())
    took = _times(work, compiling, time.perf_counter() - start - compiling)
    if process == 0 and work.runs:
        write_summary(folder, {"points": len(points), "seeds": seeds, **took, **provenance(work.devices)})
    if processes > 1 and process == 0:
        sweeps.wait_for_runs(folder, runs, check=stop.check, tell=_tell_of_waiting)


def _tell_of_waiting(missing: int) -> None:
    """Nothing here can know whether a process on another machine is slow or gone."""
    print(
        f"waiting for {missing} runs of the other processes; if one of them has ended, stop this one, and the same "
        "command goes on",
        file=sys.stderr,
    )


def _times(work: "Work", compile_seconds: float, run_seconds: float) -> dict[str, Any]:
    """What the work of this call took, said and as plain values."""
    rate = work.env_steps / run_seconds if work.runs else 0.0
    print(
        f"compiled in {compile_seconds:.1f} s, ran in {run_seconds:.1f} s, {rate:,.0f} environment steps a second",
        file=sys.stderr,
    )
    return {
        "programs": len(work.groups),
        "runs": work.runs,
        "env_steps": work.env_steps,
        "compile_seconds": round(compile_seconds, 3),
        "run_seconds": round(run_seconds, 3),
        "env_steps_per_second": round(rate),
    }


def _finish(folder: Path, points: Sequence[Point]) -> int:
    """Tables and pictures of a sweep whose pieces are all there; returns the exit code."""
    from purejaxdqn.pictures.sweeps import draw_sweep
    from purejaxdqn.sweeps.results import collect, summarise_points, table, write_points, write_results
    from purejaxdqn.sweeps.sweeps import load_pieces

    results = collect(points, load_pieces(folder))
    summaries = summarise_points(points, results)
    write_results(folder, points, results)
    write_points(folder, points, summaries)
    draw_sweep(folder, points, results, summaries)
    print(table(summaries))
    print(folder)
    return 3 if all(result.diverged for result in results) else 0


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
