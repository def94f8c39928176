"""Compiled forms of a trained policy, which run without this package: StableHLO and ONNX programs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxdqn.core.config import Config
from purejaxdqn.core.environment import Environment
from purejaxdqn.system.faults import UserError

TOLERANCE = 1e-5
"""Largest allowed ``relative_difference`` between an ONNX model's Q-values and ours."""
FQF_TOLERANCE = 1e-4
"""The same for FQF. Its embedding multiplies rounding errors of the proposed fractions by up to 63 pi. For one trained
agent, our own Q-values differed by 1.8e-5 between a batch of one and a large batch, and the ONNX model's by 2.5e-5."""
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class TrainedAgent(NamedTuple):
    """One agent of a finished run, with all that an export needs."""

    config: Config
    summary: dict[str, Any]  # contents of the run's ``summary.json``
    seed_index: int
    params: Any  # without a seed axis
    env: Environment
    q_values: Callable[[Any], jax.Array]  # obs[B, O] -> [B, A]


def write_program(agent: TrainedAgent, folder: Path, kind: str) -> dict[str, Any] | None:
    """Write the program of format ``kind`` into ``folder``.

    Returns:
      The ``program`` entry of ``policy.json`` (file, inputs, outputs, versions); None for a format without a program.

    Raises:
      UserError: the network cannot be exported in this format.
      ValueError: the format is unknown.
    """
    match kind:
        case "safetensors":
            return None
        case "stablehlo":
            (folder / "policy.stablehlo").write_bytes(to_stablehlo(agent))
            about: dict[str, Any] = {"file": "policy.stablehlo", "platforms": list(PLATFORMS), "jax": jax.__version__}
        case "onnx":
            from purejaxdqn.policies.onnx_graphs import OPSET

            model, worst = to_checked_onnx(agent)
            (folder / "policy.onnx").write_bytes(model)
            about = {"file": "policy.onnx", "opset": OPSET, "largest_difference": worst}
        case _:
            raise ValueError(f"unknown export format {kind!r}")
    return {**about, **_describe_tensors(agent.env, action_dtype="int32" if kind == "stablehlo" else "int64")}


def _describe_tensors(env: Environment, *, action_dtype: str) -> dict[str, Any]:
    return {
        "inputs": {"obs": {"shape": ["batch", *env.obs_shape], "dtype": str(np.dtype(env.obs_dtype))}},
        "outputs": {
            "q_values": {"shape": ["batch", env.num_actions], "dtype": "float32"},
            "action": {"shape": ["batch"], "dtype": action_dtype},
        },
    }


def to_stablehlo(agent: TrainedAgent) -> bytes:
    """Serialise the policy with ``jax.export``: obs [batch, O] -> q_values [batch, A], action [batch]."""
    from jax import export

    def act(obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        q_values = agent.q_values(obs)
        return q_values, q_values.argmax(-1).astype("int32")

    (batch,) = export.symbolic_shape("batch")
    obs = jax.ShapeDtypeStruct((batch, *agent.env.obs_shape), agent.env.obs_dtype)
    return bytes(export.export(jax.jit(act), platforms=PLATFORMS)(obs).serialize())


def to_checked_onnx(agent: TrainedAgent) -> tuple[bytes, float]:
    """Translate the policy to ONNX and compare it with ours on observations of random play.

    Returns:
      The serialised model, and the largest ``relative_difference`` of its Q-values.

    Raises:
      UserError: the network cannot be translated, or the model's Q-values or actions are wrong.
    """
    import onnxruntime

    from purejaxdqn.policies.onnx_graphs import to_onnx

    env = agent.env
    if np.dtype(env.obs_dtype).isbuiltin != 1:  # bfloat16 and the like, which are not NumPy's own
        raise UserError(f"--format onnx: observations are {np.dtype(env.obs_dtype)}, which onnxruntime does not take")
    model = to_onnx(agent.q_values, obs_shape=env.obs_shape, obs_dtype=env.obs_dtype).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    obs = sample_observations(agent)
    ours, worst = np.asarray(jax.jit(agent.q_values)(obs)), 0.0
    for count in (1, 3, len(obs)):
        theirs, action = session.run(None, {"obs": obs[:count]})
        worst = max(worst, relative_difference(theirs, ours[:count]))
        if not np.array_equal(theirs.argmax(-1), action):
            raise UserError("--format onnx: the model's actions are not the argmax of its Q-values")
    allowed = FQF_TOLERANCE if agent.config.distribution.kind == "fqf" else TOLERANCE
    if not worst <= allowed:
        raise UserError(f"--format onnx: the model's Q-values differ from ours by {worst:.1e}, more than {allowed:g}")
    return model, worst


def relative_difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Largest absolute difference of Q-values [B, A], divided by the largest absolute value of ours if it is over 1."""
    return float(np.abs(theirs - ours).max()) / max(1.0, float(np.abs(ours).max()))


def sample_observations(agent: TrainedAgent, *, num_envs: int = 17, steps: int = 20) -> np.ndarray:
    """Return observations [num_envs * steps, O] of uniformly random play."""
    env, config = agent.env, agent.config
    params = env.with_params(config.hparams().env_params)

    def body(carry: tuple, key: jax.Array) -> tuple:
        obs, state = carry
        keys = jax.random.split(key, num_envs + 1)
        action = jax.random.randint(keys[0], (num_envs,), 0, env.num_actions)
        obs, state, _ = env.step(params, keys[1:], state, obs, action)
        return (obs, state), obs

    @jax.jit
    def play(key: jax.Array) -> jax.Array:
        reset_key, play_key = jax.random.split(key)
        start = env.reset(params, jax.random.split(reset_key, num_envs))
        return jax.lax.scan(body, start, jax.random.split(play_key, steps))[1]

    return np.asarray(play(jax.random.key(0))).reshape(-1, *env.obs_shape)
