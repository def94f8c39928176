"""``python -m purejaxdqn.train --config CONFIG [--out DIR] [key=value ...]``: train, and leave a run directory."""

import time

_START = time.perf_counter()

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import purejaxdqn
from purejaxdqn.config.reading import read_config, shipped_configs, to_yaml
from purejaxdqn.core.config import Config
from purejaxdqn.runs.resuming import read_end, read_run
from purejaxdqn.system.faults import Parser, UserError, run_command
from purejaxdqn.system.runtime import configure_cpu_for, use_compilation_cache


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m purejaxdqn.train", description="Train DQN agents in one XLA program.")
    parser.add_argument("--config", action="append", metavar="CONFIG", help="path or shipped name; later ones win")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run directory (default runs/<config>/<timestamp>)")
    parser.add_argument("--resume", type=Path, metavar="RUN_DIR", help="go on; total_timesteps=... may extend the run")
    parser.add_argument("--log", action="append", metavar="NAME", help="tensorboard or wandb, beside metrics.csv")
    parser.add_argument("--segments", type=int, metavar="N", help="calls of the compiled program (default about 20)")
    parser.add_argument("--seeds-at-once", type=int, metavar="N", help="seeds vmapped together on a device")
    parser.add_argument("--debug-nans", action="store_true", help="say which operation gave the first NaN, and stop")
    parser.add_argument("--no-cache", action="store_true", help="do not keep compiled programs on disk")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--print-config", action="store_true", help="show the resolved config and stop")
    parser.add_argument("--list-configs", action="store_true", help="show the names of the shipped configs and stop")
    parser.add_argument("--version", action="version", version=purejaxdqn.__version__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys, YAML values")
    return parser


class Options(NamedTuple):
    """What the command line says beside the config."""

    out: Path | None  # the run directory; None takes one by the time
    names: list[str]  # of the configs
    resume: Path | None  # the directory of a run to go on with
    segments: int | None
    seeds_at_once: int | None
    debug_nans: bool
    cache: bool
    quiet: bool


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_intermixed_args(argv)
    if arguments.list_configs:
        print("\n".join(shipped_configs()))
        return 0
    _check(arguments)
    logs = [f"log=[{','.join(['csv', *arguments.log])}]"] if arguments.log else []
    overrides = [*arguments.overrides, *logs]
    if arguments.resume:
        draft = read_run(arguments.resume, overrides)
        diverged = None if draft.lines or draft.faults else read_end(arguments.resume, draft.config)
        if diverged is not None:
            lost = all(diverged)
            what = "every seed diverged" if lost else "total_timesteps=... extends it"
            print(f"{arguments.resume} is finished; {what}", file=sys.stderr)
            return 3 if lost else 0
    else:
        draft = read_config(arguments.config, overrides)
    configure_cpu_for(draft.config)
    config = draft.checked()
    from purejaxdqn.config.checks import find_warnings

    for warning in find_warnings(draft.config):
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.print_config:
        print(to_yaml(config), end="")
        return 0
    options = Options(
        out=arguments.out,
        names=arguments.config or [],
        resume=arguments.resume,
        segments=arguments.segments,
        seeds_at_once=arguments.seeds_at_once,
        debug_nans=arguments.debug_nans,
        cache=not arguments.no_cache,
        quiet=arguments.quiet,
    )
    return train(config, options)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what the parser lets through."""
    if not arguments.config and not arguments.resume:
        raise UserError("--config is missing; --list-configs shows the shipped ones")
    if arguments.resume and (arguments.config or arguments.out):
        raise UserError("--resume: a run goes on with its own config in its own directory, without --config and --out")
    for option in ("segments", "seeds_at_once"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')}: {value} must be at least 1")


def train(config: Config, options: Options) -> int:
    """Compile, run, and fill the run directory; returns the exit code."""
    from purejaxdqn.runs import rundir
    from purejaxdqn.runs.debugging import FoundNan
    from purejaxdqn.runs.loggers import check_loggers
    from purejaxdqn.runs.runner import open_run, reopen_run, run
    from purejaxdqn.system.files import StorageError
    from purejaxdqn.system.signals import Stopped, StopSignals

    check_loggers(config)
    if options.cache:
        use_compilation_cache()
    if options.resume:
        opened = reopen_run(options.resume, config, segments=options.segments)
    else:
        folders = [options.out] if options.out else rundir.default_directories(options.names)
        opened = open_run(folders, config, segments=options.segments)
    folder = options.resume
    try:
        with opened as start, StopSignals() as stop:
            folder = start.folder
            finished = run(
                start,
                stop,
                batch_size=options.seeds_at_once,
                debug_nans=options.debug_nans,
                quiet=options.quiet,
                import_seconds=time.perf_counter() - _START,
            )
    except Stopped as stopped:
        print(f"stopped by {stopped}; {_again(folder)} goes on", file=sys.stderr)
        return stopped.exit_code
    except FoundNan as found:
        print(found, file=sys.stderr)
        return 1
    except StorageError as error:
        print(f"error: {error}; when there is room, {_again(folder)} goes on", file=sys.stderr)
        return 1
    _report(config, finished, start.folder)
    return 3 if all(finished["diverged"]) else 0


def _again(folder: Path | None) -> str:
    """The command that goes on with a run."""
    return f"python -m purejaxdqn.train --resume {shlex.quote(str(folder))}"


def _report(config: Config, summary: dict[str, Any], folder: Path) -> None:
    interval = summary["iqm_ci95"]
    spread = f", 95% CI {interval[0]:.1f} to {interval[1]:.1f}, IQM of {config.num_seeds} seeds" if interval else ""
    score = "not finite" if summary["iqm"] is None else f"{summary['iqm']:.1f}{spread}"
    print(f"ran in {summary['run_seconds']:.1f} s, {summary['env_steps_per_second']:,} environment steps a second")
    print(f"greedy return over {config.evaluation.final_episodes} episodes: {score}")
    for seed_index, step in enumerate(summary["diverged_step"]):
        if step is not None:
            print(f"seed {seed_index} diverged, seen at step {step}", file=sys.stderr)
    print(folder)


if __name__ == "__main__":
    run_command(main)
