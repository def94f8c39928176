"""What was tried to make runs faster, and what did each give?

Each variant is the whole run of `cartpole_cleanrl.yaml` as the command makes it, in a process of its own, with one
thing changed; variants and the run as it is are timed in turn, and ratios are those of a round. More than 1 means that
the variant is faster than what is shipped. Where its contrary is what is shipped, the row shows what going without it
would cost.

    python -m benchmarks.tried            about 20 minutes on two cores
    python -m benchmarks.tried --quick    under a minute: a few variants, one round
    python -m benchmarks.tried --only "inner loop unrolled twice" --rounds 9    one again, for longer
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import harness
from purejaxdqn.core.compiling import WITHOUT_EMITTERS, WITHOUT_YNN

STEPS = {1: 101_000, 8: 31_000}
"""Of a seed, by the number of seeds."""
QUICK_STEPS = 21_000
MINATAR = (
    "env={id: Breakout-MinAtar, num_envs: 4}",
    "network={torso: minatar_cnn, hidden: [128]}",
    "replay.batch_size=32",
    "schedule.train_every=4",
)
"""A larger network than CartPole's."""
NOISY = ("network.noisy=true", "exploration={start: 0, end: 0}")


class Variant(NamedTuple):
    """One thing changed."""

    patch: Callable[[], None] = lambda: None  # called in the worker before anything is built
    overrides: tuple[str, ...] = ()  # of the run as it is too
    options: Mapping[str, Any] = {}  # of XLA; a release that lacks them gives no row
    threads: str = "chosen"
    seeds: tuple[int, ...] = (1,)
    shipped: str = "no"  # whether it is what is shipped, or its contrary is
    one_program: bool = False


def flat_parameters() -> None:
    """One vector of all parameters for the optimiser."""
    import optax

    from purejaxdqn.core import agent

    make_optimizer = agent.make_optimizer
    agent.make_optimizer = lambda *arguments: optax.flatten(make_optimizer(*arguments))


def numbers_in_each_iteration() -> None:
    """Split a key in every iteration instead of drawing a period's numbers at once."""
    import jax

    from purejaxdqn.core import loop

    draw, scan = loop.draw, jax.lax.scan

    @jax.tree_util.register_pytree_node_class
    class Late:
        """Keys that stand for draws."""

        def __init__(self, keys: Any, how: Any):
            self.keys, self.how = keys, how

        def tree_flatten(self) -> Any:
            return (self.keys,), self.how

        @classmethod
        def tree_unflatten(cls, how: Any, leaves: Any) -> Any:
            return cls(*leaves, how)

        def draws(self) -> Any:
            return jax.tree.map(lambda leaf: leaf[0], draw(self.keys, 1, **dict(self.how)))

    def late(key: Any, length: int, **how: int) -> Any:
        if not how["gradient_steps"]:  # the warm-up
            return draw(key, length, **how)
        return Late(jax.random.split(key, length), tuple(how.items()))

    def late_scan(f: Any, init: Any, xs: Any = None, **options: Any) -> Any:
        if isinstance(xs, Late):
            return scan(lambda carry, x: f(carry, x.draws()), init, xs, **options)
        return scan(f, init, xs, **options)

    loop.draw, jax.lax.scan = late, late_scan


def old_threefry() -> None:
    """Threefry that is not partitionable."""
    import jax

    jax.config.update("jax_threefry_partitionable", False)


def unrolled() -> None:
    """Two iterations a turn of the inner loop."""
    import jax

    scan = jax.lax.scan

    def twice(f: Any, init: Any, xs: Any = None, **options: Any) -> Any:
        inner = isinstance(xs, tuple) and type(xs) is tuple and len(xs) == 2  # draws to act and to learn
        return scan(f, init, xs, **options, **({"unroll": 2} if inner else {}))

    jax.lax.scan = twice


