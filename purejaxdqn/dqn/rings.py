"""Ring buffers of environment steps, from which transitions of n steps or sequences are read."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxdqn.core.config import HParams
from purejaxdqn.core.types import Array, Rollout, Step
from purejaxdqn.dqn.rows import Rows, make_buffer
from purejaxdqn.dqn.types import Sequence, Transition


class Ring(NamedTuple):
    """The last steps, one a row, in the order [T, E]: an environment's next step lies E rows further.

    A transition or a sequence begins at one of ``size`` places. A place is a candidate, which may be sampled, from when
    all of its steps are stored until the first of them is overwritten. Candidates follow each other, modulo ``size``.
    """

    size: int
    init: Callable[[Any], Any]  # an example of what ``add`` takes -> empty state
    add: Callable[[Any, Any], Any]  # state, steps with leaves [T, E, ...] -> state
    candidates: Callable[[Any], tuple[Array, Array]]  # state -> place of the oldest [], number of candidates []
    changes: Callable[[Any, Any], tuple[Array, Array]]
    # state, what is added next -> places [N] whose status this changes, whether they are candidates then [N] bool
    transitions: Callable[[HParams, Any, Array], tuple[Array, Transition, Any]]
    # places[B] -> places modulo size, leaves [B, ...], (); or of sequences: leaves [L, B, ...], ``Sequence``


def fold(steps: Step, *, gamma: Array, scale: Array, clip: Array) -> Transition:
    """Make one transition, leaves [...], of n steps of one environment, leaves [n, ...].

    The reward is that of Hessel et al. 2018 (section 3), its terms scaled and then clipped one by one. The sum ends
    with the first step that terminated or was truncated, so it never includes rewards of the next episode. Only a
    termination has no future; after a truncation the last observation is still valued (Pardo et al. 2018).
    """
    rewards = jnp.clip(scale * steps.reward, -clip, clip)
    reward, discount, terminated = rewards[0], gamma, steps.terminated[0]
    after = jax.tree.map(lambda leaf: leaf[0], (steps.next_obs, steps.next_legal))
    going: Any = True

    def later(after: Array, leaf: Array) -> Array:
        return jnp.where(going.reshape(going.shape + (1,) * (after.ndim - going.ndim)), leaf[k], after)

    for k in range(1, len(rewards)):
        going = going & ~(steps.terminated[k - 1] | steps.truncated[k - 1])
        reward = jnp.where(going, reward + discount * rewards[k], reward)
        discount = jnp.where(going, discount * gamma, discount)
        terminated = jnp.where(going, steps.terminated[k], terminated)
        after = jax.tree.map(later, after, (steps.next_obs, steps.next_legal))
    obs, action, legal = jax.tree.map(lambda leaf: leaf[0], (steps.obs, steps.action, steps.legal))
    next_obs, next_legal = after
    discount = jnp.where(terminated, 0.0, discount)
    return Transition(obs, action, reward, discount, next_obs, legal, next_legal)


def _folded(hparams: HParams, state: Rows, rows: Array, truncated: Array) -> tuple[Array, Array, Transition]:
    """Transitions [...] of n rows [n, ...] of one environment, and the rows of their first and last step."""
    held = state.experience
    # Row numbers take the place of all that is only passed on, which is then fetched once and not n times.
    folded = fold(
        Step(rows, rows, held.reward[0, rows], held.terminated[0, rows], truncated, next_obs=rows),
        gamma=hparams.gamma,
        scale=hparams.reward_scale,
        clip=hparams.reward_clip,
    )
    first, last = folded.obs, folded.next_obs
    return (
        first,
        last,
        folded._replace(
            obs=state.obs(first),
            action=held.action[0, first],
            next_obs=state.next_obs(last),
            legal=jax.tree.map(lambda leaf: leaf[0, first], held.legal),
            next_legal=jax.tree.map(lambda leaf: leaf[0, last], held.next_legal),
        ),
    )


def _restacked(state: Rows, rows: Array, *, size: int, num_envs: int, frames: int) -> list[Array]:
    """The last N observations [..., O] at rows [...], the oldest first; that of an episode's start takes the place of
    what comes before it.
    """
    held = state.experience
    ended, found = held.terminated[0] | held.truncated[0], [rows]
    for _ in range(frames - 1):
        before = (found[0] - num_envs) % size
        goes_on = (state.is_full | (found[0] >= num_envs)) & ~ended[before]
        found.insert(0, jnp.where(goes_on, before, found[0]))
    return [state.obs(row) for row in found]


def make_ring(*, size: int, n_step: int, num_envs: int, frames: int = 1) -> Ring:
    """A ring of ``size`` environment steps: a transition begins at each, once the n steps from it on are in.

    Stacked observations are kept once: of each stack the newest, and of what a transition needs the stack is made again
    from the rows before it. The oldest (N - 1) * E rows of a full ring, which lack those, are no candidates.

    Args:
      size: environment steps.
      n_step: environment steps that a transition spans, fewer at an episode's end.
      num_envs: E, environments of every block of steps.
      frames: N, observations of a stack, which is then the first axis of what is added.
    """
    buffer, waiting = make_buffer(size, num_envs, frames), (n_step - 1) * num_envs
    past = (frames - 1) * num_envs
    restacked = functools.partial(_restacked, size=size, num_envs=num_envs, frames=frames)

    def candidates(state: Any) -> tuple[Array, Array]:
        first = state.current_index + past if past else state.current_index
        oldest = jnp.where(state.is_full, first, 0)
        return oldest, jnp.where(state.is_full, size - past, state.current_index) - waiting

    def changes(state: Any, steps: Step) -> tuple[Array, Array]:
        """The oldest rows that wait become candidates, and the newest wait in their place.

        Those after the newest, the oldest of a full ring, cease to be candidates where they lack what came before.
        """
        block = steps.reward.size
        # Rows a whole ring before the newest are overwritten: their entry belongs to the newer step.
        offsets = np.arange(max(-waiting, block + past - size), block + past)  # 0 is the block's first row
        rows = state.current_index + offsets
        candidate = (offsets < block - waiting) & (state.is_full | (rows >= 0))
        if past:
            # Before the ring is full, its first rows lack nothing: the row that is written next takes their place here.
            following = state.current_index + block
            rows = jnp.where(state.is_full | (following >= size) | (rows < size), rows, following)
        return rows % size, candidate

    def transitions(hparams: HParams, state: Any, rows: Array) -> tuple[Array, Transition, Any]:
        rows = (rows + num_envs * jnp.arange(n_step)[:, None]) % size
        first, last, found = _folded(hparams, state, rows, state.experience.truncated[0, rows])
        if frames > 1:
            axis = first.ndim
            obs, after = restacked(state, first), [*restacked(state, last)[1:], found.next_obs]
            found = found._replace(obs=jnp.stack(obs, axis), next_obs=jnp.stack(after, axis))
        return rows[0], found, ()

    return Ring(size, buffer.init, buffer.add, candidates, changes, transitions)


class SequenceState(NamedTuple):
    """The state of a ring of sequences."""

    rows: Rows
    carries: Any  # leaves [slots, E, ...]: what actors carried into the first step of each sequence


def make_sequence_ring(*, size: int, n_step: int, num_envs: int, sequence: int, burn_in: int, period: int) -> Ring:
    """A ring of ``size`` environment steps, in which a sequence of each environment begins every ``period`` steps.

    Sequences share their steps where they overlap (Kapturowski et al. 2019, section 2.3), and episodes may end in them.
    The state that actors carry is kept where a sequence begins. A block of steps is a ``Rollout`` whose length divides
    ``period`` and everything added before, so that a sequence begins at the first step of a block, if at all.

    A transition spans n steps, fewer where its episode or its sequence ends; the carry belongs to a block's first step.

    Args:
      size: a multiple of ``period`` x E; at least ``sequence + period`` steps of each environment.
      n_step: environment steps that a transition spans.
      num_envs: E.
      sequence: steps of a sequence.
      burn_in: steps at its start of which no transitions are made.
      period: at most ``sequence``.
    """
    buffer, slots, steps_held = make_buffer(size, num_envs), size // (period * num_envs), size // num_envs
    places = slots * num_envs  # of slot k and environment e: k * E + e

    def init(example: Rollout) -> SequenceState:
        carries = jax.tree.map(lambda leaf: jnp.zeros((slots, num_envs, *leaf.shape[1:]), leaf.dtype), example.memory)
        return SequenceState(buffer.init(example.steps), carries)

    def add(state: SequenceState, rollout: Rollout) -> SequenceState:
        time = state.rows.current_index // num_envs
        slot, begins = time // period, time % period == 0

        def store(kept: Array, carry: Array) -> Array:
            return kept.at[slot].set(jnp.where(begins, carry, kept[slot]))

        carries = jax.tree.map(store, state.carries, rollout.memory)
        return SequenceState(buffer.add(state.rows, rollout.steps), carries)

    def candidates(state: SequenceState) -> tuple[Array, Array]:
        rows = state.rows
        time = rows.current_index // num_envs
        oldest = jnp.where(rows.is_full, -(-time // period), 0)
        end = jnp.where(rows.is_full, time + steps_held, time)
        return oldest * num_envs, ((end - sequence) // period + 1 - oldest) * num_envs

    def changes(state: SequenceState, rollout: Rollout) -> tuple[Array, Array]:
        """The slot being written stops being a candidate; the slot whose last step arrives becomes one."""
        block = rollout.steps.reward.shape[0]
        time, full = state.rows.current_index // num_envs, state.rows.is_full
        written, last_start = time // period, time + block - sequence
        completed = last_start // period
        now = (last_start % period < block) & (full | (last_start >= 0))
        completed = jnp.where(now, completed, written) % slots
        all_slots = jnp.stack([written, completed])[:, None] * num_envs + jnp.arange(num_envs)
        ready = jnp.broadcast_to(jnp.stack([jnp.bool_(False), now])[:, None], all_slots.shape)
        return all_slots.reshape(-1), ready.reshape(-1)

    def transitions(hparams: HParams, state: SequenceState, drawn: Array) -> tuple[Array, Transition, Any]:
        drawn = drawn % places
        slot, env = drawn // num_envs, drawn % num_envs

        def row(step: Any) -> Array:
            """The rows [..., B] of steps [...] of the sequences."""
            step = jnp.asarray(step)[..., None]
            return ((slot * period + step) % steps_held) * num_envs + env

        held = state.rows.experience
        learned = np.arange(burn_in, sequence)
        spans = learned + np.arange(n_step)[:, None]  # [n, L]; none goes beyond the sequence
        rows = row(np.minimum(spans, sequence - 1))
        cut: Any = (spans >= sequence - 1)[..., None] | held.truncated[0, rows]
        _, last, found = _folded(hparams, state.rows, rows, cut)
        ended = held.terminated[0, row(np.arange(sequence - 1))] | held.truncated[0, row(np.arange(sequence - 1))]
        about = Sequence(
            burn_in=state.rows.obs(row(np.arange(burn_in))),
            carry=jax.tree.map(lambda leaf: leaf[slot, env], state.carries),
            start=jnp.concatenate([jnp.zeros((1, drawn.size), bool), ended]),
            after=((last - env) // num_envs - slot * period) % steps_held - burn_in,
        )
        return drawn, found, about

    return Ring(places, init, add, candidates, changes, transitions)
