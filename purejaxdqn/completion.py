"""``purejaxdqn --print-completion SHELL``: a script that lets a shell complete commands, options, configs and keys."""

import argparse
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from purejaxdqn.config.reading import shipped_configs
from purejaxdqn.core.config import config_keys
from purejaxdqn.policies.gallery import GALLERY, shipped_agents
from purejaxdqn.system.faults import UserError, require

SHELLS = ("bash", "zsh")


def print_completion(argv: Sequence[str], commands: Sequence[str]) -> int:
    """Print the script for the shell that the only argument names; returns the exit code.

    Raises:
      UserError: the shell is none of ``SHELLS``, or shtab is not installed.
    """
    if len(argv) != 1 or argv[0] not in SHELLS:
        raise UserError(f"--print-completion takes one of {', '.join(SHELLS)}")
    require("--print-completion", "shtab", install="purejaxdqn[completion]")
    import shtab

    print(shtab.complete(_whole_parser(commands, shtab.FILE, shtab.DIRECTORY), shell=argv[0]))
    return 0


def _whole_parser(commands: Sequence[str], file: Any, directory: Any) -> argparse.ArgumentParser:
    """The parsers of all commands as one, each argument with the words, files or directories that may follow."""
    words = {"overrides": [f"{key}=" for key in config_keys()], "log": ["tensorboard", "wandb"]}
    configs = _words_and_paths("configs", shipped_configs(), pattern="*.yaml")
    spaces = _words_and_paths("spaces", shipped_configs("--space"), pattern="*.yaml")
    agents = _words_and_paths("agents", (f"{GALLERY}/{name}" for name in shipped_agents()))
    paths = {
        **{"CONFIG": configs, "A,B": configs, "space": spaces, "FOLDER": agents},
        **{"FILE": file, "DIR": directory, "RUN_DIR": directory},
    }
    whole = argparse.ArgumentParser("purejaxdqn")
    whole.add_argument("--version", action="version", version="")
    parts = whole.add_subparsers()
    for name in commands:
        parser: argparse.ArgumentParser = import_module(f"purejaxdqn.{name}").parser()
        part = parts.add_parser(name, parents=[parser], add_help=False, help=parser.description)
        action: Any  # shtab reads one attribute more than argparse has
        for action in part._actions:
            action.choices = words.get(action.dest, action.choices)
            if found := paths.get(action.dest) or paths.get(action.metavar):
                action.complete = found
    return whole


def _words_and_paths(name: str, words: Iterable[str], *, pattern: str | None = None) -> dict[str, Any]:
    """For shtab: words, and paths beside them, which are those of ``pattern`` and directories, or directories alone."""
    function, text = f"_purejaxdqn_file_{name}", " ".join(words)  # shtab takes ``_file`` for paths, which end with a /
    files = f"""compgen -f -X '!{pattern}' -- "$1"; """ if pattern else ""
    glob = f"_files -g '{pattern}'" if pattern else "_files -/"
    bash = f"""{function}() {{ compgen -W "{text}" -- "$1"; {files}compgen -d -- "$1"; }}"""
    zsh = f"""{function}() {{ _alternative "names:shipped:({text})" "files:path:{glob}"; }}"""
    return {"bash": function, "zsh": function, "preamble": {"bash": bash, "zsh": zsh}}
