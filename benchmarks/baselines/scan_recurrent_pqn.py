"""A plain recurrent PQN in pure JAX, written like public implementations, with their simplifications.

It is `scan_pqn` with a GRU. Flax layers with the batch first, a GRU cell in `nn.scan` that is reset where an episode
starts, minibatches of whole environments. As in the public implementations, the targets are made in every gradient
step, of the Q-values of the same forward pass over the minibatch, and an episode that a time limit cuts off counts as
terminated.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax

from benchmarks.baselines.scan_pqn import make_optimizer
from benchmarks.baselines.setting import RolloutSetting


class ScannedGRU(nn.Module):
    """A GRU over the first axis, reset where an episode starts."""

    @functools.partial(nn.scan, variable_broadcast="params", in_axes=0, out_axes=0, split_rngs={"params": False})
    @nn.compact
    def __call__(self, carry: jax.Array, xs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Carry [E, H], x [T, E, F] and start [T, E] -> carry, y [T, E, H]."""
        x, start = xs
        carry = jnp.where(start[:, None], jnp.zeros_like(carry), carry)
        return nn.GRUCell(carry.shape[-1])(carry, x)


class RecurrentQNetwork(nn.Module):
    """Hidden layers but the last, a GRU, the last hidden layer, and one linear output per action."""

    hidden: tuple[int, ...]
    action_dim: int

    @nn.compact
    def __call__(self, carry: jax.Array, obs: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Carry [E, H], observations [T, E, ...], start [T, E] -> carry, Q-values [T, E, A]."""
        x = obs.astype(jnp.float32).reshape(*obs.shape[:2], -1)
        for width in self.hidden[:-1]:
            x = nn.relu(nn.LayerNorm()(nn.Dense(width)(x)))
        carry, x = ScannedGRU()(carry, (x, start))
        x = nn.relu(nn.LayerNorm()(nn.Dense(self.hidden[-1])(x)))
        return carry, nn.Dense(self.action_dim)(x)


class Steps(NamedTuple):
    """Steps of a rollout [T, E, ...]."""

    obs: jax.Array
    start: jax.Array  # the step is the first of its episode
    action: jax.Array
    reward: jax.Array
    done: jax.Array  # 1 where an episode ended, for whatever reason


def make_train(
    setting: RolloutSetting, total_timesteps: int, *, memory_size: int, env_params: dict[str, Any]
) -> Callable[[jax.Array], tuple[Any, jax.Array]]:
    """Return ``train(key) -> (parameters, returns [R, T, E] of the episodes that ended at each step, or NaN)``."""
    env, params_of_env = gymnax.make(setting.env_id)
    params_of_env = params_of_env.replace(**env_params)
    network = RecurrentQNetwork(setting.hidden, env.action_space(params_of_env).n)
    optimizer = make_optimizer(setting)
    step_envs = jax.vmap(env.step, (0, 0, 0, None))
    per_batch = setting.num_envs // setting.minibatches

    def epsilon(timestep: jax.Array) -> jax.Array:
        share = timestep / (setting.exploration_fraction * total_timesteps)
        return 1.0 + jnp.clip(share, 0.0, 1.0) * (setting.epsilon_end - 1.0)

    def act_and_step(params: Any, actors: Any, key: jax.Array) -> tuple[Any, tuple[Steps, jax.Array]]:
        env_state, obs, carry, start, returns, timestep = actors
        explore_key, action_key, step_key = jax.random.split(key, 3)
        carry, q_values = network.apply(params, carry, obs[None], start[None])
        at_random = jax.random.randint(action_key, (setting.num_envs,), 0, network.action_dim)
        explores = jax.random.uniform(explore_key, (setting.num_envs,)) < epsilon(timestep)
        action = jnp.where(explores, at_random, q_values[0].argmax(-1))
        keys = jax.random.split(step_key, setting.num_envs)
        after, env_state, reward, terminated, truncated, _ = step_envs(keys, env_state, action, params_of_env)
        done, returns = terminated | truncated, returns + reward
        steps = Steps(obs, start, action, jnp.float32(reward), jnp.float32(done))
        actors = (env_state, after, carry, done, jnp.where(done, 0.0, returns), timestep + setting.num_envs)
        return actors, (steps, jnp.where(done, returns, jnp.nan))

    def lambda_returns(steps: Steps, q_values: jax.Array) -> jax.Array:
        """Targets [T - 1, E]: the last step of a sequence has no next value."""

        def back(target: jax.Array, xs: tuple[Steps, jax.Array]) -> tuple[jax.Array, jax.Array]:
            step, next_q = xs
            mixed = next_q + setting.trace * (target - next_q)
            target = step.reward + setting.gamma * (1.0 - step.done) * mixed
            return target, target

        next_q = q_values[1:].max(-1)
        return jax.lax.scan(back, next_q[-1], (jax.tree.map(lambda x: x[:-1], steps), next_q), reverse=True)[1]

    def learn(state: Any, batch: tuple[jax.Array, Steps]) -> tuple[Any, None]:
        (params, opt_state), (carry, steps) = state, batch

        def loss(params: Any) -> jax.Array:
            _, q_values = network.apply(params, carry, steps.obs, steps.start)
            target = jax.lax.stop_gradient(lambda_returns(steps, q_values))
            q = jnp.take_along_axis(q_values, steps.action[..., None], -1)[:-1, :, 0]
            return jnp.mean((q - target) ** 2)

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    def learn_epoch(state: Any, key: jax.Array, carry: jax.Array, steps: Steps) -> tuple[Any, None]:
        order = jax.random.permutation(key, setting.num_envs)
        carries = carry[order].reshape(setting.minibatches, per_batch, -1)

        def split(x: jax.Array) -> jax.Array:
            x = x[:, order].reshape(setting.steps, setting.minibatches, per_batch, *x.shape[2:])
            return jnp.swapaxes(x, 0, 1)

        return jax.lax.scan(learn, state, (carries, jax.tree.map(split, steps)))

    def update(carry: Any, _: None) -> tuple[Any, jax.Array]:
        (params, opt_state), actors, key = carry
        key, act_key, learn_key = jax.random.split(key, 3)
        before = actors[2]
        act_keys = jax.random.split(act_key, setting.steps)
        actors, (steps, finished) = jax.lax.scan(
            lambda actors, key: act_and_step(params, actors, key), actors, act_keys
        )
        keys = jax.random.split(learn_key, setting.epochs)
        state, _ = jax.lax.scan(lambda state, key: learn_epoch(state, key, before, steps), (params, opt_state), keys)
        return (state, actors, key), finished

    def train(key: jax.Array) -> tuple[Any, jax.Array]:
        key, network_key, reset_key = jax.random.split(key, 3)
        obs, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, setting.num_envs), params_of_env)
        carry, start = jnp.zeros((setting.num_envs, memory_size)), jnp.ones(setting.num_envs, bool)
        params = network.init(network_key, carry, obs[None], start[None])
        actors = (env_state, obs, carry, start, jnp.zeros(setting.num_envs), jnp.int32(0))
        start_of_all = ((params, optimizer.init(params)), actors, key)
        ((params, _), *_), finished = jax.lax.scan(update, start_of_all, None, total_timesteps // setting.rollout)
        return params, finished

    return train
