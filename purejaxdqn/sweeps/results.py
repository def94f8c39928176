"""Results of runs and of points, their CSV files, and the table that a sweep prints."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from purejaxdqn.runs.metrics import first_solved_steps, solved_at
from purejaxdqn.runs.statistics import iqm, name_of_spread, spread
from purejaxdqn.sweeps.pieces import Run
from purejaxdqn.sweeps.points import Point
from purejaxdqn.sweeps.spaces import as_text
from purejaxdqn.sweeps.stages import PieceResult
from purejaxdqn.system.files import write_text


class RunResult(NamedTuple):
    """The result of one run."""

    run: Run
    final_eval_return: float  # mean greedy return of the final agent
    auc: float  # area under the curve of greedy returns, divided by its length: their mean
    first_solved_step: int | None
    diverged: bool
    env_step: np.ndarray  # [T]
    eval_return: np.ndarray  # [T]
    episode_return: np.ndarray  # [T]


class PointResult(NamedTuple):
    """The result of a point, over its seeds."""

    point: int
    name: str
    scores: np.ndarray  # [S] final_eval_return
    iqm: float
    interval: tuple[float, float] | None  # around the IQM, see ``statistics.spread``
    auc: float  # IQM
    solved: int  # seeds that were solved at some evaluation
    diverged: int  # seeds


def collect(points: Sequence[Point], pieces: Iterable[PieceResult]) -> list[RunResult]:
    """The runs of all pieces, sorted by point and seed."""
    results: dict[Run, RunResult] = {}
    for piece in pieces:
        solved = first_solved_steps(piece.metrics, solved_at(points[piece.runs[0].point].config))
        for place, run in enumerate(piece.runs):
            results[run] = RunResult(
                run=run,
                final_eval_return=float(piece.final_returns[place].mean(dtype=np.float64)),
                auc=float(piece.metrics.eval_return[place].mean(dtype=np.float64)),
                first_solved_step=solved[place],
                diverged=bool(piece.diverged[place]),
                env_step=piece.metrics.env_step[place],
                eval_return=piece.metrics.eval_return[place],
                episode_return=piece.metrics.episode_return[place],
            )
    return [results[run] for run in sorted(results)]


def summarise_points(points: Sequence[Point], results: Sequence[RunResult]) -> list[PointResult]:
    """The result of each point, in order."""
    summaries, of_points = [], runs_of_points(results)
    for index, point in enumerate(points):
        mine = of_points[index]
        scores = np.array([result.final_eval_return for result in mine])
        summaries.append(
            PointResult(
                point=index,
                name=point.name,
                scores=scores,
                iqm=iqm(scores),
                interval=spread(scores),
                auc=iqm(np.array([result.auc for result in mine])),
                solved=sum(result.first_solved_step is not None for result in mine),
                diverged=sum(result.diverged for result in mine),
            )
        )
    return summaries


def runs_of_points(results: Iterable[RunResult]) -> dict[int, list[RunResult]]:
    """The runs of each point."""
    found: dict[int, list[RunResult]] = {}
    for result in results:
        found.setdefault(result.run.point, []).append(result)
    return found


def ranked(summaries: Sequence[PointResult]) -> list[PointResult]:
    """Best first, by IQM, then by the area under the curve; points whose seeds have all diverged come last."""

    def key(one: PointResult) -> tuple[bool, float, float, int]:
        return one.diverged == len(one.scores), -_or_low(one.iqm), -_or_low(one.auc), one.point

    return sorted(summaries, key=key)


def write_results(folder: Path, points: Sequence[Point], results: Sequence[RunResult]) -> None:
    """Write ``runs.csv``, a row for each run, and ``curves.csv``, a row for each run and epoch."""
    keys = list(points[0].swept)
    runs = [
        [
            *result.run,
            *(points[result.run.point].swept[key] for key in keys),
            *(result.final_eval_return, result.auc, result.first_solved_step, result.diverged),
        ]
        for result in results
    ]
    header = ["point", "seed_index", *keys, "final_eval_return", "auc", "first_solved_step", "diverged"]
    write_csv(folder / "runs.csv", header, runs)
    curves = [
        [*result.run, *row]
        for result in results
        for row in zip(result.env_step, result.eval_return, result.episode_return, strict=True)
    ]
    write_csv(folder / "curves.csv", ["point", "seed_index", "env_step", "eval_return", "episode_return"], curves)


def write_points(folder: Path, points: Sequence[Point], summaries: Sequence[PointResult]) -> None:
    """Write ``points.csv``, a row for each point, best first."""
    header = ["point", *points[0].swept, "iqm", "iqm_low", "iqm_high", "auc", "seeds", "solved", "diverged"]
    rows = [
        [
            *(one.point, *points[one.point].swept.values()),
            *(one.iqm, *(one.interval or (None, None)), one.auc),
            *(len(one.scores), one.solved, one.diverged),
        ]
        for one in ranked(summaries)
    ]
    write_csv(folder / "points.csv", header, rows)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table as a whole; values that are missing or NaN become empty cells."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *([_cell(value) for value in row] for row in rows)])
    write_text(path, text.getvalue())


def table(summaries: Sequence[PointResult], *, rows: int = 12) -> str:
    """The best points as a table for the terminal."""
    best = ranked(summaries)[:rows]
    width = max(len("point"), *(len(one.name) for one in best))
    lines = [f"{'point':{width}}  {'IQM':>8}  {name_of_spread(len(best[0].scores)):>17}  {'AUC':>8}  solved"]
    for one in best:
        interval = f"{one.interval[0]:.4g} to {one.interval[1]:.4g}" if one.interval else "-"
        solved = f"{one.solved}/{len(one.scores)}" + (f", {one.diverged} diverged" if one.diverged else "")
        lines.append(f"{one.name:{width}}  {one.iqm:8.4g}  {interval:>17}  {one.auc:8.4g}  {solved}")
    if len(summaries) > rows:
        lines.append(f"... and {len(summaries) - rows} more")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    """A value as text; empty for None and NaN."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    return str(value) if isinstance(value, np.generic) else as_text(value)


def _or_low(value: float) -> float:
    return value if np.isfinite(value) else -np.inf
