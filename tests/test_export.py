"""Exported policies: weights, StableHLO and ONNX, compared with the Q-values of the agent itself."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from flax import traverse_util
from jax import export as jax_export
from safetensors.numpy import load_file, save_file

from purejaxdqn import load_config, load_policy
from purejaxdqn.config.building import make_algorithm, make_parts, make_q_values, policy_shapes
from purejaxdqn.core.environment import all_legal
from purejaxdqn.dqn.learner import make_learner
from purejaxdqn.environments.batched import batched
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.evaluate import main as evaluate
from purejaxdqn.export import main
from purejaxdqn.plot import main as plot
from purejaxdqn.policies import exports
from purejaxdqn.policies.command_line import FORMATS
from purejaxdqn.policies.exported import _described_environment, load_exported, load_to_play
from purejaxdqn.policies.greedy import Policy, as_batch
from purejaxdqn.policies.onnx_graphs import observations, to_onnx
from purejaxdqn.policies.programs import (
    TOLERANCE,
    TrainedAgent,
    relative_difference,
    sample_observations,
    to_checked_onnx,
    to_stablehlo,
)
from purejaxdqn.policies.weights import halved
from purejaxdqn.report import main as report
from purejaxdqn.system.faults import UserError
from purejaxdqn.train import main as train
from tests.conftest import TINY, jit_barely, mostly_slow
from tests.test_legal_actions import LEGAL, table

FAMILY = {
    "MLP": ["cartpole_cleanrl"],
    "LayerNorm": ["cartpole_cleanrl", "network.layer_norm=true"],
    "dueling": ["cartpole_cleanrl", "network.dueling=true"],
    "noisy": ["cartpole_cleanrl", "network.noisy=true"],
    "C51": ["cartpole_cleanrl", "distribution={kind: categorical, atoms: 21, v_min: -5, v_max: 10}"],
    "QR-DQN": ["cartpole_cleanrl", "distribution={kind: quantile, atoms: 11}"],
    "IQN": ["cartpole_cleanrl", "distribution={kind: iqn, atoms: 8}"],
    "IQN averse to risk": ["cartpole_cleanrl", "distribution={kind: iqn, atoms: 8, risk: wang}"],
    "FQF": ["cartpole_cleanrl", "distribution={kind: fqf, atoms: 8}"],
    "MinAtar": ["minatar/breakout"],
    "strides": ["minatar/breakout", "network={torso: cnn, channels: [4, 3], kernels: [3, 2], strides: [2, 1]}"],
    "normalised": ["cartpole_cleanrl", "env.normalize=true"],
    "one-hot of one number": ["frozen_lake"],
    "one-hot of four numbers": ["four_rooms", "env.flatten=true"],
    "one-hot torso": ["frozen_lake", "network.torso=one_hot"],
    "tanh": ["cartpole_cleanrl", "network.activation=tanh"],
    "gelu": ["cartpole_cleanrl", "network.activation=gelu"],
    "silu": ["cartpole_cleanrl", "network.activation=silu"],
    "elu": ["cartpole_cleanrl", "network.activation=elu"],
    "much at once": [
        "cartpole_cleanrl", "env.normalize=true", "distribution={kind: fqf, atoms: 8}",
        "network={dueling: true, noisy: true, layer_norm: true, activation: elu}",
    ],
}  # fmt: skip


def agent_of(name, *overrides):
    """An agent whose every weight has been moved from where it starts, among them zeros and running statistics."""
    config = load_config(name, [*TINY, *overrides])
    env = make_environment(**config.env.making())
    algorithm = make_algorithm(config, env)
    generator = np.random.default_rng(0)
    start = jit_barely(lambda key: algorithm.policy(algorithm.init(config.hparams(), key)))(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + generator.uniform(0.0, 0.3, leaf.shape).astype(np.float32), start)

    return TrainedAgent(config, {"final_eval_return": [1.0]}, 0, params, env, *exports.acting_of(config, env, params))


QUICK = ("MLP", "strides", "dueling", "noisy", "C51", "normalised")


@pytest.mark.parametrize("member", mostly_slow(list(FAMILY), fast=QUICK))
def test_every_member_of_the_family_exports_to_onnx(member):
    agent = agent_of(*FAMILY[member])
    obs = sample_observations(agent, steps=1)
    ours = np.asarray(jax.jit(agent.q_values)(obs))
    assert len(np.unique(ours)) > 3
    model = to_onnx(agent.q_values, agent.inputs)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (1, 3, 17):
        theirs, action = session.run(["q_values", "action"], {"obs": obs[:count]})
        assert theirs.shape == (count, agent.env.num_actions)
        assert relative_difference(theirs, ours[:count]) <= TOLERANCE
        np.testing.assert_array_equal(action, theirs.argmax(-1))


@pytest.mark.parametrize(
    "member", mostly_slow(["C51", "MinAtar", "one-hot of four numbers", "much at once"], fast=["C51"])
)
def test_networks_of_every_kind_export_to_stablehlo(member):
    agent = agent_of(*FAMILY[member])
    obs = sample_observations(agent, steps=1)
    ours = np.asarray(jax.jit(agent.q_values)(obs))
    q_values, action = jax_export.deserialize(to_stablehlo(agent)).call(obs)
    np.testing.assert_allclose(q_values, ours, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(action, np.asarray(q_values).argmax(-1))


MEMORY = ["network={memory_size: 5, dueling: true}", "replay={size: 320, sequence: 8}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("memory", "more"),
    [
        pytest.param("gru", [], id="gru", marks=pytest.mark.slow),
        pytest.param("lru", [], id="lru"),
        pytest.param("gru", ["ensemble.members=3"], id="members", marks=pytest.mark.slow),
        pytest.param(
            "lru", ["ensemble={members: 3, prior_scale: 2}"], id="members with priors", marks=pytest.mark.slow
        ),
    ],
)
def test_a_memory_goes_in_and_out_of_exported_programs(memory, more, tmp_path):
    """Ten steps, and episodes that start among them."""
    agent = agent_of("cartpole_cleanrl", *MEMORY, f"network.memory={memory}", *more)
    rng = np.random.default_rng(1)
    obs, starts = rng.normal(size=(10, 3, 4)).astype(np.float32), rng.uniform(size=(10, 3)) < 0.2
    starts[0] = True
    assert starts[1:].any()
    for kind in FORMATS:
        exports.write_folder(agent, tmp_path / kind, kind)
        described = json.loads((tmp_path / kind / "policy.json").read_text())
        assert (described["network"]["memory"], described["network"]["memory_size"]) == (memory, 5)
        card = (tmp_path / kind / "README.md").read_text()
        assert f"a memory ({memory}) of 5 units" in card
        assert "policy.step(obs, state, start)" in card
        if kind != "safetensors":
            assert described["program"]["inputs"]["state"] == described["program"]["outputs"]["next_state"]
            assert "next_state" in card
    artefact = jax_export.deserialize((tmp_path / "stablehlo" / "policy.stablehlo").read_bytes())
    session = onnxruntime.InferenceSession((tmp_path / "onnx" / "policy.onnx").read_bytes())
    policy = load_policy(tmp_path / "safetensors")
    state = policy.initial_state(3)

    def array_of(state):
        """Of an ensemble, what its members and their priors carry."""
        leaves = jax.tree.leaves(state.carry if more else state)
        return np.stack(leaves, axis=1) if len(leaves) > 1 else leaves[0]

    # Before the first step, a state of another episode: it must not be read.
    states = [np.full(array_of(state).shape, 7, np.float32)] * 2
    for t in range(10):
        actions, state = policy.step(obs[t], state, starts[t])
        q_values, action, states[0], *deviation = map(np.asarray, artefact.call(obs[t], states[0], starts[t]))
        other_q, other, states[1], *other_deviation = session.run(
            None, {"obs": obs[t], "state": states[1], "start": starts[t]}
        )
        assert len(deviation) == bool(more)
        np.testing.assert_allclose(other_deviation, deviation, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(action, actions)
        np.testing.assert_array_equal(other, actions)
        np.testing.assert_allclose(other_q, q_values, rtol=1e-5, atol=1e-5)
        for one in states:
            np.testing.assert_allclose(one, array_of(state), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["stablehlo", pytest.param("onnx", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_script_of_an_agent_with_a_memory_runs_without_this_package(kind, tmp_path):
    agent = agent_of("cartpole_cleanrl", *MEMORY, "network.memory=lru")
    exports.write_folder(agent, tmp_path / "policy", kind)
    (tmp_path / "purejaxdqn.py").write_text("raise ImportError('blocked')\n")
    obs = np.random.default_rng(2).normal(size=(6, 3, 4)).astype(np.float32)
    np.save(tmp_path / "obs.npy", obs)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "policy" / "run_policy.py"), "obs.npy"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    policy, wanted = load_policy(tmp_path / "policy"), []
    state = policy.initial_state(3)
    for one in obs:
        actions, state = policy.step(one, state)
        wanted.append(actions.tolist())
    assert json.loads(done.stdout)["action"] == wanted


@pytest.mark.slow
def test_programs_of_an_environment_with_illegal_actions_take_the_legal_ones():
    """Some illegal actions have the largest Q-value, of random masks, and in a run."""
    env = batched(table(time_limit=5, random_start=True))
    agent = agent_of("cartpole_cleanrl")
    parts = make_learner(make_parts(agent.config, env))
    init, states = jax.jit(parts.init), np.eye(3, dtype=np.float32)
    for seed in range(20):
        params = parts.policy(init(agent.config.hparams(), jax.random.key(seed)))
        q_values = jax.jit(lambda obs, params=params: parts.q_values(agent.config.hparams(), params, obs)[0])
        if not LEGAL[np.arange(3), np.asarray(q_values(states)).argmax(-1)].all():
            break  # without the mask it would take an illegal action

    masked = TrainedAgent(agent.config, {}, 0, params, env, q_values)
    generator = np.random.default_rng(0)
    obs, legal = generator.normal(size=(64, 3)).astype(np.float32), generator.random((64, 3)) < 0.5
    legal[np.arange(64), generator.integers(3, size=64)] = True
    best = np.where(legal, np.asarray(q_values(obs)), -np.inf).argmax(-1)
    assert (best != np.asarray(q_values(obs)).argmax(-1)).any()
    values, action = jax_export.deserialize(to_stablehlo(masked)).call(obs, legal)
    np.testing.assert_array_equal(action, best)
    np.testing.assert_allclose(values, q_values(obs), rtol=1e-5, atol=1e-6)
    session = onnxruntime.InferenceSession(to_checked_onnx(masked)[0])
    np.testing.assert_array_equal(session.run(["action"], {"obs": obs, "legal": legal})[0], best)
    program = jax_export.deserialize(to_stablehlo(masked))
    assert _highest_reward(env, lambda obs, legal: program.call(obs, legal)[1]) < 50
    assert _highest_reward(env, lambda obs, legal: session.run(["action"], {"obs": obs, "legal": legal})[0]) < 50
    assert _highest_reward(env, lambda obs, legal: np.asarray(q_values(obs)).argmax(-1)) == 50


def _highest_reward(env, act):
    """Of a hundred steps in four environments; an illegal action pays 50."""
    obs, state = env.reset((), jax.random.split(jax.random.key(0), 4))
    step, highest = jax.jit(env.step), 0.0
    for t in range(100):
        action = jnp.asarray(act(np.asarray(obs), np.asarray(env.legal((), state))))
        obs, state, happened = step((), jax.random.split(jax.random.key(t), 4), state, obs, action)
        highest = max(highest, float(happened.reward.max()))
    return highest


def test_an_exported_policy_of_such_an_environment_asks_for_the_legal_actions(tmp_path):
    env = batched(table())
    agent = agent_of("cartpole_cleanrl")
    description = {
        "env_id": "table",
        "observation": {"shape": [3], "dtype": "float32"},
        "features": {"one_hot": 0, "flatten": False, "scale": None},
        "action": {"kind": "discrete", "n": 3, "legal": True},
    }
    described = _described_environment(description)
    assert described.legal is not all_legal
    parts = make_learner(make_parts(agent.config, env))
    params = parts.policy(jax.jit(parts.init)(agent.config.hparams(), jax.random.key(0)))
    policy = Policy(agent.config, described, params)
    with pytest.raises(ValueError, match="pass the legal ones"):
        policy(np.zeros(3, np.float32))
    assert policy(np.zeros(3, np.float32), legal=np.array([False, False, True])) == 2


WIDER = """
import jax.numpy as jnp
from purejaxdqn.environments.batched import Single

