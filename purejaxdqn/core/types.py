"""The records that cross files.

Letters for shapes: B batch, E environments, T steps of a rollout, G gradient steps of an iteration,
A actions, O observation shape, K atoms or quantiles, N evaluation episodes. Every record here is a pytree
of arrays; what is static lives in ``config``.
"""

from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Params = Any  # the pytree of a network's parameters


class HParams(NamedTuple):
    """The numbers of a run: traced, so changing one changes no program and ``vmap`` runs over them.

    ``Config.hparams()`` makes one; a field may carry leading axes where a caller maps over it.
    """

    gamma: Any  # [] discount per environment step
    learning_rate: Any  # []
    optimizer_eps: Any  # [] added to the root of the second moment, by RMSProp under the root
    max_grad_norm: Any  # [] global norm that gradients are scaled down to; inf leaves them as they are
    reward_scale: Any  # [] rewards are multiplied by it before clipping
    reward_clip: Any  # [] rewards are clipped to [-reward_clip, reward_clip]; inf leaves them
    epsilon_start: Any  # [] chance of a random action when learning begins
    epsilon_end: Any  # [] ... and once the decay is over
    epsilon_fraction: Any  # [] length of the decay as a share of the horizon
    tau: Any  # [] share of the online network that a sync moves into the target; 1 copies
    v_min: Any  # [] lowest return of a categorical distribution's support
    v_max: Any  # [] ... and its highest
    kappa: Any  # [] where the quantile loss turns from square to linear
    risk_level: Any  # [] parameter of the risk distortion
    fraction_rate: Any  # [] learning rate of proposed fractions, as a share of learning_rate
    munchausen_alpha: Any  # [] weight of the log-policy in the reward
    munchausen_temperature: Any  # [] of the softmax policy
    munchausen_clip: Any  # [] lowest value of temperature * log-policy, at most 0
    sigma: Any  # [] initial noise of noisy layers, before division by the root of their inputs
    priority_alpha: Any  # [] exponent of priorities; 0 samples uniformly
    priority_beta: Any  # [] exponent of importance weights when learning begins; it ends at 1
    horizon: Any  # [] environment steps that the schedules take for the whole run
    env_params: dict[str, Any]  # [] each: the environment's own parameters that the config sets


class Step(NamedTuple):
    """What happened in one environment step; replay keeps these. ``next_obs`` is the true one, before any reset."""

    obs: Array  # [..., O]
    action: Array  # [...] int32
    reward: Array  # [...] float32
    terminated: Array  # [...] bool: the episode ended in a state without a future
    truncated: Array  # [...] bool: the episode was cut off by a time limit
    next_obs: Array  # [..., O]


class Transition(NamedTuple):
    """m steps of one episode as an update takes them; m is n, or less where the episode ended before."""

    obs: Array  # [..., O] where the first step began
    action: Array  # [...] int32, of the first step
    reward: Array  # [...] float32: sum over k < m of gamma^k times the k-th reward, scaled and clipped
    discount: Array  # [...] float32: gamma^m, or 0 after a termination
    next_obs: Array  # [..., O] where the last step led


class Batch(NamedTuple):
    """Transitions sampled from replay."""

    transition: Transition  # leaves [B, ...]
    weight: Array  # [B] importance weight; 1 under uniform sampling
    indices: Array  # [B] int32 place in the buffer, for ``Replay.reprioritise``


class Quantiles(NamedTuple):
    """Distributions of returns by their quantile functions: values at fractions, and what each weighs in the mean."""

    values: Array  # [B, A, K]
    fractions: Array  # [B, K] or [K], in (0, 1)
    widths: Array  # [B, K] or [K], sum 1
    edges: Array | None = None  # [B, K - 1] the fractions between, where a network proposes them
    edge_values: Array | None = None  # [B, A, K - 1]


class LearnerState(NamedTuple):
    """All that learning changes."""

    online: Params
    target: Params
    opt_state: Any
    observations: Any  # running statistics of what was seen; () unless observations are normalised


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


class RunnerState(NamedTuple):
    """Everything a run carries: with the hyper-parameters, all that its future depends on."""

    learner: LearnerState
    actors: ActorState
    replay: Any  # the state of a ``Replay``
    key: Array  # [] PRNG key


class UpdateStats(NamedTuple):
    """Means over a batch, before the update."""

    loss: Array  # []
    q_value: Array  # [] of the actions taken
    grad_norm: Array  # [] global norm before clipping


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


class Result(NamedTuple):
    """What a finished run leaves."""

    params: Params  # what acting takes: the online network
    rows: EpochRow  # leaves [epochs, ...]
    final_returns: Array  # [N] greedy returns of the final parameters


class Network(Protocol):
    """A user's own network: a ``flax.linen`` module, or anything else with these two methods."""

    def init(self, key: Array, obs: Array, /) -> Params:
        """Draw parameters; ``obs`` [1, O] is an example of an observation."""

    def apply(self, params: Params, obs: Array, /) -> Array:
        """Of observations [B, O]: Q-values [B, A], or what each action's distribution needs, [B, A, K]."""
