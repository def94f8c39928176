"""Faults that the user can correct: one line for each and exit code 2, never a traceback."""

import contextlib
import difflib
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from purejaxdqn.environments.importing import is_installed
from purejaxdqn.system.collector import START
from purejaxdqn.system.messages import one_line, tell
from purejaxdqn.system.signals import Stopped
from purejaxdqn.system.streams import lasting_streams


class UserError(Exception):
    """Bad input; one line for each fault."""

    def __init__(self, *lines: str):
        self.lines = tuple(map(one_line, lines))
        super().__init__("\n".join(self.lines))


class StorageError(Exception):
    """A file could not be written; the message is one line and says why."""


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or nothing if no word is close."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def require(what: str, *modules: str, install: str) -> None:
    """Refuse ``what`` if a module that it needs is not installed, and say how to install it."""
    missing = [name for name in modules if not is_installed(name)]
    if missing:
        raise UserError(f"{what} needs {' and '.join(missing)}: pip install '{install}'")


@contextlib.contextmanager
def resumable(how: str, *, label: Path) -> Iterator[None]:
    """Add to whatever stops the block how the command is resumed; ``run_command`` prints it.

    Args:
      how: ``to resume, ...``.
      label: a file without which there is nothing to resume: somebody has deleted or moved the directory.
    """
    try:
        yield
    except (Stopped, StorageError, OSError, MemoryError, RuntimeError) as error:
        if label.exists():
            error.add_note(how)
        raise


@contextlib.contextmanager
def drawing(folder: Path) -> Iterator[None]:
    """Turn any failure of the block, which draws the pictures of complete results, into a warning."""
    try:
        yield
    except Exception as error:  # a library may raise anything
        again = f"python -m purejaxdqn.plot {shlex.quote(str(folder))} tries again"
        tell(f"warning: the pictures could not be drawn, {again}: {reason_of(error)}")


def reason_of(error: BaseException) -> str:
    """The first line of an error, or its type if it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")
"""Words in JAX's errors about an accelerator's memory and a CPU's; compared as text, so that JAX is not imported."""


def in_a_line(error: Exception) -> str | None:
    """One line for an error of the machine (storage, memory); None for any other error, which needs its traceback."""
    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, OSError):
        line = ": ".join(map(str, filter(None, (error.filename, error.strerror or lines[0]))))
    elif isinstance(error, StorageError):
        line = lines[0]
    elif isinstance(error, MemoryError):
        line = f"out of memory: {lines[0]}"
    elif isinstance(error, RuntimeError) and any(word in lines[0] for word in _OUT_OF_MEMORY):
        line = f"out of device memory: {lines[0]}"
    else:
        return None
    return "; ".join([line, *_notes(error)])


def _notes(error: BaseException) -> Sequence[str]:
    return getattr(error, "__notes__", ())


def run_command(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and leave the process with its exit code.

    Pictures are drawn without a display, whatever the user's settings of Matplotlib: their file may be damaged, and a
    notebook gives processes that it starts the name of a backend that they may not have.

    0 done; 2 bad input; 3 every seed diverged; 129, 130 and 143 stopped by a signal; 1 anything else.
    """
    START.end()
    os.environ |= {"MPLBACKEND": "Agg", "MATPLOTLIBRC": os.devnull}
    with lasting_streams():
        if any(name.startswith("JAX_") for name in os.environ):
            importlib.import_module("purejaxdqn.system.imports")
        sys.exit(_exit_code(main, sys.argv[1:] if argv is None else argv))


def _exit_code(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    try:
        code = main(argv)
        sys.stdout.flush()
        return code
    except UserError as error:
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        return 2
    except Stopped as error:
        tell("; ".join([f"stopped by {error}", *_notes(error)]))
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (StorageError, OSError, MemoryError, RuntimeError) as error:
        refused = in_a_line(error)
        if refused is None:
            raise
        tell(f"error: {refused}")
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
