"""Environments: gymnax behind a small record of batched pure functions. The only file that imports gymnax."""

import difflib
import functools
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxdqn.core.types import Array, Step


class _Later(types.ModuleType):
    """Stands in for a module that is imported when something in it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@functools.cache
def _gymnax() -> Any:
    """Import gymnax late and light.

    Late, because its import makes arrays and so starts JAX, after which threads and devices are settled.
    Light, because at its top it imports plotting libraries that only its renderers use, half of its time.
    """
    stand_ins = {name: _Later(name) for name in ("seaborn", "matplotlib.pyplot") if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("gymnax")
    finally:
        for name in stand_ins:
            del sys.modules[name]


# Downloads data when it is constructed.
_LEFT_OUT = ("MNISTBandit-bsuite",)

_GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
_BINARY = frozenset(f"{game}-MinAtar" for game in _GAMES) | frozenset(
    ("Catch-bsuite", "DeepSea-bsuite", "SimpleBandit-bsuite", "Pong-misc", "FourRooms-misc")
)
"""Environments whose floats are all 0 or 1, kept as bool in a quarter of the bytes (of FourRooms, the pictures)."""

INPUTS: Mapping[str, int] = {
    **{"CartPole-v1": 4, "Acrobot-v1": 6, "MountainCar-v0": 2},
    **{f"{game}-MinAtar": 100 * n for game, n in zip(_GAMES, (4, 4, 7, 10, 6), strict=True)},
    **{"Catch-bsuite": 50, "DeepSea-bsuite": 64, "MemoryChain-bsuite": 3, "UmbrellaChain-bsuite": 3},
    **{"DiscountingChain-bsuite": 2, "SimpleBandit-bsuite": 1, "BernoulliBandit-misc": 4, "GaussianBandit-misc": 4},
    **{"FourRooms-misc": 4 * 12, "MetaMaze-misc": 15, "Pong-misc": 3600, "FrozenLake-misc": 16},
}
"""Most elements of an observation, one-hot where it can be, by the constructor's defaults: known before JAX starts."""

_MAX_DEPTH = 100_000  # of a one-hot axis; past that a range is no number of states

SOLVED_AT: Mapping[str, float] = {"CartPole-v1": 475.0, "Acrobot-v1": -100.0, "MountainCar-v0": -110.0}
"""Return at or above which an environment counts as solved, where the field agrees on one."""


class Environment(NamedTuple):
    """A batch of environments that reset themselves. ``params`` is what ``with_params`` returns."""

    env_id: str
    obs_shape: tuple[int, ...]
    obs_dtype: Any
    num_actions: int
    default_params: Any
    with_params: Callable[[Mapping[str, Any]], Any]  # overrides -> environment parameters
    reset: Callable[[Any, Array], tuple[Array, Any]]  # params, keys[E] -> obs[E, O], state
    step: Callable[[Any, Array, Any, Array, Array], tuple[Array, Any, Step]]
    # params, keys[E], state, obs[E, O], action[E] -> the obs to act on next[E, O], state, Step[E]
    advance: Callable[[Any, Array, Any, Array, Array], tuple[Array, Any, Step]]
    # ``step`` for who stops at an episode's end: nothing need be reset there, which is a large part of a step
    features: Callable[[Array], Array]  # obs[B, O] -> what a network sees of it, [B, ...]


class EnvironmentRefusedError(ValueError):
    """An environment that cannot be made; ``key`` is the config key at fault."""

    def __init__(self, key: str, message: str):
        super().__init__(message)
        self.key = key


def environment_ids() -> list[str]:
    """The gymnax environments that can be trained on without downloading anything."""
    return [name for name in _gymnax().registered_envs if name not in _LEFT_OUT]


