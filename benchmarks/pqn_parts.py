"""What a PQN run spends its time on, found by leaving out one part after another."""

import functools
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.baselines.setting import RolloutSetting
from benchmarks.pqn_products import fastest_products, flops_of, forward_flops, products, timed

CONFIGS = ("cartpole_cleanrl", "pqn")
ITERATIONS = 4
"""Rollouts that a timed call of a program trains for."""


def overrides_of(setting: RolloutSetting) -> list[str]:
    """Return the overrides of ``CONFIGS`` that make this project's agent that of a setting."""
    return [
        f"env={{id: {setting.env_id}, num_envs: {setting.num_envs}}}",
        f"network.torso={'minatar_cnn' if setting.convolution else 'mlp'}",
        f"network.hidden={list(setting.hidden)}",
        f"rollout={{steps: {setting.steps}, epochs: {setting.epochs}, minibatches: {setting.minibatches}}}",
        f"rollout.lambda={setting.trace}",
        f"gamma={setting.gamma}",
        f"optimizer={{learning_rate: {setting.learning_rate}, max_grad_norm: {setting.max_grad_norm}, anneal: false}}",
        f"exploration={{end: {setting.epsilon_end}, fraction: {setting.exploration_fraction}}}",
    ]


def measure_parts(setting: RolloutSetting, *, rounds: int) -> list[dict[str, Any]]:
    """Return the table of parts: what a rollout takes less without each of its parts, and its products.

    Parts of acting are left out of a program that does not learn, parts of learning out of the whole program. All
    programs are timed in every round, with the threads that the command uses, and medians are subtracted. There is
    only one episode of evaluation, because episodes grow as an agent learns. The products are those of the fastest
    layout and library; the additional time of ours is a separate row.
    """
    from purejaxdqn.config.reading import read_config
    from purejaxdqn.system.runtime import configure_cpu_for

    steps = ITERATIONS * setting.rollout
    once = f"evaluation={{every: {steps}, episodes: 1, final_episodes: 1}}"
    draft = read_config(CONFIGS, [*overrides_of(setting), f"total_timesteps={steps}", once])
    configure_cpu_for(draft.config)
    config = draft.checked()
    runs = {name: iterations_of(make(), config.hparams()) for name, make in variants(config).items()}
    runs |= {SHUFFLE: shuffling(setting), AS_OURS: products(setting, "columns, copied", ynn=False)}
    times: dict[str, list[float]] = {name: [] for name in (*runs, PRODUCTS)}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(run())
        times[PRODUCTS].append(fastest_products(setting, 1))
    return table_of({name: statistics.median(values) for name, values in times.items()}, setting)


WHOLE, ACTING, PRODUCTS, SHUFFLE = "whole", "without learning", "products", "permutations and minibatches"
AS_OURS = "products in the layout and with the library of ours"
LEFT_OUT = {
    "Q-values for acting": ACTING,
    "environment steps": ACTING,
    "values for targets": WHOLE,
    "layer normalisation": WHOLE,
    "RAdam, beyond SGD": WHOLE,
}
"""Parts, and of which program they are left out."""
_FORWARD = ("Q-values for acting", "values for targets")


def table_of(seconds: Mapping[str, float], setting: RolloutSetting) -> list[dict[str, Any]]:
    """Return a row per part: its time, the products in it by their operations, and the others' share of the whole."""
    whole, alone = seconds[WHOLE], seconds[PRODUCTS]
    forward = alone * forward_flops(setting) / flops_of(setting)
    found = {
        name: (seconds[of] - seconds[name], forward if name in _FORWARD else 0.0, "by leaving it out")
        for name, of in LEFT_OUT.items()
    }
    acting = sum(found[name][0] for name, of in LEFT_OUT.items() if of == ACTING)
    found["random numbers and the rest of acting"] = (seconds[ACTING] - acting, 0.0, "the remainder")
    found[SHUFFLE] = (seconds[SHUFFLE], 0.0, "alone")
    found["products, by layout and library"] = (max(0.0, seconds[AS_OURS] - alone), 0.0, "alone")
    rest = whole - sum(time for time, _, _ in found.values())
    found["gradient steps without these"] = (rest, alone - 2 * forward, "the remainder")
    found[WHOLE] = (whole, alone, "")
    return [
        {
            "part": name,
            "milliseconds": 1e3 * time,
            "of these, products": 1e3 * within,
            "the others' share": (time - within) / whole,
            "how": how,
        }
        for name, (time, within, how) in found.items()
    ]


