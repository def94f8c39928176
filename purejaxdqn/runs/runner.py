"""Train one run in its directory."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from purejaxdqn.config.reading import CONFIG_FILE
from purejaxdqn.core.config import Config
from purejaxdqn.core.plan import intervals_of
from purejaxdqn.policies.summaries import digests, write_summary
from purejaxdqn.policies.weights import POLICY_FILE, save_policy
from purejaxdqn.runs import directory
from purejaxdqn.runs.ahead import Ahead
from purejaxdqn.runs.debugging import Debugger, FoundNan
from purejaxdqn.runs.divergence import DivergenceWatch
from purejaxdqn.runs.journal import Journal
from purejaxdqn.runs.metrics import METRICS_FILE, Metrics
from purejaxdqn.runs.opening import OpenRun
from purejaxdqn.runs.population import BEGINNING, Position, advance, finish_training
from purejaxdqn.runs.snapshots import Snapshot, fetch_state, place_state, save_snapshot
from purejaxdqn.runs.stopping import is_reached
from purejaxdqn.runs.training import Training, compile_training, seeds_of
from purejaxdqn.system.faults import drawing
from purejaxdqn.system.runtime import usable_cores
from purejaxdqn.system.signals import StopSignals
from purejaxdqn.system.status import Status


class RunOptions(NamedTuple):
    """How a run is trained; none of it changes the results, but that ``callback`` may end the run early."""

    seeds_at_once: int | None = None  # seeds vmapped together on a device
    debug_nans: bool = False
    quiet: bool = False
    callback: Callable[[Metrics], Any] | None = None  # called after each segment with all epochs so far; True ends
    prepare: Callable[[], Any] | None = None  # what ``draw`` will need, such as imports, while the run trains
    keep: bool = False  # whether compiled programs are kept on disk, and taken from there


def run(
    opened: OpenRun,
    options: RunOptions,
    stop: StopSignals,
    *,
    draw: Callable[[Path, Metrics, Config], Any],
    import_seconds: float,
) -> dict[str, Any]:
    """Compile, train, and fill the directory.

    Args:
      opened: the run.
      options: how to train it.
      stop: the signals to obey between segments.
      draw: draws the pictures of a finished run into its directory.
      import_seconds: for the summary.

    Returns:
      The summary.

    Raises:
      Stopped: a signal arrived; the run has been saved.
      StorageError: the disk is full.
      FoundNan: with ``debug_nans``, a run diverged.
    """
    config, seeds = opened.config, seeds_of(opened.config)
    with Status("compiling", quiet=options.quiet):
        training = compile_training(
            config, seeds, segments=opened.segments, batch_size=options.seeds_at_once, keep=options.keep
        )
    stop.check()
    if not options.quiet:
        print(f"compiled in {training.compile_seconds:.1f} s", file=sys.stderr)
    with Status("preparing", quiet=options.quiet):
        ahead = _prepare(opened, training, options)
        position = _first_position(opened, training)
    # ``training.finish`` waits for the compiler in here, where a second signal still ends the process immediately.
    with training.finish, _journal(opened, options) as journal:
        recorder = _Recorder(opened, training, stop, journal, position, options, ahead)
        if options.debug_nans:
            recorder.debugger = Debugger(config, training, seeds, segment_epochs=opened.segment_epochs)
            recorder.debugger.keep(position)
        if not (recorder.watch.all_diverged or recorder.is_reached(position)):
            position = advance(config, training, seeds, position, after_segment=recorder.after_segment)
        waited = training.finish.waited
        journal.close_progress()
        with Status("final evaluation", quiet=options.quiet):
            ahead.wait()
            agents = finish_training(training, seeds, position.state)
        stop.check()
        run_seconds = journal.seconds - (training.finish.waited - waited)
        metrics = position.metrics
        summary = directory.summarise(
            config, metrics, agents, training, import_seconds=import_seconds, run_seconds=run_seconds
        )
        summary["stopped_at"] = recorder.stopped_at
        directory.check_there(opened.folder)
        journal.finish(metrics, summary)
    with Status("saving", quiet=options.quiet):
        save_policy(opened.folder, agents.params)
        summary |= digests(opened.folder, POLICY_FILE, CONFIG_FILE, METRICS_FILE)
        write_summary(opened.folder, summary)  # it says that the run is finished
        training.keep()
    with drawing(opened.folder), Status("drawing", quiet=options.quiet):
        draw(opened.folder, metrics, config)
    return summary


def _prepare(opened: OpenRun, training: Training, options: RunOptions) -> Ahead:
    """Prepare checkpoints and pictures: meanwhile if a core is free, else checkpoints now, pictures later."""
    layout = training.layout
    if layout.platform == "cpu" and usable_cores() <= len(layout.devices):
        opened.checkpoints.open()
        return Ahead()
    return Ahead(opened.checkpoints.open, *([options.prepare] if options.prepare else []))


def _first_position(opened: OpenRun, training: Training) -> Position:
    snapshot = opened.snapshot
    if snapshot is None:
        return BEGINNING
    state = place_state(snapshot.state, training)
    return Position(state, (snapshot.metrics,), snapshot.epochs // opened.segment_epochs)


def _journal(opened: OpenRun, options: RunOptions) -> Journal:
    return Journal(opened.folder, opened.config, resumed=opened.resumed, snapshot=opened.snapshot, quiet=options.quiet)


class _Recorder:
    """What ``run`` does after each segment: write, watch, save, and obey a signal."""

    def __init__(
        self,
        opened: OpenRun,
        training: Training,
        stop: StopSignals,
        journal: Journal,
        position: Position,
        options: RunOptions,
        ahead: Ahead,
    ) -> None:
        self._opened, self._training, self._stop, self._journal = opened, training, stop, journal
        self._callback, self._quiet, self._ahead = options.callback, options.quiet, ahead
        self.stopped_at: int | None = None  # environment step at which the run ended early
        self.debugger: Debugger | None = None
        self.watch = DivergenceWatch(opened.config.num_seeds)
        if position.parts:
            self.watch.look(position.parts[-1], training.fetch_policy(position.state))

    def after_segment(self, position: Position) -> bool:
        """Whether to continue: a seed is left that has not diverged, and nothing ends the run early."""
        part = position.parts[-1]
        self._journal.write(part)
        diverged = self.watch.look(part, self._training.fetch_policy(position.state))
        if self.debugger:
            if diverged:
                raise FoundNan(self.debugger.find(diverged[0]))
            self.debugger.keep(position)
        directory.check_there(self._opened.folder)
        ended, due = self._ends_early(position), _is_due(self._opened.config, position.env_step)
        if ended or due or self._stop.received or self.watch.all_diverged:
            self._save(position)
            self._stop.check()  # only after a save: a signal that arrives after the line above waits for a segment
        return not (ended or self.watch.all_diverged)

    def is_reached(self, position: Position) -> bool:
        """Whether ``stop.return`` ends the run here, also if it was saved here and then killed."""
        config = self._opened.config
        if not position.parts or position.env_step == config.total_timesteps:
            return False
        if reached := is_reached(config, position.metrics, self.watch.diverged):
            self._stop_at(position.env_step, "stop.return is reached")
        return reached

    def _ends_early(self, position: Position) -> bool:
        if position.env_step == self._opened.config.total_timesteps:
            return False
        reached = self.is_reached(position)
        # The callback sees every segment, the one that ends the run included.
        asked = self._callback is not None and bool(self._callback(position.metrics))
        if asked and not reached:
            self._stop_at(position.env_step, "the callback returned True")
        return reached or asked

    def _stop_at(self, env_step: int, why: str) -> None:
        self.stopped_at = env_step
        if not self._quiet:
            print(f"stopped at step {env_step:,}: {why}", file=sys.stderr)

    def _save(self, position: Position) -> None:
        self._ahead.wait()
        opened = self._opened
        save_snapshot(
            opened.checkpoints,
            Snapshot(
                # No variable holds these arrays: they would stay beside the state until the next checkpoint.
                fetch_state(position.state, self._training.layout),
                position.metrics,
                opened.config,
                opened.segment_epochs,
                self._journal.seconds,
            ),
        )


def _is_due(config: Config, env_step: int) -> bool:
    every, learned = config.checkpoint.every, env_step - intervals_of(config).warmup
    return env_step == config.total_timesteps or bool(every and learned % every == 0)
