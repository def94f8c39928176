"""Policies that have been trained: saved, loaded, played."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from purejaxdqn.config.reading import CONFIG_FILE, load_config, read_config
from purejaxdqn.core.config import Config
from purejaxdqn.core.evaluation import greedy_returns
from purejaxdqn.core.keys import episodes_key
from purejaxdqn.core.many import lay_out, map_runs
from purejaxdqn.dqn.agent import make_agent
from purejaxdqn.environments.registry import Environment, make_environment, observation_features
from purejaxdqn.policies.cards import DESCRIPTION_FILE, read_description
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import replacing

POLICY_FILE = "policy.safetensors"


def save_policy(folder: Path, params: Any) -> None:
    """Write the online parameters, leaves [S, ...], to ``policy.safetensors`` under their paths."""
    flat = {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}
    # No metadata: safetensors writes it in no fixed order, and equal runs leave equal files.
    with replacing(folder / POLICY_FILE) as part:
        part.write_bytes(save(flat))  # its own save_file leaves a file that only its owner may read


def load_params(folder: str | Path) -> tuple[Config, Any]:
    """The config of a run directory and its parameters, leaves [S, ...].

    Raises:
      UserError: something is missing, damaged, or does not fit the config.
    """
    folder = Path(folder)
    try:
        missing = [name for name in (CONFIG_FILE, POLICY_FILE) if not (folder / name).is_file()]
        exported = (folder / DESCRIPTION_FILE).is_file()
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error
    if exported:
        raise UserError(f"{folder} is not a run but a policy that was exported from one, which load_policy reads")
    if missing:
        raise UserError(f"{folder} is not a finished run: it has no {missing[0]}")
    config = load_config(folder / CONFIG_FILE)
    flat = _read_weights(folder)
    params = traverse_util.unflatten_dict(flat, sep="/")
    agent = make_agent(config, make_environment(**config.env.making()))
    wanted = jax.eval_shape(lambda: agent.policy(agent.init(config.hparams(), jax.random.key(0))))
    _check_shapes(folder, flat, wanted, leading=(config.num_seeds,))
    return config, params


def load_policy(folder: str | Path, *, seed_index: int = 0) -> Callable[[Any], np.ndarray]:
    """The greedy policy of one agent: ``act(obs)`` takes one observation [O] or a batch [B, O].

    Args:
      folder: a run directory, or what ``purejaxdqn.export`` has written, in any format; the latter is built from its
        own description, without the environment.
      seed_index: which of a run's agents; an exported folder has one, 0.

    Raises:
      UserError: the folder holds no policy, or not that many agents.
    """
    folder = Path(folder)
    if (folder / DESCRIPTION_FILE).is_file():
        if seed_index:
            raise UserError(f"{folder} is an exported policy: it has no agent {seed_index}, but 0 alone")
        env, config, mine = load_exported(folder)
    else:
        config, params = load_params(folder)
        check_seed_index(config, seed_index)
        env = make_environment(**config.env.making())
        mine = jax.tree.map(lambda leaf: leaf[seed_index], params)
    q_values = jax.jit(functools.partial(make_agent(config, env).q_values, config.hparams(), mine))
    single = len(env.obs_shape)

    def act(obs: Any) -> np.ndarray:
        obs = np.asarray(obs)
        actions = np.asarray(q_values(obs[None] if obs.ndim == single else obs)).argmax(-1)
        return actions[0] if obs.ndim == single else actions

    return act


def load_exported(folder: Path) -> tuple[Environment, Config, Any]:
    """What acting needs of an exported folder: the shapes of its environment, its config, its parameters.

    Nothing of the environment is imported, so that a folder from elsewhere runs no code of its own.

    Raises:
      UserError: something is missing, damaged, or does not fit.
    """
    try:
        description = read_description((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        env = _described_environment(description)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / DESCRIPTION_FILE} cannot be used: {error}") from error
    config = _read_config_alone(folder / CONFIG_FILE)
    flat = _read_weights(folder)
    agent = make_agent(config, env)
    wanted = jax.eval_shape(lambda: agent.policy(agent.init(config.hparams(), jax.random.key(0))))
    _check_shapes(folder, flat, wanted)
    return env, config, traverse_util.unflatten_dict(flat, sep="/")


def _described_environment(description: dict[str, Any]) -> Environment:
    """An environment that has shapes and features, and cannot be played."""

    def unplayable(*arguments: Any) -> Any:
        raise NotImplementedError("an exported policy knows its environment by description only")

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


def _read_config_alone(path: Path) -> Config:
    """A config whose environment is not asked whether it agrees."""
    draft = read_config(path)
    if draft.lines or draft.faults:
        raise UserError(f"{path} is damaged", *draft.lines, *(f"{one.key}: {one.message}" for one in draft.faults))
    return draft.config


def _read_weights(folder: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(folder / POLICY_FILE)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / POLICY_FILE} is damaged: {error}") from error


def _check_shapes(folder: Path, flat: dict[str, np.ndarray], wanted: Any, *, leading: tuple[int, ...] = ()) -> None:
    """Refuse weights that are not those of the network ``wanted``, with ``leading`` axes in front of each."""
    shapes = {path: (*leading, *leaf.shape) for path, leaf in traverse_util.flatten_dict(wanted, sep="/").items()}
    if shapes == {path: leaf.shape for path, leaf in flat.items()}:
        return
    if any(path.endswith("/kernel") for path in flat):
        raise UserError(f"{folder / POLICY_FILE} is of an earlier purejaxdqn, which laid layers out otherwise")
    raise UserError(f"{folder / POLICY_FILE} does not fit the network that {CONFIG_FILE} describes")


def jitted_q_values(config: Config) -> Callable[[Any, Any], jax.Array]:
    """Q-values [B, A] of one agent's parameters and observations [B, O], compiled once for all agents."""
    agent = make_agent(config, make_environment(**config.env.making()))
    return jax.jit(functools.partial(agent.q_values, config.hparams()))


