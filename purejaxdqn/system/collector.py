"""Python's garbage collector waits while a command imports its modules, and never visits them afterwards.

Every full collection visits all objects there are. JAX and its libraries bring half a million, none of them garbage, so
that collections take a seventh of the time that imports take.
"""

import contextlib
import gc
import sys
from collections.abc import Iterator
from pathlib import Path


def pause_for_command() -> None:
    """Pause the collector if this process is a command of this package; ``resume`` ends the pause."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    name = module.name if module else Path(sys.argv[0]).name
    if name.split(".")[0] == "purejaxdqn":
        gc.disable()


def resume() -> None:
    """End the pause, if there is one; the collector leaves alone what was made before."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's garbage collector: tracing makes many objects that stay, and each full collection visits all."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
