"""The pictures in the directory of one run."""

from pathlib import Path

from purejaxdqn.core.config import Config
from purejaxdqn.pictures.runs import draw_learning_curve, draw_report
from purejaxdqn.runs.metrics import Metrics, solved_at


def draw_run(folder: Path, metrics: Metrics, config: Config) -> list[Path]:
    """Draw ``learning_curve.png`` and ``report.png``; returns the files."""
    title = f"{config.env.id}, {config.num_seeds} seed{'s' if config.num_seeds > 1 else ''}"
    drawn = [folder / "learning_curve.png", folder / "report.png"]
    for path, draw in zip(drawn, (draw_learning_curve, draw_report), strict=True):
        draw(path, metrics, title=title, solved_at=solved_at(config))
    return drawn
