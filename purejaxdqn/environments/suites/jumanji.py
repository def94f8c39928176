"""Jumanji (Bonnet et al. 2024): its environments with one discrete action."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jumanji
import numpy as np

from purejaxdqn.core.types import Array
from purejaxdqn.environments.batched import Single
from purejaxdqn.environments.suites.boards import draw_2048

_NEVER = 2**30  # steps


def make(name: str, kwargs: Mapping[str, Any]) -> Single:
    """An environment of Jumanji. Jumanji reports its time limit as a termination, so ``batched`` counts it instead."""
    limited = "time_limit" in inspect.signature(type(jumanji.make(name)).__init__).parameters
    env = jumanji.make(name, **kwargs, **({"time_limit": _NEVER} if limited else {}))
    observe, bounds = _OBSERVED.get(name, (_everything, None))

    def reset(key: Array, params: Any) -> tuple[Array, Any]:
        state, timestep = env.reset(key)
        return observe(timestep.observation), (state, timestep.observation.action_mask)

    def step(key: Array, state: Any, action: Array, params: Any) -> tuple:
        after, timestep = env.step(state[0], action)
        terminated = timestep.last()  # some problems end with another discount than 0
        observation = timestep.observation
        return (
            observe(observation),
            (after, observation.action_mask),
            timestep.reward,
            terminated,
            jnp.bool_(False),
        )

    return Single(
        env_id=f"jumanji:{name}",
        num_actions=int(env.action_spec.num_values),
        reset=reset,
        step=step,
        legal=lambda state, params: state[1],
        time_limit=jumanji.make(name).time_limit if limited else None,
        bounds=None if bounds is None else lambda: bounds,
        render=_draw_2048 if name == "Game2048-v1" else None,
    )


def _everything(observation: Any) -> Array:
    """All numbers of an observation but the legal actions, on one axis."""
    leaves = jax.tree.leaves(observation._replace(action_mask=()))
    return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in leaves])


def _maze(observation: Any) -> Array:
    """Walls, the agent and the target as layers [H, W, 3] bool."""
    blank = jnp.zeros_like(observation.walls)
    places = (observation.agent_position, observation.target_position)
    return jnp.stack([observation.walls, *(blank.at[place.row, place.col].set(True) for place in places)], axis=-1)


def _draw_2048(params: Any, state: Any) -> np.ndarray:
    return draw_2048(np.asarray(state[0].board))


_OBSERVED: Mapping[str, tuple[Callable[[Any], Array], tuple[int, int] | None]] = {
    "Game2048-v1": (lambda observation: observation.board.astype(jnp.uint8), (0, 17)),  # powers of two
    "Maze-v0": (_maze, None),
    "SlidingTilePuzzle-v0": (lambda observation: observation.puzzle.astype(jnp.uint8), (0, 24)),
    "Snake-v1": (lambda observation: observation.grid, None),
}
"""What an agent sees of an observation, which is a record, and its lowest and highest number if these are whole."""
