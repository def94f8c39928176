"""Q-learning without replay as an ``Algorithm``: learn from each rollout and forget it (PQN: Gallici et al. 2024).

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
from purejaxdqn.core.types import Array, Step, UpdateStats
from purejaxdqn.dqn.acting import make_acting
from purejaxdqn.dqn.heads import Head
from purejaxdqn.dqn.learner import Bootstrapped, LearnerState, Parts, Sample, bootstrapped, descend, draw, make_learner
from purejaxdqn.dqn.replay import fold


class RolloutDraws(NamedTuple):
    """What is learned of one rollout consumes; N is T x E, M the number of minibatches."""

    order: Array  # [epochs, N] uint32: their order is that of the steps in the epoch
    target_key: Array  # [] PRNG key, for the targets
    keys: Array  # [epochs * M] PRNG keys, for the gradient steps


def on_rollout(
    parts: Parts,
    *,
    steps: int,
    epochs: int,
    minibatches: int,
    target_network: bool,
    precision: str,
) -> Algorithm:
    """Q-learning from lambda-returns of fresh rollouts, with any parts whose head can mix values.

    Args:
      parts: head, bootstrap, network, optimiser and observations.
      steps: N, environment steps of a rollout over all environments.
      epochs: passes over a rollout.
      minibatches: of an epoch; they divide ``steps``.
      target_network: whether targets are those of a target network, or of the online network as it is at the end of the
        rollout (Gallici et al. 2024, algorithm 1).
      precision: of matrix products: ``default``, ``high`` or ``highest``.

    Raises:
      ValueError: the head cannot mix values.
    """
    if not parts.head.mixes:
        raise ValueError("lambda-returns need a head whose values can be mixed (Head.mixes)")
    learner = make_learner(parts)
    updates = epochs * minibatches

    def init(hparams: HParams, key: Array) -> LearnerState:
        state = learner.init(hparams, key)
        return state if target_network else state._replace(target=())

    def observe(hparams: HParams, state: LearnerState, steps: Step) -> LearnerState:
        return learner.observe(state, flat(steps.obs))

    def learn(
        hparams: HParams, state: LearnerState, steps: Step, draws: RolloutDraws, clock: Clock
    ) -> tuple[LearnerState, UpdateStats]:
        state, rate = observe(hparams, state, steps), clock.learning_rate()
        targets = jax.tree.map(flat, rollout_targets(hparams, state, steps, draws.target_key))
        obs, action = flat(steps.obs), flat(steps.action)

        def gradient_step(state: LearnerState, xs: tuple[Array, Array]) -> tuple[LearnerState, UpdateStats]:
            rows, key = xs
            noise = draw(parts, state.online, key, rows.size)
            sample = Sample(
                obs=parts.observations.inputs(state.observations, obs[rows]),
                action=action[rows],
                target=jax.tree.map(lambda leaf: leaf[rows], targets),
                weight=jnp.ones(rows.shape),
                noise=noise.online,
                fractions=noise.fractions,
            )
            state, _, stats = descend(parts, hparams, state, sample, rate)
            return state, stats

        rows = kernels.permutations(draws.order).reshape(updates, -1)
        state, stats = jax.lax.scan(gradient_step, state, (rows, draws.keys))
        return state, mean(stats)

    def rollout_targets(hparams: HParams, state: LearnerState, steps: Step, key: Array) -> Any:
        """Targets with leaves [T, E, ...]."""
        valued = state if target_network else state._replace(target=state.online)
        noise = draw(parts, state.online, key, steps.reward.size // minibatches)
        inputs = functools.partial(parts.observations.inputs, state.observations)

        def bootstrap(steps: Step) -> Bootstrapped:
            single = jax.tree.map(lambda leaf: leaf[None], steps)
            transition = fold(single, gamma=hparams.gamma, scale=hparams.reward_scale, clip=hparams.reward_clip)
            transition = transition._replace(obs=inputs(transition.obs), next_obs=inputs(transition.next_obs))
            return bootstrapped(parts, hparams, valued, transition, noise)

        values = kernels.in_parts(bootstrap, jax.tree.map(flat, steps), minibatches)  # as large as in a gradient step
        values = jax.tree.map(lambda leaf: leaf.reshape(*steps.reward.shape, *leaf.shape[1:]), values)
        return lambda_returns(parts.head, hparams, values, steps.truncated | steps.terminated)

    def sync(hparams: HParams, state: LearnerState) -> LearnerState:
        return learner.sync(hparams, state) if target_network else state

    draws = LearnDraws(
        shapes=((epochs, steps), (2,), (updates, 2)),
        read=lambda order, target_key, keys: RolloutDraws(order, as_keys(target_key), as_keys(keys)),
    )
    acting = make_acting(learner, parts.num_actions, precision)
    return Algorithm(
        init,
        learner.policy,
        acting.act,
        acting.values,
        observe,
        jax.default_matmul_precision(precision)(learn),
        sync,
        draws,
    )


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


def flat(leaf: Array) -> Array:
    """[T, E, ...] -> [T * E, ...]."""
    return leaf.reshape(-1, *leaf.shape[2:])
