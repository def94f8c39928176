"""Checks of what is passed to programs and policies: numbers, keys and parameters. They read only shapes and types."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxdqn.core.config import Config, HParams, traced_keys
from purejaxdqn.core.keys import is_key
from purejaxdqn.core.types import Array


def check_numbers(config: Config, hparams: HParams) -> None:
    """Check that ``hparams`` has single numbers, as each run has under ``vmap``.

    Raises:
      ValueError: a leaf is an array or no number; or ``hparams`` are not those of a config.
    """
    for name, shape in _shapes(config, hparams):
        if shape:
            raise ValueError(
                f"{name} has shape {list(shape)}; the function of one run takes single numbers: "
                "map over points with jax.vmap, or use run_many"
            )


def count_points(config: Config, hparams: HParams) -> int:
    """The number of points P of ``hparams``, whose leaves are [] or [P]; 1 if none has an axis.

    Raises:
      ValueError: a leaf has another shape, or is no number; or ``hparams`` are not those of a config.
    """
    points, first = 1, ""
    for name, shape in _shapes(config, hparams):
        if len(shape) > 1 or shape == (0,):
            raise ValueError(f"{name} has shape {list(shape)}; run_many takes a number, or [P] numbers for P points")
        if shape and shape[0] > 1:
            if points > 1 and shape[0] != points:
                raise ValueError(
                    f"{name} has {shape[0]} numbers and {first} has {points}; run_many takes one number of each for "
                    "each point, or a number that serves all points"
                )
            points, first = shape[0], name
    return points


def _shapes(config: Config, hparams: HParams) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The name and the shape of every number of ``hparams``."""
    missing = set(traced_keys(type(config)).values()) - set(getattr(hparams, "_fields", ()))
    if missing:
        raise ValueError(f"hparams must be config.hparams(), or that with other numbers, not {type(hparams).__name__}")
    for path, leaf in jax.tree_util.tree_flatten_with_path(hparams, is_leaf=_is_no_number)[0]:
        name = f"hparams{jax.tree_util.keystr(path)}"
        number = leaf if hasattr(leaf, "dtype") else np.asarray(None if _is_no_number(leaf) else leaf)
        if not (jnp.issubdtype(number.dtype, jnp.number) or jnp.issubdtype(number.dtype, jnp.bool_)):
            raise ValueError(f"{name} must be a number, or an array of numbers, not {leaf!r}")
        yield name, np.shape(number)


def _is_no_number(value: Any) -> bool:
    return value is None or isinstance(value, list) or (isinstance(value, tuple) and not hasattr(value, "_fields"))


def one_key(key: Any) -> Array:
    """A key [] as JAX's typed key; a legacy one, of ``jax.random.PRNGKey``, is words [W].

    Raises:
      ValueError: it is no key, or an array of them.
    """
    try:
        given = jnp.asarray(key)
        if given.dtype == jnp.uint32 and given.ndim == 1:
            given = jax.random.wrap_key_data(given)
    except (TypeError, ValueError):  # no array, or words of another number
        raise ValueError(_wrong_key(type(key).__name__)) from None
    if not is_key(given):
        raise ValueError(_wrong_key(f"{given.dtype}{list(given.shape)}"))
    if given.ndim:
        raise ValueError(_wrong_key(f"{list(given.shape)} of them: map over keys with jax.vmap, or use run_many"))
    return given


def _wrong_key(found: str) -> str:
    return f"key must be one random key, as of jax.random.key(0), not {found}"


def check_agents(params: Any, expected: Any) -> None:
    """Check the parameters of S agents, leaves [S, ...].

    Args:
      params: to check.
      expected: shapes and types of one agent's.

    Raises:
      ValueError: they have other names or shapes.
    """
    found, wanted = (dict(_leaves(tree)) for tree in (params, expected))
    for name in sorted(set(found) ^ set(wanted)):
        how = "is missing" if name in wanted else "is not expected"
        raise ValueError(f"params are not of the network of this config: params{name} {how}")
    axes = {name: _axes_before(shape, found[name]) for name, shape in wanted.items()}
    first = next(iter(axes.values()))
    if set(axes.values()) == {()}:
        raise ValueError(
            "params are of one agent, not of S agents: add an axis, jax.tree.map(lambda leaf: leaf[None], params)"
        )
    if first is not None and len(first) == 2 and set(axes.values()) == {first}:
        raise ValueError(
            f"params are of {first[0]} points with {first[1]} seeds each, as of run_many, not of S agents: choose a "
            "point, jax.tree.map(lambda leaf: leaf[point], params)"
        )
    for name, before in axes.items():
        if before is None or len(before) != 1 or not before[0] or before != first:
            one = ", ".join(map(str, ("S", *wanted[name])))
            raise ValueError(f"params{name} has shape {list(found[name])}; it must have shape [{one}] for S agents")


def _axes_before(shape: tuple[int, ...], whole: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes of ``whole`` before those of ``shape``; None if ``whole`` does not end with ``shape``."""
    place = len(whole) - len(shape)
    return whole[:place] if place >= 0 and whole[place:] == shape else None


def _leaves(tree: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The name and the shape of every leaf."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield jax.tree_util.keystr(path), tuple(np.shape(leaf))
