"""``python -m purejaxdqn.export RUN_DIR --format stablehlo|onnx|safetensors``: write a policy for use elsewhere."""

from collections.abc import Sequence
from pathlib import Path

from purejaxdqn.policies.command_line import export_parser as parser
from purejaxdqn.system.faults import UserError, require, run_command
from purejaxdqn.system.status import Status


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_args(argv)
    kind = arguments.format
    if arguments.half and kind != "safetensors":
        raise UserError("--half: only --format safetensors has weights in half precision")
    if kind == "onnx":
        require("--format onnx", "onnx", "onnxruntime", install="purejaxdqn[onnx]")
    if kind == "stablehlo":
        require("--format stablehlo", "flatbuffers", install="flatbuffers")
    if arguments.out:
        _check_out(arguments.out)

    with Status("starting"):
        from purejaxdqn.system import runtime

        runtime.configure_cpu()
        runtime.start_jax()
        from purejaxdqn.policies.exports import choose_agent, write_folder
    with Status("loading the agent"):
        agent = choose_agent(
            arguments.run_dir, seed_index=arguments.seed_index, best=arguments.best, trust=arguments.trust
        )
    folder = arguments.out or arguments.run_dir / "exports" / f"{kind}-{agent.seed_index}"
    _check_out(folder)
    with Status("compiling and checking the program" if kind == "onnx" else "writing the policy"):
        write_folder(agent, folder, kind, half=arguments.half)
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
