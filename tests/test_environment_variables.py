"""Settings of JAX in the environment: a command works as always, or names the variable in one line."""

import os
import subprocess
import sys

import jax
import pytest

from purejaxdqn import load_config, make_train
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.runtime import start_jax
from tests.conftest import ROOT, mostly_slow


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("jax_enable_x64", True),
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_threefry_partitionable", False),
        ("jax_debug_nans", True),
    ],
)
def test_settings_for_other_programs_do_not_reach_a_command(name, theirs):
    ours = getattr(jax.config, name)
    jax.config.update(name, theirs)
    try:
        start_jax()
        assert getattr(jax.config, name) == ours
    finally:
        jax.config.update(name, ours)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RuntimeError("no backend 'foo'\nand more"), "no backend 'foo'"), (AssertionError(), "there is no such device")],
    ids=repr,
)
def test_a_backend_that_does_not_start_is_named_with_its_variable(monkeypatch, error, reason):
    def fail():
        raise error

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "foo")
    with pytest.raises(UserError) as refused:
        start_jax()
    assert refused.value.lines == (f"JAX does not start with JAX_PLATFORMS=foo: {reason}",)


def test_in_python_64_bits_are_refused_by_name():
    jax.config.update("jax_enable_x64", True)
    try:
        with pytest.raises(ValueError, match=r"^jax_enable_x64 .* is on; programs compute in 32 bits"):
            make_train(load_config("cartpole_cleanrl"))
    finally:
        jax.config.update("jax_enable_x64", False)


RUN = ["--config", "cartpole_cleanrl", "--out", "out"]
LINES = {
    "train JAX_NUM_CPU_DEVICES=x": RUN,
    "train JAX_PLATFORMS=foo": RUN,
    "train JAX_PLATFORMS=cuda": RUN,
    "train JAX_ENABLE_X64=maybe": RUN,
    "sweep JAX_NUM_CPU_DEVICES=x": [*RUN, "gamma=0.9,0.99"],
    "sweep JAX_PLATFORMS=foo": [*RUN, "gamma=0.9,0.99"],
    "search JAX_NUM_CPU_DEVICES=x": [*RUN, "--space", "search/dqn"],
    "search JAX_PLATFORMS=foo": [*RUN, "--space", "search/dqn"],
    "evaluate JAX_NUM_CPU_DEVICES=x": ["."],
    "evaluate JAX_PLATFORMS=foo": ["."],
    "export JAX_PLATFORMS=foo": [".", "--format", "safetensors"],
    "envs JAX_ENABLE_X64=maybe": [],
}


@pytest.mark.parametrize("name", mostly_slow(list(LINES), fast=["train JAX_NUM_CPU_DEVICES=x"]))
def test_a_variable_that_jax_refuses_is_reported_in_one_line(tmp_path, name):
    command, variable, value = name.replace("=", " ").split()
    if (variable, value) == ("JAX_PLATFORMS", "cuda") and any(one.platform == "gpu" for one in jax.devices()):
        pytest.skip("there is one")
    env = {**os.environ, "PYTHONPATH": str(ROOT), variable: value}
    line = [sys.executable, "-m", f"purejaxdqn.{command}", *LINES[name]]
    done = subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (told,) = done.stderr.splitlines()
    assert told.startswith("error: ")
    assert variable in told.upper()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_flag_that_xla_refuses_is_reported_in_one_line(tmp_path):
    """XLA ends the process itself."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": "--foo"}
    line = [sys.executable, "-m", "purejaxdqn.train", *RUN]
    done = subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Unknown flag in XLA_FLAGS: --foo" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
