"""Open the study of a search in Optuna's storage: a journal file, or a database that several machines share."""

import json
import random
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from sqlalchemy import NullPool, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from purejaxdqn.config.reading import dumped_today
from purejaxdqn.searches.journal import open_journal
from purejaxdqn.searches.workers import knows
from purejaxdqn.system.faults import UserError

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

STUDY_FILE = "study.log"
_DEFINITION = "definition"


def open_study(
    storage: str, name: str, definition: dict[str, Any], *, worker: str | None = None, only: bool = False
) -> optuna.Study:
    """Open a study, or create it. It belongs to no search before ``claim_study``.

    Args:
      storage: an Optuna URL, or the path of a journal file.
      name: of the study.
      definition: what makes the search different from others, as plain values.
      worker: whose tables are already there. They would be overwritten by those of a study that does not know it.
      only: whether the storage may hold no other study.

    Raises:
      UserError: the storage cannot be opened, or holds another search under this name, or others than it may.
    """
    another = f"--storage, --study: {storage} has no study {name!r} of the search in --out; name the one it began with"
    if worker and (path := _path_of(storage)) and not path.exists():
        raise UserError(another)
    try:
        if "://" in storage:
            opened: Any = _open_database(storage)
        else:
            Path(storage).parent.mkdir(parents=True, exist_ok=True)
            opened = open_journal(Path(storage))
        names = optuna.get_all_study_names(opened)
        if name not in names and (worker or (only and names)):
            raise UserError(another)
        if name in names:
            study = optuna.load_study(storage=opened, study_name=name)
        else:
            study = optuna.create_study(storage=opened, study_name=name, direction="maximize", load_if_exists=True)
    except UserError:
        raise
    except Exception as error:  # each database driver has its own errors
        raise UserError(f"--storage: {storage} cannot be opened: {str(error).strip().splitlines()[0]}") from error
    if study.directions != [StudyDirection.MAXIMIZE]:
        raise UserError(f"--storage: the study {name!r} in {storage} does not maximise its value")
    check_definition(study, storage, definition)
    if worker and not knows(study, worker):
        raise UserError(another)
    return study


def _path_of(storage: str) -> Path | None:
    """The file of a journal or of an SQLite database; None if it is another database, or is not known."""
    if "://" not in storage:
        return Path(storage)
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):  # ``open_study`` reports it
        return None
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:") and not url.query
    return Path(url.database) if is_file and url.database else None


def _open_database(url: str) -> optuna.storages.RDBStorage:
    """Open a database, and make Optuna's tables if there are none.

    Optuna looks for them and makes them in several steps: if two searches start together, one fails because of the
    tables that the other has made in between, and tries again. SQLite's file, which opens quickly, is closed after each
    use, because Optuna never closes the connections that it keeps.
    """
    parts = make_url(url)
    is_file = parts.get_backend_name() == "sqlite" and parts.database not in (None, "", ":memory:")
    options = {"poolclass": NullPool} if is_file else {}
    for pause in (0.1, 0.2, 0.4, 0.8):
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=options)
        except DBAPIError:
            time.sleep(pause * random.uniform(1.0, 2.0))  # random, so that the two do not collide again
    return optuna.storages.RDBStorage(url, engine_kwargs=options)


def claim_study(study: optuna.Study, storage: str, definition: dict[str, Any]) -> None:
    """Write the definition into a study that has none; from then on it refuses other searches.

    Raises:
      UserError: another search has claimed it.
    """
    if not check_definition(study, storage, definition):
        study.set_user_attr(_DEFINITION, json.dumps(definition, sort_keys=True))


def check_definition(study: optuna.Study, storage: str, definition: dict[str, Any]) -> bool:
    """Refuse the study of another search; returns whether this search has claimed it."""
    found = study.user_attrs.get(_DEFINITION)
    if found not in (None, json.dumps(definition, sort_keys=True)):
        study_there = f"the study {study.study_name!r} in {storage}"
        try:
            different = differences(dict(json.loads(found)), definition)
        except (TypeError, ValueError) as error:
            raise UserError(f"--storage: {study_there} is damaged: {error}") from error
        if different:
            raise UserError(f"--storage: {study_there} is another search: {', '.join(different)} differ")
    return found is not None


def differences(found: Mapping[str, Any], definition: Mapping[str, Any]) -> list[str]:
    """The parts of a definition in which one that was found differs; an earlier version may have written it."""
    today = [{**one, "config": dumped_today(one.get("config"))} for one in (found, definition)]
    return [key for key in {**definition, **found} if today[0].get(key) != today[1].get(key)]
