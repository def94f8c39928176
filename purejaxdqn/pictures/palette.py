"""Colours, lines and markers of all figures, the benchmarks' included.

The colours are those of Okabe and Ito (2008, "Color Universal Design") without yellow, which is too pale on white.
People with any kind of colour blindness can distinguish them, and every curve also has a line style and a marker.
"""

from typing import NamedTuple

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""In the order in which they are used."""
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
EVALUATION_COLOR, TRAINING_COLOR = COLORS[:2]
SOLVED_COLOR, OTHERS_COLOR = "#595959", "#999999"
"""Of targets, and of what is in the background."""
EVALUATION_LINE, TRAINING_LINE, SOLVED_LINE = "-", "--", ":"
SEQUENTIAL = ("viridis", 0.92, 0.0)
"""Colour map of scores, from low to high: its pale end is left out, and the best are the darkest."""
DIVERGING = "RdBu"
"""Colour map around a middle: red and blue."""


class Look(NamedTuple):
    """How one of several curves looks."""

    color: str
    linestyle: str
    marker: str


def look(nth: int) -> Look:
    """The look of the ``nth`` of several curves; the first 28 differ, and those of one colour in their lines."""
    return Look(COLORS[nth % len(COLORS)], LINES[nth % len(LINES)], MARKERS[nth % len(MARKERS)])
