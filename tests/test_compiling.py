"""Compiling: what a CPU's large matrix products need, and what is compiled when."""

import ctypes
import functools
import os
import re
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from purejaxdqn import load_config
from purejaxdqn.config.building import make_program
from purejaxdqn.core.kernels import LARGE_PRODUCT
from purejaxdqn.core.many import Layout, lay_out, map_runs
from purejaxdqn.runs import training
from purejaxdqn.runs.population import run_segments
from purejaxdqn.runs.training import compile_training, seeds_of
from purejaxdqn.system.compiling import (
    APART,
    ONCE,
    WITHOUT_YNN,
    Lowered,
    compile_lowered,
    compile_runs,
    known_options,
    largest_product,
    lower_runs,
)
from purejaxdqn.system.runtime import takes_default_pool
from tests.conftest import ROOT, mostly_slow

RUN = """
import sys, threading, time, ctypes
from purejaxdqn import configure_cpu, load_config, run_many

class Heap(ctypes.Structure):  # mallinfo2 of malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ord smb hblks hblkhd usm fsm used free keep".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Heap
configure_cpu(devices=2)
import jax

config = load_config("cartpole_cleanrl", ["distribution.kind=iqn", "total_timesteps=16000", "evaluation.every=6000"])
keys = jax.random.split(jax.random.key(0), 4)
run_many(config, config.hparams(), keys)
used = [libc.mallinfo2().used]
done = threading.Event()

def watch():
    while not done.wait(0.1):
        used.append(libc.mallinfo2().used)

watcher = threading.Thread(target=watch)
watcher.start()
run_many(config, config.hparams(), keys)
done.set()
watcher.join()
print(max(used) - used[0])
"""


def products(hparams, x):
    """Products [n, n] in a loop."""
    return jax.lax.scan(lambda y, _: (jnp.tanh(y @ x), None), x, None, length=2)[0]


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(("size", "kept"), [(127, True), (128, False)])
def test_large_products_do_without_ynn_on_any_number_of_devices(size, kept, devices):
    layout = lay_out(2, devices=jax.devices()[:devices])
    text = compile_runs(map_runs(products, layout), "cpu", jnp.zeros(2), jnp.ones((2, size, size))).as_text()
    assert ("__ynn" in text) == kept


def test_the_largest_product_is_found_inside_loops():
    jaxpr = jax.make_jaxpr(lambda x: products(None, x))(jnp.ones((128, 128)))
    assert largest_product(jaxpr.jaxpr) == 128 * 128 == LARGE_PRODUCT


def compiled_with(*known, size, once, platform="cpu"):
    """What ``compile_lowered`` asks of a release of XLA that knows only these options."""

    def compile(compiler_options=None):
        for name in compiler_options or {}:
            if name not in known:
                raise jax.errors.JaxRuntimeError(f"INVALID_ARGUMENT: No such compile option: '{name}'")
        return set(compiler_options or {})

    return compile_lowered(Lowered(SimpleNamespace(compile=compile), size * size), platform, once=once)


@pytest.mark.parametrize("known", [(), tuple(ONCE), tuple(WITHOUT_YNN), (*ONCE, *WITHOUT_YNN)])
def test_a_release_of_xla_without_an_option_compiles_with_the_others(known):
    assert compiled_with(*known, size=128, once=True) == set(known)
    assert compiled_with(*known, size=128, once=False) == set(known) & set(WITHOUT_YNN)
    assert compiled_with(*known, size=127, once=True) == set(known) & set(ONCE)
    assert compiled_with(*known, size=127, once=False) == set()


def test_options_that_this_release_of_xla_lacks_are_left_out():
    assert known_options({**ONCE, "xla_nobody_has_this": 1}) == ONCE
    assert known_options({"xla_nobody_has_this": 1, "xla_nor_this": True}) == {}


@pytest.mark.parametrize(("platform", "asked"), [("gpu", set(APART)), ("tpu", set())])
def test_an_accelerator_is_not_asked_for_what_a_cpu_wants(platform, asked):
    known = (*APART, *ONCE, *WITHOUT_YNN)
    assert compiled_with(*known, size=128, once=True, platform=platform) == asked
    assert compiled_with(size=128, once=True, platform=platform) == set()


