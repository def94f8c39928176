"""``purejaxdqn COMMAND ...`` is ``python -m purejaxdqn.COMMAND ...``."""

import sys
from importlib import import_module
from typing import NoReturn

import purejaxdqn
from purejaxdqn.system.faults import UserError, did_you_mean, run_command

COMMANDS = {
    "train": "train agents, one for each seed",
    "sweep": "train many settings with many seeds",
    "search": "search for hyper-parameters with Optuna",
    "evaluate": "play episodes with trained agents, and film them",
    "plot": "draw the pictures of runs, sweeps and searches",
    "report": "write one page with all results of a run, sweep or search",
    "export": "write an agent's policy for use elsewhere",
    "envs": "list the environments",
}
_HELP = """usage: purejaxdqn COMMAND ...
       purejaxdqn --version
       purejaxdqn --print-completion {bash,zsh}

commands (purejaxdqn COMMAND --help shows the options of one):
"""
_EXAMPLES = """
examples:
  purejaxdqn train --config cartpole
  purejaxdqn evaluate agents/breakout --gif breakout.gif"""


def main() -> NoReturn:
    """Run the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in COMMANDS:
        run_command(import_module(f"purejaxdqn.{name}").main, sys.argv[2:])
    if name in ("-h", "--help"):
        print(_HELP + "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items()))
        print(_EXAMPLES)
        sys.exit(0)
    if name == "--version":
        print(purejaxdqn.__version__)
        sys.exit(0)
    if name == "--print-completion":
        from purejaxdqn.completion import print_completion

        run_command(lambda argv: print_completion(argv, list(COMMANDS)), sys.argv[2:])

    def refuse(argv: object) -> int:
        raise UserError(f"{name!r} is not one of {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}")

    run_command(refuse)


if __name__ == "__main__":
    main()
