"""Bootstraps: the policy whose value at the next observation the target takes, and what it adds to the reward.

    target = reward + bonus + discount * (sum_a policy(a) Z(next_obs, a) + entropy)

A bootstrap gets Q-values as functions without arguments, so that what it does not ask for is never traced.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.core.types import Array, HParams


class Known(NamedTuple):
    """What a bootstrap may ask for."""

    target_next: Callable[[], Array]  # Q-values [B, A] of the target network at next_obs
    online_next: Callable[[], Array]  # ... of the online network
    target_now: Callable[[], Array]  # ... of the target network at obs
    action: Array  # [B] taken at obs


class Backup(NamedTuple):
    """What a target is made of."""

    policy: Array  # [B, A]
    bonus: Array | float = 0.0  # [B]
    entropy: Array | float = 0.0  # [B], in units of reward


Bootstrap = Callable[[HParams, Known], Backup]


def greedy(hparams: HParams, known: Known) -> Backup:
    """The target network's own best action (Mnih et al. 2015, eq. 2)."""
    return Backup(_best(known.target_next()))


def double(hparams: HParams, known: Known) -> Backup:
    """The online network's best action, valued by the target network (van Hasselt et al. 2016, eq. 4)."""
    return Backup(_best(known.online_next()))


def munchausen(hparams: HParams, known: Known) -> Backup:
    """The softmax policy of the target network, its entropy, and the log-policy of the action taken as a bonus.

    With t the temperature, policy = softmax(q / t), bonus = alpha * clip(t log policy(action | obs), clip, 0) and
    entropy = -sum_a policy(a) t log policy(a) at next_obs (Vieillard et al. 2020, eq. 2 and section 4).

    Two combinations are not in the paper. Over n steps the bonus is that of the first action alone,
    reward = sum_k gamma^k r_k + bonus(obs, action), and the soft value stands after the last step. A categorical
    distribution takes the mixture of the actions' distributions, sum_a policy(a) p(. | next_obs, a), shifted by
    bonus and entropy before it is projected; quantiles are averaged over actions at equal fractions, as in the paper.
    """
    temperature = hparams.munchausen_temperature
    next_log_policy = _scaled_log_softmax(known.target_next(), temperature)
    policy = jnp.exp(next_log_policy / temperature)
    now = _scaled_log_softmax(known.target_now(), temperature)
    taken = jnp.take_along_axis(now, known.action[:, None], axis=-1)[:, 0]
    bonus = hparams.munchausen_alpha * jnp.clip(taken, hparams.munchausen_clip, 0.0)
    return Backup(policy, bonus, entropy=-jnp.sum(policy * next_log_policy, axis=-1))


def make_bootstrap(kind: str) -> Bootstrap:
    """The bootstrap called ``kind``: greedy, double or munchausen."""
    match kind:
        case "greedy":
            return greedy
        case "double":
            return double
        case "munchausen":
            return munchausen
        case _:
            raise ValueError(f"bootstrap is greedy, double or munchausen, not {kind!r}")


def _best(q_values: Array) -> Array:
    return jax.nn.one_hot(jnp.argmax(q_values, axis=-1), q_values.shape[-1], dtype=q_values.dtype)


def _scaled_log_softmax(q_values: Array, temperature: Array) -> Array:
    """Temperature times the log of softmax(q_values / temperature), stable for small temperatures (appendix B.1)."""
    advantage = q_values - jnp.max(q_values, axis=-1, keepdims=True)
    return advantage - temperature * jax.nn.logsumexp(advantage / temperature, axis=-1, keepdims=True)