@pytest.mark.parametrize(
    "configs",
    mostly_slow(
        [("cartpole_cleanrl",), ("minatar/breakout", "rainbow"), ("catch", "fqf")], fast=[("cartpole_cleanrl",)]
    ),
    ids="+".join,
)
def test_a_run_is_a_program_for_any_accelerator(configs):
    program = make_program(config := load_config(configs, ["total_timesteps=50_000"]))
    traced = jax.jit(program.train).trace(config.hparams(), jax.random.key(0))
    for platform in ("cuda", "rocm", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "stablehlo.while" in text
        called = re.findall(r"custom_call *[@<]?(\w*)", text)
        # XLA's own; no call of the host or of a library, which one may lack.
        assert set(called) <= {"AllocateBuffer", *(("LayoutConstraint",) if platform == "tpu" else ())}


def test_the_size_of_the_largest_product_goes_along():
    lowered = lower_runs(jax.jit(products), None, jnp.ones((9, 9)))
    assert lowered.largest_product == 81
    assert compile_lowered(lowered, "cpu")(None, jnp.zeros((9, 9))).shape == (9, 9)


def test_another_error_of_the_compiler_is_reported():
    def compile(compiler_options=None):
        raise jax.errors.JaxRuntimeError("INTERNAL: xla_backend_optimization_level and out of luck")

    with pytest.raises(jax.errors.JaxRuntimeError, match="out of luck"):
        compile_lowered(Lowered(SimpleNamespace(compile=compile), 1), "cpu", once=True)


def test_what_runs_once_gives_the_same_bits():
    def function(hparams, x):
        return jax.lax.scan(lambda y, _: (jnp.sin(y) @ x + y / 3, jnp.sum(y)), x, None, length=20)

    arguments = jnp.zeros(1), jax.random.normal(jax.random.key(0), (1, 8, 8))
    lowered = lower_runs(map_runs(function, lay_out(1)), *arguments)
    quickly, well = (compile_lowered(lowered, "cpu", once=once)(*arguments) for once in (True, False))
    chex.assert_trees_all_equal(quickly, well)


class NamedLike:
    """A function of nothing, with another's name."""

    def __init__(self, function):
        self.name = function.__name__

    def __call__(self, *_):
        return None


class Fake:
    """Stands for a compiled program; the final evaluation's is ready when ``let`` is set, or is never."""

    def __init__(self, monkeypatch, *, platform="cpu", cores=3, error=None):
        self.let, self.order = threading.Event(), []
        monkeypatch.setattr(Layout, "platform", platform)
        monkeypatch.setattr(training, "usable_cores", lambda: cores)
        monkeypatch.setattr(training, "map_runs", lambda function, *_, **__: NamedLike(function))
        monkeypatch.setattr(training, "lower_runs", lambda mapped, *_: mapped.name)
        monkeypatch.setattr(training, "compile_lowered", functools.partial(self.compile, error))

    def compile(self, error, name, platform, *, once=False):
        if name == "finish":
            assert self.let.wait(20)
            if error:
                raise error
        self.order.append(name)
        return lambda *arguments: (name, *arguments)


def test_training_begins_before_the_final_evaluation_is_compiled(monkeypatch, config):
    fake = Fake(monkeypatch)
    found = compile_training(config, seeds_of(config), segments=1)
    assert sorted(fake.order) == ["init", "segment"]
    before = found.compile_seconds
    threading.Timer(0.2, fake.let.set).start()
    assert found.finish("hparams", "state") == ("finish", "hparams", "state")
    assert fake.order[2:] == ["finish"]
    # What was waited for at the end counts as compiling.
    assert found.finish.waited > 0.0
    assert found.compile_seconds == before + found.finish.waited


def test_what_fails_to_compile_behind_is_reported_after_the_next_segment(monkeypatch, config):
    fake = Fake(monkeypatch, error=ValueError("no such evaluation"))
    found = compile_training(config, seeds_of(config), segments=3)
    rows = np.zeros(found.layout.size)
    found = found._replace(segment=lambda hparams, state: (state, rows))
    segments = run_segments(found, seeds_of(config), state="state")
    next(segments)
    with found.finish:  # waits, and lets a fault that is there already pass
        fake.let.set()
    with pytest.raises(ValueError, match="no such evaluation"):
        next(segments)


@pytest.mark.parametrize("machine", [{"platform": "gpu"}, {"cores": 1}])
def test_nothing_compiles_beside_runs_on_an_accelerator_or_on_every_core(monkeypatch, config, machine):
    fake = Fake(monkeypatch, **machine)
    monkeypatch.setattr(fake, "let", SimpleNamespace(wait=lambda _: time.sleep(0.3) or True))
    compile_training(config, seeds_of(config), segments=1)
    assert sorted(fake.order) == ["finish", "init", "segment"]


@pytest.mark.parametrize(
    ("overrides", "large"),
    [
        ([], False),
        (["distribution.kind=quantile"], True),
        (["distribution.kind=quantile", "distribution.atoms=32"], False),
        (["distribution.kind=iqn", "distribution.atoms=8", "network.hidden=[64,64]"], True),
        (["replay.batch_size=256"], True),
        (["network.hidden=[128,128]"], True),
        (["network.hidden=[64,64]", "replay.batch_size=512"], True),
        (["env.id=Breakout-MinAtar", "network.torso=minatar_cnn", "replay.batch_size=32"], True),
        (["env.id=Pong-misc", "network.hidden=[4]", "replay.batch_size=32"], False),
        (["env.id=Pong-misc", "network.hidden=[8]", "replay.batch_size=32"], True),
        (["env.id=DeepSea-bsuite", "env.kwargs.size=10"], True),  # what an argument makes of observations is not known
        (["env.id=tests.probes:KeyProbe", "network.hidden=[4]"], True),
    ],
)
@pytest.mark.parametrize("num_seeds", [1, 8])
def test_the_pool_of_threads_is_a_matter_of_the_network_and_not_of_the_seeds(overrides, large, num_seeds):
    config = load_config("cartpole_cleanrl", [*overrides, f"num_seeds={num_seeds}"])
    assert takes_default_pool(config) == large


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the heap is measured by glibc's mallinfo2")
def test_a_program_of_large_products_does_not_grow_while_it_runs():
    """With YNN the heap grows by more than 80 MB in four IQN runs, else by less than 30 (half a minute)."""
    run = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 40e6


@pytest.mark.slow
def test_a_wide_input_layer_gives_a_seed_the_same_bits_alone_and_beside_another(tmp_path):
    """Pong has 3,600 inputs: their products are cut, by as many threads as XLA's pool has (a minute)."""
    found = []
    env = {name: value for name, value in os.environ.items() if name != "NPROC"}  # the tests' own pool
    for seeds in (1, 2):
        folder = tmp_path / str(seeds)
        short = ["total_timesteps=14_000", "evaluation={episodes: 1, final_episodes: 1}", f"num_seeds={seeds}"]
        line = [sys.executable, "-m", "purejaxdqn.train", "--config", "pong", "--quiet", "--out", str(folder), *short]
        subprocess.run(line, cwd=ROOT, env=env, check=True)
        found.append({name: values[0] for name, values in load_file(folder / "policy.safetensors").items()})
    chex.assert_trees_all_equal(*found)
