"""Optuna's study of a search: ask for trials and tell results, so that a kill loses no trial and counts none twice."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from purejaxdqn.runs.statistics import iqm
from purejaxdqn.searches.scores import Score
from purejaxdqn.searches.workers import WORKER, WorkerWatch, is_alone
from purejaxdqn.sweeps.results import RunResult
from purejaxdqn.sweeps.spaces import Choices, Range, Space, as_text
from purejaxdqn.system.faults import require

_AGAIN, _REASON, _RUNS, _OUTCOME = "again", "reason", "runs", "outcome"
"""Attributes of a trial: the number of the killed trial that it repeats; why it failed, if not by a kill; its runs; and
its outcome, see ``tell_batch``."""


class ScoredTrial(NamedTuple):
    """A trial of a batch in which trials were compared, with its score."""

    trial: optuna.Trial
    score: Score
    runs: Sequence[RunResult]
    marks: Sequence[tuple[int, float]]  # environment step and score at each rung
    stopped: bool  # at a rung


def make_sampler(kind: str, seed: int) -> optuna.samplers.BaseSampler:
    """``tpe`` (Bergstra et al. 2011; multivariate: Falkner et al. 2018), ``gp`` or ``random``.

    Raises:
      UserError: the library of the Gaussian process is not installed.
    """
    match kind:
        case "tpe":
            return optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case _:
            require("--sampler gp", "torch", install="purejaxdqn[gp]")
            return optuna.samplers.GPSampler(seed=seed)


def requeue_killed(study: optuna.Study, worker: str) -> int:
    """Queue the trials of this worker that a kill has left running; returns their number.

    Each is queued again before it is failed, so that a kill in between neither loses it nor queues it twice. If the
    results of the whole batch were written down before the kill, the trials are told these results instead. If the
    kill came while a batch was drawn, its trials are failed and do not count: ``ask`` draws the same ones again.
    """
    trials = study.get_trials(deepcopy=False)
    repeated = {trial.user_attrs.get(_AGAIN) for trial in trials}
    drawn = study.user_attrs.get(_drawn_by(worker), math.inf)  # earlier versions did not write it down
    alone = is_alone(study, worker)
    left = [
        trial
        for trial in trials
        # A kill before a trial was signed leaves one without a worker: it is ours if there was never another worker.
        if trial.state == TrialState.RUNNING and trial.user_attrs.get(WORKER, worker if alone else None) == worker
    ]
    if left and all(_OUTCOME in trial.user_attrs for trial in left):
        for trial in left:
            _conclude(study, trial.number, trial.user_attrs[_OUTCOME])
        return 0
    again = 0
    for trial in left:
        first = trial
        while _AGAIN in first.user_attrs:
            first = trials[first.user_attrs[_AGAIN]]  # a repetition has no parameters until they are asked for
        if trial is not first or trial.number <= drawn:
            again += 1
            if trial.number not in repeated:
                study.enqueue_trial(first.params, user_attrs={_AGAIN: trial.number, WORKER: worker})
        study.tell(trial.number, state=TrialState.FAIL)
    return again


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count: those that have a value, and those that failed for a reason other than a kill."""
    trials = study.get_trials(deepcopy=False)
    killed = {trial.user_attrs.get(_AGAIN) for trial in trials}
    has_value = (TrialState.COMPLETE, TrialState.PRUNED)
    return [
        trial
        for trial in trials
        if trial.state in has_value or (trial.state == TrialState.FAIL and reason_of(trial) is not None)
        if trial.number not in killed
    ]


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that have reached their end and have a score."""
    return [trial for trial in finished(study) if trial.state == TrialState.COMPLETE]


def is_stopped(trial: FrozenTrial) -> bool:
    """Whether the trial was stopped at a rung; its value is its score there."""
    return trial.state == TrialState.PRUNED


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The trial with the highest score; of equal ones the one with the largest area under the curve, then the first.

    Trials that were stopped early do not count: their score is that of a shorter run.
    """
    return next(iter(ranked(study)), None)


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """The completed trials in the order of ``best_trial``, the best one first."""

    def rank(trial: FrozenTrial) -> tuple[float, float, int]:
        areas = np.array([run[2] for run in runs_of(trial) if run[2] is not None])
        return trial.value or 0.0, iqm(areas) if len(areas) else -np.inf, -trial.number

    return sorted(completed(study), key=rank, reverse=True)


def count_waiting(study: optuna.Study, worker: str) -> int:
    """The number of this worker's trials that are queued."""
    return sum(
        trial.user_attrs.get(WORKER) == worker
        for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    )


