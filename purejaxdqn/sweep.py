"""``python -m purejaxdqn.sweep --config CONFIG --seeds N key=v1,v2 ...``: many settings, many seeds, few programs."""

import argparse
import contextlib
from collections.abc import Sequence
from typing import Any

import purejaxdqn.system.imports  # noqa: F401  (first)
from purejaxdqn.config.shipped import note_of_default_environment
from purejaxdqn.sweeps.distributed import add_process_options, join_processes
from purejaxdqn.sweeps.points import (
    Candidate,
    check_count,
    check_points,
    describe_moves,
    drawn_candidates,
    find_idle_keys,
    grid_candidates,
    read_points,
    refuse_both,
)
from purejaxdqn.sweeps.spaces import draw_shares, read_space
from purejaxdqn.system.directories import default_directory
from purejaxdqn.system.faults import UserError, run_command
from purejaxdqn.system.messages import tell
from purejaxdqn.system.options import (
    Parser,
    add_machine_options,
    add_training_options,
    check_at_least,
    name_of,
    parse_memory,
)
from purejaxdqn.system.runtime import configure_cpu_for, start_jax, use_compilation_cache


def parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m purejaxdqn.sweep",
        description="Train many settings with many seeds.",
        examples=(
            "--config cartpole --seeds 10 optimizer.learning_rate=3e-4,1e-3,3e-3",
            "--config cartpole --configs dqn,double_dqn,rainbow --seeds 10",
            "--config cartpole --space search/dqn --points 64 --seeds 3",
        ),
    )
    out = "directory (default runs/sweep+<config>/<timestamp>); that of a stopped sweep is resumed"
    add_training_options(parser, out=out, overrides=("key=v1,v2", "dotted keys, YAML values, all combinations"))
    parser.add_argument("--configs", metavar="A,B", help="compare these, each on top of --config")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds of each point (default: the config's num_seeds)")
    parser.add_argument("--space", type=name_of, metavar="FILE", help="ranges to draw points from (--points)")
    parser.add_argument("--points", type=int, metavar="N", help="number of points to draw")
    parser.add_argument("--draw", choices=("sobol", "random"), default="sobol", help="how to draw them")
    parser.add_argument("--draw-seed", type=int, default=0, metavar="N", help="seed of the draws")
    add_machine_options(parser)
    add_process_options(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_intermixed_args(argv)
    compared = [name for name in (arguments.configs or "").split(",") if name]
    candidates = _candidates(arguments, compared)
    drafts = read_points(candidates)
    seeds = arguments.seeds if arguments.seeds is not None else drafts[0].config.num_seeds
    check_at_least(argparse.Namespace(seeds=seeds, devices=arguments.devices), seeds=1, devices=1)
    memory = parse_memory(arguments.memory)
    configure_cpu_for(*(draft.config for draft in drafts), runs=seeds * len(drafts), devices=arguments.devices)
    process, processes = join_processes(arguments)  # after the devices are set, before JAX starts
    start_jax()
    if any(word.partition("=")[0] == "num_seeds" for candidate in candidates for word in candidate.overrides):
        raise UserError("num_seeds: a sweep takes its seeds from --seeds")
    points = check_points(candidates, drafts)
    if process == 0:
        note = note_of_default_environment(drafts[0].config)
        for line in [*([note] if note else []), *describe_moves(drafts)]:
            tell(line)
        words = [word for candidate in candidates for word in candidate.overrides]
        for line in find_idle_keys(points, words):
            tell(f"warning: {line}")
    if not arguments.no_cache:
        use_compilation_cache()
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


def _candidates(arguments: argparse.Namespace, compared: Sequence[str]) -> list[Candidate]:
    """The points that the command line describes."""
    if not arguments.config and not compared:
        raise UserError("--config is missing; python -m purejaxdqn.train --list-configs shows the shipped ones")
    if (arguments.space is None) != (arguments.points is None):
        raise UserError("--space and --points go together: a file of ranges, and how many points to draw from it")
    if arguments.space is None:
        return grid_candidates(arguments.config or [], arguments.overrides, compared)
    if compared:
        raise UserError("--configs and --space exclude each other")
    check_at_least(arguments, points=1, draw_seed=0)
    check_count(arguments.points, option="--points: ")
    space = read_space(arguments.space)
    refuse_both(arguments.overrides, space, how="drawn from --space")
    shares = draw_shares(arguments.points, len(space), method=arguments.draw, seed=arguments.draw_seed)
    return drawn_candidates(arguments.config, arguments.overrides, space, shares)


def _draw(*sweep: Any) -> None:
    from purejaxdqn.pictures.sweeps import draw_sweep  # Matplotlib: late, as it loads slowly

    draw_sweep(*sweep)


if __name__ == "__main__":
    run_command(main)
