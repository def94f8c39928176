"""Faults a user can mend: reported a line each, exit code 2, never a traceback."""

import argparse
import difflib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn


class UserError(Exception):
    """One line for each fault."""

    def __init__(self, *lines: str):
        super().__init__("\n".join(lines))
        self.lines = lines


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        """Raise a ``UserError`` in place of printing and exiting."""
        raise UserError(f"{message} (see {self.prog} --help)")


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def require(what: str, *modules: str, install: str) -> None:
    """Refuse ``what`` where a module that it needs is not installed, with the line that installs it."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{what} needs {' and '.join(missing)}: pip install '{install}'")


_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")
"""What JAX's error says of an accelerator's memory, and of a CPU's; in words, as JAX need not be imported for them."""


def in_a_line(error: Exception) -> str | None:
    """What the machine refused a command, storage or memory, in a line; None for all else, which wants a traceback."""
    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, OSError):
        line = ": ".join(map(str, filter(None, (error.filename, error.strerror or lines[0]))))
    elif isinstance(error, MemoryError):
        line = f"out of memory: {lines[0]}"
    elif isinstance(error, RuntimeError) and any(word in lines[0] for word in _OUT_OF_MEMORY):
        line = f"out of device memory: {lines[0]}"
    else:
        return None
    return "; ".join([line, *getattr(error, "__notes__", ())])


def run_command(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and leave the process with its exit code (``contract``: 0, 2, 3, 130, 143; 1 anything else)."""
    try:
        code = main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except UserError as error:
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        code = 2
    except BrokenPipeError:  # who read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (OSError, MemoryError, RuntimeError) as error:
        refused = in_a_line(error)
        if refused is None:
            raise
        print(f"error: {refused}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
