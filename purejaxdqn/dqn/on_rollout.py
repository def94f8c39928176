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
from purejaxdqn.core.draws import LearnDraws, as_keys
from purejaxdqn.core.schedules import Clock
from purejaxdqn.core.types import Array, Rollout, UpdateStats
from purejaxdqn.dqn.acting import make_acting
from purejaxdqn.dqn.heads import Head
from purejaxdqn.dqn.learner import (
    NO_RECALL,
    Bootstrapped,
    LearnerState,
    Parts,
    Recall,
    Recalls,
    Sample,
    bootstrapped,
    descend,
    draw,
    flat,
    make_learner,
)
from purejaxdqn.dqn.memory import Memory
from purejaxdqn.dqn.rings import fold


class RolloutDraws(NamedTuple):
    """What learning from one rollout consumes; M is the number of minibatches, U that of the units they are made of."""

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
      steps: T x E, environment steps of a rollout over all environments.
      epochs: passes over a rollout.
      minibatches: of an epoch; they divide ``steps``, and with a memory ``num_envs``: a sequence stays whole.
      target_network: whether targets are those of a target network, or of the online network as it is at the end of the
        rollout (Gallici et al. 2024, algorithm 1).
      precision: of matrix products: ``default``, ``high`` or ``highest``.

    Raises:
      ValueError: the head cannot mix values.
    """
    if not parts.head.mixes:
        raise ValueError("lambda-returns need a head whose values can be mixed (Head.mixes)")
    learner, memory = make_learner(parts), parts.network.memory
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
        targets = rollout_targets(hparams, state, rollout, draws.target_key)
        steps = rollout.steps.obs, rollout.steps.action, targets, rollout.weight
        units = _units(memory, (*steps, rollout.start)), rollout.memory

        def gradient_step(state: LearnerState, xs: tuple[Array, Array]) -> tuple[LearnerState, UpdateStats]:
            rows, key = xs
            (obs, action, target, weight, start), carry = jax.tree.map(lambda leaf: leaf[rows], units)
            obs, action, target, weight = _items(memory, (obs, action, target, weight))
            noise = draw(parts, state.online, key, action.size)
            sample = Sample(
                obs=parts.observations.inputs(state.observations, obs),
                action=action,
                target=target,
                weight=jnp.ones(action.shape) if isinstance(weight, tuple) else weight,
                noise=noise.online,
                fractions=noise.fractions,
                recall=_recall(memory, carry, start),
            )
            state, _, stats = descend(parts, hparams, state, sample, rate)
            return state, stats

        rows = kernels.permutations(draws.order).reshape(updates, -1)
        state, stats = jax.lax.scan(gradient_step, state, (rows, draws.keys))
        return state, mean(stats)

    def rollout_targets(hparams: HParams, state: LearnerState, rollout: Rollout, key: Array) -> Any:
        """Targets with leaves [T, E, ...]."""
        valued = state if target_network else state._replace(target=state.online)
        noise = draw(parts, state.online, key, rollout.steps.reward.size // minibatches)
        inputs = functools.partial(parts.observations.inputs, state.observations)

        def bootstrap(units: tuple[Any, Any]) -> Bootstrapped:
            (steps, start), carry = units
            single = jax.tree.map(lambda leaf: leaf[None], _items(memory, steps))
            transition = fold(single, gamma=hparams.gamma, scale=hparams.reward_scale, clip=hparams.reward_clip)
            transition = transition._replace(obs=inputs(transition.obs), next_obs=inputs(transition.next_obs))
            recall = _recall(memory, carry, start)
            steps = bootstrapped(parts, hparams, valued, transition, noise, Recalls(recall, recall))
            return _items_to_units(memory, start, steps)

        steps = rollout.steps
        units = _units(memory, (steps, rollout.start)), rollout.memory
        values = kernels.in_parts(bootstrap, units, minibatches)  # as large as in a gradient step
        values = _units_to_rollout(memory, steps.reward.shape, values)
        return lambda_returns(parts.head, hparams, values, steps.truncated | steps.terminated)

    def sync(hparams: HParams, state: LearnerState) -> LearnerState:
        return learner.sync(hparams, state) if target_network else state

    draws = LearnDraws(
        shapes=((epochs, steps if memory is None else num_envs), (2,), (updates, 2)),
        read=lambda order, target_key, keys: RolloutDraws(order, as_keys(target_key), as_keys(keys)),
    )
    acting = make_acting(learner, parts.num_actions, precision)
    learn = jax.default_matmul_precision(precision)(learn)
    return Algorithm(init, learner.policy, acting.act, acting.values, observe, learn, sync, draws, acting.memory)


# A minibatch is made of units, which are drawn together: single steps without a memory, and with one all steps of an
# environment, in their order. Leaves of units are [U, ...] with U = T * E, or [E, T, ...]; a batch has its items in one
# axis, those of sequences with time first.


def _units(memory: Memory | None, rollout: Any) -> Any:
    """Leaves [T, E, ...] -> of units."""
    return jax.tree.map(flat if memory is None else lambda leaf: jnp.swapaxes(leaf, 0, 1), rollout)


def _items(memory: Memory | None, units: Any) -> Any:
    """Leaves of units -> [B, ...]."""
    return units if memory is None else jax.tree.map(lambda leaf: flat(jnp.swapaxes(leaf, 0, 1)), units)


def _items_to_units(memory: Memory | None, start: Any, items: Any) -> Any:
    """The inverse of ``_items``; ``start`` is [E, T]."""
    if memory is None:
        return items
    envs, steps = start.shape
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape(steps, envs, *leaf.shape[1:]), 0, 1), items)


def _units_to_rollout(memory: Memory | None, shape: tuple[int, ...], units: Any) -> Any:
    """The inverse of ``_units``; ``shape`` is (T, E)."""
    if memory is None:
        return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), units)
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), units)


def _recall(memory: Memory | None, carry: Any, start: Any) -> Recall:
    """What sequences start from; ``start`` is [E, T]."""
    return NO_RECALL if memory is None else Recall(carry, start.T)


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
        return target, target

    last = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), steps.value)
    return jax.lax.scan(back, last, (steps, weight), reverse=True)[1]
