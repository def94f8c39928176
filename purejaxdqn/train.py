"""``python -m purejaxdqn.train --config CONFIG [--out DIR] [key=value ...]``: train, and leave a run directory."""

import time

_START = time.perf_counter()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import purejaxdqn
import purejaxdqn.system.imports
from purejaxdqn.config.reading import Draft, read_config, to_yaml
from purejaxdqn.config.trust import check_trust
from purejaxdqn.core.config import Config
from purejaxdqn.runs.kept import take_over
from purejaxdqn.runs.resuming import read_end, read_run
from purejaxdqn.system.directories import default_directories
from purejaxdqn.system.faults import UserError, run_command
from purejaxdqn.system.messages import tell
from purejaxdqn.system.options import Parser, add_training_options, add_trust_option, check_at_least, path_of
from purejaxdqn.system.runtime import configure_cpu_for, start_jax, use_compilation_cache


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
    add_training_options(parser, out=out, overrides=("key=value", "dotted keys, YAML values"))
    parser.add_argument("--resume", type=path_of, metavar="RUN_DIR", help="resume; total_timesteps=... extends the run")
    add_trust_option(parser)
    parser.add_argument("--log", action="append", metavar="NAME", help="tensorboard or wandb, besides metrics.csv")
    parser.add_argument("--segments", type=int, metavar="N", help="calls of the compiled program (default about 20)")
    parser.add_argument("--seeds-at-once", type=int, metavar="N", help="seeds vmapped together on a device")
    parser.add_argument("--debug-nans", action="store_true", help="say which operation gave the first NaN, and stop")
    parser.add_argument("--print-config", action="store_true", help="show the resolved config and exit")
    parser.add_argument("--list-configs", action="store_true", help="show the shipped configs, a line each, and exit")
    parser.add_argument("--version", action="version", version=purejaxdqn.__version__)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_intermixed_args(argv)
    if arguments.list_configs:
        from purejaxdqn.config.shipped import list_configs

        print("\n".join(list_configs()).rstrip())
        return 0
    draft = _read(arguments)
    if arguments.resume and not draft.lines and not draft.faults:
        diverged = read_end(arguments.resume, draft.config)
        if diverged is not None:
            what = "every seed diverged" if all(diverged) else "total_timesteps=... extends it"
            tell(f"{arguments.resume} is finished; {what}")
            return 3 if all(diverged) else 0
    configure_cpu_for(draft.config)
    start_jax()
    keep = not arguments.no_cache and not arguments.print_config and take_over(draft.config)
    if arguments.resume:
        check_trust(arguments.resume, draft.unchecked(), trust=arguments.trust)
    config = draft.checked()
    from purejaxdqn.config.checks import find_warnings
    from purejaxdqn.config.shipped import note_of_default_environment

    for line in (None if arguments.resume else note_of_default_environment(draft.config), draft.moves):
        if line:
            tell(line)
    for warning in find_warnings(draft.config):
        tell(f"warning: {warning}")
    if arguments.print_config:
        print(to_yaml(config), end="")
        return 0
    return _train(config, arguments, keep=keep)


def _read(arguments: argparse.Namespace) -> Draft:
    """The config that the command line describes."""
    if not arguments.config and not arguments.resume:
        raise UserError("--config is missing; --list-configs shows the shipped ones")
    if arguments.resume and (arguments.config or arguments.out):
        raise UserError("--resume: a run keeps its own config and directory; leave out --config and --out")
    check_at_least(arguments, segments=1, seeds_at_once=1)
    logs = [f"log=[{','.join(['csv', *arguments.log])}]"] if arguments.log else []
    overrides = [*arguments.overrides, *logs]
    return read_run(arguments.resume, overrides) if arguments.resume else read_config(arguments.config, overrides)


def _train(config: Config, arguments: argparse.Namespace, *, keep: bool) -> int:
    """Train and print the results; returns the exit code."""
    from purejaxdqn.runs import opening, runner
    from purejaxdqn.runs.loggers import check_loggers
    from purejaxdqn.runs.memory import check_memory
    from purejaxdqn.system.signals import StopSignals

    check_loggers(config)
    check_memory(config)
    if not arguments.no_cache:
        use_compilation_cache()
    if arguments.resume:
        opened_run = opening.reopen_run(arguments.resume, config, segments=arguments.segments)
    else:
        folders = [arguments.out] if arguments.out else default_directories(arguments.config)
        opened_run = opening.open_run(folders, config, segments=arguments.segments)
    options = runner.RunOptions(
        arguments.seeds_at_once,
        arguments.debug_nans,
        arguments.quiet,
        prepare=_import_for_the_end,
        keep=keep,
    )
    try:
        with opened_run as opened, StopSignals() as stop:
            took = time.perf_counter() - _START
            summary = runner.run(opened, options, stop, draw=_draw, import_seconds=took)
    except runner.FoundNan as found:
        tell(str(found))
        return 1
    _print_results(config, summary)
    print(opened.folder)
    return 3 if all(summary["diverged"]) else 0


def _import_for_the_end() -> None:
    """Import what a run needs after its last segment, and what loads slowly: Matplotlib and SciPy."""
    from purejaxdqn.pictures import run_directory  # noqa: F401
    from purejaxdqn.runs import statistics  # noqa: F401


def _draw(folder: Path, metrics: Any, config: Config) -> None:
    from purejaxdqn.pictures.run_directory import draw_run  # Matplotlib: late, as it loads slowly

    draw_run(folder, metrics, config)


def _print_results(config: Config, summary: dict[str, Any]) -> None:
    from purejaxdqn.runs.statistics import spread_in_words  # SciPy: late, as it loads slowly

    around = spread_in_words(summary["final_eval_return"], digits=".1f")
    score = "not finite" if summary["iqm"] is None else f"{summary['iqm']:.1f}{around}"
    score += f", IQM of {config.num_seeds} seeds" if around else ""
    print(f"ran in {summary['run_seconds']:.1f} s, {summary['env_steps_per_second']:,} environment steps a second")
    print(f"greedy return over {config.evaluation.final_episodes} episodes: {score}")
    for seed_index, step in enumerate(summary["diverged_step"]):
        if step is not None:
            print(f"seed {seed_index} diverged, seen at step {step}", file=sys.stderr)


class _Command(ModuleType):
    """This module, which hides the function ``purejaxdqn.train`` once it is imported, and so can be called like it."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from purejaxdqn.api import train

        return train(*arguments, **options)


if __name__ == "__main__":
    run_command(main)
else:
    sys.modules[__name__].__class__ = _Command
