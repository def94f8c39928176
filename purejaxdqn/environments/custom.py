"""Environments of the user's own: ``module:Class``, with gymnax's interface."""

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from purejaxdqn.environments.gymnax import construct
from purejaxdqn.environments.interface import check_parts
from purejaxdqn.environments.wrappers import EnvironmentRefusedError, first_line


def construct_custom(env_id: str, kwargs: Mapping[str, Any]) -> Any:
    """The environment that ``module:Class`` names. The module may be in the working directory.

    Raises:
      EnvironmentRefusedError: it cannot be imported or constructed, or is no class of environments.
    """
    return construct(_find_class(env_id), env_id, kwargs)


def _find_class(env_id: str) -> Callable[..., Any]:
    """The class that ``module:Class`` names."""
    module_name, _, name = env_id.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the working directory, where ``python -m`` looks and a console script does not
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module may raise
        missing = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        message = "there is no such module here or where Python looks" if missing else first_line(error)
        raise EnvironmentRefusedError("env.id", f"{env_id}: {module_name!r} cannot be imported: {message}") from error
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        close = difflib.get_close_matches(
            name, [one for one in vars(module) if inspect.isclass(getattr(module, one))], n=1
        )
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise EnvironmentRefusedError("env.id", f"{env_id}: {module_name!r} has no class {name!r}{hint}")
    # Before anything is called with arguments of the config's: a config must not be able to start a program.
    check_parts(found, env_id)
    return found
