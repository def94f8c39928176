"""One greedy episode, kept step by step so that it can be drawn."""

from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxdqn.core.config import Config
from purejaxdqn.core.keys import episodes_key
from purejaxdqn.dqn.agent import make_agent
from purejaxdqn.environments.registry import make_environment

MAX_STEPS = 10_000
"""An agent may go on for ever where nothing else ends an episode."""


class Episode(NamedTuple):
    """What happened; T steps."""

    obs: np.ndarray  # [T + 1, O]; the last is the true one, before any reset
    states: list[Any]  # T of the environment's, one before each step
    rewards: np.ndarray  # [T]
    ending: str  # "terminated", "cut off by the time limit" or "cut off here"


def record_episode(config: Config, params: Any, *, seed: int) -> Episode:
    """Play the episode that ``evaluate_policy`` plays with ``episodes=1`` and this seed.

    Args:
      config: the run's.
      params: of one agent, without an axis over seeds.
      seed: for the episode.
    """
    env = make_environment(**config.env.making())
    agent, hparams = make_agent(config, env), config.hparams()
    env_params = env.with_params(hparams.env_params)

    @jax.jit
    def step(key: jax.Array, obs: jax.Array, state: Any) -> Any:
        keys = jax.random.split(key, 2)
        action = agent.q_values(hparams, params, obs).argmax(-1)
        return keys[0], *env.step(env_params, keys[1:], state, obs, action)

    keys = jax.random.split(episodes_key(seed), 2)
    key, (obs, state) = keys[0], jax.jit(env.reset)(env_params, keys[1:])
    seen, ending = [np.asarray(obs[0])], "cut off here"
    states: list[Any] = []
    rewards: list[float] = []
    while len(states) < MAX_STEPS:
        states.append(jax.tree.map(lambda leaf: np.asarray(leaf[0]), state))
        key, obs, state, happened = step(key, obs, state)
        seen.append(np.asarray(happened.next_obs[0]))
        rewards.append(float(happened.reward[0]))
        if happened.terminated[0] or happened.truncated[0]:
            ending = "terminated" if happened.terminated[0] else "cut off by the time limit"
            break
    return Episode(np.array(seen), states, np.array(rewards), ending)
