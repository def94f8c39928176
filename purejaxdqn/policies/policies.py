"""Saves, loads and evaluates trained policies."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from purejaxdqn.config.building import make_algorithm, make_q_values, policy_shapes
from purejaxdqn.config.reading import CONFIG_FILE, load_config, read_config
from purejaxdqn.core.config import Config
from purejaxdqn.core.environment import Environment
from purejaxdqn.core.evaluation import greedy_returns
from purejaxdqn.core.keys import episodes_key
from purejaxdqn.core.many import lay_out, map_runs
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.environments.wrappers import observation_features
from purejaxdqn.policies.cards import DESCRIPTION_FILE, read_description
from purejaxdqn.policies.summaries import SUMMARY_FILE, is_changed, read_summary, warn_of_changes
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import replacing

POLICY_FILE = "policy.safetensors"


def save_policy(folder: Path, params: Any) -> None:
    """Write parameters of S agents, leaves [S, ...], to ``policy.safetensors``, each under its path in the tree."""
    flat = {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}
    # No metadata: safetensors writes it in no fixed order, and equal runs must write equal files.
    with replacing(folder / POLICY_FILE) as part:
        part.write_bytes(save(flat))  # save_file would make the file readable by its owner only


def load_params(folder: str | Path) -> tuple[Config, Any]:
    """Load the config of a run directory and the parameters of its S agents, leaves [S, ...].

    Raises:
      UserError: a file is missing or damaged, or the parameters do not fit the config.
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
    config = load_config(folder / CONFIG_FILE)
    env = make_environment(**config.env.making())
    params = _read_params(folder, config, env, leading=(config.num_seeds,))
    if (folder / SUMMARY_FILE).is_file():
        _check_digest(folder / POLICY_FILE, read_summary(folder), SUMMARY_FILE)
        warn_of_changes(folder, CONFIG_FILE)
    return config, params


def load_policy(folder: str | Path, *, seed_index: int = 0) -> Callable[[Any], np.ndarray]:
    """Load the greedy policy of one agent.

    Args:
      folder: a run directory, or a folder that ``purejaxdqn.export`` wrote in any format. An exported folder describes
        its environment, so the environment need not be installed.
      seed_index: which agent of a run to load; an exported folder has only agent 0.

    Returns:
      ``act(obs)``, which takes one observation [O] or a batch [B, O], and returns one action or actions [B].

    Raises:
      UserError: the folder has no policy or no such agent, or is damaged.
    """
    folder = Path(folder)
    if (folder / DESCRIPTION_FILE).is_file():
        if seed_index:
            raise UserError(f"{folder} is an exported policy: it has no agent {seed_index}, only agent 0")
        env, config, params = load_exported(folder)
    else:
        config, params = load_params(folder)
        check_seed_index(config, seed_index)
        env = make_environment(**config.env.making())
        params = jax.tree.map(lambda leaf: leaf[seed_index], params)
    q_values = jax.jit(functools.partial(make_q_values(config, env), config.hparams(), params))
    single = len(env.obs_shape)

    def act(obs: Any) -> np.ndarray:
        obs = np.asarray(obs)
        actions = np.asarray(q_values(obs[None] if obs.ndim == single else obs)).argmax(-1)
        return actions[0] if obs.ndim == single else actions

    return act


def load_exported(folder: Path) -> tuple[Environment, Config, Any]:
    """Load an exported folder -> its described environment, its config, and the parameters of its agent.

    The environment is built from the description and imports nothing: a folder from an untrusted source runs no code.

    Raises:
      UserError: a file is missing or damaged, or the files do not fit each other.
    """
    try:
        description = read_description((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        env = _described_environment(description)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / DESCRIPTION_FILE} cannot be used: {error}") from error
    config = _read_config_only(folder / CONFIG_FILE)
    features = description["features"]
    if (bool(features["one_hot"]), features["flatten"]) != (config.env.one_hot, config.env.flatten):
        raise UserError(f"{folder / DESCRIPTION_FILE} does not fit {CONFIG_FILE}: its features are others")
    params = _read_params(folder, config, env)
    for name in (POLICY_FILE, CONFIG_FILE):
        _check_digest(folder / name, description, DESCRIPTION_FILE)
    return env, config, params


def _check_digest(path: Path, record: dict[str, Any], name: str) -> None:
    """Raise a ``UserError`` if a file differs from its digest in ``record``, which the file ``name`` holds."""
    if is_changed(path, record):
        raise UserError(f"{path} is damaged: it does not have the digest that is in {name}")


def _described_environment(description: dict[str, Any]) -> Environment:
    """Return an environment that has shapes and features but cannot be stepped."""

    def unplayable(*arguments: Any) -> Any:
        raise NotImplementedError(
            "an exported policy only has a description of its environment, which cannot be played"
        )

    observation, features = description["observation"], description["features"]
    return Environment(
        env_id=description["env_id"],
        obs_shape=tuple(map(int, observation["shape"])),
        obs_dtype=np.dtype(observation["dtype"]),
        num_actions=int(description["action"]["n"]),
        default_params=None,
        with_params=unplayable,
        reset=unplayable,
        step=unplayable,
        advance=unplayable,
        features=functools.partial(
            observation_features, depth=int(features["one_hot"]), flatten=bool(features["flatten"])
        ),
    )


def _read_config_only(path: Path) -> Config:
    """Read a config without checking it against its environment."""
    draft = read_config(path)
    if draft.lines or draft.faults:
        raise UserError(f"{path} is damaged", *draft.lines, *(f"{one.key}: {one.message}" for one in draft.faults))
    return draft.config


def _read_params(folder: Path, config: Config, env: Environment, *, leading: tuple[int, ...] = ()) -> Any:
    """Read parameters whose leaves have ``leading`` axes in front of the shapes of the config's network."""
    try:
        flat = load_file(folder / POLICY_FILE)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / POLICY_FILE} is damaged: {error}") from error
    expected = traverse_util.flatten_dict(policy_shapes(config, env), sep="/")
    kinds = {path: ((*leading, *leaf.shape), leaf.dtype) for path, leaf in expected.items()}
    if kinds == {path: (leaf.shape, leaf.dtype) for path, leaf in flat.items()}:
        return traverse_util.unflatten_dict(flat, sep="/")
    if any(path.endswith("/kernel") for path in flat):
        raise UserError(
            f"{folder / POLICY_FILE} was written by an earlier purejaxdqn, with another layout of the layers"
        )
    raise UserError(f"{folder / POLICY_FILE} does not fit the network that {CONFIG_FILE} describes")


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
