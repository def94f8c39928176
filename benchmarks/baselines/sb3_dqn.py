"""Stable-Baselines3's DQN, told to do the same work.

Its loss is Huber's where the others' is squared, which costs nothing but does not learn in this setting: its last
episodes have returns of 9, and so have those of `torch_dqn.py` with that loss. What is compared is time.
"""

import time

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env

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
        device="cpu",
    )
    start = time.perf_counter()
    agent.learn(setting.total_timesteps)
    seconds = time.perf_counter() - start
    ended = [(time, value) for env in envs.envs for time, value in zip(*_episodes(env), strict=True)]
    return Loop(seconds, [value for _, value in sorted(ended)])


def _episodes(env: object) -> tuple[list[float], list[float]]:
    """When an environment's episodes ended, and their returns."""
    return env.get_episode_times(), env.get_episode_rewards()
