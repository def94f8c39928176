"""The run: a nest of scans with static lengths and no branch for scheduling.

    prefill    scan over the warm-up          act at random, add
    segment    scan over epochs               evaluate, emit a row
                 scan over target periods     sync the target network at the end
                   scan over iterations
                     scan over T              act, step
                     add T * E transitions
                     scan over G              sample, update, reprioritise

Every array lives on the device; nothing in here calls back to the host.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.core.config import Config
from purejaxdqn.core.draws import Draws, UpdateDraws, draw
from purejaxdqn.core.evaluation import greedy_returns
from purejaxdqn.core.exploration import epsilon, epsilon_greedy
from purejaxdqn.core.plan import Plan, find_faults, make_plan
from purejaxdqn.core.rollout import Policy, forget_finished, rollout, start_actors
from purejaxdqn.core.types import (
    ActorState,
    Array,
    EpochRow,
    HParams,
    Network,
    Result,
    RunnerState,
    UpdateStats,
)
from purejaxdqn.dqn.agent import Agent, make_agent
from purejaxdqn.dqn.replay import make_replay
from purejaxdqn.environments.registry import Environment, make_environment


class Program(NamedTuple):
    """One run as pure functions of its hyper-parameters.

    ``train(hparams, key)`` is ``init``, ``segment`` over all epochs and ``finish``; calling ``segment``
    several times in its place gives the same bits on CPU.
    """

    plan: Plan
    env: Environment
    agent: Agent
    init: Callable[[HParams, Array], RunnerState]  # key (consumed) -> the state after the warm-up
    segment: Callable[[HParams, RunnerState, int], tuple[RunnerState, EpochRow]]  # epochs is static
    finish: Callable[[HParams, RunnerState], Array]  # -> greedy returns [final_episodes]
    train: Callable[[HParams, Array], Result]  # key (consumed)


def make_train(
    config: Config, *, network: Network | None = None, env: Environment | None = None
) -> Callable[[HParams, Array], Result]:
    """The pure function ``train(hparams, key) -> Result`` of a whole run.

    Args:
      config: only its static part is used; the numbers come in through ``hparams``.
      network: anything with ``init(key, obs)`` and ``apply(params, obs)`` in place of the config's own.
      env: ``from_gymnax(...)`` in place of the config's environment.

    Raises:
      ValueError: the config's keys contradict each other; ``load_config`` would have refused it.
    """
    return make_program(config, network=network, env=env).train


def make_program(config: Config, *, network: Network | None = None, env: Environment | None = None) -> Program:
    """Build the parts of ``make_train``'s function; see there."""
    faults = [f"{fault.key}: {fault.message}" for fault in find_faults(config)]
    if faults:
        raise ValueError("; ".join(faults))
    config = config.static()
    plan = make_plan(config)
    env = env or make_environment(**config.env.making())
    agent = make_agent(config, env, network)
    num_envs, warmup = config.env.num_envs, config.schedule.warmup
    replay = make_replay(
        kind=config.replay.kind, size=config.replay.size, n_step=config.n_step, num_envs=num_envs, warmup=warmup
    )
    draw_for = functools.partial(
        draw, num_envs=num_envs, num_actions=env.num_actions, batch_size=config.replay.batch_size
    )

    def init(hparams: HParams, key: Array) -> RunnerState:
        init_key, reset_key, prefill_key, key = jax.random.split(key, 4)
        actors = start_actors(env, env.with_params(hparams.env_params), reset_key, num_envs=num_envs)
        state = RunnerState(agent.init(hparams, init_key), actors, replay.init(actors.obs[0]), key)
        return prefill(hparams, state, prefill_key)

    def prefill(hparams: HParams, state: RunnerState, key: Array) -> RunnerState:
        def body(state: RunnerState, draws: Draws) -> tuple[RunnerState, None]:
            return act(hparams, lambda actors, draws: draws.random_action, state, draws), None

        draws, _ = draw_for(key, plan.warmup, rollout=1, gradient_steps=0)
        return jax.lax.scan(body, state, draws)[0]

    def act(hparams: HParams, policy: Policy, state: RunnerState, draws: Draws) -> RunnerState:
        """T steps of every environment go into the buffer; T is the first axis of ``draws``."""
        actors, steps = rollout(env, env.with_params(hparams.env_params), policy, state.actors, draws)
        learner = agent.see(state.learner, steps.obs.reshape(-1, *env.obs_shape))
        return state._replace(learner=learner, actors=actors, replay=replay.add(hparams, state.replay, steps))

    def learn(hparams: HParams, state: RunnerState, draws: UpdateDraws) -> tuple[RunnerState, UpdateStats]:
        """One gradient step."""
        env_step = state.actors.env_step
        batch = replay.sample(hparams, state.replay, draws.sample, env_step)
        learner, td_error, stats = agent.update(hparams, state.learner, batch, draws.key, env_step)
        buffer = replay.reprioritise(hparams, state.replay, batch.indices, td_error)
        return state._replace(learner=learner, replay=buffer), stats

    def iteration(
        hparams: HParams, state: RunnerState, draws: Draws, update_draws: UpdateDraws
    ) -> tuple[RunnerState, UpdateStats]:
        policy = agent.policy(state.learner)

        def explore(actors: ActorState, draws: Draws) -> Array:
            q_values = agent.q_values(hparams, policy, actors.obs, draws.noise_key)
            return epsilon_greedy(q_values, epsilon(hparams, actors.env_step, warmup=warmup), draws)

        state = act(hparams, explore, state, draws)
        state, stats = jax.lax.scan(lambda state, draws: learn(hparams, state, draws), state, update_draws)
        return state, _mean(stats)

    def period(hparams: HParams, state: RunnerState, key: Array) -> tuple[RunnerState, UpdateStats]:
        xs = draw_for(key, plan.iterations, rollout=plan.rollout, gradient_steps=plan.gradient_steps)
        state, stats = jax.lax.scan(lambda state, xs: iteration(hparams, state, *xs), state, xs)
        return state._replace(learner=agent.sync(hparams, state.learner)), _mean(stats)

    def epoch(hparams: HParams, state: RunnerState) -> tuple[RunnerState, EpochRow]:
        key, learn_key, evaluation_key, _ = jax.random.split(state.key, 4)  # the fourth is finish's
        actors = state.actors._replace(episodes=forget_finished(state.actors.episodes))
        state = state._replace(actors=actors, key=key)
        keys = jax.random.split(learn_key, plan.periods)
        state, stats = jax.lax.scan(lambda state, key: period(hparams, state, key), state, keys)
        eval_returns = evaluate(hparams, state, evaluation_key, config.evaluation.episodes)
        epsilon_now = epsilon(hparams, state.actors.env_step, warmup=warmup)
        return state, _row(state.actors, _mean(stats), eval_returns, epsilon_now)

    def evaluate(hparams: HParams, state: RunnerState, key: Array, episodes: int) -> Array:
        q_values = functools.partial(agent.q_values, hparams, agent.policy(state.learner))
        return greedy_returns(env, q_values, env.with_params(hparams.env_params), key, episodes=episodes)

    def segment(hparams: HParams, state: RunnerState, epochs: int) -> tuple[RunnerState, EpochRow]:
        return jax.lax.scan(lambda state, _: epoch(hparams, state), state, None, length=epochs)

    def finish(hparams: HParams, state: RunnerState) -> Array:
        key = jax.random.split(state.key, 4)[3]  # the one of four that no epoch uses
        return evaluate(hparams, state, key, config.evaluation.final_episodes)

    def train(hparams: HParams, key: Array) -> Result:
        state, rows = segment(hparams, init(hparams, key), plan.epochs)
        return Result(agent.policy(state.learner), rows, finish(hparams, state))

    return Program(plan, env, agent, init, segment, finish, train)


def _row(actors: ActorState, stats: UpdateStats, eval_returns: Array, epsilon: Array) -> EpochRow:
    finished = jnp.sum(actors.episodes.finished)

    def mean(total: Array) -> Array:
        # Not 0 / 0, which is NaN too: who looks for the first NaN of a run should not find this one.
        return jnp.where(finished > 0, total / jnp.maximum(finished, 1), jnp.nan)

    return EpochRow(
        env_step=actors.env_step,
        episodes=finished,
        episode_return=mean(jnp.sum(actors.episodes.return_sum)),
        episode_length=mean(jnp.sum(actors.episodes.length_sum)),
        eval_returns=eval_returns,
        loss=stats.loss,
        q_value=stats.q_value,
        epsilon=epsilon,
        grad_norm=stats.grad_norm,
    )


def _mean(stats: Any) -> Any:
    return jax.tree.map(jnp.mean, stats)
