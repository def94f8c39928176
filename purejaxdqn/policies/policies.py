"""Loads and evaluates trained policies."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxdqn.config.arguments import check_agents
from purejaxdqn.config.building import make_algorithm, shapes_of_policy
from purejaxdqn.config.reading import CONFIG_FILE, read_config
from purejaxdqn.config.trust import check_trust
from purejaxdqn.core.algorithm import ActorView
from purejaxdqn.core.config import Config
from purejaxdqn.core.evaluation import Values, greedy_returns
from purejaxdqn.core.keys import episodes_key
from purejaxdqn.core.many import lay_out, map_runs
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.environments.sight import Sight, make_sight
from purejaxdqn.policies.cards import DESCRIPTION_FILE
from purejaxdqn.policies.exported import load_exported, load_to_play
from purejaxdqn.policies.gallery import find_agent
from purejaxdqn.policies.greedy import Policy
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
        raise UserError(
            f"{folder} is not a run but a policy that was exported from one; evaluate and load_policy read it"
        )
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


def load_agents(folder: str | Path, *, seed_index: int | None = None, trust: bool = False) -> tuple[Config, Any]:
    """Load agents to play them: all of a run directory, or one of them; or the agent of an exported folder.

    Args:
      folder: a run directory, an exported folder, or an agent of the gallery, ``agents/NAME``.
      seed_index: the agent K; None loads all.
      trust: see ``load_params``; playing an exported folder imports its environment, too.

    Returns:
      The config, and the parameters of S agents, leaves [S, ...].

    Raises:
      UserError: a file is missing or damaged, there is no such agent, or the environment cannot be made.
    """
    folder = find_agent(Path(folder))
    if _is_exported(folder):
        _check_only_agent(folder, seed_index or 0)
        return load_to_play(folder, trust=trust)
    config, params = load_params(folder, trust=trust)
    if seed_index is None:
        return config, params
    check_seed_index(config, seed_index)
    return config, jax.tree.map(lambda leaf: leaf[seed_index : seed_index + 1], params)


def load_policy(folder: str | Path, *, seed_index: int = 0, trust: bool = False) -> Policy:
    """Load the greedy policy of one agent.

    Args:
      folder: a run directory, or a folder that ``purejaxdqn.export`` wrote in any format. An exported folder describes
        its environment, so the environment need not be installed.
      seed_index: which agent of a run to load; an exported folder has only agent 0.
      trust: see ``load_params``; an exported folder imports nothing.

    Returns:
      A ``Policy``: ``policy(obs)`` takes one observation [O] or a batch [B, O], and returns one action or actions [B].
      Where the environment has illegal actions, ``policy(obs, legal=legal)`` takes the legal ones. It raises a
      ``ValueError`` for another shape, for values that are not real numbers, and without the legal actions.

    Raises:
      UserError: the folder has no policy or no such agent, or is damaged.
    """
    folder = find_agent(Path(folder))
    if _is_exported(folder):
        _check_only_agent(folder, seed_index)
        env, config, params = load_exported(folder)
    else:
        config, params = load_params(folder, trust=trust)
        check_seed_index(config, seed_index)
        env = make_environment(**config.env.making())
        params = jax.tree.map(lambda leaf: leaf[seed_index], params)
    return Policy(config, env, params)


def _is_exported(folder: Path) -> bool:
    try:
        return (folder / DESCRIPTION_FILE).is_file()
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error


def _check_only_agent(folder: Path, seed_index: int) -> None:
    if seed_index:
        raise UserError(f"{folder} is an exported policy: it has no agent {seed_index}, only agent 0")


def check_seed_index(config: Config, seed_index: int) -> None:
    """Raise a ``UserError`` unless the run has an agent ``seed_index``."""
    if not 0 <= seed_index < config.num_seeds:
        raise UserError(
            f"--seed-index: {seed_index} is not an agent of this run, which has 0 to {config.num_seeds - 1}"
        )


def evaluate_policy(config: Config, params: Any, *, episodes: int = 100, seed: int = 0) -> np.ndarray:
    """Play greedy episodes in the run's own environment.

    Args:
      config: the config of the run.
      params: parameters of S agents, leaves [S, ...].
      episodes: number of episodes N per agent; all agents start from the same N states.
      seed: seed of the episodes.

    Returns:
      Undiscounted returns [S, N].

    Raises:
      ValueError: the parameters are of another network, or not of S agents.
    """
    env = make_environment(**config.env.making())
    algorithm = make_algorithm(config, env)
    check_agents(params, shapes_of_policy(config, algorithm))
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
    # Gymnasium would import what is before a colon as a module, of the working directory or of anybody.
    if ":" in config.env.id:
        raise UserError(f"--backend gymnasium: Gymnasium has no environment {config.env.id!r}")
    try:
        envs = [gymnasium.make(config.env.id) for _ in range(episodes)]
    except gymnasium.error.Error as error:
        raise UserError(f"--backend gymnasium: Gymnasium has no environment {config.env.id!r}") from error
    algorithm = make_algorithm(config, make_environment(**config.env.making()))
    values = jax.jit(functools.partial(algorithm.values, config.hparams()))  # compiled once for all agents
    agents = [jax.tree.map(lambda leaf, s=s: leaf[s], params) for s in range(_count_agents(params))]
    memory = algorithm.memory(episodes)
    sight = make_sight(config.env.observe, config.env.frame_stack)
    return np.array([_play_in_gymnasium(envs, functools.partial(values, one), memory, sight, seed) for one in agents])


def _count_agents(params: Any) -> int:
    return jax.tree.leaves(params)[0].shape[0]


def _play_in_gymnasium(envs: list[Any], values: Values, memory: Any, sight: Sight, seed: int) -> list[float]:
    """Play one episode in each of N environments, with one batch of actions per step; return the N returns."""
    obs = np.array([env.reset(seed=seed * len(envs) + i)[0] for i, env in enumerate(envs)])
    returns, running = np.zeros(len(envs)), np.ones(len(envs), bool)
    start: Any = running.copy() if jax.tree.leaves(memory) else ()
    seen = sight.first(jnp.asarray(obs))
    while running.any():
        q_values, memory = values(ActorView(seen, (), memory, start))
        actions, start = np.asarray(q_values).argmax(-1), jax.tree.map(np.zeros_like, start)
        for i in np.flatnonzero(running):
            obs[i], reward, terminated, truncated, _ = envs[i].step(int(actions[i]))
            returns[i] += float(reward)
            running[i] = not (terminated or truncated)
        seen = sight.after(seen, jnp.asarray(obs))
    return returns.tolist()
