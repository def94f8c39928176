"""Replay: what is remembered of the steps and how it is drawn again. The only file that imports flashbax.

A ring holds the last steps as they were taken. What an update gets of them is two choices, neither of which knows
the other: how many steps a transition spans (``fold``), and which are drawn (``uniform``, ``prioritised``).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flashbax
import jax
import jax.numpy as jnp
import numpy as np

from purejaxdqn.core.types import Array, Batch, HParams, Step, Transition
from purejaxdqn.dqn.sum_tree import make_sum_tree


class Replay(NamedTuple):
    """A buffer as pure functions; its state is one pytree, updated in place where it is donated."""

    init: Callable[[Array], Any]  # an observation [O] as an example -> empty state
    add: Callable[[HParams, Any, Step], Any]  # state, steps with leaves [T, E, ...] -> state
    sample: Callable[[HParams, Any, Array, Array], Batch]  # state, bits uint32[B], env_step[] -> Batch
    reprioritise: Callable[[HParams, Any, Array, Array], Any]  # state, indices[B], TD error[B] -> state


class Ring(NamedTuple):
    """The last ``size`` steps, one a row, in the order [T, E]: an environment's next step lies E rows further.

    A row is a candidate once the n steps from it on are in; the newest (n - 1) * E rows wait for theirs.
    """

    size: int
    waiting: int  # (n - 1) * E
    init: Callable[[Array], Any]  # an observation [O] as an example -> empty state
    add: Callable[[Any, Step], Any]  # state, steps with leaves [T, E, ...] -> state
    candidates: Callable[[Any], tuple[Array, Array]]  # state -> the oldest's row [], how many follow each other []
    transitions: Callable[[HParams, Any, Array], tuple[Array, Transition]]  # rows[B], to wrap -> wrapped, leaves [B]


def make_replay(*, kind: str, size: int, n_step: int, num_envs: int, warmup: int) -> Replay:
    """The replay called ``kind``, uniform or prioritised, of the last ``size`` steps, as ``n_step`` transitions.

    Sampling is not noticed to be too early: until batch size + (n_step - 1) * num_envs steps are in, do not.

    Args:
      kind: uniform or prioritised.
      size: environment steps held.
      n_step: environment steps that a transition spans, fewer at an episode's end.
      num_envs: environments that every block of steps has.
      warmup: environment steps before the first update; from then on beta is annealed.
    """
    ring = _make_ring(size=size, n_step=n_step, num_envs=num_envs)
    match kind:
        case "uniform":
            return _uniform(ring)
        case "prioritised":
            return _prioritised(ring, warmup=warmup)
        case _:
            raise ValueError(f"replay is uniform or prioritised, not {kind!r}")


def fold(steps: Step, *, gamma: Array, scale: Array, clip: Array) -> Transition:
    """Make one transition, leaves [...], of n steps of one environment, leaves [n, ...].

    The reward is that of Hessel et al. 2018 (section 3), its terms scaled and then clipped one by one. The sum ends
    with the first step that terminated or was truncated, so it never runs on into the next episode. Only a termination
    leaves no future; after a time limit the last observation is still valued (Pardo et al. 2018).
    """
    rewards = jnp.clip(scale * steps.reward, -clip, clip)
    reward, discount, terminated, next_obs = rewards[0], gamma, steps.terminated[0], steps.next_obs[0]
    going: Any = True
    for k in range(1, len(rewards)):
        going = going & ~(steps.terminated[k - 1] | steps.truncated[k - 1])
        reward = jnp.where(going, reward + discount * rewards[k], reward)
        discount = jnp.where(going, discount * gamma, discount)
        terminated = jnp.where(going, steps.terminated[k], terminated)
        whole = going.reshape(going.shape + (1,) * (next_obs.ndim - going.ndim))
        next_obs = jnp.where(whole, steps.next_obs[k], next_obs)
    return Transition(steps.obs[0], steps.action[0], reward, jnp.where(terminated, 0.0, discount), next_obs)


def annealed_beta(hparams: HParams, env_step: Array, *, warmup: int) -> Array:
    """Exponent of the importance weights: from ``priority_beta`` when learning begins to 1 at the horizon."""
    progress = (env_step - warmup) / jnp.maximum(hparams.horizon - warmup, 1.0)
    return hparams.priority_beta + (1.0 - hparams.priority_beta) * jnp.clip(progress, 0.0, 1.0)


def _make_ring(*, size: int, n_step: int, num_envs: int) -> Ring:
    buffer = flashbax.make_item_buffer(max_length=size, min_length=1, sample_batch_size=1, add_batches=True)
    waiting = (n_step - 1) * num_envs

    def init(obs: Array) -> Any:
        state = buffer.init(Step(obs, jnp.int32(0), jnp.float32(0), jnp.bool_(False), jnp.bool_(False), obs))
        return state.replace(current_index=jnp.int32(0))  # flashbax's is weakly typed: it would not stay so

    def add(state: Any, steps: Step) -> Any:
        if steps.reward.shape[1] != num_envs:
            raise ValueError(f"steps of {steps.reward.shape[1]} environments for a replay of {num_envs}")
        return buffer.add(state, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps))

    def candidates(state: Any) -> tuple[Array, Array]:
        oldest = jnp.where(state.is_full, state.current_index, 0)
        return oldest, jnp.where(state.is_full, size, state.current_index) - waiting

    def transitions(hparams: HParams, state: Any, rows: Array) -> tuple[Array, Transition]:
        rows = (rows + num_envs * jnp.arange(n_step)[:, None]) % size
        held = state.experience
        # Row numbers stand for what is fetched only where it comes out: once, not n times.
        folded = fold(
            Step(rows, rows, held.reward[0, rows], held.terminated[0, rows], held.truncated[0, rows], next_obs=rows),
            gamma=hparams.gamma,
            scale=hparams.reward_scale,
            clip=hparams.reward_clip,
        )
        obs, action = held.obs[0, folded.obs], held.action[0, folded.action]
        return rows[0], folded._replace(obs=obs, action=action, next_obs=held.next_obs[0, folded.next_obs])

    return Ring(size, waiting, init, add, candidates, transitions)


def _uniform(ring: Ring) -> Replay:
    """Each candidate as likely as any other, with replacement (Lin 1992; Mnih et al. 2015).

    A candidate is bits modulo their number, which favours none by more than size / 2^32.
    """

    def add(hparams: HParams, state: Any, steps: Step) -> Any:
        return ring.add(state, steps)

    def sample(hparams: HParams, state: Any, bits: Array, env_step: Array) -> Batch:
        oldest, count = ring.candidates(state)
        drawn = (bits % count.astype(jnp.uint32)).astype(jnp.int32)
        indices, transition = ring.transitions(hparams, state, oldest + drawn)
        return Batch(transition, weight=jnp.ones(bits.shape), indices=indices)

    def reprioritise(hparams: HParams, state: Any, indices: Array, td_error: Array) -> Any:
        return state

    return Replay(ring.init, add, sample, reprioritise)


class PrioritisedState(NamedTuple):
    """The state of prioritised replay."""

    ring: Any  # the steps, as uniform replay keeps them
    tree: Array  # sum tree of each row's priority to the power of alpha; 0 for what is no candidate
    max_priority: Array  # [] float32, the largest priority there ever was


_SMALLEST_PRIORITY = 1e-6  # so that what was learnt perfectly is seen again


def _prioritised(ring: Ring, *, warmup: int) -> Replay:
    """Each candidate as likely as its last TD error was large (Schaul et al. 2016, proportional variant, algorithm 1).

    P(i) = p_i^alpha / sum_k p_k^alpha, p_i = |TD error| + 1e-6; a new candidate gets the largest p there was. Item i of
    a batch is drawn from the i-th of B equal shares of the sum (appendix B.2.1). Weights are (N P(i))^-beta over the
    largest of the batch, N the number of candidates.
    """
    sum_tree = make_sum_tree(ring.size)

    def init(obs: Array) -> PrioritisedState:
        return PrioritisedState(ring.init(obs), sum_tree.init(), jnp.float32(1))

    def add(hparams: HParams, state: PrioritisedState, steps: Step) -> PrioritisedState:
        """As new steps come in, the oldest rows that wait become candidates, and the newest wait in their place."""
        block = steps.reward.size
        # What lies a whole ring before the newest row is overwritten, and the row's entry is the newer step's.
        offsets = np.arange(max(-ring.waiting, block - ring.size), block)  # 0 is the block's first row
        rows = state.ring.current_index + offsets
        candidate = (offsets < block - ring.waiting) & (state.ring.is_full | (rows >= 0))
        priorities = jnp.where(candidate, state.max_priority**hparams.priority_alpha, 0.0)
        tree = sum_tree.set(state.tree, rows % ring.size, priorities)
        return PrioritisedState(ring.add(state.ring, steps), tree, state.max_priority)

    def sample(hparams: HParams, state: PrioritisedState, bits: Array, env_step: Array) -> Batch:
        share = (bits >> 8).astype(jnp.float32) * jnp.float32(2**-24)
        drawn = sum_tree.sample(state.tree, (jnp.arange(bits.size) + share) / bits.size)
        indices, transition = ring.transitions(hparams, state.ring, drawn)
        priorities = jnp.maximum(sum_tree.get(state.tree, indices), jnp.finfo(jnp.float32).tiny)
        # N and the sum stand in every weight and so in the largest, that of the smallest priority: they cancel.
        weight = (jnp.min(priorities) / priorities) ** annealed_beta(hparams, env_step, warmup=warmup)
        # Always so. It makes ``reprioritise`` wait until the priorities are read: free to write first, XLA copies the
        # whole tree in every update.
        indices = jnp.where(weight >= 0.0, indices, 0)
        return Batch(transition, weight=weight, indices=indices)

    def reprioritise(hparams: HParams, state: PrioritisedState, indices: Array, td_error: Array) -> PrioritisedState:
        priorities = jnp.abs(td_error) + _SMALLEST_PRIORITY
        tree = sum_tree.set(state.tree, indices, priorities**hparams.priority_alpha)
        return PrioritisedState(state.ring, tree, jnp.maximum(state.max_priority, jnp.max(priorities)))

    return Replay(init, add, sample, reprioritise)
