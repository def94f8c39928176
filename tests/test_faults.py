"""What ends a command: a line and its exit code."""

import errno
import signal

import jax
import pytest

from purejaxdqn.system.faults import StorageError, resumable, run_command
from purejaxdqn.system.signals import Stopped

OUT_OF_DEVICE_MEMORY = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes."
OUT_OF_A_CPUS_MEMORY = "INTERNAL: Error dispatching computation: Out of memory allocating 32000000000 bytes."


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/a.npz"), "out/a.npz: No space left on device"),
        (OSError(errno.EFBIG, "File too large"), "File too large"),  # from a write, which knows no name
        (PermissionError(errno.EACCES, "Permission denied", "out"), "out: Permission denied"),
        (OSError("1024 requested and 100 written"), "1024 requested and 100 written"),  # NumPy's
        (MemoryError("Unable to allocate 8.00 GiB"), "out of memory: Unable to allocate 8.00 GiB"),
        (MemoryError(), "out of memory: MemoryError"),
        (
            jax.errors.JaxRuntimeError(f"{OUT_OF_DEVICE_MEMORY}\nBufferAssignment ..."),
            f"out of device memory: {OUT_OF_DEVICE_MEMORY}",
        ),
        (jax.errors.JaxRuntimeError(OUT_OF_A_CPUS_MEMORY), f"out of device memory: {OUT_OF_A_CPUS_MEMORY}"),
    ],
    ids=repr,
)
def test_what_the_machine_refuses_is_reported_in_one_line(capsys, error, line):
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as left:
        run_command(main, [])
    assert (left.value.code, *capsys.readouterr()) == (1, "", f"error: {line}\n")


def test_a_fault_of_ours_keeps_its_traceback():
    def main(argv):
        raise RuntimeError("this is a bug")

    with pytest.raises(RuntimeError, match="this is a bug"):
        run_command(main, [])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (Stopped(signal.SIGHUP), 129, "stopped by SIGHUP"),
        (Stopped(signal.SIGINT), 130, "stopped by SIGINT"),
        (Stopped(signal.SIGTERM), 143, "stopped by SIGTERM"),
        (
            StorageError("checkpoint 7 could not be written: no space"),
            1,
            "error: checkpoint 7 could not be written: no space",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "a.npz"), 1, "error: a.npz: No space left on device"),
    ],
    ids=repr,
)
def test_what_stops_a_command_says_how_it_is_resumed(capsys, tmp_path, error, code, line):
    def main(argv):
        with resumable("to resume, run it again", label=tmp_path / "label"):
            raise error

    (tmp_path / "label").touch()
    with pytest.raises(SystemExit) as left:
        run_command(main, [])
    assert (left.value.code, *capsys.readouterr()) == (code, "", f"{line}; to resume, run it again\n")


def test_nothing_is_said_of_resuming_what_is_gone(capsys, tmp_path):
    def main(argv):
        with resumable("to resume, run it again", label=tmp_path / "label"):
            raise StorageError("out was deleted")

    with pytest.raises(SystemExit):
        run_command(main, [])
    assert capsys.readouterr().err == "error: out was deleted\n"
