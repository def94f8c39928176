"""The film in the report of a run: a greedy episode of its best agent, unless there is a film in the directory."""

import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purejaxdqn.config.reading import CONFIG_FILE
from purejaxdqn.pictures import report_parts as parts
from purejaxdqn.pictures import webpages as web
from purejaxdqn.policies.summaries import is_altered, is_changed
from purejaxdqn.policies.weights import POLICY_FILE
from purejaxdqn.system.faults import reason_of
from purejaxdqn.system.files import is_inside
from purejaxdqn.system.status import Status


def lacks_film(folder: Path) -> bool:
    """Whether a directory is that of a finished run, without a film in it."""
    finished = all(is_inside(folder / name, folder) for name in (CONFIG_FILE, POLICY_FILE, "summary.json"))
    return finished and not parts.list_files(folder, *parts.FILMS)


def film_best_agent(folder: Path, summary: Mapping[str, Any], *, trust: bool) -> str:
    """Film a greedy episode; the film is only in the page that is returned, or the reason why there is none.

    Args:
      folder: the directory of a finished run.
      summary: its summary.
      trust: see ``load_params``.
    """
    if is_altered(summary) or is_changed(folder / CONFIG_FILE, summary):
        return web.paragraph("There is no film, because files have changed since the run ended.")
    try:
        with Status("playing an episode for the film"), tempfile.TemporaryDirectory() as place:
            return _film(folder, _best_agent(summary), Path(place), trust=trust)
    except Exception as error:  # an environment may raise anything, and the page is complete without a film
        return web.paragraph(f"There is no film: {reason_of(error)}")


def _film(folder: Path, seed_index: int, place: Path, *, trust: bool) -> str:
    import jax

    from purejaxdqn.pictures.drawings import check_drawable
    from purejaxdqn.pictures.films import write_film
    from purejaxdqn.policies.episodes import record_episode
    from purejaxdqn.policies.policies import load_params

    config, params = load_params(folder, trust=trust)
    check_drawable(config)
    episode = record_episode(config, jax.tree.map(lambda leaf: leaf[seed_index], params), seed=0)
    path = place / ("film.mp4" if importlib.util.find_spec("imageio_ffmpeg") else "film.gif")
    write_film(path, episode, config, seed_index=seed_index)
    steps = f"{len(episode.rewards):,} step{'s' if len(episode.rewards) > 1 else ''}"
    caption = f"A greedy episode of agent {seed_index}: return {episode.rewards.sum():g} in {steps}, {episode.ending}."
    return parts.embed_film(path, caption)


def _best_agent(summary: Mapping[str, Any]) -> int:
    """The agent with the highest final return that has not diverged; the first one if there is none."""
    scores = zip(summary["final_eval_return"], summary["diverged"], strict=True)
    returns = [float("-inf") if value is None or diverged else float(value) for value, diverged in scores]
    return returns.index(max(returns))
