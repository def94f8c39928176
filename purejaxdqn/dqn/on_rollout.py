"""Q-learning without replay as an ``Algorithm``: learn from each rollout, then discard it (PQN: Gallici et al. 2024).

Each rollout of T steps of E environments gives T x E targets, its lambda-returns. In every epoch they are split into
minibatches at random, and each minibatch gives a gradient step.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.core import kernels
from purejaxdqn.core.algorithm import Algorithm, mean
from purejaxdqn.core.config import HParams
from purejaxdqn.core.draws import LearnDraws
from purejaxdqn.core.environment import assert_same_structure
from purejaxdqn.core.keys import keys_of
from purejaxdqn.core.schedules import Clock
from purejaxdqn.core.types import Array, Rollout, UpdateStats
from purejaxdqn.dqn.acting import make_acting
from purejaxdqn.dqn.heads import Head
from purejaxdqn.dqn.learner import (
    Bootstrapped,
    LearnerState,
    Parts,
    Recalls,
    Sample,
    bootstrapped,
    descend,
    draw,
    flat,
    make_learner,
)
from purejaxdqn.dqn.rings import fold
from purejaxdqn.dqn.units import Units, sequences, single_steps


class RolloutDraws(NamedTuple):
    """What learning from one rollout consumes; M is the number of minibatches, U that of ``Units``."""

    order: Array  # [epochs, U] uint32: their order is that of the units in the epoch
    target_key: Array  # [] PRNG key, for the targets
    keys: Array  # [epochs * M] PRNG keys, for the gradient steps


def on_rollout(
    parts: Parts,
    *,
    num_envs: int,
    steps: int,
    epochs: int,
    minibatches: int,
    target_network: bool,
    precision: str,
) -> Algorithm:
    """Q-learning from lambda-returns of fresh rollouts, with any parts whose head can mix values.

    Args:
      parts: head, bootstrap, network, optimiser and observations.
      num_envs: E.
      steps: T, of each environment.
      epochs: passes over a rollout.
      minibatches: of an epoch; they divide T x E, and with a memory E: a sequence stays whole.
      target_network: whether targets are those of a target network, or of the online network as it is at the end of the
        rollout (Gallici et al. 2024, algorithm 1).
      precision: of matrix products: ``default``, ``high`` or ``highest``.

    Raises:
      ValueError: the head cannot mix values.
    """
    if not parts.head.mixes:
        raise ValueError("lambda-returns need a head whose values can be mixed (Head.mixes)")
    learner = make_learner(parts)
    units = (single_steps if learner.memory is None else sequences)(steps, num_envs)
    updates = epochs * minibatches

    def init(hparams: HParams, key: Array) -> LearnerState:
        state = learner.init(hparams, key)
        return state if target_network else state._replace(target=())

    def observe(hparams: HParams, state: LearnerState, rollout: Rollout) -> LearnerState:
        return learner.observe(state, flat(rollout.steps.obs))

    def learn(
        hparams: HParams, state: LearnerState, rollout: Rollout, draws: RolloutDraws, clock: Clock
    ) -> tuple[LearnerState, UpdateStats]:
        state, rate = observe(hparams, state, rollout), clock.learning_rate()
        with_target = state if target_network else state._replace(target=state.online)
        target = _targets(parts, units, hparams, with_target, rollout, draws.target_key, minibatches)
        return _fit(parts, units, hparams, state, rollout, target, draws, rate)

    def sync(hparams: HParams, state: LearnerState) -> LearnerState:
        return learner.sync(hparams, state) if target_network else state

    draws = LearnDraws(
        shapes=((epochs, units.number), (2,), (updates, 2)),
        read=lambda order, target_key, keys: RolloutDraws(order, keys_of(target_key), keys_of(keys)),
    )
    acting = make_acting(learner, parts.num_actions, precision)
    learn = jax.default_matmul_precision(precision)(learn)
    return Algorithm(init, learner.policy, acting.act, acting.values, observe, learn, sync, draws, acting.memory)


def _fit(
    parts: Parts,
    units: Units,
    hparams: HParams,
    state: LearnerState,
    rollout: Rollout,
    target: Any,
    draws: RolloutDraws,
    rate: Array,
) -> tuple[LearnerState, UpdateStats]:
    """A gradient step on each minibatch of a rollout with these targets, in the order of ``draws``."""
    seen = rollout.steps.obs, rollout.steps.action, target, rollout.weight, rollout.start
    drawn_from = units.cut(seen), rollout.memory

    def gradient_step(state: LearnerState, xs: tuple[Array, Array]) -> tuple[LearnerState, UpdateStats]:
        rows, key = xs
        minibatch = jax.tree.map(lambda leaf: leaf[rows], drawn_from)
        sample = _sample(parts, units, state, minibatch, key)
        state, _, stats = descend(parts, hparams, state, sample, rate)
        return state, stats

    rows = kernels.permutations(draws.order).reshape(len(draws.keys), -1)
    state, stats = jax.lax.scan(gradient_step, state, (rows, draws.keys))
    return state, mean(stats)


def _sample(parts: Parts, units: Units, state: LearnerState, minibatch: tuple[Any, Any], key: Array) -> Sample:
    """What a gradient step learns from: (obs, action, target, weight, start) of units, and the carry before them."""
    (*steps, start), carry = minibatch
    obs, action, target, weight = units.items(tuple(steps))
    noise = draw(parts, state.online, key, action.size)
    return Sample(
        obs=parts.observations.inputs(state.observations, obs),
        action=action,
        target=target,
        weight=jnp.ones(action.shape) if isinstance(weight, tuple) else weight,
        noise=noise.online,
        fractions=noise.fractions,
        recall=units.recall(carry, start),
    )


def _targets(
    parts: Parts, units: Units, hparams: HParams, state: LearnerState, rollout: Rollout, key: Array, minibatches: int
) -> Any:
    """The targets of a rollout, leaves [T, E, ...], by the target network of ``state``."""
    noise = draw(parts, state.online, key, rollout.steps.reward.size // minibatches)
    inputs = functools.partial(parts.observations.inputs, state.observations)

    def bootstrap(some_units: tuple[Any, Any]) -> Bootstrapped:
        (steps, start), carry = some_units
        single = jax.tree.map(lambda leaf: leaf[None], units.items(steps))
        transition = fold(single, gamma=hparams.gamma, scale=hparams.reward_scale, clip=hparams.reward_clip)
        transition = transition._replace(obs=inputs(transition.obs), next_obs=inputs(transition.next_obs))
        recall = units.recall(carry, start)
        return units.of_items(bootstrapped(parts, hparams, state, transition, noise, Recalls(recall, recall)))

    steps = rollout.steps
    cut = units.cut((steps, rollout.start)), rollout.memory
    values = units.uncut(kernels.in_parts(bootstrap, cut, minibatches))  # parts as large as in a gradient step
    return lambda_returns(parts.head, hparams, values, steps.truncated | steps.terminated)


def lambda_returns(head: Head, hparams: HParams, steps: Bootstrapped, ends: Array) -> Any:
    """The targets of a rollout, leaves [T, E, ...]: Q(lambda) of Peng and Williams (1996), in any head's values.

    G_t = r_t + discount_t ((1 - lambda) V_t + lambda G_{t+1}) with V_t the value of the true next observation. Where
    an episode ends, and at the rollout's end, V_t takes the place of G_{t+1}. After a termination the discount is 0;
    a time limit keeps the value of the final observation (Pardo et al. 2018). The reward r_t includes what the
    bootstrap adds: for Munchausen, the bonus of the action taken and the discounted entropy of the next policy.

    Args:
      head: one that mixes values.
      hparams: ``rollout_lambda`` is read.
      steps: leaves [T, E, ...].
      ends: [T, E] bool: an episode ended.
    """
    weight = jnp.where(ends.at[-1].set(True), 0.0, hparams.rollout_lambda)

    def back(after: Any, xs: tuple[Bootstrapped, Array]) -> tuple[Any, Any]:
        step, weight = xs

        def mix(value: Array, after: Array) -> Array:
            share = weight.reshape(weight.shape + (1,) * (value.ndim - weight.ndim))
            return (1 - share) * value + share * after

        target = head.backup(hparams, jax.tree.map(mix, step.value, after), step.reward, step.discount)
        assert_same_structure(step.value, target, "head.backup: a target, beside a value,")
        return target, target

    last = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), steps.value)
    return jax.lax.scan(back, last, (steps, weight), reverse=True)[1]
