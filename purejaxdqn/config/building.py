"""Builds programs from a config, whose parts the caller may replace."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from purejaxdqn.config.arguments import check_numbers, count_points, one_key
from purejaxdqn.config.checks import find_faults
from purejaxdqn.core.algorithm import ActorView, Algorithm
from purejaxdqn.core.config import Config, HParams
from purejaxdqn.core.environment import Environment, all_legal
from purejaxdqn.core.keys import typed_keys
from purejaxdqn.core.loop import Program, build_program
from purejaxdqn.core.many import Layout, lay_out, map_runs
from purejaxdqn.core.plan import intervals_of, make_plan
from purejaxdqn.core.schedules import make_clock
from purejaxdqn.core.types import Array, Network, Params, Result
from purejaxdqn.dqn.algorithm import off_policy
from purejaxdqn.dqn.bootstrap import BOOTSTRAPS, Bootstrap
from purejaxdqn.dqn.ensemble import Members, batch_learner, ensemble, estimates, on_rollouts
from purejaxdqn.dqn.heads import HEADS, Head
from purejaxdqn.dqn.learner import Learner, Parts, check_output
from purejaxdqn.dqn.memory import MEMORIES, Memory
from purejaxdqn.dqn.networks import adapt, make_network
from purejaxdqn.dqn.observations import normalized_observations, plain_observations
from purejaxdqn.dqn.on_rollout import on_rollout
from purejaxdqn.dqn.optimizers import OPTIMIZERS, Transformation, as_transformation, make_optimizer
from purejaxdqn.dqn.replay import REPLAYS, Replay
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.system.compiling import compile_runs


class Own(NamedTuple):
    """Parts of your own, each in place of what the config names; None takes the config's."""

    env: Environment | None = None
    network: Network | None = None
    head: Head | None = None
    bootstrap: Bootstrap | None = None
    replay: Replay | None = None
    optimizer: optax.GradientTransformation | Transformation | None = None
    memory: Memory | None = None


NOTHING_OWN = Own()
"""Every part as the config names it."""

_REPLACED = {
    "env": ("env.resets",),
    "network": ("network.",),
    "head": ("distribution.", "loss"),
    "bootstrap": ("bootstrap.",),
    "replay": ("replay.",),
    "optimizer": ("optimizer.",),
    "memory": (),
}
"""The keys and sections of the config that a part of your own replaces; faults in them are ignored."""


def make_train(
    config: Config,
    *,
    env: Environment | None = None,
    network: Network | None = None,
    head: Head | None = None,
    bootstrap: Bootstrap | None = None,
    replay: Replay | None = None,
    optimizer: optax.GradientTransformation | Transformation | None = None,
    memory: Memory | None = None,
) -> Callable[[HParams, Array], Result]:
    """The pure function ``train(hparams, key) -> Result`` of a whole run.

    It takes single numbers and one key, and refuses others with a ``ValueError``; ``jax.vmap`` maps it over more.

    Args:
      config: only its static part is used; the numbers come in through ``hparams``.
      env: ``from_gymnax(...)``, in place of ``config.env``.
      network: anything with ``init(key, obs)`` and ``apply(params, obs)``, in place of ``config.network``.
      head: a ``Head``, in place of ``config.distribution`` and ``config.loss``.
      bootstrap: a function ``(hparams, estimates) -> Backup``, in place of ``config.bootstrap``.
      replay: a ``Replay``, in place of ``config.replay`` but for ``batch_size``.
      optimizer: a gradient transformation of optax, or a function ``(hparams, rate)`` that returns one, in place of
        ``config.optimizer`` but for ``max_grad_norm``.
      memory: a ``Memory``, in place of the one that ``config.network.memory`` names.

    Raises:
      ValueError: the config's keys contradict each other (``load_config`` would have refused it), the network's output
        does not fit the head, or JAX is in 64-bit mode.
    """
    program = make_program(config, Own(env, network, head, bootstrap, replay, optimizer, memory))

    def train(hparams: HParams, key: Array) -> Result:
        check_numbers(config, hparams)
        return program.train(hparams, one_key(key))

    return train


