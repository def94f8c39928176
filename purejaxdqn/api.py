"""Training and its results for notebooks and scripts: ``train`` and ``load_run`` return a ``Run``."""

import base64
import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from purejaxdqn.config.reading import CONFIG_FILE, Draft, load_config, read_config
from purejaxdqn.config.trust import check_trust
from purejaxdqn.core.config import Config
from purejaxdqn.policies.greedy import Policy
from purejaxdqn.policies.summaries import SUMMARY_FILE, read_summary
from purejaxdqn.runs.metrics import METRICS_FILE, Metrics, read_metrics
from purejaxdqn.system.directories import default_directories
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import replacing
from purejaxdqn.system.signals import Stopped, StopSignals
from purejaxdqn.system.status import Status


@dataclass(frozen=True)
class Picture:
    """A picture or film in a file; a notebook shows it."""

    path: Path
    draw: Callable[[], Any] | None = field(default=None, repr=False, compare=False)  # makes the figure again

    def save(self, path: str | Path) -> Path:
        """Write the picture to a file, which is replaced if it exists; return the path.

        Args:
          path: a figure as ``.png``, ``.pdf`` or ``.svg``; a film keeps its format.

        Raises:
          UserError: the suffix is not one of these, or the file cannot be written.
        """
        from purejaxdqn.pictures.figures import FORMATS, save_figure

        path = Path(path)
        suffixes = [f".{one}" for one in FORMATS] if self.draw else [self.path.suffix]
        if path.suffix.lower() not in suffixes:
            raise UserError(f"{path} must end in {' or '.join(suffixes)}")
        try:
            if self.draw:
                save_figure(self.draw(), path)
            else:
                with replacing(path) as part:
                    shutil.copyfile(self.path, part)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
        return path

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        kind = {".png": "image/png", ".gif": "image/gif"}.get(self.path.suffix)
        return {kind: base64.b64encode(self.path.read_bytes()).decode()} if kind else {"text/plain": str(self.path)}


@dataclass(frozen=True)
class Run:
    """A run directory: its config, its results, and its agents."""

    folder: Path
    config: Config
    summary: dict[str, Any] = field(repr=False)  # contents of ``summary.json``; {} if the run is not finished

    @property
    def metrics(self) -> Any:
        """``metrics.csv``, a row per seed and epoch, as a DataFrame; without pandas the columns [S, T] by name."""
        try:
            import pandas  # type: ignore[import-untyped]
        except ImportError:
            return read_metrics(self.folder / METRICS_FILE)._asdict()
        return pandas.read_csv(self.folder / METRICS_FILE)

    def policy(self, seed_index: int = 0) -> Policy:
        """The greedy policy of one agent.

        Raises:
          UserError: the run is not finished, or has no such agent.
        """
        from purejaxdqn.policies.policies import load_policy

        return load_policy(self.folder, seed_index=seed_index, trust=True)

    def evaluate(self, *, episodes: int = 100, seed: int = 0, progress: bool = True) -> np.ndarray:
        """Play greedy episodes with every agent.

        Args:
          episodes: number of episodes of each agent.
          seed: of the episodes.
          progress: False shows nothing meanwhile.

        Returns:
          Undiscounted returns [S, episodes].

        Raises:
          UserError: the run is not finished.
        """
        with Status("compiling and playing", quiet=not progress):
            from purejaxdqn.policies.policies import evaluate_policy, load_params

            config, params = load_params(self.folder, trust=True)
            return evaluate_policy(config, params, episodes=episodes, seed=seed)

    def plot(self) -> Picture:
        """Draw the learning curve, evaluation and training return against environment steps.

        ``run.plot().save("curve.pdf")`` writes it in another format.
        """
        from purejaxdqn.pictures.run_directory import draw_run, run_figures

        metrics = read_metrics(self.folder / METRICS_FILE)
        path = draw_run(self.folder, metrics, self.config)[0]
        return Picture(path, lambda: next(run_figures(metrics, self.config))[1])

    def film(
        self, path: str | Path | None = None, *, seed_index: int = 0, seed: int = 0, progress: bool = True
    ) -> Picture:
        """Film a greedy episode.

        Args:
          path: a new ``.gif`` or ``.mp4``; by default ``episode-K-SEED.gif`` in the run directory, which is kept if it
            is there.
          seed_index: the agent K.
          seed: of the episode.
          progress: False shows nothing meanwhile.

        Raises:
          UserError: the file exists or cannot be written, there is no such agent, or the environment cannot be drawn.
        """
        from purejaxdqn.pictures.drawings import check_drawable
        from purejaxdqn.pictures.films import check_film, write_film
        from purejaxdqn.policies.episodes import record_episode
        from purejaxdqn.policies.policies import check_seed_index, load_params

        place = Path(path) if path else self.folder / f"episode-{seed_index}-{seed}.gif"
        if not path and place.exists():
            return Picture(place)
        check_film(place)
        with Status("playing an episode and drawing it", quiet=not progress):
            config, params = load_params(self.folder, trust=True)
            check_seed_index(config, seed_index)
            check_drawable(config)
            agent = jax.tree.map(lambda leaf: leaf[seed_index], params)
            episode = record_episode(config, agent, seed=seed)
            write_film(place, episode, config, seed_index=seed_index)
        return Picture(place)


