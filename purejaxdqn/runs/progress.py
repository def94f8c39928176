"""Progress: a bar on a terminal and in a notebook, plain lines elsewhere."""

import contextlib
import html
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
import rich.console
import rich.live
import rich.text

from purejaxdqn.core.config import Config
from purejaxdqn.core.plan import intervals_of
from purejaxdqn.runs.metrics import Metrics
from purejaxdqn.system.messages import in_figures
from purejaxdqn.system.status import Cell, Status, Ticker, is_notebook

_WIDE = 110
"""Columns of a terminal from which the bar itself is long."""


class _Display:
    """Context manager that shows environment steps; its clock starts when it is entered.

    A bar counts the time that has passed and the time left even while nothing is reported.
    """

    def __init__(self, total: int, *, done: int, first: str, quiet: bool):
        self._total, self._done, self._quiet = total, done, quiet
        self._phase, self._words = first, dict[str, str]()
        self._left: float | None = None  # seconds, at the moment of the last report
        self._start = self._reported = self._phase_start = time.perf_counter()
        self._bar = _make_bar(self, quiet=quiet)

    def __enter__(self) -> Self:
        self._start = self._reported = self._phase_start = time.perf_counter()
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it is; later calls do nothing."""
        if self._bar:
            self._bar.stop()

    @property
    def share(self) -> float:
        """What is done, from 0 to 1."""
        return self._done / self._total if self._total else 1.0

    def parts(self) -> dict[str, str]:
        """What there is to show now, by names; see ``_ORDER``."""
        now = time.perf_counter()
        phase, times = {}, {"elapsed": f"{_clock(now - self._start)} elapsed"}
        if self._phase:
            seconds = round(now - self._phase_start)
            phase["phase"] = f"{self._phase} ({seconds} s)" if seconds else self._phase
        if self._left is not None:
            times["left"] = f"{_clock(round(max(self._left - (now - self._reported), 0.0)))} left"
        return {"steps": f"{self._done:,}/{self._total:,} steps", **self._words, **phase, **times}

    def _report(self, done: int, rate: float, words: Mapping[str, str]) -> None:
        """Note what is done, the mean rate in steps a second, and what else there is to say."""
        self._reported = time.perf_counter()
        self._left = (self._total - done) / rate
        self._done, self._phase, self._words = done, "", {**words, "rate": f"{rate:,.0f} steps/s"}

    def _print(self) -> None:
        """Print the parts as a line."""
        words = [text for name, text in self.parts().items() if name != "steps"]
        print(f"{self._done:>10,}/{self._total:,} {' '.join(words)}", file=sys.stderr, flush=True)


class RunProgress(_Display):
    """Progress of one training with all its seeds, in steps of each seed; call ``update`` after each segment."""

    def __init__(self, config: Config, *, done: int = 0, quiet: bool = False):
        first = "warm-up" if not done and intervals_of(config).warmup else ""
        super().__init__(config.total_timesteps, done=done, first=first, quiet=quiet)
        self._begin = done

    def update(self, metrics: Metrics) -> None:
        """Show the means over seeds of the last epoch of ``metrics``."""
        env_step = int(metrics.env_step[0, -1])
        rate = (env_step - self._begin) / (time.perf_counter() - self._start)
        words = {
            "train": f"train {_mean(metrics.episode_return[:, -1])}",
            "eval": f"eval {_mean(metrics.eval_return[:, -1])}",
            "more": f"loss {_mean(metrics.loss[:, -1], '{:.4f}'.format)} eps {metrics.epsilon[0, -1]:.2f}",
        }
        self._report(env_step, rate, words)
        if not self._bar and not self._quiet:
            self._print()


class WorkProgress(_Display):
    """Progress of many runs, in the environment steps of all of them; call ``update`` after each segment."""

    def __init__(self, total: int, *, quiet: bool = False):
        super().__init__(total, done=0, first="", quiet=quiet)
        self._printed = 0
        self._compiled = 0.0  # seconds

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Say that the block compiles a program; the rate and the time left do without its seconds."""
        self._phase, self._phase_start = "compiling", time.perf_counter()
        try:
            with Status("compiling", quiet=self._quiet or self._bar is not None):
                yield
        finally:
            self._phase = ""
            self._compiled += time.perf_counter() - self._phase_start

    def update(self, runs: int, env_steps: int) -> None:
        """Report that ``runs`` runs have each taken ``env_steps`` more steps."""
        done = self._done + runs * env_steps
        self._report(done, done / (time.perf_counter() - self._start - self._compiled), {})
        if not self._bar and not self._quiet and done - self._printed >= 0.05 * self._total:
            self._printed = done
            self._print()


