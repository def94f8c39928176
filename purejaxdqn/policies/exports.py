"""Policies that leave: a folder with one agent's weights, what describes them, and a program that runs elsewhere."""

import contextlib
import functools
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import save

from purejaxdqn.config.building import make_q_values
from purejaxdqn.config.reading import CONFIG_FILE, to_yaml
from purejaxdqn.core.config import Config
from purejaxdqn.environments.registry import Environment, make_environment, underlying_environment
from purejaxdqn.policies import cards
from purejaxdqn.policies.cards import DESCRIPTION_FILE
from purejaxdqn.policies.policies import POLICY_FILE, check_seed_index, load_params
from purejaxdqn.system.faults import UserError

TOLERANCE = 1e-5
"""Furthest that an ONNX model may be from our Q-values, as a share of the largest of them where that is above 1."""
FQF_TOLERANCE = 1e-4
"""... of FQF, whose embedding multiplies the rounding of its proposed fractions by up to 63 pi: a trained agent's own
Q-values were 1.8e-5 apart between a batch of one and of many, and the model's 2.5e-5 from them."""
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class Leaving(NamedTuple):
    """One agent, ready to be written in any format."""

    config: Config
    summary: dict[str, Any]
    seed_index: int
    params: Any  # without an axis over seeds
    env: Environment
    q_values: Callable[[Any], jax.Array]  # obs[B, O] -> [B, A]


def best_seed(summary: dict[str, Any]) -> int:
    """The agent with the highest greedy return at the end; the first of several.

    A diverged one counts for nothing: its greedy policy takes the first action, for which an environment may pay well.

    Raises:
      UserError: there is none, as all diverged.
    """
    seeds = zip(summary["final_eval_return"], summary["diverged"], strict=True)
    scores = [-math.inf if score is None or diverged else score for score, diverged in seeds]
    if max(scores) == -math.inf:
        raise UserError("--best: every agent of this run diverged")
    return scores.index(max(scores))


def read_summary(folder: Path) -> dict[str, Any]:
    """``summary.json`` of a run.

    Raises:
      UserError: there is none, or it is no summary.
    """
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} is not a finished run: it has no summary.json") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(summary, dict) or not isinstance(summary.get("final_eval_return"), list):
        raise UserError(f"{path} is not the summary of a run")
    return summary


def choose_agent(run_dir: Path, *, seed_index: int | None, best: bool) -> Leaving:
    """Load one agent of a finished run: ``seed_index``, the best, or the first.

    Raises:
      UserError: the run is not finished or damaged, has no such agent, or the agent diverged.
    """
    config, params = load_params(run_dir)
    summary = read_summary(run_dir)
    index = best_seed(summary) if best else seed_index or 0
    check_seed_index(config, index)
    mine = jax.tree.map(lambda leaf: leaf[index], params)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(mine)):
        raise UserError(f"agent {index} diverged: its weights are not finite")
    env = make_environment(**config.env.making())
    q_values = functools.partial(make_q_values(config, env), config.hparams(), mine)
    return Leaving(config, summary, index, mine, env, q_values)


