"""The record of an algorithm: all that the loop knows about learning."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from purejaxdqn.core.config import HParams
from purejaxdqn.core.draws import ActDraws, LearnDraws
from purejaxdqn.core.environment import assert_same_structure
from purejaxdqn.core.schedules import Clock
from purejaxdqn.core.types import Array, Params, Rollout, UpdateStats


class ActorView(NamedTuple):
    """What actors see; E is any number of environments."""

    obs: Array  # [E, O]
    legal: Any = ()  # [E, A] bool: the actions that are legal now; () where all always are
    memory: Any = ()  # leaves [E, ...]: what ``act`` returned in the step before; () without a memory
    start: Any = ()  # [E] bool: an episode begins, and the memory is that of another; () without a memory


def no_memory(num_envs: int) -> tuple:
    """The memory of actors without one: ()."""
    return ()


def all_starting(memory: Any, num_envs: int) -> Any:
    """``ActorView.start`` [E] of actors before their first step; () without a memory."""
    return jnp.ones(num_envs, bool) if jax.tree.leaves(memory) else ()


class Algorithm(NamedTuple):
    """A learning algorithm as pure functions of a state, which is any pytree.

    A rollout is T steps of E environments under one policy. An iteration of the loop is a rollout and ``learn``;
    ``sync`` ends a period of many iterations. Keys and draws are consumed.
    """

    init: Callable[[HParams, Array], Any]  # key -> state
    policy: Callable[[Any], Params]  # state -> the policy: what acting, evaluation and export take
    act: Callable[[HParams, Params, ActorView, ActDraws, Clock], tuple[Array, Any]]
    # policy, view[E], draws, clock -> exploring action[E] int32, memory
    values: Callable[[HParams, Params, ActorView], tuple[Array, Any]]
    # policy, view[B] -> Q-values[B, A] whose largest legal one is the greedy action, memory
    observe: Callable[[HParams, Any, Rollout], Any]  # state, a rollout of the warm-up -> state
    learn: Callable[[HParams, Any, Rollout, Any, Clock], tuple[Any, UpdateStats]]
    # state, rollout, draws, clock -> state, means over its updates
    sync: Callable[[HParams, Any], Any]  # state -> state; the identity without a target network
    draws: LearnDraws  # what ``learn`` consumes
    memory: Callable[[int], Any] = no_memory  # E -> the memory of E actors before their first step


ILLEGAL = -1e30
"""The Q-value of an illegal action: lower than any other, and finite, so that a policy of 0 times it is 0."""


def masked(q_values: Array, legal: Any) -> Array:
    """Q-values [B, A] in which those of illegal actions are ``ILLEGAL``; as they are where all actions always are."""
    return q_values if isinstance(legal, tuple) else jnp.where(legal, q_values, ILLEGAL)


def greedy(q_values: Array, legal: Any) -> Array:
    """The legal actions [E] of the largest Q-values [E, A]; the first of several."""
    return jnp.argmax(masked(q_values, legal), axis=-1)


def checked_algorithm(algorithm: Algorithm, *, num_actions: int) -> Algorithm:
    """``algorithm``, whose functions check the shapes and types of their results when they are traced.

    The compiled program is the same. An AssertionError names the function at fault.
    """

    def act(hparams: HParams, policy: Params, view: ActorView, draws: ActDraws, clock: Clock) -> tuple[Array, Any]:
        action, memory = algorithm.act(hparams, policy, view, draws, clock)
        chex.assert_shape(action, view.obs.shape[:1], custom_message="algorithm.act: the actions")
        chex.assert_type(action, int, custom_message="algorithm.act: the actions")
        assert_same_structure(view.memory, memory, "algorithm.act: the memory")
        return action, memory

    def values(hparams: HParams, policy: Params, view: ActorView) -> tuple[Array, Any]:
        q_values, memory = algorithm.values(hparams, policy, view)
        shape = (view.obs.shape[0], num_actions)
        chex.assert_shape(q_values, shape, custom_message="algorithm.values: the Q-values")
        chex.assert_type(q_values, float, custom_message="algorithm.values: the Q-values")
        assert_same_structure(view.memory, memory, "algorithm.values: the memory")
        return q_values, memory

    def observe(hparams: HParams, state: Any, rollout: Rollout) -> Any:
        after = algorithm.observe(hparams, state, rollout)
        assert_same_structure(state, after, "algorithm.observe: the state")
        return after

    def learn(hparams: HParams, state: Any, rollout: Rollout, draws: Any, clock: Clock) -> tuple[Any, UpdateStats]:
        after, stats = algorithm.learn(hparams, state, rollout, draws, clock)
        assert_same_structure(state, after, "algorithm.learn: the state")
        for name, value in stats._asdict().items():
            if isinstance(value, tuple):  # a statistic that this algorithm does not have
                continue
            chex.assert_shape(value, (), custom_message=f"algorithm.learn: {name}")
        return after, stats

    def sync(hparams: HParams, state: Any) -> Any:
        after = algorithm.sync(hparams, state)
        assert_same_structure(state, after, "algorithm.sync: the state")
        return after

    return algorithm._replace(act=act, values=values, observe=observe, learn=learn, sync=sync)


def mean(stats: Any) -> Any:
    """The mean of every leaf."""
    return jax.tree.map(jnp.mean, stats)
