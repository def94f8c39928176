"""``python -m purejaxdqn.train --config CONFIG [--out DIR] [key=value ...]``: train, and leave a run directory."""

import time

_START = time.perf_counter()

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import purejaxdqn
from purejaxdqn.core.config import Config
from purejaxdqn.core.plan import find_warnings
from purejaxdqn.host.configs import read_config, shipped_configs, to_yaml
from purejaxdqn.host.faults import Parser, UserError, run_command
from purejaxdqn.host.runtime import configure_cpu_for, use_compilation_cache


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m purejaxdqn.train", description="Train DQN agents in one XLA program.")
    parser.add_argument("--config", action="append", metavar="CONFIG", help="path or shipped name; later ones win")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run directory (default runs/<config>/<timestamp>)")
    parser.add_argument("--segments", type=int, metavar="N", help="calls of the compiled program (default about 20)")
    parser.add_argument("--seeds-at-once", type=int, metavar="N", help="seeds vmapped together on a device")
    parser.add_argument("--no-cache", action="store_true", help="do not keep compiled programs on disk")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--print-config", action="store_true", help="show the resolved config and stop")
    parser.add_argument("--list-configs", action="store_true", help="show the names of the shipped configs and stop")
    parser.add_argument("--version", action="version", version=purejaxdqn.__version__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys, YAML values")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_intermixed_args(argv)
    if arguments.list_configs:
        print("\n".join(shipped_configs()))
        return 0
    if not arguments.config:
        raise UserError("--config is missing; --list-configs shows the shipped ones")
    for option in ("segments", "seeds_at_once"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')}: {value} must be at least 1")
    draft = read_config(arguments.config, arguments.overrides)
    configure_cpu_for(draft.config)
    config = draft.checked()
    for warning in find_warnings(config):
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.print_config:
        print(to_yaml(config), end="")
        return 0
    return train(
        config,
        out=arguments.out,
        names=arguments.config,
        segments=arguments.segments,
        seeds_at_once=arguments.seeds_at_once,
        cache=not arguments.no_cache,
        quiet=arguments.quiet,
    )


def train(
    config: Config,
    *,
    out: Path | None,
    names: Sequence[str],
    segments: int | None,
    seeds_at_once: int | None,
    cache: bool,
    quiet: bool,
) -> int:
    """Compile, run, and write the run directory; returns the exit code."""
    import jax

    from purejaxdqn.core.environments import SOLVED_AT
    from purejaxdqn.core.plan import make_plan
    from purejaxdqn.host import rundir
    from purejaxdqn.host.metrics import COLUMNS, CsvFile, csv_rows, join_metrics, metrics_from_rows
    from purejaxdqn.host.policies import save_policy
    from purejaxdqn.host.progress import Progress
    from purejaxdqn.host.signals import Stopped, StopSignals
    from purejaxdqn.host.training import choose_segments, compile_training, finish_training, run_segments, seeds_of

    folder = out or rundir.default_directory(list(names))
    rundir.check_directory(folder)
    segments = choose_segments(make_plan(config).epochs, segments)
    if cache:
        use_compilation_cache()
    import_seconds = time.perf_counter() - _START
    rundir.create_directory(folder, config)
    solved_at = SOLVED_AT.get(config.env.id)
    parts = []
    try:
        with StopSignals() as stop:
            seeds = seeds_of(config)
            training = compile_training(config, seeds, segments=segments, batch_size=seeds_at_once)
            stop.check()
            print(f"compiled in {training.compile_seconds:.1f} s", file=sys.stderr)
            start = time.perf_counter()
            with (
                CsvFile(folder / "metrics.csv", COLUMNS) as metrics_file,
                CsvFile(folder / "timing.csv", ("env_step", "wall_seconds")) as timing_file,
                Progress(config, quiet=quiet) as progress,
            ):
                for state, rows in run_segments(training, seeds):
                    part = metrics_from_rows(rows, solved_at=solved_at)
                    parts.append(part)
                    metrics_file.write(csv_rows(part))
                    timing_file.write([(str(part.env_step[0, -1]), f"{time.perf_counter() - start:.3f}")])
                    progress.update(part)
                    stop.check()
            outcome = finish_training(training, seeds, state)
            run_seconds = time.perf_counter() - start
    except Stopped as stopped:
        print(f"stopped by {stopped}; {folder} holds what there was", file=sys.stderr)
        return stopped.exit_code
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"out of device memory: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1

    metrics = join_metrics(parts)
    summary = rundir.summarise(
        config, metrics, outcome, training, import_seconds=import_seconds, run_seconds=run_seconds
    )
    save_policy(folder, outcome.params)
    rundir.write_summary(folder, summary)
    rundir.draw_run(folder, metrics, config)
    _report(config, summary, folder)
    return 3 if all(summary["diverged"]) else 0


def _report(config: Config, summary: dict, folder: Path) -> None:
    interval = summary["iqm_ci95"]
    spread = f", 95% CI {interval[0]:.1f} to {interval[1]:.1f}, IQM of {config.num_seeds} seeds" if interval else ""
    score = "not finite" if summary["iqm"] is None else f"{summary['iqm']:.1f}{spread}"
    print(f"ran in {summary['run_seconds']:.1f} s, {summary['env_steps_per_second']:,} environment steps a second")
    print(f"greedy return over {config.evaluation.final_episodes} episodes: {score}")
    for seed_index in np.flatnonzero(summary["diverged"]):
        print(f"seed {seed_index} diverged", file=sys.stderr)
    print(folder)


if __name__ == "__main__":
    run_command(main)
