"""Progress: a bar on a terminal, plain lines elsewhere."""

import html
import sys
import time
from types import TracebackType
from typing import Any, Self

import numpy as np
import rich.console
import rich.progress

from purejaxdqn.core.config import Config
from purejaxdqn.runs.metrics import Metrics

_WIDE = 110
"""Columns of a terminal from which a bar has room for everything."""


class _Display:
    """Context manager that shows environment steps; its clock starts when it is entered."""

    def __init__(self, total: int, *, done: int, first: str, quiet: bool):
        self._total, self._done, self._first, self._quiet = total, done, first, quiet
        self._start = time.perf_counter()
        self._bar = _make_bar(quiet=quiet)

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, completed=self._done, text=self._first)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it is; later calls do nothing."""
        if self._bar:
            self._bar.stop()


class RunProgress(_Display):
    """Progress of one training with all its seeds; call ``update`` after each segment."""

    def __init__(self, config: Config, *, done: int = 0, quiet: bool = False):
        super().__init__(config.total_timesteps, done=done, first="warm-up", quiet=quiet)
        self._num_seeds = config.num_seeds

    def update(self, metrics: Metrics) -> None:
        """Show the means over seeds of the last epoch of ``metrics``."""
        env_step = int(metrics.env_step[0, -1])
        elapsed = time.perf_counter() - self._start
        steps_per_second = (env_step - self._done) * self._num_seeds / elapsed
        rate = f"{steps_per_second:,.0f} steps/s"
        returns = f"train {_mean(metrics.episode_return[:, -1])} eval {_mean(metrics.eval_return[:, -1])}"
        more = f"loss {_mean(metrics.loss[:, -1], 4)} eps {metrics.epsilon[0, -1]:.2f}"
        left = _left(elapsed * (self._total - env_step) / (env_step - self._done))
        if self._bar:
            words = [returns, more, rate, left] if self._bar.is_wide else [returns, left]
            self._bar.update(self._task, completed=env_step, text=" ".join(words))
        elif not self._quiet:
            line = f"{env_step:>10,}/{self._total:,} {returns} {more} {rate}, {left}"
            print(line, file=sys.stderr, flush=True)


def _make_bar(*, quiet: bool) -> Any:
    """A bar in a notebook, or on standard error; None if that is no terminal."""
    if quiet:
        return None
    if is_notebook():
        return _NotebookBar()
    if not sys.stderr.isatty():
        return None
    return _TerminalBar()


class _TerminalBar(rich.progress.Progress):
    """A bar that leaves out what does not fit: a narrow terminal gets neither loss nor rate."""

    def __init__(self) -> None:
        console = rich.console.Console(stderr=True)
        self.is_wide = console.width >= _WIDE
        super().__init__(
            rich.progress.TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            rich.progress.BarColumn(bar_width=20 if self.is_wide else 8),
            rich.progress.TextColumn("{task.fields[text]}"),
            console=console,
        )


def _left(seconds: float) -> str:
    minutes, whole = divmod(round(seconds), 60)
    return f"{minutes} min {whole} s left" if minutes else f"{whole} s left"


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class _NotebookBar:
    """A bar in the output of a notebook's cell, with the methods of rich's that are used; it needs no widgets."""

    is_wide = True

    def start(self) -> None:
        """Show nothing yet."""

    def add_task(self, _: str, **about: Any) -> int:
        """Show the bar."""
        self._about = about
        self._handle = sys.modules["IPython"].display.display(self._html(), display_id=True)
        return 0

    def update(self, _: int, **about: Any) -> None:
        """Show the bar again with what has changed."""
        self._about |= about
        self._handle.update(self._html())

    def stop(self) -> None:
        """Leave the last state of the bar."""

    def _html(self) -> Any:
        done, total, text = (self._about[name] for name in ("completed", "total", "text"))
        bar = f"<progress value='{done}' max='{total}' style='width: 20em'></progress>"
        return sys.modules["IPython"].display.HTML(f"{bar} {done:,.0f}/{total:,.0f} steps {html.escape(text)}")


class WorkProgress(_Display):
    """Progress of many runs, in the environment steps of all of them; call ``update`` after each segment."""

    def __init__(self, total: int, *, quiet: bool = False):
        super().__init__(total, done=0, first="compiling", quiet=quiet)
        self._shown = 0.0

    def update(self, runs: int, env_steps: int) -> None:
        """Report that ``runs`` runs have each taken ``env_steps`` more steps."""
        self._done += runs * env_steps
        elapsed = time.perf_counter() - self._start
        left = _left(elapsed * (self._total - self._done) / self._done)
        text = f"{self._done / elapsed:,.0f} steps/s, {left}"
        if self._bar:
            self._bar.update(self._task, completed=self._done, text=text)
        elif not self._quiet and self._done - self._shown >= 0.05 * self._total:
            self._shown = self._done
            print(f"{self._done:>12,}/{self._total:,} {text}", file=sys.stderr, flush=True)


def _mean(values: np.ndarray, digits: int = 1) -> str:
    known = values[~np.isnan(values)]
    return f"{known.mean():.{digits}f}" if len(known) else "-"
