"""A typical pure-JAX DQN: one scan over steps, with `lax.cond` for everything that is not done at every step.

CleanRL's hyperparameters on gymnax's CartPole. Every step of the scan acts in all environments and adds the step to a
flat buffer; one `lax.cond` decides whether to learn, another whether to copy the target network. Several seeds are a
`vmap` over keys, which turns each condition into a select that computes both branches. Threads are XLA's default. As in
ours, the buffer stores the true next observation, and a time limit does not count as a termination.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax

from benchmarks.baselines.setting import Setting


class QNetwork(nn.Module):
    """An MLP with ReLU, and one linear output per action."""

    hidden: tuple[int, ...]
    num_actions: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """Observations [..., 4] -> Q-values [..., A]."""
        for width in self.hidden:
            obs = nn.relu(nn.Dense(width)(obs))
        return nn.Dense(self.num_actions)(obs)


class Steps(NamedTuple):
    """Transitions [N, ...]."""

    obs: jax.Array
    action: jax.Array
    reward: jax.Array
    next_obs: jax.Array
    terminated: jax.Array


class Parts(NamedTuple):
    """The functions of a run; the network's parameters are the first member of the carry."""

    init: Callable[[jax.Array], Any]  # key -> carry
    step: Callable[[Any, None], tuple[Any, jax.Array]]  # carry -> carry, returns of the episodes that ended [E], or NaN
    evaluate: Callable[[Any, jax.Array], jax.Array]  # parameters, key -> returns of 10 greedy episodes


def make_train(setting: Setting) -> Callable[[jax.Array], tuple[Any, jax.Array]]:
    """Return ``train(key) -> (parameters, returns [T, E] of the episodes that ended at each step, NaN elsewhere)``."""
    init, step, _ = make_parts(setting)

    def train(key: jax.Array) -> tuple[Any, jax.Array]:
        carry, finished = jax.lax.scan(step, init(key), None, setting.total_timesteps // setting.num_envs)
        return carry[0], finished

    return train


def make_parts(setting: Setting) -> Parts:
    """Return the functions of a run, for callers that evaluate between steps."""
    env, env_params = gymnax.make("CartPole-v1")
    network = QNetwork(setting.hidden, env.action_space(env_params).n)
    optimizer = optax.adam(setting.learning_rate)
    reset = jax.vmap(env.reset, (0, None))
    step_envs = jax.vmap(env.step, (0, 0, 0, None))

    def epsilon(timestep: jax.Array) -> jax.Array:
        share = (timestep - setting.warmup) / (setting.exploration_fraction * setting.total_timesteps)
        annealed = 1.0 + jnp.clip(share, 0.0, 1.0) * (setting.epsilon_end - 1.0)
        return jnp.where(timestep < setting.warmup, 1.0, annealed)

    def learn(params: Any, target: Any, opt_state: Any, batch: Steps) -> tuple[Any, Any]:
        next_q = network.apply(target, batch.next_obs).max(-1)
        targets = batch.reward + setting.gamma * (1.0 - batch.terminated) * next_q

        def loss(params: Any) -> jax.Array:
            q = jnp.take_along_axis(network.apply(params, batch.obs), batch.action[:, None], -1)[:, 0]
            return jnp.mean((q - targets) ** 2)

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
        params, target, opt_state, buffer, env_state, obs, returns, timestep, key = carry
        key, explore_key, action_key, step_key, sample_key = jax.random.split(key, 5)
        greedy = network.apply(params, obs).argmax(-1)
        at_random = jax.random.randint(action_key, greedy.shape, 0, network.num_actions)
        explores = jax.random.uniform(explore_key, greedy.shape) < epsilon(timestep)
        action = jnp.where(explores, at_random, greedy)
        keys = jax.random.split(step_key, setting.num_envs)
        after, env_state, reward, terminated, truncated, info = step_envs(keys, env_state, action, env_params)

        rows = (timestep + jnp.arange(setting.num_envs)) % setting.buffer_size
        seen = Steps(obs, action, reward, info["final_observation"], terminated.astype(jnp.float32))
        buffer = jax.tree.map(lambda leaf, new: leaf.at[rows].set(new), buffer, seen)
        timestep = timestep + setting.num_envs
        returns = returns + reward
        ended = terminated | truncated
        finished = jnp.where(ended, returns, jnp.nan)
        returns = jnp.where(ended, 0.0, returns)

        filled = jnp.minimum(timestep, setting.buffer_size)
        chosen = jax.random.randint(sample_key, (setting.batch_size,), 0, filled)
        batch = jax.tree.map(lambda leaf: leaf[chosen], buffer)
        params, opt_state = jax.lax.cond(
            (timestep > setting.warmup) & (timestep % setting.train_every == 0),
            lambda: learn(params, target, opt_state, batch),
            lambda: (params, opt_state),
        )
        target = jax.lax.cond(timestep % setting.target_every == 0, lambda: params, lambda: target)
        return (params, target, opt_state, buffer, env_state, after, returns, timestep, key), finished

    def init(key: jax.Array) -> Any:
        key, network_key, reset_key = jax.random.split(key, 3)
        obs, env_state = reset(jax.random.split(reset_key, setting.num_envs), env_params)
        params = network.init(network_key, obs)
        size, shape = setting.buffer_size, obs.shape[1:]
        buffer = Steps(
            obs=jnp.zeros((size, *shape)),
            action=jnp.zeros(size, jnp.int32),
            reward=jnp.zeros(size),
            next_obs=jnp.zeros((size, *shape)),
            terminated=jnp.zeros(size),
        )
        returns, timestep = jnp.zeros(setting.num_envs), jnp.int32(0)
        return (params, params, optimizer.init(params), buffer, env_state, obs, returns, timestep, key)

    def evaluate(params: Any, key: jax.Array) -> jax.Array:
        obs, env_state = reset(jax.random.split(key, 10), env_params)

        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            obs, env_state, returns, going = carry
            action = network.apply(params, obs).argmax(-1)
            obs, env_state, reward, terminated, truncated, _ = step_envs(
                jax.random.split(key, 10), env_state, action, env_params
            )
            return (obs, env_state, returns + reward * going, going & ~(terminated | truncated)), None

        start = (obs, env_state, jnp.zeros(10), jnp.ones(10, bool))
        (_, _, returns, _), _ = jax.lax.scan(step, start, jax.random.split(jax.random.fold_in(key, 1), 500))
        return returns

    return Parts(init, step, evaluate)
