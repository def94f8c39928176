"""Compiled programs that are kept on disk whole, and what a run prepares while it trains."""

import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from purejaxdqn import load_config
from purejaxdqn.core.many import lay_out
from purejaxdqn.runs import kept, training
from purejaxdqn.runs.ahead import Ahead
from purejaxdqn.runs.population import advance, finish_training
from purejaxdqn.runs.training import compile_training, seeds_of
from tests.conftest import ROOT, TINY, command

SMALL = [*TINY, "total_timesteps=240", "num_seeds=2"]


@pytest.fixture(scope="module")
def small():
    return load_config("cartpole_cleanrl", SMALL)


@pytest.fixture
def cached(monkeypatch, tmp_path):
    """Programs are kept in a directory of this test, and JAX's cache is off, as in the command."""
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache
    compilation_cache.reset_cache()
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    yield tmp_path / "kept"
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update("jax_enable_compilation_cache", before[1])


def trained(compiled, config):
    """Rows and final agents, as arrays."""
    seeds, states = seeds_of(config), []
    position = advance(config, compiled, seeds, after_segment=lambda one: states.append(one.env_step) or True)
    agents = finish_training(compiled, seeds, position.state)
    return jax.tree.leaves((position.metrics, agents.params, agents.final_returns)), states


def test_programs_that_were_kept_are_the_same_and_nothing_is_traced(small, cached, monkeypatch, compiled_quickly):
    first = compile_training(small, seeds_of(small), segments=2, keep=True)
    first.keep()
    (file,) = cached.iterdir()
    assert re.fullmatch(r"training-[0-9a-f]{64}\.programs", file.name)
    written = file.stat().st_mtime_ns
    first.keep()
    assert file.stat().st_mtime_ns == written
    monkeypatch.setattr(training, "lower_runs", lambda *_: pytest.fail("it was traced"))
    second = compile_training(small, seeds_of(small), segments=2, keep=True)
    assert jax.tree.structure(second.state) == jax.tree.structure(first.state)
    same = jax.tree.map(
        lambda one, other: (one.shape, one.dtype) == (other.shape, other.dtype), first.state, second.state
    )
    assert all(jax.tree.leaves(same))
    (one, steps), (other, again) = trained(first, small), trained(second, small)
    assert steps == again == [160, 240]
    for mine, its in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("cores", [1, 8])
def test_programs_are_kept_once_they_are_compiled_whatever_becomes_of_the_run(
    cores, small, cached, barely_compiled, monkeypatch
):
    monkeypatch.setattr(training, "usable_cores", lambda: cores)
    compiled = compile_training(small, seeds_of(small), segments=2, keep=True)
    compiled.finish.ready()
    end = time.monotonic() + 60
    while not list(cached.glob("training-*.programs")):  # the compiler's thread is writing
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_second_thread_waits_until_the_first_has_written(cached, monkeypatch):
    keeping = kept.Keeping(cached / "training-z.programs")
    keeping._packed = {name: [] for name in kept.PARTS}
    let, order = threading.Event(), []

    def write(place):
        keeping._packed = {}
        assert let.wait(60)
        order.append("written")

    monkeypatch.setattr(keeping, "_write", write)
    threads = [threading.Thread(target=keeping.write) for _ in range(2)]
    for thread in threads:
        thread.start()
    threads[1].join(0.05)
    assert threads[1].is_alive() and not order
    let.set()
    for thread in threads:
        thread.join(60)
    assert order == ["written"]


@pytest.mark.parametrize("content", [b"", b"no digest", b"0" * 64 + b"\nx", None])
def test_a_damaged_file_is_removed_and_nothing_is_loaded(content, small, cached):
    place, layout = cached / "training-x.programs", lay_out(2)
    place.write_bytes(content if content is not None else pickle.dumps({}))
    assert kept.load(place, layout) is None
    assert not place.exists()


