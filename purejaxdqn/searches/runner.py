"""One worker of a search: it asks for batches of trials, trains them and tells their scores until the study is full."""

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial

from purejaxdqn.config.reading import Draft, to_yaml
from purejaxdqn.core.config import Config
from purejaxdqn.runs.memory import state_bytes
from purejaxdqn.searches import study as studies
from purejaxdqn.searches.directory import check_directory, hold_directory
from purejaxdqn.searches.halving import NO_HALVING, Halving, check_room, check_rungs
from purejaxdqn.searches.scores import Score, score
from purejaxdqn.searches.spec import SearchSpec, define
from purejaxdqn.searches.storage import STUDY_FILE, claim_study, open_study
from purejaxdqn.searches.tables import read_retest, warn_of_lost_trials, write_retest, write_tables
from purejaxdqn.searches.trials import BatchSettings, check_fits, train_batch
from purejaxdqn.searches.workers import WorkerWatch, at_work
from purejaxdqn.sweeps.points import Point, candidate_of, check_points, describe_moves, read_points
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import write_text
from purejaxdqn.system.messages import announce, counted, in_figures, tell
from purejaxdqn.system.signals import StopSignals
from purejaxdqn.system.status import Status

_HOPELESS = 8
"""Number of trials without any score after which a search ends."""
_POLL = 1.0
"""Seconds between two looks at the trials of other workers, when only those are left."""


class SearchResult(NamedTuple):
    """A finished search."""

    study: optuna.Study
    best: FrozenTrial | None  # None if no trial has a score
    retest: dict[str, Any] | None  # of the best, see ``write_retest``


class _Worker(NamedTuple):
    """What a worker needs for every batch."""

    name: str
    study: optuna.Study
    spec: SearchSpec
    settings: BatchSettings
    seed: int
    folder: Path
    said: set[str]  # what was said of moved keys; new lines are added
    sizes: dict[Config, int]  # bytes of a run by the static part of its config; new ones that fit are added


def run_search(spec: SearchSpec, base: Config, folder: Path, *, said: Iterable[str] = ()) -> SearchResult:
    """Run trials until the study is full, then test the best one on fresh seeds.

    Args:
      spec: the search.
      base: the config without the searched keys.
      folder: of the search; it is made if it does not exist.
      said: lines about moved keys (``Draft.moves``) that need not be said again.

    Raises:
      Stopped: a signal arrived; told trials are kept.
      UserError: the directory or the storage is refused.
    """
    definition = define(spec, base)
    opening = functools.partial(Status, "opening the study", quiet=spec.quiet)
    with opening():
        studies.make_sampler(spec.sampler, 0)  # refuses what is not installed
        storage = spec.storage or str(folder / STUDY_FILE)
        # Both are checked before either is made, so that a search that is refused leaves nothing behind.
        there = check_directory(folder, definition)
        shared = open_study(storage, spec.study, definition, worker=there) if spec.storage else None
    with StopSignals() as stop, hold_directory(folder, definition) as name:
        with opening():
            study = shared or open_study(storage, spec.study, definition, worker=there, only=True)
            claim_study(study, storage, definition)
            warn_of_lost_trials(folder, study)
        worker = _Worker(name, study, spec, _settings(spec, stop), base.seed, folder, set(said), {})
        with at_work(study, name):
            _print_start(worker, base, again=studies.requeue_killed(study, name))
            _run_trials(worker)
        with Status("writing the tables", quiet=spec.quiet):
            write_tables(folder, study, spec.space)  # other workers may have told trials since our last batch
        best = studies.best_trial(study)
        return SearchResult(study, best, _retest(worker, best) if best else None)


def most_common_reason(study: optuna.Study) -> str:
    """Why trials failed most often."""
    reasons = Counter(filter(None, map(studies.reason_of, studies.finished(study))))
    return reasons.most_common(1)[0][0] if reasons else "no trial was finished"


def _settings(spec: SearchSpec, stop: StopSignals) -> BatchSettings:
    return BatchSettings(
        seeds=spec.seeds,
        batch=spec.batch,
        objective=spec.objective,
        halving=Halving(*spec.halving) if spec.halving else NO_HALVING,
        devices=spec.devices,
        memory=spec.memory,
        quiet=spec.quiet,
        check=stop.check,
        compiled={},
        needs={},
    )


def _run_trials(worker: _Worker) -> None:
    """Ask, train and tell until the study has all its trials, including those that other workers are training.

    The tables are written after each batch. Trials of a worker that has ended, or shows no sign of life, are not waited
    for but replaced.
    """
    spec, study = worker.spec, worker.study
    watch, tried, waits = WorkerWatch(), False, False
    with contextlib.ExitStack() as waiting:
        while True:
            worker.settings.check()
            others = watch.under_way(study, worker.name)  # first: a trial that ends now counts twice rather than never
            done = studies.finished(study)
            left = spec.trials - len(done) - len(others)
            # If no trial has a score, more of the same would be a waste.
            hopeless = tried and studies.best_trial(study) is None and len(done) >= _HOPELESS
            if left > 0 and not hopeless:
                waiting.close()
                _run_batch(worker, watch, left)
                tried, waits = True, False
            elif not others:
                return
            else:
                if not waits:
                    _say(spec, f"waiting for {counted(len(others), 'trial')} of other searches")
                    waiting.enter_context(Status("waiting for other searches", quiet=spec.quiet))
                waits = True
                time.sleep(_POLL)


