"""The options of ``purejaxdqn.sweep``, and the points they describe."""

import argparse
from collections.abc import Sequence

from purejaxdqn.sweeps.distributed import add_process_options
from purejaxdqn.sweeps.points import Candidate, check_count, drawn_candidates, grid_candidates, refuse_both
from purejaxdqn.sweeps.spaces import draw_shares, read_space
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.options import (
    Parser,
    add_machine_options,
    add_training_options,
    check_at_least,
    check_config_option,
    name_of,
)


def parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m purejaxdqn.sweep",
        description="Train many settings with many seeds.",
        examples=(
            "--config cartpole --seeds 10 optimizer.learning_rate=3e-4,1e-3,3e-3",
            "--config cartpole_double --configs dqn,double_dqn,rainbow --seeds 10",
            "--config cartpole --space search/dqn --points 64 --seeds 3",
        ),
    )
    out = "directory (default runs/sweep+<config>/<timestamp>); that of a stopped sweep is resumed"
    add_training_options(parser, out=out, overrides=("key=v1,v2", "config keys with YAML values; all combinations"))
    parser.add_argument("--configs", metavar="A,B", help="compare these configs, each applied on top of --config")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds of each point (default: the config's num_seeds)")
    parser.add_argument("--space", type=name_of, metavar="FILE", help="ranges to draw points from (--points)")
    parser.add_argument("--points", type=int, metavar="N", help="number of points to draw from --space")
    parser.add_argument("--draw", choices=("sobol", "random"), default="sobol", help="how to draw the points")
    parser.add_argument("--draw-seed", type=int, default=0, metavar="N", help="random seed of the draws")
    add_machine_options(parser)
    add_process_options(parser)
    return parser


def read_candidates(arguments: argparse.Namespace, compared: Sequence[str]) -> list[Candidate]:
    """The points that the command line describes."""
    check_config_option([*(arguments.config or []), *compared])
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