end = (jnp.float32(0), jnp.bool_(True), jnp.bool_(False))
wider = Single(
    "wider", 2, lambda key, params: (jnp.zeros(3), 0), lambda key, state, action, params: (jnp.zeros(3), state, *end),
    features=lambda obs: jnp.repeat(obs, 2, axis=1),
)
"""


def test_features_of_an_environments_own_are_described_and_need_its_code(tmp_path, monkeypatch):
    """Its observations have 3 numbers, and its network takes 6."""
    (tmp_path / "wider_worlds.py").write_text(WIDER)
    monkeypatch.chdir(tmp_path)
    config = load_config("cartpole_cleanrl", [*TINY, "env.id=wider_worlds:wider"])
    env = make_environment(**config.env.making())
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), policy_shapes(config, env))
    agent = TrainedAgent(config, {"final_eval_return": [1.0]}, 0, params, env, lambda obs: obs)
    folder = tmp_path / "exported"
    exports.write_folder(agent, folder, "safetensors")
    card = (folder / "README.md").read_text()
    assert "| network input | features that the environment's own code makes |" in card
    assert "load_policy" not in card
    with pytest.raises(UserError, match="the code of wider_worlds:wider makes the features"):
        load_policy(folder)
    with pytest.raises(UserError, match="--trust"):
        load_to_play(folder, trust=False)
    assert {leaf.shape[1:] for leaf in jax.tree.leaves(load_to_play(folder, trust=True)[1])} >= {(16, 6)}


def test_what_onnx_has_no_translation_for_is_refused_by_name():
    for function, name in (
        (lambda obs: jnp.sort(obs, axis=-1), "primitive 'sort'"),
        (lambda obs: jnp.einsum("bi,bi->b", obs, obs)[:, None], "a product over the axes"),
        (lambda obs: obs.at[:, 0].set(1.0), "primitive 'scatter'"),
        (lambda obs: obs + obs.shape[0], "primitive 'dim_as_value'"),
    ):
        with pytest.raises(UserError, match=f"no translation: {re.escape(name)}"):
            to_onnx(function, observations((4,), np.float32))


def test_onnx_takes_what_the_batch_decides():
    """Lengths that depend on the batch size, in operations where no network of the family has them."""

    def function(obs):
        ones = jnp.broadcast_to(jnp.arange(3.0), (obs.shape[0], 3))
        return jnp.concatenate([ones, obs[:, 1:3].reshape(-1, 1).reshape(-1, 2)], axis=1)

    obs = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(to_onnx(function, observations((4,), np.float32)).SerializeToString())
    np.testing.assert_array_equal(session.run(None, {"obs": obs})[0], function(obs))


@pytest.mark.parametrize("member", mostly_slow(["MLP", "FQF"], fast=["MLP"]))
def test_an_onnx_model_that_is_off_is_refused(member, monkeypatch):
    agent = agent_of(*FAMILY[member])
    right = to_onnx
    monkeypatch.setattr(
        "purejaxdqn.policies.onnx_graphs.to_onnx",
        lambda function, inputs, **more: right(lambda obs: function(obs) * 1.001, inputs, **more),
    )
    with pytest.raises(UserError, match=r"the model's Q-values differ from ours by"):
        to_checked_onnx(agent)


@pytest.fixture(scope="module")
def folders(finished_run, tmp_path_factory):
    """Agent 1 of the run, in every format."""
    place = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("purejaxdqn.system.runtime.configure_cpu", lambda: None)
        for kind in FORMATS:
            arguments = [str(finished_run), "--format", kind, "--seed-index", "1", "--out", str(place / kind)]
            assert main(arguments) == 0
    return {kind: place / kind for kind in FORMATS}


OBS = np.random.default_rng(0).normal(size=(17, 4)).astype(np.float32)


def our_q_values(run, seed_index, obs):
    config = load_config(run / "config.yaml")
    q_values = make_q_values(config, make_environment(**config.env.making()))
    flat = {name: leaf[seed_index] for name, leaf in load_file(run / "policy.safetensors").items()}
    layers = {name.split("/")[1]: {} for name in flat}
    for name, leaf in flat.items():
        layers[name.split("/")[1]][name.split("/")[2]] = leaf
    return np.asarray(jax.jit(q_values)(config.hparams(), {"params": layers}, obs))


@pytest.mark.parametrize("kind", FORMATS)
def test_exported_weights_are_the_agents_bit_for_bit(kind, folders, finished_run):
    whole, mine = load_file(finished_run / "policy.safetensors"), load_file(folders[kind] / "policy.safetensors")
    assert set(mine) == set(whole)
    for name, leaf in mine.items():
        np.testing.assert_array_equal(leaf, whole[name][1])
    assert (folders[kind] / "config.yaml").read_bytes() == (finished_run / "config.yaml").read_bytes()


def test_halved_weights_take_half_the_bytes_and_load_as_numbers_of_32_bits(finished_run, quietly, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    whole = load_file(run / "policy.safetensors")
    whole["params/Dense_0/bias"][0, 0] = 70_000  # beyond half precision, so this layer stays as it is
    save_file(whole, run / "policy.safetensors")
    summary = json.loads((run / "summary.json").read_text())
    del summary["policy_sha256"], summary["summary_sha256"]
    (run / "summary.json").write_text(json.dumps(summary))
    for seed_index in (0, 1):
        folder = tmp_path / f"half-{seed_index}"
        options = ("--format", "safetensors", "--half", "--seed-index", seed_index, "--out", folder)
        assert quietly(main, run, *options)[0] == 0
        stored = load_file(folder / "policy.safetensors")
        kept = {"params/Dense_0/bias"} if seed_index == 0 else set()
        assert {name for name, leaf in stored.items() if leaf.dtype == np.float32} == kept
        assert all(leaf.dtype in (np.float16, np.float32) for leaf in stored.values())
        loaded = traverse_util.flatten_dict(load_exported(folder)[2], sep="/")
        for name, leaf in loaded.items():
            assert leaf.dtype == np.float32
            np.testing.assert_allclose(leaf, whole[name][seed_index], rtol=2**-11, atol=1e-7)
        assert json.loads((folder / "policy.json").read_text())["network"]["weights"] == "float16"
        assert "in half precision" in (folder / "README.md").read_text()


def test_statistics_of_observations_are_not_halved():
    """A mean of 1000 with a deviation of 0.05 has an error of ten deviations in half precision."""
    flat = {"network/params/Dense_0/kernel": np.ones(2, np.float32), "observations/mean": np.float32([1000.3, 1e-4])}
    found = {path: halved(path, leaf) for path, leaf in flat.items()}
    assert found["network/params/Dense_0/kernel"].dtype == np.float16
    assert found["observations/mean"].tolist() == flat["observations/mean"].tolist()
    stored = traverse_util.flatten_dict(agent_of("cartpole_cleanrl", "env.normalize=true").params, sep="/")
    assert {"observations/mean", "observations/variance"} <= set(stored)  # the names that are looked for
    members = agent_of("cartpole_cleanrl", "env.normalize=true", "ensemble.members=2").params
    for path, leaf in traverse_util.flatten_dict(members, sep="/").items():
        if "mean" in path or "variance" in path:
            assert halved(path, np.asarray(leaf)).dtype == np.float32


def test_a_run_that_ended_early_was_trained_for_fewer_steps():
    agent = agent_of("cartpole_cleanrl")
    assert exports.describe(agent, "safetensors", None)["training"]["env_steps"] == agent.config.total_timesteps
    ended = agent._replace(summary={**agent.summary, "stopped_at": 200})
    assert exports.describe(ended, "safetensors", None)["training"]["env_steps"] == 200


def test_a_folder_says_what_is_in_it(folders, finished_run):
    summary = json.loads((finished_run / "summary.json").read_text())
    for kind, folder in folders.items():
        described = json.loads((folder / "policy.json").read_text())
        assert described["observation"]["shape"] == [4]
        assert described["observation"]["dtype"] == "float32"
        assert described["action"] == {"kind": "discrete", "n": 2}
        assert described["evaluation"]["mean_return"] == summary["final_eval_return"][1]
        assert described["network"]["parameter_count"] == 4 * 16 + 16 + 16 * 16 + 16 + 16 * 2 + 2
        card = (folder / "README.md").read_text()
        assert "load_policy" in card
        assert (f"pip install 'jax>={jax.__version__}' flatbuffers" in card) == (kind == "stablehlo")
        named = set(re.findall(r"^- `([\w.]+\.\w+)`: ", card, re.MULTILINE))
        assert named | {"README.md"} == {path.name for path in folder.iterdir()}
        assert (f"policy.{kind}" in named) and (kind == "safetensors" or described["program"]["file"] in named)


@pytest.mark.parametrize("kind", ["stablehlo", "onnx"])
@pytest.mark.slow
def test_the_script_in_the_folder_runs_where_this_package_cannot_be_imported(kind, folders, finished_run, tmp_path):
    script = folders[kind] / "run_policy.py"
    assert f"```python\n{script.read_text()}```" in (folders[kind] / "README.md").read_text()
    assert len(script.read_text().splitlines()) == 10
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("purejaxdqn", "flax", "gymnax", "flashbax", "optax", *(["jax"] if kind == "onnx" else [])):
        (blocked / f"{name}.py").write_text("raise ImportError('blocked')\n")
    moved = shutil.copytree(folders[kind], tmp_path / "elsewhere")
    env = {**os.environ, "PYTHONPATH": str(blocked)}

    def python(*arguments):
        return subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    assert "blocked" in python("-c", "import purejaxdqn").stderr
    for count in (1, 3, 17):
        np.save(tmp_path / "obs.npy", OBS[:count])
        done = python(moved / "run_policy.py", tmp_path / "obs.npy")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        ours = our_q_values(finished_run, 1, OBS[:count])
        np.testing.assert_allclose(answer["q_values"], ours, rtol=1e-5, atol=1e-6)
        assert answer["action"] == ours.argmax(-1).tolist()
    assert len(json.loads(python(moved / "run_policy.py").stdout)["action"]) == 3  # without a file, an example


@pytest.mark.parametrize("kind", FORMATS)
def test_an_exported_folder_loads_as_the_run_does_without_its_environment(kind, folders, finished_run, monkeypatch):
    whole = load_policy(finished_run, seed_index=1)(OBS)
    monkeypatch.setattr("purejaxdqn.policies.policies.make_environment", lambda *_, **__: pytest.fail("it was made"))
    monkeypatch.setattr("purejaxdqn.environments.gymnax.import_gymnax", lambda: pytest.fail("gymnax was imported"))
    act = load_policy(folders[kind])
    np.testing.assert_array_equal(act(OBS), whole)
    assert [act(one) for one in OBS] == whole.tolist()


OBSERVED = ["one-hot of one number", "one-hot of four numbers", "normalised", "MinAtar"]


@pytest.mark.parametrize("member", mostly_slow(OBSERVED, fast=OBSERVED[:3]))
def test_what_happens_to_an_observation_comes_along(member, tmp_path):
    agent = agent_of(*FAMILY[member])
    agent = agent._replace(summary={"final_eval_return": [1.0]})
    exports.write_folder(agent, tmp_path / "policy", "safetensors")
    obs = sample_observations(agent, steps=1)
    act = load_policy(tmp_path / "policy")
    np.testing.assert_array_equal(act(obs), np.asarray(jax.jit(agent.q_values)(obs)).argmax(-1))
    assert act(obs[0]) == act(obs)[0]


def test_the_best_agent_is_the_one_with_the_highest_return_that_is_finite(finished_run, quietly, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    del summary["summary_sha256"]

    def export_best(scores, diverged):
        found = {"final_eval_return": scores, "diverged": diverged}
        (run / "summary.json").write_text(json.dumps({**summary, **found}))
        return quietly(main, run, "--format", "safetensors", "--best")

    sound = (False, False, False)
    for scores, diverged, best in (
        ([3.0, 9.0, 9.0], sound, 1),
        ([None, -5.0, -4.0], sound, 2),
        ([-9.0, 3.0, 3.0], (False, True, True), 0),
    ):
        code, out, _ = export_best(scores, diverged)
        assert (code, out) == (0, [str(run / "exports" / f"safetensors-{best}")])
        leaf = load_file(run / "exports" / f"safetensors-{best}" / "policy.safetensors")["params/Dense_2/weight"]
        np.testing.assert_array_equal(leaf, load_file(run / "policy.safetensors")["params/Dense_2/weight"][best])
    for scores, diverged in (([None] * 3, sound), ([9.0] * 3, (True,) * 3)):
        code, _, err = export_best(scores, diverged)
        assert (code, err) == (2, ["error: --best: every agent of this run diverged"])


def everything_below(folder):
    return sorted(folder.rglob("*"))


@pytest.fixture
def runs(finished_run, tmp_path, monkeypatch):
    """A working directory with a good run and several that are not."""
    monkeypatch.chdir(tmp_path)
    for name in ("run", "unfinished", "unsummed", "garbled", "diverged"):
        shutil.copytree(finished_run, name)
    (tmp_path / "taken").mkdir()
    (tmp_path / "unfinished" / "policy.safetensors").unlink()
    (tmp_path / "unsummed" / "summary.json").unlink()
    (tmp_path / "garbled" / "summary.json").write_text("{")
    weights = load_file("diverged/policy.safetensors")
    weights["params/Dense_0/bias"][0, 3] = np.nan
    save_file(weights, "diverged/policy.safetensors")
    summary = json.loads((tmp_path / "diverged" / "summary.json").read_text())
    del summary["policy_sha256"], summary["summary_sha256"]
    (tmp_path / "diverged" / "summary.json").write_text(json.dumps(summary))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--format", "onnx"], "not a finished run: it has no config.yaml"),
        (["unfinished", "--format", "onnx"], "not a finished run: it has no policy.safetensors"),
        (["unsummed", "--format", "onnx"], "not a finished run: it has no summary.json"),
        (["garbled", "--format", "onnx"], "summary.json cannot be read"),
        (["run"], "--format"),
        (["run", "--format", "pickle"], "invalid choice: 'pickle'"),
        (["run", "--format", "onnx", "--half"], "--half: only --format safetensors"),
        (["run", "--format", "onnx", "--seed-index", "3"], "3 is not an agent of this run, which has 0 to 2"),
        (["run", "--format", "onnx", "--seed-index", "-1"], "-1 is not an agent"),
        (["run", "--format", "onnx", "--seed-index", "1", "--best"], "not allowed with"),
        (["run", "--format", "onnx", "--out", "taken"], "--out: taken exists"),
        (["run", "--format", "onnx", "--out", "run/config.yaml/x"], "cannot be made"),
        (["run", "--format", "onnx", "--out", "a" * 300], "cannot be made"),
        (["diverged", "--format", "onnx"], "agent 0 diverged: its weights are not finite"),
    ],
    ids=str,
)
def test_bad_input_is_refused_and_nothing_written(arguments, message, runs, quietly):
    before = everything_below(runs)
    code, out, err = quietly(main, *arguments)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith("error: ")
    assert message in err[0]
    assert everything_below(runs) == before


def test_a_missing_extra_is_refused_with_the_line_that_installs_it(finished_run, quietly, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = quietly(main, finished_run, "--format", "onnx", "--out", tmp_path / "out")
    assert code == 2
    assert err == ["error: --format onnx needs onnx and onnxruntime: pip install 'purejaxdqn[onnx]'"]
    assert everything_below(tmp_path) == []


def test_an_export_that_fails_half_way_leaves_nothing(finished_run, tmp_path, monkeypatch):
    agent = exports.choose_agent(finished_run, seed_index=0, best=False)
    monkeypatch.setattr("purejaxdqn.policies.cards.model_card", lambda description: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        exports.write_folder(agent, tmp_path / "new" / "deep" / "policy", "stablehlo")
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("policy.json", lambda text: "{", "cannot be used"),
        ("policy.json", lambda text: text.replace("purejaxdqn policy", "a policy"), "does not describe a policy"),
        (
            "policy.json",
            lambda text: text.replace('"format_version": 2', '"format_version": 1'),
            "is 1, and .* reads 2",
        ),
        ("policy.json", lambda text: text.replace('"n": 2', '"n": 3'), "does not fit"),
        ("policy.json", lambda text: text.replace('"one_hot": 0', '"one_hot": 1'), "its features differ"),
        ("config.yaml", lambda text: text.replace("[16, 16]", "[16, 8]"), "does not fit"),
        ("config.yaml", lambda text: text + "colour: red\n", "colour: unknown key"),
        ("policy.safetensors", None, "is damaged"),
    ],
)
def test_a_damaged_folder_is_refused(name, change, message, folders, tmp_path):
    folder = shutil.copytree(folders["safetensors"], tmp_path / "policy")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:50] if change is None else change(content.decode()).encode())
    with pytest.raises(UserError, match=message):
        load_policy(folder)


@pytest.mark.parametrize(
    "command",
    [(main, "--format", "onnx"), (train, "--quiet", "--resume")],
    ids=["export", "train --resume"],
)
def test_an_exported_folder_is_not_taken_for_a_run(command, folders, quietly, tmp_path):
    folder = shutil.copytree(folders["stablehlo"], tmp_path / "policy")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    code, out, err = quietly(*command, folder)
    assert (code, out, len(err)) == (2, [], 1)
    assert f"{folder} is not a run but a policy that was exported from one" in err[0]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_weights_of_an_earlier_version_are_named_as_such(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    weights = load_file(folder / "policy.safetensors")
    save_file({path.replace("weight", "kernel"): leaf for path, leaf in weights.items()}, folder / "policy.safetensors")
    with pytest.raises(UserError, match="was written by an earlier purejaxdqn"):
        load_policy(folder)


def test_the_card_says_in_which_order_dueling_streams_come():
    """The advantages' layers come first, as many rows as actions times atoms."""
    config = load_config("cartpole_cleanrl", ["network={dueling: true, hidden: [16, 8]}"])
    learning = make_learner(make_parts(config, make_environment(**config.env.making())))
    learner = jax.eval_shape(lambda: learning.init(config.hparams(), jax.random.key(0)))
    shapes = {name: layer["weight"].shape for name, layer in learner.online["params"].items()}
    assert shapes == {"Dense_0": (16, 4), "Dense_1": (8, 16), "Dense_2": (2, 8), "Dense_3": (8, 16), "Dense_4": (1, 8)}


