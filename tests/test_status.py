"""What a terminal, a notebook and a file show while a command works: something that changes, never more than fits.

Seconds pass only where a test says so: a thread that counts them runs to the end of its phase when it starts.
"""

import contextlib
import io
import os
import re
import shutil
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import purejaxdqn.search
import purejaxdqn.sweep
from benchmarks import terminal
from purejaxdqn import load_config
from purejaxdqn.evaluate import main as evaluate
from purejaxdqn.export import main as export
from purejaxdqn.plot import main as plot
from purejaxdqn.report import main as report
from purejaxdqn.runs import opening, progress
from purejaxdqn.searches import runner
from purejaxdqn.sweeps import runner as sweeps
from purejaxdqn.sweeps import stages
from purejaxdqn.system import status
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.messages import tell
from purejaxdqn.system.signals import StopSignals
from tests.conftest import PQN, ROOT, TINY


class Clock:
    """Stands for ``time``, and for the event that ends a phase at ``until``."""

    def __init__(self):
        self.now = self.until = 0.0

    def perf_counter(self):
        return self.now

    def wait(self, seconds):
        self.now = min(self.now + seconds, self.until)
        return self.now == self.until

    def set(self):
        self.now = max(self.now, self.until)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()

    def thread(target, daemon):
        return SimpleNamespace(start=target, join=lambda: None)

    monkeypatch.setattr(status, "threading", SimpleNamespace(Thread=thread, Event=lambda: made))
    monkeypatch.setattr(status, "time", made)
    monkeypatch.setattr(progress, "time", made)
    monkeypatch.setattr(status._Lines, "every", 10.0)  # ``conftest`` switches them off
    return made


class Stream(io.StringIO):
    """Standard error, a terminal of so many columns or a file; ``frames`` are what was to be seen on it, and when."""

    def __init__(self, clock, columns):
        super().__init__()
        self.clock, self.columns = clock, columns
        self.screen, self.frames = terminal.Screen(columns or 1000), []

    def isatty(self):
        return self.columns is not None

    def write(self, text):
        before = self.screen.text
        self.screen.feed(text)
        if self.screen.text != before:
            self.frames.append((self.clock.now, self.screen.text))
        return super().write(text)


@pytest.fixture
def stream(clock, monkeypatch):
    def make(*, columns=None):
        made = Stream(clock, columns)
        monkeypatch.setattr(sys, "stderr", made)
        monkeypatch.setenv("COLUMNS", str(columns or 80))
        monkeypatch.setenv("TERM", "xterm")
        return made

    return make


@pytest.fixture
def cells(monkeypatch):
    """This process is a notebook's kernel; the outputs of its cell, each a list of what it has shown."""
    outputs = []

    def display(text, display_id):
        outputs.append([text])
        return SimpleNamespace(update=outputs[-1].append)

    shell = SimpleNamespace(kernel=None)
    module = SimpleNamespace(HTML=lambda text: text, display=display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=module))
    return outputs


def test_a_terminal_shows_a_phase_and_its_seconds_and_forgets_it(clock, stream):
    shown = stream(columns=20)
    clock.until = 2.5
    with status.Status("compiling a long name"):
        pass
    assert shown.frames == [
        (0.0, "compiling a long na"), (1.0, "compiling a l (1 s)"), (2.0, "compiling a l (2 s)"), (2.5, ""),
    ]  # fmt: skip


def test_a_terminal_never_stands_still_for_two_seconds_in_a_phase(clock, stream):
    shown = stream(columns=80)
    clock.until = 200.0
    with status.Status("compiling"):
        pass
    assert terminal.longest_silence([seconds for seconds, _ in shown.frames], 200.0) <= 1.0


def test_elsewhere_a_phase_gets_a_line_only_if_it_is_long(clock, stream):
    shown = stream()
    clock.until = 9.0
    with status.Status("compiling"):
        pass
    assert shown.getvalue() == ""
    clock.until = 9.0 + 25.0
    with status.Status("compiling"):
        pass
    assert shown.getvalue() == "compiling (10 s)\ncompiling (20 s)\n"


@pytest.mark.parametrize("columns", [None, 80])
def test_a_quiet_phase_shows_nothing(columns, clock, stream):
    shown = stream(columns=columns)
    clock.until = 60.0
    with status.Status("compiling", quiet=True):
        pass
    assert shown.getvalue() == ""


