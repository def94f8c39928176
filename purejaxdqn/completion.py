"""``purejaxdqn --print-completion SHELL``: a script that lets a shell complete commands, options, configs and keys."""

import argparse
from collections.abc import Sequence
from importlib import import_module

from purejaxdqn.config.reading import shipped_configs
from purejaxdqn.core.config import config_keys
from purejaxdqn.system.faults import UserError, require

SHELLS = ("bash", "zsh", "tcsh")


def print_completion(argv: Sequence[str], commands: Sequence[str]) -> int:
    """Print the script for the shell that the only argument names; returns the exit code.

    Raises:
      UserError: the shell is none of ``SHELLS``, or shtab is not installed.
    """
    if len(argv) != 1 or argv[0] not in SHELLS:
        raise UserError(f"--print-completion takes one of {', '.join(SHELLS)}")
    require("--print-completion", "shtab", install="purejaxdqn[completion]")
    import shtab

    print(shtab.complete(_whole_parser(commands), shell=argv[0]))
    return 0


def _whole_parser(commands: Sequence[str]) -> argparse.ArgumentParser:
    """The parsers of all commands as one, with the words that may follow an option as its choices."""
    words = {
        "config": list(shipped_configs()),
        "space": list(shipped_configs("--space")),
        "overrides": [f"{key}=" for key in config_keys()],
    }
    whole = argparse.ArgumentParser("purejaxdqn")
    whole.add_argument("--version", action="version", version="")
    parts = whole.add_subparsers()
    for name in commands:
        parser: argparse.ArgumentParser = import_module(f"purejaxdqn.{name}").parser()
        part = parts.add_parser(name, parents=[parser], add_help=False, help=parser.description)
        for action in part._actions:
            action.choices = words.get(action.dest, action.choices)
    return whole
