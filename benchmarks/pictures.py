"""Draws the pictures of the benchmarks' tables, each from its CSV only, so that picture and table agree.

python -m benchmarks.pictures         draws all of them again from results/*.csv
"""

import csv
import math
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
    apart: bool = False  # an axis for each row, one below the other, as values of different environments need


PICTURES: dict[str, Bars] = {
    "cartpole_scores": Bars(("seed_index",), ("gymnax", "gymnasium"), unit="greedy return"),
    "cartpole_times": Bars(("run",), ("median (s)",), spread=("lowest (s)", "highest (s)")),
    "checkpoint": Bars(("what", "seeds"), ("cost (%)",), spread=("lowest (%)", "highest (%)")),
    "compiling": Bars(
        ("config",), ("compile, nothing cached (s)", "compile, cached (s)", "import (s)"), unit="seconds"
    ),
    "endings": Bars(("setting",), ("episodes lost", "of those, by the cart"), unit="episodes"),
    "family": Bars(("choice",), ("time ratio",), by="network"),
    "family_convolution": Bars((), ("ours (ms an update)", "flax (ms an update)"), unit="milliseconds"),
    "accelerators": Bars(("device", "config", "seeds"), ("memory / sum",), points=True, around=1.0),
    "gpu_program": Bars(("config", "seeds"), ("ours / as it comes",), points=True, around=1.0),
    "guard": Bars(("preset", "jaxlib"), ("instructions", "fusions", "update flops")),
    "independent_table": Bars(
        ("agent",), ("IQM",), spread=("95% CI low", "95% CI high"), mark="purejaxdqn", points=True, around=498.4
    ),
    "kills": Bars(("run",), ("kills", "resumed", "runs ended"), unit="times"),
    "limit_parts": Bars(("part",), ("share",)),
    "limit_products": Bars(("product",), ("NumPy", "XLA"), unit="GFLOP/s"),
    "limit_sharing": Bars(("a batch on",), ("microseconds an update",), unit="microseconds"),
    "limit_step": Bars(("what",), ("microseconds", "environment steps/s")),
    "memory": Bars(("buffer", "seeds on the device"), ("sum (MB)", "the compiler's figure (MB)"), unit="MB"),
    "memory_rollout": Bars(("setting", "seeds on the device"), ("sum (MB)", "the compiler's figure (MB)"), unit="MB"),
    "optimal": Bars(("environment",), ("best", "random"), unit="return", apart=True),
    "peers": Bars(("contender",), ("steps a second",), by="seeds", spread=("lowest", "highest"), mark="purejaxdqn"),
    "pqn": Bars(
        ("contender", "seeds"), ("steps a second",), by="setting", spread=("lowest", "highest"), mark="purejaxdqn"
    ),
    "pqn_parts": Bars(("part",), ("milliseconds",), by="setting"),
    "rounding": Bars(("runs",), ("IQM one after another", "IQM batched"), unit="IQM of greedy returns", apart=True),
    "search": Bars(("repetition",), ("TPE", "random", "cartpole.yaml"), unit="area under the curve"),
    "solved": Bars(("contender",), ("seconds (median)",), spread=("quickest", "slowest"), mark="purejaxdqn"),
    "sweeps": Bars(("work",), ("environment steps a second",)),
    "throughput_floor": Bars(("run",), ("ours", "floor"), unit="environment steps a second"),
    "throughput_threads": Bars(
        ("network", "seeds"),
        ("as the command", "a thread a device", "one device, default pool"),
        unit="environment steps a second",
    ),
    **{
        f"tuning_{name}": Bars(("change",), ("mean",), spread=("lowest seed", "highest seed"), points=True)
        for name in (
            "acrobot",
            "acrobot_second",
            "cartpole_100k",
            "cartpole_100k_second",
            "cartpole_100k_third",
            "cartpole_100k_fourth",
            "cartpole_100k_fifth",
            "pong",
        )
    },
    "tried": Bars(("what was tried",), ("ratio",), by="of", spread=("lowest", "highest"), points=True, around=1.0),
}


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
    panels = _panels(bars, rows)
    together = len(panels[0].columns)
    height = max(1.7, 0.8 + 0.24 * max(len(panel.rows) for panel in panels) * (1 + 0.5 * (together - 1)))
    shape = (len(panels), 1) if bars.apart else (1, len(panels))
    labels = [[_label_of(bars, row) for row in panel.rows] for panel in panels]
    shared = all(one == labels[0] for one in labels)
    longest = max(len(label) for label in labels[0])
    width = (max(2.2, 0.07 * longest) if shared else 0.0) + (3.2 if shared else 4.6) * shape[1]
    height = 0.6 + 0.62 * shape[0] if bars.apart else height
    with style():
        figure, grid = subplots(*shape, figsize=(width, height), squeeze=False, sharey=shared)
        for axes, panel, names in zip(grid.flat, panels, labels, strict=True):
            _draw_panel(axes, bars, panel, names)
        if together > 1:
            legend_below(figure)
        for axes in grid[0, :1] if shared else grid.flat:
            axes.invert_yaxis()
        return save(figure, name)


