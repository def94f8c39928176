"""Pictures of the benchmarks' tables, each drawn from its CSV alone, so that a picture never says more than its table.

python -m benchmarks.pictures         draw all again from results/*.csv
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"


class Bars(NamedTuple):
    """A bar for each row, a panel for each value column."""

    label: tuple[str, ...]  # columns that name a row
    values: tuple[str, ...]
    by: str = ""  # a panel for each value of this column instead, of the first value column
    spread: tuple[str, str] | None = None  # columns of the lowest and highest value
    mark: str = ""  # rows whose name starts so are highlighted; all unless given


PICTURES: dict[str, Bars] = {
    "cartpole_scores": Bars(("seed_index",), ("gymnax", "gymnasium")),
    "cartpole_times": Bars(("run",), ("median (s)",), spread=("lowest (s)", "highest (s)")),
    "checkpoint": Bars(("what", "seeds"), ("cost (%)",), spread=("lowest (%)", "highest (%)")),
    "compiling": Bars(("config",), ("compile, nothing cached (s)", "compile, cached (s)", "import (s)")),
    "family": Bars(("choice",), ("time ratio",), by="network"),
    "family_convolution": Bars((), ("ours (ms an update)", "flax (ms an update)")),
    "guard": Bars(("preset",), ("instructions", "fusions", "update flops")),
    "kills": Bars(("run",), ("kills", "resumed", "runs ended")),
    "limit_parts": Bars(("part",), ("share",)),
    "limit_products": Bars(("product",), ("NumPy", "XLA")),
    "limit_step": Bars(("what",), ("microseconds", "environment steps/s")),
    "memory": Bars(("buffer", "seeds on the device"), ("sum (MB)", "the compiler's figure (MB)")),
    "minatar_breakout": Bars(("presets", "seed_index"), ("final_eval_return", "training_return")),
    "optimal": Bars(("environment",), ("best", "random")),
    "peers": Bars(("contender",), ("steps a second",), by="seeds", spread=("lowest", "highest"), mark="purejaxdqn"),
    "rounding": Bars(("runs",), ("IQM one after another", "IQM batched")),
    "search": Bars(("repetition",), ("TPE", "random", "cartpole.yaml")),
    "solved": Bars(("contender",), ("seconds (median)",), spread=("quickest", "slowest"), mark="purejaxdqn"),
    "sweeps": Bars(("work",), ("environment steps a second",)),
    "throughput_floor": Bars(("run",), ("ours", "floor")),
    "throughput_threads": Bars(("network", "seeds"), ("a thread a device", "default pool")),
    "tried": Bars(("what was tried",), ("ratio",), by="of", spread=("lowest", "highest")),
}


def main() -> None:
    for name in PICTURES:
        path = RESULTS / f"{name}.csv"
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                print(draw(name, list(csv.DictReader(file))))


def draw(name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Draw the table called ``name`` -> ``results/<name>.png``."""
    from matplotlib.ticker import MaxNLocator

    from purejaxdqn.host.pictures import EVALUATION, STYLE, TRAINING, plt

    bars = PICTURES[name]
    panels = _panels(bars, rows)
    height = max(1.6, 0.6 + 0.24 * max(len(mine) for _, _, mine in panels))
    shared = not bars.by or all(_labels(bars, mine) == _labels(bars, panels[0][2]) for _, _, mine in panels)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            1,
            len(panels),
            figsize=(2.2 + 3.2 * len(panels), height),
            layout="constrained",
            squeeze=False,
            sharey=shared,
        )
        for axes, (title, column, mine) in zip(grid[0], panels, strict=True):
            labels, values = _labels(bars, mine), [_number(row[column]) for row in mine]
            places = range(len(mine))
            marked = [not bars.mark or label.startswith(bars.mark) for label in labels]
            colors = [EVALUATION if here else TRAINING for here in marked]
            spread = _spread(bars, values, mine)
            axes.barh(places, values, color=colors, height=0.7, xerr=spread, ecolor="0.3")
            for place, value in zip(places, values, strict=True):
                end = value + (spread[1][place] if spread else 0.0)
                if math.isfinite(end):
                    axes.text(end, place, f"  {value:,.4g}" if abs(value) < 1000 else f"  {value:,.0f}", va="center")
            axes.set_yticks(places, labels)
            axes.margins(x=0.2, y=0.02)
            axes.grid(axis="y", visible=False)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(
                lambda value, _: f"{value:g}" if abs(value) < 10_000 else f"{value / 1000:g}k"
            )
            axes.set(title=title, xlabel=column if bars.by else "")
        for axes in grid[0, :1] if shared else grid[0]:
            axes.invert_yaxis()
        path = RESULTS / f"{name}.png"
        figure.savefig(path)
        plt.close(figure)
    return path


def _panels(bars: Bars, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, list[Mapping[str, Any]]]]:
    """Title, value column and rows of each panel."""
    if not bars.by:
        return [(column, column, list(rows)) for column in bars.values]
    groups = dict.fromkeys(str(row[bars.by]) for row in rows)
    of = [(group, [row for row in rows if str(row[bars.by]) == group]) for group in groups]
    return [(f"{bars.by}: {group}" if group.isdigit() else group, bars.values[0], mine) for group, mine in of]


def _labels(bars: Bars, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [", ".join(_label(column, str(row[column])) for column in bars.label) for row in rows]


def _label(column: str, text: str) -> str:
    return f"{column} {text}" if text.isdigit() else text


def _spread(bars: Bars, values: Sequence[float], rows: Sequence[Mapping[str, Any]]) -> list[list[float]] | None:
    if bars.spread is None:
        return None
    low, high = ([_number(row[column]) for row in rows] for column in bars.spread)
    pairs = list(zip(values, low, high, strict=True))
    finite = [all(map(math.isfinite, pair)) for pair in pairs]
    return [
        [max(0.0, value - least) if fine else 0.0 for (value, least, _), fine in zip(pairs, finite, strict=True)],
        [max(0.0, most - value) if fine else 0.0 for (value, _, most), fine in zip(pairs, finite, strict=True)],
    ]


def _number(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


if __name__ == "__main__":
    main()
