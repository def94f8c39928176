"""Checkpoints: named arrays and a record about them, saved by orbax whole or not at all, verified when loaded.

Nothing in here knows what the arrays mean. orbax writes a folder under another name and renames it, keeps the last
few, and is imported when it is needed. What it does not notice, a digest over the record and all arrays does:
changed bits, files of another checkpoint, another type. A list of the files says which.
"""

import contextlib
import hashlib
import json
import logging
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from purejaxdqn.system.files import StorageError, write_text

FORMAT = 1
LISTING = "files.json"
SMALL = 1 << 20
"""Bytes; smaller arrays of a type are saved as one, as orbax takes a millisecond an array."""


class Checkpoint(NamedTuple):
    """What was saved at a step."""

    step: int
    about: dict[str, Any]  # JSON
    arrays: dict[str, np.ndarray]


class DamagedError(Exception):
    """A checkpoint is not what was saved; says why."""


class Checkpoints:
    """The checkpoints in ``folder``, a folder a step; the last ``keep`` stay."""

    def __init__(self, folder: Path, *, keep: int):
        self.folder = folder
        self._keep = keep
        self._manager: Any = None

    def open(self) -> None:
        """Import orbax and clear away what a kill left half-written, before the first ``save`` would."""
        if self._manager is None:
            import orbax.checkpoint as ocp

            for part in self.folder.glob("*.orbax-checkpoint-tmp*"):
                _clear(part)
            options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, enable_async_checkpointing=False)
            self._manager = ocp.CheckpointManager(self.folder.absolute(), options=options)

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(one.name) for one in self.folder.iterdir() if one.name.isdigit() and one.is_dir())

    def save(self, step: int, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
        """Save, and drop the oldest beyond the last few.

        Raises:
          StorageError: it could not be written; the checkpoints before it are as they were.
        """
        import orbax.checkpoint as ocp

        packed, places = _pack(arrays)
        record = {"format": FORMAT, "step": step, "about": dict(about), "places": places}
        record["digest"] = _digest(record, packed)
        try:
            self.open()
            with _without_complaints():
                self._manager.save(step, args=ocp.args.PyTreeSave(packed), custom_metadata=record, force=True)
            _write_listing(self.folder / str(step))
        except Exception as error:  # orbax and tensorstore have no common kind
            _clear(self.folder / f"{step}.orbax-checkpoint-tmp")
            raise StorageError(f"checkpoint {step} could not be written: {_reason(error)}") from error

    def load(self, step: int) -> Checkpoint:
        """Load and verify.

        Raises:
          DamagedError: it is not what was saved.
        """
        place = self.folder.absolute() / str(step)
        try:
            _check_listing(place)
            record = json.loads((place / "_CHECKPOINT_METADATA").read_text(encoding="utf-8"))["custom_metadata"]
            digest = record.pop("digest")
            kinds = {name: kind for name, kind, _, _ in record["places"].values()}
            packed = _restore(place / "default", kinds)
            if {name: str(array.dtype) for name, array in packed.items()} != kinds:
                raise DamagedError("its arrays are not of the types that were saved")
            if record["format"] != FORMAT or record["step"] != step:
                raise DamagedError(f"it says that it is step {record['step']} in format {record['format']}")
            if _digest(record, packed) != digest:
                raise DamagedError("its contents do not have the digest they were saved with")
            return Checkpoint(step, record["about"], _unpack(packed, record["places"]))
        except DamagedError:
            raise
        except Exception as error:  # whatever it is that reading damaged files ends in
            raise DamagedError(f"it cannot be read: {_reason(error)}") from error

    def set_aside(self, step: int) -> Path:
        """Move a checkpoint out of the way, so that its step can be saved again; returns where it is now."""
        aside = self.folder.with_name(f"{self.folder.name}-refused")
        aside.mkdir(exist_ok=True)
        taken = {one.name for one in aside.iterdir()}
        name = next(name for n in range(len(taken) + 1) if (name := f"{step}-{n}" if n else str(step)) not in taken)
        return (self.folder / str(step)).rename(aside / name)


def _pack(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, tuple]]:
    """Small arrays of a type end to end in one; where each is: name of the array, type, offset, shape."""
    packed: dict[str, list[np.ndarray]] = {}
    places = {}
    filled: dict[str, int] = {}
    for name, array in arrays.items():
        kind = str(array.dtype)
        home = kind if array.nbytes < SMALL else f"{kind}:{name}"
        places[name] = (home, kind, filled.get(home, 0), list(array.shape))
        packed.setdefault(home, []).append(np.ravel(array))
        filled[home] = filled.get(home, 0) + array.size
    homes = {home: str(number) for number, home in enumerate(packed)}
    joined = {homes[home]: parts[0] if len(parts) == 1 else np.concatenate(parts) for home, parts in packed.items()}
    return joined, {name: (homes[home], *rest) for name, (home, *rest) in places.items()}


def _unpack(packed: Mapping[str, np.ndarray], places: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {
        name: packed[home][offset : offset + int(np.prod(shape))].reshape(shape)
        for name, (home, _, offset, shape) in places.items()
    }


def _restore(place: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """One by one: when one cannot be read, the reading of others under way would complain on standard error."""
    import orbax.checkpoint as ocp

    packed: dict[str, np.ndarray] = {}
    with ocp.PyTreeCheckpointer() as checkpointer:
        for name in names:
            wanted = {name: ocp.RestoreArgs(restore_type=np.ndarray)}
            args = ocp.args.PyTreeRestore(item={name: 0}, restore_args=wanted, partial_restore=True)
            packed |= checkpointer.restore(place, args=args)
    return packed


def _digest(record: Mapping[str, Any], packed: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name in sorted(packed):
        digest.update(np.ascontiguousarray(packed[name]).view(np.uint8).data)
    return digest.hexdigest()


def _write_listing(place: Path) -> None:
    """Size and digest of each file: orbax leaves some that it does not read, and their damage is damage too.

    Written after the checkpoint is complete; a kill in between leaves it sound by the digest of its arrays.
    """
    write_text(place / LISTING, json.dumps(_listing(place)))


def _listing(place: Path) -> dict[str, str]:
    found = {}
    for path in sorted(place.rglob("*")):
        if path.is_file() and path.name not in (LISTING, f".{LISTING}.part"):
            with path.open("rb") as file:
                found[path.relative_to(place).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _check_listing(place: Path) -> None:
    """Raise ``DamagedError`` if files are not as they were written."""
    if not (place / LISTING).exists():
        return
    written, found = json.loads((place / LISTING).read_text(encoding="utf-8")), _listing(place)
    for name in sorted({*written, *found}):
        if written.get(name) != found.get(name):
            what = "is missing" if name not in found else "is not as it was written"
            raise DamagedError(f"its file {name} {what}")


def _clear(part: Path) -> None:
    """Remove what is half-written; orbax's threads may still be at it for a moment after an error."""
    for _ in range(20):
        shutil.rmtree(part, ignore_errors=True)
        if not part.exists():
            return
        time.sleep(0.05)


@contextlib.contextmanager
def _without_complaints() -> Iterator[None]:
    """Silence what orbax's threads print beside the exception that says the same; after one they go on for a while."""
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = lambda _: None
    yield
    logger.setLevel(level)
    sys.unraisablehook = hook


def _reason(error: BaseException) -> str:
    """The line of an error that says the most."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    system = re.search(r"(No space left on device|[A-Z][A-Za-z ]+(?= \[os_error_code=))", str(error))
    if system:
        return system[1]
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text if len(text) <= 300 else f"{text[:300]} ..."
