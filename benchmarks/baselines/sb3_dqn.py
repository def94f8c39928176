"""Stable-Baselines3's DQN, told to do the same work.

Its loss is Huber's where the others' is squared, which costs nothing but does not learn in this setting: its last
episodes have returns of 9 (`python -m benchmarks.peers --check`). What is compared is time.
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
    """Train; ``train_freq`` counts steps of all environments together, the target's interval single ones."""
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
    """Train with rl-zoo3's numbers for CartPole, 50,000 steps, one environment.

    Args:
      seed: of everything.
      every: environment steps between evaluations of 10 greedy episodes.
      until: gets the steps so far and the mean return, and says whether to leave off.
      threads: of PyTorch.
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
    agent.learn(50_000, callback=_Watch(every, until))


class _Watch(BaseCallback):
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
    """When an environment's episodes ended, and their returns."""
    return env.get_episode_times(), env.get_episode_rewards()
