"""A plain PQN in pure JAX, written like public implementations, with their simplifications: one scan over rollouts.

Flax layers with the batch first, `jax.random.permutation` for the minibatches of an epoch, a `vmap` over keys for
several seeds, XLA's default threads. As in the public implementations, an episode that a time limit cuts off counts as
terminated, and the targets are computed from the Q-values of acting, so that only the last observation needs another
forward pass. The network is ours, with layer normalisation in the hidden layers but not in the convolution, where the
public implementations also have it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax

from benchmarks.baselines.setting import RolloutSetting


class QNetwork(nn.Module):
    """An MLP with layer normalisation and ReLU, on a convolution if asked, and one linear output per action."""

    hidden: tuple[int, ...]
    action_dim: int
    convolution: bool

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """Observations [B, ...] -> Q-values [B, A]."""
        x = obs.astype(jnp.float32)
        if self.convolution:
            x = nn.relu(nn.Conv(16, (3, 3), padding="VALID")(x))
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = nn.relu(nn.LayerNorm()(nn.Dense(width)(x)))
        return nn.Dense(self.action_dim)(x)


class Steps(NamedTuple):
    """Steps of a rollout [T, E, ...]."""

    obs: jax.Array
    action: jax.Array
    reward: jax.Array
    done: jax.Array  # 1 where an episode ended, for whatever reason
    q_values: jax.Array  # [T, E, A] at obs


def make_optimizer(setting: RolloutSetting) -> optax.GradientTransformation:
    """RAdam on gradients clipped by their global norm."""
    return optax.chain(optax.clip_by_global_norm(setting.max_grad_norm), optax.radam(setting.learning_rate))


def make_train(setting: RolloutSetting, total_timesteps: int) -> Callable[[jax.Array], tuple[Any, jax.Array]]:
    """Return ``train(key) -> (parameters, returns [R, T, E] of the episodes that ended at each step, or NaN)``."""
    env, env_params = gymnax.make(setting.env_id)
    network = QNetwork(setting.hidden, env.action_space(env_params).n, setting.convolution)
    optimizer = make_optimizer(setting)
    step_envs = jax.vmap(env.step, (0, 0, 0, None))

    def epsilon(timestep: jax.Array) -> jax.Array:
        share = timestep / (setting.exploration_fraction * total_timesteps)
        return 1.0 + jnp.clip(share, 0.0, 1.0) * (setting.epsilon_end - 1.0)

    def act_and_step(params: Any, carry: Any, key: jax.Array) -> tuple[Any, tuple[Steps, jax.Array]]:
        env_state, obs, returns, timestep = carry
        explore_key, action_key, step_key = jax.random.split(key, 3)
        q_values = network.apply(params, obs)
        at_random = jax.random.randint(action_key, (setting.num_envs,), 0, network.action_dim)
        explores = jax.random.uniform(explore_key, (setting.num_envs,)) < epsilon(timestep)
        action = jnp.where(explores, at_random, q_values.argmax(-1))
        keys = jax.random.split(step_key, setting.num_envs)
        after, env_state, reward, terminated, truncated, _ = step_envs(keys, env_state, action, env_params)
        done, returns = terminated | truncated, returns + reward
        steps = Steps(obs, action, jnp.float32(reward), jnp.float32(done), q_values)
        carry = (env_state, after, jnp.where(done, 0.0, returns), timestep + setting.num_envs)
        return carry, (steps, jnp.where(done, returns, jnp.nan))

    def lambda_returns(steps: Steps, last_q: jax.Array) -> jax.Array:
        def back(after: Any, step: Steps) -> tuple[Any, jax.Array]:
            target, next_q = after
            mixed = next_q + setting.trace * (target - next_q)
            target = step.reward + setting.gamma * (1.0 - step.done) * mixed
            return (target, step.q_values.max(-1)), target

        return jax.lax.scan(back, (last_q, last_q), steps, reverse=True)[1]

    def learn(state: Any, batch: tuple[jax.Array, ...]) -> tuple[Any, None]:
        (params, opt_state), (obs, action, target) = state, batch

        def loss(params: Any) -> jax.Array:
            q = jnp.take_along_axis(network.apply(params, obs), action[:, None], -1)[:, 0]
            return jnp.mean((q - target) ** 2)

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    def learn_epoch(state: Any, key: jax.Array, data: tuple[jax.Array, ...]) -> tuple[Any, None]:
        order = jax.random.permutation(key, setting.rollout)
        shuffled = [jnp.take(x.reshape(setting.rollout, *x.shape[2:]), order, axis=0) for x in data]
        batches = tuple(x.reshape(setting.minibatches, setting.batch_size, *x.shape[1:]) for x in shuffled)
        return jax.lax.scan(learn, state, batches)

    def update(carry: Any, _: None) -> tuple[Any, jax.Array]:
        (params, opt_state), actors, key = carry
        key, act_key, learn_key = jax.random.split(key, 3)
        act_keys = jax.random.split(act_key, setting.steps)
        actors, (steps, finished) = jax.lax.scan(lambda carry, key: act_and_step(params, carry, key), actors, act_keys)
        data = (steps.obs, steps.action, lambda_returns(steps, network.apply(params, actors[1]).max(-1)))
        keys = jax.random.split(learn_key, setting.epochs)
        state, _ = jax.lax.scan(lambda state, key: learn_epoch(state, key, data), (params, opt_state), keys)
        return (state, actors, key), finished

    def train(key: jax.Array) -> tuple[Any, jax.Array]:
        key, network_key, reset_key = jax.random.split(key, 3)
        obs, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, setting.num_envs), env_params)
        params = network.init(network_key, obs)
        actors = (env_state, obs, jnp.zeros(setting.num_envs), jnp.int32(0))
        start = ((params, optimizer.init(params)), actors, key)
        ((params, _), *_), finished = jax.lax.scan(update, start, None, total_timesteps // setting.rollout)
        return params, finished

    return train
