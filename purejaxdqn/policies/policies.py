"""Loads and evaluates trained policies."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxdqn.config.building import make_algorithm, make_q_values
from purejaxdqn.config.reading import CONFIG_FILE, read_config
from purejaxdqn.config.trust import check_trust
from purejaxdqn.core.config import Config
from purejaxdqn.core.environment import Environment
from purejaxdqn.core.evaluation import greedy_returns
from purejaxdqn.core.keys import episodes_key
from purejaxdqn.core.many import lay_out, map_runs
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.policies.cards import DESCRIPTION_FILE
from purejaxdqn.policies.exported import load_exported
from purejaxdqn.policies.summaries import SUMMARY_FILE, read_summary, warn_of_changes
from purejaxdqn.policies.weights import POLICY_FILE, check_digest, read_params
from purejaxdqn.system.faults import UserError


def load_params(folder: str | Path, *, trust: bool = False) -> tuple[Config, Any]:
    """Load the config of a run directory and the parameters of its S agents, leaves [S, ...].

    Args:
      folder: the run directory.
      trust: whether a module that the config names may be imported even if this user did not start the run here.

    Raises:
      UserError: a file is missing or damaged, the parameters do not fit the config, or the module is not trusted.
    """
    folder = Path(folder)
    try:
        missing = [name for name in (CONFIG_FILE, POLICY_FILE) if not (folder / name).is_file()]
        exported = (folder / DESCRIPTION_FILE).is_file()
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error
    if exported:
        raise UserError(f"{folder} is not a run but a policy that was exported from one; load_policy reads it")
    if missing:
        raise UserError(f"{folder} is not a finished run: it has no {missing[0]}")
    draft = read_config(folder / CONFIG_FILE)
    check_trust(folder, draft.unchecked(), trust=trust)
    config = draft.checked()
    env = make_environment(**config.env.making())
    params = read_params(folder, config, env, leading=(config.num_seeds,))
    if (folder / SUMMARY_FILE).is_file():
        check_digest(folder / POLICY_FILE, read_summary(folder), SUMMARY_FILE)
        warn_of_changes(folder, CONFIG_FILE)
    return config, params


def load_policy(folder: str | Path, *, seed_index: int = 0, trust: bool = False) -> Callable[[Any], np.ndarray]:
    """Load the greedy policy of one agent.

    Args:
      folder: a run directory, or a folder that ``purejaxdqn.export`` wrote in any format. An exported folder describes
        its environment, so the environment need not be installed.
      seed_index: which agent of a run to load; an exported folder has only agent 0.
      trust: see ``load_params``; an exported folder imports nothing.

    Returns:
      ``act(obs)``, which takes one observation [O] or a batch [B, O], and returns one action or actions [B]. It
      raises a ``ValueError`` for another shape, and for what is no real number.

    Raises:
      UserError: the folder has no policy or no such agent, or is damaged.
    """
    folder = Path(folder)
    if (folder / DESCRIPTION_FILE).is_file():
        if seed_index:
            raise UserError(f"{folder} is an exported policy: it has no agent {seed_index}, only agent 0")
        env, config, params = load_exported(folder)
    else:
        config, params = load_params(folder, trust=trust)
        check_seed_index(config, seed_index)
        env = make_environment(**config.env.making())
        params = jax.tree.map(lambda leaf: leaf[seed_index], params)
    q_values = jax.jit(functools.partial(make_q_values(config, env), config.hparams(), params))

    def act(obs: Any) -> np.ndarray:
        batch, single = _as_batch(obs, env)
        # An empty batch has no maximum, and nothing to compute.
        actions = np.asarray(q_values(batch)).argmax(-1) if len(batch) else np.zeros(0, int)
        return actions[0] if single else actions

    return act


def _as_batch(obs: Any, env: Environment) -> tuple[np.ndarray, bool]:
    """``obs`` [O] or [B, O] as a batch [B, O] in the environment's type, and whether it was a single observation.

    Raises:
      ValueError: its shape or its type is another.
    """
    given, shape = np.asarray(obs), env.obs_shape
    if given.shape not in (shape, (*given.shape[:1], *shape)):
        raise ValueError(f"obs has shape {given.shape}; this policy takes {shape}, or a batch of these")
    if not (jnp.issubdtype(given.dtype, jnp.number) or given.dtype == bool) or jnp.iscomplexobj(given):
        raise ValueError(f"obs has type {given.dtype}; this policy takes {np.dtype(env.obs_dtype)}")
    with np.errstate(all="ignore"):  # what a cast loses is seen below
        batch = np.reshape(given, (-1, *shape)).astype(env.obs_dtype)
    if not jnp.issubdtype(batch.dtype, jnp.inexact) and not np.array_equal(batch.ravel(), given.ravel()):
        raise ValueError(f"obs has values that {batch.dtype} cannot hold")
    return batch, given.shape == shape


def one_agent(params: Any, seed_index: int) -> Any:
    """Select one agent's parameters from leaves [S, ...], and keep the seed axis: leaves [1, ...]."""
    return jax.tree.map(lambda leaf: leaf[seed_index : seed_index + 1], params)


