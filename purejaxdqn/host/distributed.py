"""Several processes, on one machine or many, that share the work of a command through JAX's own runtime."""

import argparse
import os

from purejaxdqn.host.faults import UserError


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
    """Join the processes that the options (``add_process_options``) name; call it before JAX starts.

    Returns:
      The number of this process and how many there are: (0, 1) without the options.

    Raises:
      UserError: the options contradict each other, or the others cannot be reached.
    """
    given = (arguments.coordinator, arguments.processes, arguments.process)
    if given == (None, None, None):
        return 0, 1
    automatic = given == ("auto", None, None)
    if automatic and "SLURM_JOB_ID" not in os.environ:
        raise UserError(
            "--coordinator: auto works under SLURM only; elsewhere give HOST:PORT, --processes and --process"
        )
    if not automatic:
        if None in given:
            raise UserError("--coordinator, --processes and --process go together")
        if not 0 <= arguments.process < arguments.processes:
            raise UserError(f"--process: {arguments.process} must be from 0 to {arguments.processes - 1}")
    if arguments.out is None:
        raise UserError("--out is missing: several processes need a directory that all of them see")
    import jax

    try:
        if automatic:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(*given)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--coordinator: {str(error).splitlines()[0]}") from error
    return jax.process_index(), jax.process_count()
