"""The tables of a search: ``trials.csv``, ``runs.csv``, ``best_retest.json``, and the one that it prints."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from purejaxdqn.core.config import Config
from purejaxdqn.runs.statistics import iqm, iqm_interval
from purejaxdqn.searches.study import finished, is_stopped, ranked, reason_of, runs_of
from purejaxdqn.sweeps.results import RunResult, write_csv
from purejaxdqn.sweeps.spaces import Space
from purejaxdqn.system import faults
from purejaxdqn.system.files import finite, read_json, write_json
from purejaxdqn.system.messages import in_figures, tell

TRIALS_FILE, RETEST_FILE, _DIGEST = "trials.csv", "best_retest.json", "sha256"


def write_tables(folder: Path, study: optuna.Study, space: Space) -> None:
    """Write ``trials.csv``, a row for each finished trial, and ``runs.csv``, a row for each run of a trained one."""
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
    write_csv(folder / TRIALS_FILE, ["trial", "state", "value", *keys, "stopped_at", "reason"], rows)
    runs = [
        [trial.number, seed_index, *(trial.params.get(key) for key in keys), *numbers]
        for trial in trials
        for seed_index, *numbers in runs_of(trial)
    ]
    header = ["point", "seed_index", *keys, "final_eval_return", "auc", "first_solved_step", "diverged"]
    write_csv(folder / "runs.csv", header, runs)


def warn_of_lost_trials(folder: Path, study: optuna.Study) -> None:
    """Print a warning if ``trials.csv`` has more trials than the study, from whose journal lines are then lost."""
    path = folder / TRIALS_FILE
    written = path.read_bytes().count(b"\n") - 1 if path.is_file() else 0
    if written > (there := len(finished(study))):
        tell(f"warning: {path} has {written} trials and the study {there}; what the study lacks is trained again")


def table(study: optuna.Study, *, rows: int = 10) -> str:
    """The best trials as a table for the terminal."""
    lines = [f"{'trial':>5}  {'score':>8}  parameters"]
    for trial in ranked(study)[:rows]:
        words = [f"{key}={f'{v:.4g}' if isinstance(v, float) else v}" for key, v in trial.params.items()]
        lines.append(f"{trial.number:>5}  {in_figures(trial.value or 0.0):>8}  {' '.join(words)}")
    return "\n".join(lines)


def write_retest(folder: Path, config: Config, trial: FrozenTrial, results: Sequence[RunResult]) -> dict[str, Any]:
    """Write ``best_retest.json``: the best trial on fresh seeds; returns its contents."""
    finals = np.array([result.final_eval_return for result in results])
    areas = np.array([result.auc for result in results])
    plain = config.model_dump(mode="json")
    retest = {
        "trial": trial.number,
        "value": trial.value,
        # From the config: the study has choices as texts, and "false" is not JSON's false.
        "params": {key: reduce(getitem, key.split("."), plain) for key in trial.params},
        "config": plain,
        "final_eval_return": finals.tolist(),
        "iqm": iqm(finals),
        "iqm_ci95": list(iqm_interval(finals) or ()) or None,
        "auc": areas.tolist(),
        "auc_iqm": iqm(areas),
        "auc_iqm_ci95": list(iqm_interval(areas) or ()) or None,
        "first_solved_step": [result.first_solved_step for result in results],
        "diverged": [result.diverged for result in results],
    }
    retest = finite(retest)
    write_json(folder / RETEST_FILE, {**retest, _DIGEST: _digest(retest)})
    return retest


def read_retest(folder: Path, config: Config) -> dict[str, Any] | None:
    """The contents of ``best_retest.json`` if it is of exactly this config, else None; a damaged one is a warning."""
    path = folder / RETEST_FILE
    if not path.exists():
        return None
    try:
        found = dict(read_json(path))
        if found.pop(_DIGEST, None) not in (_digest(found), None):
            raise ValueError("it does not match the digest in it")
        same = found["config"] == config.model_dump(mode="json")
    except (OSError, ValueError, KeyError, TypeError) as error:
        tell(f"warning: {path} is damaged, and the best trial is tested again: {faults.reason_of(error)}")
        return None
    return found if same else None


def _digest(retest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(retest, sort_keys=True).encode()).hexdigest()
