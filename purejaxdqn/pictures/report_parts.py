"""Parts of a report that show the files of a directory: tables of CSV and JSON files, pictures, films."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from purejaxdqn.pictures import webpages as web
from purejaxdqn.pictures.captions import caption_of
from purejaxdqn.system import files
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import is_inside

REPORT_FILE = "report.html"
MAX_ROWS = 500
"""Longest table of a page; it says how many rows its file has."""
MAX_MEDIA = 20_000_000
"""Largest picture that is embedded in a page, and largest sum of its films, in bytes."""
FIRST = ("curves", "history", "points", "ranking", "summary", "trials")
"""Stems of the files that come first, because they say most."""
IMAGES = {".png": "png", ".jpg": "jpeg", ".svg": "svg+xml"}
FILMS = (".gif", ".mp4")


def list_files(folder: Path, *suffixes: str) -> list[Path]:
    """List the files in a directory: those of ``FIRST``, then the others, each by name.

    Hidden files are left out, and links to files elsewhere, which somebody else's directory may have.
    """
    paths = [path for path in folder.iterdir() if is_inside(path, folder) and not path.name.startswith(".")]
    paths.sort(key=lambda path: (path.stem not in FIRST, path.name))
    return [path for path in paths if not suffixes or path.suffix.lower() in suffixes]


def pictures(folder: Path) -> Iterator[str]:
    """Embed the pictures of a directory with their captions; of one in several formats only the PNG."""
    paths = list_files(folder, *IMAGES)
    drawn = {path.stem for path in paths if path.suffix.lower() == ".png"}
    for path in paths:
        suffix = path.suffix.lower()
        if path.stat().st_size > MAX_MEDIA:
            yield web.paragraph(_left_out(path))
        elif suffix == ".png" or path.stem not in drawn:
            caption = caption_of(path.stem, path.name)
            yield web.picture(path.read_bytes(), IMAGES[suffix], caption, drawn=suffix != ".jpg")


def films(folder: Path) -> Iterator[str]:
    """Embed the films of a directory, and of the runs in its subdirectories, up to ``MAX_MEDIA`` bytes together."""
    inner = sorted(path.parent for path in folder.glob("*/summary.json") if is_inside(path, folder))
    left = MAX_MEDIA
    for path in [path for place in (folder, *inner) for path in list_files(place, *FILMS)]:
        size = path.stat().st_size
        if size > left:
            yield web.paragraph(_left_out(path))
        else:
            left -= size
            yield embed_film(path, f"An episode, from {path.relative_to(folder)}.")


def embed_film(path: Path, caption: str) -> str:
    """Embed a GIF or MP4 file with a caption, or say that it is too large."""
    if path.stat().st_size > MAX_MEDIA:
        return web.paragraph(_left_out(path))
    data = path.read_bytes()
    return web.film(data, caption) if path.suffix.lower() == ".mp4" else web.picture(data, "gif", caption)


def _left_out(path: Path) -> str:
    return f"{path.name} is left out: {path.stat().st_size / 1e6:.0f} MB"


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Read the header and the rows of a CSV file; each row has as many cells as the header.

    Raises:
      UserError: the file is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            columns, *rows = list(csv.reader(file)) or [[]]
    except csv.Error as error:  # a cell that is too long
        raise UserError(f"{path} is damaged: {error}") from error
    return columns, [(row + [""] * len(columns))[: len(columns)] for row in rows]


def csv_table(path: Path) -> str:
    """Show the first ``MAX_ROWS`` rows of a CSV file, folded."""
    columns, rows = read_table(path)
    if not columns:
        return ""
    cut = web.paragraph(f"The first {MAX_ROWS:,} of {len(rows):,} rows.") if len(rows) > MAX_ROWS else ""
    count = f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"
    shown = web.table(columns, [list(map(round_number, row)) for row in rows[:MAX_ROWS]])
    return web.folded(path.name, cut, shown, note=count)


def runs_table(folder: Path) -> Iterator[str]:
    """Show the summaries of the runs in the directory's subdirectories, one row each."""
    found = sorted(path for path in folder.glob("*/summary.json") if is_inside(path, folder))
    keys = ("env_id", "num_seeds", "total_timesteps", "iqm", "iqm_ci95", "run_seconds")
    rows = [[path.parent.name, *(read_json(path).get(key) for key in keys)] for path in found[:MAX_ROWS]]
    if len(found) > MAX_ROWS:
        yield web.paragraph(f"The first {MAX_ROWS:,} of {len(found):,} runs.")
    if rows:
        yield web.table(("run", *keys), rows)


def other_files(folder: Path) -> Iterator[str]:
    """Show the JSON files of a directory as tables and its YAML files as text, folded."""
    for path in list_files(folder, ".json"):
        rows = [
            (key, json.dumps(value) if isinstance(value, dict | list) else value)
            for key, value in read_json(path).items()
        ]
        yield web.folded(path.name, web.table(("key", "value"), rows))
    for path in list_files(folder, ".yaml"):
        yield web.folded(path.name, web.preformatted(path.read_text("utf-8", "replace")[:20_000]))


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


def round_number(text: str) -> str:
    """Round a decimal number to six significant digits; other text is unchanged."""
    try:
        return f"{float(text):.6g}" if "." in text else text
    except ValueError:
        return text
