"""Gymnax, and environments with its interface. The only file that imports gymnax."""

import dataclasses
import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxdqn.core.environment import Environment
from purejaxdqn.core.types import Array, Step
from purejaxdqn.environments.batched import Single, batched, strengthen
from purejaxdqn.environments.importing import Later, any_backend, standing_in
from purejaxdqn.environments.interface import check_interface, is_storable
from purejaxdqn.environments.listed import GYMNAX
from purejaxdqn.environments.wrappers import EnvironmentRefusedError, first_line, with_features, with_sticky_actions


@functools.cache
def import_gymnax() -> Any:
    """Import gymnax late and without its plotting libraries.

    Late, because its import makes arrays and so starts JAX, after which threads and devices cannot be changed.
    Without plotting libraries, because its top level imports them for its renderers alone, and they take half of the
    time.
    """
    stand_ins = {name: Later(name) for name in ("seaborn", "matplotlib.pyplot") if name not in sys.modules}
    if "matplotlib" not in sys.modules:  # ``import matplotlib.pyplot as plt`` takes pyplot from it
        parts = {name: Later(f"matplotlib.{name}") for name in ("pyplot", "colors", "animation")}
        stand_ins["matplotlib"] = Later("matplotlib", **parts)
    with standing_in(stand_ins), any_backend():
        return importlib.import_module("gymnax")


# Downloads data when it is constructed.
_LEFT_OUT = ("MNISTBandit-bsuite",)

_GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
_BINARY = frozenset(f"{game}-MinAtar" for game in _GAMES) | frozenset(
    ("Catch-bsuite", "DeepSea-bsuite", "SimpleBandit-bsuite", "Pong-misc", "FourRooms-misc")
)
"""Environments whose float observations are all 0 or 1, kept as bool in a quarter of the bytes (of FourRooms, the
pictures)."""

ONE_HOT = frozenset(("DeepSea-bsuite",))
"""Environments whose observations have at most one 1."""


def gymnax_ids() -> list[str]:
    """The environments of gymnax that can be trained on without a download."""
    return [name for name in import_gymnax().registered_envs if name not in _LEFT_OUT]


def is_binary(env_id: str) -> bool:
    """Whether the float observations of an environment are all 0 or 1."""
    return env_id in _BINARY


def construct_gymnax(env_id: str, kwargs: Mapping[str, Any]) -> Any:
    """The environment of gymnax called ``env_id``.

    Raises:
      EnvironmentRefusedError: the arguments do not fit its constructor.
    """
    return construct(lambda **kwargs: import_gymnax().make(env_id, **kwargs)[0], env_id, kwargs)


def construct(build: Callable[..., Any], env_id: str, kwargs: Mapping[str, Any]) -> Any:
    """Call an environment's constructor.

    Raises:
      EnvironmentRefusedError: it fails; the message says why.
    """
    try:
        return build(**kwargs)
    except Exception as error:  # whatever an environment's constructor may raise
        failed = f"{dict(kwargs)} do not fit {env_id}" if kwargs else f"{env_id} cannot be made without arguments"
        raise EnvironmentRefusedError("env.kwargs", f"{failed}: {first_line(error)}") from error


def from_gymnax(
    env: Any,
    params: Any = None,
    *,
    env_id: str | None = None,
    binary: bool = False,
    resets: int | None = None,
    scale: float | None = None,
    sticky_actions: float = 0.0,
    one_hot: bool = False,
    flatten: bool = False,
) -> Environment:
    """Wrap one environment with gymnax's interface (``reset``, ``step``, ``action_space`` ...).

    Args:
      env: the environment; its ``step`` resets automatically and reports ``info["final_observation"]``.
      params: its parameters; by default ``env.default_params``.
      env_id: a name; by default the environment's own.
      binary: whether its float observations are all 0 or 1, so that replay can store them as bool.
      resets: see ``batched``; needs gymnax's ``step_env`` and ``is_truncated``, which are used in place of ``step``.
      scale: features are observations divided by this number, such as 255 for pixels.
      sticky_actions: the probability that a step repeats the action before it (Machado et al. 2018).
      one_hot: features of integer observations are one-hot along a new last axis, whose length is their range.
      flatten: features have one axis.

    Raises:
      EnvironmentRefusedError: a part of the interface is missing, the actions are not discrete, observations are not
        one array, ``resets`` is given and ``step`` is the environment's own, or ``one_hot`` does not suit them.
    """
    env_id = env_id or (env.__name__ if isinstance(env, type) else str(getattr(env, "name", type(env).__name__)))
    if type(env).__module__.partition(".")[0] != "gymnax":
        check_interface(env, env_id, params)
    default_params = env.default_params if params is None else params
    num_actions, observation = _check_spaces(env, default_params, env_id)
    is_float = jnp.issubdtype(observation.dtype, jnp.floating)
    obs_dtype = jnp.dtype(bool) if binary and is_float else observation.dtype
    wrapped = Environment(
        env_id=env_id,
        obs_shape=observation.shape,
        obs_dtype=obs_dtype,
        num_actions=num_actions,
        default_params=default_params,
        with_params=functools.partial(_with_params, default_params),
        reset=functools.partial(_reset, env, obs_dtype),
        step=functools.partial(_step, env.step, obs_dtype),
        advance=functools.partial(_step, _step_without_reset(env), obs_dtype),
        features=lambda obs: obs,
        params=_parameter_types(default_params),
        bounds=functools.partial(_bounds, env, default_params),
        time_limit=_time_limit(default_params),
        scale=scale,
        solved_at=GYMNAX[env_id].solved_at if env_id in GYMNAX else None,
    )
    if resets is not None:
        few = batched(_single(env, wrapped), resets=resets)
        wrapped = wrapped._replace(reset=few.reset, step=few.step, advance=few.advance)
    return with_sticky_actions(with_features(wrapped, one_hot=one_hot, flatten=flatten), sticky_actions)


