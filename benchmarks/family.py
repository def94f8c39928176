"""What does a gradient step of each DQN variant cost, relative to plain DQN and to the same step written with rlax?

A step is ``Learner.update`` inside one compiled scan over batches drawn beforehand, on one thread. FLOPs and bytes are
the compiler's own count for one update. It counts the body of a loop once, so it underestimates loops over atoms and
quantiles. The rlax version has the same network, optimiser and statistics; only its target and loss differ: rlax's
functions of one transition, mapped over the batch. A second table compares our convolution with flax's in an update
of the MinAtar network; differences are relative to the largest entry. "pqn" is what PQN changes in a gradient step:
layer normalisation, RAdam and clipping, with targets of one step. What a memory costs is in `recurrent.py`.

A third table has the update of an ensemble with priors, compared with as many updates of one member. Its networks are
those of `deepsea_ensemble` and `swingup`: one-hot observations into 50-50, and 64-64.

n-step returns and prioritised replay do not change the gradient step, but what comes before and after it. So a fourth
table has the first iterations after the warm-up: acting, environments, replay and gradient steps of two shipped
configs as plain DQN, and one greedy episode at the end.

    python -m benchmarks.family              about 10 minutes on two cores
    python -m benchmarks.family --members    only the third table: a minute
    python -m benchmarks.family --replay     only the fourth table: 5 minutes
    python -m benchmarks.family --quick      under a minute: few choices, the small network
"""

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from benchmarks import harness
from purejaxdqn import configure_cpu, load_config
from purejaxdqn.config.building import Own, make_members, make_parts, make_program
from purejaxdqn.core.config import Config, HParams
from purejaxdqn.core.types import Array, Params, UpdateStats
from purejaxdqn.dqn.ensemble import batch_learner
from purejaxdqn.dqn.learner import LearnerState, make_learner
from purejaxdqn.dqn.networks import Convolution, noise_size
from purejaxdqn.dqn.types import Batch, Transition
from purejaxdqn.environments.registry import Environment, make_environment
from purejaxdqn.system.compiling import compile_runs

Overrides = Mapping[str, Mapping[str, Any]]
Update = Callable[[HParams, Any, Batch, Array, Array], tuple[Any, Array, UpdateStats]]

SETTINGS: Mapping[str, Overrides] = {
    "120-84, batch 128": {"env": {"id": "CartPole-v1"}, "network": {}, "replay": {"batch_size": 128}},
    "MinAtar, batch 32": {
        "env": {"id": "Breakout-MinAtar"},
        "network": {"torso": "minatar_cnn"},
        "replay": {"batch_size": 32},
    },
}
_C51 = {"kind": "categorical", "v_min": -10.0, "v_max": 10.0}
CHOICES: Mapping[str, Overrides] = {
    "dqn": {},
    "double": {"bootstrap": {"kind": "double"}},
    "dueling": {"network": {"dueling": True}},
    "noisy": {"network": {"noisy": True}},
    "munchausen": {"bootstrap": {"kind": "munchausen"}},
    "c51": {"distribution": _C51},
    "quantile": {"distribution": {"kind": "quantile"}},
    "iqn": {"distribution": {"kind": "iqn"}},
    "fqf": {"distribution": {"kind": "fqf"}},
    "hl_gauss": {"distribution": {"kind": "hl_gauss", "v_min": -10.0, "v_max": 10.0}},
    "pqn": {"network": {"layer_norm": True}, "optimizer": {"name": "radam", "max_grad_norm": 10.0}},
    "rainbow": {
        "distribution": _C51,
        "bootstrap": {"kind": "double"},
        "network": {"dueling": True, "noisy": True},
    },
}
NOT_IN_RLAX = ("munchausen", "fqf", "hl_gauss")
QUICK = ("dqn", "c51", "quantile")
ENSEMBLES = {"one-hot, 50-50": "deepsea_ensemble", "64-64": "swingup"}
"""Shipped configs of ensembles with priors."""
MEMBERS = (1, 2, 5, 10, 20)
TRAININGS = ("cartpole_cleanrl", "minatar/breakout")
"""Shipped configs, under the preset ``dqn``."""
PRESETS = ("dqn", "n_step", "per")
STEPS = 20_000
"""Environment steps after the warm-up."""


