"""``python -m purejaxdqn.search --config CONFIG --space FILE --trials N``: Bayesian search, a batch at a time."""

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from purejaxdqn.config.reading import read_config, to_yaml
from purejaxdqn.core.config import Config
from purejaxdqn.sweeps.distributed import add_devices_option
from purejaxdqn.sweeps.points import (
    Choices,
    Point,
    Space,
    candidate_of,
    check_points,
    corner,
    find_idle_keys,
    plain_space,
    read_points,
    read_space,
    refuse_both,
)
from purejaxdqn.system.faults import Parser, UserError, run_command
from purejaxdqn.system.runtime import configure_cpu_for, use_compilation_cache


class Options(NamedTuple):
    """A search, as asked for."""

    sources: tuple[str, ...]
    overrides: tuple[str, ...]
    space: Space
    trials: int
    seeds: int
    batch: int
    halving: tuple[int, int] | None  # factor, rungs
    sampler: str
    objective: str
    retest: int
    storage: str | None
    study: str
    out: Path | None
    memory: int | None
    devices: int | None
    quiet: bool


_HOPELESS = 8
"""Trials without any score after which a search ends."""
_POLL = 1.0
"""Seconds from one look at the trials of other workers to the next, where only they are left."""


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m purejaxdqn.search", description="Search for hyper-parameters with Optuna.")
    parser.add_argument("--config", action="append", metavar="CONFIG", help="path or shipped name; later ones win")
    parser.add_argument("--space", metavar="FILE", help="ranges to search: a path or a shipped name (search/dqn.yaml)")
    parser.add_argument("--trials", type=int, default=64, metavar="N", help="trials of the study in all (default 64)")
    parser.add_argument("--seeds", type=int, default=4, metavar="N", help="seeds of every trial (default 4)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="trials at a time (default 16)")
    parser.add_argument(
        "--halving", type=int, metavar="FACTOR", help="successive halving: one trial in FACTOR goes on at each rung"
    )
    parser.add_argument(
        "--rungs", type=int, metavar="N", help="rungs of --halving (default 3: at 1/8, 1/4 and 1/2 of a run for 2)"
    )
    parser.add_argument("--sampler", choices=("tpe", "gp", "random"), default="tpe")
    parser.add_argument("--objective", choices=("final", "auc"), default="final", help="what the IQM is taken of")
    parser.add_argument(
        "--retest", type=int, default=30, metavar="N", help="fresh seeds for the best point (default 30)"
    )
    parser.add_argument("--storage", metavar="URL", help="Optuna's storage, to share a study (default DIR/study.log)")
    parser.add_argument("--study", default="purejaxdqn", metavar="NAME", help="the study's name in the storage")
    parser.add_argument("--out", type=Path, metavar="DIR", help="directory; one of a killed search is gone on with")
    parser.add_argument("--memory", metavar="SIZE", help="most memory to use, as in 4GiB")
    parser.add_argument("--no-cache", action="store_true", help="do not keep compiled programs on disk")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_devices_option(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys, YAML values, for every trial")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_intermixed_args(argv)
    if not arguments.config:
        raise UserError("--config is missing; python -m purejaxdqn.train --list-configs shows the shipped ones")
    if not arguments.space:
        raise UserError("--space is missing: a YAML of ranges, as the shipped search/dqn.yaml")
    for name in ("trials", "seeds", "batch", "retest", "devices"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}: {value} must be at least 1")
    if arguments.halving is None and arguments.rungs is not None:
        raise UserError("--rungs: they are those of --halving, which is missing")
    for name, least in (("halving", 2), ("rungs", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UserError(f"--{name}: {value} must be at least {least}")
    from purejaxdqn.sweeps.pieces import parse_memory

    options = Options(
        sources=tuple(arguments.config),
        overrides=tuple(arguments.overrides),
        space=read_space(arguments.space),
        trials=arguments.trials,
        seeds=arguments.seeds,
        batch=arguments.batch,
        halving=(arguments.halving, arguments.rungs or 3) if arguments.halving else None,
        sampler=arguments.sampler,
        objective=arguments.objective,
        retest=arguments.retest,
        storage=arguments.storage,
        study=arguments.study,
        out=arguments.out,
        memory=parse_memory(arguments.memory) if arguments.memory else None,
        devices=arguments.devices,
        quiet=arguments.quiet,
    )
    base = _check(options)
    if not arguments.no_cache:
        use_compilation_cache()
    from purejaxdqn.runs.rundir import default_directory

    with contextlib.ExitStack() as made:
        folder = options.out or made.enter_context(default_directory(["search", *options.sources]))
        return search(options, base, folder)


def _check(options: Options) -> Config:
    """Refuse what no trial could mend; returns the config that the space is laid over, as it stands."""
    refuse_both(options.overrides, options.space, how="searched")
    if "num_seeds" in (*options.space, *(word.partition("=")[0] for word in options.overrides)):
        raise UserError("num_seeds: a search takes its seeds from --seeds")
    first = corner(options.space)
    edges = [
        {**first, key: value}
        for key, values in options.space.items()
        for value in (values.values if isinstance(values, Choices) else (values.low, values.high))
    ]
    candidates = [candidate_of(options.sources, options.overrides, values) for values in [first, *edges]]
    drafts = read_points(candidates)
    # A value that is wrong by itself is a fault of the space; one that does not go with others fails its trial only.
    faults = [f"{fault.key}: {fault.message}" for draft in drafts for fault in draft.faults]
    if faults:
        raise UserError(*dict.fromkeys(faults))
    runs = options.seeds * options.batch
    configure_cpu_for(*(draft.config for draft in drafts), runs=runs, devices=options.devices)
    refused: list[UserError] = []
    points: list[Point] = []
    for candidate, draft in zip(candidates, drafts, strict=True):
        try:
            points += check_points([candidate], [draft])
        except UserError as error:
            refused.append(error)
    if len(refused) == len(candidates):
        raise refused[0]
    from purejaxdqn.sweeps.pieces import plan_work
    from purejaxdqn.sweeps.sweeps import all_runs

    plan_work(points, all_runs(points, 1), devices=options.devices, memory=options.memory, together=(1, 1))
    if options.halving:
        from purejaxdqn.searches.halving import Halving, check_room, check_rungs

        for point in points:
            check_rungs(Halving(*options.halving), point.config)
        configs = [point.config for point in points]
        trials = min(options.batch, options.trials)
        check_room(configs, trials=trials, seeds=options.seeds, memory=options.memory)
    for line in find_idle_keys(points):
        print(f"warning: {line}", file=sys.stderr)
    return read_config(list(options.sources), options.overrides).config


def search(options: Options, base: Config, folder: Path) -> int:
    """Run trials until the study has all; then test the best one again. Returns the exit code."""
    from purejaxdqn.searches import study as searching
    from purejaxdqn.searches.halving import Halving
    from purejaxdqn.searches.trials import Setting, train_points
    from purejaxdqn.searches.workers import at_work
    from purejaxdqn.system.files import write_text
    from purejaxdqn.system.signals import Stopped, StopSignals

    definition = {
        "config": base.model_dump(mode="json"),
        "space": plain_space(options.space),
        "seeds": options.seeds,
        "objective": options.objective,
        "halving": list(options.halving) if options.halving else None,
    }
    searching.make_sampler(options.sampler, 0)  # refuses what is not installed
    storage = options.storage or str(folder / searching.STUDY_FILE)
    try:
        # Neither is made before the other was looked at: what is refused leaves nothing behind.
        searching.check_directory(folder, definition)
        shared = searching.open_study(storage, options.study, definition) if options.storage else None
        with StopSignals() as stop, searching.directory(folder, definition) as worker:
            setting = Setting(
                seeds=options.seeds,
                batch=options.batch,
                objective=options.objective,
                halving=Halving(*options.halving) if options.halving else None,
                devices=options.devices,
                memory=options.memory,
                quiet=options.quiet,
                check=stop.check,
                compiled={},
            )
            study = shared or searching.open_study(storage, options.study, definition)
            searching.claim(study, storage, definition)
            with at_work(study, worker):
                again = searching.requeue_killed(study, worker)
                _tell_of_start(study, options, base, again)
                _run_trials(study, worker, options, setting, seed=base.seed, folder=folder)
            searching.write_tables(folder, study, options.space)  # the others have gone on since our last batch
            best = searching.best_trial(study)
            if best is None:
                reasons = Counter(filter(None, map(searching.reason_of, searching.finished(study))))
                reason = reasons.most_common(1)[0][0] if reasons else "no trial was finished"
                print(f"every trial failed; most often: {reason}", file=sys.stderr)
                return 3
            config = _best_config(options, best)
            write_text(folder / "best.yaml", to_yaml(config))
            retest = searching.read_retest(folder, config)
            if retest is None:
                print(f"testing trial {best.number} again on {options.retest} fresh seeds", file=sys.stderr)
                (ended,) = train_points([Point(config, {})], options.retest, setting)
                retest = searching.write_retest(folder, config, best, ended.results)
    except Stopped as stopped:
        print(f"stopped by {stopped}; the same command with --out {folder} goes on", file=sys.stderr)
        return stopped.exit_code

    from purejaxdqn.pictures.searches import draw_search

    draw_search(folder, study, options.space, objective=options.objective)
    print(searching.table(study))
    interval = retest["iqm_ci95"]
    spread = f", 95% CI {interval[0]:.4g} to {interval[1]:.4g}" if interval else ""
    print(f"trial {best.number} on {options.retest} fresh seeds: greedy return {retest['iqm']:.4g}{spread}")
    print(folder)
    return 0


def _run_trials(study: Any, worker: str, options: Options, setting: Any, *, seed: int, folder: Path) -> None:
    """Ask, train and tell until the study has its trials, those that are under way in other workers with them.

    The tables are written after every batch, for whoever watches the search or stops it. Trials of a worker that is
    gone, or shows no sign of life, are not waited for: they are made up for.
    """
    from purejaxdqn.searches import study as searching
    from purejaxdqn.searches.workers import Watch

    watch, tried, waited = Watch(), False, False
    while True:
        setting.check()
        others = watch.under_way(study, worker)  # first: what ends between the two counts twice, and not never
        done = searching.finished(study)
        left = options.trials - len(done) - len(others)
        # None has a score: more of the same would be a waste.
        hopeless = tried and searching.best_trial(study) is None and len(done) >= _HOPELESS
        if left > 0 and not hopeless:
            count = min(searching.waiting(study, worker) or options.batch, left)
            trials = searching.ask(study, options.space, count, worker=worker, sampler=options.sampler, seed=seed)
            trials = searching.give_back(study, trials, options.trials, worker=worker, watch=watch)
            if trials:
                _train(study, trials, options, setting)
                _tell_of_progress(study, options)
                searching.write_tables(folder, study, options.space)
            tried = True
        elif others:
            if not waited:
                print(f"waiting for {len(others)} trials of other searches", file=sys.stderr)
            waited = True
            time.sleep(_POLL)
        else:
            return


def _train(study: Any, trials: list[Any], options: Options, setting: Any) -> None:
    """Train a batch and hand it in: each trial when it is done, or all together where they were compared."""
    from purejaxdqn.searches import study as searching
    from purejaxdqn.searches.halving import check_rungs
    from purejaxdqn.searches.trials import halve_points, train_points

    points: list[Point] = []
    asked: list[Any] = []
    for trial in trials:
        candidate = candidate_of(options.sources, options.overrides, trial.params)
        try:
            (point,) = check_points([candidate], read_points([candidate]))
            if setting.halving:
                check_rungs(setting.halving, point.config)
            points.append(point)
            asked.append(trial)
        except UserError as error:
            searching.tell(study, trial, searching.Score(None, "; ".join(error.lines)))
    if setting.halving:
        ended = halve_points(points, setting)
        scored = [(one, searching.score(one.results, options.objective)) for one in ended]
        searching.tell_batch(
            study,
            [searching.Told(asked[one.point], score, one.results, one.marks, one.stopped) for one, score in scored],
        )
    else:
        for one in train_points(points, options.seeds, setting):
            searching.tell(study, asked[one.point], searching.score(one.results, options.objective), one.results)


def _best_config(options: Options, best: Any) -> Config:
    """The best trial's config with fresh seeds: what ``train`` makes of it is the re-test, bit for bit."""
    candidate = candidate_of(options.sources, options.overrides, best.params)
    (point,) = check_points([candidate], read_points([candidate]))
    fresh = (point.config.seed + 1) % 2**32
    return point.config.model_copy(update={"seed": fresh, "num_seeds": options.retest})


def _tell_of_start(study: Any, options: Options, base: Config, again: int) -> None:
    from purejaxdqn.searches import study as searching

    halving = ""
    if options.halving:
        factor, rungs = options.halving
        places = ", ".join(f"1/{factor ** (rungs - rung)}" for rung in range(rungs))
        halving = f" (one trial in {factor} goes on at {places} of a run)"
    print(
        f"{options.trials} trials x {options.seeds} seeds x {base.total_timesteps:,} environment steps{halving}; "
        f"{len(searching.finished(study))} trials done{f', {again} run again' if again else ''}",
        file=sys.stderr,
    )


def _tell_of_progress(study: Any, options: Options) -> None:
    from purejaxdqn.searches import study as searching

    best, done = searching.best_trial(study), searching.finished(study)
    failed = sum(searching.reason_of(trial) is not None for trial in done)
    stopped = sum(searching.is_stopped(trial) for trial in done)
    score = f"best {best.value:.4g} (trial {best.number})" if best else "none has a score"
    counts = [f", {count} {what}" for count, what in ((stopped, "stopped early"), (failed, "failed")) if count]
    print(f"{len(done)}/{options.trials} trials: {score}{''.join(counts)}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
