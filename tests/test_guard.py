"""The compiled programs stay as small as they were stored, whatever the machine."""

import jaxlib
import pytest

from benchmarks import guard
from purejaxdqn import load_config
from tests.conftest import mostly_slow

ROOM = 0.03
"""A compiler for another processor may fuse a little otherwise."""


@pytest.mark.parametrize("preset", mostly_slow(guard.PRESETS, fast=("dqn",)))
def test_the_compiled_segment_and_the_gradient_step_have_not_grown(preset):
    before = guard.stored().get((preset, jaxlib.__version__))
    if before is None:
        pytest.skip(f"no figures of jaxlib {jaxlib.__version__} are stored, and another release compiles otherwise")
    now = guard.measure(preset)
    for name in guard.counted(now):
        assert now[name] == pytest.approx(float(before[name]), rel=ROOM), f"{name}: python -m benchmarks.guard --store"


@pytest.mark.slow
def test_the_compiled_segment_of_an_ensemble_does_not_grow_with_its_members():
    few, many = (
        guard.compiled_counts(
            load_config(
                ("cartpole_cleanrl", "bootstrapped_priors"), ("total_timesteps=20_000", f"ensemble.members={n}")
            )
        )
        for n in (7, 20)  # of a few members XLA unrolls a loop
    )
    for name, count in few.items():
        assert many[name] == pytest.approx(count, rel=ROOM), name
