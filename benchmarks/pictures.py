"""Draws the pictures of the benchmarks' tables, each from its CSV only, so that picture and table agree.

python -m benchmarks.pictures         draws all of them again from results/*.csv
"""

import csv
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RESULTS = Path(__file__).parent / "results"


class Bars(NamedTuple):
    """How to draw a table: one bar per row and value column, and one panel per value column unless said otherwise."""

    label: tuple[str, ...]  # columns that name a row
    values: tuple[str, ...]  # columns of values
    by: str = ""  # if set: one panel per value of this column, with the first value column only
    unit: str = ""  # if set: the unit of all value columns, which share a panel
    spread: tuple[str, str] | None = None  # columns of the lowest and highest value
    mark: str = ""  # rows whose name starts with this are highlighted; all rows if empty
    points: bool = False  # draw points in place of bars from 0
    around: float | None = None  # draw a line at this value
    title: str = ""  # of the axis of values, in place of the column's name
    best_first: bool = False  # the largest value of the first column at the top; else as in the table
    series: str = ""  # if set: a point for each value of this column in one line, on a logarithmic axis


LABELS = {
    "today": "this version",
    "today, slowest": "this version, slowest",
    "its error": "standard error of random",
    "kernels as it comes": "kernels by default",
    "MB as it comes": "MB by default",
    "ours / as it comes": "ours / default",
    "a batch on": "batch on",
    "the others' share": "not products, share of the whole",
    "of these, products": "of these, products (ms)",
    "how": "measured",
    "to one seed": "relative to one seed",
    "floor": "matrix products in NumPy",
    "ours": "purejaxdqn",
    "as the command": "as the command runs it",
    "to the faster": "relative to the faster",
    "the command takes": "the command uses",
    "as it is": "shipped",
    "with it": "with the change",
    "shipped": "part of the package",
    "the compiler's figure (MB)": "reported by the compiler (MB)",
    "killed before there was a run": "killed before the run directory existed",
    "agents that lose one of 2,000": "agents that lose at least one of 2,000",
}
"""Names that a reader sees in place of a CSV's column names, in tables and in pictures."""

_TUNED = Bars(
    ("change",),
    ("mean",),
    spread=("lowest seed", "highest seed"),
    points=True,
    title="greedy return: mean, lowest, highest seed",
    best_first=True,
)

PICTURES: dict[str, Bars] = {
    "accelerators": Bars(
        ("config",),
        ("memory / sum",),
        by="device",
        series="seeds",
        around=1.0,
        title="memory / sum of what must be kept",
    ),
    "cartpole_double_times": Bars(("run",), ("median (s)",), spread=("lowest (s)", "highest (s)"), title="seconds"),
    "checkpoint": Bars(
        ("what", "seeds"), ("cost (%)",), spread=("lowest (%)", "highest (%)"), title="additional time (%)"
    ),
    "compiling": Bars(
        ("config",), ("compile, nothing cached (s)", "compile, cached (s)", "import (s)"), unit="seconds"
    ),
    "endings": Bars(("setting",), ("episodes lost", "of those, by the cart"), unit="episodes of 60 agents x 2,000"),
    "family": Bars(("choice",), ("time ratio",), by="network", title="time of a gradient step / plain DQN's"),
    "independent_table": Bars(
        ("agent",),
        ("IQM",),
        spread=("95% CI low", "95% CI high"),
        mark="purejaxdqn",
        points=True,
        around=498.4,
        title="training return, IQM of 30 seeds and 95% interval",
    ),
    "peers": Bars(
        ("contender",),
        ("steps a second",),
        by="seeds",
        spread=("lowest", "highest"),
        mark="purejaxdqn",
        title="environment steps a second",
    ),
    "pqn": Bars(
        ("contender", "seeds"),
        ("steps a second",),
        by="setting",
        spread=("lowest", "highest"),
        mark="purejaxdqn",
        title="environment steps a second",
    ),
    "pqn_parts": Bars(("part",), ("milliseconds",), by="setting", title="milliseconds of a rollout"),
    "search": Bars(
        ("repetition",), ("TPE", "random", "cartpole_double.yaml"), unit="area under the curve on 30 fresh seeds"
    ),
    "sweeps": Bars(("work",), ("environment steps a second",)),
    "throughput_threads": Bars(
        ("network", "seeds"),
        ("as the command", "one thread per device", "one device, default pool"),
        unit="environment steps a second",
    ),
    "tried": Bars(
        ("what was tried",),
        ("ratio",),
        by="of",
        spread=("lowest", "highest"),
        points=True,
        around=1.0,
        title="speed / speed of the shipped code",
    ),
    "tuning_acrobot": _TUNED,
    "tuning_acrobot_second": _TUNED,
    "tuning_cartpole_100k_fifth": _TUNED,
}
"""The pictures that pages show; the other tables are shown as tables only."""


