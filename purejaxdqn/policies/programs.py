"""Compiled forms of a trained policy, which run without this package: StableHLO and ONNX programs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxdqn.core.algorithm import greedy
from purejaxdqn.core.config import Config
from purejaxdqn.core.draws import random_action
from purejaxdqn.core.environment import Environment, all_legal
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
    q_values: Callable[..., Any]
    # obs[B, O] -> [B, A]; with a memory obs, state, start[B] -> [B, A], state. Of an ensemble, the last result is the
    # deviation over its members [B, A]
    initial_state: np.ndarray | None = None  # [1, ...] before the first step; None without a memory

    @property
    def more(self) -> tuple[str, ...]:
        """The names of what ``q_values`` gives besides Q-values."""
        state = ("next_state",) if self.initial_state is not None else ()
        return (*state, "deviation") if self.config.ensemble.members > 1 else state

    @property
    def masked(self) -> bool:
        """Whether a program needs the legal actions to choose one; they are its last input."""
        return self.env.legal is not all_legal

    def program_inputs(self, batch: Any) -> dict[str, jax.ShapeDtypeStruct]:
        """What a program takes: ``inputs``, and ``legal`` [B, A] bool where some actions are illegal."""
        legal = {"legal": jax.ShapeDtypeStruct((batch, self.env.num_actions), np.bool_)} if self.masked else {}
        return self.inputs(batch) | legal

    def inputs(self, batch: Any) -> dict[str, jax.ShapeDtypeStruct]:
        """What ``q_values`` takes for a batch of this size, by name."""
        shapes = {"obs": ((batch, *self.env.obs_shape), self.env.obs_dtype)}
        if self.initial_state is not None:
            shapes["state"] = (batch, *self.initial_state.shape[1:]), self.initial_state.dtype
            shapes["start"] = (batch,), np.bool_
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}


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
    return {**about, **_describe_tensors(agent, action_dtype="int32" if kind == "stablehlo" else "int64")}


def _describe_tensors(agent: TrainedAgent, *, action_dtype: str) -> dict[str, Any]:
    inputs = {
        name: {"shape": ["batch", *kind.shape[1:]], "dtype": str(np.dtype(kind.dtype))}
        for name, kind in agent.program_inputs(1).items()
    }
    outputs = {
        "q_values": {"shape": ["batch", agent.env.num_actions], "dtype": "float32"},
        "action": {"shape": ["batch"], "dtype": action_dtype},
    }
    kinds = {"next_state": inputs.get("state"), "deviation": outputs["q_values"]}
    return {"inputs": inputs, "outputs": outputs | {name: kinds[name] for name in agent.more}}


def to_stablehlo(agent: TrainedAgent) -> bytes:
    """Serialise the policy with ``jax.export``: obs [batch, O] -> q_values [batch, A], action [batch].

    With a memory: obs, state [batch, ...], start [batch] -> q_values, action, next_state. Of an ensemble, the last
    result is the deviation of the Q-values over its members [batch, A]. Where some actions are illegal, the last
    argument says which are legal, [batch, A] bool.
    """
    from jax import export

    def act(*given: jax.Array) -> tuple[jax.Array, ...]:
        inputs, legal = (given[:-1], given[-1]) if agent.masked else (given, ())
        q_values, *more = _as_tuple(agent.q_values(*inputs))
        return q_values, greedy(q_values, legal).astype("int32"), *more

    (batch,) = export.symbolic_shape("batch")
    return bytes(export.export(jax.jit(act), platforms=PLATFORMS)(*agent.program_inputs(batch).values()).serialize())


def _as_tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


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
    model = to_onnx(agent.q_values, agent.inputs, more=agent.more, masked=agent.masked).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    obs, q_values, worst = sample_observations(agent), jax.jit(agent.q_values), 0.0
    for count in (1, 3, len(obs)):
        inputs = {"obs": obs[:count], **_sample_memory(agent, count)}
        ours = _as_tuple(q_values(*inputs.values()))
        legal = np.random.default_rng(0).uniform(size=ours[0].shape) < 0.5 if agent.masked else ()
        theirs, action, *more = session.run(None, {**inputs, **({"legal": legal} if agent.masked else {})})
        for mine, its in zip(ours, (theirs, *more), strict=True):
            worst = max(worst, relative_difference(its, np.asarray(mine)))
        if not np.array_equal(greedy(theirs, legal), action):
            raise UserError("--format onnx: the model's actions are not the argmax of its Q-values")
    allowed = FQF_TOLERANCE if agent.config.distribution.kind == "fqf" else TOLERANCE
    if not worst <= allowed:
        raise UserError(f"--format onnx: the model's Q-values differ from ours by {worst:.1e}, more than {allowed:g}")
    return model, worst


def _sample_memory(agent: TrainedAgent, count: int) -> dict[str, np.ndarray]:
    """States that are as large as those of a GRU, and starts of episodes among them; {} without a memory."""
    rng, kinds = np.random.default_rng(0), agent.inputs(count)
    if agent.initial_state is None:
        return {}
    state = rng.uniform(-1, 1, kinds["state"].shape).astype(kinds["state"].dtype)
    return {"state": state, "start": rng.uniform(size=count) < 0.3}


def relative_difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Largest absolute difference of Q-values [B, A], divided by the largest absolute value of ours if it is over 1."""
    return float(np.abs(theirs - ours).max()) / max(1.0, float(np.abs(ours).max()))


def sample_observations(agent: TrainedAgent, *, num_envs: int = 17, steps: int = 20) -> np.ndarray:
    """Return observations [num_envs * steps, O] of play at random, with legal actions alone."""
    env, config = agent.env, agent.config
    params = env.with_params(config.hparams().env_params)

    def body(carry: tuple, key: jax.Array) -> tuple:
        obs, state = carry
        keys = jax.random.split(key, num_envs + 1)
        bits, legal = jax.random.bits(keys[0], (num_envs,)), env.legal(params, state)
        action = random_action(bits, legal, env.num_actions)
        obs, state, _ = env.step(params, keys[1:], state, obs, action)
        return (obs, state), obs

    @jax.jit
    def play(key: jax.Array) -> jax.Array:
        reset_key, play_key = jax.random.split(key)
        start = env.reset(params, jax.random.split(reset_key, num_envs))
        return jax.lax.scan(body, start, jax.random.split(play_key, steps))[1]

    return np.asarray(play(jax.random.key(0))).reshape(-1, *env.obs_shape)
