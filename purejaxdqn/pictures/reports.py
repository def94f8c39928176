"""Writes ``report.html`` about a run, a sweep, a search, or any other directory that has tables or pictures."""

from pathlib import Path

from purejaxdqn.config.reading import CONFIG_FILE
from purejaxdqn.pictures import report_parts as parts
from purejaxdqn.pictures import webpages as web
from purejaxdqn.pictures.run_reports import run_report
from purejaxdqn.pictures.study_reports import search_head, sweep_head
from purejaxdqn.searches.directory import SEARCH_FILE
from purejaxdqn.sweeps.directory import SWEEP_FILE
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import is_inside, refusing_damage, write_text
from purejaxdqn.system.messages import tell


def write_report(folder: Path, *, films: bool = True, trust: bool = False) -> Path:
    """Write ``report.html`` into a run directory, or any other directory that has tables or pictures; return its path.

    Args:
      folder: the directory.
      films: whether films are in the page. A finished run that has none is filmed for it.
      trust: for the film, whether the module that a run names as its environment may be imported, though this user did
        not start the run here.

    Raises:
      UserError: the directory has nothing to report on, a file in it is damaged, or it cannot be written to.
    """
    try:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a directory")
        for path in sorted(folder.iterdir()):
            if path.is_symlink() and not path.name.startswith(".") and not is_inside(path, folder):
                tell(f"warning: {path} is left out: it is a link to a place outside the folder")
        is_run = all(is_inside(folder / name, folder) for name in ("metrics.csv", CONFIG_FILE))
        with refusing_damage(folder):
            text = run_report(folder, films=films, trust=trust) if is_run else directory_report(folder, films=films)
        write_text(folder / parts.REPORT_FILE, text)
        return folder / parts.REPORT_FILE
    except OSError as error:
        raise UserError(f"{folder} cannot be reported on: {error}") from error


def directory_report(folder: Path, *, films: bool = True) -> str:
    """Return the page of a sweep, a search or any other directory: the tables, pictures and settings found in it."""
    title, head = folder.resolve().name, []
    if is_inside(folder / SWEEP_FILE, folder):
        title, head = f"Sweep {title}", sweep_head(folder)
    elif is_inside(folder / SEARCH_FILE, folder):
        title, head = f"Search {title}", search_head(folder)
    body = [
        *head,
        web.section("Pictures", *parts.pictures(folder)),
        web.section("Films", *(parts.films(folder) if films else ())),
        web.section("Runs", *parts.runs_table(folder)),
        web.section("Files", *map(parts.csv_table, parts.list_files(folder, ".csv")), *parts.other_files(folder)),
    ]
    if not any(body):
        raise UserError(f"{folder} is neither a run nor a directory with tables or pictures")
    return web.page(title, f"purejaxdqn results {folder.resolve()}", body)
