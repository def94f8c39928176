"""The page of a run: its results, curves, film, seeds, config, times, versions and files."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from purejaxdqn.config.reading import CONFIG_FILE, read_config
from purejaxdqn.core.config import Config, config_keys, value_at
from purejaxdqn.pictures import report_parts as parts
from purejaxdqn.pictures import webpages as web
from purejaxdqn.pictures.captions import caption_of
from purejaxdqn.pictures.report_films import film_best_agent, lacks_film
from purejaxdqn.policies.summaries import warn_of_changes
from purejaxdqn.runs.metrics import Metrics, read_metrics
from purejaxdqn.runs.statistics import spread_in_words
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import is_inside
from purejaxdqn.system.messages import in_figures

_MOST_SEEDS = 12
"""Seeds whose table is not folded."""


def run_report(folder: Path, *, films: bool = True, trust: bool = False) -> str:
    """Return the page of a run. A run that is not finished has no summary; its page says so.

    Takes the arguments of ``write_report``.
    """
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
    seeds_table = _seeds_table(metrics, summary)
    body = [
        "" if summary else web.paragraph(f"Not finished: no summary.json. Step {steps:,} so far.", bad=True),
        web.key_figures(_key_figures(config, summary, steps if summary else config.total_timesteps)),
        web.section("Curves", *_curves(metrics, config)),
        web.section("Episode", *(_films(folder, summary, trust=trust) if films else ())),
        web.section("Seeds", seeds_table)
        if seeds <= _MOST_SEEDS
        else web.folded("Seeds", seeds_table, note=f"{seeds}"),
        web.folded("Config", settings),
        web.folded("Times", web.table(("what", "how long"), _times(summary))) if summary else "",
        web.folded("Versions", _versions_table(summary)) if summary else "",
        web.folded("Files", _files_table(folder)),
    ]
    title = f"{config.env.id}, {seeds} seed{'s' if seeds > 1 else ''}"
    return web.page(title, f"purejaxdqn run {folder.resolve()}", body)


def _films(folder: Path, summary: dict[str, Any], *, trust: bool) -> Iterator[str]:
    """The films in the directory; of a finished run without one, a new one."""
    if summary and lacks_film(folder):
        yield film_best_agent(folder, summary, trust=trust)
    else:
        yield from parts.films(folder)


def _curves(metrics: Metrics, config: Config) -> Iterator[str]:
    from purejaxdqn.pictures.figures import save_figure
    from purejaxdqn.pictures.run_directory import run_figures

    for name, figure in run_figures(metrics, config):
        data = io.BytesIO()
        save_figure(figure, data)
        yield web.picture(data.getvalue(), "png", caption_of(name, name), drawn=True)


def _key_figures(config: Config, summary: dict[str, Any], env_steps: int) -> list[tuple[str, str]]:
    items = [("environment steps per seed", f"{env_steps:,}"), ("seeds", str(config.num_seeds))]
    if not summary:
        return items
    score, finals = summary.get("iqm"), summary.get("final_eval_return")
    spread = spread_in_words(finals) if isinstance(finals, list) else ""
    shown = "not finite" if score is None else in_figures(score)
    return [
        (f"greedy return (IQM of {config.evaluation.final_episodes}-episode means{spread})", shown),
        *items,
        ("run time", web.duration(summary.get("run_seconds"))),
        ("steps per second", f"{summary.get('env_steps_per_second', 0):,}"),
    ]


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
    times = [(text, web.duration(summary[name])) for name, text in names.items() if name in summary]
    return [*times, ("on", web.format_value(summary.get("device")))]


def _versions_table(summary: dict[str, Any]) -> str:
    versions = summary.get("versions") or {}
    return web.table(("what", "version"), [*versions.items(), ("git commit", summary.get("git_commit") or "unknown")])


def _files_table(folder: Path) -> str:
    rows = [
        (path.name, f"{path.stat().st_size:,}") for path in parts.list_files(folder) if path.name != parts.REPORT_FILE
    ]
    return web.table(("file", "bytes"), rows)
