"""``summary.json`` as it is read, and the digests in it, which show whether other files of the run have changed."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import read_json
from purejaxdqn.system.messages import tell

SUMMARY_FILE = "summary.json"


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the ``summary.json`` of a run directory.

    Raises:
      UserError: the file is missing, cannot be read, or is not the summary of a run.
    """
    path = folder / SUMMARY_FILE
    try:
        summary = read_json(path)
    except FileNotFoundError as error:
        raise UserError(f"{folder} is not a finished run: it has no {SUMMARY_FILE}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(summary, dict) or not isinstance(summary.get("final_eval_return"), list):
        raise UserError(f"{path} is not the summary of a run")
    return summary


def digests(folder: Path, *names: str) -> dict[str, str]:
    """The SHA-256 of files, by keys such as ``policy_sha256`` for ``policy.safetensors``."""
    return {_key(name): hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def is_changed(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether a file differs from its digest in ``record``; False if there is none, as in older records."""
    written = record.get(_key(path.name))
    return written is not None and written != digests(path.parent, path.name)[_key(path.name)]


def warn_of_changes(folder: Path, *names: str) -> None:
    """Print a warning for each text file of a finished run that differs from its digest in the summary.

    Its user may have edited it, so this is not an error; nor is a summary that is missing or damaged.
    """
    try:
        summary = read_summary(folder) if (folder / SUMMARY_FILE).exists() else {}
        changed = [
            f"{folder / name} has changed since the run ended" for name in names if is_changed(folder / name, summary)
        ]
    except UserError as error:
        changed = list(error.lines)
    for line in changed:
        tell(f"warning: {line}")


def _key(name: str) -> str:
    return f"{Path(name).stem}_sha256"
