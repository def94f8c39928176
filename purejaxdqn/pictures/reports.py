"""What a report says: of a run its results, curves, config and times; of any other directory what lies in it."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from purejaxdqn.config.reading import CONFIG_FILE, read_config
from purejaxdqn.core.config import Config, config_keys, value_at
from purejaxdqn.environments.registry import SOLVED_AT
from purejaxdqn.pictures import webpages as web
from purejaxdqn.runs.metrics import Metrics, read_metrics
from purejaxdqn.system.faults import UserError

REPORT_FILE = "report.html"
MAX_ROWS = 500
"""Of a table; what is more is counted and left in its file."""
MAX_MEDIA = 20_000_000
"""Bytes of a picture or film that a page still takes in."""
_FIRST = ("curves", "history", "points", "ranking", "summary", "trials")
_IMAGES = {".png": "png", ".gif": "gif", ".jpg": "jpeg", ".svg": "svg+xml"}


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run directory, or any other with tables or pictures in it.

    Raises:
      UserError: there is nothing to report on, it is damaged, or the directory cannot be written to.
    """
    try:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a directory")
        is_run = (folder / "metrics.csv").is_file() and (folder / CONFIG_FILE).is_file()
        text = run_report(folder) if is_run else directory_report(folder)
        draft = folder / f".{REPORT_FILE}.part"
        draft.write_text(text, encoding="utf-8")
        return draft.replace(folder / REPORT_FILE)
    except OSError as error:
        raise UserError(f"{folder} cannot be reported on: {error}") from error


def run_report(folder: Path) -> str:
    """The page of a run; one that is not finished has no summary yet, and its page says so."""
    try:
        metrics = read_metrics(folder / "metrics.csv")
    except (ValueError, csv.Error) as error:
        raise UserError(f"{folder} is not a run: {error}") from error
    draft = read_config(folder / CONFIG_FILE)
    config = draft.config
    known = not (draft.lines or draft.faults)  # else another version's, shown as it stands
    settings = _config_table(config) if known else web.preformatted((folder / CONFIG_FILE).read_text("utf-8"))
    summary = _read_json(folder / "summary.json") if (folder / "summary.json").is_file() else {}
    seeds, steps = metrics.env_step.shape[0], int(metrics.env_step[0, -1])
    body = [
        "" if summary else web.paragraph(f"Not finished: no summary.json. Step {steps:,} so far.", bad=True),
        web.cards(_headline(config, summary)),
        web.section("Curves", *_curves(metrics, config)),
        web.section("Episode", *_media(folder, drawn=False, suffixes=(".gif", ".mp4"))),
        web.section("Seeds", _seeds_table(metrics, summary)),
        web.section("Config", settings),
        web.section("Times", web.table(("what", "how long"), _times(summary)) if summary else ""),
        web.section("Versions", _versions_table(summary) if summary else ""),
        web.section("Files", _files_table(folder)),
    ]
    title = f"{config.env.id}, {seeds} seed{'s' if seeds > 1 else ''}"
    return web.page(title, f"purejaxdqn run {folder.resolve()}", body)


def directory_report(folder: Path) -> str:
    """The page of a sweep, a search or anything else: its pictures, tables and settings, as they are found."""
    body = [
        *(web.section(path.name, *_csv_table(path)) for path in _files(folder, ".csv") if path.stem in _FIRST[1:]),
        web.section("Pictures", *_media(folder, drawn=True, suffixes=(*_IMAGES, ".mp4"))),
        *(web.section(path.name, *_csv_table(path)) for path in _files(folder, ".csv") if path.stem not in _FIRST[1:]),
        web.section("Runs", *_runs_table(folder)),
        *(web.section(path.name, _json_table(path)) for path in _files(folder, ".json")),
        *(
            web.section(path.name, web.preformatted(path.read_text("utf-8", "replace")[:20_000]))
            for path in _files(folder, ".yaml")
        ),
    ]
    if not any(body):
        raise UserError(f"{folder} is neither a run nor a directory with tables or pictures")
    return web.page(folder.resolve().name, f"purejaxdqn results {folder.resolve()}", body)


def _headline(config: Config, summary: dict[str, Any]) -> list[tuple[str, str]]:
    items = [("environment steps a seed", f"{config.total_timesteps:,}"), ("seeds", str(config.num_seeds))]
    if not summary:
        return items
    interval, score = summary.get("iqm_ci95"), summary.get("iqm")
    spread = f", 95% CI {interval[0]:.4g} to {interval[1]:.4g}" if interval else ""
    shown = "not finite" if score is None else f"{score:.4g}"
    return [
        (f"greedy return (IQM of {config.evaluation.final_episodes}-episode means{spread})", shown),
        *items,
        ("running", _seconds(summary.get("run_seconds"))),
        ("steps a second", f"{summary.get('env_steps_per_second', 0):,}"),
    ]


def _curves(metrics: Metrics, config: Config) -> Iterator[str]:
    from purejaxdqn.pictures.runs import draw_learning_curve, draw_report

    drawings: list[tuple[Callable[..., None], str]] = [
        (draw_learning_curve, "Return against environment steps"),
        (draw_report, "Return, moving average, loss and success rate"),
    ]
    for draw, caption in drawings:
        data = io.BytesIO()
        draw(data, metrics, title=config.env.id, solved_at=SOLVED_AT.get(config.env.id))
        yield web.picture(data.getvalue(), "png", caption, drawn=True)