def main() -> None:
    parser = harness.parser(__doc__, quick="few choices, the small network, short runs", rounds=15)
    parser.add_argument("--members", action="store_true", help="only the table of ensembles")
    parser.add_argument("--replay", action="store_true", help="only the table of iterations")
    arguments = parser.parse_args()
    if arguments.worker:
        configure_cpu(devices=1)
        work = {
            "convolution": measure_convolution,
            "choices": measure_choices,
            "members": measure_members,
            "replay": measure_replay,
        }
        print(json.dumps(work[arguments.worker.pop("kind")](**arguments.worker)))
        return
    rounds = 3 if arguments.quick else arguments.rounds
    everything = not arguments.members and not arguments.replay
    if everything:
        compare_choices(rounds, quick=arguments.quick)
    for kind, names in {"members": tuple(ENSEMBLES), "replay": TRAININGS}.items():
        if not everything and not getattr(arguments, kind):
            continue
        rows = []
        for name in names[: 1 if arguments.quick else None]:
            task = {"kind": kind, "name": name, "rounds": rounds}
            rows += harness.answer(harness.start(__spec__.name, task))["rows"]
        print("\n" + harness.table(rows), flush=True)
        if not arguments.quick:
            print(harness.write(f"family_{kind}", rows))


def compare_choices(rounds: int, *, quick: bool) -> None:
    """Measure the first two tables, print them and write them unless ``quick``."""
    print(f"{harness.machine()}, one thread; medians of {rounds} interleaved rounds; ratios are to plain DQN\n")
    choices = QUICK if quick else tuple(CHOICES)
    rows = []
    for setting in list(SETTINGS)[: 1 if quick else None]:
        task = {"kind": "choices", "setting": setting, "choices": choices, "rounds": rounds}
        rows += harness.answer(harness.start(__spec__.name, task))["rows"]
    print(harness.table(rows), flush=True)
    convolution = harness.answer(harness.start(__spec__.name, {"kind": "convolution", "rounds": rounds}))["rows"]
    print("\n" + harness.table(convolution), flush=True)
    if not quick:
        print(harness.write("family", rows))
        print(harness.write("family_convolution", convolution))


def measure_choices(*, setting: str, choices: list[str], rounds: int) -> dict[str, Any]:
    """Time the update of every choice and its rlax version, in turn; return ``{"rows": rows}``."""
    env = make_environment(SETTINGS[setting]["env"]["id"])
    batches = make_batches(make_config(setting, "dqn"), env)
    runs: dict[str, Callable[[], float]] = {}
    counts = {}
    for name in choices:
        config = make_config(setting, name)
        learning = make_learner(make_parts(config, env))
        hparams = config.hparams()
        learner = jax.jit(learning.init)(hparams, jax.random.key(0))
        runs[name] = timed(learning.update, hparams, learner, batches)
        counts[name] = counted(learning.update, hparams, learner, batches)
        if name not in NOT_IN_RLAX:
            runs[f"rlax {name}"] = timed(rlax_update(config, env), hparams, learner, batches)
    times = in_turn(runs, rounds)

    def row(name: str) -> dict[str, Any]:
        ratio, flops = ratio_of(times[name], times["dqn"]), counts[name]["flops"] / counts["dqn"]["flops"]
        rlax = times.get(f"rlax {name}")
        return {
            "network": setting,
            "choice": name,
            "time ratio": ratio,
            "FLOP ratio": flops,
            "bytes ratio": counts[name]["bytes"] / counts["dqn"]["bytes"],
            "time / FLOP ratio": ratio / flops,
            "MFLOP": counts[name]["flops"] / 1e6,
            "MB": counts[name]["bytes"] / 1e6,
            "microseconds": 1e6 * statistics.median(times[name]),
            "through rlax": 1e6 * statistics.median(rlax) if rlax else "",
            "ours / rlax": ratio_of(times[name], rlax) if rlax else "",
        }

    return {"rows": [row(name) for name in choices]}


