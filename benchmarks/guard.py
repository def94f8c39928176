"""Has the compiled program grown? Counts that do not depend on the speed of the machine.

For presets of every kind on CartPole: the instructions, fusions and loops of the compiled segment (all that a run
repeats: acting, environment, replay, updates, target network, evaluation), and the FLOPs of one gradient step and its
targets before compilation (of one member, and not of sequences). `tests/test_guard.py` compares them with
`results/guard.csv`, which has counts for each version of jaxlib that compiled them.

    python -m benchmarks.guard            compares with the stored counts: a minute
    python -m benchmarks.guard --store    stores the counts, beside those of other versions
    python -m benchmarks.guard --quick    plain DQN only
    python -m benchmarks.guard --only pqn --store
"""

import csv
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks import harness

PRESETS = (
    "dqn",
    "double_dqn",
    "dueling",
    "n_step",
    "per",
    "noisy",
    "c51",
    "qr_dqn",
    "iqn",
    "fqf",
    "munchausen",
    "rainbow",
    "pqn",
    "pqn_gru",
    "r2d2",
    "bootstrapped_priors",
)
"""One for each kind of program, and one with a memory without replay, a memory with replay, and members."""
COUNTED = ("instructions", "fusions", "loops", "update flops")


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--store", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="PRESET", choices=PRESETS, help="; ".join(PRESETS))
    arguments = parser.parse_args()
    os.environ.setdefault("NPROC", "1")
    rows = [measure(preset) for preset in arguments.only or PRESETS[: 1 if arguments.quick else None]]
    before = stored()
    if arguments.store:
        print(harness.table(rows))
        print(harness.write("guard", list((before | by_version(rows)).values())))
        return
    print(harness.table([{**row, "grown by": grown(row, before)} for row in rows]))


def measure(preset: str) -> dict[str, Any]:
    """Compile a preset on CartPole and count; return a row of the table."""
    import jaxlib

    from purejaxdqn import load_config

    config = load_config(("cartpole_cleanrl", preset), ("total_timesteps=20_000",))
    counts = compiled_counts(config)
    flops = update_flops(config) if config.network.memory == "none" else ""
    return {"preset": preset, "jaxlib": jaxlib.__version__, **counts, "update flops": flops}


def compiled_counts(config: Any) -> dict[str, int]:
    """Compile the segment of a config; return its instructions, fusions and loops."""
    import jax

    from purejaxdqn.config.building import make_program
    from purejaxdqn.system.compiling import compile_runs

    program, hparams = make_program(config), config.hparams()
    state = jax.eval_shape(program.init, hparams, jax.random.key(0))
    segment = jax.jit(lambda hparams, state: program.segment(hparams, state, 2))
    text = compile_runs(segment, "cpu", hparams, state).as_text()
    return {
        "instructions": len(re.findall(r"^\s+(?:ROOT )?%?[\w.-]+ = ", text, re.MULTILINE)),
        "fusions": len(re.findall(r" fusion\(", text)),
        "loops": len(re.findall(r" while\(", text)),
    }


def update_flops(config: Any) -> float:
    """Return the FLOPs of ``Learner.update`` before compilation, which are the same on every machine."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn.config.building import make_parts
    from purejaxdqn.core.plan import batch_size_of
    from purejaxdqn.dqn.learner import make_learner
    from purejaxdqn.dqn.types import Batch, Transition
    from purejaxdqn.environments.registry import make_environment

    env = make_environment(**config.env.making())
    learner, hparams, size = make_learner(make_parts(config, env)), config.hparams(), batch_size_of(config)
    obs, ones = jnp.zeros((size, *env.obs_shape), env.obs_dtype), jnp.ones(size)
    batch = Batch(Transition(obs, jnp.zeros(size, jnp.int32), ones, ones, obs), ones, jnp.zeros(size, jnp.int32))
    state = jax.eval_shape(learner.init, hparams, jax.random.key(0))
    lowered = jax.jit(learner.update).lower(hparams, state, batch, jax.random.key(0), hparams.optimizer_learning_rate)
    return float((lowered.cost_analysis() or {})["flops"])


def stored() -> dict[tuple[str, str], dict[str, Any]]:
    """Read the stored counts, by preset and version."""
    with (harness.RESULTS / "guard.csv").open(encoding="utf-8", newline="") as file:
        return by_version(csv.DictReader(file))


def by_version(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Arrange rows by preset and version of jaxlib."""
    return {(row["preset"], row["jaxlib"]): row for row in rows}


def grown(row: dict[str, Any], stored: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """Return the change of each count from the stored one, in per cent."""
    before = stored.get((row["preset"], row["jaxlib"]))
    if before is None:
        return "not stored for this jaxlib"
    return ", ".join(f"{100 * (row[name] / float(before[name]) - 1):+.1f}%" for name in counted(row))


def counted(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of ``COUNTED`` that a row has."""
    return tuple(name for name in COUNTED if row[name] != "")


if __name__ == "__main__":
    main()
