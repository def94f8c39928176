"""What all figures share: style, axes, legends, and files.

No picture goes through pyplot, so that drawing neither depends on a user's Matplotlib backend nor changes it.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib.style
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, MaxNLocator, NullFormatter, NullLocator

from purejaxdqn.pictures.palette import SEQUENTIAL
from purejaxdqn.system.files import replacing

FORMATS = ("png", "pdf", "svg")
_STYLE: Any = {
    "figure.dpi": 130,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3 fonts
    "svg.hashsalt": "purejaxdqn",  # else equal figures get different ids
}
# No version of Matplotlib and no date in a file: equal runs must write equal pictures.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
}
_CHARACTER = 0.068  # width in inches of a character of small text, with some room
_MOST_TICKS = 12


def style(*, grid: bool = True) -> Any:
    """Return a context in which figures look like ours, whatever the user's settings of Matplotlib."""
    return matplotlib.style.context(["default", {**_STYLE, "axes.grid": grid}])


def subplots(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **options: Any) -> tuple[Figure, Any]:
    """Return a figure and its axes as ``pyplot.subplots`` does; ``options`` are those of ``Figure.subplots``."""
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def literal(text: str) -> str:
    """Return text that Matplotlib draws as it is: no formulas between dollars, no names that legends leave out."""
    text = text.encode(errors="replace").decode().replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def draw_lines(axes: Axes, lines: Sequence[np.ndarray], **look: Any) -> None:
    """Plot lines, each through points [T, 2], as one collection: a thousand lines one by one take ten seconds."""
    axes.add_collection(LineCollection(lines, **look))
    axes.autoscale_view()


def score_colors() -> Colormap:
    """The colour map of scores: from pale for low ones to dark for high ones."""
    name, low, high = SEQUENTIAL
    return LinearSegmentedColormap.from_list("scores", colormaps[name](np.linspace(low, high, 256)))