def ask(
    study: optuna.Study, space: Space, count: int, *, worker: str, sampler: str = "tpe", seed: int = 0
) -> list[optuna.Trial]:
    """The next trials, queued ones first.

    Args:
      study: of the search.
      space: of the trials.
      count: number of trials.
      worker: to which they belong.
      sampler: see ``make_sampler``.
      seed: of the search; if there is one worker, its trials depend on this and on the finished trials only.
    """
    trials: list[optuna.Trial] = []
    alone = not _begun(study)
    if _drawn_by(worker) not in study.user_attrs:
        study.set_user_attr(_drawn_by(worker), -1)
    study.sampler = make_sampler(sampler, _sampler_seed(study, seed, worker))
    for _ in range(count):
        trial = study.ask()
        trial.set_user_attr(WORKER, worker)
        if alone and not trials and _begun(study)[0].number < trial.number:  # another worker has just begun
            study.sampler = make_sampler(sampler, _sampler_seed(study, seed, worker))
        for key, values in space.items():
            match values:
                case Choices(choices):
                    trial.suggest_categorical(key, [as_text(choice) for choice in choices])
                case Range(low, high, log, None):
                    trial.suggest_float(key, low, high, log=log)
                case Range(low, _, log, step):
                    trial.suggest_int(key, int(low), int(values.last), log=log, step=step or 1)
        trials.append(trial)
    study.set_user_attr(_drawn_by(worker), trials[-1].number)
    return trials


def _drawn_by(worker: str) -> str:
    """The study's attribute that holds the number of the last trial in a worker's newest complete batch."""
    return f"drawn by {worker}"


def fail_surplus(
    study: optuna.Study, trials: Sequence[optuna.Trial], limit: int, *, worker: str, watch: WorkerWatch
) -> list[optuna.Trial]:
    """The new trials for which the study has room; the others are failed, and do not count.

    Another worker may have asked for trials since this one looked for room. Both see the trials with smaller numbers,
    so that together they keep no more than ``limit``, unless a kill changes numbers at that moment.
    """
    there = {trial.number for trial in [*watch.under_way(study, worker), *finished(study), *trials]}
    kept = [trial for trial in trials if sum(number < trial.number for number in there) < limit]
    for trial in trials:
        if trial not in kept:
            study.tell(trial, state=TrialState.FAIL)
    return kept


def _sampler_seed(study: optuna.Study, seed: int, worker: str) -> int:
    """The seed of a batch; a search that was killed between two batches asks for the same trials again.

    It is a hash, because the sum of seed and trials may be that of another search one batch later. Workers that know
    the same trials would ask for the same points: all but the worker of the study's first trial mix in their name.
    """
    trials = _begun(study)
    name = b"" if not trials or trials[0].user_attrs.get(WORKER) == worker else worker.encode()
    repeated = {trial.user_attrs.get(_AGAIN) for trial in trials}
    count = sum(
        trial.user_attrs.get(WORKER) == worker
        and _AGAIN not in trial.user_attrs
        and (trial.state != TrialState.FAIL or trial.number in repeated or reason_of(trial) is not None)
        for trial in trials
    )
    return int(np.random.SeedSequence([seed, count, *name]).generate_state(1)[0])


def _begun(study: optuna.Study) -> list[FrozenTrial]:
    """The trials without those that a kill left unsigned; the worker of one that still runs is not known yet."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if WORKER in trial.user_attrs or trial.state == TrialState.RUNNING
    ]


def tell(study: optuna.Study, trial: optuna.Trial, result: Score, runs: Sequence[RunResult] = ()) -> None:
    """Tell the study the score of a trial, and keep its runs."""
    _keep_runs(trial, runs)
    if result.value is None:
        trial.set_user_attr(_REASON, result.reason)
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, result.value)


def tell_batch(study: optuna.Study, batch: Sequence[ScoredTrial]) -> None:
    """Tell the study the results of trials that were compared with each other.

    All results are written down before the first is told: if only a part of a batch were told, the rest would be
    compared differently when it runs again.
    """
    for one in batch:
        _keep_runs(one.trial, one.runs)
        for env_step, value in one.marks:
            if np.isfinite(value):
                one.trial.report(value, env_step)
        if one.score.reason:
            one.trial.set_user_attr(_REASON, one.score.reason)
    outcomes = {one.trial.number: {"value": one.score.value, "stopped": one.stopped} for one in batch}
    for one in batch:
        one.trial.set_user_attr(_OUTCOME, outcomes[one.trial.number])
    for number, outcome in outcomes.items():
        _conclude(study, number, outcome)


def _conclude(study: optuna.Study, number: int, outcome: Mapping[str, Any]) -> None:
    if outcome["value"] is None:
        study.tell(number, state=TrialState.FAIL)
    elif outcome["stopped"]:
        study.tell(number, state=TrialState.PRUNED)  # Optuna takes the last mark for its value
    else:
        study.tell(number, outcome["value"])


def _keep_runs(trial: optuna.Trial, runs: Sequence[RunResult]) -> None:
    rows = [[run.run.seed_index, run.final_eval_return, run.auc, run.first_solved_step, run.diverged] for run in runs]
    trial.set_user_attr(_RUNS, [[None if _is_nan(cell) else cell for cell in row] for row in rows])


def runs_of(trial: FrozenTrial) -> list[list[Any]]:
    """A trial's runs: seed index, final greedy return, area under the curve, first solved step, diverged."""
    return trial.user_attrs.get(_RUNS, [])


def reason_of(trial: FrozenTrial) -> str | None:
    """Why a trial failed."""
    return trial.user_attrs.get(_REASON)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and not np.isfinite(value)
