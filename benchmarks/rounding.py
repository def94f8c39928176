"""How much do scores change when runs are batched, and matrix products therefore round differently?

On an accelerator the runs of a program are batched by `vmap`, and the rounding of a matrix product can depend on their
number; the random numbers do not. This trains the same seeds of `cartpole_double.yaml` (30) and of Breakout (10) one
after another and batched, and compares each seed's score and the interquartile means.

    python -m benchmarks.rounding            about 5 minutes on two cores
    python -m benchmarks.rounding --quick    under a minute: four seeds, short runs
"""

import jax
import numpy as np

from benchmarks import harness
from purejaxdqn import configure_cpu, load_config, run_many
from purejaxdqn.core.keys import run_key
from purejaxdqn.runs.statistics import iqm, iqm_interval

SEED = 8100


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--quick", action="store_true", help="four seeds, short runs")
    arguments = parser.parse_args()
    configure_cpu()
    steps, seeds = (10_000, 4) if arguments.quick else (50_000, 30)
    rows = [
        row(name, source, max(2, seeds // 3) if name == "Breakout" else seeds)
        for name, source in programs(steps).items()
    ]
    print(harness.table(rows))
    if not arguments.quick:
        print(harness.write("rounding", rows))


def programs(steps: int) -> dict[str, tuple[str, list[str]]]:
    """Return the configs to train, each with its overrides, by name."""
    return {
        "cartpole_double": ("cartpole_double", [f"total_timesteps={steps}"]),
        "Breakout": ("minatar/breakout", [f"total_timesteps={steps}", "schedule.warmup=5000"]),
    }


def row(name: str, source: tuple[str, list[str]], seeds: int) -> dict[str, object]:
    """Train the same runs one after another and batched; return a row that compares their scores."""
    config = load_config(*source)
    keys = jax.numpy.stack([run_key(np.uint32(SEED), np.uint32(index)) for index in range(seeds)])
    alone, batched = (
        np.asarray(run_many(config, config.hparams(), keys, batch_size=size).final_returns[0]).mean(-1)
        for size in (1, seeds)
    )
    low, high = iqm_interval(alone) or (float("nan"), float("nan"))
    return {
        "runs": f"{name}, {seeds} seeds, {config.total_timesteps:,} steps",
        "device": jax.devices()[0].device_kind,
        "seeds with the same bits": f"{(alone == batched).sum()} of {seeds}",
        "a score moves by (median)": float(np.median(np.abs(alone - batched))),
        "IQM one after another": float(iqm(alone)),
        "its 95% CI": f"{low:.4g} to {high:.4g}",
        "IQM batched": float(iqm(batched)),
    }


if __name__ == "__main__":
    main()
