"""Writes ``report.html``: of a run its results, curves, config and times; of any other directory the files in it."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from purejaxdqn.config.reading import CONFIG_FILE, read_config
from purejaxdqn.core.config import Config, config_keys, value_at
from purejaxdqn.environments.registry import SOLVED_AT
from purejaxdqn.pictures import report_parts as parts
from purejaxdqn.pictures import webpages as web
from purejaxdqn.policies.summaries import warn_of_changes
from purejaxdqn.runs.metrics import Metrics, read_metrics
from purejaxdqn.runs.statistics import spread_in_words
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import is_inside, refusing_damage, write_text
from purejaxdqn.system.messages import tell

REPORT_FILE = "report.html"


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run directory, or any other directory that has tables or pictures; return its path.

    Raises:
      UserError: the directory has nothing to report on, a file in it is damaged, or it cannot be written to.
    """
    try:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a directory")
        for path in sorted(folder.iterdir()):
            if path.is_symlink() and not path.name.startswith(".") and not is_inside(path, folder):
                tell(f"warning: {path} is left out: it is a link to what is elsewhere")
        is_run = all(is_inside(folder / name, folder) for name in ("metrics.csv", CONFIG_FILE))
        with refusing_damage(folder):
            text = run_report(folder) if is_run else directory_report(folder)
        write_text(folder / REPORT_FILE, text)
        return folder / REPORT_FILE
    except OSError as error:
        raise UserError(f"{folder} cannot be reported on: {error}") from error


def run_report(folder: Path) -> str:
    """Return the page of a run. A run that is not finished has no summary; its page says so."""
    try:
        metrics = read_metrics(folder / "metrics.csv")
    except ValueError as error:
        raise UserError(f"{folder} is not a run: {error}") from error
    warn_of_changes(folder, "metrics.csv", CONFIG_FILE)
    draft = read_config(folder / CONFIG_FILE)
    config = draft.config
    # A config that this version cannot read is shown as text.
    readable = not (draft.lines or draft.faults)
    settings = _config_table(config) if readable else web.preformatted((folder / CONFIG_FILE).read_text("utf-8"))
    summary = parts.read_json(folder / "summary.json") if is_inside(folder / "summary.json", folder) else {}
    seeds, steps = metrics.env_step.shape[0], int(metrics.env_step[0, -1])
    body = [
        "" if summary else web.paragraph(f"Not finished: no summary.json. Step {steps:,} so far.", bad=True),
        web.key_figures(_key_figures(config, summary)),
        web.section("Curves", *_curves(metrics, config)),
        web.section("Episode", *parts.media(folder, drawn=False, suffixes=(".gif", ".mp4"))),
        web.section("Seeds", _seeds_table(metrics, summary)),
        web.section("Config", settings),
        web.section("Times", web.table(("what", "how long"), _times(summary)) if summary else ""),
        web.section("Versions", _versions_table(summary) if summary else ""),
        web.section("Files", _files_table(folder)),
    ]
    title = f"{config.env.id}, {seeds} seed{'s' if seeds > 1 else ''}"
    return web.page(title, f"purejaxdqn run {folder.resolve()}", body)


def directory_report(folder: Path) -> str:
    """Return the page of a sweep, a search or any other directory: the tables, pictures and settings found in it."""
    tables = parts.list_files(folder, ".csv")
    before_pictures = [path for path in tables if path.stem in parts.FIRST and path.stem != "curves"]
    after_pictures = [path for path in tables if path not in before_pictures]
    body = [
        *(web.section(path.name, *parts.csv_table(path)) for path in before_pictures),
        web.section("Pictures", *parts.media(folder, drawn=True, suffixes=(*parts.IMAGES, ".mp4"))),
        *(web.section(path.name, *parts.csv_table(path)) for path in after_pictures),
        web.section("Runs", *parts.runs_table(folder)),
        *(web.section(path.name, parts.json_table(path)) for path in parts.list_files(folder, ".json")),
        *(
            web.section(path.name, web.preformatted(path.read_text("utf-8", "replace")[:20_000]))
            for path in parts.list_files(folder, ".yaml")
        ),
    ]
    if not any(body):
        raise UserError(f"{folder} is neither a run nor a directory with tables or pictures")
    return web.page(folder.resolve().name, f"purejaxdqn results {folder.resolve()}", body)


def _key_figures(config: Config, summary: dict[str, Any]) -> list[tuple[str, str]]:
    items = [("environment steps per seed", f"{config.total_timesteps:,}"), ("seeds", str(config.num_seeds))]
    if not summary:
        return items
    score, finals = summary.get("iqm"), summary.get("final_eval_return")
    spread = spread_in_words(finals) if isinstance(finals, list) else ""
    shown = "not finite" if score is None else f"{score:.4g}"
    return [
        (f"greedy return (IQM of {config.evaluation.final_episodes}-episode means{spread})", shown),
        *items,
        ("run time", _seconds(summary.get("run_seconds"))),
        ("steps per second", f"{summary.get('env_steps_per_second', 0):,}"),
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
    """Show one row per seed: its entries of the summary, if there is one, and of its last epoch."""
    seeds = metrics.env_step.shape[0]
    names = {
        "final_eval_return": "greedy return at the end",
        "training_return": "training return",
        "first_solved_step": "first solved at step",
        "diverged": "diverged",
    }
    columns = {
        column: summary[name]
        for name, column in names.items()
        if isinstance(summary.get(name), list) and len(summary[name]) == seeds
    }
    columns["last evaluation"] = metrics.eval_return[:, -1].tolist()
    columns["best evaluation"] = [_highest(row) for row in metrics.eval_return]
    columns["last loss"] = metrics.loss[:, -1].tolist()
    rows = [[seed, *(column[seed] for column in columns.values())] for seed in range(seeds)]
    bad = [seed for seed, diverged in enumerate(columns.get("diverged", [])) if diverged]
    return web.table(("seed", *columns), rows, bad_rows=bad)


def _highest(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else None


def _config_table(config: Config) -> str:
    """Show all keys; the third column has the default of a key that was changed."""
    rows = []
    for key in config_keys():
        value, default = value_at(config, key), value_at(Config(), key)
        rows.append((key, _setting(value), "" if value == default else _setting(default)))
    return web.table(("key", "value", "default, if different"), rows)


def _setting(value: Any) -> str:
    """Format a config's value as YAML."""
    if isinstance(value, tuple) and all(isinstance(item, tuple) for item in value):
        value = dict(value)  # pairs, or none: a config has no other empty tuple
    return (
        yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True)
        .split("\n...")[0]
        .strip()
    )


def _times(summary: dict[str, Any]) -> list[tuple[str, str]]:
    names = {"import_seconds": "importing", "compile_seconds": "compiling", "run_seconds": "running"}
    times = [(text, _seconds(summary[name])) for name, text in names.items() if name in summary]
    return [*times, ("on", web.format_value(summary.get("device")))]


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
    rows = [(path.name, f"{path.stat().st_size:,}") for path in parts.list_files(folder) if path.name != REPORT_FILE]
    return web.table(("file", "bytes"), rows)