def bfloat16_observations() -> None:
    """Half the bytes for observations in the buffer."""
    import jax.numpy as jnp

    from purejaxdqn.core import replay

    make_ring = replay._make_ring

    def halved(steps: Any) -> Any:
        return steps._replace(obs=steps.obs.astype(jnp.bfloat16), next_obs=steps.next_obs.astype(jnp.bfloat16))

    def make(**how: Any) -> Any:
        ring = make_ring(**how)
        return ring._replace(
            init=lambda obs: ring.init(obs.astype(jnp.bfloat16)),
            add=lambda state, steps: ring.add(state, halved(steps)),
        )

    replay._make_ring = make


def packed_rows() -> None:
    """All of a step in one row of one array, instead of an array a column (one-step returns)."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn.core import replay
    from purejaxdqn.core.types import Step

    class Packed(NamedTuple):
        rows: jax.Array
        current_index: jax.Array
        is_full: jax.Array

    def make(*, size: int, n_step: int, num_envs: int) -> Any:
        def init(obs: Any) -> Packed:
            return Packed(jnp.zeros((size, 2 * obs.size + 4)), jnp.int32(0), jnp.bool_(False))

        def add(state: Packed, steps: Step) -> Packed:
            flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]).astype(jnp.float32), steps)
            columns = [leaf.reshape(len(leaf), -1) for leaf in flat]
            block = jnp.concatenate(columns, axis=1)
            rows = (state.current_index + jnp.arange(len(block))) % size
            end = state.current_index + len(block)
            return Packed(state.rows.at[rows].set(block), end % size, state.is_full | (end >= size))

        def candidates(state: Packed) -> Any:
            oldest = jnp.where(state.is_full, state.current_index, 0)
            return oldest, jnp.where(state.is_full, size, state.current_index)

        def transitions(hparams: Any, state: Packed, rows: Any) -> Any:
            rows = rows % size
            held = state.rows[rows]
            width = (held.shape[1] - 4) // 2
            obs, rest, next_obs = held[:, :width], held[:, width : width + 4], held[:, width + 4 :]
            action, reward, terminated, truncated = rest.T
            steps = Step(obs, action.astype(jnp.int32), reward, terminated > 0, truncated > 0, next_obs)
            one = jax.tree.map(lambda leaf: leaf[None], steps)
            scaling = {"gamma": hparams.gamma, "scale": hparams.reward_scale, "clip": hparams.reward_clip}
            return rows, replay.fold(one, **scaling)

        return replay.Ring(size, 0, init, add, candidates, transitions)

    replay._make_ring = make


def all_batches_at_once() -> None:
    """Sample the batches of an iteration's G gradient steps together."""
    import jax

    from purejaxdqn.core import loop
    from purejaxdqn.core.draws import UpdateDraws
    from purejaxdqn.core.types import Batch

    known: dict[str, Any] = {}
    make_replay, epsilon, scan = loop.make_replay, loop.epsilon, jax.lax.scan

    def watched(hparams: Any, *arguments: Any, **options: Any) -> Any:
        known["hparams"] = hparams
        return epsilon(hparams, *arguments, **options)

    def make(**how: Any) -> Any:
        replay = known["replay"] = make_replay(**how)

        def sample(hparams: Any, state: Any, bits: Any, env_step: Any) -> Any:
            return bits if isinstance(bits, Batch) else replay.sample(hparams, state, bits, env_step)

        return replay._replace(sample=sample)

    def at_once(f: Any, init: Any, xs: Any = None, **options: Any) -> Any:
        if isinstance(xs, UpdateDraws):
            shape = xs.sample.shape
            batch = known["replay"].sample(known["hparams"], init.replay, xs.sample.reshape(-1), init.actors.env_step)
            xs = xs._replace(sample=jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), batch))
        return scan(f, init, xs, **options)

    loop.make_replay, loop.epsilon, jax.lax.scan = make, watched, at_once


