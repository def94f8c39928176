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

    def exact_mixed_q(self, gamma: float, trace: float, steps: int) -> np.ndarray:
        """Q [S, A] that is the mean of its own lambda-returns (Peng and Williams 1996) of random behaviour, in float64.

        Rollouts of ``steps`` steps begin anywhere in episodes: each step of an episode is any step of a rollout equally
        often. So a pair of state and action has a return for each time in its episode and each number of steps that the
        rollout has left, and Q is their mean over both, weighed by how often the state is met at that time.
        """
        states, last = len(self.terminal), self.time_limit - 1
        met = np.zeros((self.time_limit, states))  # how often, in an episode
        met[0, 0] = 1
        for time, state in np.ndindex(last, states):
            for next_state in self.successor[state]:
                met[time + 1, next_state] += met[time, state] / self.reward.shape[1] * (not self.terminal[next_state])
        shares = met / np.maximum(met.sum(axis=0), 1e-300)
        q, future = np.zeros(self.reward.shape), gamma * ~self.terminal[self.successor]
        for _ in range(100):
            value, after, total = q.max(axis=-1), np.zeros((self.time_limit, states)), 0.0
            for left in range(steps):  # in the rollout after this step
                later = [value if left == 0 or time == last else after[time + 1] for time in range(self.time_limit)]
                mixed = (1 - trace) * value + trace * np.stack(later)
                returns = self.reward + future * mixed[:, self.successor]  # [time, S, A]
                after = returns.mean(axis=-1)
                total += np.einsum("ts,tsa->sa", shares, returns)
            q = total / steps
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


DISCOUNTING = TableMDP([[1, 0], [2, 0], [0, 1]], [[0, 1], [0, -1], [4, 0]], [False] * 3)
TERMINAL = TableMDP([[1, 0], [2, 0], [2, 2]], [[0, 0.5], [2, 0], [9, 9]], [False, False, True])
# Three steps, the last of which loops in state 2 and is cut off: only what comes after the cut makes Q(2, .) 2.
TIME_LIMIT = TableMDP([[1, 1], [2, 2], [2, 2]], [[0, 0], [0, 0], [1, 1]], [False] * 3, time_limit=3)
# All of it at once, and every action matters: loops, ends, and episodes that are cut off in any of the states.
EVERYTHING = TableMDP(
    [[1, 2], [2, 0], [2, 3], [3, 3]],
    [[0, 0.5], [1, -0.5], [1, 1.5], [9, 9]],
    [False, False, False, True],
    time_limit=3,
)


class Table:
    """A network that is a table: one-hot observations [B, S] -> [B, A] or [B, A, K]. Starts at ``start``."""

    def __init__(self, start: Any):
        self.start = np.asarray(start, np.float32)

    def init(self, key, obs):
        return {"q": jnp.asarray(self.start)}

    def apply(self, params, obs):
        return jnp.tensordot(obs, params["q"], 1)
