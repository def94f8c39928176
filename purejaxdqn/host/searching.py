"""A Bayesian search's study: what Optuna is asked and told, kept so that a killed search goes on."""

import contextlib
import json
import os
import random
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import NullPool, make_url
from sqlalchemy.exc import DBAPIError

from purejaxdqn.core.config import Config
from purejaxdqn.host.faults import UserError, require
from purejaxdqn.host.files import in_use, is_bare, write_text
from purejaxdqn.host.points import Choices, Range, as_text
from purejaxdqn.host.results import RunResult, write_csv
from purejaxdqn.host.statistics import iqm, iqm_interval
from purejaxdqn.host.workers import WORKER, Watch, is_alone

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

SEARCH_FILE = "search.json"
STUDY_FILE = "study.log"
RETEST_FILE = "best_retest.json"
Space = Mapping[str, Range | Choices]
_DEFINITION, _AGAIN, _SURPLUS, _REASON, _RUNS, _OUTCOME = "definition", "again", "surplus", "reason", "runs", "outcome"


class Score(NamedTuple):
    """What a trial's seeds say: its value, or why it failed."""

    value: float | None
    reason: str | None


class Told(NamedTuple):
    """How a trial of a batch ended in which trials were compared."""

    trial: optuna.Trial
    score: Score
    runs: Sequence[RunResult]
    marks: Sequence[tuple[int, float]]  # environment step and score at each rung
    stopped: bool  # at a rung


def open_study(storage: str, name: str, definition: dict[str, Any]) -> optuna.Study:
    """Open a study, or make it; whose it is, ``claim`` says.

    Args:
      storage: an Optuna URL, or the path of a journal file.
      name: of the study.
      definition: what makes the search the one it is, as plain values.

    Raises:
      UserError: the storage cannot be opened, or holds another search under this name.
    """
    try:
        if "://" in storage:
            opened: Any = _open_database(storage)
        else:
            Path(storage).parent.mkdir(parents=True, exist_ok=True)
            opened = optuna.storages.JournalStorage(JournalFileBackend(storage))
        if name in optuna.get_all_study_names(opened):
            study = optuna.load_study(storage=opened, study_name=name)
        else:
            study = optuna.create_study(storage=opened, study_name=name, direction="maximize", load_if_exists=True)
    except Exception as error:  # each driver of a database has errors of its own
        raise UserError(f"--storage: {storage} cannot be opened: {str(error).strip().splitlines()[0]}") from error
    if study.directions != [StudyDirection.MAXIMIZE]:
        raise UserError(f"--storage: the study {name!r} in {storage} does not look for the largest value")
    _check_definition(study, storage, definition)
    return study


def _open_database(url: str) -> optuna.storages.RDBStorage:
    """Open a database, and make Optuna's tables where there are none.

    Optuna looks for them and makes them in several steps: where two begin at once, one fails on what the other made.
    Nobody closes what is kept open for later, so a file, which is opened in no time, is closed after each use.
    """
    parts = make_url(url)
    is_file = parts.get_backend_name() == "sqlite" and parts.database not in (None, "", ":memory:")
    kwargs = {"poolclass": NullPool} if is_file else {}
    for pause in (0.1, 0.2, 0.4, 0.8):
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=kwargs)
        except DBAPIError:
            time.sleep(pause * random.uniform(1.0, 2.0))  # else two that met meet again
    return optuna.storages.RDBStorage(url, engine_kwargs=kwargs)


def claim(study: optuna.Study, storage: str, definition: dict[str, Any]) -> None:
    """Write the definition into a study that has none: from here on it refuses other searches.

    Raises:
      UserError: another search came first.
    """
    if not _check_definition(study, storage, definition):
        study.set_user_attr(_DEFINITION, json.dumps(definition, sort_keys=True))


def _check_definition(study: optuna.Study, storage: str, definition: dict[str, Any]) -> bool:
    """Refuse the study of another search; returns whether it is of this one, and not yet of none."""
    found = study.user_attrs.get(_DEFINITION)
    if found not in (None, json.dumps(definition, sort_keys=True)):
        study_there = f"the study {study.study_name!r} in {storage}"
        try:
            there = dict(json.loads(found))
        except (TypeError, ValueError) as error:
            raise UserError(f"--storage: {study_there} is damaged: {error}") from error
        different = [key for key in definition if definition[key] != there.get(key)] or ["its parts"]
        raise UserError(f"--storage: {study_there} is another search: {', '.join(different)} differ")
    return found is not None


