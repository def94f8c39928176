"""``purejaxdqn COMMAND ...`` is ``python -m purejaxdqn.COMMAND ...``."""

import sys
from importlib import import_module
from typing import NoReturn

import purejaxdqn
from purejaxdqn.system.faults import UserError, did_you_mean, run_command

COMMANDS = ("train", "sweep", "search", "evaluate", "plot", "report", "export", "envs")


def main() -> NoReturn:
    """Run the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in COMMANDS:
        run_command(import_module(f"purejaxdqn.{name}").main, sys.argv[2:])
    if name in ("-h", "--help"):
        print(f"usage: purejaxdqn {{{','.join(COMMANDS)}}} ...; purejaxdqn COMMAND --help shows its options")
        print("       purejaxdqn --version")
        print("       purejaxdqn --print-completion {bash,zsh,tcsh}: a script with which the shell completes commands")
        sys.exit(0)
    if name == "--version":
        print(purejaxdqn.__version__)
        sys.exit(0)
    if name == "--print-completion":
        from purejaxdqn.completion import print_completion

        run_command(lambda argv: print_completion(argv, COMMANDS), sys.argv[2:])

    def refuse(argv: object) -> int:
        raise UserError(f"{name!r} is not one of {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}")

    run_command(refuse)


if __name__ == "__main__":
    main()