def main() -> None:
    for name in PICTURES:
        path = RESULTS / f"{name}.csv"
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                print(draw(name, list(csv.DictReader(file))))


def draw(name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Draw the table ``name`` to ``results/<name>.png``; return the path."""
    from purejaxdqn.pictures.figures import legend_below, style, subplots

    bars = PICTURES[name]
    if bars.best_first:
        rows = sorted(rows, key=lambda row: -_number(row[bars.values[0]]))
    panels = _panels(bars, rows)
    names = list(dict.fromkeys(_label_of(bars, row) for panel in panels for row in panel.rows))
    shown = [textwrap.fill(label, 56, break_long_words=False, break_on_hyphens=False) for label in names]
    series = sorted({str(row[bars.series]) for row in rows}, key=_number) if bars.series else []
    together, row = len(panels[0].columns), 0.32 if any("\n" in label for label in shown) else 0.24
    height = max(1.7, 0.8 + row * len(names) * (1 + 0.5 * (together - 1)))
    longest = max(len(line) for label in shown for line in label.split("\n"))
    width = max(2.2, 0.07 * longest) + (3.2 if len(panels) < 3 else 2.5) * len(panels)
    with style():
        figure, grid = subplots(
            1, len(panels), figsize=(width, height), squeeze=False, sharey=True, sharex=bool(series)
        )
        for axes, panel in zip(grid.flat, panels, strict=True):
            if bars.series:
                _draw_series(axes, bars, panel, names, series)
            else:
                _draw_panel(axes, bars, panel, names)
        grid[0, 0].set_yticks(range(len(names)), shown)
        if together > 1 or series:
            legend_below(figure)
        grid[0, 0].invert_yaxis()
        return save(figure, name)


def _draw_panel(axes: Any, bars: Bars, panel: "_Panel", names: Sequence[str]) -> None:
    """Draw a bar, or a point, for each row and column of a panel, with its figure beside it."""
    from purejaxdqn.pictures.palette import COLORS, MARKERS, OTHERS_COLOR, SOLVED_COLOR

    together = len(panel.columns)
    thickness = 0.75 / together
    at = np.array([names.index(_label_of(bars, row)) for row in panel.rows])
    marked = [not bars.mark or names[place].startswith(bars.mark) for place in at]
    for nth, column in enumerate(panel.columns):
        values = np.array([_number(row[column]) for row in panel.rows])
        places = at + (nth - (together - 1) / 2) * thickness
        colors = [COLORS[nth] if here else OTHERS_COLOR for here in marked]
        spread = _spread(bars, values, panel.rows)
        label = LABELS.get(column, column).removesuffix(f" ({panel.unit[:1]})")
        if bars.points:
            look: Any = {"color": COLORS[nth], "ecolor": "0.5", "markersize": 4.5, "capsize": 2}
            axes.errorbar(values, places, xerr=spread, fmt=MARKERS[nth], label=label, **look)
        else:
            ends: Any = {"ecolor": "0.25", "capsize": 2}
            axes.barh(places, values, color=colors, height=thickness, xerr=spread, error_kw=ends, label=label)
        for place, value, end in zip(places, values, values + (0.0 if spread is None else spread[1]), strict=True):
            if math.isfinite(end):
                beside = end if bars.points else max(end, 0.0)  # right of 0 for a negative bar
                ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # a line does not cross the figure
                text = axes.annotate(_figure(value), (beside, place), (5, 0), textcoords="offset points", bbox=ground)
                text.set(va="center", fontsize=7)
    if bars.around is not None:
        axes.axvline(bars.around, color=SOLVED_COLOR, linestyle=":", linewidth=1.2)
    axes.margins(x=0.2)
    axes.set_ylim(-0.5, len(names) - 0.5)
    axes.grid(axis="y", visible=False)
    axes.set(title=panel.title, xlabel=panel.unit)
    _set_scale(axes, panel)


def _draw_series(axes: Any, bars: Bars, panel: "_Panel", names: Sequence[str], series: Sequence[str]) -> None:
    """Draw a point for each row of a panel, with a colour and a marker of its series."""
    from purejaxdqn.pictures.palette import SOLVED_COLOR, look

    for nth, one in enumerate(series):
        rows = [row for row in panel.rows if str(row[bars.series]) == one]
        places = [names.index(_label_of(bars, row)) for row in rows]
        values = [_number(row[panel.columns[0]]) for row in rows]
        color, _, marker = look(nth)
        axes.plot(values, places, marker, color=color, markersize=4.5, alpha=0.8, label=_label(bars.series, one))
    if bars.around is not None:
        axes.axvline(bars.around, color=SOLVED_COLOR, linestyle=":", linewidth=1.2)
    axes.set(xscale="log", title=panel.title, xlabel=panel.unit)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_ylim(-0.5, len(names) - 0.5)
    axes.grid(axis="y", visible=True, alpha=0.4)


def _set_scale(axes: Any, panel: "_Panel") -> None:
    """Put a few ticks on the axis of values, at whole numbers if these are counts."""
    from matplotlib.ticker import MaxNLocator

    values = [_number(row[column]) for row in panel.rows for column in panel.columns]
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=all(map(float.is_integer, values)), min_n_ticks=1))
    size, letter = next(((s, one) for s, one in ((1e6, "M"), (1e3, "k")) if max(values) >= 10 * s), (1.0, ""))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / size:,g}{letter if value else ''}")


def save(figure: Any, name: str) -> Path:
    """Write a figure to ``results/<name>.png``."""
    from purejaxdqn.pictures.figures import save_figure

    path = RESULTS / f"{name}.png"
    save_figure(figure, path)
    return path


class _Panel(NamedTuple):
    title: str
    unit: str
    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]


def _panels(bars: Bars, rows: Sequence[Mapping[str, Any]]) -> list[_Panel]:
    if bars.unit:
        return [_Panel("", bars.unit, bars.values, rows)]
    if not bars.by:
        return [_Panel("", bars.title or column, (column,), rows) for column in bars.values]
    groups = dict.fromkeys(str(row[bars.by]) for row in rows)
    unit = bars.title or bars.values[0]
    return [
        _Panel(_label(bars.by, group), unit, bars.values[:1], [r for r in rows if str(r[bars.by]) == group])
        for group in groups
    ]


def _label_of(bars: Bars, row: Mapping[str, Any]) -> str:
    return ", ".join(_label(column, str(row[column])) for column in bars.label)


def _label(column: str, text: str) -> str:
    if column == "seeds":
        return f"{int(text):,} seed{'s' if int(text) > 1 else ''}"
    if column in ("change", "setting") and text == "none":
        return "no change"
    return f"{column} {text}" if text.isdigit() else text


def _figure(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"


def _spread(bars: Bars, values: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """Return the distances [2, rows] of lowest and highest from each value; 0 where one of them is not finite."""
    if bars.spread is None:
        return None
    low, high = (np.array([_number(row[column]) for row in rows]) for column in bars.spread)
    with np.errstate(invalid="ignore"):
        away = np.maximum(0.0, np.stack((values - low, high - values)))
    return np.where(np.isfinite(away).all(0), away, 0.0)


def _number(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


if __name__ == "__main__":
    main()
