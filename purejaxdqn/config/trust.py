"""Which modules a run directory may import: its config can name anybody's module, which evaluating it would import.

A run that this user starts is signed with a key that only this user has, and is trusted from then on, wherever it is
moved to. Of another's run the module is imported only if the user says so.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

import platformdirs

from purejaxdqn.core.config import Config
from purejaxdqn.environments.custom import module_places
from purejaxdqn.environments.registry import own_module
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import write_text

SIGNATURE_FILE = ".started-by"
"""In the directory of a run on a module of the user's own: the signature of the user who started the run."""


def sign(folder: Path, config: Config) -> None:
    """Sign a new run, if it names a module; without a key, as in a read-only home directory, it stays unsigned."""
    if own_module(config.env.id) and (key := _user_key(make=True)):
        write_text(folder / SIGNATURE_FILE, _signature(key, config))


def check_trust(folder: Path, config: Config, *, trust: bool) -> None:
    """Refuse to import what the config of a run directory names, unless this user started the run or trusts it.

    Raises:
      UserError: names the module; or the module is inside the directory, from which nothing is ever imported.
    """
    module = own_module(config.env.id)
    if module is None:
        return
    if any(_is_inside(place, folder) for place in module_places(module)):
        raise UserError(
            f"{folder} names the environment {config.env.id!r}, whose module is inside this folder and never imported"
        )
    if not trust and not _is_signed(folder, config):
        raise UserError(
            f"{folder} names the environment {config.env.id!r}, and you did not start this run here; "
            f"--trust (in Python trust=True) imports its module {module!r}"
        )


def _is_signed(folder: Path, config: Config) -> bool:
    key = _user_key(make=False)
    try:
        found = (folder / SIGNATURE_FILE).read_bytes()
    except OSError:
        return False
    return key is not None and hmac.compare_digest(found, _signature(key, config).encode())


def _signature(key: bytes, config: Config) -> str:
    """Of what decides which code runs: the environment and the arguments of its constructor."""
    return hmac.new(key, json.dumps([config.env.id, config.env.kwargs]).encode(), hashlib.sha256).hexdigest()


def _user_key(*, make: bool) -> bytes | None:
    """This user's key, None if there is none and none can be made."""
    path = Path(platformdirs.user_state_dir("purejaxdqn")) / "key"
    if make:
        part = path.with_name(f".key.{secrets.token_hex(4)}")
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
            os.link(part, path)  # fails if there is one
        with contextlib.suppress(OSError):
            part.unlink()
    try:
        key = path.read_bytes()
    except OSError:
        return None
    return key if len(key) == 32 else None


def _is_inside(place: Path, folder: Path) -> bool:
    """Whether a place is in a folder, by its name or by where links lead."""
    folders = folder.absolute(), folder.resolve()
    return any(one.is_relative_to(other) for one in (place, place.resolve()) for other in folders)