def train(
    config: Config | str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    progress: bool = True,
    callback: Callable[[Metrics], Any] | None = None,
) -> Run:
    """Train a run and leave a run directory, as ``python -m purejaxdqn.train`` does.

    Args:
      config: a ``Config``, or the name or path of a config, or several. For overrides pass ``load_config(...)``.
      out: the run directory, which must not exist; by default ``runs/<name>/<timestamp>`` with the config's name, or
        that of the environment for a ``Config``.
      progress: False shows none; by default a terminal and a notebook show the phase and a bar, and there are lines
        elsewhere.
      callback: called after each of about twenty segments, or after each evaluation if ``stop.return`` is set, with
        the metrics so far, leaves [S, T]. If it returns True, the run ends there; its last state is saved, so that
        ``train --resume`` continues it.

    Returns:
      The finished run.

    Raises:
      UserError: the config, the directory or the run is refused.
      KeyboardInterrupt: the run was interrupted; it has been saved.
    """
    from purejaxdqn.pictures.run_directory import draw_run
    from purejaxdqn.runs import opening, runner
    from purejaxdqn.runs.loggers import check_loggers
    from purejaxdqn.runs.memory import check_memory
    from purejaxdqn.system.runtime import use_compilation_cache

    with Status("checking the config", quiet=not progress):
        ready = Draft(config, (), ()).checked() if isinstance(config, Config) else load_config(config)
        check_loggers(ready)
        check_memory(ready)
    use_compilation_cache()
    names = [ready.env.id.replace(":", "-")] if isinstance(config, Config) else _listed(config)
    folders = [Path(out)] if out else default_directories(names)
    options = runner.RunOptions(quiet=not progress, callback=callback)
    with opening.open_run(folders, ready, segments=None) as opened, _stop_signals() as stop:
        try:
            summary = runner.run(opened, options, stop, draw=draw_run, import_seconds=0.0)
        except Stopped as stopped:
            raise KeyboardInterrupt(f"stopped by {stopped}; python -m purejaxdqn.train --resume continues") from stopped
    return Run(opened.folder, ready, summary)


def _listed(names: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(names)] if isinstance(names, str | Path) else [str(name) for name in names]


@contextlib.contextmanager
def _stop_signals() -> Iterator[StopSignals]:
    """Obey signals between segments where that is possible: in the main thread."""
    stop = StopSignals()
    if threading.current_thread() is threading.main_thread():
        with stop:
            yield stop
    else:
        yield stop


def load_run(folder: str | Path, *, trust: bool = False) -> Run:
    """Load a run directory.

    Args:
      folder: it may be of a run that is not finished; its ``summary`` is then empty.
      trust: whether a module that its config names as the environment may be imported even if this user did not start
        the run here.

    Raises:
      UserError: there is no run, or it is damaged.
    """
    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(f"{folder} is not a run: it has no {CONFIG_FILE}")
    draft = read_config(folder / CONFIG_FILE)
    check_trust(folder, draft.unchecked(), trust=trust)
    finished = (folder / SUMMARY_FILE).is_file()
    return Run(folder, draft.checked(), read_summary(folder) if finished else {})