def _make_bar(display: _Display, *, quiet: bool) -> Any:
    """A bar in a notebook, or on standard error; None if that is no terminal."""
    if quiet:
        return None
    if is_notebook():
        return _NotebookBar(display)
    return _TerminalBar(display) if sys.stderr.isatty() else None


class _TerminalBar(rich.live.Live):
    """A line that is drawn four times a second; what others print appears above it."""

    def __init__(self, display: _Display):
        self._display = display
        super().__init__(console=rich.console.Console(stderr=True), refresh_per_second=4, get_renderable=self.frame)

    def start(self, refresh: bool = True) -> None:
        """Show the line."""
        super().start(refresh=refresh)

    def frame(self) -> rich.text.Text:
        """The line as it is now."""
        room, share = self.console.width - 1, self._display.share
        bar = ("-" if self.console.options.ascii_only else "━") * (20 if room >= _WIDE else 8)
        line = rich.text.Text(no_wrap=True, overflow="crop")
        for name, text in fit({**self._display.parts(), "bar": bar}, share, room).items():
            line.append(" " if line else "")
            full = round(share * len(bar)) if name == "bar" else len(text)
            line.append(text[:full], style="bar.complete" if name == "bar" else "").append(
                text[full:], style="bar.back"
            )
        return line


class _NotebookBar:
    """A bar in the output of a notebook's cell, which counts seconds."""

    def __init__(self, display: _Display):
        self._display, self._cell = display, Cell()
        self._ticker: Ticker | None = None

    def start(self) -> None:
        """Show the bar."""
        self.refresh()
        self._ticker = Ticker(1.0, self.refresh)
        self._ticker.start()

    def refresh(self) -> None:
        """Show the bar as it is now."""
        text = html.escape(" ".join(self._display.parts().values()))
        self._cell.show(f"<progress value='{self._display.share:.4f}' style='width: 20em'></progress> {text}")

    def stop(self) -> None:
        """Leave the last state of the bar."""
        if self._ticker:
            self._ticker.stop()
            self._ticker = None
            self.refresh()


_ORDER = ("steps", "bar", "train", "eval", "more", "rate", "phase", "elapsed", "left")
_LEFT_OUT = ("more", "rate", "bar", "train", "steps", "eval", "elapsed")
"""What is left out on a narrow terminal, in this order; the steps are replaced by a percentage."""


def fit(parts: Mapping[str, str], share: float, room: int) -> dict[str, str]:
    """The parts that fit side by side into ``room`` columns, from left to right."""
    shown = {name: parts[name] for name in _ORDER if name in parts}
    for name in _LEFT_OUT:
        if sum(map(len, shown.values())) + len(shown) - 1 <= room:
            break
        if name == "steps":
            shown[name] = f"{int(100 * share)}%"
        else:
            shown.pop(name, None)
    return shown


def _clock(seconds: float) -> str:
    """``0:05``, ``12:34`` or ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _mean(values: np.ndarray, shown: Callable[[float], str] = in_figures) -> str:
    known = values[~np.isnan(values)]
    return shown(known.mean()) if len(known) else "-"
