"""Pgx (Koyamada et al. 2023): its game for one player."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pgx

from purejaxdqn.core.types import Array
from purejaxdqn.environments.batched import Single
from purejaxdqn.environments.suites.boards import draw_2048


def make(name: str, kwargs: Mapping[str, Any]) -> Single:
    """An environment of pgx. An illegal action ends it with a reward of -1; nothing else cuts an episode off."""
    env = pgx.make(name, **kwargs)

    def reset(key: Array, params: Any) -> tuple[Array, Any]:
        state = env.init(key)
        return state.observation, state

    def step(key: Array, state: Any, action: Array, params: Any) -> tuple:
        state = env.step(state, action, key)
        return state.observation, state, state.rewards[0], state.terminated, jnp.bool_(False)

    return Single(
        env_id=f"pgx:{name}",
        num_actions=env.num_actions,
        reset=reset,
        step=step,
        legal=lambda state, params: state.legal_action_mask,
        render=lambda params, state: draw_2048(np.asarray(state._board).reshape(4, 4)),
    )
