"""Shared by all tests: the runtime as the commands set it up, a compilation cache, programs compiled once."""

import contextlib
import functools
import gc
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

# Before anything imports JAX: two host devices, one thread each, and programs kept between test runs.
ROOT = Path(__file__).parents[1]
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ["MPLBACKEND"] = "Agg"
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ``nohup pytest`` ignores it, and so would every command
os.environ["XDG_STATE_HOME"] = str(ROOT / ".jax_cache" / "state")  # tests leave the user's key alone

from purejaxdqn import configure_cpu

configure_cpu(devices=2)

import jax
import pytest

from purejaxdqn import load_config
from purejaxdqn.config.building import make_program
from purejaxdqn.config.reading import read_config, shipped_configs
from purejaxdqn.environments.importing import is_installed
from purejaxdqn.environments.listed import suite_of
from purejaxdqn.system import compiling
from purejaxdqn.system.faults import run_command

gc.collect()
gc.freeze()
gc.set_threshold(100_000, 20, 50)  # tracing makes many objects that stay, and a full collection visits all of them


TINY = [
    "total_timesteps=600",
    "env.num_envs=4",
    "network.hidden=[16,16]",
    "replay.size=300",
    "replay.batch_size=8",
    "schedule.warmup=80",
    "schedule.train_every=8",
    "schedule.gradient_steps=2",
    "schedule.target_every=40",
    "schedule.tau=0.5",
    "evaluation.every=null",
    "evaluation.episodes=3",
    "evaluation.final_episodes=4",
    "optimizer.learning_rate=1e-3",
]
"""Overrides that make any shipped config a run of a second: 13 epochs of one target period."""


def words_without(words, *keys):
    """The overrides among ``words`` that set none of ``keys``."""
    return [word for word in words if word.partition("=")[0] not in keys]


PQN = [
    *(word for word in TINY if not word.startswith(("total_timesteps", "replay.", "schedule."))),
    "total_timesteps=640",
    *("replay.kind=none", "replay.size=null", "replay.batch_size=null"),
    *(f"schedule.{key}=null" for key in ("warmup", "train_every", "gradient_steps", "target_every")),
    *("rollout.steps=8", "rollout.epochs=2", "rollout.minibatches=4"),
]
"""The same without replay: 20 epochs of one rollout. Each key is set once, as sweeps and searches ask."""


ENVIRONMENTS_OF_CONFIGS = {name: read_config(name).config.env for name in shipped_configs()}
SUITES_OF_CONFIGS = {name: suite_of(env.id) for name, env in ENVIRONMENTS_OF_CONFIGS.items()}
"""The suite that a shipped config needs, None for gymnax."""
TRAINABLE = {
    name: path
    for name, path in shipped_configs().items()
    if not SUITES_OF_CONFIGS[name] or is_installed(SUITES_OF_CONFIGS[name])
}
"""The shipped configs whose suites are installed; ``test_suites.py`` names the others."""


SEQUENCES = ["replay.size=320", "replay.sequence=8", "replay.burn_in=2", "replay.period=2"]
"""After ``TINY``, of a network with a memory."""


def tiny_for(name):
    """The overrides that make a shipped config tiny."""
    text = shipped_configs()[name].read_text()
    return PQN if "kind: none" in text else [*TINY, *SEQUENCES] if "sequence:" in text else TINY


QUICKLY = {**compiling.ONCE, **compiling.WITHOUT_EMITTERS}
"""Two thirds of the compiler's time, for programs whose bits no test looks at; they run somewhat slower."""
BARELY = {**QUICKLY, **dict.fromkeys(compiling.ONCE, 0)}
"""Half of it, for programs that run for a moment."""


@functools.cache
def known_quick_options():
    return compiling.known_options(QUICKLY)


@functools.cache
def known_bare_options():
    return compiling.known_options(BARELY)


def mostly_slow(values, *, fast):
    """Parameters of a test; those that are not in ``fast`` are marked slow."""
    assert all(one in values for one in fast)
    return [pytest.param(one, marks=() if one in fast else pytest.mark.slow) for one in values]


def first_with_each_environment(names):
    """Of these shipped configs the first with each environment and its wrappers."""
    found = {}
    for name in names:
        found.setdefault(repr(ENVIRONMENTS_OF_CONFIGS[name].making()), name)
    return list(found.values())


def jit_barely(function):
    """``jax.jit`` for programs that run for a moment and whose bits no test looks at."""
    return jax.jit(function, compiler_options=known_bare_options())


def jit_quickly(function):
    """``jax.jit`` where the compiler's time counts for more than the program's."""
    return jax.jit(function, compiler_options=known_quick_options())