def write_folder(agent: Leaving, folder: Path, kind: str) -> None:
    """Write the whole folder beside its place first, and move it there when it is complete.

    Raises:
      UserError: the folder exists or cannot be made, or the network cannot be had in this format.
    """
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    missing = [one for one in folder.parents if not one.exists()]
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--out: {folder} cannot be made: {error.strerror}") from error
    try:
        flat = traverse_util.flatten_dict(agent.params, sep="/")
        weights = save({name: np.asarray(leaf, order="C") for name, leaf in flat.items()})
        (draft / POLICY_FILE).write_bytes(weights)
        (draft / CONFIG_FILE).write_text(to_yaml(agent.config), encoding="utf-8")
        program = _write_program(agent, draft, kind)
        description = describe(agent, kind, program)
        text = json.dumps(description, indent=2, allow_nan=False)
        (draft / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")
        (draft / "README.md").write_text(cards.card(description), encoding="utf-8")
        if script := cards.script(description):
            (draft / cards.SCRIPT_FILE).write_text(script, encoding="utf-8")
        draft.rename(folder)
    except BaseException:  # an interrupt, too, leaves nothing half done
        shutil.rmtree(draft, ignore_errors=True)
        for one in missing:
            with contextlib.suppress(OSError):
                one.rmdir()
        raise


def describe(agent: Leaving, kind: str, program: dict[str, Any] | None) -> dict[str, Any]:
    """The contents of ``policy.json``."""
    config, summary, env = agent.config, agent.summary, agent.env
    flat = traverse_util.flatten_dict(agent.params, sep="/")
    score = summary["final_eval_return"][agent.seed_index]
    return {
        "format": "purejaxdqn policy",
        "format_version": cards.FORMAT_VERSION,
        "kind": kind,
        "env_id": config.env.id,
        "observation": {
            "shape": list(env.obs_shape),
            "dtype": str(np.dtype(env.obs_dtype)),
            **_bounds(config),
        },
        "features": {
            "one_hot": _one_hot_depth(env) if config.env.one_hot else 0,
            "flatten": config.env.flatten,
            "normalize": config.env.normalize,
        },
        "action": {"kind": "discrete", "n": env.num_actions},
        "network": {
            **config.network.model_dump(exclude={"sigma"}),
            "distribution": config.distribution.kind,
            "atoms": config.distribution.atoms,
            "parameters": {name: list(leaf.shape) for name, leaf in flat.items()},
            "parameter_count": int(sum(leaf.size for leaf in flat.values())),
        },
        "program": program,
        "evaluation": {
            "mean_return": score,
            "episodes": config.evaluation.final_episodes,
            "policy": "greedy",
            "backend": "gymnax",
        },
        "training": {
            "seed": config.seed,
            "seed_index": agent.seed_index,
            "num_seeds": config.num_seeds,
            "env_steps": config.total_timesteps,
            "versions": summary.get("versions", {}),
            "git_commit": summary.get("git_commit"),
        },
    }


def _bounds(config: Config) -> dict[str, Any]:
    """``low`` and ``high`` of observations, where the environment tells; null where there is no limit."""
    env = underlying_environment(config.env.id, dict(config.env.kwargs))
    try:
        space = env.observation_space(env.default_params)
        low, high = (0, int(space.n) - 1) if hasattr(space, "n") else (np.min(space.low), np.max(space.high))
    except Exception:  # whatever a user's environment may raise; it need not have this at all
        return {}
    largest = np.finfo(np.float32).max / 2
    return {name: float(x) if abs(x) < largest else None for name, x in (("low", low), ("high", high))}


def _one_hot_depth(env: Environment) -> int:
    features = jax.eval_shape(env.features, jax.ShapeDtypeStruct((1, *env.obs_shape), env.obs_dtype))
    return math.prod(features.shape) // math.prod(env.obs_shape)


def _write_program(agent: Leaving, folder: Path, kind: str) -> dict[str, Any] | None:
    """Write what runs without this package, if the format has any -> file, inputs, outputs."""
    shape = ["batch", *agent.env.obs_shape]
    actions = agent.env.num_actions
    tensors = {
        "inputs": {"obs": {"shape": shape, "dtype": str(np.dtype(agent.env.obs_dtype))}},
        "outputs": {
            "q_values": {"shape": ["batch", actions], "dtype": "float32"},
            "action": {"shape": ["batch"], "dtype": "int32" if kind == "stablehlo" else "int64"},
        },
    }
    match kind:
        case "safetensors":
            return None
        case "stablehlo":
            (folder / "policy.stablehlo").write_bytes(to_stablehlo(agent))
            return {"file": "policy.stablehlo", "platforms": list(PLATFORMS), "jax": jax.__version__, **tensors}
        case "onnx":
            from purejaxdqn.policies.onnx_graphs import OPSET

            model, worst = to_checked_onnx(agent)
            (folder / "policy.onnx").write_bytes(model)
            return {"file": "policy.onnx", "opset": OPSET, "largest_difference": worst, **tensors}
        case _:
            raise ValueError(f"no format is called {kind!r}")


def to_stablehlo(agent: Leaving) -> bytes:
    """The policy as a serialised ``jax.export`` artefact: obs [batch, O] -> q_values [batch, A], action [batch]."""
    from jax import export

    def act(obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        q_values = agent.q_values(obs)
        return q_values, q_values.argmax(-1).astype("int32")

    (batch,) = export.symbolic_shape("batch")
    obs = jax.ShapeDtypeStruct((batch, *agent.env.obs_shape), agent.env.obs_dtype)
    return bytes(export.export(jax.jit(act), platforms=PLATFORMS)(obs).serialize())


def to_checked_onnx(agent: Leaving) -> tuple[bytes, float]:
    """The policy as an ONNX model, and how far it is from our Q-values over observations of random play.

    Raises:
      UserError: the network cannot be translated, or the translation is further off than it may be.
    """
    import onnxruntime

    from purejaxdqn.policies.onnx_graphs import to_onnx

    env = agent.env
    model = to_onnx(agent.q_values, obs_shape=env.obs_shape, obs_dtype=env.obs_dtype).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    obs = sample_observations(agent)
    ours, worst = np.asarray(jax.jit(agent.q_values)(obs)), 0.0
    for count in (1, 3, len(obs)):
        theirs, action = session.run(None, {"obs": obs[:count]})
        worst = max(worst, difference(theirs, ours[:count]))
        if not np.array_equal(theirs.argmax(-1), action):
            raise UserError("--format onnx: the model's actions are not the best by its own Q-values")
    allowed = FQF_TOLERANCE if agent.config.distribution.kind == "fqf" else TOLERANCE
    if not worst <= allowed:
        raise UserError(f"--format onnx: the model is {worst:.1e} from our Q-values, more than {allowed:g}")
    return model, worst


def difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    """The largest difference between Q-values, as a share of the largest of ours where that is above 1."""
    return float(np.abs(theirs - ours).max()) / max(1.0, float(np.abs(ours).max()))


def sample_observations(agent: Leaving, *, num_envs: int = 17, steps: int = 20) -> np.ndarray:
    """Observations [num_envs * steps, O] of random play."""
    env, config = agent.env, agent.config
    params = env.with_params(config.hparams().env_params)

    def body(carry: tuple, key: jax.Array) -> tuple:
        obs, state = carry
        action_key, *keys = jax.random.split(key, num_envs + 1)
        action = jax.random.randint(action_key, (num_envs,), 0, env.num_actions)
        obs, state, _ = env.step(params, jax.numpy.stack(keys), state, obs, action)
        return (obs, state), obs

    @jax.jit
    def play(key: jax.Array) -> jax.Array:
        reset_key, play_key = jax.random.split(key)
        start = env.reset(params, jax.random.split(reset_key, num_envs))
        return jax.lax.scan(body, start, jax.random.split(play_key, steps))[1]

    return np.asarray(play(jax.random.key(0))).reshape(-1, *env.obs_shape)
