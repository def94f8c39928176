"""How close is a gradient step to this machine's limit, and what does a run spend its time on?

One thread, CartPole with CleanRL's hyperparameters. First table: FLOPs and bytes of a gradient step by the compiler's
count, and the time of its matrix products alone, in NumPy and in XLA, next to the whole step. Second: FLOP rates of
products of the same sizes, and of large ones. Third: microseconds of each part of an iteration (10 environment steps,
one update), each part measured in a scan of its own; the remainder of the whole is evaluation and everything else.
Fourth: an update whose batch is divided between two cores, with and without exchanging gradients.

On an accelerator everything is vmapped over many seeds, times are for all seeds together, and NumPy is left out.

    python -m benchmarks.limit            two minutes on two cores, one busy
    python -m benchmarks.limit --quick    under a minute: one round
    python -m benchmarks.limit --accelerator --seeds 1024
"""

import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks import harness

SIZES = (4, 120, 84, 2)
BATCH = 128
UPDATES_A_CALL = 1_000
"""Length of the scan in ``xla_products``, which returns the time of one update."""
LARGE = 2048
LARGE_ON_ACCELERATOR = 8192


def main() -> None:
    parser = harness.parser(__doc__, quick="one round", rounds=7)
    parser.add_argument("--accelerator", action="store_true", help="measure JAX's default device, not one CPU thread")
    parser.add_argument("--seeds", type=harness.positive, default=1, help="number of vmapped seeds, on an accelerator")
    arguments = parser.parse_args()
    if arguments.worker:
        task = measure_sharing if arguments.worker.pop("sharing", False) else measure
        print(json.dumps(task(**arguments.worker)))
        return
    rounds = 1 if arguments.quick else arguments.rounds
    if arguments.seeds > 1 and not arguments.accelerator:
        parser.error("--seeds needs --accelerator: on a CPU seeds run one after another")
    env = {} if arguments.accelerator else {"NPROC": "1", "OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    seeds = arguments.seeds if arguments.accelerator else None
    found = harness.answer(harness.start(__spec__.name, {"rounds": rounds, "seeds": seeds}, env=env))
    if not arguments.accelerator:
        two = {**env, "JAX_NUM_CPU_DEVICES": "2"}
        found |= harness.answer(harness.start(__spec__.name, {"sharing": True, "rounds": rounds}, env=two))
    where = f"accelerator, {seeds} seeds" if seeds else "one thread"
    print(f"{harness.machine()}, {where}; medians of {rounds} interleaved rounds\n")
    for name, rows in found.items():
        print(harness.table(rows), "", sep="\n")
        if not (arguments.quick or arguments.accelerator):
            print(harness.write(f"limit_{name}", rows), "", sep="\n")


def measure(*, rounds: int, seeds: int | None, large: int | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the first three tables by name; times are medians over rounds in which everything is timed in turn.

    Args:
      rounds: number of rounds.
      seeds: number of vmapped seeds, on an accelerator; None measures one run and NumPy, on a CPU.
      large: side of the large matrices; None takes the device's default.
    """
    import numpy as np

    copies, large = seeds or 1, large or (LARGE_ON_ACCELERATOR if seeds else LARGE)
    runs: dict[str, Callable[[], float]] = {}
    generator = np.random.default_rng(0)
    products = {f"{m} x {k} x {n}": (m, k, n) for m, k, n in (*shapes(), (large, large, large))}
    for name, (m, k, n) in products.items():
        a, b = (generator.normal(size=size).astype(np.float32) for size in ((m, k), (k, n)))
        if seeds is None:
            runs[f"NumPy {name}"] = numpy_product(a, b)
        runs[f"XLA {name}"] = xla_product(a, b, copies=1 if m == large else copies)
    parts, flops, moved = parts_of_an_iteration(copies, short=seeds is not None)
    runs |= parts
    runs["XLA's products"] = xla_products(copies)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(run())
    seconds = {name: statistics.median(values) for name, values in times.items()}

    operations = copies * sum(2.0 * m * k * n for m, k, n in shapes())
    whole = seconds["whole iteration"]
    step: list[dict[str, Any]] = [
        {
            "what": name,
            "microseconds": 1e6 * value,
            "GFLOP/s of the products": operations / value / 1e9,
            "environment steps/s": copies * 10 / value,
        }
        for name, value in (
            *(
                ()
                if seeds
                else (("products alone, NumPy", sum(seconds[f"NumPy {m} x {k} x {n}"] for m, k, n in shapes())),)
            ),
            ("products alone, XLA", seconds["XLA's products"]),
            ("a gradient step", seconds["update"]),
            ("a whole iteration", whole),
        )
    ]
    for row in step:
        counts = (flops / 1e6, moved / 1e6) if row["what"] == "a gradient step" else ("", "")
        row["MFLOP counted"], row["MB counted"] = counts
    rates: list[dict[str, Any]] = []
    for name, (m, k, n) in products.items():
        work = 2.0 * m * k * n / 1e9
        times_as_many = 1 if m == large else copies
        rates.append({"product": name, "XLA": times_as_many * work / seconds[f"XLA {name}"]})
        if seeds is None:
            rates[-1]["NumPy"] = work / seconds[f"NumPy {name}"]
            rates[-1]["XLA / NumPy"] = rates[-1]["XLA"] / rates[-1]["NumPy"]
    by_part = [
        {"part": name, "microseconds": 1e6 * seconds[name], "share": seconds[name] / whole}
        for name in parts
        if name != "whole iteration"
    ]
    rest = whole - sum(seconds[name] for name in parts if name != "whole iteration")
    by_part += [
        {"part": "evaluation and the rest", "microseconds": 1e6 * rest, "share": rest / whole},
        {"part": "whole iteration", "microseconds": 1e6 * whole, "share": 1.0},
    ]
    return {"step": step, "products": rates, "parts": by_part}


def measure_sharing(*, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Return the fourth table: is an update faster if two cores, as two devices, take half of the batch each?

    They exchange the mean of the updated parameters, which has as many bytes as the gradients, and as often.
    """
    import jax
    from jax.flatten_util import ravel_pytree
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from benchmarks.family import make_batches
    from purejaxdqn import load_config
    from purejaxdqn.config.building import make_parts, make_program
    from purejaxdqn.dqn.learner import make_learner

    config, length = load_config("cartpole_cleanrl", ("total_timesteps=30_000",)), 1_000
    hparams, program = config.hparams(), make_program(config)
    learning = make_learner(make_parts(config, program.env))
    learner = jax.jit(program.init)(hparams, jax.random.key(0)).algorithm.learner
    inputs = make_batches(config, program.env, steps=length), jax.random.split(jax.random.key(1), length)

    def compiled(cores: int, exchange: bool) -> Callable[[], Any]:
        share = BATCH // cores

        def body(learner: Any, xs: Any) -> Any:
            batch, key = xs
            learner = learning.update(hparams, learner, batch, key, hparams.optimizer_learning_rate)[0]
            if exchange:
                vector, unravel = ravel_pytree(learner.online)
                learner = learner._replace(online=unravel(jax.lax.pmean(vector, "core")))
            return learner, None

        def updates(learner: Any, batches: Any, keys: Any) -> Any:
            start = jax.lax.axis_index("core") * share
            mine = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, share, axis=1), batches)
            return jax.lax.scan(body, learner, (mine, keys))[0]

        mesh, all_of_it = Mesh(jax.devices()[:cores], ("core",)), PartitionSpec()
        run = jax.jit(jax.shard_map(updates, mesh=mesh, in_specs=all_of_it, out_specs=all_of_it, check_vma=False))
        arguments = jax.device_put((learner, *inputs), NamedSharding(mesh, all_of_it))
        jax.block_until_ready(run(*arguments))
        return lambda: jax.block_until_ready(run(*arguments))

    ways = {
        "one core": compiled(1, exchange=False),
        "half on each of two cores, no exchange": compiled(2, exchange=False),
        "half on each of two cores, with an exchange": compiled(2, exchange=True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append((time.perf_counter() - start) / length)
    rows = []
    for name, found in times.items():
        ratios = [one / other for one, other in zip(times["one core"], found, strict=True)]
        microseconds = 1e6 * statistics.median(found)
        rows.append(
            {"a batch on": name, "microseconds an update": microseconds, "faster by": statistics.median(ratios)}
        )
    return {"sharing": rows}


def shapes() -> list[tuple[int, int, int]]:
    """Return the matrix products (m, k, n) of an update.

    Two forward passes, the gradients of the weights, and the gradients of all layers' inputs except the first layer's.
    """
    layers = list(itertools.pairwise(SIZES))
    forward = [(b, a, BATCH) for a, b in layers]
    return [*forward, *forward, *((b, BATCH, a) for a, b in layers), *((a, b, BATCH) for a, b in layers[1:])]


def numpy_product(a: Any, b: Any) -> Callable[[], float]:
    """Return a function that measures the seconds of one product in NumPy."""
    repeats = max(2, int(1e9 / (2.0 * a.shape[0] * a.shape[1] * b.shape[1])))

    def seconds() -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            a @ b
        return (time.perf_counter() - start) / repeats

    return seconds


def xla_product(a: Any, b: Any, *, copies: int) -> Callable[[], float]:
    """Return a function that measures the seconds of one product in an XLA scan in which each depends on the last."""
    import jax.numpy as jnp

    repeats = max(2, int(1e9 / (2.0 * a.shape[0] * a.shape[1] * b.shape[1])))

    def body(arrays: Any, _: None) -> tuple[Any, None]:
        return chained(lambda a, b: (a @ b,), arrays), None

    return scanned(body, (jnp.asarray(a), jnp.asarray(b)), repeats, copies=copies)


def xla_products(copies: int) -> Callable[[], float]:
    """Return a function that measures the seconds of an update's products alone, in the order of their dependencies."""
    import jax

    keys = jax.random.split(jax.random.key(0), 2 * len(SIZES))
    weights = [jax.random.normal(key, pair[::-1]) for key, pair in zip(keys, itertools.pairwise(SIZES), strict=False)]
    targets = [weight + 0.1 for weight in weights]

    def products(x: Any, *weights: Any) -> tuple[Any, ...]:
        online, target = weights[: len(SIZES) - 1], weights[len(SIZES) - 1 :]
        out = x
        for weight in target:
            out = weight @ out
        inputs, error = [], x
        for weight in online:
            inputs.append(error)
            error = weight @ error
        error = error + out
        grads = []
        for layer in reversed(range(len(online))):
            grads.append(error @ inputs[layer].T)
            if layer:
                error = online[layer].T @ error
        return tuple(grads)

    arrays = (jax.random.normal(keys[-1], (SIZES[0], BATCH)), *weights, *targets)
    return scanned(lambda arrays, _: (chained(products, arrays), None), arrays, UPDATES_A_CALL, copies=copies)


def chained(function: Callable[..., tuple[Any, ...]], arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """Call ``function`` and add a tiny multiple of its results to the first array, so that XLA does not remove it."""
    import jax.numpy as jnp

    read = sum(jnp.sum(one) for one in function(*arrays))
    return tuple(array + 1e-30 * read for array in arrays[:1]) + arrays[1:]


def scanned(
    body: Callable[[Any, Any], Any], carry: Any, length: int, xs: Any = None, *, copies: int
) -> Callable[[], float]:
    """Compile a scan over copies of carry and inputs; return a function that runs it and returns seconds per step."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn.system.compiling import compile_runs

    if copies > 1:
        body = jax.vmap(body)
        carry = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (copies, *leaf.shape)), carry)
        xs = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:, None], (leaf.shape[0], copies, *leaf.shape[1:])), xs)
    jitted = jax.jit(lambda carry, xs: jax.lax.scan(body, carry, xs, length=length), donate_argnums=0)
    compiled = compile_runs(jitted, jax.default_backend(), carry, xs)
    state = [jax.block_until_ready(compiled(jax.tree.map(lambda leaf: leaf.copy(), carry), xs))[0]]

    def timed() -> float:
        start = time.perf_counter()
        state[0] = jax.block_until_ready(compiled(state[0], xs))[0]
        return (time.perf_counter() - start) / length

    return timed


def parts_of_an_iteration(copies: int, *, short: bool) -> tuple[dict[str, Callable[[], float]], float, float]:
    """Return functions that measure seconds per iteration by part, and the compiler's FLOPs and bytes of one update."""
    import jax
    import jax.numpy as jnp

    from benchmarks.family import counted, make_batches
    from purejaxdqn import load_config
    from purejaxdqn.config.building import make_parts, make_program
    from purejaxdqn.core.algorithm import ActorView
    from purejaxdqn.core.draws import draw, random_action
    from purejaxdqn.core.schedules import make_clock
    from purejaxdqn.dqn.learner import make_learner
    from purejaxdqn.dqn.replay import REPLAYS

    steps = "total_timesteps=30_000" if short else "total_timesteps=260_000"
    config = load_config("cartpole_cleanrl", (steps,))
    hparams, num_envs, warmup = config.hparams(), config.env.num_envs, config.schedule.warmup
    program = make_program(config)
    env, algorithm, plan = program.env, program.algorithm, program.plan
    learning = make_learner(make_parts(config, env))
    assert (env.obs_shape[0], *config.network.hidden, env.num_actions) == SIZES
    assert config.replay.batch_size == BATCH
    replay, clock = REPLAYS.make(config), make_clock(warmup=warmup, anneal=False)(hparams, jnp.int32(30_000))
    env_params = env.with_params({})
    state = jax.jit(program.init)(hparams, jax.random.key(0))
    length = 100 if short else 1_000
    key = jax.random.key(1)

    def draws_for(key: Any, length: int) -> Any:
        return draw(key, length, rollout=plan.rollout, num_envs=num_envs, learning=algorithm.draws)

    acting, words = draws_for(key, length)
    acting = jax.tree.map(lambda leaf: leaf[:, 0], acting)
    (learner, buffer), actors = state.algorithm, state.actors
    batches = make_batches(config, env, steps=length)

    def act(obs: Any, draws: Any) -> Any:
        action, _ = algorithm.act(hparams, algorithm.policy(state.algorithm), ActorView(obs), draws.act, clock)
        return obs + 1e-6 * action[:, None], None

    def environment(carry: Any, draws: Any) -> Any:
        obs, env_state, _ = carry
        action = random_action(draws.act.choice, (), env.num_actions)
        obs, env_state, step = env.step(env_params, draws.env_keys, env_state, obs, action)
        return (obs, env_state, step), None

    (*after, step), _ = environment((actors.obs, actors.env_state, None), jax.tree.map(lambda leaf: leaf[0], acting))
    first = (*after, step)

    def add(buffer: Any, _: None) -> Any:
        return replay.add(hparams, buffer, jax.tree.map(lambda leaf: leaf[None], first[2])), None

    def sample(carry: Any, draws: Any) -> Any:
        buffer, _ = carry
        return (buffer, replay.sample(hparams, buffer, draws.sample[0], clock.beta)), None

    drawn = jax.eval_shape(lambda: replay.sample(hparams, buffer, words.sample[0, 0], clock.beta))
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), drawn)

    def update(learner: Any, xs: Any) -> Any:
        batch, key = xs
        return learning.update(hparams, learner, batch, key, hparams.optimizer_learning_rate)[0], None

    def drawing(carry: Any, _: None) -> Any:
        key, read = carry
        key, now = jax.random.split(key)
        acting, updating = draws_for(now, plan.iterations)
        keys = [jax.random.key_data(keys).astype(jnp.float32) for keys in (acting.env_keys, updating.key)]
        numbers = [acting.act.explore, acting.act.choice, updating.sample, *keys]
        return (key, read + sum(jnp.sum(one) for one in numbers)), None

    def periodic(body: Any, carry: Any, times: int) -> Callable[[], float]:
        run = scanned(body, carry, times, copies=copies)
        return lambda: run() / plan.iterations

    def segment_of(state: Any) -> Any:
        return program.segment(hparams, state, plan.epochs)

    runs_of = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (copies, *leaf.shape)), state) if copies > 1 else state
    segment = jax.jit(jax.vmap(segment_of) if copies > 1 else segment_of, donate_argnums=0)
    compiled = segment.lower(runs_of).compile()

    def whole() -> float:
        copy = jax.block_until_ready(jax.tree.map(jnp.copy, runs_of))
        start = time.perf_counter()
        jax.block_until_ready(compiled(copy))
        return (time.perf_counter() - start) / (plan.epochs * plan.periods * plan.iterations)

    runs = {
        "random numbers": periodic(drawing, (key, jnp.float32(0)), 50),
        "act": scanned(act, actors.obs, length, acting, copies=copies),
        "environment": scanned(environment, first, length, acting, copies=copies),
        "add": scanned(add, buffer, length, copies=copies),
        "sample": scanned(sample, (buffer, blank), length, words, copies=copies),
        "update": scanned(update, learner, length, (batches, jax.random.split(key, length)), copies=copies),
        "sync": periodic(lambda learner, _: (learning.sync(hparams, learner), None), learner, length),
        "whole iteration": whole,
    }
    count = counted(learning.update, hparams, learner, batches)
    return runs, count["flops"], count["bytes"]


if __name__ == "__main__":
    main()
