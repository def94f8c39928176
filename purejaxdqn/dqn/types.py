"""The records of learning that several files share: pytrees of arrays.

Letters for shapes: B batch, L transitions of a sequence, A actions, O observation shape, K atoms or quantiles.
"""

from typing import Any, NamedTuple

from purejaxdqn.core.types import Array


class Transition(NamedTuple):
    """m steps of one episode, as an update takes them; m is n, or less where the episode ended earlier."""

    obs: Array  # [..., O] where the first step began
    action: Array  # [...] int32, of the first step
    reward: Array  # [...] float32: sum over k < m of gamma^k times the k-th reward, scaled and clipped
    discount: Array  # [...] float32: gamma^m, or 0 after a termination
    next_obs: Array  # [..., O] after the last step
    legal: Any = ()  # as in ``Step``
    next_legal: Any = ()


class Sequence(NamedTuple):
    """For B sequences of L transitions each: what brings the network's memory to the first transition."""

    burn_in: Array  # [l, B, O] the observations before the transitions
    carry: Any  # leaves [B, ...]: what the actor carried into the first of those, or of the transitions where l is 0
    start: Array  # [l + L, B] bool: a step is the first of its episode, and ``carry`` is that of another
    after: Array  # [L, B] int32: the last step of a transition, counted from the first transition on


class Batch(NamedTuple):
    """Transitions sampled from replay, or sequences of them for a network with a memory."""

    transition: Transition  # leaves [B, ...]; of sequences [L, B, ...]
    weight: Array  # [B] importance weight; 1 under uniform sampling
    indices: Array  # [B] int32 place in the buffer, for ``Replay.reprioritise``
    sequence: Sequence | tuple = ()  # () for single transitions


class Quantiles(NamedTuple):
    """Distributions of returns by their quantile functions: values at fractions, and the weight of each in the mean."""

    values: Array  # [B, A, K]
    fractions: Array  # [B, K] or [K], in (0, 1)
    widths: Array  # [B, K] or [K], sum 1
    edges: Array | None = None  # [B, K - 1] the boundaries between intervals, where a network proposes fractions
    edge_values: Array | None = None  # [B, A, K - 1]
