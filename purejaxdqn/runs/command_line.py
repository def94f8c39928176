"""The options of ``purejaxdqn.train``, the config they describe, and the lines at its end."""

import argparse
import functools
import sys
from typing import Any

import purejaxdqn
from purejaxdqn.config.reading import Draft, read_config
from purejaxdqn.core.config import Config
from purejaxdqn.runs.resuming import read_run
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.messages import in_figures
from purejaxdqn.system.options import (
    Parser,
    add_training_options,
    add_trust_option,
    check_at_least,
    check_config_option,
    path_of,
)


def parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m purejaxdqn.train",
        description="Train DQN agents in one XLA program.",
        examples=(
            "--config cartpole",
            "--config cartpole --out runs/mine num_seeds=10 optimizer.learning_rate=3e-4",
            "--config minatar/breakout --config rainbow total_timesteps=1e6",
            "--resume runs/mine total_timesteps=400_000",
        ),
    )
    out = "run directory (default runs/<config>/<timestamp>)"
    add_training_options(parser, out=out, overrides=("key=value", "config keys with YAML values"))
    parser.add_argument("--resume", type=path_of, metavar="RUN_DIR", help="resume; total_timesteps=... extends the run")
    add_trust_option(parser)
    segments = "parts of the run: it saves, reports and stops only between two of them (default about 20)"
    at_once = "number of seeds that a device trains together (default: one on a CPU, else all)"
    parser.add_argument("--log", action="append", metavar="NAME", help="also log to tensorboard or wandb")
    parser.add_argument("--segments", type=int, metavar="N", help=segments)
    parser.add_argument("--seeds-at-once", type=int, metavar="N", help=at_once)
    parser.add_argument("--debug-nans", action="store_true", help="stop at the first NaN and name its operation")
    parser.add_argument("--print-config", action="store_true", help="show the resolved config and exit")
    parser.add_argument("--list-configs", action="store_true", help="list the shipped configs in groups, and exit")
    parser.add_argument("--version", action="version", version=purejaxdqn.__version__)
    return parser


def read_draft(arguments: argparse.Namespace) -> Draft:
    """The config that the command line describes."""
    if not arguments.resume:
        check_config_option(arguments.config)
    if arguments.resume and (arguments.config or arguments.out):
        raise UserError("--resume: a run keeps its own config and directory; leave out --config and --out")
    check_at_least(arguments, segments=1, seeds_at_once=1)
    place, read_place = (arguments.resume, read_run) if arguments.resume else (arguments.config, read_config)
    read = functools.partial(read_place, place)
    draft = read(arguments.overrides)
    if not arguments.log:
        return draft
    names = dict.fromkeys(("csv", *draft.config.log, *arguments.log))
    return read([*arguments.overrides, f"log=[{','.join(names)}]"])


def print_results(config: Config, summary: dict[str, Any]) -> None:
    """Print the rate, the score with its spread over seeds, and each seed that diverged."""
    from purejaxdqn.runs.statistics import spread_in_words  # SciPy: late, as it loads slowly

    around = spread_in_words(summary["final_eval_return"])
    score = "not finite" if summary["iqm"] is None else f"{in_figures(summary['iqm'])}{around}"
    score += f", IQM of {config.num_seeds} seeds" if around else ""
    rate = f"{summary['env_steps_per_second']:,} environment steps a second"
    rate += f" of {config.num_seeds} seeds together" if config.num_seeds > 1 else ""
    print(f"ran in {summary['run_seconds']:.1f} s, {rate}")
    print(f"greedy return over {config.evaluation.final_episodes} episodes: {score}")
    for seed_index, step in enumerate(summary["diverged_step"]):
        if step is not None:
            print(f"seed {seed_index} diverged, detected at step {step}", file=sys.stderr)