def test_of_phases_inside_each_other_the_innermost_is_shown(clock, stream):
    shown = stream(columns=80)
    clock.until = 1.5
    with status.Status("writing") as outer:
        clock.until = 3.0
        with status.Status("filming"):
            outer._show()  # as its thread does once a second
    assert [text for _, text in shown.frames] == [
        "writing",
        "writing (1 s)",
        "filming",
        "filming (1 s)",
        "",
        "writing (3 s)",
        "",
    ]


def test_a_message_takes_the_line_of_a_phase_off_the_screen(clock, stream):
    shown = stream(columns=80)
    with status.Status("loading"):
        tell("warning: changed")
        assert shown.screen.text == "warning: changed"
    assert shown.screen.text == "warning: changed"


@pytest.mark.parametrize(("terminal", "before"), [(True, "\r\x1b[K"), (False, "")])
def test_what_a_signal_says_takes_the_place_of_a_phase(terminal, before, monkeypatch):
    written = []
    monkeypatch.setattr(os, "isatty", lambda number: terminal)
    monkeypatch.setattr(os, "write", lambda number, text: written.append((number, text.decode())))
    StopSignals()._note(signal.SIGINT, None)
    ((number, text),) = written
    assert number == 2 and text.startswith(f"{before}SIGINT: stopping after this segment")


def test_a_notebook_shows_a_phase_of_a_second_and_forgets_it(clock, cells):
    clock.until = 0.9
    with status.Status("compiling"):
        pass
    assert cells == []
    clock.until = 0.9 + 2.5
    with status.Status("compiling <1>"):
        pass
    assert cells == [["compiling &lt;1&gt; (1 s)", "compiling &lt;1&gt; (2 s)", ""]]


def rows(env_step, *, seeds=1, value=100.0):
    """The last epoch of metrics [S, T]."""
    numbers = dict.fromkeys(("episode_return", "eval_return", "loss", "epsilon"), np.full((seeds, 1), value))
    return SimpleNamespace(env_step=np.full((seeds, 1), env_step), **numbers)


@pytest.fixture
def bar(stream):
    """Make a bar on a terminal that is drawn by ``refresh`` alone; its display, and the terminal."""

    def make(display, columns):
        shown = stream(columns=columns)
        made = display()
        made._bar.auto_refresh = False
        return made, shown

    return make


def last_line(shown):
    return shown.screen.text.splitlines()[-1]


@pytest.mark.parametrize("columns", [60, 80, 130])
def test_a_bar_counts_seconds_between_two_segments_and_the_time_left_down(columns, bar, clock):
    config = load_config("cartpole_cleanrl", TINY)
    display, shown = bar(lambda: progress.RunProgress(config), columns)
    with display:
        assert last_line(shown).endswith("warm-up 0:00 elapsed")
        clock.now = 30.0
        display.update(rows(200))
        seen = []
        for second in range(31, 100):
            clock.now = float(second)
            display._bar.refresh()
            seen.append(last_line(shown))
    assert seen[0].endswith("0:31 elapsed 0:59 left")
    assert seen[30].endswith("1:01 elapsed 0:29 left")
    assert seen[-1].endswith("1:39 elapsed 0:00 left")
    assert all(line.startswith("200/600 steps ") and len(line) < columns for line in seen)
    assert [seconds for seconds, _ in shown.frames][-69:] == list(range(31, 100))


def test_a_wide_bar_has_all_parts_and_a_narrow_one_those_that_fit(bar, clock):
    config = load_config("cartpole_cleanrl", TINY)
    lines = {}
    for columns in (130, 80, 75, 60, 50, 40, 30):
        clock.now = 0.0
        display, shown = bar(lambda: progress.RunProgress(config), columns)
        with display:
            clock.now = 10.0
            display.update(rows(300))
            display._bar.refresh()
            lines[columns] = last_line(shown)
    middle = "train 100.0 eval 100.0 loss 100.0000 eps 100.00 30 steps/s"
    assert lines == {
        130: f"300/600 steps {'━' * 20} {middle} 0:10 elapsed 0:10 left",
        80: "300/600 steps ━━━━━━━━ train 100.0 eval 100.0 30 steps/s 0:10 elapsed 0:10 left",
        75: "300/600 steps ━━━━━━━━ train 100.0 eval 100.0 0:10 elapsed 0:10 left",
        60: "300/600 steps train 100.0 eval 100.0 0:10 elapsed 0:10 left",
        50: "300/600 steps eval 100.0 0:10 elapsed 0:10 left",
        40: "50% eval 100.0 0:10 elapsed 0:10 left",
        30: "50% 0:10 elapsed 0:10 left",
    }


