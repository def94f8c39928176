"""Acting: steps of a batch of environments, and the episodes that end in them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purejaxdqn.core.algorithm import ActorView, all_starting
from purejaxdqn.core.draws import ActDraws, StepDraws
from purejaxdqn.core.environment import Environment
from purejaxdqn.core.types import ActorState, Array, EpisodeStats, Rollout, Step

Act = Callable[[ActorView, ActDraws, Array], tuple[Array, Any]]
"""What the actors see, the draws of one step, env_step [] -> action [E], memory."""


def start_actors(env: Environment, env_params: Any, key: Array, *, num_envs: int, memory: Any = ()) -> ActorState:
    """Reset ``num_envs`` environments. Consumes ``key``."""
    obs, env_state = env.reset(env_params, jax.random.split(key, num_envs))
    start, episodes = all_starting(memory, num_envs), _no_episodes(num_envs)
    return ActorState(env_state, obs, episodes, env_step=jnp.int32(0), memory=memory, start=start)


def rollout(
    env: Environment, env_params: Any, act: Act, actors: ActorState, draws: StepDraws
) -> tuple[ActorState, Rollout]:
    """Take T steps in every environment, T being the first axis of ``draws``."""

    def body(actors: ActorState, draws: StepDraws) -> tuple[ActorState, tuple[Step, Any]]:
        view = ActorView(actors.obs, env.legal(env_params, actors.env_state), actors.memory, actors.start)
        action, memory = act(view, draws.act, actors.env_step)
        obs, env_state, step = env.step(env_params, draws.env_keys, actors.env_state, actors.obs, action)
        step = step._replace(legal=view.legal)
        start = jax.tree.map(lambda _: step.terminated | step.truncated, actors.start)
        episodes = _count_episodes(actors.episodes, step)
        env_step = actors.env_step + action.shape[0]
        return ActorState(env_state, obs, episodes, env_step, memory, start), (step, view.start)

    after, (steps, start) = jax.lax.scan(body, actors, draws)
    return after, Rollout(steps, actors.memory, start)


def forget_finished(stats: EpisodeStats) -> EpisodeStats:
    """Start a new epoch: episodes under way continue, the sums over finished ones begin again at 0."""
    fresh = _no_episodes(stats.finished.shape[0])
    return fresh._replace(episode_return=stats.episode_return, episode_length=stats.episode_length)


def _no_episodes(num_envs: int) -> EpisodeStats:
    return EpisodeStats(
        episode_return=jnp.zeros(num_envs),
        episode_length=jnp.zeros(num_envs, jnp.int32),
        finished=jnp.zeros(num_envs, jnp.int32),
        return_sum=jnp.zeros(num_envs),
        length_sum=jnp.zeros(num_envs, jnp.int32),
    )


def _count_episodes(stats: EpisodeStats, step: Step) -> EpisodeStats:
    done = step.terminated | step.truncated
    episode_return, episode_length = stats.episode_return + step.reward, stats.episode_length + 1
    return EpisodeStats(
        episode_return=jnp.where(done, 0.0, episode_return),
        episode_length=jnp.where(done, 0, episode_length),
        finished=stats.finished + done,
        return_sum=stats.return_sum + jnp.where(done, episode_return, 0.0),
        length_sum=stats.length_sum + jnp.where(done, episode_length, 0),
    )