def make_sampler(kind: str, seed: int) -> optuna.samplers.BaseSampler:
    """``tpe`` (Bergstra et al. 2011; multivariate: Falkner et al. 2018), ``gp`` or ``random``.

    Raises:
      UserError: the Gaussian process lacks its library.
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
    """Queue this worker's trials again that a kill left running; returns how many.

    Queued first and failed then: a kill in between neither loses a trial nor queues it twice. A batch whose outcome was
    written down whole is told as it is instead.
    """
    queued = {trial.user_attrs.get(_AGAIN) for trial in study.trials if trial.state == TrialState.WAITING}
    alone = is_alone(study, worker)
    left = [
        trial
        for trial in study.get_trials(states=(TrialState.RUNNING,))
        # A kill between asking and signing leaves a trial of nobody: ours, if nobody else was ever here.
        if trial.user_attrs.get(WORKER, worker if alone else None) == worker
    ]
    if left and all(_OUTCOME in trial.user_attrs for trial in left):
        for trial in left:
            _conclude(study, trial.number, trial.user_attrs[_OUTCOME])
        return 0
    for trial in left:
        if trial.number not in queued:
            study.enqueue_trial(trial.params, user_attrs={_AGAIN: trial.number, WORKER: worker})
        study.tell(trial.number, state=TrialState.FAIL)
    return len(left)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count: told, and neither killed and queued again nor given back."""
    done = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    killed = {trial.user_attrs.get(_AGAIN) for trial in study.trials}
    found = [trial for trial in study.get_trials(states=done) if trial.number not in killed]
    return [trial for trial in found if _SURPLUS not in trial.user_attrs]


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that came to their end and have a score."""
    return [trial for trial in finished(study) if trial.state == TrialState.COMPLETE]


def is_stopped(trial: FrozenTrial) -> bool:
    """Whether the trial was stopped at a rung; its value is its score there."""
    return trial.state == TrialState.PRUNED


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The trial of the highest score; of several the one of the largest area under the curve, then the first.

    Trials that were stopped early are out of the running: their score is of a shorter run.
    """
    scored = completed(study)

    def rank(trial: FrozenTrial) -> tuple[float, float, int]:
        areas = np.array([run[2] for run in runs_of(trial) if run[2] is not None])
        return trial.value or 0.0, iqm(areas) if len(areas) else -np.inf, -trial.number

    return max(scored, key=rank, default=None)


