"""A typical DQN training loop in Python: Gymnasium's vectorised environments, a NumPy buffer, a regular update.

The agent, which acts and learns, is an argument, so that PyTorch and a jitted JAX update run in the same loop.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np

from benchmarks.baselines.setting import Setting


class Batch(NamedTuple):
    """Transitions [B, ...]."""

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_obs: np.ndarray
    terminated: np.ndarray


class Agent(Protocol):
    """An agent that the loop trains."""

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Greedy actions [E] for observations [E, 4]."""

    def learn(self, batch: Batch) -> None:
        """One gradient step."""

    def sync(self) -> None:
        """Copy the online network to the target network."""


class Buffer:
    """A ring buffer of the last ``size`` transitions."""

    def __init__(self, size: int, obs_shape: tuple[int, ...]):
        self._size, self._next, self._filled = size, 0, 0
        self._rows = Batch(
            obs=np.zeros((size, *obs_shape), np.float32),
            action=np.zeros(size, np.int64),
            reward=np.zeros(size, np.float32),
            next_obs=np.zeros((size, *obs_shape), np.float32),
            terminated=np.zeros(size, np.float32),
        )

    def add(self, new: Batch) -> None:
        """Add transitions [E, ...] in place of the oldest."""
        places = (self._next + np.arange(len(new.action))) % self._size
        for column, values in zip(self._rows, new, strict=True):
            column[places] = values
        self._next = int(places[-1] + 1) % self._size
        self._filled = min(self._size, self._filled + len(places))

    def sample(self, generator: np.random.Generator, count: int) -> Batch:
        """Return ``count`` transitions drawn uniformly, with replacement."""
        chosen = generator.integers(self._filled, size=count)
        return Batch(*(column[chosen] for column in self._rows))


class Loop(NamedTuple):
    """The results of a run."""

    seconds: float  # time of the whole loop
    returns: list[float]  # returns of the episodes, in the order in which they ended


def run(
    agent: Agent, setting: Setting, seed: int, *, every: int | None = None, until: Callable[[int], bool] | None = None
) -> Loop:
    """Train the agent.

    Args:
      agent: the agent, which is changed in place.
      setting: hyperparameters of the run.
      seed: seed of exploration, sampling and environments.
      every: environment steps between calls of ``until``.
      until: takes the number of steps so far and returns whether to stop.
    """
    generator = np.random.default_rng(seed)
    envs = _make_envs(setting.num_envs)
    buffer = Buffer(setting.buffer_size, envs.single_observation_space.shape)
    obs, _ = envs.reset(seed=seed)
    running, returns = np.zeros(setting.num_envs), list[float]()
    start = time.perf_counter()
    for timestep in range(setting.num_envs, setting.total_timesteps + 1, setting.num_envs):
        explores = generator.random(setting.num_envs) < setting.epsilon(timestep - setting.num_envs)
        action = generator.integers(envs.single_action_space.n, size=setting.num_envs)
        if not explores.all():
            action = np.where(explores, action, agent.act(obs))
        after, reward, terminated, truncated, info = envs.step(action)
        ended = terminated | truncated
        buffer.add(Batch(obs, action, reward, _before_reset(after, ended, info), terminated))
        running += reward
        returns += running[ended].tolist()
        running[ended] = 0.0
        obs = after
        if timestep > setting.warmup and timestep % setting.train_every == 0:
            agent.learn(buffer.sample(generator, setting.batch_size))
        if timestep % setting.target_every == 0:
            agent.sync()
        if every and until and timestep % every == 0 and until(timestep):
            break
    seconds = time.perf_counter() - start
    envs.close()
    return Loop(seconds, returns)


def evaluate(agent: Agent, seed: int, *, episodes: int = 10) -> float:
    """Return the mean return of greedy episodes: the first one of each of ``episodes`` environments."""
    envs = _make_envs(episodes)
    obs, _ = envs.reset(seed=seed)
    returns, going = np.zeros(episodes), np.ones(episodes, bool)
    while going.any():
        obs, reward, terminated, truncated, _ = envs.step(agent.act(obs))
        returns += reward * going
        going &= ~(terminated | truncated)
    envs.close()
    return float(returns.mean())


def _make_envs(count: int) -> Any:
    return gymnasium.make_vec(
        "CartPole-v1",
        num_envs=count,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP},
    )


def _before_reset(after: np.ndarray, ended: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """Return the true next observations [E, 4]: where an episode ended, ``after`` already has the next one's first."""
    if not ended.any():
        return after
    reached = after.copy()
    reached[ended] = np.stack(info["final_obs"][ended])
    return reached