def measure_convolution(*, rounds: int) -> dict[str, Any]:
    """Time plain DQN's MinAtar update with our convolution and with flax's, in turn, and compare their results."""
    setting = "MinAtar, batch 32"
    config, env = make_config(setting, "dqn"), make_environment(SETTINGS[setting]["env"]["id"])
    hparams, batches = config.hparams(), make_batches(config, env)
    layers = {"ours": OurConvolution(features=16), "flax": nn.Conv(16, (3, 3), padding="VALID")}
    runs = {}
    for name, layer in layers.items():
        network = ConvolutionalNetwork(layer, config.network.hidden[0], env.num_actions)
        learning = make_learner(make_parts(config, env, Own(network=network)))
        runs[name] = timed(learning.update, hparams, jax.jit(learning.init)(hparams, jax.random.key(0)), batches)
    times = in_turn(runs, rounds)

    obs_key, init_key, cotangent_key = jax.random.split(jax.random.key(0), 3)
    obs = jax.random.normal(obs_key, (32, *env.obs_shape))
    params = layers["flax"].init(init_key, obs)
    cotangent = jax.random.normal(cotangent_key, layers["flax"].apply(params, obs).shape)

    def both(layer: nn.Module) -> Any:
        out, pull = jax.vjp(layer.apply, params, obs)
        return out, pull(cotangent)

    (out, grads), (expected, expected_grads) = (jax.jit(both, static_argnums=0)(layer) for layer in layers.values())
    row = {
        "ours (ms an update)": 1e3 * statistics.median(times["ours"]),
        "flax (ms an update)": 1e3 * statistics.median(times["flax"]),
        "ours / flax": ratio_of(times["ours"], times["flax"]),
        "outputs differ by": largest_difference(out, expected),
        "gradients differ by": largest_difference(grads, expected_grads),
    }
    return {"rows": [row]}


def measure_members(*, name: str, rounds: int) -> dict[str, Any]:
    """Time the update of ensembles with priors, in turn; a row for each number of members."""
    config = load_config(ENSEMBLES[name])
    assert config.replay.size
    env = make_environment(**config.env.making())
    members, hparams = make_members(config, make_parts(config, env)), config.hparams()
    batches, runs = make_batches(config, env), {}
    for count in MEMBERS:
        learner = batch_learner(members._replace(size=count), capacity=config.replay.size)
        runs[str(count)] = timed(learner.update, hparams, jax.jit(learner.init)(hparams, jax.random.key(0)), batches)
    times = in_turn(runs, rounds)
    return {
        "rows": [
            {
                "network": name,
                "members": count,
                "microseconds": 1e6 * statistics.median(times[str(count)]),
                "time / updates of one": ratio_of(times[str(count)], times["1"]) / count,
            }
            for count in MEMBERS
        ]
    }


def measure_replay(*, name: str, rounds: int) -> dict[str, Any]:
    """Time a training of a shipped config with each preset, in turn; return ``{"rows": rows}``."""
    runs = {preset: timed_training(training_config(name, preset)) for preset in PRESETS}
    times = in_turn(runs, rounds)
    return {
        "rows": [
            {
                "config": name,
                "choice": preset,
                "microseconds a step": 1e6 * statistics.median(times[preset]),
                "time ratio": ratio_of(times[preset], times["dqn"]),
                "rounds": spread_of(times[preset], times["dqn"]),
            }
            for preset in PRESETS
        ]
    }


def training_config(name: str, preset: str) -> Config:
    """Return a shipped config as plain DQN with a preset on top, short and with one evaluation of one episode."""
    names = list(dict.fromkeys((name, "dqn", preset)))
    total = load_config(names).schedule.warmup + STEPS
    evaluation = f"evaluation={{every: {STEPS}, episodes: 1, final_episodes: 1}}"
    return load_config(names, [f"total_timesteps={total}", evaluation])


def timed_training(config: Config) -> Callable[[], float]:
    """Compile a training; return a function that trains from the end of the warm-up on, and returns seconds a step."""
    program, hparams = make_program(config), config.hparams()
    state = jax.jit(program.init)(hparams, jax.random.key(0))
    segment = jax.jit(lambda hparams, state: program.segment(hparams, state, program.plan.epochs))
    compiled = compile_runs(segment, "cpu", hparams, state)
    jax.block_until_ready(compiled(hparams, state))

    def seconds() -> float:
        start = time.perf_counter()
        jax.block_until_ready(compiled(hparams, state))
        return (time.perf_counter() - start) / STEPS

    return seconds


