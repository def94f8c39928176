"""Reads the folder of an exported policy. A folder from elsewhere runs no code: only playing imports an environment."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from purejaxdqn.config.reading import CONFIG_FILE, read_config
from purejaxdqn.config.trust import check_trust
from purejaxdqn.config.yaml_text import ConfigError
from purejaxdqn.core.config import Config
from purejaxdqn.core.environment import Environment, all_legal
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.environments.sight import stacked_features
from purejaxdqn.environments.wrappers import observation_features
from purejaxdqn.policies.cards import DESCRIPTION_FILE, read_description
from purejaxdqn.policies.weights import POLICY_FILE, check_digest, read_params
from purejaxdqn.system.faults import UserError, reason_of


def load_exported(folder: Path) -> tuple[Environment, Config, Any]:
    """Load an exported folder -> its described environment, its config, and the parameters of its agent.

    The environment is built from the description and imports nothing: a folder from an untrusted source runs no code.

    Raises:
      UserError: a file is missing or damaged, the files do not fit each other, or the network sees features that the
        environment's own code makes.
    """
    env, config, description = _read_described(folder)
    if env.own_features:
        made = f"the code of {config.env.id} makes the features that its network sees, and a folder has no such code"
        raise UserError(f"{folder} cannot be loaded: {made}; evaluate plays it with --trust")
    return env, config, _read_checked(folder, config, env, description)


def load_to_play(folder: Path, *, trust: bool) -> tuple[Config, Any]:
    """Load an exported folder to play it -> the config of one run in its environment, the agent's parameters [1, ...].

    Args:
      folder: the exported folder.
      trust: see ``check_trust``: unlike ``load_exported`` this imports the environment.

    Raises:
      UserError: a file is missing or damaged, or the files do not fit each other; or the environment cannot be made, or
        is not the one that is described.
    """
    described, config, description = _read_described(folder)
    params = None if described.own_features else _read_checked(folder, config, described, description)
    check_trust(folder, config, trust=trust)
    one_run = read_config(folder / CONFIG_FILE, ["num_seeds=1"]).checked()
    real = make_environment(**one_run.env.making())
    kinds = [
        f"{env.env_id} with {env.num_actions} actions and observations {np.dtype(env.obs_dtype)} {env.obs_shape}"
        for env in (real, described)
    ]
    if kinds[0] != kinds[1]:
        raise UserError(f"{folder}: {config.env.id} has {kinds[0]} here, and the policy was trained on {kinds[1]}")
    if params is None:  # the weights fit a network of features that only the environment can make
        params = _read_checked(folder, config, real, description)
    return one_run, jax.tree.map(lambda leaf: leaf[None], params)


def _read_described(folder: Path) -> tuple[Environment, Config, dict[str, Any]]:
    """The environment that ``policy.json`` describes, the config beside it, and the description."""
    try:
        description = read_description(folder / DESCRIPTION_FILE)
        env = _described_environment(description)
    except Exception as error:  # a damaged description may raise anything
        raise UserError(f"{folder / DESCRIPTION_FILE} cannot be used: {reason_of(error)}") from error
    config = _read_config_only(folder / CONFIG_FILE)
    features = description["features"]
    described = bool(features["one_hot"]), features["flatten"], features.get("frame_stack", 1)
    if described != (config.env.one_hot, config.env.flatten, config.env.frame_stack):
        raise UserError(f"{folder / DESCRIPTION_FILE} does not fit {CONFIG_FILE}: its features differ")
    return env, config, description


def _read_checked(folder: Path, config: Config, env: Environment, description: dict[str, Any]) -> Any:
    """The parameters of the agent, after the digests of weights and config have been checked."""
    params = read_params(folder, config, env)
    for name in (POLICY_FILE, CONFIG_FILE):
        check_digest(folder / name, description, DESCRIPTION_FILE)
    return params


def _described_environment(description: dict[str, Any]) -> Environment:
    """Return an environment that has shapes and features but cannot be stepped."""

    def unplayable(*arguments: Any) -> Any:
        raise NotImplementedError(
            "an exported policy only has a description of its environment, which cannot be played"
        )

    observation, features = description["observation"], description["features"]
    own = unplayable if features.get("own") else None
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
            stacked_features,
            functools.partial(
                observation_features,
                depth=int(features["one_hot"]),
                flatten=bool(features["flatten"]),
                scale=features.get("scale"),
                own=own,
            ),
            int(features.get("frame_stack", 1)),
        ),
        own_features=own,
        legal=unplayable if description["action"].get("legal") else all_legal,
        frames=int(features.get("frame_stack", 1)),
    )


def _read_config_only(path: Path) -> Config:
    """Read a config without checking it against its environment."""
    try:
        return read_config(path).unchecked()
    except ConfigError as error:
        raise UserError(f"{path} is damaged", *error.lines) from error
