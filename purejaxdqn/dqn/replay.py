"""Replay buffers: a ring (``dqn.rings``) of transitions or sequences, and a sampler that draws from it.

The samplers are ``uniform_replay`` and ``prioritised_replay``. Either works with either kind of ring.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from purejaxdqn.core import kernels
from purejaxdqn.core.choices import Axis, Choice, Fault
from purejaxdqn.core.config import Config, HParams, value_at
from purejaxdqn.core.draws import uniform_from_bits
from purejaxdqn.core.environment import assert_same_structure
from purejaxdqn.core.types import Array, Step
from purejaxdqn.dqn.rings import Ring, make_ring, make_sequence_ring
from purejaxdqn.dqn.sum_tree import make_sum_tree
from purejaxdqn.dqn.types import Batch


class Replay(NamedTuple):
    """A buffer as pure functions; its state is one pytree, updated in place where it is donated.

    For a network with a memory, ``add`` takes the whole ``Rollout``, whose ``memory`` is the actors' state before the
    first step, and the example is a rollout of one step of one actor. Batches are then batches of sequences.
    """

    init: Callable[[Any], Any]  # one step as an example -> empty state
    add: Callable[[HParams, Any, Any], Any]  # state, steps with leaves [T, E, ...] -> state
    sample: Callable[[HParams, Any, Array, Callable[[], Array]], Batch]
    # state, bits uint32[B], beta: the exponent of importance weights -> Batch; only valid once B steps are ready
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


def checked_replay(replay: Replay, example: Step, *, sequences: bool = False) -> Replay:
    """``replay``, whose functions check the shapes and types of their results when they are traced.

    Args:
      replay: a buffer.
      example: one step, with an observation [O] and the legal actions [A], or () where all are.
      sequences: whether batches are of sequences.
    """

    def add(hparams: HParams, state: Any, steps: Any) -> Any:
        after = replay.add(hparams, state, steps)
        assert_same_structure(state, after, "replay.add: the state")
        return after

    def sample(hparams: HParams, state: Any, bits: Array, beta: Callable[[], Array]) -> Batch:
        batch = replay.sample(hparams, state, bits, beta)
        transition, size = batch.transition, bits.shape
        if sequences != (not isinstance(batch.sequence, tuple) or batch.sequence != ()):
            raise AssertionError("replay.sample: a network with a memory needs sequences, any other single steps")
        chex.assert_shape([batch.weight, batch.indices], size, custom_message="replay.sample: weights, indices")
        size = (len(transition.action), *size) if sequences else size
        numbers = [transition.action, transition.reward, transition.discount]
        chex.assert_shape(numbers, size, custom_message="replay.sample: actions, rewards, discounts")
        observations, obs = [transition.obs, transition.next_obs], example.obs
        chex.assert_shape(observations, (*size, *obs.shape), custom_message="replay.sample: the observations")
        chex.assert_type(observations, obs.dtype, custom_message="replay.sample: the observations")
        # Without masks, targets would take every action for a legal one and nothing would fail.
        masks, legal = jax.tree.leaves([transition.legal, transition.next_legal]), jax.tree.leaves(example.legal)
        if len(masks) != 2 * len(legal):
            wanted = "with the legal actions at both observations" if legal else "without legal actions"
            raise AssertionError(f"replay.sample: transitions of this environment are {wanted}")
        chex.assert_shape(masks, (*size, *[len(one) for one in legal]), custom_message="replay.sample: legal actions")
        chex.assert_type(masks, bool, custom_message="replay.sample: legal actions")
        return batch

    def reprioritise(hparams: HParams, state: Any, indices: Array, td_error: Array) -> Any:
        after = replay.reprioritise(hparams, state, indices, td_error)
        assert_same_structure(state, after, "replay.reprioritise: the state")
        return after

    return Replay(replay.init, add, sample, reprioritise)


def uniform_replay(ring: Ring) -> Replay:
    """Each candidate is as likely as any other, with replacement (Lin 1992; Mnih et al. 2015).

    A candidate's index is random bits modulo the number of candidates, so probabilities are exact to size / 2^32.
    """

    def add(hparams: HParams, state: Any, steps: Any) -> Any:
        return ring.add(state, steps)

    def sample(hparams: HParams, state: Any, bits: Array, beta: Callable[[], Array]) -> Batch:
        oldest, count = ring.candidates(state)
        drawn = (bits % count.astype(jnp.uint32)).astype(jnp.int32)
        indices, transition, sequence = ring.transitions(hparams, state, oldest + drawn)
        return Batch(transition, weight=jnp.ones(bits.shape), indices=indices, sequence=sequence)

    def reprioritise(hparams: HParams, state: Any, indices: Array, td_error: Array) -> Any:
        return state

    return Replay(ring.init, add, sample, reprioritise)


class PrioritisedState(NamedTuple):
    """The state of prioritised replay."""

    ring: Any  # the steps, as uniform replay keeps them
    tree: Array  # sum tree of each place's priority to the power of alpha; 0 for what is no candidate
    max_priority: Array  # [] float32, the largest priority there ever was


_SMALLEST_PRIORITY = 1e-6  # so that a transition without a TD error can be drawn again


def prioritised_replay(ring: Ring) -> Replay:
    """Candidates are sampled by their last TD errors (Schaul et al. 2016, proportional variant, algorithm 1).

    P(i) = p_i^alpha / sum_k p_k^alpha, p_i = |TD error| + 1e-6; a new candidate gets the largest p there was. Item i of
    a batch is drawn from the i-th of B equal shares of the sum (appendix B.2.1). Weights are (N P(i))^-beta over the
    largest of the batch, N the number of candidates.
    """
    sum_tree = make_sum_tree(ring.size)

    def init(example: Any) -> PrioritisedState:
        return PrioritisedState(ring.init(example), sum_tree.init(), jnp.float32(1))

    def add(hparams: HParams, state: PrioritisedState, steps: Any) -> PrioritisedState:
        places, candidate = ring.changes(state.ring, steps)
        priorities = jnp.where(candidate, state.max_priority**hparams.replay_alpha, 0.0)
        tree = sum_tree.set(state.tree, places, priorities)
        return PrioritisedState(ring.add(state.ring, steps), tree, state.max_priority)

    def sample(hparams: HParams, state: PrioritisedState, bits: Array, beta: Callable[[], Array]) -> Batch:
        share = uniform_from_bits(bits)
        drawn = sum_tree.sample(state.tree, (jnp.arange(bits.size) + share) / bits.size)
        indices, transition, sequence = ring.transitions(hparams, state.ring, drawn)
        priorities = jnp.maximum(sum_tree.get(state.tree, indices), jnp.finfo(jnp.float32).tiny)
        # N and the sum are factors of every weight, the largest included, which is that of the smallest priority: they
        # cancel.
        weight = (jnp.min(priorities) / priorities) ** beta()
        # ``reprioritise`` writes to the tree at these indices, and must not do so before the priorities are read.
        return Batch(transition, weight=weight, indices=kernels.after(weight, indices), sequence=sequence)

    def reprioritise(hparams: HParams, state: PrioritisedState, indices: Array, td_error: Array) -> PrioritisedState:
        priorities = jnp.abs(td_error) + _SMALLEST_PRIORITY
        tree = sum_tree.set(state.tree, indices, priorities**hparams.replay_alpha)
        return PrioritisedState(state.ring, tree, jnp.maximum(state.max_priority, jnp.max(priorities)))

    return Replay(init, add, sample, reprioritise)


def _ring_of(config: Config) -> Ring:
    replay, shared = config.replay, {"n_step": config.n_step, "num_envs": config.env.num_envs}
    assert replay.size
    if config.network.memory == "none":
        return make_ring(size=replay.size, **shared, frames=config.env.frame_stack)
    lengths = {"sequence": replay.sequence, "burn_in": replay.burn_in, "period": replay.period_of_sequences()}
    return make_sequence_ring(size=replay.size, **shared, **lengths)


def _buffer_faults(config: Config) -> Iterator[Fault]:
    """The buffer holds a batch before the first update, and a rollout."""
    schedule, size, batch_size = config.schedule, config.replay.size, config.replay.batch_size
    assert size and batch_size and schedule.warmup and schedule.train_every

    def at_least(key: str, value: int, bound: int, keys: Sequence[str], *why: str) -> Iterator[Fault]:
        if value < bound:
            names = f"{', '.join(keys[:-1])} and {keys[-1]}" if len(keys) > 1 else keys[0]
            yield Fault(key, f"{value} is below {names} ({bound}): {', and '.join(why)}", (*keys, "env.num_envs"))

    repeats = "the first batch would contain steps twice"
    overwrites = "new steps would overwrite each other"
    yield from at_least("replay.size", size, schedule.train_every, ["schedule.train_every"], overwrites)
    if config.network.memory != "none":
        yield from _sequence_faults(config)
        return
    yield from at_least("schedule.warmup", schedule.warmup, batch_size, ["replay.batch_size"], repeats)
    past = (config.env.frame_stack - 1) * config.env.num_envs
    unfinished = (config.n_step - 1) * config.env.num_envs
    waiting = f"the newest {unfinished} steps (n_step - 1 of each environment) cannot be sampled yet"
    lacking = f"the oldest {past} steps lack the frames before them and cannot be sampled"
    if unfinished:
        keys = ["n_step", "replay.batch_size"]
        yield from at_least("schedule.warmup", schedule.warmup, unfinished + batch_size, keys, waiting)
    without = {"env.frame_stack": (past, lacking), "n_step": (unfinished, waiting)}
    keys = [key for key, (steps, _) in without.items() if steps]
    why = [reason for steps, reason in without.values() if steps] or ["the buffer must hold a batch"]
    yield from at_least("replay.size", size, past + unfinished + batch_size, [*keys, "replay.batch_size"], *why)


def _sequence_faults(config: Config) -> Iterator[Fault]:
    """Sequences have steps to learn from, begin at the start of a rollout, and fit in the ring and the warm-up."""
    replay, schedule, num_envs = config.replay, config.schedule, config.env.num_envs
    assert replay.size and replay.batch_size and schedule.warmup and schedule.train_every
    if config.env.frame_stack > 1:
        message = f"{config.env.frame_stack} with a memory needs replay.kind none: sequences are stored without frames"
        yield Fault("env.frame_stack", f"{message} before their first", ("network.memory", "replay.kind"))
    sequence, learned, period = replay.sequence, replay.sequence - replay.burn_in, replay.period_of_sequences()
    if learned < 1:
        yield Fault(
            "replay.burn_in", f"{replay.burn_in} is not below replay.sequence ({sequence})", ("replay.sequence",)
        )
        return
    parts = ("replay.sequence", "replay.burn_in")
    the_learned = f"replay.sequence less replay.burn_in ({learned})"
    if period > learned:
        yield Fault(
            "replay.period", f"{period} is above {the_learned}: no sequence would learn from the steps between", parts
        )
        return
    if config.n_step > learned:
        yield Fault("n_step", f"{config.n_step} is above {the_learned}, the steps that a sequence learns from", parts)
    yield from _alignment_faults(config, period)
    held, warmup = replay.size // num_envs, schedule.warmup // num_envs
    if sequence + period > held:
        message = (
            f"{sequence} and replay.period ({period}) are more than the {held} steps of each environment in the ring"
        )
        yield Fault("replay.sequence", message, ("replay.period", "replay.size", "env.num_envs"))
    elif (fewest := _fewest_sequences(config, period)) < replay.batch_size:
        message = f"{replay.size} leaves only {fewest} sequences to sample from at times, fewer than replay.batch_size"
        keys = ("replay.batch_size", "replay.sequence", "replay.period", "env.num_envs")
        yield Fault("replay.size", f"{message} ({replay.batch_size})", keys)
    ready = ((warmup - sequence) // period + 1) * num_envs if warmup >= sequence else 0
    if ready < replay.batch_size:
        message = f"{schedule.warmup} gives {ready} sequences, fewer than replay.batch_size ({replay.batch_size})"
        yield Fault(
            "schedule.warmup", message, ("replay.batch_size", "replay.sequence", "replay.period", "env.num_envs")
        )


def _fewest_sequences(config: Config, period: int) -> int:
    """Sequences that a full ring holds when new steps have overwritten as many of them as they do at a time."""
    num_envs, size, train_every = config.env.num_envs, config.replay.size, config.schedule.train_every
    assert size and train_every
    held, block, sequence = size // num_envs, train_every // num_envs, config.replay.sequence
    times = range(0, period, max(1, block))  # since the newest sequence began
    return num_envs * min((held + time - sequence) // period + (0 if time else 1) for time in times)


def _alignment_faults(config: Config, period: int) -> Iterator[Fault]:
    """Rollouts divide the distance of sequences, and sequences the ring."""
    schedule, num_envs, size = config.schedule, config.env.num_envs, config.replay.size
    assert size and schedule.warmup and schedule.train_every
    if size % (unit := num_envs * period):
        near = " or ".join(str(n) for n in (size // unit * unit, (size // unit + 1) * unit) if n)
        message = f"{size} is not a multiple of env.num_envs x replay.period ({unit}); the nearest are {near}"
        yield Fault("replay.size", message, ("env.num_envs", "replay.period"))
    if schedule.train_every % num_envs:
        return  # reported elsewhere
    if period % (steps := schedule.train_every // num_envs):
        multiple = f"a multiple of schedule.train_every / env.num_envs ({steps})"
        message = f"{period} is not {multiple}: sequences begin with a rollout"
        yield Fault("replay.period", message, ("schedule.train_every", "env.num_envs"))
    if schedule.warmup % schedule.train_every:
        multiple = f"a multiple of schedule.train_every ({schedule.train_every})"
        message = f"{schedule.warmup} is not {multiple}: sequences begin with a rollout"
        yield Fault("schedule.warmup", message, ("schedule.train_every", "network.memory"))


def _without_replay_faults(config: Config) -> Iterator[Fault]:
    """Nothing that needs replay is set, the minibatches divide the rollout, and lambda-returns have an equation."""
    for key in (*_BUFFER, *_INTERVALS):
        if (value := value_at(config, key)) is not None:
            message = f"{value} has no effect with replay.kind none, which learns from each rollout; set it to null"
            yield Fault(key, message, ("replay.kind",))
    if config.n_step > 1:
        message = f"{config.n_step} needs replay: without it rollout.lambda mixes returns of all lengths"
        yield Fault("n_step", message, ("replay.kind",))
    yield from _minibatch_faults(config)
    kind = config.distribution.kind
    if kind in ("quantile", "iqn", "fqf"):
        message = f"{kind!r} needs replay: a lambda-return is a mixture, which a fixed number of quantiles cannot hold"
        yield Fault("distribution.kind", message, ("replay.kind",))
    if config.bootstrap.kind == "double" and not config.schedule.target_every:
        message = "'double' needs a target network, without which it is greedy; set schedule.target_every"
        yield Fault("bootstrap.kind", message, ("replay.kind", "schedule.target_every"))


def _minibatch_faults(config: Config) -> Iterator[Fault]:
    """Minibatches divide the steps of a rollout, or with a memory its sequences."""
    rollout, num_envs = config.rollout, config.env.num_envs
    if config.network.memory == "none":
        units, what, other, why = num_envs * rollout.steps, "env.num_envs x rollout.steps", "rollout.steps", ""
    else:
        units, what, other = num_envs, "env.num_envs", "network.memory"
        why = ": sequences of a memory stay whole"
    if units % rollout.minibatches:
        near = _nearest_divisors(units, rollout.minibatches)
        nearest = f"the nearest that {'does is' if len(near) == 1 else 'do are'} {' and '.join(map(str, near))}"
        message = f"{rollout.minibatches} does not divide {what} ({units}){why}; {nearest}"
        yield Fault("rollout.minibatches", message, ("env.num_envs", other))


def _nearest_divisors(number: int, near: int) -> list[int]:
    """The divisors of ``number`` next to ``near``, one below it and one above it if it has both.

    Above 2^32, where no rollout can be, not all divisors are looked for.
    """
    small = [n for n in range(1, min(math.isqrt(number), 2**16) + 1) if number % n == 0]
    divisors = [*small, *(number // n for n in small)]
    below, above = [n for n in divisors if n < near], [n for n in divisors if n > near]
    return [max(below), *([min(above)] if above else [])]


_BUFFER = ("replay.size", "replay.batch_size")
_SEQUENCES = ("replay.sequence", "replay.burn_in", "replay.period")
_INTERVALS = ("schedule.warmup", "schedule.train_every", "schedule.gradient_steps")
_ROLLOUT = ("rollout.steps", "rollout.epochs", "rollout.minibatches", "rollout.lambda")
REPLAYS = Axis(
    "replay.kind",
    {
        "uniform": Choice(
            lambda config: uniform_replay(_ring_of(config)),
            keys=(*_BUFFER, *_SEQUENCES, *_INTERVALS),
            faults=_buffer_faults,
        ),
        "prioritised": Choice(
            lambda config: prioritised_replay(_ring_of(config)),
            keys=(*_BUFFER, *_SEQUENCES, *_INTERVALS, "replay.alpha", "replay.beta", "replay.eta"),
            faults=_buffer_faults,
        ),
        "none": Choice(lambda config: None, keys=_ROLLOUT, faults=_without_replay_faults),
    },
)
"""What each name makes; ``none`` makes nothing, and ``dqn.on_rollout`` takes the place of ``dqn.algorithm``."""