def _run_batch(worker: _Worker, watch: WorkerWatch, left: int) -> None:
    """Ask for a batch of at most ``left`` trials, train it, and write the tables."""
    spec, study, name = worker.spec, worker.study, worker.name
    count = min(studies.count_waiting(study, name) or spec.batch, left)
    with Status("choosing the trials", quiet=spec.quiet):
        trials = studies.ask(study, spec.space, count, worker=name, sampler=spec.sampler, seed=worker.seed)
        trials = studies.fail_surplus(study, trials, spec.trials, worker=name, watch=watch)
    if trials:
        _train(worker, trials)
        _print_progress(study, spec)
        with Status("writing the tables", quiet=spec.quiet):
            write_tables(worker.folder, study, spec.space)


def _train(worker: _Worker, trials: Sequence[optuna.Trial]) -> None:
    """Train a batch and tell the study: each trial when it is done, or all together if they were compared."""
    spec, study = worker.spec, worker.study
    points: list[Point] = []
    drafts: list[Draft] = []
    trained: list[optuna.Trial] = []
    with Status("checking the trials", quiet=spec.quiet):
        for trial in trials:
            try:
                draft, point = _point_of(spec, trial.params)
                check_rungs(worker.settings.halving, point.config)
                if (static := point.config.static()) not in worker.sizes:
                    check_fits(point, worker.settings)
                    worker.sizes[static] = state_bytes(point.config)
                if spec.halving:  # the check of the edges does not know points that are large in two ways
                    batch = [worker.sizes[one.config.static()] for one in (*points, point)]
                    check_room(batch, seeds=spec.seeds, memory=spec.memory)
            except UserError as error:
                studies.tell(study, trial, Score(None, "; ".join(error.lines)))
                continue
            points.append(point)
            drafts.append(draft)
            trained.append(trial)
    announce(describe_moves(draft for draft in drafts if draft.moves not in worker.said))
    worker.said.update(draft.moves for draft in drafts)
    results = train_batch(points, spec.seeds, worker.settings)
    if spec.halving:
        studies.tell_batch(
            study,
            [
                studies.ScoredTrial(
                    trained[one.point], score(one.runs, spec.objective), one.runs, one.marks, one.stopped
                )
                for one in results
            ],
        )
    else:
        for one in results:
            studies.tell(study, trained[one.point], score(one.runs, spec.objective), one.runs)


def _point_of(spec: SearchSpec, values: dict[str, Any]) -> tuple[Draft, Point]:
    candidate = candidate_of(spec.sources, spec.overrides, values)
    (draft,) = read_points([candidate])
    (point,) = check_points([candidate], [draft])
    return draft, point


def _retest(worker: _Worker, best: FrozenTrial) -> dict[str, Any]:
    """Write ``best.yaml``, whose run by ``train`` equals the re-test bit for bit, and test it unless that was done."""
    spec, folder = worker.spec, worker.folder
    config = _point_of(spec, best.params)[1].config
    config = config.model_copy(update={"seed": (config.seed + 1) % 2**32, "num_seeds": spec.retest})
    write_text(folder / "best.yaml", to_yaml(config))
    retest = read_retest(folder, config)
    if retest is None:
        _say(spec, f"testing trial {best.number} again on {counted(spec.retest, 'fresh seed')}")
        settings = worker.settings._replace(halving=NO_HALVING)
        (one,) = train_batch([Point(config, {})], spec.retest, settings)
        retest = write_retest(folder, config, best, one.runs)
    return retest


def _print_start(worker: _Worker, base: Config, *, again: int) -> None:
    spec, halving = worker.spec, ""
    if spec.halving:
        factor, rungs = spec.halving
        places = ", ".join(f"1/{factor ** (rungs - rung)}" for rung in range(rungs))
        halving = f" (one trial in {factor} continues at {places} of a run)"
    runs = f"{counted(spec.trials, 'trial')} x {counted(spec.seeds, 'seed')}"
    _say(
        spec,
        f"{runs} x {base.total_timesteps:,} environment steps{halving}; "
        f"{counted(len(studies.finished(worker.study)), 'trial')} done{f', {again} run again' if again else ''}",
    )


def _print_progress(study: optuna.Study, spec: SearchSpec) -> None:
    best, done = studies.best_trial(study), studies.finished(study)
    failed = sum(studies.reason_of(trial) is not None for trial in done)
    stopped = sum(studies.is_stopped(trial) for trial in done)
    line = f"best {in_figures(best.value or 0.0)} (trial {best.number})" if best else "none has a score"
    counts = [f", {count} {what}" for count, what in ((stopped, "stopped early"), (failed, "failed")) if count]
    _say(spec, f"{len(done)}/{counted(spec.trials, 'trial')}: {line}{''.join(counts)}")


def _say(spec: SearchSpec, line: str) -> None:
    if not spec.quiet:
        tell(line)
