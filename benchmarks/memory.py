"""Does a run use more device memory than it must? Compares the compiler's figure with the sum of what a run must keep.

The sum is the state of all runs, replay buffers included, and the temporaries of one run's program, which do not grow
with the number of runs. Several runs on one device execute one after another, and the current one works on a copy of
its state: one more state per device, whatever the number of runs.

A second table has runs without replay (PQN, settings of `pqn.py`). They must keep their state, one rollout with its
random numbers, and what a gradient step on a minibatch takes for itself, compiled alone; the two may share memory, so
that the figure can be below the sum. With a second copy of its rollout, one seed of Breakout would be above it.

    python -m benchmarks.memory            about two minutes
    python -m benchmarks.memory --quick    under a minute
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks.baselines.setting import ROLLOUT_SETTINGS, RolloutSetting
from benchmarks.pqn_parts import CONFIGS, overrides_of
from purejaxdqn import configure_cpu, load_config
from purejaxdqn.config.building import make_parts, make_program
from purejaxdqn.core.algorithm import ActorView
from purejaxdqn.core.config import Config
from purejaxdqn.core.draws import ActDraws, draw, random_action
from purejaxdqn.core.loop import Program
from purejaxdqn.core.many import lay_out, map_runs
from purejaxdqn.core.plan import batch_size_of
from purejaxdqn.core.rollout import rollout
from purejaxdqn.core.types import RunnerState
from purejaxdqn.dqn.learner import Sample, descend


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--quick", action="store_true", help="one and eight seeds only")
    arguments = parser.parse_args()
    configure_cpu(devices=1)
    counts = (1, 8) if arguments.quick else (1, 2, 8, 30)
    tables = {
        "memory": [row for size in (10_000, 100_000) for row in with_replay(size, counts)],
        "memory_rollout": [row for name in ROLLOUT_SETTINGS for row in without_replay(name, counts)],
    }
    for name, rows in tables.items():
        print(harness.table(rows), "", sep="\n")
        if not arguments.quick:
            print(harness.write(name, rows), "", sep="\n")


def with_replay(size: int, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each number of seeds, with buffers of ``size`` transitions."""
    config = load_config("cartpole_cleanrl", [f"replay.size={size}"])
    workspace = measure(config, 1)["temporaries"]
    rows = []
    for seeds in counts:
        found = measure(config, seeds)
        kept = {
            "buffers (MB)": found["buffers"],
            "other state (MB)": found["state"] - found["buffers"],
            "workspace (MB)": workspace,
        }
        rows.append({"buffer": size, **row(found, seeds, kept)})
    return rows


def without_replay(name: str, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each number of seeds of a setting of PQN."""
    setting = ROLLOUT_SETTINGS[name]
    config = config_of(setting)
    kept = working_memory(config)
    return [
        {"setting": name, **row(found := measure(config, seeds), seeds, {"state (MB)": found["state"], **kept})}
        for seeds in counts
    ]


def row(found: Mapping[str, float], seeds: int, kept: Mapping[str, float]) -> dict[str, Any]:
    """Return a row's columns: what must be ``kept`` in bytes, its sum, and the compiler's figure."""
    working_copy = found["state"] / seeds if seeds > 1 else 0.0
    must = sum(kept.values()) + working_copy
    return {
        "seeds on the device": seeds,
        **{name: value / 1e6 for name, value in kept.items()},
        "working copy of one run (MB)": working_copy / 1e6,
        "sum (MB)": must / 1e6,
        "the compiler's figure (MB)": found["compiled"] / 1e6,
        "ratio": found["compiled"] / must,
    }


def config_of(setting: RolloutSetting) -> Config:
    """Return the config of a run of ten rollouts."""
    return load_config(CONFIGS, [*overrides_of(setting), f"total_timesteps={10 * setting.rollout}"])


def working_memory(config: Config) -> dict[str, float]:
    """Return the bytes of a rollout with its random numbers, and those that a gradient step takes for itself."""
    program, hparams = make_program(config), config.hparams()
    plan, learning = program.plan, program.algorithm.draws
    state = jax.eval_shape(program.init, hparams, jax.random.key(0))
    drawn = jax.eval_shape(
        lambda key: draw(key, 1, rollout=plan.rollout, num_envs=plan.num_envs, learning=learning), jax.random.key(0)
    )
    return {
        "rollout (MB)": rollout_bytes(program, state) + _bytes(jax.eval_shape(_words, drawn)),
        "a gradient step (MB)": gradient_step_bytes(config, program, state),
    }


def rollout_bytes(program: Program, state: RunnerState) -> float:
    """Return the bytes of a rollout's steps."""
    env, plan = program.env, program.plan

    def steps(actors: Any, key: Any) -> Any:
        def act(view: ActorView, draws: ActDraws, env_step: Any) -> Any:
            return random_action(draws.choice, view.legal, env.num_actions), view.memory

        draws = draw(key, 1, rollout=plan.rollout, num_envs=plan.num_envs, learning=program.algorithm.draws)[0]
        return rollout(env, env.with_params({}), act, actors, jax.tree.map(lambda leaf: leaf[0], draws))[1]

    return _bytes(jax.eval_shape(steps, state.actors, jax.random.key(0)))


def gradient_step_bytes(config: Config, program: Program, state: RunnerState) -> float:
    """Return the bytes of a minibatch, and of the temporaries of a gradient step that updates its state in place."""
    parts, size, hparams = make_parts(config, program.env), batch_size_of(config), config.hparams()
    obs = jax.ShapeDtypeStruct((size, *program.env.obs_shape), program.env.obs_dtype)
    numbers = jax.ShapeDtypeStruct((size,), jnp.float32)
    actions = jax.ShapeDtypeStruct((size,), jnp.int32)
    inputs = jax.eval_shape(lambda obs: parts.observations.inputs(parts.observations.init(), obs), obs)
    sample = Sample(inputs, actions, target=numbers, weight=numbers, noise=None, fractions=None)

    def step(learner: Any, sample: Sample) -> Any:
        return descend(parts, hparams, learner, sample, hparams.optimizer_learning_rate)[0]

    memory = jax.jit(step, donate_argnums=0).lower(state.algorithm, sample).compile().memory_analysis()
    return float(memory.temp_size_in_bytes) + _bytes(sample)


def measure(config: Config, seeds: int) -> dict[str, Any]:
    """Return the bytes of the compiled segment of ``seeds`` runs on one device, by kind."""
    program, layout = make_program(config), lay_out(seeds, devices=jax.devices()[:1])
    hparams = jax.tree.map(lambda leaf: np.repeat(leaf, layout.size), config.hparams())
    keys = jax.ShapeDtypeStruct((layout.size,), jax.random.key(0).dtype)
    state = jax.eval_shape(map_runs(program.init, layout), hparams, keys)
    segment = map_runs(lambda hparams, state: program.segment(hparams, state, 1), layout, in_place=True)
    memory = segment.lower(hparams, state).compile().memory_analysis()
    return {
        "buffers": _bytes(state.algorithm.replay) if config.replay.kind != "none" else 0.0,
        "state": _bytes(state),
        "temporaries": memory.temp_size_in_bytes,
        "compiled": memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes,
    }


def _words(tree: Any) -> Any:
    """Random numbers with keys as the words that they are."""
    return jax.tree.map(
        lambda leaf: jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf, tree
    )


def _bytes(tree: Any) -> float:
    return float(sum(np.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)))


if __name__ == "__main__":
    sys.exit(main())