def _with_update(make_loss: Callable[[Any, Any], Any]) -> None:
    """Another gradient step: ``make_loss(apply, values of actions) -> loss(online, target, transitions)``."""
    import jax
    import jax.numpy as jnp
    import optax

    from purejaxdqn.core import agent, loop
    from purejaxdqn.core.types import UpdateStats

    make_agent = loop.make_agent

    def taken(q: Any, action: Any) -> Any:
        return jnp.take_along_axis(q, action[:, None], axis=1)[:, 0]

    def make(config: Any, env: Any, network: Any = None) -> Any:
        net = agent._own_network(config, env)
        loss = make_loss(lambda params, obs: net.apply(params, obs, None, None), taken)

        def update(hparams: Any, learner: Any, batch: Any, key: Any, env_step: Any) -> Any:
            grad = jax.value_and_grad(loss, has_aux=True)
            (value, (error, q)), grads = grad(learner.online, learner.target, batch.transition)
            norm = optax.tree.norm(grads)
            grads = optax.tree.scale(jnp.minimum(1.0, hparams.max_grad_norm / norm), grads)
            optimizer = agent.make_optimizer(config.optimizer, hparams, env_step)
            updates, opt_state = optimizer.update(grads, learner.opt_state, learner.online)
            stats = UpdateStats(loss=value, q_value=q.mean(), grad_norm=norm)
            online = optax.apply_updates(learner.online, updates)
            return learner._replace(online=online, opt_state=opt_state), error, stats

        return make_agent(config, env, network)._replace(update=update)

    loop.make_agent = make


def stacked_networks() -> None:
    """Online and target network as one batched product: the target's observations beside the online's."""
    import jax
    import jax.numpy as jnp

    def make_loss(apply: Any, taken: Any) -> Any:
        def loss(online: Any, target: Any, batch: Any) -> Any:
            fixed = jax.lax.stop_gradient(target)
            both = jax.tree.map(lambda one, other: jnp.stack((one, other)), online, fixed)
            q, next_q = jax.vmap(apply)(both, jnp.stack((batch.obs, batch.next_obs)))
            goal = batch.reward + batch.discount * jax.lax.stop_gradient(next_q).max(-1)
            error = taken(q, batch.action) - goal
            return jnp.mean(error**2), (error, q)

        return loss

    _with_update(make_loss)


def concatenated_observations() -> None:
    """Double DQN whose online network sees observations and next observations in one pass."""
    import jax
    import jax.numpy as jnp

    def make_loss(apply: Any, taken: Any) -> Any:
        def loss(online: Any, target: Any, batch: Any) -> Any:
            q, choosing = jnp.split(apply(online, jnp.concatenate((batch.obs, batch.next_obs))), 2)
            best = jax.lax.stop_gradient(choosing).argmax(-1)
            goal = batch.reward + batch.discount * taken(apply(jax.lax.stop_gradient(target), batch.next_obs), best)
            error = taken(q, batch.action) - jax.lax.stop_gradient(goal)
            return jnp.mean(error**2), (error, q)

        return loss

    _with_update(make_loss)


def batch_first() -> None:
    """Layers as flax has them, x W + b of rows x."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn.core import agent

    make_network = agent.make_network

    def make(**choices: Any) -> Any:
        ours = make_network(**choices)

        def init(key: Any, obs: Any, sigma: Any) -> Any:
            layers = ours.init(key, obs, sigma)["params"]
            return [(layer["weight"].T, layer["bias"]) for _, layer in sorted(layers.items())]

        def apply(layers: Any, obs: Any, noise: Any, fractions: Any) -> Any:
            x = obs.astype(jnp.float32)
            for kernel, bias in layers[:-1]:
                x = jax.nn.relu(x @ kernel + bias)
            return x @ layers[-1][0] + layers[-1][1]

        return ours._replace(init=init, apply=apply)

    agent.make_network = make


def all_gradients_of_copies() -> None:
    """A layer's gradients from transposed copies, whatever its size."""
    from purejaxdqn.core import networks

    networks._LARGE = 0


