"""A command in a pseudo-terminal: what its screen shows, and when that changes.

Bytes that draw the same picture again are no change: a bar is redrawn several times a second.
"""

import codecs
import fcntl
import itertools
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

LINES = 24


class Frame(NamedTuple):
    """The text on a screen, from a moment on."""

    seconds: float  # since the start of the process
    text: str


class Watched(NamedTuple):
    """What a command has shown."""

    code: int
    ended: float  # seconds
    frames: list[Frame]  # without the empty screen at the start
    output: str  # all that it has written

    @property
    def silence(self) -> float:
        """The longest time without a change of the screen."""
        return longest_silence([frame.seconds for frame in self.frames], self.ended)


def longest_silence(times: Sequence[float], ended: float) -> float:
    """The longest time between two of these moments, the start and the end."""
    moments = [0.0, *times, ended]
    return max(after - before for before, after in itertools.pairwise(moments))


_ESCAPE = re.compile(r"\x1b(?:\[([?0-9;]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()].|[^\[\]()])")


class Screen:
    """The text on a terminal without colours; what has scrolled away stays."""

    def __init__(self, columns: int):
        self._columns, self._rows, self._row, self._column, self._rest = columns, [""], 0, 0, ""

    @property
    def text(self) -> str:
        """The lines, without blanks at their ends and empty lines at the end."""
        return "\n".join(row.rstrip() for row in self._rows).rstrip("\n")

    def feed(self, text: str) -> None:
        """Show what a command has written; a control sequence may be cut anywhere."""
        text, self._rest = self._rest + text, ""
        place = 0
        while place < len(text):
            if text[place] != "\x1b":
                self._put(text[place])
                place += 1
            elif match := _ESCAPE.match(text, place):
                if match[2]:
                    self._obey(match[2], match[1])
                place = match.end()
            else:
                self._rest = text[place:]
                return

    def _put(self, letter: str) -> None:
        if letter == "\r":
            self._column = 0
        elif letter == "\n":
            self._down(1)
        elif letter == "\b":
            self._column = max(self._column - 1, 0)
        elif letter.isprintable():
            if self._column >= self._columns:
                self._column = 0
                self._down(1)
            row = self._rows[self._row].ljust(self._column)
            self._rows[self._row] = row[: self._column] + letter + row[self._column + 1 :]
            self._column += 1

    def _down(self, count: int) -> None:
        self._row += count
        self._rows += [""] * (self._row + 1 - len(self._rows))

    def _obey(self, command: str, given: str) -> None:
        """Obey the sequences that move the cursor within what was written and that erase; others change no text."""
        count = int(given) if given.isdigit() else 0
        row = self._rows[self._row]
        match command:
            case "A":
                self._row = max(self._row - max(count, 1), 0)
            case "B":
                self._down(max(count, 1))
            case "C":
                self._column = min(self._column + max(count, 1), self._columns - 1)
            case "D":
                self._column = max(self._column - max(count, 1), 0)
            case "G":
                self._column = max(count, 1) - 1
            case "K":
                before, after = row[: self._column].ljust(self._column), row[self._column + 1 :]
                self._rows[self._row] = {0: before, 1: " " * (self._column + 1) + after}.get(count, "")
            case "J" if count == 0:
                self._rows[self._row :] = [row[: self._column]]
            case "J":
                self._rows = [""] * (self._row + 1)


def watch(
    command: Sequence[str],
    *,
    columns: int,
    env: Mapping[str, str],
    cwd: Path,
    meanwhile: Callable[[float], None] = lambda seconds: None,
) -> Watched:
    """Run a command in a terminal until it ends.

    Args:
      command: its words.
      columns: of the terminal.
      env: its environment; the terminal's own variables are set here.
      cwd: its working directory.
      meanwhile: called a few hundred times a second with the seconds since the start.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    env = {**env, "TERM": "xterm", "COLUMNS": str(columns), "LINES": str(LINES)}
    screen, decoder = Screen(columns), codecs.getincrementaldecoder("utf-8")("replace")
    frames, output = [Frame(0.0, "")], ""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    while True:
        ready, _, _ = select.select([ours], [], [], 0.005)
        now = time.perf_counter() - start
        meanwhile(now)
        if not ready:
            continue
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not piece:
            break
        written = decoder.decode(piece)
        output += written
        screen.feed(written)
        if screen.text != frames[-1].text:
            frames.append(Frame(now, screen.text))
    code, ended = process.wait(), time.perf_counter() - start
    os.close(ours)
    return Watched(code, ended, frames[1:], output)
