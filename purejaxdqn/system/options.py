"""The command line: a parser that reports faults in one line, and the options that several commands share."""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from purejaxdqn.system.faults import UserError, did_you_mean
from purejaxdqn.system.files import is_utf8

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help with the defaults of options, and examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if not shows_default(action) or not action.help:
            return action.help
        return f"{action.help} (default %(default)s)"


def shows_default(action: argparse.Action) -> bool:
    """Whether the help of an option has its default added: it has one, of which its text does not speak."""
    default = action.default
    if default is None or default is False:  # not by ``==``: 0 equals False, and is shown
        return False
    return default not in (argparse.SUPPRESS, []) and "default" not in (action.help or "")


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, without the usage text. Options are never abbreviated."""

    def __init__(self, *, examples: Sequence[str] = (), **settings: Any):
        """``examples`` are command lines without the program's name, for the end of the help."""
        super().__init__(allow_abbrev=False, formatter_class=_HelpFormatter, **settings)
        if examples:
            self.epilog = "\n".join(["examples:", *(f"  {self.prog} {line}" for line in examples)])

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown options first: argparse would take the value of one for an override."""
        words = list(sys.argv[1:] if args is None else args)
        for place, word in enumerate(words[: words.index("--")] if "--" in words else words):
            option, _, value = word.partition("=")
            if option.startswith("--") and option not in self._option_string_actions:
                given = value or next(iter(words[place + 1 :]), "")
                self.error(f"unknown option {option}{self._hint(option, given)}")
        return super().parse_known_args(words, namespace)

    def _hint(self, option: str, value: str) -> str:
        """The config key that an option without such a name may stand for, or an option with a similar name."""
        from purejaxdqn.core.config import config_keys  # late: it takes longer than some commands

        overrides = any(action.dest == "overrides" for action in self._actions)
        name = option.removeprefix("--").replace("-", "_")
        keys = [key for key in config_keys() if name in (key, key.replace(".", "_"), key.rpartition(".")[2])]
        if overrides and len(keys) == 1:
            return f"; did you mean {keys[0]}={value}?"
        return did_you_mean(option, self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        """Raise a ``UserError`` instead of printing and exiting."""
        raise UserError(f"{message} (see {self.prog} --help)")


def name_of(text: str) -> str:
    """The name of a file or a directory, for ``type`` of an option; argparse reports any other text in one line."""
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
    config = "path of a YAML file, or name of a shipped config; later ones override earlier ones"
    parser.add_argument("--config", action="append", type=name_of, metavar="CONFIG", help=config)
    parser.add_argument("--out", type=path_of, metavar="DIR", help=out)
    parser.add_argument("--no-cache", action="store_true", help="do not keep compiled programs on disk")
    parser.add_argument("--quiet", action="store_true", help="do not show progress")
    parser.add_argument("overrides", nargs="*", metavar=overrides[0], help=overrides[1])


def check_config_option(names: Sequence[str] | None) -> None:
    """Refuse a command line without ``--config``.

    Raises:
      UserError: says where to find one.
    """
    if not names:
        raise UserError("--config is missing; python -m purejaxdqn.train --list-configs shows the shipped ones")


def add_trust_option(parser: Parser) -> None:
    """``--trust``, of commands that import what a run directory names."""
    about = "import the module of the run's environment even if you did not start the run here"
    parser.add_argument("--trust", action="store_true", help=about)


def add_machine_options(parser: Parser) -> None:
    """``--memory`` and ``--devices``."""
    parser.add_argument(
        "--memory", metavar="SIZE", help="limit of the memory used, such as 4GiB (default 80%% of what is free)"
    )
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
    if not match or not 0 < float(match[1]) < math.inf:
        raise UserError(f"--memory: {text!r} is not an amount of memory; write 4GiB or 800MB")
    return int(float(match[1]) * _UNITS[match[2].lower()])
