"""Several processes, on one machine or many, that share a sweep; they find each other through JAX's runtime."""

import argparse
import os

from purejaxdqn.system.faults import UserError


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """``--coordinator``, ``--processes`` and ``--process``."""
    parser.add_argument(
        "--processes", type=int, metavar="N", help="number of processes that share the work, all with the same --out"
    )
    parser.add_argument("--process", type=int, metavar="K", help="index of this process, from 0")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0; auto under SLURM")


def join_processes(arguments: argparse.Namespace) -> tuple[int, int]:
    """Wait until all processes have started, as ``add_process_options`` describes them; call it before JAX starts.

    The processes share a directory and nothing else, so they leave JAX's cluster again immediately: a process that
    stayed in it would be aborted when another one is killed, or some minutes after another one ends. JAX's backends
    start after this call, with this process's devices only.

    Returns:
      The number of this process and the number of processes: (0, 1) without the options.

    Raises:
      UserError: the options contradict each other, or the other processes cannot be reached.
    """
    given = (arguments.coordinator, arguments.processes, arguments.process)
    if given == (None, None, None):
        return 0, 1
    coordinator, count, number = _slurm_task() if given == ("auto", None, None) else given
    if None in (count, number) or arguments.coordinator is None:
        raise UserError("--coordinator, --processes and --process go together")
    if not 0 <= number < count:
        raise UserError(f"--process: {number} must be from 0 to {count - 1}")
    if arguments.out is None:
        raise UserError("--out is missing: several processes need a directory that all of them see")
    import jax

    try:
        jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
        jax.distributed.initialize(coordinator, count, number)
        jax.distributed.shutdown()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--coordinator: {str(error).splitlines()[0]}") from error
    return number, count


def _slurm_task() -> tuple[None, int, int]:
    """The number of SLURM tasks and the number of this one; JAX finds the address itself."""
    try:
        return None, int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_PROCID"])
    except (KeyError, ValueError) as error:
        raise UserError(
            "--coordinator: auto works under SLURM only; elsewhere give HOST:PORT, --processes and --process"
        ) from error