def make_environment(
    env_id: str,
    kwargs: Mapping[str, Any] | None = None,
    *,
    sticky_actions: float = 0.0,
    one_hot: bool = False,
    flatten: bool = False,
) -> Environment:
    """Make the environment ``env_id``: a name that gymnax knows, or ``module:Class`` for one of the user's own.

    Args:
      env_id: the name. A module may lie in the working directory.
      kwargs: arguments of the environment's constructor.
      sticky_actions: see ``from_gymnax``, as the others.
      one_hot: likewise.
      flatten: likewise.

    Raises:
      EnvironmentRefusedError: there is no such environment, the arguments do not fit, the actions are not discrete,
        the user's own lacks a part of gymnax's interface, or ``one_hot`` does not suit the observations.
    """
    env = underlying_environment(env_id, kwargs)
    try:
        return from_gymnax(
            env,
            env_id=env_id,
            binary=env_id in _BINARY,
            sticky_actions=sticky_actions,
            one_hot=one_hot,
            flatten=flatten,
        )
    except EnvironmentRefusedError:
        raise
    except Exception as error:  # constructed, and yet no reset can be made of it: a size of 0 for one
        message = f"{env_id} with {dict(kwargs or {})} cannot be reset: {_first_line(error)}"
        raise EnvironmentRefusedError("env.kwargs", message) from error