def _seeds_table(metrics: Metrics, summary: dict[str, Any]) -> str:
    """A row a seed: what the summary holds of it, or what its last epoch was."""
    seeds = metrics.env_step.shape[0]
    names = {
        "final_eval_return": "greedy return at the end",
        "training_return": "training return",
        "first_solved_step": "first solved at step",
        "diverged": "diverged",
    }
    columns = {
        head: summary[name]
        for name, head in names.items()
        if isinstance(summary.get(name), list) and len(summary[name]) == seeds
    }
    columns["last evaluation"] = metrics.eval_return[:, -1].tolist()
    columns["best evaluation"] = [_highest(row) for row in metrics.eval_return]
    columns["last loss"] = metrics.loss[:, -1].tolist()
    rows = [[seed, *(column[seed] for column in columns.values())] for seed in range(seeds)]
    bad = [seed for seed, diverged in enumerate(columns.get("diverged", [])) if diverged]
    return web.table(("seed", *columns), rows, bad_rows=bad)


def _highest(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else None


def _config_table(config: Config) -> str:
    """Every key; the third column has what it would be by default, where it is not."""
    rows = []
    for key in config_keys():
        value, default = value_at(config, key), value_at(Config(), key)
        rows.append((key, _setting(value), "" if value == default else _setting(default)))
    return web.table(("key", "value", "default, if another"), rows)


def _setting(value: Any) -> str:
    """A value of a config as its YAML has it."""
    if isinstance(value, tuple) and all(isinstance(one, tuple) for one in value):  # settings; other lists are not empty
        value = dict(value)
    return (
        yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True)
        .split("\n...")[0]
        .strip()
    )


def _times(summary: dict[str, Any]) -> list[tuple[str, str]]:
    names = {"import_seconds": "importing", "compile_seconds": "compiling", "run_seconds": "running"}
    times = [(text, _seconds(summary[name])) for name, text in names.items() if name in summary]
    return [*times, ("on", web.show(summary.get("device")))]


def _seconds(value: Any) -> str:
    if not isinstance(value, int | float):
        return "unknown"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _versions_table(summary: dict[str, Any]) -> str:
    versions = summary.get("versions") or {}
    return web.table(("what", "version"), [*versions.items(), ("git commit", summary.get("git_commit") or "unknown")])


def _files_table(folder: Path) -> str:
    rows = [(path.name, f"{path.stat().st_size:,}") for path in _files(folder) if path.name != REPORT_FILE]
    return web.table(("file", "bytes"), rows)


def _files(folder: Path, *suffixes: str) -> list[Path]:
    """The files in a directory: what says most first, the others by name; hidden ones aside."""
    every = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    every.sort(key=lambda path: (path.stem not in _FIRST, path.name))
    return [path for path in every if not suffixes or path.suffix.lower() in suffixes]


def _media(folder: Path, *, drawn: bool, suffixes: Sequence[str]) -> Iterator[str]:
    """Pictures and films, with their names; ``drawn`` says that still pictures are figures on white."""
    for path in _files(folder, *suffixes):
        suffix = path.suffix.lower()
        if path.stat().st_size > MAX_MEDIA:
            yield web.paragraph(f"{path.name} is left out: {path.stat().st_size / 1e6:.0f} MB")
        elif suffix == ".mp4":
            yield web.film(path.read_bytes(), path.name)
        else:
            still = drawn and suffix != ".gif"
            yield web.picture(path.read_bytes(), _IMAGES[suffix], path.name, drawn=still)


def _csv_table(path: Path) -> Iterator[str]:
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        heads, *rows = list(csv.reader(file)) or [[]]
    if not heads:
        return
    if len(rows) > MAX_ROWS:
        yield web.paragraph(f"The first {MAX_ROWS:,} of {len(rows):,} rows.")
    even = [[_short(text) for text in (row + [""] * len(heads))[: len(heads)]] for row in rows[:MAX_ROWS]]
    yield web.table(heads, even)


def _short(text: str) -> str:
    """A number with no more digits than people read; its file has the rest."""
    try:
        return f"{float(text):.6g}" if "." in text else text
    except ValueError:
        return text


def _runs_table(folder: Path) -> Iterator[str]:
    """The runs in directories below."""
    found = sorted(folder.glob("*/summary.json"))
    keys = ("env_id", "num_seeds", "total_timesteps", "iqm", "iqm_ci95", "run_seconds")
    rows = [[path.parent.name, *(_read_json(path).get(key) for key in keys)] for path in found[:MAX_ROWS]]
    if len(found) > MAX_ROWS:
        yield web.paragraph(f"The first {MAX_ROWS:,} of {len(found):,} runs.")
    if rows:
        yield web.table(("run", *keys), rows)


def _json_table(path: Path) -> str:
    return web.table(("key", "value"), [(key, _as_text(value)) for key, value in _read_json(path).items()])


def _as_text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return found if isinstance(found, dict) else {"": found}