@contextlib.contextmanager
def quick_compiler(options=QUICKLY):
    """The commands and ``run_many`` compile with these options."""

    def compile_lowered(lowered, platform, *, once=False):
        return compiling.compile_known(lowered.program, options)[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("purejaxdqn.config.building._compiled", {})  # what is kept there is for others
        for module in ("system.compiling", "runs.training"):
            patch.setattr(f"purejaxdqn.{module}.compile_lowered", compile_lowered)
        yield


AS_USERS = {
    "test_api.py",
    "test_commands.py",
    "test_compiling.py",
    "test_ensemble.py",
    "test_gallery.py",
    "test_halving.py",
    "test_kept.py",
    "test_notebooks.py",
    "test_population.py",
    "test_program.py",
    "test_same_bits.py",
    "test_search.py",
    "test_seam.py",
    "test_survival.py",
    "test_sweep.py",
}
"""Files whose tests compare bits, times or scores, and so compile as users do."""
assert all((ROOT / "tests" / name).is_file() for name in AS_USERS)


@contextlib.contextmanager
def optimised(whether=True):
    """Whether XLA optimises, in this process and in commands that it starts. Otherwise it compiles faster."""
    name = "JAX_DISABLE_MOST_OPTIMIZATIONS"
    before = jax.config.read(name.lower())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, str(int(not whether)))
        if before is whether:  # the programs that are kept were compiled otherwise
            patch.setattr("purejaxdqn.config.building._compiled", {})
        jax.config.update(name.lower(), not whether)
        try:
            yield
        finally:
            jax.config.update(name.lower(), before)


@pytest.fixture(scope="module", autouse=True)
def _compile_as_the_file_needs(request):
    with optimised(request.path.name in AS_USERS):
        yield


@pytest.fixture
def compiled_as_users():
    """For a test of bits in another file."""
    with optimised():
        yield


@pytest.fixture
def compiled_quickly():
    with quick_compiler():
        yield


@pytest.fixture
def barely_compiled():
    with quick_compiler(BARELY):
        yield


@pytest.fixture
def jitted_barely(monkeypatch):
    """``jax.jit`` compiles with the same options where a page of the documentation, a test or ``episodes`` calls it.

    Elsewhere it may be called while another program is traced, and JAX takes options for the outermost alone.
    """
    jit, bare = jax.jit, known_bare_options()

    def barely(function, **options):
        caller = sys._getframe(1).f_globals.get("__name__", "tests")  # a page's code has none
        if caller.startswith(("tests", "purejaxdqn.policies.episodes")):
            options = {"compiler_options": bare} | options
        return jit(function, **options)

    monkeypatch.setattr(jax, "jit", barely)


@pytest.fixture(scope="module")
def all_barely_compiled():
    """For a module whose fixtures compile too; none of its tests may compare with a command in another process."""
    with quick_compiler(BARELY):
        yield


@pytest.fixture(scope="session", autouse=True)
def _keep_no_programs():
    """Commands in this process take no whole programs from the cache: tests replace what they are made from."""
    import_module("purejaxdqn.train")  # until then this is the name of the function
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("purejaxdqn.train.take_over", lambda config: False)
        yield


@pytest.fixture(scope="session")
def config():
    return load_config("cartpole_cleanrl", TINY)


@pytest.fixture(scope="session")
def program(config):
    return make_program(config)


@pytest.fixture(scope="session")
def compiled_train(config, program):
    """``train`` of one run, compiled: the reference that all other ways to run are held against."""
    with optimised():
        return jax.jit(program.train).lower(config.hparams(), jax.random.key(0)).compile()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The directory of a tiny finished run of three seeds. Read it; a test that writes takes a copy."""
    from purejaxdqn.train import main

    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch, optimised():
        patch.setattr("purejaxdqn.train.configure_cpu_for", lambda config: None)
        assert main(["--config", "cartpole_cleanrl", "--out", str(folder), "--quiet", "num_seeds=3", *TINY]) == 0
    return folder


LONG_FILES = (
    "test_gpu.py",
    "test_search.py",
    "test_survival.py",
    "test_sweep.py",
    "test_commands.py",
    "test_compiling.py",
    "test_films.py",
)
"""They begin first: a worker that began one of them last would work alone at the end."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG_FILES.index(item.path.name) if item.path.name in LONG_FILES else len(LONG_FILES))


def command(name, *arguments, cwd, env=None):
    return subprocess.run(
        [sys.executable, "-m", f"purejaxdqn.{name}", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def kill_and_go_on(name, arguments, delays):
    """Start a command again and again, each time killed some seconds after its first line, and at last to its end.

    Returns how often it was killed before it had ended.
    """
    line = [sys.executable, "-m", f"purejaxdqn.{name}", *map(str, arguments)]
    killed = 0
    for delay in delays:
        with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout.readline()
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
    done = command(name, *arguments, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return killed


@pytest.fixture(scope="session", autouse=True)
def _no_lines_of_slow_phases():
    """On a busy machine any phase of a command in this process may take the ten seconds after which it prints one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("purejaxdqn.system.status._Lines.every", 3600.0)
        yield


@pytest.fixture
def quietly(monkeypatch, capsys):
    """Call a command in this process: its exit code, lines on standard output and on standard error."""
    import_module("purejaxdqn.train")  # until then this is the name of the function
    monkeypatch.setattr("purejaxdqn.train.configure_cpu_for", lambda config: None)
    monkeypatch.setattr("purejaxdqn.system.runtime.configure_cpu", lambda **_: None)

    def call(main, *arguments):
        with pytest.raises(SystemExit) as left:
            run_command(main, list(map(str, arguments)))
        captured = capsys.readouterr()
        return left.value.code, captured.out.splitlines(), captured.err.splitlines()

    return call
