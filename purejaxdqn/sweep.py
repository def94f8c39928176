"""``python -m purejaxdqn.sweep --config CONFIG --seeds N key=v1,v2 ...``: many settings, many seeds, few programs."""

import argparse
import contextlib
from collections.abc import Sequence
from typing import Any

import purejaxdqn.system.imports  # noqa: F401  (first)
from purejaxdqn.config.shipped import note_of_default_environment
from purejaxdqn.sweeps.command_line import parser, read_candidates
from purejaxdqn.sweeps.distributed import join_processes
from purejaxdqn.sweeps.points import check_points, describe_moves, find_idle_keys, read_points
from purejaxdqn.system.directories import default_directory
from purejaxdqn.system.faults import UserError, run_command
from purejaxdqn.system.messages import announce
from purejaxdqn.system.options import check_at_least, parse_memory
from purejaxdqn.system.runtime import configure_cpu_for, start_jax, use_compilation_cache
from purejaxdqn.system.status import Status


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_intermixed_args(argv)
    compared = [name for name in (arguments.configs or "").split(",") if name]
    candidates = read_candidates(arguments, compared)
    drafts = read_points(candidates)
    seeds = arguments.seeds if arguments.seeds is not None else drafts[0].config.num_seeds
    check_at_least(argparse.Namespace(seeds=seeds, devices=arguments.devices), seeds=1, devices=1)
    memory = parse_memory(arguments.memory)
    configure_cpu_for(*(draft.config for draft in drafts), runs=seeds * len(drafts), devices=arguments.devices)
    with Status("waiting for all processes" if arguments.coordinator else "starting JAX", quiet=arguments.quiet):
        process, processes = join_processes(arguments)  # after the devices are set, before JAX starts
        start_jax()
    if any(word.partition("=")[0] == "num_seeds" for candidate in candidates for word in candidate.overrides):
        raise UserError("num_seeds: a sweep takes its seeds from --seeds")
    with Status("checking the points", quiet=arguments.quiet):
        points = check_points(candidates, drafts)
    if process == 0:
        words = [word for candidate in candidates for word in candidate.overrides]
        notes = [note_of_default_environment(drafts[0].config), *describe_moves(drafts)]
        announce(notes, find_idle_keys(points, words))
    if not arguments.no_cache:
        use_compilation_cache()
    with Status("loading", quiet=arguments.quiet):
        from purejaxdqn.sweeps.results import table
        from purejaxdqn.sweeps.runner import SweepOptions, run_sweep

    options = SweepOptions(seeds, memory, arguments.devices, arguments.quiet, process, processes)
    names = ["sweep", *(arguments.config or ()), *compared]
    with contextlib.ExitStack() as made:
        folder = arguments.out or made.enter_context(default_directory(names))
        results = run_sweep(points, folder, options, draw=_draw)
    if results is None:
        return 0
    print(table(results))
    print(folder)
    return 3 if all(one.diverged == len(one.scores) for one in results) else 0


def _draw(*sweep: Any) -> None:
    from purejaxdqn.pictures.sweeps import draw_sweep  # Matplotlib: late, as it loads slowly

    draw_sweep(*sweep)


if __name__ == "__main__":
    run_command(main)
