"""The names of environments. A suite is imported when one of its environments is made."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from purejaxdqn.core.environment import Environment
from purejaxdqn.environments import gymnax, sparse
from purejaxdqn.environments.batched import Single, batched
from purejaxdqn.environments.custom import construct_custom
from purejaxdqn.environments.sight import with_sight
from purejaxdqn.environments.wrappers import EnvironmentRefusedError, first_line, with_sticky_actions

INPUTS = {**gymnax.INPUTS, "sparse:MountainCar": 2, "sparse:CartPoleSwingUp": 6}
ONE_HOT = gymnax.ONE_HOT
SOLVED_AT = {**gymnax.SOLVED_AT, "sparse:MountainCar": 0.9}
from_gymnax = gymnax.from_gymnax


def environment_ids() -> list[str]:
    """The environments that can be trained on without a download."""
    return [*gymnax.gymnax_ids(), *sparse.NAMES]


def own_module(env_id: str) -> str | None:
    """The module that making ``env_id`` would import, None if the environment is not one of the user's own."""
    return env_id.partition(":")[0] if ":" in env_id and env_id not in sparse.NAMES else None


def make_environment(
    env_id: str,
    kwargs: Mapping[str, Any] | None = None,
    *,
    sticky_actions: float = 0.0,
    one_hot: bool = False,
    flatten: bool = False,
    observe: Sequence[int] = (),
    frame_stack: int = 1,
) -> Environment:
    """Make the environment ``env_id``: a name that gymnax knows, or ``module:Class`` for one of the user's own.

    Args:
      env_id: the name. A module may be in the working directory.
      kwargs: arguments of the environment's constructor.
      sticky_actions: see ``from_gymnax``.
      one_hot: see ``from_gymnax``.
      flatten: see ``from_gymnax``.
      observe: see ``sight.make_sight``.
      frame_stack: see ``sight.make_sight``.

    Raises:
      EnvironmentRefusedError: there is no such environment, the arguments do not fit, the actions are not discrete,
        the user's own lacks a part of gymnax's interface, or ``one_hot`` or ``observe`` does not suit the observations.
    """
    env = underlying_environment(env_id, kwargs)
    try:
        if isinstance(env, Single):
            if one_hot:
                raise EnvironmentRefusedError("env.one_hot", f"observations of {env_id} are no integers")
            return with_sight(with_sticky_actions(batched(env), sticky_actions), observe, frame_stack)
        made = from_gymnax(
            env,
            env_id=env_id,
            binary=gymnax.is_binary(env_id),
            sticky_actions=sticky_actions,
            one_hot=one_hot,
            flatten=flatten,
        )
        return with_sight(made, observe, frame_stack)
    except EnvironmentRefusedError:
        raise
    except Exception as error:  # constructed, and yet no reset can be made of it: a size of 0 for one
        message = f"{env_id} with {dict(kwargs or {})} cannot be reset: {first_line(error)}"
        raise EnvironmentRefusedError("env.kwargs", message) from error


def underlying_environment(env_id: str, kwargs: Mapping[str, Any] | None = None) -> Any:
    """The object with gymnax's interface that ``make_environment`` wraps.

    Raises:
      EnvironmentRefusedError: as ``make_environment``.
    """
    kwargs = dict(kwargs or {})
    if env_id in sparse.NAMES:
        return gymnax.construct(lambda **kwargs: sparse.make(env_id.partition(":")[2], kwargs), env_id, kwargs)
    if env_id in environment_ids():
        return gymnax.construct_gymnax(env_id, kwargs)
    if ":" in env_id:
        return construct_custom(env_id, kwargs)
    close = difflib.get_close_matches(env_id, environment_ids(), n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise EnvironmentRefusedError("env.id", f"{env_id!r} is not an environment gymnax has{hint}")
