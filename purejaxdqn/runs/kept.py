"""Compiled programs of trainings on disk, whole: a run that finds its own neither traces nor lowers.

The key of JAX's compilation cache is a lowered program, so that a cached start still traces and lowers: about half a
second of Python. The key of this cache is what the program is made from: the config, the number of runs and devices,
the libraries, the processor, and the sources of this package. Whatever differs is a miss, and so is a damaged file.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import pickle
import platform
import threading
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxdqn.core.config import Config
from purejaxdqn.core.keys import is_key
from purejaxdqn.core.many import Layout
from purejaxdqn.environments.listed import suite_of
from purejaxdqn.environments.registry import own_module
from purejaxdqn.system.files import replacing
from purejaxdqn.system.runtime import usable_cores

_PACKAGES = ("gymnax", "flax", "optax", "flashbax", "chex")
"""What a program is made from, besides JAX and this package."""
_SETTINGS = (
    *("jax_enable_x64", "jax_default_matmul_precision", "jax_threefry_partitionable", "jax_default_prng_impl"),
    *("jax_numpy_dtype_promotion", "jax_numpy_rank_promotion", "jax_debug_nans", "jax_debug_infs", "jax_disable_jit"),
)
_DIRECTORY = "jax_compilation_cache_dir"
_VARIABLES = ("JAX_", "XLA_", "NPROC", "LIBTPU")
"""Beginnings of the names of environment variables that may change a program."""
_MOST = 64
"""Files that are kept; the oldest are removed."""


PARTS = ("init", "segment", "finish")


class Parts(NamedTuple):
    """The programs of a training."""

    init: Any
    segment: Any
    finish: Any
    state: Any  # shapes and types of the state


def take_over(config: Config) -> bool:
    """Whether programs of a config are kept whole; if so, JAX's cache is switched off for this process.

    JAX's cache must not have seen a program that is kept: jaxlib serialises one completely only once. Not kept are
    programs for accelerators, and of environments of the user's own, whose sources are not known.
    """
    if own_module(config.env.id) or jax.default_backend() != "cpu":
        return False
    jax.config.update("jax_enable_compilation_cache", False)
    return True


def place_of(config: Config, layout: Layout, segments: int) -> Path | None:
    """The file of a training's programs; None without a directory of compiled programs."""
    folder = getattr(jax.config, _DIRECTORY)
    if not folder:
        return None
    facts = [
        repr(config.static()),
        [layout.num_runs, layout.batch_size, layout.batches, segments, [device.id for device in layout.devices]],
        [jax.local_devices()[0].client.platform_version, jax.device_count(), usable_cores(), _processor()],
        {name: getattr(jax.config, name) for name in _SETTINGS},
        {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)},
        [platform.python_version(), *(metadata.version(name) for name in ("jax", "jaxlib", "numpy", *_PACKAGES))],
        [_stamps(name) for name in (*_PACKAGES, *filter(None, [suite_of(config.env.id)]))],
        _sources(),
    ]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    return Path(folder) / f"training-{digest}.programs"


def load(place: Path | None, layout: Layout) -> Parts | None:
    """The programs in a file (see ``place_of``), for the devices of a layout; None if none can be used."""
    if place is None or not place.is_file():
        return None
    from jax.experimental.serialize_executable import deserialize_and_load

    with contextlib.suppress(Exception):  # a damaged file may raise anything; it is written again
        digest, contents = place.read_bytes().split(b"\n", 1)
        if hashlib.sha256(contents).hexdigest().encode() == digest:
            found = pickle.loads(contents)
            state = jax.tree.map(_from_plain, found["state"], is_leaf=_is_plain)
            programs = []
            for program, *trees in found["programs"]:
                given, result = map(jax.tree.structure, trees)
                programs.append(deserialize_and_load(program, given, result, execution_devices=layout.devices))
            init, segment, finish = programs
            return Parts(init, segment, finish, state)
    with contextlib.suppress(OSError):
        place.unlink()
    return None


class Keeping:
    """Keeps the programs of a training: each is packed when it is compiled, and all are written together.

    Nothing is reported if they cannot be written, as when the disk is full: the run does not need them.

    A program must be packed before it runs for the first time: jaxlib cannot serialise one with a sort afterwards.
    """

    def __init__(self, place: Path | None, state: Any = None):
        self._place = place
        self._state = state  # shapes and types, for ``Parts``
        self._packed: dict[str, list[Any]] = {}
        self._writing = threading.Lock()

    def pack(self, name: str, program: Any) -> Any:
        """Pack a program, unless nothing is kept; returns the program."""
        if self._place is not None:
            from jax.experimental.serialize_executable import serialize

            with contextlib.suppress(Exception):  # JAX refuses some programs, and the run does not need it
                contents, *trees = serialize(program)
                # Pytrees of numbers stand for their structures, which cannot be pickled.
                examples = [jax.tree.unflatten(tree, range(tree.num_leaves)) for tree in trees]
                self._packed[name] = [contents, *examples]
        return program

    def write(self) -> None:
        """Write what was packed, if it is complete and was not written; a second thread waits for the first."""
        with self._writing, contextlib.suppress(Exception):
            if self._place is not None and set(self._packed) == set(PARTS):
                self._write(self._place)

    def _write(self, place: Path) -> None:
        programs = [self._packed.pop(name) for name in PARTS]
        contents = pickle.dumps({"programs": programs, "state": jax.tree.map(_to_plain, self._state)})
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as part:
            part.write_bytes(hashlib.sha256(contents).hexdigest().encode() + b"\n" + contents)
        files = sorted(place.parent.glob("training-*.programs"), key=lambda path: path.stat().st_mtime)
        for path in files[:-_MOST]:
            path.unlink(missing_ok=True)


class _Plain(NamedTuple):
    """A leaf of the state without JAX's types, which need not be the same when they are loaded."""

    shape: tuple[int, ...]
    dtype: str


def _to_plain(leaf: Any) -> _Plain:
    return _Plain(leaf.shape, "key" if is_key(leaf) else str(np.dtype(leaf.dtype)))


def _is_plain(leaf: Any) -> bool:
    return isinstance(leaf, _Plain)


def _from_plain(leaf: _Plain) -> jax.ShapeDtypeStruct:
    key = jax.eval_shape(lambda: jax.random.key(0)).dtype if leaf.dtype == "key" else None
    return jax.ShapeDtypeStruct(leaf.shape, key or np.dtype(leaf.dtype))


def _processor() -> str:
    """What compiled code depends on: the processor's features."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "".join(line for line in lines[:40] if line.startswith(("model name", "flags", "Features")))
    return platform.processor()


def _stamps(package: str) -> str:
    """A digest of the names, sizes and times of a package's sources, which changes if somebody edits one."""
    spec = importlib.util.find_spec(package)
    digest = hashlib.sha256()
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).rglob("*.py")):
            about = path.stat()
            digest.update(f"{path}:{about.st_size}:{about.st_mtime_ns};".encode())
    return digest.hexdigest()


def _sources() -> str:
    """A digest of the sources of this package."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
