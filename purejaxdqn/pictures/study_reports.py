"""The head of the pages of sweeps and searches: headline tiles, and the best point with what trains it again."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from purejaxdqn.pictures import report_parts as parts
from purejaxdqn.pictures import webpages as web
from purejaxdqn.runs.statistics import name_of_spread, spread_in_words
from purejaxdqn.searches.directory import SEARCH_FILE
from purejaxdqn.searches.tables import RETEST_FILE, TRIALS_FILE
from purejaxdqn.sweeps.directory import read_directory
from purejaxdqn.sweeps.points import CONFIG_COLUMN
from purejaxdqn.sweeps.spaces import as_text
from purejaxdqn.system.files import is_inside
from purejaxdqn.system.messages import in_figures

_Row = Mapping[str, str]


def sweep_head(folder: Path) -> list[str]:
    """Return the tiles of a sweep and its best points, one of each environment, from ``points.csv``."""
    rows = _rows(folder / "points.csv", folder)
    if not rows:
        return [
            web.paragraph(
                "Not finished: no points.csv. Pictures and tables are added when all runs are done.", bad=True
            )
        ]
    summary = _json(folder / "summary.json", folder)
    best = _best_of_environments(folder, rows)
    scores = [
        (f"greedy return of the best point{where}{_iqm_words(row)}", _number(row.get("iqm"))) for where, row in best
    ]
    diverged = sum(int(row.get("diverged", "")) for row in rows if row.get("diverged", "").isdigit())
    tiles = [
        *scores,
        ("points", f"{len(rows):,}"),
        ("seeds for each point", rows[0].get("seeds", "")),
        ("environment steps of all runs", _count(summary.get("env_steps"))),
        ("run time", web.duration(summary.get("run_seconds"))),
        ("steps per second", _count(summary.get("env_steps_per_second"))),
        *([("runs that diverged", f"{diverged:,}")] if diverged else []),
    ]
    shown = [part for where, row in best for part in _describe_point(where, row, len(rows))]
    return [web.key_figures(tiles), web.section("The best point" + ("s" if len(best) > 1 else ""), *shown)]


def search_head(folder: Path) -> list[str]:
    """Return the tiles of a search and its best trial, from ``trials.csv`` and ``best_retest.json``."""
    rows = _rows(folder / TRIALS_FILE, folder)
    definition = _json(folder / SEARCH_FILE, folder).get("definition")
    definition = definition if isinstance(definition, dict) else {}
    retest = _json(folder / RETEST_FILE, folder)
    finals = retest.get("final_eval_return")
    finals = finals if isinstance(finals, list) else []
    states = [row.get("state", "") for row in rows]
    tiles = [
        *([(f"greedy return on {_fresh(finals)}", _number(retest.get("iqm")))] if retest else []),
        *([("score of the best trial", _number(retest.get("value")))] if retest else []),
        ("trials", f"{len(rows):,}"),
        *([("of them stopped early", f"{states.count('pruned'):,}")] if "pruned" in states else []),
        *([("of them failed", f"{states.count('fail'):,}")] if "fail" in states else []),
        ("seeds for each trial", web.format_value(definition.get("seeds"))),
    ]
    unfinished = f"Not finished: no {RETEST_FILE}. The best trial has not been tested on fresh seeds."
    body = "".join(_describe_trial(folder, retest, definition, len(rows))) if retest else ""
    return [
        "" if retest else web.paragraph(unfinished, bad=True),
        web.key_figures(tiles),
        web.section("The best trial", body),
    ]


def _describe_point(where: str, row: _Row, count: int) -> Iterator[str]:
    keys = list(row)[1 : list(row).index("iqm")] if "iqm" in row else []
    solved = row.get("solved", "")
    also = f" {solved} of them reached the return that counts as solved." if solved not in ("", "0") else ""
    of = f"of {count} points" if not where else where.strip()
    yield web.paragraph(
        f"Point {row.get('point', '')} is the best {of}: {_number(row.get('iqm'))}{_iqm_words(row)}.{also}"
    )
    if keys:
        yield web.table(("key", "value"), [(key, parts.round_number(row[key])) for key in keys])
        words = " ".join(shlex.quote(f"{key}={row[key]}") for key in keys if key != CONFIG_COLUMN)
        if words:
            yield web.paragraph("To train this point alone, add these overrides to the configs of the sweep:")
            yield web.preformatted(words)


def _describe_trial(
    folder: Path, retest: Mapping[str, Any], definition: Mapping[str, Any], count: int
) -> Iterator[str]:
    means = {"final": "final greedy return", "auc": "mean greedy return over the run"}
    score = means.get(str(definition.get("objective")), "score")
    finals = retest.get("final_eval_return")
    yield web.paragraph(
        f"Trial {web.format_value(retest.get('trial'))} is the best of {count}: its score, the IQM over "
        f"{web.format_value(definition.get('seeds'))} seeds of the {score}, is {_number(retest.get('value'))}. "
        f"Its agents on {_fresh(finals if isinstance(finals, list) else [])} reach a greedy return of "
        f"{_number(retest.get('iqm'))}."
    )
    params = retest.get("params")
    if isinstance(params, dict):
        yield web.table(
            ("key", "value"),
            [(key, value if isinstance(value, float) else as_text(value)) for key, value in params.items()],
        )
    if is_inside(folder / "best.yaml", folder):
        yield web.paragraph("This command repeats the run of that test, so that its agents can be filmed:")
        yield web.preformatted(f"python -m purejaxdqn.train --config {shlex.quote(str(folder / 'best.yaml'))}")


def _best_of_environments(folder: Path, rows: Sequence[_Row]) -> list[tuple[str, _Row]]:
    """The best row of each environment, with `` in ENVIRONMENT`` if there are several."""
    if "env.id" in rows[0]:
        env_ids = [row["env.id"] for row in rows]
    elif CONFIG_COLUMN in rows[0]:  # configs may differ in their environments
        points, _ = read_directory(folder)
        env_ids = [points[int(row["point"])].config.env.id if _is_index(row, points) else "" for row in rows]
    else:
        env_ids = [""] * len(rows)
    best = dict(zip(reversed(env_ids), reversed(rows), strict=True))  # the first row of each stays
    several = len(best) > 1
    return [(f" in {env_id}" if several else "", best[env_id]) for env_id in sorted(best)]


def _is_index(row: _Row, points: Sequence[Any]) -> bool:
    text = row.get("point", "")
    return text.isdecimal() and len(text) < 9 and int(text) < len(points)


def _iqm_words(row: _Row) -> str:
    """`` (IQM of 30 seeds, 95% CI 1 to 2)``."""
    seeds = row.get("seeds", "")
    if not seeds.isdecimal() or seeds == "1" or len(seeds) > 9:
        return ""
    ends = ""
    if row.get("iqm_low") and row.get("iqm_high"):
        ends = f", {name_of_spread(int(seeds))} {_number(row['iqm_low'])} to {_number(row['iqm_high'])}"
    return f" (IQM of {seeds} seeds{ends})"


def _fresh(finals: Sequence[Any]) -> str:
    """``30 fresh seeds (IQM, 95% CI 1 to 2)``."""
    numbers = [value for value in finals if isinstance(value, int | float)]
    return f"{len(finals)} fresh seeds (IQM{spread_in_words(numbers) if len(numbers) == len(finals) else ''})"


def _rows(path: Path, folder: Path) -> list[_Row]:
    if not is_inside(path, folder):
        return []
    columns, rows = parts.read_table(path)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _json(path: Path, folder: Path) -> dict[str, Any]:
    return parts.read_json(path) if is_inside(path, folder) else {}


def _number(value: Any) -> str:
    """A return, or its text, as ``in_figures``; ``not finite`` for what is none."""
    try:
        return in_figures(float(value))
    except (TypeError, ValueError):
        return "not finite"


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else "unknown"