def bfloat16_products() -> None:
    """Operands of the networks' products and of their gradients rounded to bfloat16, summed in float32."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn.core import networks

    def dot(a: Any, b: Any, *contracted: int) -> Any:
        axes = (((contracted[0],), (contracted[1],)), ((), ()))
        return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)

    def forward(weight: Any, x: Any) -> Any:
        weight, x = weight.astype(jnp.bfloat16), x.astype(jnp.bfloat16)
        return dot(weight, x, 1, 0), (weight, x)

    def backward(saved: Any, grad: Any) -> Any:
        weight, x = saved
        grad = grad.astype(jnp.bfloat16)
        return dot(grad, x, 1, 1), dot(weight, grad, 0, 0)

    networks._product = jax.custom_vjp(lambda weight, x: forward(weight, x)[0])
    networks._product.defvjp(forward, backward)


def norm_by_dot_products() -> None:
    """The gradient's norm from its inner products with itself instead of sums of squares."""
    import jax.numpy as jnp
    import optax

    optax.tree.norm = lambda tree: jnp.sqrt(optax.tree.vdot(tree, tree))


def norm_as_one_sum() -> None:
    """The gradient's norm without parts."""
    import optax

    from purejaxdqn.core import agent

    agent.global_norm = optax.tree.norm


def folded_adam() -> None:
    """Adam with its two bias corrections in the rate (Kingma and Ba 2015, end of section 2): a division an element."""
    import jax
    import jax.numpy as jnp
    import optax

    from purejaxdqn.core import agent

    def make(config: Any, hparams: Any, env_step: Any) -> Any:
        def update(grads: Any, state: Any, params: Any = None) -> Any:
            count = state.count + 1
            mu = optax.tree.update_moment(grads, state.mu, 0.9, 1)
            nu = optax.tree.update_moment_per_elem_norm(grads, state.nu, 0.999, 2)
            time = count.astype(jnp.float32)
            second = jnp.sqrt(1 - 0.999**time)
            rate, eps = hparams.learning_rate * second / (1 - 0.9**time), hparams.optimizer_eps * second
            updates = jax.tree.map(lambda mu, nu: -rate * mu / (jnp.sqrt(nu) + eps), mu, nu)
            return updates, optax.ScaleByAdamState(count, mu, nu)

        return optax.GradientTransformation(optax.scale_by_adam().init, update)

    agent.make_optimizer = make


def action_by_mask() -> None:
    """The taken action's value as a masked sum instead of a gather, whose gradient is a scatter."""
    import jax.numpy as jnp

    from purejaxdqn.core import agent, heads

    class Numpy:
        def __getattr__(self, name: str) -> Any:
            return getattr(jnp, name)

        @staticmethod
        def take_along_axis(values: Any, indices: Any, axis: int) -> Any:
            taken = indices == jnp.arange(values.shape[axis]).reshape(1, -1, *(1,) * (values.ndim - 2))
            return jnp.sum(jnp.where(taken, values, 0), axis=axis, keepdims=True)

    agent.jnp = heads.jnp = Numpy()


def episodes_reset() -> None:
    """Greedy episodes that begin again when they end, as those of acting do."""
    from purejaxdqn.core import loop

    make_environment = loop.make_environment

    def make(**how: Any) -> Any:
        env = make_environment(**how)
        return env._replace(advance=env.step)

    loop.make_environment = make


def noise_by_sign() -> None:
    """The noise as the paper writes it, sign(e) sqrt|e|, which XLA makes again in every kernel."""
    import jax.numpy as jnp

    from purejaxdqn.core import networks

    class Noise(networks._Noise):
        def __init__(self, values: Any):
            self.values = None if values is None else jnp.sign(values) * jnp.sqrt(jnp.abs(values))
            self.taken = 0

    networks._Noise = Noise


def ask_xla(options: Mapping[str, Any]) -> None:
    """Every program compiled with these options too."""
    from purejaxdqn.core import compiling

    compile_known = compiling.compile_known
    compiling.compile_known = lambda program, ours: compile_known(program, {**ours, **options})


