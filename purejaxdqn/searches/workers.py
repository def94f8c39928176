"""The workers of one study: each gives signs of life, so that the others wait for it only while it is alive.

Optuna's own heartbeat works with ``optimize`` and a database; this one works with ask and tell, and with a journal.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

WORKER = "worker"
"""The attribute of a trial that holds the name of its worker."""
_BEAT = 20.0
"""Seconds between two signs of life."""
_GRACE = 120.0
"""Seconds without a sign of life after which a worker counts as dead."""
_GONE = 0.0


@contextlib.contextmanager
def at_work(study: optuna.Study, worker: str) -> Iterator[None]:
    """Give signs of life to the other workers, from a thread, since compiling or a segment may take long.

    A worker that is killed falls silent; one that ends or is stopped tells the others.
    """
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT):
            with contextlib.suppress(Exception):  # the storage is unreachable; the search itself reports it
                study.set_user_attr(_sign_of(worker), time.time())

    study.set_user_attr(_sign_of(worker), time.time())
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(Exception):  # then the others find out after ``_GRACE``
            study.set_user_attr(_sign_of(worker), _GONE)


def is_alone(study: optuna.Study, worker: str) -> bool:
    """Whether the study has never had another worker."""
    signs = {key for key in study.user_attrs if key.startswith(_sign_of(""))}
    return signs <= {_sign_of(worker)} and all(
        trial.user_attrs.get(WORKER, worker) == worker for trial in study.get_trials(deepcopy=False)
    )


def knows(study: optuna.Study, worker: str) -> bool:
    """Whether a worker has ever been at work on a study."""
    return _sign_of(worker) in study.user_attrs or any(
        trial.user_attrs.get(WORKER) == worker for trial in study.get_trials(deepcopy=False)
    )


class WorkerWatch:
    """Tells living workers from dead ones: by whether their signs of life change, by this machine's clock only."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Any, float]] = {}  # the last sign of life, and when it was first seen

    def under_way(self, study: optuna.Study, worker: str) -> list[FrozenTrial]:
        """Running trials of other workers, without those whose worker has ended or has been silent for too long."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        signs = study.user_attrs
        return [trial for trial in running if trial.user_attrs.get(WORKER) != worker and self._is_alive(trial, signs)]

    def _is_alive(self, trial: FrozenTrial, signs: Mapping[str, Any]) -> bool:
        # A trial without a worker is about to be signed, or was left by a kill before that.
        name = trial.user_attrs.get(WORKER, f"of trial {trial.number}")
        sign, now = signs.get(_sign_of(name)), time.monotonic()
        if name not in self._seen or self._seen[name][0] != sign:
            self._seen[name] = (sign, now)
        return sign != _GONE and now - self._seen[name][1] <= _GRACE


def _sign_of(worker: str) -> str:
    """The study's attribute that holds the time of a worker's last sign of life."""
    return f"worker {worker}"
