"""XLand-MiniGrid (Nikulin et al. 2024): its ports of MiniGrid's environments."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import xminigrid
from xminigrid.core.constants import NUM_COLORS, NUM_TILES

from purejaxdqn.core.types import Array
from purejaxdqn.environments.batched import Single


def make(name: str, kwargs: Mapping[str, Any]) -> Single:
    """A grid world; ``kwargs`` are fields of its parameters, which are static, such as ``max_steps`` or ``view_size``.

    The reward of the goal falls with the share of ``max_steps`` that was needed.
    """
    env, static = xminigrid.make(name, **kwargs)

    def reset(key: Array, params: Any) -> tuple[Array, Any]:
        timestep = env.reset(static, key)
        return timestep.observation, timestep

    def step(key: Array, timestep: Any, action: Array, params: Any) -> tuple:
        timestep = env.step(static, timestep, action)
        terminated = timestep.discount == 0  # the limit is counted by ``batched``
        return timestep.observation, timestep, timestep.reward, terminated, jnp.bool_(False)

    return Single(
        env_id=f"xminigrid:{name}",
        num_actions=env.num_actions(static),
        reset=reset,
        step=step,
        time_limit=static.max_steps,
        bounds=lambda: (0, max(NUM_TILES, NUM_COLORS) - 1),
        render=lambda params, timestep: np.asarray(env.render(static, timestep)),
    )