class OurConvolution(nn.Module):
    """``Convolution`` with the image layout [B, H, W, C] and the parameters of flax's, so that gradients compare."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H - 2, W - 2, features]."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        params = {"params": {"weight": jnp.transpose(kernel, (3, 2, 0, 1)), "bias": bias}}
        out = Convolution(self.features, parent=None).apply(params, jnp.transpose(x, (3, 1, 2, 0)))
        return jnp.transpose(out, (3, 1, 2, 0))


class ConvolutionalNetwork(nn.Module):
    """The network of ``minatar_cnn`` with a given convolution."""

    convolution: nn.Module
    width: int
    num_actions: int

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """Images [B, H, W, C] -> Q-values [B, A]."""
        x = jax.nn.relu(self.convolution(obs.astype(jnp.float32)))
        x = jax.nn.relu(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.num_actions)(x)


def make_config(setting: str, choice: str) -> Config:
    """Return the config of a choice in a setting."""
    parts = (SETTINGS[setting], CHOICES[choice])
    sections = {section for part in parts for section in part}
    return Config.model_validate(
        {section: {k: v for part in parts for k, v in part.get(section, {}).items()} for section in sections}
    )


def make_batches(config: Config, env: Environment, *, steps: int = 100) -> Batch:
    """Return random batches [steps, B, ...] of the environment's shapes and types; 5% of transitions are terminal."""
    shape = (steps, config.replay.batch_size)
    obs_key, next_key, action_key, reward_key, end_key = jax.random.split(jax.random.key(0), 5)

    def observe(key: Array) -> Array:
        if env.obs_dtype == jnp.bool_:
            return jax.random.bernoulli(key, 0.1, (*shape, *env.obs_shape))
        return jax.random.normal(key, (*shape, *env.obs_shape), env.obs_dtype)

    transition = Transition(
        obs=observe(obs_key),
        action=jax.random.randint(action_key, shape, 0, env.num_actions),
        reward=jax.random.normal(reward_key, shape),
        discount=0.99 * jax.random.bernoulli(end_key, 0.95, shape),
        next_obs=observe(next_key),
    )
    return Batch(transition, weight=jnp.ones(shape), indices=jnp.zeros(shape, jnp.int32))


def timed(update: Update, hparams: HParams, learner: Any, batches: Batch) -> Callable[[], float]:
    """Compile a scan of updates over the batches; return a function that runs it and returns seconds per update."""
    steps = batches.weight.shape[0]
    arguments = hparams, learner, batches, jax.random.split(jax.random.key(0), steps)

    @jax.jit
    def run(hparams: HParams, learner: Any, batches: Batch, keys: Array) -> Any:
        def body(learner: Any, xs: tuple[Batch, Array]) -> Any:
            learner, td_error, stats = update(hparams, learner, *xs, hparams.optimizer_learning_rate)
            return learner, (td_error, stats)

        return jax.lax.scan(body, learner, (batches, keys))

    compiled = compile_runs(run, "cpu", *arguments)  # as runs are compiled
    jax.block_until_ready(compiled(*arguments))

    def seconds(*, at_least: float = 0.05) -> float:
        start, calls = time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < at_least or not calls:
            jax.block_until_ready(compiled(*arguments))
            calls += 1
        return spent / (calls * steps)

    return seconds


def counted(update: Update, hparams: HParams, learner: Any, batches: Batch) -> dict[str, float]:
    """Return the compiler's count of FLOPs and bytes for one update."""
    batch = jax.tree.map(lambda x: x[0], batches)
    arguments = hparams, learner, batch, jax.random.key(0), hparams.optimizer_learning_rate
    cost = jax.jit(update).lower(*arguments).compile().cost_analysis()
    return {"flops": cost["flops"], "bytes": cost["bytes accessed"]}