def make_program(config: Config, own: Own = NOTHING_OWN) -> Program:
    """The program of a run; see ``make_train``."""
    if jax.config.read("jax_enable_x64"):
        raise ValueError("jax_enable_x64 (JAX_ENABLE_X64) is on; programs compute in 32 bits, so switch it off")
    replaced = tuple(key for part, keys in _REPLACED.items() if getattr(own, part) is not None for key in keys)
    faults = [f"{one.key}: {one.message}" for one in find_faults(config) if not one.key.startswith(replaced)]
    if faults:
        raise ValueError("; ".join(faults))
    config = config.static()
    env = own.env or make_environment(**config.env.making())
    algorithm = make_algorithm(config, env, own)
    clock = make_clock(warmup=intervals_of(config).warmup, anneal=config.optimizer.anneal)
    return build_program(env, algorithm, make_plan(config), clock)


def make_algorithm(config: Config, env: Environment, own: Own = NOTHING_OWN) -> Algorithm:
    """The algorithm that ``config`` names, for the shapes of ``env``.

    Raises:
      ValueError: the parts do not fit each other.
    """
    if env.frames != config.env.frame_stack:
        stacked = f"the environment stacks {env.frames}; environments.sight.with_sight makes your own stack them"
        raise ValueError(f"env.frame_stack is {config.env.frame_stack}, but {stacked}")
    parts = make_parts(config, env, own)
    if config.replay.kind == "none" and own.replay:
        raise ValueError("replay.kind is none, but a replay is passed")
    if config.ensemble.members > 1:
        return _make_ensemble(config, parts, own)
    return _without_replay(config, parts) if config.replay.kind == "none" else _with_replay(config, parts, own)


def _with_replay(config: Config, parts: Parts, own: Own, learner: Learner | None = None) -> Algorithm:
    assert config.schedule.gradient_steps and config.replay.batch_size
    return off_policy(
        parts,
        own.replay or REPLAYS.make(config),
        batch_size=config.replay.batch_size,
        gradient_steps=config.schedule.gradient_steps,
        precision=config.precision,
        learner=learner,
    )


def _without_replay(config: Config, parts: Parts) -> Algorithm:
    return on_rollout(
        parts,
        num_envs=config.env.num_envs,
        steps=config.rollout.steps,
        epochs=config.rollout.epochs,
        minibatches=config.rollout.minibatches,
        target_network=config.schedule.target_every is not None,
        precision=config.precision,
    )


def _make_ensemble(config: Config, parts: Parts, own: Own) -> Algorithm:
    if own.replay:
        raise ValueError("an ensemble needs the config's replay: its masks are computed from the rows of the ring")
    members = make_members(config, parts)
    if config.replay.kind == "none":
        return ensemble(members, on_rollouts(members, functools.partial(_without_replay, config)))
    assert config.replay.size
    learner = batch_learner(
        members,
        capacity=config.replay.size,
        num_envs=config.env.num_envs,
        period=1 if config.network.memory == "none" else config.replay.period_of_sequences(),
    )
    return ensemble(members, _with_replay(config, parts, own, learner))


def make_members(config: Config, parts: Parts) -> Members:
    """The members of the ensemble that ``config`` names."""
    return Members(parts, config.ensemble.members, config.ensemble.prior, config.precision)


def make_parts(config: Config, env: Environment, own: Own = NOTHING_OWN) -> Parts:
    """One part for each axis.

    Raises:
      ValueError: the parts do not fit each other.
    """
    if own.network and (own.memory or config.network.memory != "none"):
        raise ValueError("network.memory must be none with a network of your own, which has no memory")
    if own.memory and config.network.memory == "none":
        raise ValueError("network.memory is none, but a memory is passed; set network.memory to any other value")
    memory = own.memory or MEMORIES.make(config)
    example = jnp.zeros((1, *env.obs_shape), env.obs_dtype)
    head = own.head or HEADS.make(config)
    transformation = as_transformation(own.optimizer) if own.optimizer else OPTIMIZERS.make(config)
    parts = Parts(
        network=adapt(own.network)
        if own.network
        else make_network(
            config, num_actions=env.num_actions, outputs=head.outputs, fractions=head.fractions, memory=memory
        ),
        head=head,
        bootstrap=own.bootstrap or BOOTSTRAPS.make(config),
        optimizer=make_optimizer(transformation, apart=head.apart),
        observations=normalized_observations(env.features, example)
        if config.env.normalize
        else plain_observations(env.features),
        example=example,
        num_actions=env.num_actions,
        some_illegal=env.legal is not all_legal,
    )
    check_output(parts)
    return parts


