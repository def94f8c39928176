"""rejax's DQN, configured to do the same work, with its own loop, replay and network class.

Two differences cannot be configured away: gymnax 0.0.9 does not report whether a time limit ended an episode, and the
next observation stored with the last step of an episode is the first one of the next episode.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from rejax import DQN
from rejax.algos.dqn import EpsilonGreedyPolicy
from rejax.evaluate import evaluate
from rejax.networks import DiscreteQNetwork

from benchmarks.baselines.setting import Setting


def make_algorithm(setting: Setting, *, every: int | None = None, report: Callable[..., None] | None = None) -> Any:
    """Return rejax's algorithm, whose ``train(key)`` is pure.

    Args:
      setting: hyperparameters of the run.
      every: environment steps between evaluations; None evaluates only at the end.
      report: called on the host with the number of steps so far and the mean return of 10 episodes (in which rejax
        takes one random action in 200); None does not evaluate.
    """
    algorithm = DQN.create(
        env="CartPole-v1",
        total_timesteps=setting.total_timesteps,
        eval_freq=every or setting.total_timesteps,
        skip_initial_evaluation=True,
        num_envs=setting.num_envs,
        batch_size=setting.batch_size,
        buffer_size=setting.buffer_size,
        fill_buffer=setting.warmup,
        target_update_freq=setting.target_every,
        polyak=0.0,  # the share of the old target that stays
        learning_rate=setting.learning_rate,
        gamma=setting.gamma,
        eps_end=setting.epsilon_end,
        exploration_fraction=setting.exploration_fraction,
        ddqn=False,
    )
    actions = algorithm.action_dim
    agent = EpsilonGreedyPolicy(DiscreteQNetwork)(
        hidden_layer_sizes=setting.hidden, action_dim=actions, activation=nn.relu
    )

    def callback(algorithm: Any, state: Any, key: jax.Array) -> Any:
        if report is None:
            return ()
        steps = algorithm.env_params.max_steps_in_episode
        _, returns = evaluate(algorithm.make_act(state), key, algorithm.env, algorithm.env_params, 10, steps)
        jax.debug.callback(report, state.global_step, returns.mean(), ordered=True)
        return ()

    return algorithm.replace(agent=agent, eval_callback=callback)
