"""The common part of scripts that compare implementations of one agent: contenders, interleaved rounds, ratios."""

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import harness
from benchmarks.baselines.venvs import interpreter

PRODUCTS = "products alone"
OURS = "purejaxdqn"


class Contender(NamedTuple):
    """One implementation of the agent."""

    steps: int  # of a run of one seed
    targets: Mapping[int, float] = {}  # this project's targets: how many times faster to be, by the number of seeds
    loop: bool = False  # whether it runs seeds as processes: a Python loop, and the products
    venv: str = ""  # name of its virtual environment; this process's own if empty

    @property
    def python(self) -> str:
        """The Python interpreter that runs it."""
        return interpreter(self.venv) if self.venv else sys.executable


def run(
    module: str, contender: Contender, task: Mapping[str, Any], *, seeds: int, env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run one contender in ``module``'s workers; return the first one's reply with the rate over all seeds.

    What runs seeds as processes runs one seed each in up to one process per core, and their rates add up.
    """
    together = min(seeds, len(os.sched_getaffinity(0))) if contender.loop else 1
    tasks = [{**task, "seeds": 1 if contender.loop else seeds, "seed": seed} for seed in range(together)]
    processes = [harness.start(module, one, env=env, python=contender.python) for one in tasks]
    replies = [harness.answer(process) for process in processes]
    return {**replies[0], "rate": sum(reply["rate"] for reply in replies)}


def in_turn(names: Sequence[str], measure: Callable[[str], dict[str, Any]], rounds: int) -> dict[str, list[Any]]:
    """Measure all contenders in turn in every round; return the replies of each."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, replies in found.items():
            replies.append(measure(name))
            print(f"{name}: {replies[-1]['rate']:,.0f}", file=sys.stderr, flush=True)
    return found


def rows_of(
    found: Mapping[str, Sequence[Mapping[str, Any]]], contenders: Mapping[str, Contender], seeds: int, *, target: str
) -> list[dict[str, Any]]:
    """Return one row per contender.

    Args:
      found: the replies of each contender, a round each.
      contenders: by name; ``OURS`` and ``PRODUCTS`` are among them.
      seeds: trained by each.
      target: heading of the column of targets.
    """
    rates_of = {name: [reply["rate"] for reply in replies] for name, replies in found.items()}
    rows = []
    for name, replies in found.items():
        rates = rates_of[name]
        ratios, limits = (
            [one / other for one, other in zip(rates_of[fast], rates, strict=True)] for fast in (OURS, PRODUCTS)
        )
        rows.append(
            {
                "contender": name,
                "seeds": seeds,
                "steps a second": statistics.median(rates),
                "lowest": min(rates),
                "highest": max(rates),
                "compile (s)": statistics.median(reply["compile_seconds"] for reply in replies),
                "purejaxdqn is faster by": statistics.median(ratios),
                "at least by": min(ratios),
                "at most by": max(ratios),
                target: contenders[name].targets.get(seeds, ""),
                "products alone are faster by": statistics.median(limits),
            }
        )
    return rows


def measure_train(total_timesteps: int, seeds: int, train: Callable[[Any], Any]) -> dict[str, Any]:
    """Measure a whole run as one program, with a vmap over keys for many seeds.

    Args:
      total_timesteps: environment steps of a run.
      seeds: number of seeds.
      train: maps a key to anything, or to an array of episode returns with NaN where no episode ended.
    """
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0), seeds)
    argument, function = (keys[0], train) if seeds == 1 else (keys, jax.vmap(train))
    before = time.perf_counter()
    compiled = jax.jit(function).lower(argument).compile()
    compile_seconds = time.perf_counter() - before
    before = time.perf_counter()
    finished = jax.block_until_ready(compiled(argument))
    seconds = time.perf_counter() - before
    reply = {"rate": seeds * total_timesteps / seconds, "compile_seconds": compile_seconds}
    if not isinstance(finished, jax.Array):
        return {**reply, "last_return": None}
    finished = finished.reshape(seeds, -1)
    last = finished[:, -finished.shape[1] // 20 :]
    return {**reply, "last_return": [round(float(value), 1) for value in jnp.nanmean(last, axis=1)]}