def _draw_panel(axes: Any, bars: Bars, panel: "_Panel", names: Sequence[str]) -> None:
    """Draw a bar, or a point, for each row and column of a panel, with its figure beside it."""
    from purejaxdqn.pictures.palette import COLORS, MARKERS, OTHERS_COLOR, SOLVED_COLOR

    together = len(panel.columns)
    thickness = 0.75 / together
    marked = [not bars.mark or name.startswith(bars.mark) for name in names]
    for nth, column in enumerate(panel.columns):
        values = np.array([_number(row[column]) for row in panel.rows])
        places = np.arange(len(values)) + (nth - (together - 1) / 2) * thickness
        colors = [COLORS[nth] if here else OTHERS_COLOR for here in marked]
        spread = _spread(bars, values, panel.rows)
        if bars.points:
            look: Any = {"color": COLORS[nth], "ecolor": "0.5", "markersize": 4.5, "capsize": 2}
            axes.errorbar(values, places, xerr=spread, fmt=MARKERS[nth], label=column, **look)
        else:
            ends: Any = {"ecolor": "0.25", "capsize": 2}
            axes.barh(places, values, color=colors, height=thickness, xerr=spread, error_kw=ends, label=column)
        for place, value, end in zip(places, values, values + (0.0 if spread is None else spread[1]), strict=True):
            if math.isfinite(end):
                beside = end if bars.points else max(end, 0.0)  # right of 0 for a negative bar
                ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # a line does not cross the figure
                text = axes.annotate(_figure(value), (beside, place), (5, 0), textcoords="offset points", bbox=ground)
                text.set(va="center", fontsize=7)
    if bars.around is not None:
        axes.axvline(bars.around, color=SOLVED_COLOR, linestyle=":", linewidth=1.2)
    axes.set_yticks(range(len(names)), names)
    axes.margins(x=0.2)
    axes.set_ylim(-0.5, len(names) - 0.5)
    axes.grid(axis="y", visible=False)
    axes.set(title=panel.title, xlabel=panel.unit)
    _set_scale(axes, panel)


def _set_scale(axes: Any, panel: "_Panel") -> None:
    """Put a few ticks on the axis of values, at whole numbers if these are counts."""
    from matplotlib.ticker import MaxNLocator

    whole = all(_number(row[column]).is_integer() for row in panel.rows for column in panel.columns)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=whole, min_n_ticks=1))
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))


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
    if bars.apart:
        return [_Panel("", bars.unit if row is rows[-1] else "", bars.values, [row]) for row in rows]
    if bars.unit:
        return [_Panel("", bars.unit, bars.values, rows)]
    if not bars.by:
        return [_Panel("", column, (column,), rows) for column in bars.values]
    groups = dict.fromkeys(str(row[bars.by]) for row in rows)
    return [
        _Panel(_label(bars.by, group), bars.values[0], bars.values[:1], [r for r in rows if str(r[bars.by]) == group])
        for group in groups
    ]


def _label_of(bars: Bars, row: Mapping[str, Any]) -> str:
    return ", ".join(_label(column, str(row[column])) for column in bars.label)


def _label(column: str, text: str) -> str:
    return f"{column} {text}" if text.isdigit() else text


def _figure(value: float) -> str:
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _short(value: float) -> str:
    """Format a tick's label."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


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
