"""Parts of a report that show the files of a directory: tables of CSV and JSON files, pictures, films."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from purejaxdqn.pictures import webpages as web
from purejaxdqn.system import files
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import is_inside

MAX_ROWS = 500
"""Longest table of a page; it says how many rows its file has."""
MAX_MEDIA = 20_000_000
"""Largest picture or film that is embedded in a page, in bytes."""
FIRST = ("curves", "history", "points", "ranking", "summary", "trials")
"""Stems of the files that come first, because they say most."""
IMAGES = {".png": "png", ".gif": "gif", ".jpg": "jpeg", ".svg": "svg+xml"}


def list_files(folder: Path, *suffixes: str) -> list[Path]:
    """List the files in a directory: those of ``FIRST``, then the others, each by name.

    Hidden files are left out, and links to files elsewhere, which somebody else's directory may have.
    """
    paths = [path for path in folder.iterdir() if is_inside(path, folder) and not path.name.startswith(".")]
    paths.sort(key=lambda path: (path.stem not in FIRST, path.name))
    return [path for path in paths if not suffixes or path.suffix.lower() in suffixes]


def media(folder: Path, *, drawn: bool, suffixes: Sequence[str]) -> Iterator[str]:
    """Embed pictures and films with their file names; ``drawn``: still pictures are figures on white."""
    for path in list_files(folder, *suffixes):
        suffix = path.suffix.lower()
        if path.stat().st_size > MAX_MEDIA:
            yield web.paragraph(f"{path.name} is left out: {path.stat().st_size / 1e6:.0f} MB")
        elif suffix == ".mp4":
            yield web.film(path.read_bytes(), path.name)
        else:
            still = drawn and suffix != ".gif"
            yield web.picture(path.read_bytes(), IMAGES[suffix], path.name, drawn=still)


def csv_table(path: Path) -> Iterator[str]:
    """Show the first ``MAX_ROWS`` rows of a CSV file."""
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            columns, *rows = list(csv.reader(file)) or [[]]
    except csv.Error as error:  # a cell that is too long
        raise UserError(f"{path} is damaged: {error}") from error
    if not columns:
        return
    if len(rows) > MAX_ROWS:
        yield web.paragraph(f"The first {MAX_ROWS:,} of {len(rows):,} rows.")
    padded = [(row + [""] * len(columns))[: len(columns)] for row in rows[:MAX_ROWS]]
    yield web.table(columns, [list(map(_round_number, row)) for row in padded])


def runs_table(folder: Path) -> Iterator[str]:
    """Show the summaries of the runs in the directory's subdirectories, one row each."""
    found = sorted(path for path in folder.glob("*/summary.json") if is_inside(path, folder))
    keys = ("env_id", "num_seeds", "total_timesteps", "iqm", "iqm_ci95", "run_seconds")
    rows = [[path.parent.name, *(read_json(path).get(key) for key in keys)] for path in found[:MAX_ROWS]]
    if len(found) > MAX_ROWS:
        yield web.paragraph(f"The first {MAX_ROWS:,} of {len(found):,} runs.")
    if rows:
        yield web.table(("run", *keys), rows)


def json_table(path: Path) -> str:
    """Show the entries of a JSON file."""
    rows = [
        (key, json.dumps(value) if isinstance(value, dict | list) else value) for key, value in read_json(path).items()
    ]
    return web.table(("key", "value"), rows)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; any other value comes under an empty key.

    Raises:
      UserError: the file is not JSON.
    """
    try:
        found = files.read_json(path)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return found if isinstance(found, dict) else {"": found}


def _round_number(text: str) -> str:
    """Round a decimal number to six significant digits; other text is unchanged."""
    try:
        return f"{float(text):.6g}" if "." in text else text
    except ValueError:
        return text
