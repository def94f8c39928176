"""Python's garbage collector is paused where many objects are made that stay, and only there."""

import gc
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import jax
import pytest

from purejaxdqn.system import collector
from purejaxdqn.system.collector import collector_paused
from purejaxdqn.system.compiling import lower_runs
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def enabled():
    gc.enable()
    yield
    gc.enable()


def test_it_is_paused_while_a_program_is_traced():
    seen = []
    lower_runs(jax.jit(lambda x: seen.append(gc.isenabled()) or x), 1.0)
    assert seen == [False]
    assert gc.isenabled()


def test_a_pause_ends_after_an_error_and_not_before_the_pause_around_it():
    with pytest.raises(ValueError, match="wrong"), collector_paused():
        with collector_paused():
            pass
        assert not gc.isenabled()
        raise ValueError("wrong")
    assert gc.isenabled()


def test_a_pause_leaves_a_collector_off_that_was_off():
    gc.disable()
    with collector_paused():
        pass
    assert not gc.isenabled()


@pytest.mark.parametrize("first", ["this", "the other"])
def test_the_last_of_two_threads_ends_the_pause_whichever_began_it(first):
    began, leave = threading.Event(), threading.Event()

    def other():
        with collector_paused():
            began.set()
            assert leave.wait(60)

    thread = threading.Thread(target=other)
    with collector_paused():
        thread.start()
        assert began.wait(60)
        if first == "the other":
            leave.set()
            thread.join()
            assert not gc.isenabled()
    if first == "this":
        assert not gc.isenabled()
        leave.set()
        thread.join()
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("spec", "script", "is_command"),
    [
        ("purejaxdqn.train", "-m", True),
        ("purejaxdqn.__main__", "-m", True),
        (None, "bin/purejaxdqn", True),
        (None, "own_script.py", False),
        ("pytest.__main__", "-m", False),
    ],
)
def test_it_is_paused_at_the_start_of_commands_and_not_in_the_processes_of_others(
    monkeypatch, spec, script, is_command
):
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec and SimpleNamespace(name=spec)))
    monkeypatch.setattr(sys, "argv", [script])
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))
    frozen, start = [], collector._Start()
    for _ in range(2):
        start.pause()
        assert gc.isenabled() != is_command
    start.end()
    assert gc.isenabled()
    start.pause()  # such as by a module that is imported later
    assert gc.isenabled()
    start.end()
    assert frozen == [False] * is_command


SITE = """
import gc, sys
if sys.argv[0] == "-m" or sys.argv[0].endswith("purejaxdqn"):
    import purejaxdqn.system.faults as faults
    frozen, freeze = [], gc.freeze  # the interpreter of Python 3.12 has frozen objects of its own: no count tells
    gc.freeze = lambda: frozen.append(True) or freeze()
    exit_code = faults._exit_code
    def seen(main, argv):
        def watched(argv):
            print("collector", gc.isenabled(), bool(frozen))
            return main(argv)
        code = exit_code(watched, argv)
        print("collector", gc.isenabled())
        return code
    faults._exit_code = seen
"""


@pytest.mark.parametrize("environment", [{}, {"JAX_PLATFORMS": "cpu"}], ids=["", "with a variable of JAX"])
@pytest.mark.parametrize(
    ("line", "paused"),
    [(["purejaxdqn.train", "--list-configs"], True), (["purejaxdqn", "envs"], False)],
    ids=["train", "envs"],
)
def test_a_command_has_it_after_its_start(line, paused, environment, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SITE)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    env = {**clean, **environment, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-m", *line], env=env, capture_output=True, text=True, check=True)
    found = [one for one in done.stdout.splitlines() if one.startswith("collector")]
    assert found == [f"collector True {paused}", "collector True"]