def one_agent(params: Any, seed_index: int) -> Any:
    """The parameters of one agent out of leaves [S, ...], still with an axis: [1, ...]."""
    return jax.tree.map(lambda leaf: leaf[seed_index : seed_index + 1], params)


def check_seed_index(config: Config, seed_index: int) -> None:
    """Refuse an agent that the run does not have."""
    if not 0 <= seed_index < config.num_seeds:
        raise UserError(
            f"--seed-index: {seed_index} is not an agent of this run, which has 0 to {config.num_seeds - 1}"
        )


def evaluate_policy(config: Config, params: Any, *, episodes: int = 100, seed: int = 0) -> np.ndarray:
    """Greedy episodes in gymnax.

    Args:
      config: the run's.
      params: parameters of S agents, leaves [S, ...].
      episodes: N, for each agent; all agents meet the same start states.
      seed: for the episodes.

    Returns:
      Returns [S, N].
    """
    env = make_environment(**config.env.making())
    agent = make_agent(config, env)

    def play(hparams: Any, params: Any) -> Any:
        env_params = env.with_params(hparams.env_params)
        key = episodes_key(seed)
        return greedy_returns(
            env, functools.partial(agent.q_values, hparams, params), env_params, key, episodes=episodes
        )

    seeds = jax.tree.leaves(params)[0].shape[0]
    layout = lay_out(seeds)
    hparams = jax.tree.map(lambda leaf: np.repeat(leaf, layout.size), config.hparams())
    return layout.take(np.asarray(map_runs(play, layout)(hparams, layout.fill(params))))


def evaluate_in_gymnasium(config: Config, params: Any, *, episodes: int = 100, seed: int = 0) -> np.ndarray:
    """Greedy episodes in Gymnasium's environment of the same id, an implementation that shares no code with gymnax.

    Arguments and result as for ``evaluate_policy``.

    Raises:
      UserError: Gymnasium has no such environment, or the config sets parameters that it does not know.
    """
    import gymnasium

    if config.env.params or config.env.kwargs or config.env.sticky_actions:
        message = "the run sets env.params, env.kwargs or env.sticky_actions, which Gymnasium does not have"
        raise UserError(f"--backend gymnasium: {message}")
    try:
        envs = [gymnasium.make(config.env.id) for _ in range(episodes)]
    except gymnasium.error.Error as error:
        raise UserError(f"--backend gymnasium: Gymnasium has no environment {config.env.id!r}") from error
    seeds = jax.tree.leaves(params)[0].shape[0]
    q_values = jitted_q_values(config)
    agents = [jax.tree.map(lambda leaf, s=s: leaf[s], params) for s in range(seeds)]
    return np.array([_play_in_gymnasium(envs, functools.partial(q_values, agent), seed) for agent in agents])


def _play_in_gymnasium(envs: list[Any], q_values: Callable[[Any], Any], seed: int) -> list[float]:
    """One episode in each environment, all acting in one batch."""
    obs = np.array([env.reset(seed=seed * len(envs) + i)[0] for i, env in enumerate(envs)])
    returns, running = np.zeros(len(envs)), np.ones(len(envs), bool)
    while running.any():
        actions = np.asarray(q_values(obs)).argmax(-1)
        for i in np.flatnonzero(running):
            obs[i], reward, terminated, truncated, _ = envs[i].step(int(actions[i]))
            returns[i] += float(reward)
            running[i] = not (terminated or truncated)
    return returns.tolist()
