"""The compiled programs stay as small as they were stored, whatever the machine."""

import jaxlib
import pytest

from benchmarks import guard
from tests.conftest import mostly_slow

ROOM = 0.03
"""A compiler for another processor may fuse a little otherwise."""


@pytest.mark.parametrize("preset", mostly_slow(guard.PRESETS, fast=("dqn", "per")))
def test_the_compiled_segment_and_the_gradient_step_have_not_grown(preset):
    before = guard.stored().get((preset, jaxlib.__version__))
    if before is None:
        pytest.skip(f"no figures of jaxlib {jaxlib.__version__} are stored, and another release compiles otherwise")
    now = guard.measure(preset)
    for name in guard.COUNTED:
        assert now[name] == pytest.approx(float(before[name]), rel=ROOM), f"{name}: python -m benchmarks.guard --store"
