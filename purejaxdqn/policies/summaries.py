"""``summary.json`` as it is read, and the digests in it, which show whether other files of the run have changed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import finite, read_json, write_json
from purejaxdqn.system.messages import tell

SUMMARY_FILE = "summary.json"
_OWN_DIGEST = "summary_sha256"


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json`` with a digest of its own contents."""
    contents = finite(summary)
    write_json(folder / SUMMARY_FILE, {**contents, _OWN_DIGEST: _digest(contents)})


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
    """Print a warning for each text file of a finished run, the summary included, that differs from its digest.

    Its user may have edited it, so this is not an error; nor is a summary that is missing or damaged.
    """
    try:
        summary = read_summary(folder) if (folder / SUMMARY_FILE).exists() else {}
        changed = [
            f"{folder / name} has changed since the run ended"
            for name in (SUMMARY_FILE, *names)
            if (is_altered(summary) if name == SUMMARY_FILE else is_changed(folder / name, summary))
        ]
    except UserError as error:
        changed = list(error.lines)
    for line in changed:
        tell(f"warning: {line}")


def is_altered(summary: Mapping[str, Any]) -> bool:
    """Whether a summary differs from its own digest; False if it has none, as those of earlier versions."""
    written = summary.get(_OWN_DIGEST)
    return written is not None and written != _digest(summary)


def _digest(summary: Mapping[str, Any]) -> str:
    contents = {key: value for key, value in summary.items() if key != _OWN_DIGEST}
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _key(name: str) -> str:
    return f"{Path(name).stem}_sha256"
