"""What a terminal shows while a command works: never nothing for two seconds, never more than fits."""

import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl

import pytest

from purejaxdqn.system import status
from tests.conftest import ROOT, TINY


class Screen(io.StringIO):
    """Standard error that is a terminal, or is none."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def screen(monkeypatch):
    def make(*, terminal):
        made = Screen(terminal)
        monkeypatch.setattr(sys, "stderr", made)
        monkeypatch.setenv("COLUMNS", "20")
        return made

    return make


def test_a_terminal_shows_a_phase_at_once_and_forgets_it(screen):
    shown = screen(terminal=True)
    with status.Status("compiling a long name that does not fit"):
        deadline = time.monotonic() + 60
        while not shown.getvalue() and time.monotonic() < deadline:
            time.sleep(0.001)
    assert shown.getvalue() == "\r\x1b[Kcompiling a long na\r\x1b[K"


def test_elsewhere_a_phase_gets_a_line_only_if_it_is_long(screen, monkeypatch):
    shown = screen(terminal=False)
    with status.Status("compiling"):
        pass
    assert shown.getvalue() == ""
    monkeypatch.setattr(status, "_SECONDS", 0.001)
    with status.Status("compiling"):
        deadline = time.monotonic() + 60
        while not shown.getvalue() and time.monotonic() < deadline:
            time.sleep(0.001)
    assert shown.getvalue().startswith("compiling\n")


def test_a_quiet_phase_shows_nothing(screen, monkeypatch):
    monkeypatch.setattr(status, "_SECONDS", 0.001)
    shown = screen(terminal=True)
    with status.Status("compiling", quiet=True):
        time.sleep(0.01)
    assert shown.getvalue() == ""


def run_in_a_terminal(columns, *words):
    """What a command writes to a terminal, in the order of its frames."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": str(columns)}
    process = subprocess.Popen([sys.executable, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    text = b""
    while True:
        select.select([ours], [], [], 300)
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    os.close(ours)
    assert process.wait() == 0, text
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.decode())
    return [frame for frame in re.split(r"[\r\n]+", plain) if frame.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 130])
def test_a_run_in_a_terminal_names_its_phases_and_fits_the_width(columns, tmp_path):
    words = ["-m", "purejaxdqn.train", "--config", "cartpole_cleanrl", "--no-cache", "--out", "run", *TINY]
    frames = run_in_a_terminal(columns, "-c", f"import os, runpy, sys; os.chdir({str(tmp_path)!r}); "
        f"sys.argv = {words[1:]!r}; runpy.run_module('purejaxdqn.train', run_name='__main__')")  # fmt: skip
    assert all(len(frame) <= columns for frame in frames)
    phases = [frame.partition(" (")[0] for frame in frames]
    places = [phases.index(phase) for phase in ("starting", "compiling", "final evaluation", "drawing")]
    assert places == sorted(places)
    bars = [frame for frame in frames if "/600 steps" in frame]
    assert bars and bars[-1].strip().startswith("600/600 steps") and "s left" in bars[-1]
    assert ("steps/s" in bars[-1]) == (columns >= 110)
    assert frames[-1] == "run"
