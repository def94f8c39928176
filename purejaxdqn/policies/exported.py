"""Reads the folder of an exported policy. Nothing is imported for it: a folder from elsewhere runs no code."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from purejaxdqn.config.reading import CONFIG_FILE, read_config
from purejaxdqn.config.yaml_text import ConfigError
from purejaxdqn.core.config import Config
from purejaxdqn.core.environment import Environment, all_legal
from purejaxdqn.environments.sight import stacked_features
from purejaxdqn.environments.wrappers import observation_features
from purejaxdqn.policies.cards import DESCRIPTION_FILE, read_description
from purejaxdqn.policies.weights import POLICY_FILE, check_digest, read_params
from purejaxdqn.system.faults import UserError, reason_of


def load_exported(folder: Path) -> tuple[Environment, Config, Any]:
    """Load an exported folder -> its described environment, its config, and the parameters of its agent.

    The environment is built from the description and imports nothing: a folder from an untrusted source runs no code.

    Raises:
      UserError: a file is missing or damaged, or the files do not fit each other.
    """
    try:
        description = read_description(folder / DESCRIPTION_FILE)
        env = _described_environment(description)
    except Exception as error:  # a damaged description may raise anything
        raise UserError(f"{folder / DESCRIPTION_FILE} cannot be used: {reason_of(error)}") from error
    config = _read_config_only(folder / CONFIG_FILE)
    features = description["features"]
    described = bool(features["one_hot"]), features["flatten"], features.get("frame_stack", 1)
    if described != (config.env.one_hot, config.env.flatten, config.env.frame_stack):
        raise UserError(f"{folder / DESCRIPTION_FILE} does not fit {CONFIG_FILE}: its features are others")
    params = read_params(folder, config, env)
    for name in (POLICY_FILE, CONFIG_FILE):
        check_digest(folder / name, description, DESCRIPTION_FILE)
    return env, config, params


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
            stacked_features,
            functools.partial(
                observation_features,
                depth=int(features["one_hot"]),
                flatten=bool(features["flatten"]),
                scale=features.get("scale"),
            ),
            int(features.get("frame_stack", 1)),
        ),
        legal=unplayable if description["action"].get("legal") else all_legal,
        frames=int(features.get("frame_stack", 1)),
    )


def _read_config_only(path: Path) -> Config:
    """Read a config without checking it against its environment."""
    try:
        return read_config(path).unchecked()
    except ConfigError as error:
        raise UserError(f"{path} is damaged", *error.lines) from error
