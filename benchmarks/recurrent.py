"""What does a memory cost in a gradient step, and how fast is recurrent PQN, compared with a plain implementation?

The first table has a gradient step without replay (`learner.descend`: one forward and one backward pass) on 2,048
transitions in sequences of T steps, with a GRU and with an LRU of 64 units. Each is compared with a feed-forward
network that has, in place of the memory, a hidden layer whose products take the same FLOPs. The compiler counts the
body of a loop once, so FLOPs of products are counted by hand.

The second table has runs on MemoryChain of length 30 with the hyperparameters of `memory_chain.yaml`: this project as
its command runs it, evaluation included, and a plain recurrent PQN, written like public implementations
(`baselines/scan_recurrent_pqn.py`), each in a separate process, in interleaved rounds. Rates do not include
compilation. With eight seeds, the plain program trains one seed on every core, in a process each: with eight vmapped
seeds and two threads XLA's CPU backend hangs in it (jaxlib 0.10.2), but not with one thread.

    python -m benchmarks.recurrent            both tables, about 10 minutes on two cores
    python -m benchmarks.recurrent --steps    only the first
    python -m benchmarks.recurrent --quick    under a minute: T of 16, short runs of one seed, one round, nothing kept
    python -m benchmarks.recurrent --check    does the plain one learn? trains it for longer, shows the last returns
"""

import json
import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import contenders, harness
from benchmarks.baselines.setting import MEMORY_SIZE, RECURRENT
from benchmarks.contenders import OURS, Contender, in_turn, measure_train

ITEMS = 2_048
LENGTHS = (16, 64, 256)
MEMORIES = ("gru", "lru")
WIDTH = 64  # of the layers before and after the memory
INPUTS = 4
TARGET = 2.0
"""This project's targets: at most so many times the FLOP ratio of LRU, and at least so many times the plain rate."""

PLAIN = "plain recurrent PQN"
CONTENDERS = {PLAIN: Contender(60, {1: TARGET, 8: TARGET}), OURS: Contender(120)}
"""``steps`` are rollouts here."""
CHAIN = {"memory_length": 30}
CHECKED = 190
"""Rollouts of a check: 389,120 steps."""


def main() -> None:
    parser = harness.parser(__doc__, quick="one length, short runs of one seed, one round", rounds=7)
    parser.add_argument("--steps", action="store_true", help="only the table of gradient steps")
    parser.add_argument("--check", action="store_true", help="train the plain one for longer; print its last returns")
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(**arguments.worker)))
        return
    quick, rounds = arguments.quick, 1 if arguments.quick else arguments.rounds
    if arguments.check:
        task = {"name": PLAIN, "rollouts": CHECKED}
        print(contenders.run(__spec__.name, CONTENDERS[PLAIN], task, seeds=1)["last_return"])
        return
    print(f"{harness.machine()}; medians of {rounds} interleaved rounds\n")
    task = {"name": "steps", "rollouts": rounds, "lengths": LENGTHS[:1] if quick else LENGTHS}
    show("family_memory", harness.answer(harness.start(__spec__.name, task))["rows"], kept=not quick)
    if not arguments.steps:
        rows = [row for seeds in ((1,) if quick else (1, 8)) for row in compare(seeds, rounds, quick=quick)]
        show("recurrent", rows, kept=not quick)


def show(name: str, rows: list[dict[str, Any]], *, kept: bool) -> None:
    """Print a table, and write it if it is ``kept``."""
    print(harness.table(rows), "", sep="\n", flush=True)
    if kept:
        print(harness.write(name, rows), "", sep="\n", flush=True)


def compare(seeds: int, rounds: int, *, quick: bool) -> list[dict[str, Any]]:
    """Run both contenders in turn; return one row for each."""

    def measure_one(name: str) -> dict[str, Any]:
        apart = name == PLAIN and seeds > 1
        contender = CONTENDERS[name]._replace(loop=apart)
        rollouts = contender.steps // ((6 if quick else 1) * (2 if seeds > 1 else 1))
        task = {"name": name, "rollouts": rollouts, "pinned": apart}
        return contenders.run(__spec__.name, contender, task, seeds=seeds)

    found = in_turn(list(CONTENDERS), measure_one, rounds)
    rates = {name: [reply["rate"] for reply in replies] for name, replies in found.items()}
    ratios = [ours / plain for ours, plain in zip(rates[OURS], rates[PLAIN], strict=True)]
    return [
        {
            "contender": name,
            "seeds": seeds,
            "steps a second": statistics.median(rates[name]),
            "lowest": min(rates[name]),
            "highest": max(rates[name]),
            "compile (s)": statistics.median(reply["compile_seconds"] for reply in found[name]),
            "purejaxdqn is faster by": statistics.median(ratios) if name == PLAIN else 1.0,
            "at least by": min(ratios) if name == PLAIN else 1.0,
            "at most by": max(ratios) if name == PLAIN else 1.0,
            "target": contender.targets.get(seeds, ""),
        }
        for name, contender in CONTENDERS.items()
    ]


