"""What a PQN run spends its time on, found by leaving out one part after another."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.baselines.setting import RolloutSetting
from benchmarks.pqn_products import fastest_products, flops_of, forward_flops, timed

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
    """Return the table of parts: the whole rollout, its products, and what it takes less without each of its parts.

    Everything is timed in turn in every round, with the threads that the command takes, and medians are subtracted.
    Evaluation is not in it, since its episodes grow as an agent learns.
    """
    from purejaxdqn.config.reading import read_config
    from purejaxdqn.system.runtime import configure_cpu_for

    draft = read_config(CONFIGS, [*overrides_of(setting), f"total_timesteps={ITERATIONS * setting.rollout}", *_ONCE])
    configure_cpu_for(draft.config)
    config = draft.checked()
    programs = {name: make() for name, make in variants(config).items()}
    runs = {name: iterations_of(program, config.hparams()) for name, program in programs.items()}
    runs |= {SHUFFLE: shuffling(setting, programs[WHOLE].env)}
    times: dict[str, list[float]] = {name: [] for name in (*runs, PRODUCTS)}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(run())
        times[PRODUCTS].append(fastest_products(setting, 1))
    return table_of({name: statistics.median(values) for name, values in times.items()}, setting)


_ONCE = ("evaluation={every: null, episodes: 1, final_episodes: 1}", "checkpoint.every=null")
WHOLE, PRODUCTS, SHUFFLE = "whole rollout", "products alone", "permutations and minibatches"
_FORWARD = ("acting", "values for targets")
_LEFT_OUT = ("environment steps", "layer normalisation", "RAdam, beyond SGD")


def table_of(seconds: Mapping[str, float], setting: RolloutSetting) -> list[dict[str, Any]]:
    """Return a row per part: its time, the products in it by their operations, and the others' share of the whole."""
    whole, products = seconds[WHOLE], seconds[PRODUCTS]
    share = forward_flops(setting) / flops_of(setting)  # of one forward pass over the rollout
    found = {name: (whole - seconds[name], 0.0, "left out") for name in _LEFT_OUT}
    for name in _FORWARD:
        found[name] = (whole - seconds[name], share * products, "left out")
    found[SHUFFLE] = (seconds[SHUFFLE], 0.0, "by itself")
    rest = whole - products - sum(time - within for time, within, _ in found.values())
    found["everything else"] = (rest + (1 - 2 * share) * products, (1 - 2 * share) * products, "what is left")
    found[WHOLE] = (whole, products, "")
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
    """Return makers of the programs to time: the whole one, and one without each part."""
    import jax.numpy as jnp

    from purejaxdqn.config.building import Own, make_program
    from purejaxdqn.core.draws import random_action
    from purejaxdqn.core.loop import build_program
    from purejaxdqn.core.schedules import make_clock
    from purejaxdqn.core.types import Step
    from purejaxdqn.dqn.heads import scalar_head

    def changed(**sections: Any) -> Any:
        parts = {name: getattr(config, name).model_copy(update=update) for name, update in sections.items()}
        return make_program(config.model_copy(update=parts))

    def rebuilt(env: Any = None, **replaced: Any) -> Any:
        whole = make_program(config)
        algorithm = whole.algorithm._replace(**replaced)
        return build_program(env or whole.env, algorithm, whole.plan, make_clock(warmup=0, anneal=False))

    def without_environment() -> Any:
        """Every observation follows itself."""
        env = make_program(config).env

        def step(params: Any, keys: Any, state: Any, obs: Any, action: Any) -> Any:
            no = jnp.zeros(action.shape, bool)
            return obs, state, Step(obs, action, jnp.zeros(action.shape), no, no, obs)

        return rebuilt(env._replace(step=step))

    def act_at_random(hparams: Any, policy: Any, view: Any, draws: Any, clock: Any) -> Any:
        return random_action(draws.choice, view.legal, num_actions), view.memory

    num_actions = make_program(config).env.num_actions
    no_value = scalar_head("squared")._replace(value=lambda hparams, out, policy: jnp.zeros(policy.shape[0]))
    return {
        WHOLE: lambda: make_program(config),
        "acting": lambda: rebuilt(act=act_at_random),
        "environment steps": without_environment,
        "values for targets": lambda: make_program(config, Own(head=no_value)),
        "layer normalisation": lambda: changed(network={"layer_norm": False}),
        "RAdam, beyond SGD": lambda: changed(optimizer={"name": "sgd"}),
    }


def iterations_of(program: Any, hparams: Any) -> Callable[[], float]:
    """Return a function that trains for one epoch and returns the seconds of a rollout; every call begins anew."""
    import jax

    from purejaxdqn.core.compiling import compile_runs

    state = jax.jit(program.init)(hparams, jax.random.key(0))
    segment = jax.jit(lambda hparams, state: program.segment(hparams, state, program.plan.epochs))
    compiled = compile_runs(segment, jax.default_backend(), hparams, state)
    plan = program.plan
    return timed(lambda: compiled(hparams, state), plan.epochs * plan.periods * plan.iterations)


def shuffling(setting: RolloutSetting, env: Any) -> Callable[[], float]:
    """Return a function that measures the seconds of a rollout's permutations and of gathering its minibatches."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn.core import kernels

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
