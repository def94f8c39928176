"""Do independent implementations of DQN learn as well as ours?

CartPole with CleanRL's hyperparameters, 500,000 steps in ten environments, thirty seeds each: the PyTorch loop over
Gymnasium (`baselines/torch_dqn.py`), the plain scan with its own replay and loop (`baselines/scan_dqn.py`), and ours,
trained by the command as the row `cartpole/cleanrl` of `learning.py`. The score is CleanRL's: the mean return of the
last 100 training episodes, with exploration (ours: as in `learning.py`, of the last epochs with 100 episodes or more).

    python -m benchmarks.independent            25 minutes on two cores
    python -m benchmarks.independent --quick    under a minute: two seeds, 21,000 steps, nothing kept
    python -m benchmarks.independent --table    table and picture from results/independent.csv, without training
"""

import csv
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.baselines.setting import Setting
from benchmarks.baselines.venvs import interpreter

OURS = "purejaxdqn"
EPISODES = 100


def main() -> None:
    parser = harness.parser(__doc__, quick="two seeds, short, nothing kept")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep our run here, and resume a run that is here")
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(**arguments.worker)))
        return
    if arguments.table:
        with (harness.RESULTS / "independent.csv").open(encoding="utf-8", newline="") as file:
            show(list(csv.DictReader(file)), keep=True)
        return
    seeds, steps = (2, 21_000) if arguments.quick else (30, 500_000)
    with harness.runs_in(None if arguments.quick else arguments.out) as folder:
        returns = {OURS: ours(seeds, steps, folder / "independent"), **others(seeds, steps)}
    lines = [{"agent": name, "seed": k, "training_return": x} for name, xs in returns.items() for k, x in enumerate(xs)]
    if not arguments.quick:
        harness.write("independent", lines)
    show(lines, keep=not arguments.quick)


def ours(seeds: int, steps: int, folder: Path) -> list[float]:
    """Train our agent with the command; return the score of each seed."""
    from benchmarks.learning import ROWS, SEED, train

    row = ROWS["cartpole/cleanrl"]._replace(seeds=seeds, steps=steps)
    return [float(line["training_return"]) for line in train("cartpole/cleanrl", row, folder, SEED)[0]]


def others(seeds: int, steps: int) -> dict[str, list[float]]:
    """Train the baselines; return their scores by seed. The Python loop uses one process per seed, on all cores."""

    def one(seed: int) -> float:
        worker = harness.start(__spec__.name, {"seed": seed, "steps": steps}, python=interpreter("torch"))
        (score,) = harness.answer(worker)["scores"]
        print(f"PyTorch, seed {seed}: {score:.1f}", file=sys.stderr, flush=True)
        return float(score)

    interpreter("torch")  # created before two threads need it
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        in_torch = list(pool.map(one, range(seeds)))
    scan = harness.answer(harness.start(__spec__.name, {"seeds": seeds, "steps": steps}))
    return {"PyTorch": in_torch, "scan and cond": scan["scores"]}


def measure(*, steps: int, seed: int | None = None, seeds: int | None = None) -> dict[str, list[float]]:
    """Train one seed with PyTorch (``seed``), or many with the plain scan (``seeds``); return their scores."""
    setting = Setting(total_timesteps=steps)
    if seeds is None:
        from benchmarks.baselines import python_loop
        from benchmarks.baselines.torch_dqn import TorchAgent

        assert seed is not None
        returns = python_loop.run(TorchAgent(setting, seed), setting, seed).returns[-EPISODES:]
        return {"scores": [sum(returns) / len(returns)]}

    import jax
    import numpy as np

    from benchmarks.baselines.scan_dqn import make_train

    train = make_train(setting)
    keys = jax.random.split(jax.random.key(0), seeds)
    finished = np.asarray(jax.jit(jax.vmap(lambda key: train(key)[1]))(keys)).reshape(seeds, -1)
    return {"scores": [float(run[~np.isnan(run)][-EPISODES:].mean(dtype=np.float64)) for run in finished]}


def summarise(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per agent, with the probability that a run of ours scores higher than one of the agent's."""
    import numpy as np

    from purejaxdqn.runs.statistics import improvement_in_words, iqm, iqm_interval

    names = dict.fromkeys(line["agent"] for line in lines)
    scores = {name: np.array([float(x["training_return"]) for x in lines if x["agent"] == name]) for name in names}
    rows: list[dict[str, Any]] = []
    for name, values in scores.items():
        low, high = iqm_interval(values) or (np.nan, np.nan)
        row = {"agent": name, "seeds": len(values), "IQM": iqm(values), "95% CI low": low, "95% CI high": high}
        row |= {"mean": float(values.mean()), "lowest seed": float(values.min()), "highest seed": float(values.max())}
        higher = "" if name == OURS else improvement_in_words(scores[OURS], values)
        rows.append({**row, "ours is higher": higher})
    return rows


def show(lines: Sequence[dict[str, Any]], *, keep: bool) -> None:
    """Print the table; if ``keep``, also write it and draw the picture."""
    table = summarise(lines)
    print(harness.table(table))
    if keep:
        print(harness.write("independent_table", table, of="independent"))


if __name__ == "__main__":
    main()
