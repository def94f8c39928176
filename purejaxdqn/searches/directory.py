"""The directory of a search: the file that names its worker and describes it, and where its study is."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna

from purejaxdqn.searches.journal import open_journal
from purejaxdqn.searches.storage import STUDY_FILE, check_definition, differences
from purejaxdqn.system.directories import OwnedDirectory, lock_directory
from purejaxdqn.system.faults import UserError, reason_of
from purejaxdqn.system.files import read_json

SEARCH_FILE = "search.json"


def check_directory(folder: Path, definition: dict[str, Any], place: dict[str, str | None]) -> None:
    """Refuse what ``hold_directory`` would refuse, before anything is written."""
    if _owned(folder, definition, place).read_label() is None and not folder.exists():
        parent = next(one for one in folder.absolute().parents if one.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise UserError(f"--out: {folder} cannot be used: {parent} is not a writable directory")
    else:
        with lock_directory(folder, option="--out"):
            pass


@contextlib.contextmanager
def hold_directory(folder: Path, definition: dict[str, Any], place: dict[str, str | None]) -> Iterator[str]:
    """Make or find a search's directory, and keep others out of it; yields the name of its worker.

    Args:
      folder: the directory.
      definition: what makes the search different from others, see ``define``.
      place: of its study, see ``place_of_study``: the tables of the directory are those of one study.

    Raises:
      UserError: something else is there, another search, or one that is still running; or it cannot be made.
    """
    check_directory(folder, definition, place)

    def make_label() -> str:
        return json.dumps({"worker": uuid.uuid4().hex, "definition": definition, **place}, indent=1) + "\n"

    with _owned(folder, definition, place).hold(make_label) as text:
        yield json.loads(text)["worker"]


def _owned(folder: Path, definition: dict[str, Any], place: dict[str, str | None]) -> OwnedDirectory:
    def difference(text: str) -> str | None:
        found = json.loads(text)
        _, theirs = found["worker"], found["definition"]
        different = differences(theirs, definition)
        if different:
            return f"{', '.join(different)} differ"
        # Before 2 December 2026, the place of the study was not written down.
        if any(found.get(key, value) != value for key, value in place.items()):
            return f"its study is {_in_words(found)}, not {_in_words(place)}"
        return None

    return OwnedDirectory(folder, "search", SEARCH_FILE, difference)


def _in_words(place: Mapping[str, Any]) -> str:
    return f"{place['study']!r} in {place['storage']}" if place["storage"] else f"in {STUDY_FILE}"


def read_directory(folder: Path) -> tuple[dict[str, Any], optuna.Study]:
    """The definition and the study of a search's directory.

    Raises:
      UserError: the directory is damaged, or its study is elsewhere.
    """
    log = folder / STUDY_FILE
    try:
        found = read_json(folder / SEARCH_FILE)
        definition = found["definition"]
        if not log.is_file():
            where = f"its study is {_in_words(found)}" if found.get("storage") else f"{STUDY_FILE} is missing"
            raise UserError(f"{folder}: {where}; only the search itself can draw a study in --storage")
        storage = open_journal(log)
        (name,) = optuna.get_all_study_names(storage)
        study = optuna.load_study(storage=storage, study_name=name)
        check_definition(study, str(log), definition)
        return definition, study
    except UserError:
        raise
    except Exception as error:  # Optuna may raise anything about a damaged journal
        raise UserError(f"{folder} is not a search that can be read: {reason_of(error)}") from error
