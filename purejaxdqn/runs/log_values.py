"""What live logs are given of a run: its metrics while it trains, its hyper-parameters, its final score and speed."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from purejaxdqn.core.config import Config
from purejaxdqn.runs.metrics import Metrics
from purejaxdqn.system.files import to_json

_LEFT_OUT = ("log", "checkpoint")
"""Config keys and sections that say nothing of what is learned."""
FINAL, SPEED = "final/eval_return_iqm", "speed/env_steps_per_second"


def points(part: Metrics) -> Iterator[tuple[int, dict[str, float]]]:
    """For each epoch its environment step, and the values that are known: ``metric/seed_0``... and ``metric/mean``."""
    columns = part._asdict()
    steps = columns.pop("env_step")[0]
    for epoch, step in enumerate(steps):
        values: dict[str, float] = {}
        for name, column in columns.items():
            known = {seed: float(value) for seed, value in enumerate(column[:, epoch]) if not np.isnan(value)}
            values |= {f"{name}/seed_{seed}": value for seed, value in known.items()}
            if known:
                values[f"{name}/mean"] = float(np.mean(list(known.values())))
        yield int(step), values


def hyper_parameters(config: Config) -> dict[str, bool | int | float | str]:
    """The config by dotted keys, lists as text; without what is null, and without logs and checkpoints."""
    tree = {name: value for name, value in config.model_dump().items() if name not in _LEFT_OUT}
    return dict(_flat(tree, ""))


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value if isinstance(value, bool | int | float | str) else to_json(value)


def final_values(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a finished run: the final greedy returns, of each seed and their IQM, and the times."""
    found = {
        FINAL: summary["iqm"],
        **{f"final/eval_return_seed_{seed}": value for seed, value in enumerate(summary["final_eval_return"])},
        SPEED: summary["env_steps_per_second"],
        "speed/run_seconds": summary["run_seconds"],
        "speed/compile_seconds": summary["compile_seconds"],
    }
    return {name: float(value) for name, value in found.items() if value is not None}
