"""The directory of a search: the file that names its worker and describes it, and where its study is."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna

from purejaxdqn.searches.journal import open_journal
from purejaxdqn.searches.storage import STUDY_FILE, check_definition, differences
from purejaxdqn.searches.tables import TRIALS_FILE
from purejaxdqn.system.directories import OwnedDirectory, lock_directory
from purejaxdqn.system.faults import UserError, reason_of
from purejaxdqn.system.files import read_json

SEARCH_FILE = "search.json"


def check_directory(folder: Path, definition: dict[str, Any]) -> str | None:
    """Refuse what ``hold_directory`` would refuse, before anything is written.

    Returns the name of the worker whose tables are there, for ``open_study``; None if there are none.
    """
    label = _owned(folder, definition).read_label()
    if label is None and not folder.exists():
        parent = next(one for one in folder.absolute().parents if one.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise UserError(f"--out: {folder} cannot be used: {parent} is not a writable directory")
    else:
        with lock_directory(folder, option="--out"):
            pass
    return json.loads(label)["worker"] if label and (folder / TRIALS_FILE).exists() else None


@contextlib.contextmanager
def hold_directory(folder: Path, definition: dict[str, Any]) -> Iterator[str]:
    """Make or find a search's directory, and keep others out of it; yields the name of its worker.

    Raises:
      UserError: something else is there, another search, or one that is still running; or it cannot be made.
    """
    check_directory(folder, definition)

    def make_label() -> str:
        return json.dumps({"worker": uuid.uuid4().hex, "definition": definition}, indent=1) + "\n"

    with _owned(folder, definition).hold(make_label) as text:
        yield json.loads(text)["worker"]


def _owned(folder: Path, definition: dict[str, Any]) -> OwnedDirectory:
    def difference(text: str) -> str | None:
        found = json.loads(text)
        _, theirs = found["worker"], found["definition"]
        different = differences(theirs, definition)
        return f"{', '.join(different)} differ" if different else None

    return OwnedDirectory(folder, "search", SEARCH_FILE, difference)


def read_directory(folder: Path) -> tuple[dict[str, Any], optuna.Study]:
    """The definition and the study of a search's directory.

    Raises:
      UserError: the directory is damaged, or its study is elsewhere.
    """
    log = folder / STUDY_FILE
    try:
        definition = read_json(folder / SEARCH_FILE)["definition"]
        if not log.is_file():
            raise UserError(f"{folder}: {STUDY_FILE} is missing; only the search itself can draw a study in --storage")
        storage = open_journal(log)
        (name,) = optuna.get_all_study_names(storage)
        study = optuna.load_study(storage=storage, study_name=name)
        check_definition(study, str(log), definition)
        return definition, study
    except UserError:
        raise
    except Exception as error:  # Optuna may raise anything about a damaged journal
        raise UserError(f"{folder} is not a search that can be read: {reason_of(error)}") from error