def _single(env: Any, wrapped: Environment) -> Single:
    """One environment that does not reset itself; it counts its time limit.

    Raises:
      EnvironmentRefusedError: it has only a ``step`` that resets.
    """
    of_one = _step_without_reset(env)
    if of_one == env.step:
        raise EnvironmentRefusedError("env.resets", f"{wrapped.env_id} has its own step, which resets automatically")

    def reset(key: Array, params: Any) -> tuple[Array, Any]:
        obs, state = env.reset(key, params)
        return obs.astype(wrapped.obs_dtype), state

    def step(key: Array, state: Any, action: Array, params: Any) -> tuple:
        obs, state, reward, terminated, truncated, _ = of_one(key, state, action, params)
        return obs.astype(wrapped.obs_dtype), state, reward, terminated, truncated

    return Single(wrapped.env_id, wrapped.num_actions, reset, step, wrapped.default_params)


def _check_spaces(env: Any, params: Any, env_id: str) -> tuple[int, jax.ShapeDtypeStruct]:
    """The number of actions, and the shape and type of an observation.

    Raises:
      EnvironmentRefusedError: the actions are not discrete, or observations are not one array of real numbers.
    """
    actions = env.action_space(params)
    if not hasattr(actions, "n"):
        if hasattr(actions, "low"):
            message = f"{env_id!r} has continuous actions; Q-learning needs discrete ones"
        else:
            message = f"actions of {env_id!r} are {type(actions).__name__}; Q-learning needs one discrete action"
        raise EnvironmentRefusedError("env.id", message)
    observation = jax.eval_shape(lambda: env.reset(jax.random.key(0), params)[0])
    if not isinstance(observation, jax.ShapeDtypeStruct):
        raise EnvironmentRefusedError("env.id", f"observations of {env_id} are not one array")
    if not is_storable(observation.dtype):
        raise EnvironmentRefusedError("env.id", f"observations of {env_id} are {observation.dtype}")
    return int(actions.n), observation


def _with_params(default_params: Any, overrides: Mapping[str, Any]) -> Any:
    cast = {name: _cast_like(getattr(default_params, name), value) for name, value in overrides.items()}
    return default_params.replace(**cast) if cast else default_params


def _reset(env: Any, obs_dtype: Any, params: Any, keys: Array) -> tuple[Array, Any]:
    obs, state = jax.vmap(env.reset, (0, None))(keys, params)
    return obs.astype(obs_dtype), strengthen(state)


def _step(
    of_one: Callable, obs_dtype: Any, params: Any, keys: Array, state: Any, obs: Array, action: Array
) -> tuple[Array, Any, Step]:
    """A step of a batch; ``of_one`` is that of one environment."""
    mapped = jax.vmap(of_one, (0, 0, 0, None))
    obs_after, state, reward, terminated, truncated, info = mapped(keys, state, action, params)
    happened = Step(
        obs=obs,
        action=action,
        reward=reward.astype(jnp.float32),
        terminated=terminated.astype(bool),
        truncated=truncated.astype(bool),
        next_obs=info["final_observation"].astype(obs_dtype),
    )
    return obs_after.astype(obs_dtype), strengthen(state), happened


def _step_without_reset(env: Any) -> Callable:
    """The ``step`` of gymnax without the reset, which it makes in every step; an overridden ``step`` is kept."""
    gymnax_step = import_gymnax().environments.environment.Environment.step
    if getattr(type(env), "step", None) is not gymnax_step:
        return env.step

    @jax.jit  # traced once for all programs, as gymnax's own is
    def step(key: Array, state: Any, action: Array, params: Any) -> tuple:
        key, _ = jax.random.split(key)  # as there, so that both draw the same
        obs, state, reward, terminated, info = env.step_env(key, state, action, params)
        return obs, state, reward, terminated, env.is_truncated(state, params), info | {"final_observation": obs}

    return step


def _parameter_types(params: Any) -> dict[str, Any]:
    """Names of the parameters and their NumPy types; None for one that is not a single number."""
    if not dataclasses.is_dataclass(params):
        return {}
    values = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    return {name: _number_type(value) for name, value in values.items()}


def _number_type(value: Any) -> Any:
    dtype = np.asarray(value).dtype
    return None if np.shape(value) or dtype.kind not in "biuf" else dtype


def _time_limit(params: Any) -> int | None:
    limit = getattr(params, "max_steps_in_episode", None)
    return None if limit is None else int(limit)


def _bounds(env: Any, params: Any) -> tuple[Any, Any]:
    """Lowest and highest value of an observation.

    Raises:
      Exception: whatever a user's environment may raise.
    """
    space = env.observation_space(params)
    return (0, space.n - 1) if hasattr(space, "n") else (np.min(space.low), np.max(space.high))


def _cast_like(default: Any, value: Any) -> Array:
    return jnp.asarray(value, jnp.result_type(default))
