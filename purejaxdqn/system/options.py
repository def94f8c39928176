"""The command line: a parser that reports faults in one line, and the options that several commands share."""

import argparse
import re
from pathlib import Path
from typing import NoReturn

from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import is_utf8

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        """Raise a ``UserError`` instead of printing and exiting."""
        raise UserError(f"{message} (see {self.prog} --help)")


def name_of(text: str) -> str:
    """The name of a file or a directory, as ``type`` of an option; argparse refuses the others in a line."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    if not is_utf8(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8")
    return text


def path_of(text: str) -> Path:
    """``name_of`` as a path, whose directories are UTF-8 too."""
    path = Path(name_of(text))
    if not is_utf8(path.absolute()):
        raise argparse.ArgumentTypeError(f"{text!r}: the name of the working directory is not UTF-8")
    return path


def add_training_options(parser: Parser, *, out: str, overrides: tuple[str, str]) -> None:
    """The options of every command that trains.

    Args:
      parser: the command's.
      out: what ``--out`` is, for the help.
      overrides: the form of an override, and what it means, for the help.
    """
    config = "path or shipped name; later ones win"
    parser.add_argument("--config", action="append", type=name_of, metavar="CONFIG", help=config)
    parser.add_argument("--out", type=path_of, metavar="DIR", help=out)
    parser.add_argument("--no-cache", action="store_true", help="do not keep compiled programs on disk")
    parser.add_argument("--quiet", action="store_true", help="do not show progress")
    parser.add_argument("overrides", nargs="*", metavar=overrides[0], help=overrides[1])


def add_trust_option(parser: Parser) -> None:
    """``--trust``, of commands that import what a run directory names."""
    about = "import the module that the run names as its environment, though you did not start the run here"
    parser.add_argument("--trust", action="store_true", help=about)


def add_machine_options(parser: Parser) -> None:
    """``--memory`` and ``--devices``."""
    parser.add_argument("--memory", metavar="SIZE", help="memory to use at most, as in 4GiB")
    parser.add_argument("--devices", type=int, metavar="N", help="devices to use: cores or accelerators (default all)")


def check_at_least(arguments: argparse.Namespace, **least: int) -> None:
    """Refuse numbers that are too small.

    Args:
      arguments: of the command line.
      **least: the smallest value of each option, by its name with underscores.

    Raises:
      UserError: names the first option that is below.
    """
    for name, smallest in least.items():
        value = getattr(arguments, name)
        if value is not None and value < smallest:
            raise UserError(f"--{name.replace('_', '-')}: {value} must be at least {smallest}")


def parse_memory(text: str | None) -> int | None:
    """``4GiB``, ``800MB`` or a number of bytes, as bytes; None stays None.

    Raises:
      UserError: it is none of these.
    """
    if not text:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(k|m|g|ki|mi|gi|)b?", text.strip(), re.IGNORECASE)
    if not match or not float(match[1]):
        raise UserError(f"--memory: {text!r} is not an amount of memory; write 4GiB or 800MB")
    return int(float(match[1]) * _UNITS[match[2].lower()])