def check_seed_index(config: Config, seed_index: int) -> None:
    """Raise a ``UserError`` unless the run has an agent ``seed_index``."""
    if not 0 <= seed_index < config.num_seeds:
        raise UserError(
            f"--seed-index: {seed_index} is not an agent of this run, which has 0 to {config.num_seeds - 1}"
        )


def evaluate_policy(config: Config, params: Any, *, episodes: int = 100, seed: int = 0) -> np.ndarray:
    """Play greedy episodes in gymnax.

    Args:
      config: the config of the run.
      params: parameters of S agents, leaves [S, ...].
      episodes: number of episodes N per agent; all agents start from the same N states.
      seed: seed of the episodes.

    Returns:
      Undiscounted returns [S, N].
    """
    env = make_environment(**config.env.making())
    algorithm = make_algorithm(config, env)
    params = jax.device_get(params)  # those of ``run_many`` may be sharded over other devices than the episodes are

    def play(hparams: Any, params: Any) -> Any:
        env_params = env.with_params(hparams.env_params)
        values = functools.partial(algorithm.values, hparams, params)
        key, memory = episodes_key(seed), algorithm.memory(episodes)
        return greedy_returns(env, values, env_params, key, episodes=episodes, memory=memory)

    layout = lay_out(_count_agents(params))
    hparams = jax.tree.map(lambda leaf: np.repeat(leaf, layout.size), config.hparams())
    return layout.take(np.asarray(map_runs(play, layout)(hparams, layout.fill(params))))


def evaluate_in_gymnasium(config: Config, params: Any, *, episodes: int = 100, seed: int = 0) -> np.ndarray:
    """Play greedy episodes in Gymnasium's environment with the same id, which shares no code with gymnax.

    Takes and returns the same as ``evaluate_policy``.

    Raises:
      UserError: Gymnasium has no such environment, or the config sets options that Gymnasium does not have.
    """
    import gymnasium

    if config.env.params or config.env.kwargs or config.env.sticky_actions:
        message = "the run sets env.params, env.kwargs or env.sticky_actions, which Gymnasium does not have"
        raise UserError(f"--backend gymnasium: {message}")
    try:
        envs = [gymnasium.make(config.env.id) for _ in range(episodes)]
    except gymnasium.error.Error as error:
        raise UserError(f"--backend gymnasium: Gymnasium has no environment {config.env.id!r}") from error
    of_agents = make_q_values(config, make_environment(**config.env.making()))
    q_values = jax.jit(functools.partial(of_agents, config.hparams()))  # compiled once for all agents
    agents = [jax.tree.map(lambda leaf, s=s: leaf[s], params) for s in range(_count_agents(params))]
    return np.array([_play_in_gymnasium(envs, functools.partial(q_values, one), seed) for one in agents])


def _count_agents(params: Any) -> int:
    return jax.tree.leaves(params)[0].shape[0]


def _play_in_gymnasium(envs: list[Any], q_values: Callable[[Any], Any], seed: int) -> list[float]:
    """Play one episode in each of N environments, with one batch of actions per step; return the N returns."""
    obs = np.array([env.reset(seed=seed * len(envs) + i)[0] for i, env in enumerate(envs)])
    returns, running = np.zeros(len(envs)), np.ones(len(envs), bool)
    while running.any():
        actions = np.asarray(q_values(obs)).argmax(-1)
        for i in np.flatnonzero(running):
            obs[i], reward, terminated, truncated, _ = envs[i].step(int(actions[i]))
            returns[i] += float(reward)
            running[i] = not (terminated or truncated)
    return returns.tolist()
