"""rejax's PQN, configured to do the same work, with its own loop, targets and minibatches.

Its network and optimiser are replaced by those of `scan_pqn.py`: its own network is an MLP, and it clips gradients
element by element and uses Adam. These differences cannot be configured away: it halves the squared loss, which changes
nothing with RAdam unless gradients are clipped; it counts a time limit as a termination, as gymnax 0.0.9 does; it
computes the values of the next observations with a forward pass at every step, as we do, but except at the end of a
rollout its lambda-returns read the value of the step after.
"""

from typing import Any

import jax
from flax.training.train_state import TrainState
from rejax import PQN
from rejax.algos.algorithm import register_init
from rejax.evaluate import evaluate
from rejax.networks import EpsilonGreedyPolicy

from benchmarks.baselines.scan_pqn import QNetwork, make_optimizer
from benchmarks.baselines.setting import RolloutSetting


class Network(QNetwork):
    """The network with the method by which rejax reads the value of an action."""

    def take(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        """Observations [B, ...], actions [B] -> Q-values [B]."""
        return jax.numpy.take_along_axis(self(obs), action[:, None], axis=1)[:, 0]


def make_algorithm(setting: RolloutSetting, total_timesteps: int, *, evaluates: bool = False) -> Any:
    """Return rejax's algorithm, whose ``train(key)`` is pure.

    Args:
      setting: hyperparameters.
      total_timesteps: of the run.
      evaluates: whether the second result is the mean return [1] of 10 episodes, in which rejax takes one random action
        in 200; otherwise it is empty.
    """

    class Algorithm(PQN):
        @register_init
        def initialize_network_params(self, rng: jax.Array) -> dict[str, TrainState]:
            obs = jax.numpy.empty([1, *self.env.observation_space(self.env_params).shape])
            params = self.agent.init(rng, obs)
            return {"q_ts": TrainState.create(apply_fn=(), params=params, tx=make_optimizer(setting))}

    algorithm = Algorithm.create(
        env=setting.env_id,
        total_timesteps=total_timesteps,
        eval_freq=total_timesteps,
        skip_initial_evaluation=True,
        num_envs=setting.num_envs,
        num_steps=setting.steps,
        num_epochs=setting.epochs,
        num_minibatches=setting.minibatches,
        td_lambda=setting.trace,
        learning_rate=setting.learning_rate,
        gamma=setting.gamma,
        eps_end=setting.epsilon_end,
        exploration_fraction=setting.exploration_fraction,
    )
    actions = int(algorithm.action_dim)
    agent = EpsilonGreedyPolicy(Network)(setting.hidden, actions, setting.convolution)

    def callback(algorithm: Any, state: Any, key: jax.Array) -> Any:
        if not evaluates:
            return ()
        steps = algorithm.env_params.max_steps_in_episode
        return evaluate(algorithm.make_act(state), key, algorithm.env, algorithm.env_params, 10, steps)[1].mean()

    return algorithm.replace(agent=agent, eval_callback=callback)
