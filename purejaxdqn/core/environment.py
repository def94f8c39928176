"""The record of an environment: a batch of environments with resets, of any suite."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from purejaxdqn.core.types import Array, Step


def all_legal(params: Any, state: Any) -> tuple:
    """The legal actions of an environment in which every action is always legal: ()."""
    return ()


class Environment(NamedTuple):
    """A batch of E environments. ``params`` stands for the result of ``with_params``."""

    env_id: str
    obs_shape: tuple[int, ...]  # O
    obs_dtype: Any  # the type in which replay keeps observations
    num_actions: int  # A
    default_params: Any
    with_params: Callable[[Mapping[str, Any]], Any]  # overrides -> environment parameters
    reset: Callable[[Any, Array], tuple[Array, Any]]  # params, keys[E] -> obs[E, O], state
    step: Callable[[Any, Array, Any, Array, Array], tuple[Array, Any, Step]]
    # params, keys[E], state, obs[E, O], action[E] -> the obs to act on next[E, O], state, Step[E]; resets at an end.
    # The step has ``next_legal`` where there are illegal actions; the loop adds ``legal``.
    advance: Callable[[Any, Array, Any, Array, Array], tuple[Array, Any, Step]]
    # ``step`` without resets, for callers that stop at an episode's end
    features: Callable[[Array], Array]  # obs[B, O] -> what a network sees of it, [B, ...]
    legal: Callable[[Any, Any], Any] = all_legal  # params, state -> legal actions [E, A] bool, or () where all are
    params: Mapping[str, Any] = {}  # names of the parameters and their NumPy types; None for one that is not a number
    bounds: Callable[[], tuple[Any, Any]] | None = None  # -> lowest and highest value of an observation
    time_limit: int | None = None  # steps after which an episode is truncated; None where the suite does not say
    scale: float | None = None  # the number that ``features`` divides by, such as 255 for pixels; None does not divide
    own_features: Callable[[Array], Array] | None = None  # of the environment's author, a part of ``features``
    solved_at: float | None = None  # the return from which the field calls the environment solved
    render: Callable[[Any, Any], Any] | None = None  # params, state of one environment -> an image [H, W, 3] uint8
    frames: int = 1  # observations that are seen at once; if more than one, the first axis of O


def render_inner(render: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], Any] | None:
    """``render`` for the states of wrappers, whose ``env_state`` it takes."""
    return None if render is None else lambda params, state: render(params, state.env_state)


def checked_environment(env: Environment) -> Environment:
    """``env``, whose functions check the shapes and types of their results when they are traced.

    The compiled program is the same. An AssertionError names the environment and the part at fault.
    """

    def expect(part: str, found: Any, shape: tuple[int, ...], dtype: Any) -> None:
        where = f"environment {env.env_id}: {part}"
        chex.assert_shape(found, shape, custom_message=where)
        chex.assert_type(found, dtype, custom_message=where)

    def reset(params: Any, keys: Array) -> tuple[Array, Any]:
        obs, state = env.reset(params, keys)
        expect("the observation of reset", obs, (keys.shape[0], *env.obs_shape), env.obs_dtype)
        return obs, state

    def checking(step: Callable, name: str) -> Callable:
        def of(params: Any, keys: Array, state: Any, obs: Array, action: Array) -> tuple[Array, Any, Step]:
            obs_after, state_after, happened = step(params, keys, state, obs, action)
            size = keys.shape[0]
            for part, found in (("observation", obs_after), ("next_obs", happened.next_obs), ("obs", happened.obs)):
                expect(f"{part} of {name}", found, (size, *env.obs_shape), env.obs_dtype)
            expect(f"reward of {name}", happened.reward, (size,), jnp.float32)
            expect(f"terminated of {name}", happened.terminated, (size,), jnp.bool_)
            expect(f"truncated of {name}", happened.truncated, (size,), jnp.bool_)
            if env.legal is not all_legal:
                expect(f"next_legal of {name}", happened.next_legal, (size, env.num_actions), jnp.bool_)
            assert_same_structure(state, state_after, f"environment {env.env_id}: the state of {name}")
            return obs_after, state_after, happened

        return of

    def legal(params: Any, state: Any) -> Any:
        found = env.legal(params, state)
        if not isinstance(found, tuple):
            expect("legal actions", found, (found.shape[0], env.num_actions), np.bool_)
        return found

    return env._replace(
        reset=reset, step=checking(env.step, "step"), advance=checking(env.advance, "advance"), legal=legal
    )


def assert_same_structure(before: Any, after: Any, part: str) -> None:
    """Assert that ``part`` kept its structure, shapes and types, as the carry of a scan must."""
    try:
        chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
    except AssertionError as error:
        raise AssertionError(f"{part} changes its structure, a shape or a type: {error}") from error
