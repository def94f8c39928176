"""DQN with replay as an ``Algorithm``: remember each rollout, then sample, update and reprioritise."""

from typing import Any, NamedTuple

import jax

from purejaxdqn.core.algorithm import Algorithm, mean
from purejaxdqn.core.config import HParams
from purejaxdqn.core.draws import LearnDraws
from purejaxdqn.core.keys import keys_of
from purejaxdqn.core.schedules import Clock
from purejaxdqn.core.types import Array, Params, Rollout, UpdateStats
from purejaxdqn.dqn.acting import make_acting
from purejaxdqn.dqn.learner import Learner, Parts, make_learner
from purejaxdqn.dqn.memory import restarted
from purejaxdqn.dqn.replay import Replay, checked_replay, example_step


class OffPolicyState(NamedTuple):
    """All that an off-policy algorithm remembers."""

    learner: Any  # the state of a ``Learner``
    replay: Any  # the state of a ``Replay``


class UpdateDraws(NamedTuple):
    """What G gradient steps consume."""

    sample: Array  # [G, B] uint32, for ``Replay.sample``
    key: Array  # [G] PRNG keys, for ``Learner.update``


def off_policy(
    parts: Parts,
    replay: Replay,
    *,
    batch_size: int,
    gradient_steps: int,
    precision: str,
    learner: Learner | None = None,
) -> Algorithm:
    """Q-learning from replay (Mnih et al. 2015, algorithm 1) with any parts of the family.

    Args:
      parts: head, bootstrap, network, optimiser and observations.
      replay: what is remembered.
      batch_size: B, transitions of a gradient step, or sequences of a network with a memory.
      gradient_steps: G, in each iteration.
      precision: of matrix products: ``default``, ``high`` or ``highest``.
      learner: what learns; made of the parts unless given.
    """
    learner = learner or make_learner(parts)
    step = example_step(parts.example[0], parts.num_actions, some_illegal=parts.some_illegal)
    replay = checked_replay(replay, step, sequences=learner.memory is not None)
    update = jax.default_matmul_precision(precision)(learner.update)

    def init(hparams: HParams, key: Array) -> OffPolicyState:
        example = step if learner.memory is None else Rollout(step, learner.memory.carry(1))
        return OffPolicyState(learner.init(hparams, key), replay.init(example))

    def policy(state: OffPolicyState) -> Params:
        return learner.policy(state.learner)

    def observe(hparams: HParams, state: OffPolicyState, rollout: Rollout) -> OffPolicyState:
        seen = learner.observe(state.learner, rollout.steps.obs.reshape(-1, *parts.example.shape[1:]))
        if learner.memory is None:
            return OffPolicyState(seen, replay.add(hparams, state.replay, rollout.steps))
        fresh = restarted(learner.memory, rollout.memory, rollout.start[0])
        return OffPolicyState(seen, replay.add(hparams, state.replay, rollout._replace(memory=fresh)))

    def learn(
        hparams: HParams, state: OffPolicyState, rollout: Rollout, draws: UpdateDraws, clock: Clock
    ) -> tuple[Any, UpdateStats]:
        def gradient_step(state: OffPolicyState, draws: UpdateDraws) -> tuple[OffPolicyState, UpdateStats]:
            batch = replay.sample(hparams, state.replay, draws.sample, clock.beta)
            learned, td_error, stats = update(hparams, state.learner, batch, draws.key, clock.learning_rate())
            return OffPolicyState(learned, replay.reprioritise(hparams, state.replay, batch.indices, td_error)), stats

        state, stats = jax.lax.scan(gradient_step, observe(hparams, state, rollout), draws)
        return state, mean(stats)

    def sync(hparams: HParams, state: OffPolicyState) -> OffPolicyState:
        return state._replace(learner=learner.sync(hparams, state.learner))

    draws = LearnDraws(
        shapes=((gradient_steps, batch_size), (gradient_steps, 2)),
        read=lambda sample, key: UpdateDraws(sample, keys_of(key)),
    )
    acting = make_acting(learner, parts.num_actions, precision)
    return Algorithm(init, policy, acting.act, acting.values, observe, learn, sync, draws, acting.memory)