def variants(config: Any) -> dict[str, Callable[[], Any]]:
    """Return makers of the programs to time: the whole one, one that only acts, and one without each part."""
    import jax.numpy as jnp

    from purejaxdqn.config.building import Own, make_program
    from purejaxdqn.core.loop import build_program
    from purejaxdqn.core.schedules import make_clock
    from purejaxdqn.dqn.heads import scalar_head

    def changed(**sections: Any) -> Any:
        parts = {name: getattr(config, name).model_copy(update=update) for name, update in sections.items()}
        return make_program(config.model_copy(update=parts))

    def acting_with(changed_env: Callable[[Any], Any] = lambda env: env, **replaced: Any) -> Any:
        whole = make_program(config)
        algorithm = whole.algorithm._replace(learn=learn_nothing, **replaced)
        return build_program(changed_env(whole.env), algorithm, whole.plan, make_clock(warmup=0, anneal=False))

    def no_value(hparams: Any, out: Any, policy: Any) -> Any:
        return jnp.zeros(policy.shape[0])

    num_actions = make_program(config).env.num_actions
    no_values = scalar_head("squared")._replace(value=no_value)
    return {
        WHOLE: lambda: make_program(config),
        ACTING: acting_with,
        "Q-values for acting": lambda: acting_with(act=functools.partial(act_at_random, num_actions)),
        "environment steps": lambda: acting_with(without_steps),
        "values for targets": lambda: make_program(config, Own(head=no_values)),
        "layer normalisation": lambda: changed(network={"layer_norm": False}),
        "RAdam, beyond SGD": lambda: changed(optimizer={"name": "sgd"}),
    }


def learn_nothing(hparams: Any, state: Any, steps: Any, draws: Any, clock: Any) -> Any:
    """Of ``Algorithm.learn``: keep the state, but read all steps of the rollout, so that they are made."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn.core.types import UpdateStats

    read = sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(steps))
    return state, UpdateStats(read, read, read)


def act_at_random(num_actions: int, hparams: Any, policy: Any, view: Any, draws: Any, clock: Any) -> Any:
    """Of ``Algorithm.act``: without Q-values."""
    from purejaxdqn.core.draws import random_action

    return random_action(draws.choice, view.legal, num_actions), view.memory


def without_steps(env: Any) -> Any:
    """Return the environment with the observations of its neighbours, so that acting has something new to see."""
    import jax.numpy as jnp

    from purejaxdqn.core.types import Step

    def step(params: Any, keys: Any, state: Any, obs: Any, action: Any) -> Any:
        no = jnp.zeros(action.shape, bool)
        after = jnp.roll(obs, 1, axis=0)
        return after, state, Step(obs, action, jnp.zeros(action.shape), no, no, after)

    return env._replace(step=step)


def iterations_of(program: Any, hparams: Any) -> Callable[[], float]:
    """Return a function that trains for one epoch and returns the seconds of a rollout; every call begins anew."""
    import jax

    from purejaxdqn.system.compiling import compile_runs

    state = jax.jit(program.init)(hparams, jax.random.key(0))
    segment = jax.jit(lambda hparams, state: program.segment(hparams, state, program.plan.epochs))
    compiled = compile_runs(segment, jax.default_backend(), hparams, state)
    plan = program.plan
    return timed(lambda: compiled(hparams, state), plan.epochs * plan.periods * plan.iterations)


def shuffling(setting: RolloutSetting) -> Callable[[], float]:
    """Return a function that measures the seconds of a rollout's permutations and of gathering its minibatches."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn.core import kernels
    from purejaxdqn.environments.registry import make_environment

    env = make_environment(setting.env_id)
    obs = jnp.zeros((setting.rollout, *env.obs_shape), env.obs_dtype)
    action, target = jnp.zeros(setting.rollout, jnp.int32), jnp.zeros(setting.rollout)

    def gather(read: Any, rows: Any) -> tuple[Any, None]:
        return read + sum(jnp.sum(env.features(x[rows]) if x is obs else x[rows]) for x in (obs, action, target)), None

    def rollout(read: Any, key: Any) -> tuple[Any, None]:
        bits = jax.random.bits(key, (setting.epochs, setting.rollout), jnp.uint32)
        rows = kernels.permutations(bits).reshape(setting.epochs * setting.minibatches, -1)
        return jax.lax.scan(gather, read, rows)[0], None

    keys = jax.random.split(jax.random.key(0), ITERATIONS)
    compiled = jax.jit(lambda keys: jax.lax.scan(rollout, jnp.float32(0), keys)[0]).lower(keys).compile()
    return timed(lambda: compiled(keys), ITERATIONS)