def test_what_cannot_be_packed_or_written_is_not_kept(cached, tmp_path):
    keeping = kept.Keeping(cached / "training-y.programs")
    assert keeping.pack("init", 3) == 3  # no program
    keeping.write()
    assert list(cached.iterdir()) == []
    (tmp_path / "file").touch()
    keeping = kept.Keeping(tmp_path / "file" / "training-y.programs")
    keeping._packed = {name: [] for name in kept.PARTS}
    keeping.write()


def test_only_the_newest_files_are_kept(cached, monkeypatch):
    monkeypatch.setattr(kept, "_MOST", 2)
    for letter in "abc":
        keeping = kept.Keeping(cached / f"training-{letter}.programs")
        keeping._packed = {name: [] for name in kept.PARTS}
        keeping.write()
    assert sorted(path.name for path in cached.glob("training-*.programs")) == [
        "training-b.programs",
        "training-c.programs",
    ]


def test_the_place_depends_on_all_that_a_program_is_made_from_and_on_no_traced_number(small, cached, monkeypatch):
    def place(*overrides, segments=2, runs=2):
        return kept.place_of(load_config("cartpole_cleanrl", [*SMALL, *overrides]), lay_out(runs), segments)

    assert place() == place("gamma=0.9", "optimizer.learning_rate=3e-4", "seed=7")
    others = [
        place("network.hidden=[16,8]"),
        place("n_step=2"),
        place("env.num_envs=8"),
        place(segments=1),
        place(runs=1),
    ]
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_x=1")
    others.append(place())
    monkeypatch.delenv("XLA_FLAGS")
    with monkeypatch.context() as patch:
        patch.setattr(kept, "_sources", lambda: "edited")
        others.append(place())
    with monkeypatch.context() as patch:
        patch.setattr(kept, "_stamps", lambda package: "edited" if package == "flax" else "")
        others.append(place())
    assert len({place(), *others}) == 1 + len(others)


def test_an_environment_of_the_users_own_is_never_kept_nor_anything_without_a_directory(small, cached):
    own = small.model_copy(update={"env": small.env.model_copy(update={"id": "mine:World"})})
    jax.config.update("jax_enable_compilation_cache", True)
    assert not kept.take_over(own)
    assert jax.config.jax_enable_compilation_cache
    assert kept.take_over(small)
    assert not jax.config.jax_enable_compilation_cache
    jax.config.update("jax_compilation_cache_dir", None)
    assert kept.place_of(small, lay_out(2), 2) is None


@pytest.mark.slow
def test_a_command_that_starts_again_gives_the_same_bits(tmp_path):
    said = []
    for name in ("first", "second"):
        env = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
        done = command("train", "--config", "cartpole_cleanrl", "--out", name, *TINY, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        said.append(json.loads((tmp_path / name / "summary.json").read_text())["policy_sha256"])
    assert len(list((tmp_path / "cache").glob("training-*.programs"))) == 1
    assert said[0] == said[1]
    assert (tmp_path / "first" / "metrics.csv").read_bytes() == (tmp_path / "second" / "metrics.csv").read_bytes()


def test_work_ahead_is_done_when_it_is_waited_for_and_its_failures_are_nobodys():
    done = []
    ahead = Ahead(lambda: done.append(1), lambda: 1 / 0, lambda: done.append(2))
    ahead.wait()
    assert done == [1, 2]
    Ahead().wait()


@pytest.mark.slow
def test_a_run_that_is_killed_finds_its_programs_when_it_goes_on(tmp_path):
    cache, run = tmp_path / "cache", tmp_path / "run"
    env = {"JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "purejaxdqn.train", "--config", "cartpole_cleanrl", "--out", str(run), "--quiet"]
    with subprocess.Popen([*line, "total_timesteps=200_000"], env={**os.environ, **env}) as process:
        while not list(cache.glob("training-*.programs")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (run / "summary.json").exists()
    before = [(path.name, path.stat().st_mtime_ns) for path in cache.glob("training-*.programs")]
    done = command("train", "--resume", run, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert before == [(path.name, path.stat().st_mtime_ns) for path in cache.glob("training-*.programs")]
