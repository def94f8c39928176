"""Standard streams that are closed or lose their reader, and closed terminals: no command ends because of them."""

import os
import signal
import subprocess
import sys

import pytest

from purejaxdqn.system.faults import run_command
from purejaxdqn.system.signals import Stopped, StopSignals
from tests.conftest import ROOT, TINY


def leave(main):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as left:
        run_command(main, [])
    return left.value.code


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_a_closed_stream_is_written_to_nowhere(monkeypatch, name):
    monkeypatch.setattr(sys, name, None)

    def main(argv):
        print("a result")
        print("a message", file=sys.stderr)
        return 0

    assert leave(main) == 0
    assert getattr(sys, name) is None


@pytest.mark.parametrize(
    "line", ["train --list-configs >&-", "train --seed >&-", "envs 2>&- | cat >/dev/null", "envs >&-"]
)
@pytest.mark.slow
def test_commands_end_as_always_with_a_closed_stream(line):
    command = f"{sys.executable} -m purejaxdqn.{line}"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, env=env, capture_output=True, text=True, check=False)
    code = 2 if "--seed" in line else 0
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == (1 if code else 0)


def pipe_without_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def test_a_reader_of_messages_that_leaves_ends_no_command(monkeypatch, capfd):
    stream = pipe_without_reader()
    monkeypatch.setattr(sys, "stderr", stream)
    steps = []

    def main(argv):
        for step in range(3):
            print("progress", file=sys.stderr, flush=True)
            steps.append(step)
        print("a result")
        return 0

    assert leave(main) == 0
    assert steps == [0, 1, 2]
    stream.close()  # without an error: its buffer goes nowhere, too
    assert capfd.readouterr().out == "a result\n"


@pytest.mark.slow
def test_a_run_whose_messages_have_no_reader_is_trained_to_its_end(tmp_path):
    command = [sys.executable, "-m", "purejaxdqn.train", "--config", "cartpole_cleanrl", *TINY, "--out"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with pipe_without_reader() as stream:
        done = subprocess.run([*command, str(tmp_path / "run")], env=env, stderr=stream, check=False)
    assert done.returncode == 0
    assert (tmp_path / "run" / "summary.json").is_file()


def test_a_terminal_that_is_closed_is_reported_twice_and_stops_once():
    with pytest.raises(Stopped) as stopped, StopSignals() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)  # from the shell and from the system
        stop.check()
    assert stopped.value.exit_code == 129
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_with_nohup_a_closed_terminal_stops_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.received
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
