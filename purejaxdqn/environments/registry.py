"""The names of environments. A suite is imported when one of its environments is made."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from purejaxdqn.core.environment import Environment
from purejaxdqn.environments import gymnax
from purejaxdqn.environments.batched import Single, batched
from purejaxdqn.environments.custom import construct_custom
from purejaxdqn.environments.importing import import_adapter, is_installed
from purejaxdqn.environments.interface import check_limit, check_single
from purejaxdqn.environments.listed import LISTED, SUITES, nearest, suite_of, why_refused
from purejaxdqn.environments.sight import with_sight
from purejaxdqn.environments.wrappers import EnvironmentRefusedError, first_line, with_features, with_sticky_actions

INPUTS: Mapping[str, int] = {env_id: row.inputs for env_id, row in LISTED.items()}
"""Most elements of an observation with the constructor's defaults, one-hot where that is possible: known without
importing a suite, and so before JAX starts."""
ONE_HOT = gymnax.ONE_HOT
SOLVED_AT: Mapping[str, float] = {env_id: row.solved_at for env_id, row in LISTED.items() if row.solved_at is not None}
"""Return from which an environment counts as solved, where the field agrees on one."""
from_gymnax = gymnax.from_gymnax


def environment_ids() -> list[str]:
    """The environments of gymnax that can be made without a download; ``listed.LISTED`` has those of all suites."""
    return gymnax.gymnax_ids()


def own_module(env_id: str) -> str | None:
    """The module that making ``env_id`` would import, None if the environment is not one of the user's own."""
    return env_id.partition(":")[0] if ":" in env_id and suite_of(env_id) is None else None


def make_environment(
    env_id: str,
    kwargs: Mapping[str, Any] | None = None,
    *,
    resets: int | None = None,
    legal_only: bool = True,
    scale: float | None = None,
    sticky_actions: float = 0.0,
    one_hot: bool = False,
    flatten: bool = False,
    observe: Sequence[int] = (),
    frame_stack: int = 1,
) -> Environment:
    """Make the environment ``env_id``: a name that gymnax knows, ``suite:Name``, or the user's own ``module:Class``.

    Args:
      env_id: the name. A module may be in the working directory; a suite may not.
      kwargs: arguments of the environment's constructor. Suites also have ``time_limit``.
      resets: see ``batched``.
      legal_only: whether agents use only legal actions, if the environment reports them.
      scale: features are observations divided by it; None takes the suite's value, such as 255 for pixels.
      sticky_actions: see ``from_gymnax``.
      one_hot: see ``from_gymnax``.
      flatten: see ``from_gymnax``.
      observe: see ``sight.make_sight``.
      frame_stack: see ``sight.make_sight``.

    Raises:
      EnvironmentRefusedError: there is no such environment, its package is not installed, the arguments do not fit,
        the actions are not discrete, the user's own lacks a part of gymnax's interface, or an option does not suit it.
    """
    made = underlying_environment(env_id, kwargs)
    try:
        if not isinstance(made, Single):
            env = from_gymnax(
                made,
                env_id=env_id,
                binary=gymnax.is_binary(env_id),
                resets=resets,
                scale=scale,
                sticky_actions=sticky_actions,
                one_hot=one_hot,
                flatten=flatten,
            )
        else:
            single = made if legal_only else made._replace(legal=None)
            env = batched(single._replace(scale=scale or single.scale), resets=resets)
            env = with_sticky_actions(with_features(env, one_hot=one_hot, flatten=flatten), sticky_actions)
        if 0 in env.obs_shape:
            raise ValueError(f"its observations have the shape {list(env.obs_shape)}")
        return with_sight(env, observe, frame_stack)
    except EnvironmentRefusedError:
        raise
    except Exception as error:  # constructed, and yet it has no reset, or shows nothing: a size of 0 for one
        key, given = ("env.kwargs", f" with {dict(kwargs)}") if kwargs else ("env.id", "")
        raise EnvironmentRefusedError(key, f"{env_id}{given} cannot be used: {first_line(error)}") from error


def underlying_environment(env_id: str, kwargs: Mapping[str, Any] | None = None) -> Any:
    """What ``make_environment`` wraps: an object with gymnax's interface, or a ``Single``.

    Raises:
      EnvironmentRefusedError: as ``make_environment``.
    """
    kwargs = dict(kwargs or {})
    if suite := suite_of(env_id):
        return _construct_of_suite(suite, env_id, kwargs)
    if ":" in env_id:
        return construct_custom(env_id, kwargs)
    if env_id in environment_ids():
        return gymnax.construct_gymnax(env_id, kwargs)
    raise EnvironmentRefusedError("env.id", f"{env_id!r} is not an environment of gymnax{nearest(env_id)}")


def _construct_of_suite(suite: str, env_id: str, kwargs: dict[str, Any]) -> Single:
    """An environment of a suite; its name and package are checked before anything is imported."""
    name, known = env_id.partition(":")[2], SUITES[suite]
    if name not in known.environments:
        reason = why_refused(suite, name)
        message = f"{env_id!r}: {reason}" if reason else f"{suite} has no environment {name!r}{nearest(env_id, suite)}"
        raise EnvironmentRefusedError("env.id", message)
    if not is_installed(suite):
        message = f"{env_id} needs {suite}, which is not installed: pip install '{known.install}'"
        raise EnvironmentRefusedError("env.id", message)
    limit = kwargs.pop("time_limit", None)
    check_limit("time_limit", limit, key="env.kwargs")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            adapter = import_adapter(suite)
    except Exception as error:  # whatever its import may raise
        raise EnvironmentRefusedError("env.id", f"{suite} cannot be imported: {first_line(error)}") from error
    with contextlib.redirect_stdout(sys.stderr):
        single = gymnax.construct(lambda **kwargs: adapter.make(name, kwargs), env_id, kwargs)
    if kwargs:  # a constructor takes what only a reset or a step finds wrong
        check_single(single, key="env.kwargs")
    return single if limit is None else single._replace(time_limit=limit)
