"""The run: a nest of scans with static lengths and no branch for scheduling.

    prefill    scan over the warm-up          act at random, observe
    segment    scan over epochs               evaluate, emit a row
                 scan over periods            sync at the end
                   scan over iterations       learn from a rollout
                     scan over T              act, step

The loop knows two records, an ``Environment`` and an ``Algorithm``, and makes neither. Every array lives on the
device; nothing in here calls back to the host.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.core.algorithm import ActorView, Algorithm, checked_algorithm, mean
from purejaxdqn.core.config import HParams
from purejaxdqn.core.draws import NO_LEARNING, ActDraws, StepDraws, draw, random_action
from purejaxdqn.core.environment import Environment, checked_environment
from purejaxdqn.core.evaluation import greedy_returns
from purejaxdqn.core.plan import Plan
from purejaxdqn.core.rollout import Act, forget_finished, rollout, start_actors
from purejaxdqn.core.schedules import ReadClock
from purejaxdqn.core.types import ActorState, Array, EpochRow, Result, Rollout, RunnerState, UpdateStats


class Program(NamedTuple):
    """One run as pure functions of its hyper-parameters.

    ``train(hparams, key)`` is ``init``, ``segment`` over all epochs and ``finish``. Several calls of ``segment`` for
    fewer epochs each give the same bits on a CPU.
    """

    plan: Plan
    env: Environment
    algorithm: Algorithm
    init: Callable[[HParams, Array], RunnerState]  # key (consumed) -> the state after the warm-up
    segment: Callable[[HParams, RunnerState, int], tuple[RunnerState, EpochRow]]  # epochs is static
    finish: Callable[[HParams, RunnerState], Array]  # -> greedy returns [final_episodes]
    train: Callable[[HParams, Array], Result]  # key (consumed)


def build_program(env: Environment, algorithm: Algorithm, plan: Plan, read_clock: ReadClock) -> Program:
    """Build the program of a run.

    Args:
      env: what the agent acts in.
      algorithm: what learns.
      plan: the lengths of the scans.
      read_clock: the schedules.
    """
    env, algorithm = checked_environment(env), checked_algorithm(algorithm, num_actions=env.num_actions)
    num_envs = plan.num_envs
    draw_for = functools.partial(draw, num_envs=num_envs)

    def init(hparams: HParams, key: Array) -> RunnerState:
        init_key, reset_key, prefill_key, key = jax.random.split(key, 4)
        env_params, memory = env.with_params(hparams.env_params), algorithm.memory(num_envs)
        actors = start_actors(env, env_params, reset_key, num_envs=num_envs, memory=memory)
        state = RunnerState(algorithm.init(hparams, init_key), actors, key)
        return prefill(hparams, state, prefill_key) if plan.warmup else state

    def prefill(hparams: HParams, state: RunnerState, key: Array) -> RunnerState:
        def body(state: RunnerState, draws: StepDraws) -> tuple[RunnerState, None]:
            def act_at_random(view: ActorView, draws: ActDraws, env_step: Array) -> tuple[Array, Any]:
                action, memory = random_action(draws.choice, view.legal, env.num_actions), view.memory
                if jax.tree.leaves(memory):  # actors remember what they see, whoever chooses their actions
                    memory = algorithm.values(hparams, algorithm.policy(state.algorithm), view)[1]
                return action, memory

            actors, taken = take_steps(hparams, act_at_random, state.actors, draws)
            observed = algorithm.observe(hparams, state.algorithm, taken)
            return state._replace(algorithm=observed, actors=actors), None

        draws, _ = draw_for(key, plan.warmup, rollout=1, learning=NO_LEARNING)
        return jax.lax.scan(body, state, draws)[0]

    def take_steps(hparams: HParams, act: Act, actors: ActorState, draws: StepDraws) -> tuple[ActorState, Rollout]:
        return rollout(env, env.with_params(hparams.env_params), act, actors, draws)

    def iteration(
        hparams: HParams, state: RunnerState, draws: StepDraws, learn_draws: Any
    ) -> tuple[RunnerState, UpdateStats]:
        policy = algorithm.policy(state.algorithm)

        def act(view: ActorView, draws: ActDraws, env_step: Array) -> tuple[Array, Any]:
            return algorithm.act(hparams, policy, view, draws, read_clock(hparams, env_step))

        actors, taken = take_steps(hparams, act, state.actors, draws)
        clock = read_clock(hparams, actors.env_step)
        learned, stats = algorithm.learn(hparams, state.algorithm, taken, learn_draws, clock)
        return state._replace(algorithm=learned, actors=actors), stats

    def period(hparams: HParams, state: RunnerState, key: Array) -> tuple[RunnerState, UpdateStats]:
        xs = draw_for(key, plan.iterations, rollout=plan.rollout, learning=algorithm.draws)
        state, stats = jax.lax.scan(lambda state, xs: iteration(hparams, state, *xs), state, xs)
        return state._replace(algorithm=algorithm.sync(hparams, state.algorithm)), mean(stats)

    def epoch(hparams: HParams, state: RunnerState) -> tuple[RunnerState, EpochRow]:
        key, learn_key, evaluation_key, _ = jax.random.split(state.key, 4)  # the fourth is finish's
        actors = state.actors._replace(episodes=forget_finished(state.actors.episodes))
        state = state._replace(actors=actors, key=key)
        keys = jax.random.split(learn_key, plan.periods)
        state, stats = jax.lax.scan(lambda state, key: period(hparams, state, key), state, keys)
        eval_returns = evaluate(hparams, state, evaluation_key, plan.episodes)
        epsilon = read_clock(hparams, state.actors.env_step).epsilon()
        return state, _row(state.actors, mean(stats), eval_returns, epsilon)

    def evaluate(hparams: HParams, state: RunnerState, key: Array, episodes: int) -> Array:
        values = functools.partial(algorithm.values, hparams, algorithm.policy(state.algorithm))
        env_params, memory = env.with_params(hparams.env_params), algorithm.memory(episodes)
        return greedy_returns(env, values, env_params, key, episodes=episodes, memory=memory)

    def segment(hparams: HParams, state: RunnerState, epochs: int) -> tuple[RunnerState, EpochRow]:
        return jax.lax.scan(lambda state, _: epoch(hparams, state), state, None, length=epochs)

    def finish(hparams: HParams, state: RunnerState) -> Array:
        key = jax.random.split(state.key, 4)[3]  # the one of four that no epoch uses
        return evaluate(hparams, state, key, plan.final_episodes)

    def train(hparams: HParams, key: Array) -> Result:
        state, rows = segment(hparams, init(hparams, key), plan.epochs)
        return Result(algorithm.policy(state.algorithm), rows, finish(hparams, state))

    return Program(plan, env, algorithm, init, segment, finish, train)


def _row(actors: ActorState, stats: UpdateStats, eval_returns: Array, epsilon: Array) -> EpochRow:
    finished = jnp.sum(actors.episodes.finished)

    def mean_over(total: Array) -> Array:
        # Not 0 / 0, which is NaN too: a search for the first NaN of a run must not find this one.
        return jnp.where(finished > 0, total / jnp.maximum(finished, 1), jnp.nan)

    return EpochRow(
        env_step=actors.env_step,
        episodes=finished,
        episode_return=mean_over(jnp.sum(actors.episodes.return_sum)),
        episode_length=mean_over(jnp.sum(actors.episodes.length_sum)),
        eval_returns=eval_returns,
        loss=stats.loss,
        q_value=stats.q_value,
        epsilon=epsilon,
        grad_norm=stats.grad_norm,
        disagreement=stats.disagreement,
    )
