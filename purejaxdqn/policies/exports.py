"""Exports one agent of a finished run to a folder: weights, a description, and a program where the format has one."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors.numpy import save

from purejaxdqn.config.building import make_algorithm, make_estimates
from purejaxdqn.config.reading import CONFIG_FILE, to_yaml
from purejaxdqn.core.algorithm import ActorView
from purejaxdqn.core.config import Config
from purejaxdqn.core.environment import Environment
from purejaxdqn.environments.listed import suite_of
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.policies import cards
from purejaxdqn.policies.cards import DESCRIPTION_FILE
from purejaxdqn.policies.policies import check_seed_index, load_params
from purejaxdqn.policies.programs import TrainedAgent, write_program
from purejaxdqn.policies.summaries import digests, read_summary
from purejaxdqn.policies.weights import POLICY_FILE, halved
from purejaxdqn.system.directories import create_directory
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import write_json


def best_seed(summary: dict[str, Any]) -> int:
    """Return the seed index with the highest final greedy return; the first one if several share it.

    Diverged agents are skipped: their greedy policy always takes action 0, which some environments reward well.

    Raises:
      UserError: every agent diverged.
    """
    seeds = zip(summary["final_eval_return"], summary["diverged"], strict=True)
    scores = [-math.inf if score is None or diverged else score for score, diverged in seeds]
    if max(scores) == -math.inf:
        raise UserError("--best: every agent of this run diverged")
    return scores.index(max(scores))


def choose_agent(run_dir: Path, *, seed_index: int | None, best: bool, trust: bool = False) -> TrainedAgent:
    """Load one agent of a finished run.

    Args:
      run_dir: the run directory.
      seed_index: the agent to load; None loads agent 0.
      best: load the agent of ``best_seed`` instead.
      trust: see ``load_params``.

    Raises:
      UserError: the run is damaged or not finished, it has no such agent, or the agent diverged.
    """
    config, params = load_params(run_dir, trust=trust)
    summary = read_summary(run_dir)
    index = best_seed(summary) if best else seed_index or 0
    check_seed_index(config, index)
    params = jax.tree.map(lambda leaf: leaf[index], params)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
        raise UserError(f"agent {index} diverged: its weights are not finite")
    env = make_environment(**config.env.making())
    return TrainedAgent(config, summary, index, params, env, *acting_of(config, env, params))


def acting_of(config: Config, env: Environment, params: Any) -> tuple[Any, Any]:
    """The Q-values of one agent, and what it remembers before the first step: two fields of ``TrainedAgent``."""
    algorithm, hparams = make_algorithm(config, env), config.hparams()
    if config.ensemble.members > 1:
        return _acting_of_members(make_estimates(config, env), hparams, params, algorithm.memory(1))
    if config.network.memory == "none":
        return lambda obs: algorithm.values(hparams, params, ActorView(obs))[0], None

    def values(obs: Any, state: Any, start: Any) -> tuple[jax.Array, Any]:
        return algorithm.values(hparams, params, ActorView(obs, (), state, start))

    return values, np.asarray(algorithm.memory(1))


def _acting_of_members(estimates: Any, hparams: Any, params: Any, memory: Any) -> tuple[Any, Any]:
    """The same of an ensemble. What its members and their priors carry is one array, [B, K, ...] or [B, 2, K, ...]."""
    leaves, structure = jax.tree.flatten(memory.carry)
    if not leaves:
        return lambda obs: estimates(hparams, params, ActorView(obs))[:2], None

    def pack(leaves: list[Any]) -> Any:
        return leaves[0] if len(leaves) == 1 else jnp.concatenate([leaf[:, None] for leaf in leaves], axis=1)

    def values(obs: Any, state: Any, start: Any) -> tuple[jax.Array, Any, jax.Array]:
        carried = [state] if len(leaves) == 1 else [state[:, place] for place in range(len(leaves))]
        view = ActorView(obs, (), memory._replace(carry=jax.tree.unflatten(structure, carried)), start)
        q_values, deviation, carry = estimates(hparams, params, view)
        return q_values, pack(jax.tree.leaves(carry)), deviation

    return values, np.asarray(pack(leaves))


def write_folder(agent: TrainedAgent, folder: Path, kind: str, *, half: bool = False) -> None:
    """Export ``agent`` to ``folder`` in format ``kind``: stablehlo, onnx or safetensors.

    Args:
      agent: a trained agent.
      folder: a new folder.
      kind: the format.
      half: whether the file of weights has half precision; programs keep single precision.

    Raises:
      UserError: the folder exists or cannot be created, or the network cannot be exported in this format.
    """

    def fill(draft: Path) -> None:
        flat = traverse_util.flatten_dict(agent.params, sep="/")
        stored = {name: np.asarray(leaf, order="C") for name, leaf in flat.items()}
        weights = save({name: halved(name, leaf) for name, leaf in stored.items()} if half else stored)
        (draft / POLICY_FILE).write_bytes(weights)
        (draft / CONFIG_FILE).write_text(to_yaml(agent.config), encoding="utf-8")
        description = describe(agent, kind, write_program(agent, draft, kind))
        description["network"]["weights"] = "float16" if half else "float32"
        description |= digests(draft, POLICY_FILE, CONFIG_FILE)
        write_json(draft / DESCRIPTION_FILE, description)
        (draft / "README.md").write_text(cards.model_card(description), encoding="utf-8")
        if script := cards.run_script(description):
            (draft / cards.SCRIPT_FILE).write_text(script, encoding="utf-8")

    create_directory([folder], fill, kind="policy")


def describe(agent: TrainedAgent, kind: str, program: dict[str, Any] | None) -> dict[str, Any]:
    """Return the contents of ``policy.json``; ``program`` is what ``write_program`` returned."""
    config, env = agent.config, agent.env
    return {
        "format": "purejaxdqn policy",
        "format_version": cards.FORMAT_VERSION,
        "kind": kind,
        "env_id": config.env.id,
        "observation": {
            "shape": list(env.obs_shape),
            "dtype": str(np.dtype(env.obs_dtype)),
            **_observation_bounds(env),
        },
        "features": {
            "one_hot": _one_hot_depth(env) if config.env.one_hot else 0,
            "flatten": config.env.flatten,
            "scale": env.scale,
            "normalize": config.env.normalize,
            "observe": list(config.env.observe) or None,
            "frame_stack": config.env.frame_stack,
            **({"own": True} if env.own_features else {}),
        },
        "action": {"kind": "discrete", "n": env.num_actions, **({"legal": True} if agent.masked else {})},
        "network": _describe_network(agent),
        "program": program,
        "evaluation": {
            "mean_return": agent.summary["final_eval_return"][agent.seed_index],
            "episodes": config.evaluation.final_episodes,
            "policy": "greedy",
            "backend": suite_of(config.env.id) or "gymnax",
        },
        "training": {
            "seed": config.seed,
            "seed_index": agent.seed_index,
            "num_seeds": config.num_seeds,
            "env_steps": agent.summary.get("stopped_at") or config.total_timesteps,
            "versions": agent.summary.get("versions", {}),
            "git_commit": agent.summary.get("git_commit"),
        },
    }


def _describe_network(agent: TrainedAgent) -> dict[str, Any]:
    config = agent.config
    flat = traverse_util.flatten_dict(agent.params, sep="/")
    return {
        **config.network.model_dump(exclude={"sigma"}),
        "distribution": config.distribution.kind,
        "atoms": config.distribution.atoms,
        "ensemble": {"members": config.ensemble.members, "prior_scale": config.ensemble.prior_scale},
        "parameters": {name: list(leaf.shape) for name, leaf in flat.items()},
        "parameter_count": int(sum(leaf.size for leaf in flat.values())),
    }


def _observation_bounds(env: Environment) -> dict[str, Any]:
    """Return ``low`` and ``high`` of observations, None if unbounded; empty where the environment has no space."""
    if env.bounds is None:
        return {}
    try:
        low, high = env.bounds()
    except Exception:  # a user's environment need not implement spaces, and may raise anything
        return {}
    largest = np.finfo(np.float32).max / 2
    return {name: float(x) if abs(x) < largest else None for name, x in (("low", low), ("high", high))}


def _one_hot_depth(env: Environment) -> int:
    features = jax.eval_shape(env.features, jax.ShapeDtypeStruct((1, *env.obs_shape), env.obs_dtype))
    return math.prod(features.shape) // math.prod(env.obs_shape)
