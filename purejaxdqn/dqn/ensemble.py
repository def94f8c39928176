"""Ensembles: bootstrapped DQN (Osband et al. 2016) with randomised prior functions (Osband et al. 2018).

K members learn from the same steps, each with its own parameters, target network and optimiser. Member k values
actions by

    q_k(obs, a) = f_k(obs, a) + prior_scale * p_k(obs, a)

with f_k learned and p_k a network of the same form whose random parameters are never learned. In training an
environment follows one member for an episode; a greedy policy takes the mean of all members.

A step is learned by a random share of the members: member k multiplies its loss by a mask that is 1 with probability
``ensemble.mask``. The mask of a step is drawn once, and is the same whenever the step is sampled again. It is not
stored: the number of the step among all steps of the run, and a random number of the run, make a key, from which the
masks of all members follow. So replay keeps each step once, in as many bytes as without an ensemble, whatever K.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.core.algorithm import ActorView, Algorithm, greedy, mean
from purejaxdqn.core.choices import Axis, Choice, Fault
from purejaxdqn.core.config import Config, HParams
from purejaxdqn.core.draws import ActDraws, LearnDraws
from purejaxdqn.core.schedules import Clock
from purejaxdqn.core.types import Array, Params, Rollout, UpdateStats
from purejaxdqn.dqn.acting import explore
from purejaxdqn.dqn.learner import NO_RECALL, Learner, LearnerState, Parts, Recall, make_learner
from purejaxdqn.dqn.masks import first_rows, masks, step_numbers
from purejaxdqn.dqn.memory import Memory
from purejaxdqn.dqn.priors import add_prior
from purejaxdqn.dqn.types import Batch, Sequence


class EnsembleState(NamedTuple):
    """All that the learning of K members changes."""

    learner: LearnerState
    # leaves [K, ...], but for what members share: statistics of observations, and the optimiser's numbers of updates
    prior: Params  # [K, ...] parameters of the priors, which nothing changes; () without priors
    salt: Array  # [] uint32, drawn once: the seed of the masks of this run
    seen: Array  # [] int32 steps observed so far, over all environments


class Following(NamedTuple):
    """What an actor remembers."""

    member: Array  # [E] int32: the member that acts in this episode
    carry: Any = ()  # leaves [E, K, ...]: what the networks of all members carry; () without ``network.memory``


class Members(NamedTuple):
    """The members of an ensemble."""

    parts: Parts  # of each
    size: int  # K
    prior: bool  # whether they have priors
    precision: str  # of matrix products in acting: ``default``, ``high`` or ``highest``


def ensemble(members: Members, algorithm: Algorithm) -> Algorithm:
    """``algorithm``, whose members act one at a time and are evaluated together.

    Args:
      members: the members.
      algorithm: updates them: ``dqn.algorithm.off_policy`` of ``batch_learner``, or ``on_rollouts``. Its state has or
        is an ``EnsembleState``.
    """
    carried = _memory_of_all(members)

    def act(
        hparams: HParams, policy: Params, view: ActorView, draws: ActDraws, clock: Clock
    ) -> tuple[Array, Following]:
        member_key, noise_key = jax.random.split(draws.key)
        drawn = jax.random.randint(member_key, view.start.shape, 0, members.size)
        member = jnp.where(view.start, drawn, view.memory.member)
        found, carry = q_values(members, hparams, policy, view, noise_key)
        found = found[member, jnp.arange(member.size)]
        return explore(found, view, draws, clock, members.parts.num_actions), Following(member, carry)

    def values(hparams: HParams, policy: Params, view: ActorView) -> tuple[Array, Any]:
        found, carry = q_values(members, hparams, policy, view, None)
        after = view.memory._replace(carry=carry) if carried else view.memory
        return jnp.mean(found, axis=0), after

    def observe(hparams: HParams, state: Any, rollout: Rollout) -> Any:
        return algorithm.observe(hparams, state, rollout._replace(memory=rollout.memory.carry))

    def learn(hparams: HParams, state: Any, rollout: Rollout, draws: Any, clock: Clock) -> tuple[Any, UpdateStats]:
        spread = disagreement(members, hparams, algorithm.policy(state), rollout)
        rollout = rollout._replace(memory=rollout.memory.carry)
        state, stats = algorithm.learn(hparams, state, rollout, draws, clock)
        return state, stats._replace(disagreement=spread)

    def memory(num_envs: int) -> Following:
        # Until their first episodes end, in the warm-up, which is random, environments follow one member after another.
        follows = jnp.arange(num_envs, dtype=jnp.int32) % members.size
        return Following(follows, carried.carry(num_envs) if carried else ())

    return algorithm._replace(act=act, values=values, observe=observe, learn=learn, memory=memory)


def q_values(
    members: Members, hparams: HParams, policy: Params, view: ActorView, key: Array | None
) -> tuple[Array, Any]:
    """The Q-values of all members [K, E, A], and what their networks carry from then on, leaves [E, K, ...].

    Args:
      members: of the ensemble.
      hparams: the numbers of the run.
      policy: the ensemble's.
      view: what the actors see; its memory is ``Following``, or () without ``network.memory``.
      key: for the noise of noisy layers, which each member and each actor gets apart; None turns it off.
    """
    policy = jax.tree.map(jnp.asarray, policy)  # ``vmap`` takes no arrays of NumPy as constants
    online, statistics = members.parts.observations.unpack(policy["members"])
    keys = None if key is None else jax.random.split(key, members.size)
    remembers = members.parts.network.memory is not None

    def of_member(online: Params, prior: Params, key: Array | None, carry: Any) -> tuple[Array, Any]:
        learner = _learner_of(members, hparams, prior)
        packed = members.parts.observations.pack(online, statistics)
        recall = Recall(carry, view.start[None]) if remembers else NO_RECALL
        found, carries = learner.q_values(hparams, packed, view.obs, key, recall)
        return found, jax.tree.map(lambda leaf: leaf[0], carries)

    carry = _swapped(view.memory.carry) if remembers else ()
    with jax.default_matmul_precision(members.precision):  # in every trace, as on a GPU the default may be TF32
        found, carry = jax.vmap(of_member)(online, policy.get("prior", ()), keys, carry)
    return found, _swapped(carry)


def estimates(members: Members, hparams: HParams, policy: Params, view: ActorView) -> tuple[Array, Array, Any]:
    """Mean and standard deviation of the Q-values over the members, both [E, A]; and what their networks carry then."""
    found, carry = q_values(members, hparams, policy, view, None)
    return jnp.mean(found, axis=0), jnp.std(found, axis=0), carry


def disagreement(members: Members, hparams: HParams, policy: Params, rollout: Rollout) -> Array:
    """The standard deviation [] over the members of the greedy action's value, mean over the first step of a rollout.

    The greedy action is that of the mean of all members.
    """
    obs, legal, start = jax.tree.map(lambda leaf: leaf[0], (rollout.steps.obs, rollout.steps.legal, rollout.start))
    found, _ = q_values(members, hparams, policy, ActorView(obs, legal, rollout.memory, start), None)
    best = greedy(jnp.mean(found, axis=0), legal)
    return jnp.mean(jnp.std(jnp.take_along_axis(found, best[None, :, None], axis=2), axis=0))


def batch_learner(members: Members, *, capacity: int, num_envs: int = 1, period: int = 1) -> Learner:
    """A learner that updates all members with each batch, so that replay keeps and samples a step once.

    Args:
      members: the members.
      capacity: steps that replay keeps, in a ring.
      num_envs: E.
      period: of sequences, one of which has index k * E + e if it begins with step k * period of environment e; 1 where
        each step has its row for an index.
    """
    one = make_learner(members.parts)

    def init(hparams: HParams, key: Array) -> EnsembleState:
        return _init(members, one.init, hparams, key)

    def observe(state: EnsembleState, obs: Array) -> EnsembleState:
        return state._replace(learner=one.observe(state.learner, obs), seen=state.seen + obs.shape[0])

    def update(
        hparams: HParams, state: EnsembleState, batch: Batch, key: Array, rate: Array
    ) -> tuple[EnsembleState, Array, UpdateStats]:
        rows = first_rows(batch.indices, num_envs=num_envs, period=period)
        mask = masks(hparams, state.salt, step_numbers(rows, state.seen, capacity), members.size)

        def of_member(learner: LearnerState, prior: Params, mask: Array, key: Array, sequence: Any) -> tuple:
            learner = learner._replace(observations=state.learner.observations)
            masked = batch._replace(weight=batch.weight * mask, sequence=sequence)
            learned, td_error, stats = _learner_of(members, hparams, prior).update(hparams, learner, masked, key, rate)
            return learned.online, learned.opt_state, td_error, stats

        keys = jax.random.split(key, members.size)
        apart = state.learner._replace(observations=())
        sequence: Any = batch.sequence
        axes: Any = None
        if isinstance(sequence, Sequence):  # all members see the same steps, and each has its own carry
            sequence = sequence._replace(carry=_swapped(sequence.carry))
            axes = jax.tree.map(lambda _: None, sequence)._replace(carry=0)
        in_axes, out_axes = (_axes(apart), 0, 0, 0, axes), (0, _axes(apart.opt_state), 0, 0)
        mapped = jax.vmap(of_member, in_axes, out_axes)
        online, opt_state, td_error, stats = mapped(apart, state.prior, mask, keys, sequence)
        learned = state.learner._replace(online=online, opt_state=opt_state)
        # A step's priority is the mean |TD error| of the members that learn from it, and the lowest where none does.
        shared = jnp.sum(mask * jnp.abs(td_error), axis=0) / jnp.maximum(jnp.sum(mask, axis=0), 1.0)
        return state._replace(learner=learned), shared, mean(stats)

    def sync(hparams: HParams, state: EnsembleState) -> EnsembleState:
        return state._replace(learner=one.sync(hparams, state.learner))

    return one._replace(
        init=init,
        policy=lambda state: _policy(members, state),
        observe=observe,
        update=update,
        sync=sync,
        memory=_memory_of_all(members),
    )


def on_rollouts(members: Members, make: Callable[[Parts], Algorithm]) -> Algorithm:
    """An algorithm that updates all members with each rollout, each in an order of its own.

    Args:
      members: the members.
      make: the algorithm of one member, whose state is a ``LearnerState``.
    """
    one = make(members.parts)

    def init(hparams: HParams, key: Array) -> EnsembleState:
        return _init(members, one.init, hparams, key)

    def observe(hparams: HParams, state: EnsembleState, rollout: Rollout) -> EnsembleState:
        learner = one.observe(hparams, state.learner, rollout)
        return state._replace(learner=learner, seen=state.seen + rollout.steps.reward.size)

    def learn(
        hparams: HParams, state: EnsembleState, rollout: Rollout, draws: Any, clock: Clock
    ) -> tuple[EnsembleState, UpdateStats]:
        shape = rollout.steps.reward.shape
        numbers = state.seen + jnp.arange(rollout.steps.reward.size).reshape(shape)

        def of_member(learner: LearnerState, prior: Params, mask: Array, draws: Any, carry: Any) -> tuple:
            learner = learner._replace(observations=state.learner.observations)
            algorithm = make(_parts_of(members, hparams, prior))
            return algorithm.learn(hparams, learner, rollout._replace(memory=carry, weight=mask), draws, clock)

        mask = masks(hparams, state.salt, numbers, members.size)
        apart = state.learner._replace(observations=())
        carry = _swapped(rollout.memory)
        in_axes, out_axes = (_axes(apart), 0, 0, 0, 0), (_axes(apart)._replace(observations=0), 0)
        learned, stats = jax.vmap(of_member, in_axes, out_axes)(apart, state.prior, mask, draws, carry)
        # All members have seen the same observations, and have the same statistics of them.
        seen = jax.tree.map(lambda leaf: leaf[0], learned.observations)
        learned = learned._replace(observations=seen)
        return state._replace(learner=learned, seen=state.seen + numbers.size), mean(stats)

    def sync(hparams: HParams, state: EnsembleState) -> EnsembleState:
        return state._replace(learner=one.sync(hparams, state.learner))

    draws = _drawn_apart(one.draws, members.size)
    return one._replace(
        init=init, policy=lambda state: _policy(members, state), observe=observe, learn=learn, sync=sync, draws=draws
    )


def _drawn_apart(draws: LearnDraws, size: int) -> LearnDraws:
    """Draws of their own for each member: leaves [N, size, ...]."""

    def read(*words: Array) -> Any:
        together = draws.read(*(part.reshape(-1, *part.shape[2:]) for part in words))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), together)

    return LearnDraws(tuple((size, *shape) for shape in draws.shapes), read)


def _init(members: Members, init: Callable[[HParams, Array], LearnerState], hparams: HParams, key: Array) -> Any:
    online_key, prior_key, salt_key = jax.random.split(key, 3)
    learner = jax.vmap(init, (None, 0))(hparams, jax.random.split(online_key, members.size))
    statistics = members.parts.observations.init()
    prior: Params = ()
    if members.prior:
        inputs = members.parts.observations.inputs(statistics, members.parts.example)
        prior = jax.vmap(lambda key: members.parts.network.init(key, inputs, hparams.network_sigma))(
            jax.random.split(prior_key, members.size)
        )
    opt_state = jax.tree.map(lambda leaf: leaf[0] if _is_shared(leaf) else leaf, learner.opt_state)
    return EnsembleState(
        learner=learner._replace(opt_state=opt_state, observations=statistics),
        prior=prior,
        salt=jax.random.bits(salt_key, (), jnp.uint32),
        seen=jnp.int32(0),
    )


def _is_shared(leaf: Array) -> bool:
    """Whether a leaf of an optimiser's state is a number of updates, of which all members have made the same.

    One for each would be divided by as an array, and XLA rounds that apart in programs of one run and of several.
    """
    return bool(jnp.issubdtype(leaf.dtype, jnp.integer))


def _axes(tree: Any) -> Any:
    """The axis of members in each leaf, for ``vmap``."""
    return jax.tree.map(lambda leaf: None if _is_shared(leaf) else 0, tree)


def _policy(members: Members, state: EnsembleState) -> Params:
    learned = members.parts.observations.pack(state.learner.online, state.learner.observations)
    return {"members": learned, "prior": state.prior} if members.prior else {"members": learned}


def _learner_of(members: Members, hparams: HParams, prior: Params) -> Learner:
    return make_learner(_parts_of(members, hparams, prior))


def _parts_of(members: Members, hparams: HParams, prior: Params) -> Parts:
    """The parts of the member that has this prior."""
    if not members.prior:
        return members.parts
    network = add_prior(members.parts.network, prior, hparams.ensemble_prior_scale)
    return members.parts._replace(network=network)


def _memory_of_all(members: Members) -> Memory | None:
    """The memory of actors, who carry what the networks of all members carry: leaves [E, K, ...]."""
    memory = members.parts.network.memory
    if memory is None:
        return None

    def carry(batch: int) -> Any:
        one = memory.carry(batch)
        both = (one, one) if members.prior else one
        return jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], members.size, axis=1), both)

    return memory._replace(carry=carry)


def _swapped(tree: Any) -> Any:
    """[E, K, ...] -> [K, E, ...], and back."""
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), tree)


def _faults(config: Config) -> Iterator[Fault]:
    """One member has neither a prior nor a mask, and FQF no prior."""
    ensemble = config.ensemble
    if ensemble.members == 1:
        for key, on in (("prior_scale", ensemble.prior_scale), ("mask", ensemble.mask < 1), ("prior", ensemble.prior)):
            if on and (key != "prior" or not ensemble.prior_scale):
                message = f"{getattr(ensemble, key)} needs ensemble.members of 2 or more"
                yield Fault(f"ensemble.{key}", message, ("ensemble.members",))
    elif ensemble.prior_scale and not ensemble.prior:
        message = f"{ensemble.prior_scale:g} needs ensemble.prior true or unset"
        yield Fault("ensemble.prior_scale", message, ("ensemble.prior",))
    if ensemble.prior and config.distribution.kind == "fqf":
        message = "'fqf' does not work with priors: a prior would propose other fractions than its member"
        yield Fault("distribution.kind", message, ("ensemble.prior_scale", "ensemble.prior"))


PRIORS = Axis(
    "ensemble.prior",
    {
        False: Choice(lambda config: False, faults=_faults),
        True: Choice(lambda config: True, keys=("ensemble.prior_scale",), faults=_faults),
    },
)
