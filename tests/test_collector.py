"""Python's garbage collector waits where it would visit many objects, none of them garbage; and only there."""

import gc
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from purejaxdqn.system import collector
from purejaxdqn.system.collector import collector_paused
from purejaxdqn.system.compiling import lower_runs
from tests.conftest import ROOT


@pytest.fixture
def enabled():
    gc.enable()
    yield
    gc.enable()


def test_it_is_paused_while_a_program_is_traced(enabled):
    seen = []
    lower_runs(jax.jit(lambda x: seen.append(gc.isenabled()) or x), 1.0)
    assert seen == [False]
    assert gc.isenabled()


def test_a_pause_ends_after_an_error_and_not_before_the_pause_around_it(enabled):
    with pytest.raises(ValueError, match="wrong"), collector_paused():
        with collector_paused():
            pass
        assert not gc.isenabled()
        raise ValueError("wrong")
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
def test_it_is_paused_by_commands_and_not_in_the_processes_of_others(enabled, monkeypatch, spec, script, is_command):
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec and SimpleNamespace(name=spec)))
    monkeypatch.setattr(sys, "argv", [script])
    collector.pause_for_command()
    assert gc.isenabled() != is_command
    frozen = gc.get_freeze_count()
    made = [[] for _ in range(100)]
    collector.resume()
    assert gc.isenabled()
    assert (gc.get_freeze_count() - frozen >= len(made)) == is_command


@pytest.mark.parametrize("module", ["purejaxdqn.train", "purejaxdqn"])
def test_a_command_imports_without_it_and_then_has_it(module):
    code = f"""
import gc, runpy, sys
import purejaxdqn.system.faults as faults
seen = []
faults.collector.resume = lambda resume=faults.collector.resume: (seen.append(gc.isenabled()), resume())
sys.argv = ["purejaxdqn", "train", "--list-configs"] if "{module}" == "purejaxdqn" else ["purejaxdqn", "--list-configs"]
try:
    runpy.run_module("{module}", run_name="__main__")
finally:
    print(seen, gc.isenabled())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[False] True"