def ink_on(color: Sequence[float]) -> str:
    """Black or white, whichever is easier to read on a colour (red, green, blue in [0, 1])."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color[:3])
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "white"


def set_steps(axes: Axes) -> None:
    """Abbreviate large numbers of the x axis (50k)."""
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def set_counts(axis: Any) -> None:
    """Put the ticks of an axis of counts at whole numbers."""
    axis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def scale_of(values: Iterable[float]) -> str:
    """The scale of an axis: logarithmic for positive numbers that are more evenly spread there.

    Their middle decides: that of 1e-4, 3e-4, 1e-3 is nearer to the centre of a logarithmic axis. Two numbers need a
    factor of 10, and more numbers one of 4.
    """
    ordered = np.unique(np.fromiter(values, float))
    ordered = ordered[np.isfinite(ordered)]
    if len(ordered) < 2 or ordered[0] <= 0 or ordered[-1] / ordered[0] < (10 if len(ordered) == 2 else 4):
        return "linear"
    if len(ordered) == 2:
        return "log"

    def distance(one: np.ndarray) -> float:
        return abs((np.median(one) - one[0]) / (one[-1] - one[0]) - 0.5)

    return "log" if distance(np.log(ordered)) < distance(ordered) else "linear"


def set_values(axes: Axes, side: str, values: Iterable[float]) -> None:
    """Scale the axis ``side`` ("x" or "y") for swept values; a few of them are its ticks, as far as they have room."""
    ordered = np.unique(np.fromiter(values, float))
    ordered = ordered[np.isfinite(ordered)]
    scale, axis = scale_of(ordered), getattr(axes, f"{side}axis")
    axes.set(**{f"{side}scale": scale})
    if 0 < len(ordered) <= _MOST_TICKS:
        _set_ticks(axis, _spaced(ordered, scale, 0.16 if side == "x" else 0.08))
    elif scale == "log":
        set_log_ticks(axis, ordered[0], ordered[-1])


def set_log_ticks(axis: Any, low: float, high: float) -> None:
    """Label round numbers of a logarithmic axis from ``low`` to ``high``: 1, 2, 5 times powers of ten, or fewer."""
    decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [np.sort(np.outer(decades, steps).ravel()) for steps in ((1, 2, 5), (1, 3), (1,))]
    inside = [one[(one >= low * (1 - 1e-9)) & (one <= high * (1 + 1e-9))] for one in choices]
    ticks = next((one for one in inside if len(one) <= 5), inside[-1])
    if len(ticks) < 2:  # less than a decade
        ticks = np.asarray(MaxNLocator(4).tick_values(low, high))
        ticks = ticks[(ticks >= low) & (ticks <= high)]
    _set_ticks(axis, ticks[:: max(1, -(-len(ticks) // 5))])


def _set_ticks(axis: Any, ticks: np.ndarray) -> None:
    axis.set_ticks(ticks, [f"{tick:.4g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _spaced(ordered: np.ndarray, scale: str, least: float) -> np.ndarray:
    """Those of ordered values that are at least the share ``least`` of the axis apart, the first among them."""
    places = np.log(ordered) if scale == "log" else ordered
    kept = [0]
    for nth, place in enumerate(places):
        if place - places[kept[-1]] >= least * (places[-1] - places[0]) > 0:
            kept.append(nth)
    return ordered[kept]


def nice_edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Edges of at most ``bins`` bins of one width for finite values [N]: round, with no empty bin at the ends."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([low - 0.5, low + 0.5])
    edges = np.asarray(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2).tick_values(low, high))
    first, last = np.searchsorted(edges, low, side="right") - 1, np.searchsorted(edges, high * (1 - 1e-12))
    edges = edges[max(first, 0) : last + 1]
    edges[[0, -1]] = min(edges[0], low), max(edges[-1], high)  # for the last digit
    return edges


def set_edges(axes: Axes, edges: np.ndarray) -> None:
    """Put the ticks of the x axis at edges of bins: a small tick at each, a label at eight of them at most."""
    axes.xaxis.set_major_locator(FixedLocator(list(edges[:: -(-len(edges) // 8)])))
    axes.xaxis.set_minor_locator(FixedLocator(list(edges)))


def legend_below(figure: Any, *, reverse: bool = False) -> None:
    """Add a legend below the axes of a figure or subfigure, where it covers nothing; each label once."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        labels = list(found)[:: -1 if reverse else 1]
        room = figure.bbox.width / figure.dpi
        columns = max(1, min(len(labels), int(room / (_CHARACTER * max(map(len, labels)) + 0.6))))
        handles = [found[label] for label in labels]
        figure.legend(handles, labels, fontsize="small", loc="outside lower center", ncols=columns, handlelength=2.8)


def save_figures(
    folder: Path, figures: Iterable[tuple[str, Figure]], formats: Sequence[str] = FORMATS[:1]
) -> list[Path]:
    """Save figures by their names into a folder, in each of the formats; return the files."""
    drawn = []
    for name, figure in figures:
        for suffix in formats:
            save_figure(figure, folder / f"{name}.{suffix}")
            drawn.append(folder / f"{name}.{suffix}")
    return drawn


def save_figure(figure: Figure, path: Path | BinaryIO) -> None:
    """Save a figure.

    Args:
      figure: it was drawn in the context ``style``.
      path: file to write, in the format of its suffix, which is one of ``FORMATS``; or a binary stream for a PNG.
    """
    with style(), warnings.catch_warnings():  # Matplotlib makes ticks late, and reads its settings then
        warnings.filterwarnings("ignore", "Glyph")  # a name in another script is drawn as boxes
        if isinstance(path, Path):
            with replacing(path) as part:
                suffix = path.suffix[1:].lower()
                figure.savefig(part, format=suffix, metadata=_METADATA[suffix])
        else:
            figure.savefig(path, format="png", metadata=_METADATA["png"])