def check_directory(folder: Path, definition: dict[str, Any]) -> None:
    """Refuse what ``directory`` would refuse, before anything is written."""
    if _worker_of(folder, definition) is None and not folder.exists():
        parent = next(one for one in folder.absolute().parents if one.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise UserError(f"--out: {folder} cannot be used: {parent} is no directory that can be written to")
    else:
        with in_use(folder, option="--out"):
            pass


@contextlib.contextmanager
def directory(folder: Path, definition: dict[str, Any]) -> Iterator[str]:
    """Make a search's directory, or find it there, and keep others out of it; gives the name of its worker.

    Raises:
      UserError: something else stands there, another search, or one that is still running; or it cannot be made.
    """
    check_directory(folder, definition)
    with contextlib.ExitStack() as ours:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            ours.enter_context(in_use(folder, option="--out"))
            worker = _worker_of(folder, definition)
            if worker is None:  # ours to write: whoever else found no directory a moment ago is kept out by now
                worker = uuid.uuid4().hex
                text = json.dumps({"worker": worker, "definition": definition}, indent=1)
                write_text(folder / SEARCH_FILE, text + "\n")
        except OSError as error:
            raise UserError(f"--out: {folder} cannot be used: {error}") from error
        yield worker


def _worker_of(folder: Path, definition: dict[str, Any]) -> str | None:
    """The name of a directory's worker, or None where there is no directory yet, or nothing in it."""
    file = folder / SEARCH_FILE
    try:
        if not folder.exists() or (folder.is_dir() and is_bare(folder)):
            return None
        if not file.is_file():
            raise UserError(f"--out: {folder} exists and is no search; a search never overwrites anything")
        found = json.loads(file.read_text(encoding="utf-8"))
        worker, theirs = found["worker"], found["definition"]
        different = [key for key in definition if definition[key] != theirs.get(key)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--out: {folder} cannot be used: {error}") from error
    if different:
        raise UserError(f"--out: {folder} belongs to another search: {', '.join(different)} differ")
    return worker


def read_directory(folder: Path) -> tuple[dict[str, Any], optuna.Study]:
    """The definition and the study of a search's directory.

    Raises:
      UserError: the directory is damaged, or its study is not in it.
    """
    log = folder / STUDY_FILE
    try:
        definition = json.loads((folder / SEARCH_FILE).read_text(encoding="utf-8"))["definition"]
        if not log.is_file():
            raise UserError(f"{folder}: {STUDY_FILE} is missing; a study in --storage is drawn by its search alone")
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(log)))
        (name,) = optuna.get_all_study_names(storage)
        return definition, optuna.load_study(storage=storage, study_name=name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is not a search that can be read: {error}") from error


def write_tables(folder: Path, study: optuna.Study, space: Space) -> None:
    """Write ``trials.csv``, a row a trial that counts, and ``runs.csv``, a row a run of those that have a score."""
    keys = list(space)
    trials = finished(study)
    rows = [
        [
            trial.number,
            trial.state.name.lower(),
            trial.value,
            *(trial.params.get(key) for key in keys),
            trial.last_step if is_stopped(trial) else None,
            reason_of(trial),
        ]
        for trial in trials
    ]
    write_csv(folder / "trials.csv", ["trial", "state", "value", *keys, "stopped_at", "reason"], rows)
    runs = [
        [trial.number, seed_index, *(trial.params.get(key) for key in keys), *numbers]
        for trial in trials
        for seed_index, *numbers in runs_of(trial)
    ]
    header = ["point", "seed_index", *keys, "final_eval_return", "auc", "first_solved_step", "diverged"]
    write_csv(folder / "runs.csv", header, runs)


def table(study: optuna.Study, *, rows: int = 10) -> str:
    """The best trials as a table for the terminal."""
    scored = sorted(completed(study), key=lambda trial: (-(trial.value or 0.0), trial.number))
    lines = [f"{'trial':>5}  {'score':>8}  parameters"]
    for trial in scored[:rows]:
        words = [f"{key}={f'{v:.4g}' if isinstance(v, float) else v}" for key, v in trial.params.items()]
        lines.append(f"{trial.number:>5}  {trial.value:8.4g}  {' '.join(words)}")
    return "\n".join(lines)


def write_retest(folder: Path, config: Config, trial: FrozenTrial, results: Sequence[RunResult]) -> dict[str, Any]:
    """Write ``best_retest.json``: the best trial on fresh seeds."""
    finals = np.array([result.final_eval_return for result in results])
    areas = np.array([result.auc for result in results])
    plain = config.model_dump(mode="json")
    retest = {
        "trial": trial.number,
        "value": trial.value,
        # from the config, since the study has a choice as text: "false" is no JSON for false
        "params": {key: reduce(getitem, key.split("."), plain) for key in trial.params},
        "config": plain,
        "final_eval_return": [_number(value) for value in finals],
        "iqm": _number(iqm(finals)),
        "iqm_ci95": list(iqm_interval(finals) or ()) or None,
        "auc": [_number(value) for value in areas],
        "auc_iqm": _number(iqm(areas)),
        "auc_iqm_ci95": list(iqm_interval(areas) or ()) or None,
        "first_solved_step": [result.first_solved_step for result in results],
        "diverged": [result.diverged for result in results],
    }
    write_text(folder / RETEST_FILE, json.dumps(retest, indent=2, allow_nan=False) + "\n")
    return retest


def read_retest(folder: Path, config: Config) -> dict[str, Any] | None:
    """The re-test of this very config, if it was made before."""
    try:
        found = json.loads((folder / RETEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if found.get("config") == config.model_dump(mode="json") else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def waiting(study: optuna.Study, worker: str) -> int:
    """How many trials of this worker are queued."""
    return sum(trial.user_attrs.get(WORKER) == worker for trial in study.get_trials(states=(TrialState.WAITING,)))


def ask(
    study: optuna.Study, space: Space, count: int, *, worker: str, sampler: str = "tpe", seed: int = 0
) -> list[optuna.Trial]:
    """The next trials, queued ones first.

    Args:
      study: to ask.
      space: of the trials.
      count: how many.
      worker: whose they are.
      sampler: see ``make_sampler``.
      seed: of the search; what a worker that is alone asks for hangs on this and on the finished trials, no more.
    """
    trials: list[optuna.Trial] = []
    alone = not study.trials
    study.sampler = make_sampler(sampler, _sampler_seed(study, seed, worker))
    for _ in range(count):
        trial = study.ask()
        trial.set_user_attr(WORKER, worker)
        if alone and not trials and trial.number > 0:  # another worker began at this moment; nothing is drawn yet
            study.sampler = make_sampler(sampler, _sampler_seed(study, seed, worker))
        for key, values in space.items():
            match values:
                case Choices(choices):
                    trial.suggest_categorical(key, [as_text(choice) for choice in choices])
                case Range(low, high, log, None):
                    trial.suggest_float(key, low, high, log=log)
                case Range(low, high, log, step):
                    trial.suggest_int(key, int(low), int(high), log=log, step=step or 1)
        trials.append(trial)
    return trials


def give_back(
    study: optuna.Study, trials: Sequence[optuna.Trial], limit: int, *, worker: str, watch: Watch
) -> list[optuna.Trial]:
    """Those of the trials just asked for that the study has room for; the others are failed, and do not count.

    Between looking for room and asking, another worker may have asked. Both see the trials of smaller numbers, so that
    together they keep no more than ``limit``, but where a kill moved trials to other numbers in that moment.
    """
    there = {trial.number for trial in [*watch.under_way(study, worker), *finished(study), *trials]}
    kept = [trial for trial in trials if sum(number < trial.number for number in there) < limit]
    for trial in trials:
        if trial not in kept:
            trial.set_user_attr(_SURPLUS, True)
            study.tell(trial, state=TrialState.FAIL)
    return kept


def _sampler_seed(study: optuna.Study, seed: int, worker: str) -> int:
    """The seed of a batch, of what is known: a search killed between two batches asks for what it would have asked for.

    It is hashed, as seed and trials added up are also another search's, a batch later. Workers that know the same would
    ask for the same: all mix their name in but the one of the study's first trial.
    """
    trials = study.trials
    # Whoever ran it again, if a kill came before it was signed; nobody, where another worker is about to sign it.
    first = {trial.user_attrs.get(WORKER) for trial in trials if trial.user_attrs.get(_AGAIN, trial.number) == 0}
    name = b"" if not trials or worker in first else worker.encode()
    return int(np.random.SeedSequence([seed, len(finished(study)), *name]).generate_state(1)[0])


def score(results: Sequence[RunResult], objective: str) -> Score:
    """The objective of a trial: the IQM over its seeds of the final greedy return, or of the area under the curve."""
    if all(result.diverged for result in results):
        return Score(None, "every seed diverged")
    values = [result.final_eval_return if objective == "final" else result.auc for result in results]
    value = iqm(np.array(values))
    return Score(value, None) if np.isfinite(value) else Score(None, "its score is not a finite number")


def tell(study: optuna.Study, trial: optuna.Trial, result: Score, runs: Sequence[RunResult] = ()) -> None:
    """Hand in a trial, with its runs beside it."""
    _keep_runs(trial, runs)
    if result.value is None:
        trial.set_user_attr(_REASON, result.reason)
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, result.value)


def tell_batch(study: optuna.Study, batch: Sequence[Told]) -> None:
    """Hand in trials that were compared with each other.

    What became of each is written down before the first is told: a batch of which only a part was told would be
    compared otherwise when it runs again.
    """
    for told in batch:
        _keep_runs(told.trial, told.runs)
        for env_step, value in told.marks:
            if np.isfinite(value):
                told.trial.report(value, env_step)
        if told.score.reason:
            told.trial.set_user_attr(_REASON, told.score.reason)
    outcomes = {told.trial.number: {"value": told.score.value, "stopped": told.stopped} for told in batch}
    for told in batch:
        told.trial.set_user_attr(_OUTCOME, outcomes[told.trial.number])
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