def compiled_alike() -> None:
    """The warm-up and the final evaluation compiled with as much effort as the segments."""
    from purejaxdqn.core import compiling

    compiling.ONCE.clear()


VARIANTS: dict[str, Variant] = {
    "XLA's own thread pool, one device": Variant(threads="default", seeds=(1, 8), shipped="contrary"),
    "random numbers drawn in each iteration": Variant(numbers_in_each_iteration, seeds=(1, 8), shipped="contrary"),
    "threefry not partitionable": Variant(old_threefry, seeds=(1, 8), shipped="contrary"),
    "layers with the batch first": Variant(batch_first, seeds=(1, 8), shipped="contrary"),
    "gradients from transposed copies": Variant(all_gradients_of_copies),
    "one flattened parameter vector": Variant(flat_parameters, seeds=(1, 8)),
    "inner loop unrolled twice": Variant(unrolled, seeds=(1, 8)),
    "a step in one packed row": Variant(packed_rows),
    "observations kept as bfloat16": Variant(bfloat16_observations),
    "all four batches sampled at once": Variant(all_batches_at_once, overrides=("schedule.gradient_steps=4",)),
    "online and target network stacked": Variant(stacked_networks),
    "double DQN, observations concatenated": Variant(concatenated_observations, overrides=("bootstrap.kind=double",)),
    "products of bfloat16 numbers": Variant(bfloat16_products),
    "gradient norm by dot products": Variant(norm_by_dot_products),
    "MinAtar, gradient norm as one sum": Variant(norm_as_one_sum, overrides=MINATAR, shipped="contrary"),
    "Adam's corrections in its rate": Variant(folded_adam),
    "taken action by a mask": Variant(action_by_mask),
    "greedy episodes that begin again": Variant(episodes_reset, shipped="contrary"),
    "noisy, noise as sign times root": Variant(noise_by_sign, overrides=NOISY, shipped="contrary"),
    "512-bit vectors preferred": Variant(options={"xla_cpu_prefer_vector_width": 512}),
    "matrix products without YNN": Variant(options=WITHOUT_YNN),
    "XLA's fusion emitters off": Variant(options=WITHOUT_EMITTERS),
    "warm-up and evaluation compiled like segments": Variant(compiled_alike, shipped="contrary"),
    "warm-up, training, evaluation as one program": Variant(one_program=True, shipped="contrary"),
}
QUICK = ("one flattened parameter vector", "online and target network stacked")
IMPORTS = {
    "as it is": "import purejaxdqn.train",
    "jax alone": "import jax",
    "all libraries at once": "import purejaxdqn.train, flax.linen, flashbax, gymnax, matplotlib.pyplot, optuna, scipy",
}


def main() -> None:
    parser = harness.parser(__doc__, quick="a few variants, one round", rounds=3)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME", help="these variants, nothing kept")
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(**arguments.worker)))
        return
    names, rounds = (QUICK, 1) if arguments.quick else (tuple(VARIANTS), arguments.rounds)
    rows = compare(arguments.only or names, rounds, quick=arguments.quick)
    if not rows:
        return
    if not arguments.only:
        rows += compare_imports(rounds)
    print(f"{harness.machine()}; medians of {rounds} rounds in turn\n")
    print(harness.table(rows))
    if not (arguments.quick or arguments.only):
        print(harness.write("tried", rows))


