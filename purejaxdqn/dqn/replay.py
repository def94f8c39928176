"""Replay: which steps are kept and how they are sampled. The only file that imports flashbax.

A ring holds the last steps as they were taken. What an update gets of them is two independent choices: how many steps a
transition spans (``fold``), and which are drawn (``uniform_replay``, ``prioritised_replay``).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import chex
import flashbax
import jax
import jax.numpy as jnp
import numpy as np

from purejaxdqn.core import kernels
from purejaxdqn.core.choices import Axis, Choice, Fault
from purejaxdqn.core.config import Config, HParams, value_at
from purejaxdqn.core.draws import uniform_from_bits
from purejaxdqn.core.environment import assert_same_structure
from purejaxdqn.core.types import Array, Batch, Step, Transition
from purejaxdqn.dqn.sum_tree import make_sum_tree


class Replay(NamedTuple):
    """A buffer as pure functions; its state is one pytree, updated in place where it is donated."""

    init: Callable[[Step], Any]  # one step as an example -> empty state
    add: Callable[[HParams, Any, Step], Any]  # state, steps with leaves [T, E, ...] -> state
    sample: Callable[[HParams, Any, Array, Callable[[], Array]], Batch]
    # state, bits uint32[B], beta: the exponent of importance weights -> Batch; before B steps are ready, do not
    reprioritise: Callable[[HParams, Any, Array, Array], Any]  # state, indices[B], TD error[B] -> state


def example_step(obs: Array, num_actions: int = 0, *, some_illegal: bool = False) -> Step:
    """One step, for shapes and types.

    Args:
      obs: an observation [O].
      num_actions: A, which counts where there are illegal actions.
      some_illegal: whether there are.
    """
    legal = jnp.ones(num_actions, bool) if some_illegal else ()
    return Step(obs, jnp.int32(0), jnp.float32(0), jnp.bool_(False), jnp.bool_(False), obs, legal, legal)


def checked_replay(replay: Replay, example: Array) -> Replay:
    """``replay``, whose functions check the shapes and types of their results when they are traced.

    Args:
      replay: a buffer.
      example: an observation [O].
    """

    def add(hparams: HParams, state: Any, steps: Step) -> Any:
        after = replay.add(hparams, state, steps)
        assert_same_structure(state, after, "replay.add: the state")
        return after

    def sample(hparams: HParams, state: Any, bits: Array, beta: Callable[[], Array]) -> Batch:
        batch = replay.sample(hparams, state, bits, beta)
        transition, size = batch.transition, bits.shape
        numbers = [transition.action, transition.reward, transition.discount, batch.weight, batch.indices]
        chex.assert_shape(numbers, size, custom_message="replay.sample: actions, rewards, discounts, weights, indices")
        observations = [transition.obs, transition.next_obs]
        chex.assert_shape(observations, (*size, *example.shape), custom_message="replay.sample: the observations")
        chex.assert_type(observations, example.dtype, custom_message="replay.sample: the observations")
        return batch

    def reprioritise(hparams: HParams, state: Any, indices: Array, td_error: Array) -> Any:
        after = replay.reprioritise(hparams, state, indices, td_error)
        assert_same_structure(state, after, "replay.reprioritise: the state")
        return after

    return Replay(replay.init, add, sample, reprioritise)


class Ring(NamedTuple):
    """The last ``size`` steps, one a row, in the order [T, E]: an environment's next step lies E rows further.

    A row is a candidate once the n steps from it on are in; the newest (n - 1) * E rows wait for theirs.
    """

    size: int
    waiting: int  # (n - 1) * E
    init: Callable[[Step], Any]  # one step as an example -> empty state
    add: Callable[[Any, Step], Any]  # state, steps with leaves [T, E, ...] -> state
    candidates: Callable[[Any], tuple[Array, Array]]  # state -> row of the oldest [], number of candidates []
    transitions: Callable[[HParams, Any, Array], tuple[Array, Transition]]  # rows[B] -> rows modulo size, leaves [B]


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


def make_ring(*, size: int, n_step: int, num_envs: int) -> Ring:
    """A ring of ``size`` environment steps.

    Args:
      size: environment steps.
      n_step: environment steps that a transition spans, fewer at an episode's end.
      num_envs: E, environments of every block of steps.
    """
    buffer = flashbax.make_item_buffer(max_length=size, min_length=1, sample_batch_size=1, add_batches=True)
    waiting = (n_step - 1) * num_envs

    def init(example: Step) -> Any:
        state = buffer.init(example)
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
        # Row numbers take the place of all that is only passed on, which is then fetched once and not n times.
        folded = fold(
            Step(rows, rows, held.reward[0, rows], held.terminated[0, rows], held.truncated[0, rows], next_obs=rows),
            gamma=hparams.gamma,
            scale=hparams.reward_scale,
            clip=hparams.reward_clip,
        )
        first, last = folded.obs, folded.next_obs
        return rows[0], folded._replace(
            obs=held.obs[0, first],
            action=held.action[0, first],
            next_obs=held.next_obs[0, last],
            legal=jax.tree.map(lambda leaf: leaf[0, first], held.legal),
            next_legal=jax.tree.map(lambda leaf: leaf[0, last], held.next_legal),
        )

    return Ring(size, waiting, init, add, candidates, transitions)


def uniform_replay(ring: Ring) -> Replay:
    """Each candidate is as likely as any other, with replacement (Lin 1992; Mnih et al. 2015).

    A candidate's index is bits modulo their number, which favours none by more than size / 2^32.
    """

    def add(hparams: HParams, state: Any, steps: Step) -> Any:
        return ring.add(state, steps)

    def sample(hparams: HParams, state: Any, bits: Array, beta: Callable[[], Array]) -> Batch:
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


_SMALLEST_PRIORITY = 1e-6  # so that a transition without a TD error can be drawn again


def prioritised_replay(ring: Ring) -> Replay:
    """Candidates are sampled by their last TD errors (Schaul et al. 2016, proportional variant, algorithm 1).

    P(i) = p_i^alpha / sum_k p_k^alpha, p_i = |TD error| + 1e-6; a new candidate gets the largest p there was. Item i of
    a batch is drawn from the i-th of B equal shares of the sum (appendix B.2.1). Weights are (N P(i))^-beta over the
    largest of the batch, N the number of candidates.
    """
    sum_tree = make_sum_tree(ring.size)

    def init(example: Step) -> PrioritisedState:
        return PrioritisedState(ring.init(example), sum_tree.init(), jnp.float32(1))

    def add(hparams: HParams, state: PrioritisedState, steps: Step) -> PrioritisedState:
        """Add steps: the oldest rows that wait become candidates, and the newest wait in their place."""
        block = steps.reward.size
        # Rows a whole ring before the newest are overwritten: their entry belongs to the newer step.
        offsets = np.arange(max(-ring.waiting, block - ring.size), block)  # 0 is the block's first row
        rows = state.ring.current_index + offsets
        candidate = (offsets < block - ring.waiting) & (state.ring.is_full | (rows >= 0))
        priorities = jnp.where(candidate, state.max_priority**hparams.replay_alpha, 0.0)
        tree = sum_tree.set(state.tree, rows % ring.size, priorities)
        return PrioritisedState(ring.add(state.ring, steps), tree, state.max_priority)

    def sample(hparams: HParams, state: PrioritisedState, bits: Array, beta: Callable[[], Array]) -> Batch:
        share = uniform_from_bits(bits)
        drawn = sum_tree.sample(state.tree, (jnp.arange(bits.size) + share) / bits.size)
        indices, transition = ring.transitions(hparams, state.ring, drawn)
        priorities = jnp.maximum(sum_tree.get(state.tree, indices), jnp.finfo(jnp.float32).tiny)
        # N and the sum are factors of every weight, the largest included, which is that of the smallest priority: they
        # cancel.
        weight = (jnp.min(priorities) / priorities) ** beta()
        # ``reprioritise`` writes to the tree at these indices, and must not do so before the priorities are read.
        return Batch(transition, weight=weight, indices=kernels.after(weight, indices))

    def reprioritise(hparams: HParams, state: PrioritisedState, indices: Array, td_error: Array) -> PrioritisedState:
        priorities = jnp.abs(td_error) + _SMALLEST_PRIORITY
        tree = sum_tree.set(state.tree, indices, priorities**hparams.replay_alpha)
        return PrioritisedState(state.ring, tree, jnp.maximum(state.max_priority, jnp.max(priorities)))

    return Replay(init, add, sample, reprioritise)


def _ring_of(config: Config) -> Ring:
    assert config.replay.size
    return make_ring(size=config.replay.size, n_step=config.n_step, num_envs=config.env.num_envs)


def _buffer_faults(config: Config) -> Iterator[Fault]:
    """The buffer holds a batch before the first update, and a rollout."""
    schedule, size, batch_size = config.schedule, config.replay.size, config.replay.batch_size
    assert size and batch_size and schedule.warmup and schedule.train_every

    def at_least(key: str, value: int, bound_key: str, bound: int, why: str) -> Iterator[Fault]:
        if value < bound:
            yield Fault(key, f"{value} is below {bound_key} ({bound}): {why}", (bound_key,))

    repeats = "the first batch would repeat itself"
    yield from at_least("schedule.warmup", schedule.warmup, "replay.batch_size", batch_size, repeats)
    unfinished = (config.n_step - 1) * config.env.num_envs
    if config.n_step > 1:
        why = f"the newest {unfinished} steps (n_step - 1 of each environment) are not ready, and a batch must be"
        for key, value in (("schedule.warmup", schedule.warmup), ("replay.size", size)):
            yield from at_least(key, value, "n_step and replay.batch_size", unfinished + batch_size, why)
    yield from at_least("replay.size", size, "replay.batch_size", batch_size, "the buffer must hold a batch")
    if config.network.memory != "none":
        message = f"{config.network.memory!r} needs replay.kind none: sequences are not kept in replay yet"
        yield Fault("network.memory", message, ("replay.kind",))
    overwrites = "new steps would overwrite each other"
    yield from at_least("replay.size", size, "schedule.train_every", schedule.train_every, overwrites)


def _without_replay_faults(config: Config) -> Iterator[Fault]:
    """Nothing that needs replay is set, the minibatches divide the rollout, and lambda-returns have an equation."""
    for key in (*_BUFFER, *_INTERVALS):
        if (value := value_at(config, key)) is not None:
            message = f"{value} has no effect with replay.kind none, which learns from each rollout; set it to null"
            yield Fault(key, message, ("replay.kind",))
    if config.n_step > 1:
        message = f"{config.n_step} needs replay: without it rollout.lambda weighs returns of all lengths"
        yield Fault("n_step", message, ("replay.kind",))
    rollout, num_envs = config.rollout, config.env.num_envs
    if num_envs * rollout.steps % rollout.minibatches:
        steps = f"env.num_envs x rollout.steps ({num_envs * rollout.steps})"
        message = f"{rollout.minibatches} does not divide {steps}"
        yield Fault("rollout.minibatches", message, ("env.num_envs", "rollout.steps"))
    if config.network.memory != "none" and num_envs % rollout.minibatches:
        message = f"{rollout.minibatches} does not divide env.num_envs ({num_envs}): sequences of a memory stay whole"
        yield Fault("rollout.minibatches", message, ("env.num_envs", "network.memory"))
    kind = config.distribution.kind
    if kind in ("quantile", "iqn", "fqf"):
        message = f"{kind!r} needs replay: a lambda-return is a mixture, which a fixed number of quantiles cannot hold"
        yield Fault("distribution.kind", message, ("replay.kind",))
    if config.bootstrap.kind == "double" and not config.schedule.target_every:
        message = "'double' needs a target network, without which it is greedy; set schedule.target_every"
        yield Fault("bootstrap.kind", message, ("replay.kind", "schedule.target_every"))


_BUFFER = ("replay.size", "replay.batch_size")
_INTERVALS = ("schedule.warmup", "schedule.train_every", "schedule.gradient_steps")
_ROLLOUT = ("rollout.steps", "rollout.epochs", "rollout.minibatches", "rollout.lambda")
REPLAYS = Axis(
    "replay.kind",
    {
        "uniform": Choice(
            lambda config: uniform_replay(_ring_of(config)), keys=(*_BUFFER, *_INTERVALS), faults=_buffer_faults
        ),
        "prioritised": Choice(
            lambda config: prioritised_replay(_ring_of(config)),
            keys=(*_BUFFER, *_INTERVALS, "replay.alpha", "replay.beta"),
            faults=_buffer_faults,
        ),
        "none": Choice(lambda config: None, keys=_ROLLOUT, faults=_without_replay_faults),
    },
)
"""What each name makes; ``none`` makes nothing, and ``dqn.on_rollout`` takes the place of ``dqn.algorithm``."""
