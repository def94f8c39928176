"""Acting of all algorithms of the family: greedy by Q-values, or a random action with probability epsilon."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.core.algorithm import ActorView, greedy, no_memory
from purejaxdqn.core.config import HParams
from purejaxdqn.core.draws import ActDraws, random_action
from purejaxdqn.core.schedules import Clock
from purejaxdqn.core.types import Array, Params
from purejaxdqn.dqn.learner import Learner, Recall


class Acting(NamedTuple):
    """Three functions of ``core.algorithm.Algorithm``."""

    act: Callable[[HParams, Params, ActorView, ActDraws, Clock], tuple[Array, Any]]
    values: Callable[[HParams, Params, ActorView], tuple[Array, Any]]
    memory: Callable[[int], Any]


def make_acting(learner: Learner, num_actions: int, precision: str) -> Acting:
    """Epsilon-greedy acting (Sutton and Barto 2018, section 2.2), with fresh noise where the network has noisy layers.

    Args:
      learner: whose Q-values are greedily acted on.
      num_actions: A.
      precision: of matrix products: ``default``, ``high`` or ``highest``.
    """
    # Set in every trace: on a GPU the default precision of matrix products may be TF32.
    q_values = jax.default_matmul_precision(precision)(learner.q_values)

    def recalled(hparams: HParams, policy: Params, view: ActorView, key: Array | None) -> tuple[Array, Any]:
        """Q-values [E, A], and what the actors remember from now on: as sequences of one step."""
        recall = Recall(view.memory, jax.tree.map(lambda leaf: leaf[None], view.start))
        out, carries = q_values(hparams, policy, view.obs, key, recall)
        return out, jax.tree.map(lambda leaf: leaf[0], carries)

    def act(hparams: HParams, policy: Params, view: ActorView, draws: ActDraws, clock: Clock) -> tuple[Array, Any]:
        found, memory = recalled(hparams, policy, view, draws.key)
        return explore(found, view, draws, clock, num_actions), memory

    def values(hparams: HParams, policy: Params, view: ActorView) -> tuple[Array, Any]:
        return recalled(hparams, policy, view, None)

    return Acting(act, values, learner.memory.carry if learner.memory else no_memory)


def explore(q_values: Array, view: ActorView, draws: ActDraws, clock: Clock, num_actions: int) -> Array:
    """Epsilon-greedy actions [E] by Q-values [E, A]."""
    random = random_action(draws.choice, view.legal, num_actions)
    return jnp.where(draws.explore < clock.epsilon(), random, greedy(q_values, view.legal))