def measure(
    *, name: str, rollouts: int, seeds: int = 1, seed: int = 0, pinned: bool = False, lengths: Sequence[int] = ()
) -> dict[str, Any]:
    """Measure a contender's rate over all seeds, without compilation; or return the table of gradient steps.

    Args:
      name: the contender, or "steps".
      rollouts: of each seed; of the gradient steps, the rounds.
      seeds: trained in this process.
      seed: the number of a worker, of those that train a seed each.
      pinned: whether the worker keeps to the core of its number.
      lengths: T of the gradient steps.
    """
    total_timesteps = rollouts * RECURRENT.rollout
    if pinned:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[seed]})
    if name == OURS:
        from benchmarks.throughput import ours

        numbers = [f"num_seeds={seeds}", f"total_timesteps={total_timesteps}"]
        numbers += [f"env.params.{key}={value}" for key, value in CHAIN.items()]
        return ours(configs=("memory_chain",), overrides=[*overrides(), *numbers], cached=False)
    if name == PLAIN:
        from benchmarks.baselines.scan_recurrent_pqn import make_train

        train = make_train(RECURRENT, total_timesteps, memory_size=MEMORY_SIZE, env_params=CHAIN)
        return measure_train(total_timesteps, seeds, lambda key: train(key)[1])
    from purejaxdqn import configure_cpu

    configure_cpu(devices=1)
    return {"rows": [row for length in lengths for row in measure_steps(length, rounds=rollouts)]}


def overrides() -> list[str]:
    """Return the overrides that make `memory_chain.yaml` the setting of the plain one, whatever a search changes."""
    one = RECURRENT
    return [
        f"env.num_envs={one.num_envs}",
        f"gamma={one.gamma}",
        f"network={{hidden: {list(one.hidden)}, layer_norm: true, memory: gru, memory_size: {MEMORY_SIZE}}}",
        f"optimizer={{name: radam, learning_rate: {one.learning_rate}, anneal: false}}",
        f"rollout={{steps: {one.steps}, epochs: {one.epochs}, minibatches: {one.minibatches}, lambda: {one.trace}}}",
        f"exploration={{start: 1.0, end: {one.epsilon_end}, fraction: {one.exploration_fraction}}}",
    ]


def products_of(memory: str) -> int:
    """Return the multiplications of a memory's products for one item: of the gates, or of B, C (twice) and D."""
    return {"gru": 6, "lru": 5}[memory] * WIDTH * MEMORY_SIZE


def measure_steps(length: int, *, rounds: int) -> list[dict[str, Any]]:
    """Time the gradient step of each memory on sequences of ``length``, and of the feed-forward network beside it."""
    runs: dict[str, Callable[[], float]] = {}
    for memory in MEMORIES:
        widened = products_of(memory) // (2 * WIDTH)
        runs[memory] = _timed([WIDTH, WIDTH], memory, length)
        runs[f"{memory} beside"] = _timed([WIDTH, widened, WIDTH], "none", length)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(run())
    rows = []
    for memory in MEMORIES:
        mine, others = times[memory], times[f"{memory} beside"]
        rows.append(
            {
                "memory": memory,
                "T": length,
                "sequences": ITEMS // length,
                "microseconds": 1e6 * statistics.median(mine),
                "feed-forward of the same FLOPs": 1e6 * statistics.median(others),
                "ratio": statistics.median(one / other for one, other in zip(mine, others, strict=True)),
                "target": TARGET if memory == "lru" else "",
            }
        )
    return rows


def _timed(hidden: list[int], memory: str, length: int, *, steps: int = 20) -> Callable[[], float]:
    """Compile a scan of gradient steps; return a function that runs it and returns seconds for one."""
    import time

    import jax
    import jax.numpy as jnp

    from purejaxdqn import load_config
    from purejaxdqn.config.building import make_parts
    from purejaxdqn.dqn.learner import NO_RECALL, Recall, Sample, descend, make_learner
    from purejaxdqn.environments.registry import make_environment
    from purejaxdqn.system.compiling import compile_runs

    config = load_config(("cartpole_cleanrl", "pqn_gru"), [f"network={{hidden: {hidden}, memory: {memory}}}"])
    parts = make_parts(config, make_environment(**config.env.making()))
    learner, hparams = make_learner(parts), config.hparams()
    keys = jax.random.split(jax.random.key(0), 4)
    recall = NO_RECALL
    if learner.memory is not None:
        starts = jax.random.bernoulli(keys[3], 1 / 32, (length, ITEMS // length))
        recall = Recall(learner.memory.carry(ITEMS // length), starts)
    sample = Sample(
        obs=jax.random.normal(keys[0], (ITEMS, INPUTS)),
        action=jax.random.randint(keys[1], (ITEMS,), 0, parts.num_actions),
        target=jax.random.normal(keys[2], (ITEMS,)),
        weight=jnp.ones(ITEMS),
        noise=None,
        fractions=None,
        recall=recall,
    )
    state = jax.jit(learner.init)(hparams, keys[0])

    @jax.jit
    @jax.default_matmul_precision(config.precision)
    def run(hparams: Any, state: Any, sample: Sample) -> Any:
        rate = hparams.optimizer_learning_rate
        return jax.lax.scan(lambda state, _: (descend(parts, hparams, state, sample, rate)[0], ()), state, length=steps)

    compiled = compile_runs(run, "cpu", hparams, state, sample)  # as runs are compiled
    jax.block_until_ready(compiled(hparams, state, sample))

    def seconds() -> float:
        before = time.perf_counter()
        jax.block_until_ready(compiled(hparams, state, sample))
        return (time.perf_counter() - before) / steps

    return seconds


if __name__ == "__main__":
    main()