def underlying_environment(env_id: str, kwargs: Mapping[str, Any] | None = None) -> Any:
    """What ``make_environment`` wraps: the object with gymnax's interface, for its spaces and its map.

    Raises:
      EnvironmentRefusedError: as ``make_environment``.
    """
    kwargs = dict(kwargs or {})
    if env_id in environment_ids():
        return _construct(lambda **kwargs: _gymnax().make(env_id, **kwargs)[0], env_id, kwargs)
    if ":" in env_id:
        env = _construct(_find_class(env_id), env_id, kwargs)
        _check_interface(env, env_id)
        return env
    close = difflib.get_close_matches(env_id, environment_ids(), n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise EnvironmentRefusedError("env.id", f"{env_id!r} is not an environment gymnax has{hint}")


def from_gymnax(
    env: Any,
    params: Any = None,
    *,
    env_id: str | None = None,
    binary: bool = False,
    sticky_actions: float = 0.0,
    one_hot: bool = False,
    flatten: bool = False,
) -> Environment:
    """Wrap one environment with gymnax's interface (``reset``, ``step``, ``action_space`` ...).

    Args:
      env: the environment; its ``step`` resets by itself and reports ``info["final_observation"]``.
      params: its parameters, ``env.default_params`` unless given.
      env_id: a name, the environment's own unless given.
      binary: its float observations are all 0 or 1: give them as bool.
      sticky_actions: chance that a step repeats the action before it (Machado et al. 2018).
      one_hot: features of integer observations are one-hot along a new last axis, as deep as their range.
      flatten: features are one axis long.

    Raises:
      EnvironmentRefusedError: the actions are not discrete, observations are not one array, or ``one_hot`` does not
        suit them.
    """
    default_params = env.default_params if params is None else params
    env_id = env_id or str(env.name)
    actions = env.action_space(default_params)
    if not hasattr(actions, "n"):
        raise EnvironmentRefusedError("env.id", f"{env_id!r} has continuous actions; Q-learning needs discrete ones")
    observation = jax.eval_shape(lambda: env.reset(jax.random.key(0), default_params)[0])
    if not isinstance(observation, jax.ShapeDtypeStruct):
        raise EnvironmentRefusedError("env.id", f"observations of {env_id} are not one array")
    is_float = jnp.issubdtype(observation.dtype, jnp.floating)
    obs_dtype = jnp.dtype(bool) if binary and is_float else observation.dtype
    depth = _one_hot_depth(env, default_params, env_id, obs_dtype) if one_hot else 0

    def with_params(overrides: Mapping[str, Any]) -> Any:
        cast = {name: _cast_like(getattr(default_params, name), value) for name, value in overrides.items()}
        return default_params.replace(**cast) if cast else default_params

    def reset(params: Any, keys: Array) -> tuple[Array, Any]:
        obs, state = jax.vmap(env.reset, (0, None))(keys, params)
        return obs.astype(obs_dtype), _strengthen(state)

    def step(
        params: Any, keys: Array, state: Any, obs: Array, action: Array, *, of_one: Callable = env.step
    ) -> tuple[Array, Any, Step]:
        obs_after, state, reward, terminated, truncated, info = jax.vmap(of_one, (0, 0, 0, None))(
            keys, state, action, params
        )
        happened = Step(
            obs=obs,
            action=action,
            reward=reward.astype(jnp.float32),
            terminated=terminated.astype(bool),
            truncated=truncated.astype(bool),
            next_obs=info["final_observation"].astype(obs_dtype),
        )
        return obs_after.astype(obs_dtype), _strengthen(state), happened

    wrapped = Environment(
        env_id=env_id,
        obs_shape=observation.shape,
        obs_dtype=obs_dtype,
        num_actions=int(actions.n),
        default_params=default_params,
        with_params=with_params,
        reset=reset,
        step=step,
        advance=functools.partial(step, of_one=_step_without_reset(env)),
        features=functools.partial(observation_features, depth=depth, flatten=flatten),
    )
    return _with_sticky_actions(wrapped, sticky_actions) if sticky_actions else wrapped


def _step_without_reset(env: Any) -> Callable:
    """The ``step`` of gymnax less the reset, which it makes in every step; an environment's own ``step`` as it is."""
    gymnax_step = _gymnax().environments.environment.Environment.step
    if getattr(type(env), "step", None) is not gymnax_step:
        return env.step

    @jax.jit  # traced once for all programs, as gymnax's own is
    def step(key: Array, state: Any, action: Array, params: Any) -> tuple:
        key, _ = jax.random.split(key)  # as there, so that both draw the same
        obs, state, reward, terminated, info = env.step_env(key, state, action, params)
        return obs, state, reward, terminated, env.is_truncated(state, params), info | {"final_observation": obs}

    return step


def observation_features(obs: Array, *, depth: int, flatten: bool) -> Array:
    """What a network sees of observations [B, O]: one-hot of this depth unless it is 0, in one axis if ``flatten``."""
    seen = jax.nn.one_hot(obs, depth, dtype=bool) if depth else obs
    return seen.reshape(seen.shape[0], -1) if flatten else seen


class _StickyState(NamedTuple):
    env_state: Any  # leaves [E, ...]
    last_action: Array  # [E] int32: the action executed last in this episode, 0 where it has just begun


def _with_sticky_actions(env: Environment, probability: float) -> Environment:
    """``env`` where each step, with ``probability``, repeats what was executed before; ``Step.action`` is the choice.

    In place of gymnax's ``StickyActionWrapper``, which carries the last action over a reset into the next episode;
    the ALE, whose sticky actions these are (Machado et al. 2018), forgets it.
    """

    def reset(params: Any, keys: Array) -> tuple[Array, Any]:
        obs, env_state = env.reset(params, keys)
        return obs, _StickyState(env_state, jnp.zeros(keys.shape[0], jnp.int32))

    def step(
        params: Any, keys: Array, state: Any, obs: Array, action: Array, *, of_env: Callable = env.step
    ) -> tuple[Array, Any, Step]:
        repeat_keys, step_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        repeat = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(repeat_keys)
        executed = jnp.where(repeat, state.last_action, action)
        next_obs, env_state, happened = of_env(params, step_keys, state.env_state, obs, executed)
        last_action = jnp.where(happened.terminated | happened.truncated, 0, executed)
        return next_obs, _StickyState(env_state, last_action), happened._replace(action=action)

    return env._replace(reset=reset, step=step, advance=functools.partial(step, of_env=env.advance))


def _construct(build: Callable[..., Any], env_id: str, kwargs: dict[str, Any]) -> Any:
    try:
        return build(**kwargs)
    except Exception as error:  # whatever an environment's constructor may raise
        failed = f"{kwargs} do not fit {env_id}" if kwargs else f"{env_id} cannot be made without arguments"
        raise EnvironmentRefusedError("env.kwargs", f"{failed}: {_first_line(error)}") from error


def _find_class(env_id: str) -> Callable[..., Any]:
    """What ``module:Class`` names."""
    module_name, _, name = env_id.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the working directory, where ``python -m`` looks and a console script does not
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module may raise
        missing = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        message = "there is no such module here or where Python looks" if missing else _first_line(error)
        raise EnvironmentRefusedError("env.id", f"{env_id}: {module_name!r} cannot be imported: {message}") from error
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        close = difflib.get_close_matches(
            name, [one for one in vars(module) if inspect.isclass(getattr(module, one))], n=1
        )
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise EnvironmentRefusedError("env.id", f"{env_id}: {module_name!r} has no class {name!r}{hint}")
    # Before anything is called with arguments of the config's: a config must not be able to start a program.
    lacks = [part for part in ("reset", "step", "action_space") if not callable(getattr(found, part, None))]
    if lacks:
        message = f"{env_id} does not have gymnax's interface: it lacks {', '.join(lacks)}"
        raise EnvironmentRefusedError("env.id", message)
    return found


def _check_interface(env: Any, env_id: str) -> None:
    """Take a step in the abstract, so that what a user's environment lacks is told here and not deep in a trace."""

    def refuse(message: str) -> EnvironmentRefusedError:
        return EnvironmentRefusedError("env.id", f"{env_id} does not have gymnax's interface: {message}")

    def reset_and_step(key: Array) -> tuple[Any, Any]:
        obs, state = env.reset(key, env.default_params)
        return obs, env.step(key, state, jnp.int32(0), env.default_params)

    try:
        env.action_space(env.default_params)
        obs, stepped = jax.eval_shape(reset_and_step, jax.random.key(0))
    except Exception as error:  # whatever a user's environment may raise
        raise refuse(_first_line(error)) from error
    if not isinstance(stepped, tuple) or len(stepped) != 6:
        raise refuse("step gives obs, state, reward, terminated, truncated, info since gymnax 1.0")
    if not isinstance(stepped[5], dict) or "final_observation" not in stepped[5]:
        raise refuse('step gives no info["final_observation"], the observation before a reset')
    if any(jnp.shape(part) for part in stepped[2:5]):
        raise refuse("reward, terminated and truncated of a step are single values")
    describe = functools.partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype))
    if not describe(obs) == describe(stepped[0]) == describe(stepped[5]["final_observation"]):
        raise refuse('the observations of reset, step and info["final_observation"] differ in shape or type')


def _one_hot_depth(env: Any, params: Any, env_id: str, obs_dtype: Any) -> int:
    """How many values an integer observation can take."""
    if not jnp.issubdtype(obs_dtype, jnp.integer):
        raise EnvironmentRefusedError("env.one_hot", f"observations of {env_id} are {obs_dtype}, not integers")
    try:
        space = env.observation_space(params)
        low, high = (0, space.n - 1) if hasattr(space, "n") else (np.min(space.low), np.max(space.high))
    except Exception as error:  # whatever a user's environment may raise
        message = f"{env_id} does not tell the range of its observations: {_first_line(error)}"
        raise EnvironmentRefusedError("env.one_hot", message) from error
    if not 0 <= low <= high < _MAX_DEPTH:
        message = f"observations of {env_id} range from {low} to {high}; one-hot needs 0 to {_MAX_DEPTH - 1} at most"
        raise EnvironmentRefusedError("env.one_hot", message)
    return int(high) + 1


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _cast_like(default: Any, value: Any) -> Array:
    return jnp.asarray(value, jnp.result_type(default))


def _strengthen(state: Any) -> Any:
    """Fix the dtypes of a state: gymnax's resets carry weak types, which would trace a scan twice."""
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.result_type(leaf)), state)