def in_turn(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call every run once per round, in turn; return the seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(run())
    return times


def ratio_of(times: list[float], others: list[float]) -> float:
    """Return the median over rounds of ``times / others``."""
    return statistics.median(one / other for one, other in zip(times, others, strict=True))


def spread_of(times: list[float], others: list[float]) -> str:
    """Return the lowest and the highest ``times / others`` of the rounds."""
    ratios = [one / other for one, other in zip(times, others, strict=True)]
    return f"{min(ratios):.3f} to {max(ratios):.3f}"


def largest_difference(tree: Any, other: Any) -> float:
    """Return the largest difference between two trees, each array's relative to the largest entry of ``other``'s."""
    shares = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b)) / np.max(np.abs(b))), tree, other)
    return max(jax.tree.leaves(shares))


def rlax_update(config: Config, env: Environment) -> Update:
    """Return an update with rlax's target and loss; the rest is as in ``make_learner``."""
    import rlax

    kind, atoms = config.distribution.kind, config.distribution.atoms
    parts = make_parts(config, env)
    double = config.bootstrap.kind == "double"
    midpoints = (jnp.arange(atoms) + 0.5) / atoms

    def q_of(*arguments: Any) -> Any:
        return parts.network.apply(*arguments)[0]

    def losses_and_q(hparams: HParams, out: Any, nexts: tuple[Any, ...], batch: Batch) -> tuple[Array, Array]:
        """Return losses [B] and Q-values [B, A], from outputs at obs and at next_obs (target network, selector)."""
        moved = batch.transition[1:4]
        match kind:
            case "scalar":
                td_error = jax.vmap(rlax.double_q_learning if double else rlax.q_learning)(out, *moved, *nexts)
                return rlax.huber_loss(td_error), out
            case "categorical":
                support = jnp.linspace(hparams.distribution_v_min, hparams.distribution_v_max, atoms)
                learn = rlax.categorical_double_q_learning if double else rlax.categorical_q_learning
                nexts = (nexts[0], *(jax.nn.softmax(logits) @ support for logits in nexts[1:]))
                learn = jax.vmap(learn, (None, 0, 0, 0, 0, None, *(0 for _ in nexts)))
                return learn(support, out, *moved, support, *nexts), jax.nn.softmax(out) @ support
            case _:
                fractions = jnp.broadcast_to(getattr(out, "fractions", midpoints), (moved[0].size, atoms))
                out, next_out, selector = (
                    jnp.swapaxes(getattr(x, "values", x), 1, 2) for x in (out, nexts[0], nexts[-1])
                )
                learn = jax.vmap(functools.partial(rlax.quantile_q_learning, huber_param=1.0))
                return learn(out, fractions, *moved, selector, next_out), jnp.mean(out, axis=1)

    def update(hparams: HParams, learner: LearnerState, batch: Batch, key: Array, rate: Array) -> Any:
        obs, action, next_obs = batch.transition.obs, batch.transition.action, batch.transition.next_obs
        noise_key, fraction_key = jax.random.split(key)
        size = noise_size(learner.online)
        noise = jax.random.normal(noise_key, (3, size)) if size else (None, None, None)
        fractions = jax.random.uniform(fraction_key, (2, *action.shape, atoms)) if kind == "iqn" else (None, None)
        nexts = (q_of(learner.target, next_obs, noise[1], fractions[1]),)
        if double:
            nexts += (q_of(learner.online, next_obs, noise[2], midpoints),)
        elif kind == "iqn":
            nexts += (q_of(learner.target, next_obs, noise[1], midpoints),)

        def loss(online: Params) -> tuple[Array, tuple[Array, Array]]:
            out = q_of(online, obs, noise[0], fractions[0])
            losses, q_values = losses_and_q(hparams, out, nexts, batch)
            taken = jnp.take_along_axis(q_values, action[:, None], axis=1)
            return jnp.mean(batch.weight * losses), (losses, jnp.mean(taken))

        (loss_value, (losses, q_value)), grads = jax.value_and_grad(loss, has_aux=True)(learner.online)
        online, opt_state, grad_norm = parts.optimizer.step(hparams, rate, grads, learner.opt_state, learner.online)
        return learner._replace(online=online, opt_state=opt_state), losses, UpdateStats(loss_value, q_value, grad_norm)

    return jax.default_matmul_precision(config.precision)(update)


if __name__ == "__main__":
    sys.exit(main())
