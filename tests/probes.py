"""Environments whose right answers are known: tiny MDPs given by tables, and one that shows its keys."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class State:
    place: jax.Array
    time: jax.Array


@struct.dataclass
class Params:
    max_steps_in_episode: int = 1_000_000


class TableMDP(environment.Environment):
    """A deterministic MDP: ``successor`` [S][A], ``reward`` [S][A], ``terminal`` [S]; starts in state 0.

    Observations are one-hot [S]. ``traces`` counts how often the step was traced.
    """

    def __init__(self, successor: Any, reward: Any, terminal: Any, time_limit: int = 1_000_000):
        self.successor, self.reward = np.array(successor, np.int32), np.array(reward, np.float32)
        self.terminal, self.time_limit = np.array(terminal, bool), time_limit
        self.traces = 0

    @property
    def default_params(self):
        return Params(max_steps_in_episode=self.time_limit)

    def step_env(self, key, state, action, params):
        self.traces += 1
        reward = jnp.asarray(self.reward)[state.place, action]
        state = State(place=jnp.asarray(self.successor)[state.place, action], time=state.time + 1)
        return self.get_obs(state), state, reward, jnp.asarray(self.terminal)[state.place], {}

    def reset_env(self, key, params):
        state = State(place=jnp.int32(0), time=0)
        return self.get_obs(state), state

    def get_obs(self, state, params=None, key=None):
        return jax.nn.one_hot(state.place, len(self.terminal))

    def action_space(self, params=None):
        return spaces.Discrete(self.reward.shape[1])

    def observation_space(self, params):
        return spaces.Box(0, 1, (len(self.terminal),))

    def exact_q(self, gamma: float, iterations: int = 10_000, start: np.ndarray | None = None) -> np.ndarray:
        """Value iteration in float64: Q [S, A] after ``iterations`` backups of ``start`` (zeros)."""
        q = np.zeros(self.reward.shape) if start is None else np.asarray(start, np.float64)
        future = gamma * ~self.terminal[self.successor]
        for _ in range(iterations):
            q = self.reward + future * q.max(-1)[self.successor]
        return q


class CoinMDP(TableMDP):
    """Action 0 in state 0 leads to state 1 or 2, as a coin falls; they pay 2 and -1. Action 1 pays 0.25 and ends.

    The return of action 0 is 2 gamma or -gamma with equal chances.
    """

    def __init__(self):
        super().__init__([[1, 3], [3, 3], [3, 3], [3, 3]], [[0, 0.25], [2, 2], [-1, -1], [0, 0]], [False] * 3 + [True])

    def step_env(self, key, state, action, params):
        _, state, reward, terminated, info = super().step_env(key, state, action, params)
        tails = (state.place == 1) & jax.random.bernoulli(key)
        state = state.replace(place=jnp.where(tails, 2, state.place))
        return self.get_obs(state), state, reward, terminated, info


class KeyProbe(TableMDP):
    """An environment whose observation is made of the key of the last step: a key used twice shows twice."""

    def __init__(self):
        super().__init__([[0, 0, 0]], [[0.0, 0.0, 0.0]], [False], time_limit=7)

    def step_env(self, key, state, action, params):
        _, state, reward, terminated, info = super().step_env(key, state, action, params)
        return self._show(key), state, reward, terminated, info

    def reset_env(self, key, params):
        return self._show(key), State(place=jnp.int32(0), time=0)

    def _show(self, key):
        words = jax.random.key_data(key) >> jnp.uint32(8)  # 24 bits, exact in float32
        return words.astype(jnp.float32)

    def observation_space(self, params):
        return spaces.Box(0, 2**24, (2,))


class Table:
    """A network that is a table: one-hot observations [B, S] -> [B, A] or [B, A, K]. Starts at ``start``."""

    def __init__(self, start: Any):
        self.start = np.asarray(start, np.float32)

    def init(self, key, obs):
        return {"q": jnp.asarray(self.start)}

    def apply(self, params, obs):
        return jnp.tensordot(obs, params["q"], 1)
