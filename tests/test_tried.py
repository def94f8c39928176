"""What was tried for speed: each variant changes the program, and what it should leave alone it leaves alone."""

from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

from benchmarks import harness
from benchmarks.tried import VARIANTS, Variant, ask_xla, compare, compiled_alike
from purejaxdqn import load_config
from purejaxdqn.core import agent, compiling, heads, loop, networks, replay
from tests.conftest import TINY, jit_quickly

PATCHED = [
    *((agent, name) for name in ("global_norm", "jnp", "make_network", "make_optimizer")),
    *((loop, name) for name in ("draw", "epsilon", "make_agent", "make_environment", "make_replay")),
    *((networks, name) for name in ("_LARGE", "_Noise", "_product")),
    *((heads, "jnp"), (jax.lax, "scan"), (optax.tree, "norm"), (replay, "_make_ring")),
]
IN_THE_PROGRAM = [name for name, variant in VARIANTS.items() if variant.patch not in (Variant().patch, compiled_alike)]
OTHER_NUMBERS = {  # and for which the run need not be the same
    "random numbers drawn in each iteration",
    "threefry not partitionable",
    "observations kept as bfloat16",
    "products of bfloat16 numbers",
}


def make_train(name):
    config = load_config("cartpole_cleanrl", [*TINY, *VARIANTS[name].overrides])
    return loop.make_program(config).train, config.hparams()


@pytest.fixture
def patched(monkeypatch):
    """Apply a variant until the test is over."""
    for place, name in PATCHED:
        monkeypatch.setattr(place, name, getattr(place, name))
    partitionable = jax.config.jax_threefry_partitionable
    yield lambda name: VARIANTS[name].patch()
    jax.config.update("jax_threefry_partitionable", partitionable)


@pytest.mark.parametrize("name", IN_THE_PROGRAM)
def test_a_variant_changes_the_program(name, patched):
    def text():
        train, hparams = make_train(name)
        return jax.jit(train).lower(hparams, jax.random.key(0)).as_text()

    before = text()
    assert text() == before
    patched(name)
    assert text() != before


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(IN_THE_PROGRAM) - OTHER_NUMBERS))
def test_a_variant_is_the_same_run_but_for_rounding(name, patched):
    def losses():
        train, hparams = make_train(name)
        return np.asarray(jit_quickly(train)(hparams, jax.random.key(0)).rows.loss)[:3]

    before = losses()
    patched(name)
    np.testing.assert_allclose(losses(), before, rtol=1e-3)


def test_the_variant_of_the_compiler_has_no_option_for_what_runs_once(monkeypatch):
    monkeypatch.setattr(compiling, "ONCE", dict(compiling.ONCE))
    assert compiling.ONCE
    compiled_alike()
    assert not compiling.ONCE


def test_options_of_xla_are_asked_for_whatever_is_compiled(monkeypatch):
    monkeypatch.setattr(compiling, "compile_known", compiling.compile_known)
    ask_xla({"xla_for_this_variant": 1})
    program = SimpleNamespace(compile=lambda compiler_options: compiler_options)
    compiled = compiling.compile_lowered(compiling.Lowered(program, 1), "cpu", once=True)
    assert compiled == {**compiling.ONCE, "xla_for_this_variant": 1}


def test_what_this_release_of_xla_lacks_has_no_row(monkeypatch, capsys):
    lacking, had = "XLA's fusion emitters off", "matrix products without YNN"
    monkeypatch.setattr(harness, "start", lambda module, task: task["name"])
    reply = {"rate": 2.0, "compile_seconds": 3.0}
    monkeypatch.setattr(harness, "answer", lambda name: {"lacking": "xla_option"} if name == lacking else reply)
    assert {row["what was tried"] for row in compare([lacking, had], 2, quick=True)} == {had}
    assert "lacks xla_option" in capsys.readouterr().err