@pytest.mark.parametrize("columns", [60, 80])
def test_the_longest_bar_fits_with_its_times(columns, bar, clock):
    config = load_config("cartpole_cleanrl", TINY).model_copy(update={"total_timesteps": 1_000_000_000})
    display, shown = bar(lambda: progress.RunProgress(config), columns)
    with display:
        clock.now = 12 * 3600.0
        display.update(rows(400_000_000, value=-12345.6))
        display._bar.refresh()
    assert re.search(r"(40%|400,000,000/1,000,000,000 steps) .*12:00:00 elapsed 18:00:00 left$", last_line(shown))


def test_steps_and_their_rate_are_those_of_each_seed(clock, stream):
    shown = stream()
    config = load_config("cartpole_cleanrl", [*TINY, "num_seeds=3"])
    with progress.RunProgress(config) as display:
        clock.now = 4.0
        display.update(rows(200, seeds=3))
    assert shown.getvalue() == (
        "       200/600 train 100.0 eval 100.0 loss 100.0000 eps 100.00 50 steps/s 0:04 elapsed 0:08 left\n"
    )


def test_the_rate_of_a_resumed_run_is_that_of_its_new_steps(clock, stream):
    shown = stream()
    with progress.RunProgress(load_config("cartpole_cleanrl", TINY), done=400) as display:
        clock.now = 2.0
        display.update(rows(500))
    assert " 50 steps/s 0:02 elapsed 0:02 left" in shown.getvalue()


@pytest.mark.parametrize(
    ("overrides", "done", "shown"), [(TINY, 0, True), (TINY, 80, False), (PQN, 0, False)], ids=["new", "resumed", "PQN"]
)
def test_a_run_begins_with_a_warm_up_if_it_has_one(overrides, done, shown, clock, stream):
    stream(columns=80)
    with progress.RunProgress(load_config("cartpole_cleanrl", overrides), done=done) as display:
        assert ("warm-up" in display.parts().values()) == shown


def test_many_runs_show_how_long_they_compile_and_leave_it_out_of_the_rate(bar, clock):
    display, shown = bar(lambda: progress.WorkProgress(1200), 80)
    with display:
        with display.compiling():
            clock.now = 7.0
            display._bar.refresh()
            assert last_line(shown) == "0/1,200 steps ━━━━━━━━ compiling (7 s) 0:07 elapsed"
        clock.now = 10.0
        display._bar.refresh()
        assert last_line(shown) == "0/1,200 steps ━━━━━━━━ 0:10 elapsed"
        display.update(3, 100)
        display._bar.refresh()
        assert last_line(shown) == "300/1,200 steps ━━━━━━━━ 100 steps/s 0:10 elapsed 0:09 left"


def test_a_program_is_compiled_inside_that_phase_unless_it_is_there(config, monkeypatch):
    order = []

    @contextlib.contextmanager
    def compiling():
        order.append("begin")
        yield
        order.append("end")

    monkeypatch.setattr(stages, "compile_training", lambda *_, **__: order.append("compile") or "program")
    controls = stages.Controls(None, None, {}, compiling)
    example = SimpleNamespace(seed=[0])
    assert [stages._program(config, example, 1, (), controls) for _ in range(2)] == ["program"] * 2
    assert order == ["begin", "compile", "end"]


def test_elsewhere_many_runs_have_a_line_while_they_compile(clock, stream):
    shown = stream()
    with progress.WorkProgress(1200) as display:
        clock.until = 12.0
        with display.compiling():
            pass
        clock.now = 15.0
        display.update(3, 100)
    assert shown.getvalue() == "compiling (10 s)\n       300/1,200 100 steps/s 0:15 elapsed 0:09 left\n"


def test_the_bar_of_a_notebook_counts_seconds(clock, cells):
    clock.until = 2.5
    with progress.RunProgress(load_config("cartpole_cleanrl", TINY)) as display:
        clock.now = 4.0
        display.update(rows(200))
    (shown,) = cells
    assert [text.rpartition("</progress> ")[2] for text in shown] == [
        "0/600 steps warm-up 0:00 elapsed",
        "0/600 steps warm-up (1 s) 0:01 elapsed",
        "0/600 steps warm-up (2 s) 0:02 elapsed",
        "200/600 steps train 100.0 eval 100.0 loss 100.0000 eps 100.00 50 steps/s 0:04 elapsed 0:08 left",
    ]
    assert "value='0.3333'" in shown[-1]


@pytest.fixture
def phases(monkeypatch):
    """The phases that commands enter, in their order."""
    entered = []
    enter = status.Status.__enter__
    monkeypatch.setattr(status.Status, "__enter__", lambda self: entered.append(self._text) or enter(self))
    return entered


