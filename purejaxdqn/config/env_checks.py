"""Faults that only the environment can report: its name, its parameters, and the shape of its features."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from purejaxdqn.core.choices import Fault
from purejaxdqn.core.config import Config, EnvConfig
from purejaxdqn.core.environment import Environment
from purejaxdqn.dqn.networks import filters_of, least_side
from purejaxdqn.environments.registry import ONE_HOT, EnvironmentRefusedError, make_environment, own_module
from purejaxdqn.system.faults import did_you_mean

LookUp = Callable[[EnvConfig], Environment | EnvironmentRefusedError]


def look_up(section: EnvConfig) -> Environment | EnvironmentRefusedError:
    """The environment of a config without parameters, or why there is none.

    A sweep looks up the same one for thousands of points: ``functools.cache(look_up)`` makes it once.
    """
    try:
        return make_environment(**section.making())
    except EnvironmentRefusedError as error:
        return error


def _find(config: Config, look: LookUp | None) -> Environment | EnvironmentRefusedError:
    return (look or look_up)(config.env.model_copy(update={"params": (), "num_envs": 1}))


def find_environment_faults(config: Config, look: LookUp | None = None) -> Iterator[Fault]:
    """Everything that the environment says is wrong with a config."""
    env = _find(config, look)
    if isinstance(env, EnvironmentRefusedError):
        yield Fault(env.key, str(env), ("env.id", "env.kwargs", "env.observe"))
        return
    yield from _find_feature_faults(config, env)
    for name, value in config.env.params:
        key = f"env.params.{name}"
        if name not in env.params:
            hint = did_you_mean(name, env.params) or f"; it has {', '.join(env.params) or 'none'}"
            yield Fault(key, f"{config.env.id} has no such parameter{hint}", ("env.id", "env.params"))
        elif wanted := _wanted_parameter(env.params[name], value):
            yield Fault(key, f"{value!r} must be {wanted}", ("env.id", "env.params"))


def with_typed_parameters(config: Config, look: LookUp | None = None) -> Config:
    """Convert whole numbers that stand for fractions, so that 9 and 9.8 share a program."""
    if not config.env.params:
        return config
    env = _find(config, look)
    assert isinstance(env, Environment)  # else it has faults
    types = env.params
    params = tuple((name, float(value) if types[name].kind == "f" else value) for name, value in config.env.params)
    return config.model_copy(update={"env": config.env.model_copy(update={"params": params})})


def _find_feature_faults(config: Config, env: Environment) -> Iterator[Fault]:
    """Features that the network cannot take."""
    torso, layers = config.network.torso, filters_of(config.network)
    shape, side = _feature_shape(env) if layers else (), least_side(layers)  # traced only where it is needed
    if layers and (len(shape) < 3 or min(shape[:2]) < side):
        wrappers = [f"env.{key}" for key in ("one_hot", "flatten") if getattr(config.env, key)]
        after = f" after {' and '.join(wrappers)}" if wrappers else ""
        message = f"{torso!r} needs images [height, width, channels] of {side} x {side} or more; {config.env.id} gives"
        keys = ("env.id", "env.one_hot", "env.flatten", "network.channels", "network.kernels", "network.strides")
        yield Fault("network.torso", f"{message} {list(shape)}{after}", keys)
    if config.network.torso == "one_hot" and (config.env.frame_stack > 1 or not _is_one_hot(config, env)):
        stacked = f"env.frame_stack {config.env.frame_stack}"
        unlike = stacked if config.env.frame_stack > 1 else f"those of {config.env.id}"
        message = f"'one_hot' needs observations with at most one 1, unlike {unlike}"
        yield Fault("network.torso", message, ("env.id", "env.one_hot", "env.frame_stack"))
    if config.env.normalize and config.network.torso == "one_hot":
        yield Fault(
            "env.normalize", "true does not work with the torso 'one_hot', which needs zeros", ("network.torso",)
        )
    if config.env.normalize and config.env.one_hot:
        yield Fault("env.normalize", "true with env.one_hot; one-hot features need no normalisation", ("env.one_hot",))


def _is_one_hot(config: Config, env: Environment) -> bool:
    """Whether features have at most one 1, as far as that is known: a module of your own may give such."""
    return (
        (config.env.one_hot and not env.obs_shape) or config.env.id in ONE_HOT or own_module(config.env.id) is not None
    )


def _feature_shape(env: Environment) -> tuple[int, ...]:
    return jax.eval_shape(env.features, jax.ShapeDtypeStruct((1, *env.obs_shape), env.obs_dtype)).shape[1:]


def _wanted_parameter(dtype: Any, value: Any) -> str | None:
    """What a parameter of this type must be; None if ``value`` is that."""
    if dtype is None:
        return "left unset: only parameters that are single numbers can be set"
    if dtype.kind == "b":
        return None if isinstance(value, bool) else "true or false"
    if isinstance(value, bool | str):
        return "a number"
    if dtype.kind in "iu":
        return None if isinstance(value, int) and abs(value) < 2**31 else "an integer of 32 bits"
    return None if abs(value) <= float(np.finfo(np.float32).max) else "a finite number"
