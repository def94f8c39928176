"""The pictures in the directory of one run."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from purejaxdqn.core.config import Config
from purejaxdqn.pictures.figures import FORMATS, save_figures
from purejaxdqn.pictures.runs import draw_learning_curve, draw_report
from purejaxdqn.runs.metrics import Metrics, solved_at


def draw_run(folder: Path, metrics: Metrics, config: Config, formats: Sequence[str] = FORMATS[:1]) -> list[Path]:
    """Draw ``learning_curve`` and ``report`` in each of the formats; return the files."""
    return save_figures(folder, run_figures(metrics, config), formats)


def run_figures(metrics: Metrics, config: Config) -> Iterator[tuple[str, Figure]]:
    """The figures of a run by the names of their files: the learning curve, and the four panels."""
    title = f"{config.env.id}, {config.num_seeds} seed{'s' if config.num_seeds > 1 else ''}"
    for name, draw in (("learning_curve", draw_learning_curve), ("report", draw_report)):
        yield name, draw(metrics, title=title, solved_at=solved_at(config))