@pytest.mark.parametrize(
    ("main", "arguments", "expected"),
    [
        (plot, (), ["reading the runs", "loading Matplotlib", "drawing"]),
        (report, ("--no-films",), ["starting", "writing the report"]),
        (export, ("--format", "safetensors"), ["starting", "loading the agent", "writing the policy"]),
        (evaluate, ("--episodes", "2"), ["starting", "loading the agents", "compiling and playing"]),
    ],
    ids=["plot", "report", "export", "evaluate"],
)
def test_a_command_about_a_run_names_its_phases(main, arguments, expected, phases, finished_run, quietly, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    assert quietly(main, folder, *arguments)[0] == 0
    assert phases == expected


def test_a_resumed_run_says_that_it_reads_its_checkpoints(phases, finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    with opening.reopen_run(folder, load_config(folder / "config.yaml"), segments=None):
        pass
    assert phases == ["reading the checkpoints"]


def test_a_sweep_names_what_it_does_before_it_trains(phases, quietly, tmp_path, monkeypatch):
    monkeypatch.setattr(purejaxdqn.sweep, "configure_cpu_for", lambda *_, **__: None)
    monkeypatch.setattr(sweeps, "_train_work", lambda *_: {})
    monkeypatch.setattr(sweeps, "collect", lambda *_: refuse())
    line = ("--config", "cartpole_cleanrl", "--seeds", 2, "--out", tmp_path / "out", *TINY, "gamma=0.9,0.99")
    code, _, err = quietly(purejaxdqn.sweep.main, *line, "--quiet")
    assert (code, err) == (2, ["error: enough"])
    assert phases == [
        *("starting JAX", "checking the points", "loading", "reading what is done", "planning", "writing the tables"),
    ]  # fmt: skip


def refuse(*_):
    raise UserError("enough")


def test_a_search_names_its_phases_and_what_it_moves_in_its_trials(phases, quietly, tmp_path, monkeypatch):
    """The edges of the space fit the schedule; the base, and most values between the edges, do not."""
    space = tmp_path / "space.yaml"
    space.write_text("schedule.train_every: {low: 8, high: 40, step: 4}")
    monkeypatch.setattr(purejaxdqn.search, "configure_cpu_for", lambda *_, **__: None)
    monkeypatch.setattr(runner, "train_batch", refuse)
    tiny = [word for word in TINY if "train_every" not in word]
    line = ("--config", "cartpole_cleanrl", "--space", space, "--trials", 8, "--batch", 8, "--sampler", "random")
    code, _, err = quietly(purejaxdqn.search.main, *line, "--out", tmp_path / "out", *tiny)
    assert (code, err[-1]) == (2, "error: enough")
    start = next(place for place, line in enumerate(err) if line.startswith("8 trials x"))
    base, trials = err[:start], err[start + 1 : -1]
    assert [line.partition(":")[0] for line in base] == ["moved to fit the schedule"]
    assert [line.partition(":")[0] for line in trials[:3]] == ["moved to fit the schedule"] * 3
    assert len(set(err)) == len(err)
    assert phases == [
        *("checking the space", "loading Optuna", "opening the study", "opening the study"),
        *("choosing the trials", "checking the trials"),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 130])
def test_a_run_in_a_terminal_names_its_phases_and_fits_the_width(columns, tmp_path):
    words = ["-m", "purejaxdqn.train", "--config", "cartpole_cleanrl", "--no-cache", "--out", "run", *TINY]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    seen = terminal.watch([sys.executable, *words], columns=columns, env=env, cwd=tmp_path)
    assert seen.code == 0, seen.output
    frames = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", part) for part in re.split(r"[\r\n]+", seen.output)]
    frames = [frame for frame in frames if frame.strip()]
    assert all(len(frame) <= columns for frame in frames)
    names = [frame.partition(" (")[0] for frame in frames]
    places = [names.index(name) for name in ("starting", "compiling", "final evaluation", "drawing")]
    assert places == sorted(places)
    bars = [frame for frame in frames if "/600 steps" in frame]
    assert bars and bars[-1].startswith("600/600 steps") and "elapsed" in bars[-1] and bars[-1].endswith("left")
    assert columns == 80 or ("steps/s" in bars[-1]) == (columns == 130)
    last = seen.frames[-1].text.splitlines()
    assert last[0].startswith("compiled in") and last[1].startswith("600/600 steps") and last[-1] == "run"
    assert not [line for line in last if line.startswith(("starting", "compiling", "drawing"))]
