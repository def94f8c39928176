"""``python -m purejaxdqn.export RUN_DIR --format stablehlo|onnx|safetensors``: write a policy for use elsewhere."""

from collections.abc import Sequence
from pathlib import Path

from purejaxdqn.system.faults import UserError, require, run_command
from purejaxdqn.system.options import Parser, add_trust_option, path_of

FORMATS = ("stablehlo", "onnx", "safetensors")


def parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m purejaxdqn.export",
        description="Write one agent's policy to a folder.",
        examples=(
            "runs/mine --format onnx --best",
            "runs/mine --format stablehlo --seed-index 2 --out policy",
        ),
    )
    parser.add_argument("run_dir", type=path_of, metavar="RUN_DIR")
    parser.add_argument("--format", required=True, choices=FORMATS)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed-index", type=int, metavar="K", help="agent K (default 0)")
    which.add_argument("--best", action="store_true", help="the agent with the highest final greedy return")
    parser.add_argument("--out", type=path_of, metavar="DIR", help="default RUN_DIR/exports/FORMAT-K")
    add_trust_option(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_args(argv)
    kind = arguments.format
    if kind == "onnx":
        require("--format onnx", "onnx", "onnxruntime", install="purejaxdqn[onnx]")
    if kind == "stablehlo":
        require("--format stablehlo", "flatbuffers", install="flatbuffers")
    if arguments.out:
        _check_out(arguments.out)

    from purejaxdqn.system import runtime

    runtime.configure_cpu()
    runtime.start_jax()
    from purejaxdqn.policies.exports import choose_agent, write_folder

    agent = choose_agent(arguments.run_dir, seed_index=arguments.seed_index, best=arguments.best, trust=arguments.trust)
    folder = arguments.out or arguments.run_dir / "exports" / f"{kind}-{agent.seed_index}"
    _check_out(folder)
    write_folder(agent, folder, kind)
    print(folder)
    return 0


def _check_out(folder: Path) -> None:
    try:
        exists = folder.exists() or folder.is_symlink()
    except OSError as error:
        raise UserError(f"--out: {folder} cannot be made: {error.strerror}") from error
    if exists:
        raise UserError(f"--out: {folder} exists; an export never overwrites one")


if __name__ == "__main__":
    run_command(main)
