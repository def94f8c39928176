"""Stable-Baselines3's DQN, configured to do the same work.

It uses the Huber loss where the others use the squared loss. This costs the same time, but the agent does not learn
with these hyperparameters: its last episodes have returns of 9 (`python -m benchmarks.peers --check`). Only its speed
is compared.
"""

import time
from collections.abc import Callable

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from benchmarks.baselines.python_loop import Loop
from benchmarks.baselines.setting import Setting


def run(setting: Setting, seed: int, *, threads: int = 1) -> Loop:
    """Train and return the results.

    Stable-Baselines3 counts ``train_freq`` in steps of all environments at once, ``target_update_interval`` in single
    environment steps.
    """
    torch.set_num_threads(threads)
    envs = make_vec_env("CartPole-v1", n_envs=setting.num_envs, seed=seed)
    agent = DQN(
        "MlpPolicy",
        envs,
        learning_rate=setting.learning_rate,
        buffer_size=setting.buffer_size,
        learning_starts=setting.warmup,
        batch_size=setting.batch_size,
        gamma=setting.gamma,
        train_freq=setting.train_every // setting.num_envs,
        gradient_steps=1,
        target_update_interval=setting.target_every,
        exploration_fraction=setting.exploration_fraction,
        exploration_final_eps=setting.epsilon_end,
        max_grad_norm=float("inf"),
        policy_kwargs={"net_arch": list(setting.hidden)},
        seed=seed,
    )
    start = time.perf_counter()
    agent.learn(setting.total_timesteps)
    seconds = time.perf_counter() - start
    ended = [(time, value) for env in envs.envs for time, value in zip(*_episodes(env), strict=True)]
    return Loop(seconds, [value for _, value in sorted(ended)])


def run_tuned(seed: int, *, every: int, until: Callable[[int, float], bool], threads: int = 1) -> None:
    """Train with rl-zoo3's hyperparameters for CartPole: 50,000 steps, one environment.

    Args:
      seed: seed of agent and environment.
      every: environment steps between evaluations of 10 greedy episodes.
      until: takes the number of steps so far and the mean return, and returns whether to stop.
      threads: number of PyTorch's threads.
    """
    torch.set_num_threads(threads)
    agent = DQN(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=1, seed=seed),
        learning_rate=2.3e-3,
        buffer_size=100_000,
        learning_starts=1_000,
        batch_size=64,
        gamma=0.99,
        train_freq=256,
        gradient_steps=128,
        target_update_interval=10,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [256, 256]},
        seed=seed,
    )
    agent.learn(50_000, callback=_EvaluationCallback(every, until))


class _EvaluationCallback(BaseCallback):
    def __init__(self, every: int, until: Callable[[int, float], bool]):
        super().__init__()
        self._every, self._until = every, until
        self._envs = make_vec_env("CartPole-v1", n_envs=10, seed=1_000)

    def _on_step(self) -> bool:
        if self.num_timesteps % self._every:
            return True
        value, _ = evaluate_policy(self.model, self._envs, n_eval_episodes=10, deterministic=True)
        return not self._until(self.num_timesteps, float(value))


def _episodes(env: object) -> tuple[list[float], list[float]]:
    """Return the end times of an environment's episodes, and their returns."""
    return env.get_episode_times(), env.get_episode_rewards()
