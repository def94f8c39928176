"""The learner: Q-values, targets and gradient steps of any head, bootstrap, network and optimiser.

Every member of the family makes the same backup, and differs in what the words mean (``bootstrap``, ``heads``):

    target = reward + bonus + discount * (sum_a policy(a) Z(next_obs, a) + entropy)
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from purejaxdqn.core.algorithm import masked
from purejaxdqn.core.config import HParams
from purejaxdqn.core.environment import assert_same_structure
from purejaxdqn.core.types import Array, Params, UpdateStats
from purejaxdqn.dqn.bootstrap import Bootstrap, Estimates
from purejaxdqn.dqn.heads import Head
from purejaxdqn.dqn.memory import Memory
from purejaxdqn.dqn.networks import QFunction, draw_noise
from purejaxdqn.dqn.observations import Observations
from purejaxdqn.dqn.optimizers import Optimizer
from purejaxdqn.dqn.types import Batch, Quantiles, Transition


class Parts(NamedTuple):
    """One choice of each axis."""

    network: QFunction
    head: Head
    bootstrap: Bootstrap
    optimizer: Optimizer
    observations: Observations
    example: Array  # [1, O] an observation
    num_actions: int
    some_illegal: bool = False  # whether the environment has illegal actions


class LearnerState(NamedTuple):
    """All that learning changes."""

    online: Params
    target: Params
    opt_state: Any
    observations: Any  # the statistics of ``Observations``


class Learner(NamedTuple):
    """Pure functions of a state, which is any pytree; B is the batch of a call, and keys are consumed."""

    init: Callable[[HParams, Array], Any]  # key -> state
    policy: Callable[[Any], Params]  # what ``q_values`` takes
    q_values: Callable[..., tuple[Array, Any]]
    # hparams, policy, obs[B, O], key=None, recall=NO_RECALL -> [B, A], carries; a key turns noise on
    observe: Callable[[Any, Array], Any]  # obs[N, O] of the environments
    update: Callable[[HParams, Any, Batch, Array, Array], tuple[Any, Array, UpdateStats]]
    # batch, key, learning rate [] -> state, TD error[B] or what stands for those of a sequence [B], stats
    sync: Callable[[HParams, Any], Any]
    memory: Memory | None  # of the network


def make_learner(parts: Parts) -> Learner:
    """The learner made of these parts."""
    return Learner(
        init=functools.partial(_init, parts),
        policy=functools.partial(_policy, parts),
        q_values=functools.partial(_q_values, parts),
        observe=functools.partial(_observe, parts),
        update=functools.partial(_update, parts),
        sync=functools.partial(_sync, parts),
        memory=parts.network.memory,
    )


class Draws(NamedTuple):
    """The randomness of one update; None where nothing consumes it."""

    online: Array | None  # [noise_size] noise of the online network
    target: Array | None  # ... of the target network
    selection: Array | None  # ... of the online network where it only chooses actions (Fortunato et al. 2018, eq. 18)
    fractions: Array | None  # [B, K] for the online network
    target_fractions: Array | None  # [B, K] for the target network


def draw(parts: Parts, params: Params, key: Array, batch_size: int) -> Draws:
    """The draws of one update of ``batch_size`` transitions."""
    noise_key, fraction_key = jax.random.split(key)
    noise = draw_noise(params, noise_key, 3)
    online, target, selection = (None,) * 3 if noise is None else noise
    return Draws(online, target, selection, *parts.head.draw_fractions(fraction_key, batch_size))


class Recall(NamedTuple):
    """What a network with a memory starts from: B' sequences of L steps, which make up a batch of L * B' items."""

    carry: Any = ()  # leaves [B', ...]: before the first step
    start: Any = ()  # [L, B'] bool: a step is the first of its episode


NO_RECALL = Recall()
"""Without a memory."""


class Recalls(NamedTuple):
    """What two networks start from in the same sequences."""

    online: Recall = NO_RECALL
    target: Recall = NO_RECALL
    after: Any = ()  # [L, B'] int32: the step of the sequence that next_obs follows; () where it is the item's own


NO_RECALLS = Recalls()
"""Without a memory."""


def forward(
    parts: Parts, params: Params, x: Array, noise: Array | None, fractions: Array | None, recall: Recall
) -> tuple[Any, Any]:
    """The network's output for inputs ``x`` [B, ...], and the carries after each step, leaves [L, B', ...]."""
    return parts.network.apply(params, x, noise, fractions, *recall)


def mean_q(
    parts: Parts, hparams: HParams, params: Params, x: Array, noise: Array | None, recall: Recall = NO_RECALL
) -> tuple[Array, Any]:
    """Q-values [B, A] of network inputs ``x`` [B, ...], and carries as in ``forward``."""
    out, carries = forward(parts, params, x, noise, parts.head.acting_fractions(hparams), recall)
    q_values = parts.head.q_values(hparams, out)
    chex.assert_shape(q_values, (x.shape[0], parts.num_actions), custom_message="head.q_values: the Q-values")
    return q_values, carries


class Bootstrapped(NamedTuple):
    """The inputs of ``Head.backup``, but for the hyper-parameters."""

    value: Any  # of next_obs, leaves [B, ...]; see ``Head``
    reward: Array  # [B] with what the bootstrap adds
    discount: Array  # [B]


def bootstrapped(
    parts: Parts,
    hparams: HParams,
    learner: LearnerState,
    transition: Transition,
    draws: Draws,
    recalls: Recalls = NO_RECALLS,
) -> Bootstrapped:
    """The value, reward and discount of transitions [B] whose observations are network inputs.

    With a memory these are sequences, and next_obs is seen with what is remembered after the step before it, so that
    the value at a time limit is that of the true final observation.
    """
    obs, action, reward, discount, next_obs, legal, next_legal = transition

    def q_values(params: Params, x: Array, noise: Array | None, legal: Any, recall: Recall) -> Array:
        return masked(mean_q(parts, hparams, params, x, noise, recall)[0], legal)

    def before_next(params: Params, noise: Array | None, recall: Recall) -> Recall:
        if parts.network.memory is None:
            return NO_RECALL
        carries = mean_q(parts, hparams, params, obs, noise, recall)[1]
        if not isinstance(recalls.after, tuple):
            carries = jax.tree.map(lambda leaf: leaf[recalls.after, jnp.arange(leaf.shape[1])], carries)
        return Recall(jax.tree.map(flat, carries), jnp.zeros((1, obs.shape[0]), bool))

    remembered = before_next(learner.target, draws.target, recalls.target)
    next_out, _ = forward(parts, learner.target, next_obs, draws.target, draws.target_fractions, remembered)

    def target_next() -> Array:
        if draws.target_fractions is None:
            return masked(parts.head.q_values(hparams, next_out), next_legal)
        # At other fractions than the target's.
        return q_values(learner.target, next_obs, draws.target, next_legal, remembered)

    def online_next() -> Array:
        online = before_next(learner.online, draws.selection, recalls.online)
        return q_values(learner.online, next_obs, draws.selection, next_legal, online)

    estimates = Estimates(
        target_next=target_next,
        online_next=online_next,
        target_now=lambda: q_values(learner.target, obs, draws.target, legal, recalls.target),
        action=action,
    )
    backup = parts.bootstrap(hparams, estimates)
    chex.assert_shape(backup.policy, (*action.shape, parts.num_actions), custom_message="bootstrap: the policy")
    for name, number in (("bonus", backup.bonus), ("entropy", backup.entropy)):
        if jnp.ndim(number):  # else it is the same for all
            chex.assert_shape(number, action.shape, custom_message=f"bootstrap: the {name}")
    value = parts.head.value(hparams, next_out, backup.policy)
    return Bootstrapped(value, reward + backup.bonus + discount * backup.entropy, discount)


def descend(
    parts: Parts, hparams: HParams, learner: LearnerState, sample: "Sample", rate: Array
) -> tuple[LearnerState, Array, UpdateStats]:
    """One gradient step on the weighted mean loss -> state, TD error [B], stats."""

    def loss(online: Params) -> tuple[Array, tuple[Array, Array]]:
        out, _ = forward(parts, online, sample.obs, sample.noise, sample.fractions, sample.recall)
        losses, td_error = parts.head.loss(hparams, out, sample.action, sample.target)
        chex.assert_shape([losses, td_error], sample.action.shape, custom_message="head.loss: losses and TD errors")
        q_values = jnp.take_along_axis(parts.head.q_values(hparams, out), sample.action[:, None], axis=1)
        return jnp.mean(sample.weight * losses), (td_error, jnp.mean(q_values))

    (loss_value, (td_error, q_value)), grads = jax.value_and_grad(loss, has_aux=True)(learner.online)
    online, opt_state, grad_norm = parts.optimizer.step(hparams, rate, grads, learner.opt_state, learner.online)
    before = learner.online, learner.opt_state
    assert_same_structure(before, (online, opt_state), "optimizer: the parameters and its state")
    stats = UpdateStats(loss=loss_value, q_value=q_value, grad_norm=grad_norm)
    return learner._replace(online=online, opt_state=opt_state), td_error, stats


class Sample(NamedTuple):
    """What a gradient step learns from."""

    obs: Array  # [B, ...] network inputs
    action: Array  # [B]
    target: Any  # of the head
    weight: Array  # [B] importance weight
    noise: Array | None  # as in ``Draws.online``
    fractions: Array | None  # as in ``Draws.fractions``
    recall: Recall = NO_RECALL


def _init(parts: Parts, hparams: HParams, key: Array) -> LearnerState:
    statistics = parts.observations.init()
    inputs = parts.observations.inputs(statistics, parts.example)
    online = parts.network.init(key, inputs, hparams.network_sigma)
    return LearnerState(online, jax.tree.map(jnp.copy, online), parts.optimizer.init(online), statistics)


def _policy(parts: Parts, learner: LearnerState) -> Params:
    return parts.observations.pack(learner.online, learner.observations)


def _q_values(
    parts: Parts,
    hparams: HParams,
    policy: Params,
    obs: Array,
    key: Array | None = None,
    recall: Recall = NO_RECALL,
) -> tuple[Array, Any]:
    online, statistics = parts.observations.unpack(policy)
    noise = None if key is None else draw_noise(online, key, obs.shape[0])
    return mean_q(parts, hparams, online, parts.observations.inputs(statistics, obs), noise, recall)


def _observe(parts: Parts, learner: LearnerState, obs: Array) -> LearnerState:
    return learner._replace(observations=parts.observations.observe(learner.observations, obs))


def _update(
    parts: Parts, hparams: HParams, learner: LearnerState, batch: Batch, key: Array, rate: Array
) -> tuple[LearnerState, Array, UpdateStats]:
    transition, weight = (batch.transition, batch.weight) if parts.network.memory is None else _items(batch)
    draws = draw(parts, learner.online, key, weight.shape[0])
    inputs = functools.partial(parts.observations.inputs, learner.observations)
    transition = transition._replace(obs=inputs(transition.obs), next_obs=inputs(transition.next_obs))
    recalls = _burnt_in(parts, hparams, learner, batch.sequence, draws)
    target = parts.head.backup(hparams, *bootstrapped(parts, hparams, learner, transition, draws, recalls))
    sample = Sample(transition.obs, transition.action, target, weight, draws.online, draws.fractions, recalls.online)
    learner, td_error, stats = descend(parts, hparams, learner, sample, rate)
    if parts.network.memory is not None:
        td_error = sequence_priority(td_error.reshape(batch.transition.action.shape), eta=hparams.replay_eta)
    return learner, td_error, stats


def _items(batch: Batch) -> tuple[Transition, Array]:
    """Sequences [L, B, ...] as items [L * B, ...], time first, and the weight of each."""
    weight = jnp.broadcast_to(batch.weight, batch.transition.action.shape)
    return jax.tree.map(flat, (batch.transition, weight))


def _burnt_in(parts: Parts, hparams: HParams, learner: LearnerState, sequence: Any, draws: Draws) -> Recalls:
    """What both networks remember before the first transition of sequences.

    Each is unrolled over the burn-in from the carry that was stored (Kapturowski et al. 2019, section 3). The loss is
    not computed here but from the result, so no gradient flows into the burn-in.
    """
    if parts.network.memory is None:
        return NO_RECALLS
    steps = sequence.burn_in.shape[0]

    def before(params: Params, noise: Array | None) -> Recall:
        carry = sequence.carry
        if steps:
            x = parts.observations.inputs(learner.observations, flat(sequence.burn_in))
            _, carries = mean_q(parts, hparams, params, x, noise, Recall(carry, sequence.start[:steps]))
            carry = jax.tree.map(lambda leaf: leaf[-1], carries)
        return Recall(carry, sequence.start[steps:])

    return Recalls(before(learner.online, draws.online), before(learner.target, draws.target), sequence.after)


def sequence_priority(td_error: Array, *, eta: Array) -> Array:
    """The priority [B] of sequences from TD errors [L, B] (Kapturowski et al. 2019, section 2.3).

    eta times the largest absolute error, and 1 - eta times the mean.
    """
    size = jnp.abs(td_error)
    return eta * jnp.max(size, axis=0) + (1 - eta) * jnp.mean(size, axis=0)


def flat(leaf: Array) -> Array:
    """[L, B, ...] -> [L * B, ...]."""
    return leaf.reshape(-1, *leaf.shape[2:])


def _sync(parts: Parts, hparams: HParams, learner: LearnerState) -> LearnerState:
    return learner._replace(target=optax.incremental_update(learner.online, learner.target, hparams.schedule_tau))


def check_output(parts: Parts) -> None:
    """Refuse a network whose output is not what the head takes.

    Raises:
      ValueError: names the shapes.
    """
    head = parts.head
    x = parts.observations.inputs(parts.observations.init(), parts.example)
    params = jax.eval_shape(parts.network.init, jax.random.key(0), x, jnp.zeros(()))
    memory = parts.network.memory
    recall = Recall(memory.carry(1), jnp.zeros((1, 1), bool)) if memory else NO_RECALL
    out, _ = jax.eval_shape(
        lambda params: forward(parts, params, x, None, jnp.zeros(head.outputs or 1), recall), params
    )
    if isinstance(out, Quantiles):
        return
    if head.fractions != "none":
        raise ValueError("a distribution with fractions (iqn, fqf) needs the config's own network")
    wanted = (1, parts.num_actions, *head.outputs)
    if getattr(out, "shape", None) != wanted:
        raise ValueError(f"the head needs a network that returns {wanted}, not {getattr(out, 'shape', out)}")