def compare(names: Sequence[str], rounds: int, *, quick: bool) -> list[dict[str, Any]]:
    """Rates of runs, and seconds to compile, each beside those of the run as it is in the same round."""
    cases = [(name, seeds) for name in names for seeds in VARIANTS[name].seeds if not quick or seeds == 1]
    bases = sorted({(VARIANTS[name].overrides, seeds) for name, seeds in cases})
    found: dict[Any, list[dict[str, float]]] = {key: [] for key in [*bases, *cases]}
    for _ in range(rounds):
        for key, replies in list(found.items()):
            is_base = isinstance(key[0], tuple)
            variant = Variant(overrides=key[0]) if is_base else VARIANTS[key[0]]
            task = {"name": "" if is_base else key[0], "overrides": [*variant.overrides, f"num_seeds={key[1]}"]}
            task["overrides"].append(f"total_timesteps={QUICK_STEPS if quick else STEPS[key[1]]}")
            reply = harness.answer(harness.start(__spec__.name, task))
            if "lacking" in reply:
                print(f"{key} has no row: this release of XLA lacks {reply['lacking']}", file=sys.stderr, flush=True)
                del found[key]
                continue
            replies.append(reply)
            print(f"{key}: {reply['rate']:,.0f}", file=sys.stderr, flush=True)
    cases = [case for case in cases if case in found]
    rows = []
    for what, quantity in (("rate, {} seed{}", "rate"), ("time to compile", "compile_seconds")):
        for name, seeds in cases:
            if quantity == "compile_seconds" and seeds > 1:
                continue
            base = [reply[quantity] for reply in found[VARIANTS[name].overrides, seeds]]
            mine = [reply[quantity] for reply in found[name, seeds]]
            ratios = [a / b if quantity == "rate" else b / a for a, b in zip(mine, base, strict=True)]
            of = what.format(seeds, "s" if seeds > 1 else "")
            rows.append(_row(name, of, VARIANTS[name].shipped, (base, mine, ratios)))
    return rows


def compare_imports(rounds: int) -> list[dict[str, Any]]:
    """Seconds of a process that only imports."""
    found: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(rounds + 1):  # the first is a warm-up of the disk
        for name, code in IMPORTS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], cwd=harness.ROOT, check=True)
            found[name].append(time.perf_counter() - start)
    base = found["as it is"][1:]
    rows = []
    for name in list(IMPORTS)[1:]:
        mine = found[name][1:]
        ratios = [b / a for a, b in zip(mine, base, strict=True)]
        shipped = "contrary" if name == "all libraries at once" else "no"
        rows.append(_row(name, "time to import", shipped, (base, mine, ratios)))
    return rows


def _row(name: str, of: str, shipped: str, rounds: tuple[Sequence[float], ...]) -> dict[str, Any]:
    base, mine, ratios = rounds
    return {
        "what was tried": name,
        "of": of,
        "as it is": statistics.median(base),
        "with it": statistics.median(mine),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "shipped": "no, the contrary is" if shipped == "contrary" else shipped,
    }


def measure(*, name: str, overrides: list[str]) -> dict[str, Any]:
    """Rate and seconds to compile of one run, or which options XLA lacks for it."""
    from benchmarks.throughput import ours
    from purejaxdqn.core.compiling import known_options

    variant = VARIANTS[name] if name else Variant()
    once = ["schedule.warmup=1_000", "evaluation.every=10_000"]
    variant.patch()
    ask_xla(variant.options)
    if variant.one_program:
        return measure_one_program([*once, *overrides])
    reply = ours(overrides=[*once, *overrides], threads=variant.threads, cached=False)
    if lacking := sorted(variant.options.keys() - known_options(variant.options)):  # asked only now: it starts JAX
        return {"lacking": ", ".join(lacking)}
    return {"rate": reply["rate"], "compile_seconds": reply["compile_seconds"]}


def measure_one_program(overrides: list[str]) -> dict[str, float]:
    """The run as ``make_train`` has it."""
    import jax

    from purejaxdqn import make_train
    from purejaxdqn.host.configs import read_config
    from purejaxdqn.host.runtime import configure_cpu_for

    draft = read_config("cartpole_cleanrl", overrides)
    configure_cpu_for(draft.config)
    config = draft.checked()
    arguments = config.hparams(), jax.random.key(0)
    before = time.perf_counter()
    compiled = jax.jit(make_train(config)).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - before
    before = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    return {
        "rate": config.total_timesteps / (time.perf_counter() - before),
        "compile_seconds": compile_seconds,
    }


if __name__ == "__main__":
    main()