def test_an_exported_folder_has_one_agent(folders):
    with pytest.raises(UserError, match="it has no agent 1"):
        load_policy(folders["safetensors"], seed_index=1)


def flip(path, place):
    """Change the lowest bit of one byte."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_in_the_weights_of_a_run_or_an_export_is_seen(finished_run, folders, quietly, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    digest = json.loads((run / "summary.json").read_text())["policy_sha256"]
    assert digest == hashlib.sha256((run / "policy.safetensors").read_bytes()).hexdigest()
    exported = shutil.copytree(folders["safetensors"], tmp_path / "policy")
    load_policy(run), load_policy(exported)
    for folder, record in ((run, "summary.json"), (exported, "policy.json")):
        flip(folder / "policy.safetensors", -5)
        with pytest.raises(UserError, match=f"is damaged: it does not match the digest in {record}"):
            load_policy(folder)
    code, out, err = quietly(evaluate, run)
    assert (code, out, len(err)) == (2, [], 1)


def test_a_summary_that_has_changed_is_a_warning(finished_run, quietly, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    load_policy(run)
    text = (run / "summary.json").read_text()
    (run / "summary.json").write_text(text.replace('"num_seeds": 3', '"num_seeds": 4'))
    code, _, err = quietly(main, run, "--format", "safetensors", "--best")
    assert (code, err) == (0, [f"warning: {run / 'summary.json'} has changed since the run ended"])
    code, _, err = quietly(evaluate, run, "--episodes", 1, "--seed-index", 0)
    assert (code, err) == (0, [f"warning: {run / 'summary.json'} has changed since the run ended"])


def test_weights_without_a_digest_are_as_before_it_was_written(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "policy_sha256": None, "summary_sha256": None}))
    flip(run / "policy.safetensors", -5)
    load_policy(run)
    (run / "summary.json").unlink()
    load_policy(run)


def test_weights_of_another_type_are_refused(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "summary.json").unlink()
    path = run / "policy.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"', 1))
    with pytest.raises(UserError, match="does not fit the network"):
        load_policy(run)


def test_an_exported_config_that_was_changed_is_refused(folders, tmp_path):
    folder = shutil.copytree(folders["safetensors"], tmp_path / "policy")
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("activation: relu", "activation: gelu"))
    with pytest.raises(UserError, match=r"config.yaml is damaged"):
        load_policy(folder)


@pytest.mark.slow
def test_a_changed_config_or_table_of_a_run_is_a_warning(finished_run, quietly, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    for name, old, new in (("config.yaml", "activation: relu", "activation: gelu"), ("metrics.csv", "600", "610")):
        (run / name).write_text((run / name).read_text().replace(old, new))
    changed = [f"warning: {run / name} has changed since the run ended" for name in ("metrics.csv", "config.yaml")]
    assert quietly(evaluate, run, "--episodes", 2)[::2] == (0, changed[1:])
    assert quietly(plot, run)[::2] == (0, changed)
    assert quietly(report, run)[::2] == (0, changed)
    (run / "summary.json").write_text("{")
    code, _, err = quietly(plot, run)
    assert (code, len(err)) == (0, 1)
    assert err[0].startswith(f"warning: {run / 'summary.json'} cannot be read")


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (np.zeros((5, 2, 2)), r"obs has shape \(5, 2, 2\); this policy takes \(4,\), or a batch of these"),
        (np.zeros(3), r"obs has shape \(3,\)"),
        (np.zeros((1, 1, 4)), r"obs has shape \(1, 1, 4\)"),
        (0.0, r"obs has shape \(\)"),
        ([None] * 4, "obs has type object; this policy takes float32"),
        (np.zeros(4, complex), "obs has type complex128"),
        (["0"] * 4, "obs has type <U1"),
    ],
    ids=str,
)
def test_an_observation_that_does_not_fit_a_policy_is_refused(obs, message, folders):
    with pytest.raises(ValueError, match=message):
        load_policy(folders["safetensors"])(obs)


def test_any_batch_of_real_numbers_is_taken(folders):
    act = load_policy(folders["safetensors"])
    assert act(np.zeros((0, 4))).shape == (0,)
    for kind in (int, bool, np.float64, np.float16, jnp.bfloat16):
        assert act(np.ones((5, 4), kind)).shape == (5,)
        assert act(np.ones(4, kind)) == act([1.0] * 4)


def test_values_that_an_observations_type_cannot_hold_are_refused():
    env = make_environment("FrozenLake-misc")
    assert as_batch(3.0, env) == (np.array([3]), True)
    assert as_batch([3, 4.0], env)[0].tolist() == [3, 4]
    for obs in (3.5, [np.nan], 1e12):
        with pytest.raises(ValueError, match="obs has values that int32 cannot hold"):
            as_batch(obs, env)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float8_e4m3fn])
def test_observations_that_onnxruntime_does_not_take_are_refused(dtype):
    agent = agent_of("cartpole_cleanrl")
    agent = agent._replace(env=agent.env._replace(obs_dtype=jnp.dtype(dtype)))
    with pytest.raises(
        UserError, match=f"--format onnx: observations are {jnp.dtype(dtype)}, which onnxruntime does not"
    ):
        to_checked_onnx(agent)
