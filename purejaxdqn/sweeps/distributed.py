"""Several processes, on one machine or many, that share the work of a command through JAX's own runtime."""

import argparse
import os

from purejaxdqn.system.faults import UserError


def add_devices_option(parser: argparse.ArgumentParser) -> None:
    """``--devices``."""
    parser.add_argument("--devices", type=int, metavar="N", help="devices to use: cores, or accelerators (default all)")


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """What says who the other processes are."""
    parser.add_argument(
        "--processes", type=int, metavar="N", help="processes that share the work, all with the same --out"
    )
    parser.add_argument("--process", type=int, metavar="K", help="which of them this is, from 0")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens; under SLURM: auto")


def join_processes(arguments: argparse.Namespace) -> tuple[int, int]:
    """Meet the processes that the options (``add_process_options``) name, and part; call it before JAX starts.

    What they share is a directory. So they stay together no longer than it takes to know that all are there: whoever
    stays in JAX's cluster is aborted when another one is killed, or has been finished for some minutes. JAX's
    backends start after this, and have this process's devices alone.

    Returns:
      The number of this process and how many there are: (0, 1) without the options.

    Raises:
      UserError: the options contradict each other, or the others cannot be reached.
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
    """How many tasks this one of SLURM's has beside it, and its number; where they meet, JAX works out."""
    try:
        return None, int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_PROCID"])
    except (KeyError, ValueError) as error:
        raise UserError(
            "--coordinator: auto works under SLURM only; elsewhere give HOST:PORT, --processes and --process"
        ) from error
