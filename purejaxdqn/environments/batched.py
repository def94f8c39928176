"""A batch of environments with resets, made from one environment of any suite without resets."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxdqn.core.environment import Environment, all_legal, render_inner
from purejaxdqn.core.keys import is_key
from purejaxdqn.core.types import Array, Step
from purejaxdqn.environments.wrappers import with_features


class Single(NamedTuple):
    """One environment as pure functions, without a time limit and without resets of its own.

    ``params`` is any pytree, and stands for the environment's parameters.
    """

    env_id: str
    num_actions: int  # A
    reset: Callable[[Array, Any], tuple[Array, Any]]  # key, params -> obs[O], state
    step: Callable[[Array, Any, Array, Any], tuple[Array, Any, Array, Array, Array]]
    # key, state, action [], params -> obs[O], state, reward [], terminated [], truncated []
    params: Any = ()
    legal: Callable[[Any, Any], Array] | None = (
        None  # state, params -> legal actions [A] bool; None where all always are
    )
    time_limit: int | None = None  # steps after which ``batched`` truncates an episode
    features: Callable[[Array], Array] | None = (
        None  # obs[B, O] -> what a network sees of it, [B, ...]; None where it sees obs
    )
    with_params: Callable[[Mapping[str, Any]], Any] | None = None  # overrides -> params
    types: Mapping[str, Any] = {}  # names of the parameters that can be set, and their NumPy types
    bounds: Callable[[], tuple[Any, Any]] | None = None  # -> lowest and highest value of an observation
    scale: float | None = None  # what a network sees is divided by it, such as 255 for pixels
    solved_at: float | None = None
    render: Callable[[Any, Any], Any] | None = None  # params, state -> an image [H, W, 3] uint8


class _State(NamedTuple):
    env_state: Any  # leaves [E, ...]
    time: Any  # [E] int32 steps of the episode; () without a time limit


def batched(single: Single, *, resets: int | None = None) -> Environment:
    """E environments side by side, each reset when its episode ends.

    Args:
      single: the environment.
      resets: the number of new states made in a step, for environments that are expensive to reset. The environments
        whose episodes end in a step share them: with k states, the first and the (k + 1)-th of these environments begin
        in the same one. None makes one for each environment.

    Raises:
      ValueError: ``resets`` is below 1.
    """
    if resets is not None and resets < 1:
        raise ValueError(f"resets: {resets} is below 1")
    obs = jax.eval_shape(lambda: single.reset(jax.random.key(0), single.params)[0])

    def reset(params: Any, keys: Array) -> tuple[Array, Any]:
        obs, env_state = jax.vmap(single.reset, (0, None))(keys, params)
        time = () if single.time_limit is None else jnp.zeros(keys.shape[0], jnp.int32)
        return obs, _State(strengthen(env_state), time)

    def advance(params: Any, keys: Array, state: _State, obs: Array, action: Array) -> tuple[Array, Any, Step]:
        mapped = jax.vmap(single.step, (0, 0, 0, None))
        next_obs, env_state, reward, terminated, truncated = mapped(keys, state.env_state, action, params)
        after = _State(strengthen(env_state), jax.tree.map(lambda time: time + 1, state.time))
        truncated = truncated.astype(bool)
        if single.time_limit is not None:
            truncated = truncated | (after.time >= single.time_limit)
        step = Step(
            obs=obs,
            action=action,
            reward=reward.astype(jnp.float32),
            terminated=terminated.astype(bool),
            truncated=truncated,
            next_obs=next_obs,
            next_legal=legal(params, after) if single.legal else (),
        )
        return next_obs, after, step

    def step(params: Any, keys: Array, state: _State, obs: Array, action: Array) -> tuple[Array, Any, Step]:
        reset_keys, step_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        next_obs, after, happened = advance(params, step_keys, state, obs, action)
        ended = happened.terminated | happened.truncated
        fresh = reset(params, reset_keys[:resets])
        if resets is not None:
            place = (jnp.cumsum(ended) - 1) % fresh[0].shape[0]  # the n-th that ended takes the n-th
            fresh = jax.tree.map(lambda leaf: leaf[place], fresh)

        def choose(fresh: Array, going: Array) -> Array:
            return jnp.where(ended.reshape(ended.shape + (1,) * (going.ndim - 1)), fresh, going)

        next_obs, after = jax.tree.map(choose, fresh, (next_obs, after))
        return next_obs, after, happened

    def legal(params: Any, state: _State) -> Array:
        assert single.legal
        return jax.vmap(single.legal, (0, None))(state.env_state, params)

    env = Environment(
        env_id=single.env_id,
        obs_shape=obs.shape,
        obs_dtype=obs.dtype,
        num_actions=single.num_actions,
        default_params=single.params,
        with_params=single.with_params or (lambda overrides: single.params),
        reset=reset,
        step=step,
        advance=advance,
        features=single.features or (lambda obs: obs),
        own_features=single.features,
        scale=single.scale,
        legal=legal if single.legal else all_legal,
        params={name: np.dtype(one) for name, one in single.types.items()},
        bounds=single.bounds,
        time_limit=single.time_limit,
        solved_at=single.solved_at,
        render=render_inner(single.render),
    )
    return with_features(env)


def strengthen(state: Any) -> Any:
    """Fix the types of a state: a reset may have weak types, for which a scan would be traced twice."""

    def fix(leaf: Any) -> Array:
        return leaf if is_key(leaf) else jax.lax.convert_element_type(leaf, jnp.result_type(leaf))

    return jax.tree.map(fix, jax.tree.map(jnp.asarray, state))
