"""Environments of the user's own: ``module:Class``, with gymnax's interface."""

import difflib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purejaxdqn.environments.batched import Single
from purejaxdqn.environments.gymnax import construct
from purejaxdqn.environments.interface import check_parts, check_single
from purejaxdqn.environments.listed import instead_of
from purejaxdqn.environments.wrappers import EnvironmentRefusedError, first_line


def construct_custom(env_id: str, kwargs: Mapping[str, Any]) -> Any:
    """The environment that ``module:Class`` names, or the ``Single`` that ``module:name`` is.

    The module may be in the working directory. Only a class with gymnax's interface is called: a config must not be
    able to start a program.

    Raises:
      EnvironmentRefusedError: it cannot be imported or constructed, is no class of environments, or its functions do
        not give what they must.
    """
    found = _find(env_id)
    if not isinstance(found, Single):
        return construct(found, env_id, kwargs)
    if kwargs:
        raise EnvironmentRefusedError("env.kwargs", f"{env_id} is an environment, not a class: it takes no arguments")
    single = found._replace(env_id=env_id)
    check_single(single)
    return single


def _find(env_id: str) -> Any:
    """The class or the ``Single`` that ``module:name`` names."""
    module_name, _, name = env_id.partition(":")
    if "__main__" in module_name.split("."):
        raise EnvironmentRefusedError("env.id", f"{env_id}: {module_name!r} is a program, which is never imported")
    _look_here()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module may raise
        missing = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        nowhere = f"there is no such module here or where Python looks{instead_of(module_name, name)}"
        message = nowhere if missing else first_line(error)
        raise EnvironmentRefusedError("env.id", f"{env_id}: {module_name!r} cannot be imported: {message}") from error
    found = getattr(module, name, None)
    if isinstance(found, Single):
        return found
    if not inspect.isclass(found):
        close = difflib.get_close_matches(
            name, [one for one in vars(module) if inspect.isclass(getattr(module, one))], n=1
        )
        hint = f"; did you mean {close[0]!r}?" if close else instead_of(module_name, name)
        raise EnvironmentRefusedError("env.id", f"{env_id}: {module_name!r} has no class {name!r}{hint}")
    check_parts(found, env_id)
    return found


def _look_here() -> None:
    """Have Python look for modules in the working directory, as with ``python -m``; a console script does not."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    importlib.invalidate_caches()


def module_places(module_name: str) -> list[Path]:
    """The files and folders from which a module would be imported; imports nothing.

    Of a module in a package these are the package's, since looking further would import it.
    """
    _look_here()
    try:
        spec = importlib.util.find_spec(module_name.partition(".")[0])
    except (ImportError, ValueError):  # of a strange name, or of a module that was made by hand
        return []
    if spec is None:
        return []
    places = [*([spec.origin] if spec.has_location and spec.origin else []), *(spec.submodule_search_locations or ())]
    return [Path(place).absolute() for place in places]
