"""Faults that the user can correct: one line each and exit code 2, never a traceback."""

import contextlib
import difflib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn

from purejaxdqn.system.messages import one_line, tell
from purejaxdqn.system.signals import Stopped


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
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{what} needs {' and '.join(missing)}: pip install '{install}'")


@contextlib.contextmanager
def resumable(how: str) -> Iterator[None]:
    """Add to whatever stops the block how the command is resumed; ``run_command`` prints it.

    Args:
      how: ``to resume, ...``.
    """
    try:
        yield
    except (Stopped, StorageError, OSError, MemoryError, RuntimeError) as error:
        error.add_note(how)
        raise


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

    0 done; 2 bad input; 3 every seed diverged; 130 and 143 stopped by a signal; 1 anything else.
    """
    try:
        code = main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except UserError as error:
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        code = 2
    except Stopped as error:
        tell("; ".join([f"stopped by {error}", *_notes(error)]))
        code = error.exit_code
    except BrokenPipeError:  # the reader of our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (StorageError, OSError, MemoryError, RuntimeError) as error:
        refused = in_a_line(error)
        if refused is None:
            raise
        tell(f"error: {refused}")
        code = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
