"""``python -m purejaxdqn.search --config CONFIG --space FILE --trials N``: Bayesian search, a batch at a time."""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

import purejaxdqn.system.imports  # noqa: F401  (first)
from purejaxdqn.config.reading import read_config
from purejaxdqn.config.shipped import note_of_default_environment
from purejaxdqn.core.config import Config
from purejaxdqn.searches.spec import SearchSpec, check_edges, read_edges
from purejaxdqn.sweeps.points import find_idle_keys
from purejaxdqn.sweeps.spaces import read_space
from purejaxdqn.system.directories import default_directory, how_to_resume
from purejaxdqn.system.faults import UserError, drawing, resumable, run_command
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
        prog="python -m purejaxdqn.search",
        description="Search for hyper-parameters with Optuna.",
        examples=(
            "--config cartpole --space search/dqn --trials 64 --seeds 5",
            "--config cartpole --space search/dqn --trials 64 --batch 16 --halving 2 --out runs/mine",
        ),
    )
    out = "directory (default runs/search+<config>/<timestamp>); that of a stopped search is resumed"
    add_training_options(parser, out=out, overrides=("key=value", "dotted keys, YAML values, for each trial"))
    add_machine_options(parser)
    add = parser.add_argument
    add("--space", type=name_of, metavar="FILE", help="ranges to search: a path or a shipped name (search/dqn.yaml)")
    add("--trials", type=int, default=64, metavar="N", help="trials of the study in total (default 64)")
    add("--seeds", type=int, default=4, metavar="N", help="seeds of each trial (default 4)")
    add("--batch", type=int, default=16, metavar="N", help="trials at a time (default 16)")
    add("--halving", type=int, metavar="FACTOR", help="successive halving: one trial in FACTOR continues at each rung")
    add(
        "--rungs",
        type=int,
        metavar="N",
        help="number of rungs (default 3; with --halving 2 at 1/8, 1/4 and 1/2 of a run)",
    )
    add("--sampler", choices=("tpe", "gp", "random"), default="tpe", help="what proposes trials")
    add("--objective", choices=("final", "auc"), default="final", help="the score is the IQM of this over seeds")
    add("--retest", type=int, default=30, metavar="N", help="fresh seeds for the best point (default 30)")
    add("--storage", metavar="URL", help="Optuna's storage, to share a study (default DIR/study.log)")
    add("--study", default="purejaxdqn", metavar="NAME", help="the study's name in the storage")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_intermixed_args(argv)
    spec = _spec(arguments)
    candidates, drafts = read_edges(spec)
    configure_cpu_for(*(draft.config for draft in drafts), runs=spec.seeds * spec.batch, devices=spec.devices)
    start_jax()
    idle = find_idle_keys(check_edges(spec, candidates, drafts), spec.overrides)
    base = read_config(list(spec.sources), spec.overrides)
    notes = [line for line in (note_of_default_environment(base.config), base.moves) if line]
    for line in [*notes, *(f"warning: {line}" for line in idle)]:
        tell(line)
    if not arguments.no_cache:
        use_compilation_cache()
    with contextlib.ExitStack() as made:
        folder = spec.out or made.enter_context(default_directory(["search", *spec.sources]))
        return search(spec, base.config, folder)


def _spec(arguments: argparse.Namespace) -> SearchSpec:
    """The search that the command line describes."""
    if not arguments.config:
        raise UserError("--config is missing; python -m purejaxdqn.train --list-configs shows the shipped ones")
    if not arguments.space:
        raise UserError("--space is missing: a YAML of ranges, as the shipped search/dqn.yaml")
    check_at_least(arguments, trials=1, seeds=1, batch=1, retest=1, devices=1)
    if arguments.halving is None and arguments.rungs is not None:
        raise UserError("--rungs: only --halving has rungs, and it is missing")
    check_at_least(arguments, halving=2, rungs=1)
    same = ("trials", "seeds", "batch", "sampler", "objective", "retest", "storage", "study", "out", "devices", "quiet")
    return SearchSpec(
        sources=tuple(arguments.config),
        overrides=tuple(arguments.overrides),
        space=read_space(arguments.space),
        halving=(arguments.halving, arguments.rungs or 3) if arguments.halving else None,
        memory=parse_memory(arguments.memory),
        **{name: getattr(arguments, name) for name in same},
    )


def search(spec: SearchSpec, base: Config, folder: Path) -> int:
    """Run the search, draw its pictures and print its table; returns the exit code."""
    from purejaxdqn.searches.directory import SEARCH_FILE
    from purejaxdqn.searches.runner import most_common_reason, run_search
    from purejaxdqn.searches.tables import table

    with resumable(how_to_resume(folder), label=folder / SEARCH_FILE):
        study, best, retest = run_search(spec, base, folder)
    if best is None or retest is None:
        tell(f"every trial failed; most often: {most_common_reason(study)}")
        return 3

    with drawing(folder):
        from purejaxdqn.pictures.searches import draw_search  # Matplotlib: late, as it loads slowly

        draw_search(folder, study, spec.space, objective=spec.objective)
    print(table(study))
    from purejaxdqn.runs.statistics import spread_in_words  # SciPy: late, as it loads slowly

    around = spread_in_words(retest["final_eval_return"])
    score = "not finite" if retest["iqm"] is None else f"{retest['iqm']:.4g}{around}"
    print(f"trial {best.number} on {spec.retest} fresh seeds: greedy return {score}")
    print(folder)
    return 0


if __name__ == "__main__":
    run_command(main)
