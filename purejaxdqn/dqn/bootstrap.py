"""Bootstraps: the policy whose value at the next observation is the target's, and what it adds to the reward.

    target = reward + bonus + discount * (sum_a policy(a) Z(next_obs, a) + entropy)

A bootstrap gets Q-values as functions without arguments, so that values that it does not read are never traced.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.core.choices import Axis, Choice, Fault
from purejaxdqn.core.config import Config, HParams
from purejaxdqn.core.types import Array


class Estimates(NamedTuple):
    """What a bootstrap may read. The Q-values of illegal actions are lower than all others (``algorithm.masked``)."""

    target_next: Callable[[], Array]  # -> Q-values [B, A] of the target network at next_obs
    online_next: Callable[[], Array]  # -> ... of the online network
    target_now: Callable[[], Array]  # -> ... of the target network at obs
    action: Array  # [B] taken at obs


class Backup(NamedTuple):
    """The parts of a target that a bootstrap chooses."""

    policy: Array  # [B, A]
    bonus: Array | float = 0.0  # [B]
    entropy: Array | float = 0.0  # [B], in units of reward


Bootstrap = Callable[[HParams, Estimates], Backup]


def greedy(hparams: HParams, estimates: Estimates) -> Backup:
    """The target network's own best action (Mnih et al. 2015, eq. 2)."""
    return Backup(_best(estimates.target_next()))


def double(hparams: HParams, estimates: Estimates) -> Backup:
    """The online network's best action, valued by the target network (van Hasselt et al. 2016, eq. 4)."""
    return Backup(_best(estimates.online_next()))


def munchausen(hparams: HParams, estimates: Estimates) -> Backup:
    """The softmax policy of the target network, its entropy, and the log-policy of the action taken as a bonus.

    With t the temperature, policy = softmax(q / t), bonus = alpha * clip(t log policy(action | obs), clip, 0) and
    entropy = -sum_a policy(a) t log policy(a) at next_obs (Vieillard et al. 2020, eq. 2 and section 4).

    The paper does not define two combinations. Over n steps only the first action gives a bonus,
    reward = sum_k gamma^k r_k + bonus(obs, action), and the soft value is that of the observation after the last step.
    A categorical distribution takes the mixture of the actions' distributions, sum_a policy(a) p(. | next_obs, a),
    shifted by bonus and entropy before it is projected; quantiles are averaged over actions at equal fractions, as in
    the paper.
    """
    temperature = hparams.bootstrap_temperature
    next_log_policy = _scaled_log_softmax(estimates.target_next(), temperature)
    policy = jnp.exp(next_log_policy / temperature)
    now = _scaled_log_softmax(estimates.target_now(), temperature)
    taken = jnp.take_along_axis(now, estimates.action[:, None], axis=-1)[:, 0]
    bonus = hparams.bootstrap_alpha * jnp.clip(taken, hparams.bootstrap_clip, 0.0)
    return Backup(policy, bonus, entropy=-jnp.sum(policy * next_log_policy, axis=-1))


def _best(q_values: Array) -> Array:
    return jax.nn.one_hot(jnp.argmax(q_values, axis=-1), q_values.shape[-1], dtype=q_values.dtype)


def _scaled_log_softmax(q_values: Array, temperature: Array) -> Array:
    """Temperature times the log of softmax(q_values / temperature), stable for small temperatures (appendix B.1)."""
    advantage = q_values - jnp.max(q_values, axis=-1, keepdims=True)
    return advantage - temperature * jax.nn.logsumexp(advantage / temperature, axis=-1, keepdims=True)


def _munchausen_faults(config: Config) -> Iterator[Fault]:
    if config.bootstrap.temperature < 1e-6:
        message = f"{config.bootstrap.temperature:g} is too small for float32"
        yield Fault("bootstrap.temperature", message, ("bootstrap.kind",))


BOOTSTRAPS = Axis(
    "bootstrap.kind",
    {
        "greedy": Choice(lambda config: greedy),
        "double": Choice(lambda config: double),
        "munchausen": Choice(
            lambda config: munchausen,
            keys=("bootstrap.alpha", "bootstrap.temperature", "bootstrap.clip"),
            faults=_munchausen_faults,
        ),
    },
)
