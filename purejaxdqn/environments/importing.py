"""Imports the packages of environments late, quietly, and never from the working directory."""

import contextlib
import importlib
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

from purejaxdqn.environments.listed import SUITES


class Later(types.ModuleType):
    """Stands in for a module, which is imported when something in it is first used that is not given as ``known``."""

    def __init__(self, name: str, **known: Any):
        super().__init__(name)
        vars(self).update(known)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # used while it stands in
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def is_installed(package: str) -> bool:
    """Whether a package can be imported, or is a suite that comes with this one; imports nothing.

    A folder without code is none: what pip leaves of a package that has written files of its own, such as textures.
    """
    if package in SUITES and SUITES[package].ours:
        return True
    with not_from_here():
        spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def import_adapter(suite: str) -> Any:
    """The module of the adapter of a suite, and with it the suite.

    Raises:
      Exception: whatever the suite's import may raise.
    """
    # A renderer of octax, which nothing here uses, wants OpenCV.
    later = {"cv2": Later("cv2")} if suite == "octax" and not is_installed("cv2") else {}
    with not_from_here(), any_backend(), standing_in(later), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"purejaxdqn.environments.suites.{suite}")


@contextlib.contextmanager
def standing_in(modules: dict[str, Any]) -> Iterator[None]:
    """Have other modules find these in the block, and not afterwards."""
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def not_from_here() -> Iterator[None]:
    """Take the working directory off the places where Python looks for modules.

    ``python -m`` puts it first, so that a run directory with a file ``pgx.py`` of somebody else's could run code.
    """
    before, here = list(sys.path), os.getcwd()
    sys.path[:] = [place for place in before if place and os.path.abspath(place) != here]
    try:
        yield
    finally:
        added = [place for place in sys.path if place not in before]
        sys.path[:] = [*before, *added]


@contextlib.contextmanager
def any_backend() -> Iterator[None]:
    """Import Matplotlib although it does not know the backend in ``MPLBACKEND``, at which its import would fail.

    A notebook sets it, for the processes that it starts, to a backend that they may not have.
    """
    backend = os.environ.get("MPLBACKEND")
    if backend is None or "matplotlib" in sys.modules:
        yield
        return
    del os.environ["MPLBACKEND"]
    try:
        yield
    finally:
        os.environ["MPLBACKEND"] = backend
    if "matplotlib" in sys.modules:
        with contextlib.suppress(ValueError):
            sys.modules["matplotlib"].rcParams["backend"] = backend
