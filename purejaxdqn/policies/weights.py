"""The weights of trained agents on disk: ``policy.safetensors``."""

from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from purejaxdqn.config.building import policy_shapes
from purejaxdqn.config.reading import CONFIG_FILE
from purejaxdqn.core.config import Config
from purejaxdqn.core.environment import Environment
from purejaxdqn.policies.summaries import is_changed
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import replacing

POLICY_FILE = "policy.safetensors"


def save_policy(folder: Path, params: Any) -> None:
    """Write parameters of S agents, leaves [S, ...], to ``policy.safetensors``, each under its path in the tree."""
    flat = {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}
    # No metadata: safetensors writes it in no fixed order, and equal runs must write equal files.
    with replacing(folder / POLICY_FILE) as part:
        part.write_bytes(save(flat))  # save_file would make the file readable by its owner only


def halved(path: str, leaf: np.ndarray) -> np.ndarray:
    """A leaf in half precision; unchanged if it has other numbers than float32, or numbers too large for that.

    Unchanged, too, are running statistics of observations (``env.normalize``): an error of their mean is divided by the
    deviation, which may be far smaller.
    """
    if (
        "observations" in path.split("/")
        or leaf.dtype != np.float32
        or np.abs(leaf).max(initial=0) > np.finfo(np.float16).max
    ):
        return leaf
    return leaf.astype(np.float16)


def read_params(folder: Path, config: Config, env: Environment, *, leading: tuple[int, ...] = ()) -> Any:
    """Read parameters whose leaves have ``leading`` axes in front of the shapes of the config's network.

    Weights in half precision become float32.
    """
    try:
        flat = load_file(folder / POLICY_FILE)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / POLICY_FILE} is damaged: {error}") from error
    expected = traverse_util.flatten_dict(policy_shapes(config, env), sep="/")
    flat = {path: leaf.astype(np.float32) if leaf.dtype == np.float16 else leaf for path, leaf in flat.items()}
    kinds = {path: ((*leading, *leaf.shape), leaf.dtype) for path, leaf in expected.items()}
    if kinds == {path: (leaf.shape, leaf.dtype) for path, leaf in flat.items()}:
        return traverse_util.unflatten_dict(flat, sep="/")
    if any(path.endswith("/kernel") for path in flat):
        raise UserError(
            f"{folder / POLICY_FILE} was written by an earlier purejaxdqn, with another layout of the layers"
        )
    raise UserError(f"{folder / POLICY_FILE} does not fit the network that {CONFIG_FILE} describes")


def check_digest(path: Path, record: dict[str, Any], name: str) -> None:
    """Raise a ``UserError`` if a file differs from its digest in ``record``, which the file ``name`` holds."""
    if is_changed(path, record):
        raise UserError(f"{path} is damaged: it does not match the digest in {name}")
