"""Checkpoints: named arrays and a record about them, saved by orbax atomically and verified when they are loaded.

This module does not know what the arrays mean. orbax writes a folder under another name, renames it, and keeps the
last few; it is imported late. A digest over the record and all arrays detects what orbax does not: changed bits, files
of another checkpoint, other types. A list of the files tells which file is damaged.
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

from purejaxdqn.system.faults import StorageError
from purejaxdqn.system.files import is_part_of, write_text

FORMAT = 1
LISTING = "files.json"
_METADATA = "_CHECKPOINT_METADATA"
SMALL = 1 << 20
"""Bytes; smaller arrays of the same type are saved as one, since orbax takes a millisecond for each array."""


class Checkpoint(NamedTuple):
    """What was saved at an environment step."""

    step: int
    about: dict[str, Any]  # JSON
    arrays: dict[str, np.ndarray]


class DamagedError(Exception):
    """A checkpoint is not what was saved; the message says why."""


class Checkpoints:
    """The checkpoints in ``folder``, one folder for each step; the last ``keep`` are kept."""

    def __init__(self, folder: Path, *, keep: int):
        self.folder = folder
        self._keep = keep
        self._manager: Any = None

    def open(self) -> None:
        """Import orbax and remove what a kill left: half-written checkpoints, and old ones that were to be removed.

        Otherwise the first ``save`` does it.
        """
        if self._manager is None:
            import orbax.checkpoint as ocp

            for part in self.folder.glob("*.orbax-checkpoint-tmp*"):
                _clear(part)
            for step in self.steps()[: -self._keep]:
                if (self.folder / str(step) / _METADATA).is_file():  # ours, and not another folder with a number
                    _clear(self.folder / str(step))
            options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, enable_async_checkpointing=False)
            self._manager = ocp.CheckpointManager(self.folder.absolute(), options=options)

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(one.name) for one in self.folder.iterdir() if one.name.isdigit() and one.is_dir())

    def save(self, step: int, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
        """Save a checkpoint, and remove the oldest if there are too many.

        Raises:
          StorageError: it could not be written; earlier checkpoints are unchanged.
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
        except Exception as error:  # orbax and tensorstore have no common base class
            _clear(self.folder / f"{step}.orbax-checkpoint-tmp")
            raise StorageError(f"checkpoint {step} could not be written: {_reason(error)}") from error

    def load(self, step: int) -> Checkpoint:
        """Load a checkpoint and verify it.

        Raises:
          DamagedError: it is not what was saved.
        """
        place = self.folder.absolute() / str(step)
        try:
            _check_listing(place)
            record = json.loads((place / _METADATA).read_text(encoding="utf-8"))["custom_metadata"]
            digest = record.pop("digest")
            kinds = {name: kind for name, kind, _, _ in record["places"].values()}
            packed = _restore(place / "default", kinds)
            if {name: str(array.dtype) for name, array in packed.items()} != kinds:
                raise DamagedError("its arrays are not of the types that were saved")
            if record["format"] != FORMAT or record["step"] != step:
                raise DamagedError(f"it claims to be step {record['step']} in format {record['format']}")
            if _digest(record, packed) != digest:
                raise DamagedError("its contents do not match the digest they were saved with")
            return Checkpoint(step, record["about"], _unpack(packed, record["places"]))
        except DamagedError:
            raise
        except Exception as error:  # reading damaged files may raise anything
            raise DamagedError(f"it cannot be read: {_reason(error)}") from error

    def set_aside(self, step: int) -> Path:
        """Move a checkpoint to ``checkpoints-refused``, so that its step can be saved again; returns its new place."""
        aside = self.folder.with_name(f"{self.folder.name}-refused")
        aside.mkdir(exist_ok=True)
        taken = {one.name for one in aside.iterdir()}
        name = next(name for n in range(len(taken) + 1) if (name := f"{step}-{n}" if n else str(step)) not in taken)
        return (self.folder / str(step)).rename(aside / name)


def _pack(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, tuple]]:
    """Join small arrays of the same type; also returns where each is: name of the joined array, type, offset, shape."""
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
    """Restore one by one: if one fails, others that are being read would print to standard error."""
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
    """Write a digest of each file; orbax also writes files that it does not read, and these may be damaged too.

    This comes after the checkpoint is complete; after a kill in between, the digest of the arrays still verifies it.
    """
    write_text(place / LISTING, json.dumps(_listing(place)))


def _listing(place: Path) -> dict[str, str]:
    found = {}
    for path in sorted(place.rglob("*")):
        if path.is_file() and path.name != LISTING and not is_part_of(path.name, LISTING):
            with path.open("rb") as file:
                found[path.relative_to(place).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _check_listing(place: Path) -> None:
    """Raise ``DamagedError`` if a file has changed."""
    if not (place / LISTING).exists():
        return
    written, found = json.loads((place / LISTING).read_text(encoding="utf-8")), _listing(place)
    for name in sorted({*written, *found}):
        if written.get(name) != found.get(name):
            what = "is missing" if name not in found else "has changed since it was written"
            raise DamagedError(f"its file {name} {what}")


def _clear(part: Path) -> None:
    """Remove a half-written checkpoint, and again if it returns: after an error, orbax's threads may still write."""
    absent = 0
    for _ in range(40):
        absent = 0 if part.exists() else absent + 1
        if absent == 4:
            return
        shutil.rmtree(part, ignore_errors=True)
        time.sleep(0.05)


@contextlib.contextmanager
def _without_complaints() -> Iterator[None]:
    """Silence what orbax's threads print in addition to the exception; after an error they stay silenced."""
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = lambda _: None
    yield
    logger.setLevel(level)
    sys.unraisablehook = hook


def _reason(error: BaseException) -> str:
    """The most informative line of an error."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    system = re.search(r"(No space left on device|[A-Z][A-Za-z ]+(?= \[os_error_code=))", str(error))
    if system:
        return system[1]
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text if len(text) <= 300 else f"{text[:300]} ..."
