"""Does a run use more device memory than it must? Compares the compiler's figure with the sum of what a run must keep.

The sum is the state of all runs, replay buffers included, and the temporaries of one run's program, which do not grow
with the number of runs. Several runs on one device execute one after another, and the current one works on a copy of
its state: one more state per device, whatever the number of runs.

    python -m benchmarks.memory            about a minute
    python -m benchmarks.memory --quick    under a minute
"""

import sys
from typing import Any

import jax
import numpy as np

from benchmarks import harness
from purejaxdqn import configure_cpu, load_config
from purejaxdqn.config.building import make_program
from purejaxdqn.core.config import Config
from purejaxdqn.core.many import lay_out, map_runs


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("--quick", action="store_true", help="one and eight seeds only")
    arguments = parser.parse_args()
    configure_cpu(devices=1)
    rows = []
    for size in (10_000, 100_000):
        config = load_config("cartpole_cleanrl", [f"replay.size={size}"])
        workspace = measure(config, 1)["temporaries"]
        for seeds in (1, 8) if arguments.quick else (1, 2, 8, 30):
            found = measure(config, seeds)
            working_copy = found["state"] / seeds if seeds > 1 else 0.0
            must = found["state"] + workspace + working_copy
            rows.append(
                {
                    "buffer": size,
                    "seeds on the device": seeds,
                    "buffers (MB)": found["buffers"] / 1e6,
                    "other state (MB)": (found["state"] - found["buffers"]) / 1e6,
                    "workspace (MB)": workspace / 1e6,
                    "working copy of one run (MB)": working_copy / 1e6,
                    "sum (MB)": must / 1e6,
                    "the compiler's figure (MB)": found["compiled"] / 1e6,
                    "ratio": found["compiled"] / must,
                }
            )
    print(harness.table(rows))
    if not arguments.quick:
        print(harness.write("memory", rows))


def measure(config: Config, seeds: int) -> dict[str, Any]:
    """Return the bytes of the compiled segment of ``seeds`` runs on one device, by kind."""
    program, layout = make_program(config), lay_out(seeds, devices=jax.devices()[:1])
    hparams = jax.tree.map(lambda leaf: np.repeat(leaf, layout.size), config.hparams())
    keys = jax.ShapeDtypeStruct((layout.size,), jax.random.key(0).dtype)
    state = jax.eval_shape(map_runs(program.init, layout), hparams, keys)
    segment = map_runs(lambda hparams, state: program.segment(hparams, state, 1), layout, in_place=True)
    memory = segment.lower(hparams, state).compile().memory_analysis()
    return {
        "buffers": _bytes(state.algorithm.replay),
        "state": _bytes(state),
        "temporaries": memory.temp_size_in_bytes,
        "compiled": memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes,
    }


def _bytes(tree: Any) -> float:
    return float(sum(np.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)))


if __name__ == "__main__":
    sys.exit(main())
