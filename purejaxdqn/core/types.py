"""The records that several files share: pytrees of arrays.

Letters for shapes: E environments, T steps of a rollout, A actions, O observation shape, N evaluation episodes. What
is static lives in ``config``;
the two records of functions that the loop knows are ``environment.Environment`` and ``algorithm.Algorithm``.
An optional part that is off is ``()``: it has no arrays, and costs nothing.
"""

from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Params = Any  # the pytree of a network's parameters


class Step(NamedTuple):
    """One environment step; replay keeps these. ``next_obs`` is the true one, before any reset."""

    obs: Array  # [..., O]
    action: Array  # [...] int32
    reward: Array  # [...] float32
    terminated: Array  # [...] bool: the episode ended in a state without a future
    truncated: Array  # [...] bool: the episode was cut off by a time limit
    next_obs: Array  # [..., O]
    legal: Any = ()  # [..., A] bool: the actions that were legal at ``obs``; () where all always are
    next_legal: Any = ()  # ... at ``next_obs``


class Rollout(NamedTuple):
    """T steps of E environments under one policy."""

    steps: Step  # leaves [T, E, ...]
    memory: Any = ()  # leaves [E, ...]: what the actors remembered before the first step; () without a memory
    start: Any = ()  # [T, E] bool: a step is the first of its episode; () without a memory
    weight: Any = ()  # [T, E] float32: of the steps' losses; () where each is 1


class EpisodeStats(NamedTuple):
    """Running totals per environment; the sums cover the episodes that finished in this epoch."""

    episode_return: Array  # [E] float32, of the episode under way
    episode_length: Array  # [E] int32, of the episode under way
    finished: Array  # [E] int32
    return_sum: Array  # [E] float32
    length_sum: Array  # [E] int32


class ActorState(NamedTuple):
    """All that acting changes."""

    env_state: Any  # leaves [E, ...]
    obs: Array  # [E, O]
    episodes: EpisodeStats
    env_step: Array  # [] int32 over all environments, warm-up included
    memory: Any = ()  # leaves [E, ...]: what the algorithm's actors remember between steps; () without a memory
    start: Array | tuple = ()  # [E] bool: ``obs`` is the first of its episode; () without a memory


class RunnerState(NamedTuple):
    """Everything a run carries: with the hyper-parameters, all that its future depends on."""

    algorithm: Any  # the state of an ``Algorithm``
    actors: ActorState
    key: Array  # [] PRNG key


class UpdateStats(NamedTuple):
    """Means over a batch, before the update."""

    loss: Array  # []
    q_value: Array  # [] of the actions taken
    grad_norm: Array  # [] global norm before clipping
    disagreement: Any = ()  # [] deviation of the members' values of greedy actions; () without an ensemble


class EpochRow(NamedTuple):
    """One epoch's metrics."""

    env_step: Array  # [] int32 at the epoch's end
    episodes: Array  # [] int32 finished in the epoch
    episode_return: Array  # [] mean over those, NaN where there were none
    episode_length: Array  # [] likewise
    eval_returns: Array  # [N] greedy returns at the epoch's end
    loss: Array  # [] mean over the epoch's updates
    q_value: Array  # [] likewise
    epsilon: Array  # [] at the epoch's end
    grad_norm: Array  # [] mean over the epoch's updates
    disagreement: Any = ()  # [] likewise; () without an ensemble


class Result(NamedTuple):
    """The result of a finished run."""

    params: Params  # the policy: what is needed to act greedily
    rows: EpochRow  # leaves [epochs, ...]
    final_returns: Array  # [N] greedy returns of the final parameters


class Network(Protocol):
    """A Q-network of your own: a ``flax.linen`` module, or anything else with these two methods."""

    def init(self, key: Array, obs: Array, /) -> Params:
        """Draw parameters; ``obs`` [1, O] is an example of an observation."""

    def apply(self, params: Params, obs: Array, /) -> Array:
        """Map observations [B, O] to Q-values [B, A], or to the K numbers of each action's distribution, [B, A, K]."""
