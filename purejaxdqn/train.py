"""``python -m purejaxdqn.train --config CONFIG [--out DIR] [key=value ...]``: train, and leave a run directory."""

import time

_START = time.perf_counter()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import purejaxdqn.system.imports  # noqa: F401  (first)
from purejaxdqn.config.reading import to_yaml
from purejaxdqn.config.trust import check_trust
from purejaxdqn.core.config import Config
from purejaxdqn.runs.command_line import parser, print_results, read_draft
from purejaxdqn.runs.kept import take_over
from purejaxdqn.runs.resuming import read_end
from purejaxdqn.system.directories import default_directories
from purejaxdqn.system.faults import run_command
from purejaxdqn.system.messages import announce, tell
from purejaxdqn.system.runtime import configure_cpu_for, start_jax, use_compilation_cache
from purejaxdqn.system.status import Status


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_intermixed_args(argv)
    if arguments.list_configs:
        from purejaxdqn.config.shipped import list_configs

        print("\n".join(list_configs()).rstrip())
        return 0
    draft = read_draft(arguments)
    if arguments.resume and not draft.lines and not draft.faults:
        diverged = read_end(arguments.resume, draft.config)
        if diverged is not None:
            what = "every seed diverged" if all(diverged) else "total_timesteps=... extends it"
            tell(f"{arguments.resume} is finished; {what}")
            return 3 if all(diverged) else 0
    with Status("checking the config", quiet=arguments.quiet):
        configure_cpu_for(draft.config)
        start_jax()
        keep = not arguments.no_cache and not arguments.print_config and take_over(draft.config)
        if arguments.resume:
            check_trust(arguments.resume, draft.unchecked(), trust=arguments.trust)
        config = draft.checked()
        from purejaxdqn.config.checks import find_warnings
        from purejaxdqn.config.shipped import note_of_default_environment

    note = None if arguments.resume else note_of_default_environment(draft.config)
    announce([note, draft.moves], filter(None, (*find_warnings(draft.config), draft.idle())))
    if arguments.print_config:
        print(to_yaml(config), end="")
        return 0
    return _train(config, arguments, keep=keep)


def _train(config: Config, arguments: argparse.Namespace, *, keep: bool) -> int:
    """Train and print the results; returns the exit code."""
    with Status("checking the memory", quiet=arguments.quiet):
        from purejaxdqn.runs import opening, runner
        from purejaxdqn.runs.loggers import check_loggers
        from purejaxdqn.runs.memory import check_memory
        from purejaxdqn.system.signals import StopSignals

        check_loggers(config)
        check_memory(config, seeds_at_once=arguments.seeds_at_once)
    if not arguments.no_cache:
        use_compilation_cache()
    if arguments.resume:
        opened_run = opening.reopen_run(arguments.resume, config, segments=arguments.segments, quiet=arguments.quiet)
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
    print_results(config, summary)
    print(opened.folder)
    return 3 if all(summary["diverged"]) else 0


def _import_for_the_end() -> None:
    """Import what a run needs after its last segment, and what loads slowly: Matplotlib and SciPy."""
    from purejaxdqn.pictures import run_directory  # noqa: F401
    from purejaxdqn.runs import statistics  # noqa: F401


def _draw(folder: Path, metrics: Any, config: Config) -> None:
    from purejaxdqn.pictures.run_directory import draw_run  # Matplotlib: late, as it loads slowly

    draw_run(folder, metrics, config)


class _Command(ModuleType):
    """This module, which hides the function ``purejaxdqn.train`` once it is imported, and so can be called like it."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from purejaxdqn.api import train

        return train(*arguments, **options)


if __name__ == "__main__":
    run_command(main)
else:
    sys.modules[__name__].__class__ = _Command
