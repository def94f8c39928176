"""The options of ``purejaxdqn.search``, and the search they describe."""

import argparse

from purejaxdqn.searches.spec import SearchSpec
from purejaxdqn.sweeps.spaces import read_space
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.options import (
    Parser,
    add_machine_options,
    add_training_options,
    check_at_least,
    check_config_option,
    name_of,
    parse_memory,
)


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
    add_training_options(parser, out=out, overrides=("key=value", "config keys with YAML values, for all trials"))
    add_machine_options(parser)
    add = parser.add_argument
    add("--space", type=name_of, metavar="FILE", help="ranges to search: a path or a shipped name (search/dqn.yaml)")
    add("--trials", type=int, default=64, metavar="N", help="trials of the study in total (default 64)")
    add("--seeds", type=int, default=4, metavar="N", help="seeds of each trial (default 4)")
    add("--batch", type=int, default=16, metavar="N", help="trials that are trained at a time (default 16)")
    add("--halving", type=int, metavar="FACTOR", help="successive halving: one trial in FACTOR continues at each rung")
    add(
        "--rungs",
        type=int,
        metavar="N",
        help="number of rungs (default 3; with --halving 2 at 1/8, 1/4 and 1/2 of a run)",
    )
    add("--sampler", choices=("tpe", "gp", "random"), default="tpe", help="the sampler that proposes trials")
    add(
        "--objective",
        choices=("final", "auc"),
        default="final",
        help="score: the final greedy return, or its mean over the run (auc)",
    )
    add("--retest", type=int, default=30, metavar="N", help="fresh seeds for testing the best point (default 30)")
    add("--storage", metavar="URL", help="Optuna storage, for sharing a study (default DIR/study.log)")
    add("--study", default="purejaxdqn", metavar="NAME", help="the study's name in the storage")
    return parser


def read_spec(arguments: argparse.Namespace) -> SearchSpec:
    """The search that the command line describes."""
    check_config_option(arguments.config)
    if not arguments.space:
        raise UserError("--space is missing; give a YAML file of ranges, such as the shipped search/dqn.yaml")
    check_at_least(arguments, trials=1, seeds=1, batch=1, retest=1, devices=1)
    if arguments.halving is None and arguments.rungs is not None:
        raise UserError("--rungs needs --halving, which is missing")
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
