"""The workers of one study: each shows that it is at work, so that the others wait for it, and not for a dead one.

Optuna's own heartbeat is for ``optimize`` on a database; this one does for ask and tell, and for a journal.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

WORKER = "worker"
"""The attribute of a trial that names its worker."""
_BEAT = 20.0
"""Seconds from one sign of life to the next."""
_GRACE = 120.0
"""Seconds without one after which a worker is taken for dead."""
_GONE = 0.0


@contextlib.contextmanager
def at_work(study: optuna.Study, worker: str) -> Iterator[None]:
    """Show the other workers that this one is at work: by a thread, as compiling or a segment may take long.

    One that is killed falls silent; one that ends or is stopped says so.
    """
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT):
            with contextlib.suppress(Exception):  # of a storage that is away for a moment; the search meets it itself
                study.set_user_attr(_sign_of(worker), time.time())

    study.set_user_attr(_sign_of(worker), time.time())
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(Exception):  # then the others find out after a while
            study.set_user_attr(_sign_of(worker), _GONE)


def is_alone(study: optuna.Study, worker: str) -> bool:
    """Whether no other worker was ever in the study."""
    signs = {key for key in study.user_attrs if key.startswith(_sign_of(""))}
    return signs <= {_sign_of(worker)} and all(trial.user_attrs.get(WORKER, worker) == worker for trial in study.trials)


class Watch:
    """Tells the living from the dead: by whether their signs of life change, by this machine's clock alone."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Any, float]] = {}  # the last sign of life, and when it was first seen

    def under_way(self, study: optuna.Study, worker: str) -> list[FrozenTrial]:
        """Trials under way in other workers, but for those whose worker is gone or has been silent for too long."""
        running = study.get_trials(states=(TrialState.RUNNING,))
        signs = study.user_attrs
        return [trial for trial in running if trial.user_attrs.get(WORKER) != worker and self._is_alive(trial, signs)]

    def _is_alive(self, trial: FrozenTrial, signs: Mapping[str, Any]) -> bool:
        # A trial that nobody has signed is about to be, or was left by a kill in between.
        name = trial.user_attrs.get(WORKER, f"of trial {trial.number}")
        sign, now = signs.get(_sign_of(name)), time.monotonic()
        if name not in self._seen or self._seen[name][0] != sign:
            self._seen[name] = (sign, now)
        return sign != _GONE and now - self._seen[name][1] <= _GRACE


def _sign_of(worker: str) -> str:
    """The study's attribute with the time of a worker's last sign of life."""
    return f"worker {worker}"