def make_q_values(config: Config, env: Environment) -> Callable[[HParams, Params, Array], Array]:
    """The function ``(hparams, policy, obs[B, O]) -> Q-values [B, A]`` of trained policies."""
    algorithm = make_algorithm(config, env)
    return lambda hparams, policy, obs: algorithm.values(hparams, policy, ActorView(obs))[0]


def make_estimates(
    config: Config, env: Environment
) -> Callable[[HParams, Params, ActorView], tuple[Array, Array, Any]]:
    """The function ``(hparams, policy, view) -> mean, deviation [B, A], carry`` of an ensemble; see ``estimates``."""
    return functools.partial(estimates, make_members(config, make_parts(config, env)))


def policy_shapes(config: Config, env: Environment) -> Params:
    """Shapes and types of a policy."""
    return shapes_of_policy(config, make_algorithm(config, env))


def shapes_of_policy(config: Config, algorithm: Algorithm) -> Params:
    """``policy_shapes`` of an algorithm that is made."""
    return jax.eval_shape(lambda: algorithm.policy(algorithm.init(config.hparams(), jax.random.key(0))))


def run_many(
    config: Config,
    hparams: HParams,
    keys: Array,
    *,
    devices: Sequence[jax.Device] | None = None,
    batch_size: int | None = None,
    env: Environment | None = None,
    network: Network | None = None,
    head: Head | None = None,
    bootstrap: Bootstrap | None = None,
    replay: Replay | None = None,
    optimizer: optax.GradientTransformation | Transformation | None = None,
    memory: Memory | None = None,
) -> Result:
    """Train every point of ``hparams`` with every key.

    Args:
      config: the static part of all runs.
      hparams: leaves [] or [P]; those without an axis serve every point.
      keys: [S] keys, typed or legacy; seed k of the command line is ``fold_in(key(seed), k)``.
      devices: see ``lay_out``.
      batch_size: runs to vmap together; see ``lay_out``.
      env: see ``make_train``, as for the other parts.
      network: see ``make_train``.
      head: see ``make_train``.
      bootstrap: see ``make_train``.
      replay: see ``make_train``.
      optimizer: see ``make_train``.
      memory: see ``make_train``.

    Returns:
      A ``Result`` whose leaves start with axes [P, S]; P is 1 where ``hparams`` has no axis.

    Raises:
      ValueError: the numbers of ``hparams`` differ in P, ``keys`` are not keys, or see ``make_train``.
    """
    points = count_points(config, hparams)
    keys = typed_keys(keys)
    seeds = len(keys)
    hparams = jax.tree.map(lambda leaf: jnp.repeat(jnp.broadcast_to(leaf, (points,)), seeds), hparams)
    layout = lay_out(points * seeds, devices=devices, batch_size=batch_size)
    arguments = layout.put(hparams), layout.put(jnp.tile(keys, points))
    train = _compiled_train(config, layout, arguments, Own(env, network, head, bootstrap, replay, optimizer, memory))
    # Wait here: gathering the results gives up on a device that is 40 seconds later than another.
    result = jax.block_until_ready(train(*arguments))
    return jax.tree.map(lambda leaf: leaf.reshape(points, seeds, *leaf.shape[1:]), layout.take(result))


_KEPT = 32  # programs that ``run_many`` keeps
_compiled: dict[tuple, tuple] = {}


def _compiled_train(config: Config, layout: Layout, arguments: tuple, own: Own) -> Callable:
    """The compiled program of a layout, kept. Parts of your own may be unhashable: their identity is the key."""
    leaves, structure = jax.tree.flatten(arguments)
    key = (config.static(), layout, structure, *map(jax.typeof, leaves), *map(id, own))
    if key not in _compiled:
        program = make_program(config, own)
        # The parts are kept too, so that no other object gets their id.
        _compiled[key] = (compile_runs(map_runs(program.train, layout), layout.platform, *arguments), own)
        while len(_compiled) > _KEPT:
            del _compiled[next(iter(_compiled))]
    return _compiled[key][0]
