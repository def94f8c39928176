"""Records one greedy episode step by step, so that it can be drawn."""

from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxdqn.config.building import make_algorithm
from purejaxdqn.core.algorithm import ActorView, all_starting, greedy
from purejaxdqn.core.config import Config
from purejaxdqn.core.keys import data_of_keys, episodes_key
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.environments.sight import make_sight

MAX_STEPS = 10_000
"""Recording stops after this many steps: in an environment without a time limit, an episode can run forever."""


class Episode(NamedTuple):
    """An episode of T steps."""

    obs: np.ndarray  # [T + 1, O], whole; the last one is the true final observation, before any reset
    states: list[Any]  # T environment states, one before each step; keys inside are their words
    rewards: np.ndarray  # [T]
    ending: str  # why it ended, for messages: terminated, time limit, or ``MAX_STEPS``


def record_episode(config: Config, params: Any, *, seed: int) -> Episode:
    """Play the same episode as ``evaluate_policy`` with ``episodes=1`` and this seed.

    Args:
      config: the config of the run.
      params: the parameters of one agent, without a seed axis.
      seed: seed of the episode.
    """
    env, sight = make_environment(**config.env.making_whole()), make_sight(config.env.observe, config.env.frame_stack)
    algorithm, hparams = make_algorithm(config, make_environment(**config.env.making())), config.hparams()
    env_params, memory = env.with_params(hparams.env_params), algorithm.memory(1)
    start = all_starting(memory, 1)

    @jax.jit
    def step(key: jax.Array, obs: jax.Array, seen: jax.Array, state: Any, memory: Any, start: Any) -> Any:
        keys, legal = jax.random.split(key, 2), env.legal(env_params, state)
        q_values, memory = algorithm.values(hparams, params, ActorView(seen, legal, memory, start))
        obs, state, taken = env.advance(env_params, keys[1:], state, obs, greedy(q_values, legal))  # as evaluation does
        return memory, keys[0], obs, sight.after(seen, taken.next_obs), state, taken

    keys = jax.random.split(episodes_key(seed), 2)
    key, (obs, state) = keys[0], jax.jit(env.reset)(env_params, keys[1:])
    seen = sight.first(obs)
    all_obs, ending = [np.asarray(obs[0])], f"stopped after {MAX_STEPS:,} steps"
    states: list[Any] = []
    rewards: list[float] = []
    while len(states) < MAX_STEPS:
        states.append(jax.tree.map(lambda leaf: np.asarray(leaf[0]), data_of_keys(state)))
        memory, key, obs, seen, state, taken = step(key, obs, seen, state, memory, start)
        start = jax.tree.map(np.zeros_like, start)
        all_obs.append(np.asarray(taken.next_obs[0]))
        rewards.append(float(taken.reward[0]))
        if taken.terminated[0] or taken.truncated[0]:
            ending = "terminated" if taken.terminated[0] else "cut off by the time limit"
            break
    return Episode(np.array(all_obs), states, np.array(rewards), ending)
