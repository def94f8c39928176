"""The text files of an exported policy: its model card (``README.md``), its run script, and reading ``policy.json``.

``policy.json`` is a dict, called ``description`` below; ``exports.describe`` builds it.
"""

from pathlib import Path
from typing import Any

from purejaxdqn.system.files import read_json

FORMAT_VERSION = 2
"""Version of ``policy.json`` and of the weights it describes. In version 1 the weights had another layout."""
SCRIPT_FILE = "run_policy.py"
DESCRIPTION_FILE = "policy.json"
"""In every exported folder and in no run directory, so it tells the two apart."""

_STABLEHLO = '''"""Run this policy: python {script} [observations.npy]. Needs jax, flatbuffers and numpy."""
import json
import sys
from pathlib import Path
import numpy as np
from jax import export
policy = export.deserialize(Path(__file__).with_name("{file}").read_bytes())
obs = np.load(sys.argv[1]) if len(sys.argv) > 1 else np.zeros({example}, "{dtype}")  # any batch size
{mask}names = ("q_values", "action", "deviation")  # the last, over its members, where the policy is an ensemble
print(json.dumps({{name: array.tolist() for name, array in zip(names, policy.call(obs{call}))}}))
'''
_STABLEHLO_MEMORY = '''"""Run this policy: python {script} [observations.npy]. Needs jax, flatbuffers and numpy."""
import json
import sys
from pathlib import Path
import numpy as np
from jax import export
policy = export.deserialize(Path(__file__).with_name("{file}").read_bytes())
obs = np.load(sys.argv[1]) if len(sys.argv) > 1 else np.zeros({example}, "{dtype}")  # [steps, batch, ...]
state, start, actions = np.zeros((len(obs[0]), *{state}), "{state_dtype}"), np.ones(len(obs[0]), bool), []
{mask}for one in obs:
    q_values, action, state, *_ = policy.call(one, state, start{call})  # *_: deviation
    start = np.zeros_like(start)  # true again where an episode starts
    actions.append(action.tolist())
print(json.dumps({{"q_values": q_values.tolist(), "action": actions}}))
'''
_ONNX_MEMORY = '''"""Run this policy: python {script} [observations.npy]. Needs onnxruntime and numpy."""
import json
import sys
from pathlib import Path
import numpy as np
import onnxruntime
policy = onnxruntime.InferenceSession(Path(__file__).with_name("{file}").read_bytes())
obs = np.load(sys.argv[1]) if len(sys.argv) > 1 else np.zeros({example}, "{dtype}")  # [steps, batch, ...]
state, start, actions = np.zeros((len(obs[0]), *{state}), "{state_dtype}"), np.ones(len(obs[0]), bool), []
{mask}for one in obs:
    q_values, action, state, *_ = policy.run(None, {{"obs": one, "state": state, "start": start{run}}})  # *_: deviation
    start = np.zeros_like(start)  # true again where an episode starts
    actions.append(action.tolist())
print(json.dumps({{"q_values": q_values.tolist(), "action": actions}}))
'''
_ONNX = '''"""Run this policy: python {script} [observations.npy]. Needs onnxruntime and numpy."""
import json
import sys
from pathlib import Path
import numpy as np
import onnxruntime
policy = onnxruntime.InferenceSession(Path(__file__).with_name("{file}").read_bytes())
obs = np.load(sys.argv[1]) if len(sys.argv) > 1 else np.zeros({example}, "{dtype}")  # any batch size
{mask}names = [output.name for output in policy.get_outputs()]  # deviation, over its members, of an ensemble
print(json.dumps({{name: array.tolist() for name, array in zip(names, policy.run(names, {{"obs": obs{run}}}))}}))
'''


def run_script(description: dict[str, Any]) -> str | None:
    """Return the source of a script that runs the exported program, or None for a format without a program."""
    program, observation = description["program"], description["observation"]
    if program is None:
        return None
    state = program["inputs"].get("state")
    scripts = (
        {"stablehlo": _STABLEHLO_MEMORY, "onnx": _ONNX_MEMORY} if state else {"stablehlo": _STABLEHLO, "onnx": _ONNX}
    )
    batch, masked = "len(state)" if state else "len(obs)", "legal" in program["inputs"]
    mask = f"legal = np.ones(({batch}, {description['action']['n']}), bool)  # which actions are legal\n"
    return scripts[description["kind"]].format(
        mask=mask if masked else "",
        call=", legal" if masked else "",
        run=', "legal": legal' if masked else "",
        script=SCRIPT_FILE,
        file=program["file"],
        example=(*((10,) if state else ()), 3, *observation["shape"]),
        dtype=observation["dtype"],
        **({"state": tuple(state["shape"][1:]), "state_dtype": state["dtype"]} if state else {}),
    )


def model_card(description: dict[str, Any]) -> str:
    """Return the text of an exported folder's ``README.md``: a summary table, how to load the policy, its files."""
    table = "\n".join(f"| {name} | {text} |" for name, text in _summary_rows(description))
    return f"""# A DQN policy for {description["env_id"]}

Trained and exported by purejaxdqn. The policy is greedy: it takes the action with the largest Q-value.

| | |
|---|---|
{table}

## How to load it

{_program_section(description)}{_package_section(description)}
To read the weights only, as arrays by name:

```python
from safetensors.numpy import load_file

weights = load_file("policy.safetensors")
```

Weights are laid out as in PyTorch: `weight` is [outputs, inputs], and [features, channels, side, side] for a
convolution. Image observations are [height, width, channels]; the output of a convolution is flattened with the
channels first.
Layer normalisation uses an epsilon of 1e-6. Layers are numbered in the order in which they are applied; in a dueling
network the layers of the advantage stream come before those of the value stream.

## Files

{_file_list(description)}"""


def _package_section(description: dict[str, Any]) -> str:
    if description["features"].get("own"):
        return """With purejaxdqn and the environment's module, whose code makes the features:

```bash
python -m purejaxdqn.evaluate path/to/this/folder --trust
```
"""
    return f"""With purejaxdqn (the environment need not be installed):

```python
from purejaxdqn import load_policy

{_act_lines(description)}```
"""


def _remembers(description: dict[str, Any]) -> bool:
    return bool(description["network"].get("memory", "none") != "none")


def _act_lines(description: dict[str, Any]) -> str:
    legal = ", legal=legal" if description["action"].get("legal") else ""
    if not _remembers(description):
        return f"""act = load_policy("path/to/this/folder")
action = act(obs{legal})  # one observation, or a batch of them
"""
    return f"""policy = load_policy("path/to/this/folder")
state = policy.initial_state(batch)
actions, state = policy.step(obs, state, start{legal})  # obs [batch, ...]; start is true where an episode starts
"""


def _summary_rows(description: dict[str, Any]) -> list[tuple[str, str]]:
    evaluation, training = description["evaluation"], description["training"]
    score = evaluation["mean_return"]
    source = "" if ":" in description["env_id"] else " (gymnax)"
    legal = ", one of those that are legal then" if description["action"].get("legal") else ""
    return [
        ("environment", f"`{description['env_id']}`{source}"),
        ("greedy return", "unknown" if score is None else f"{score:g}, mean over {evaluation['episodes']} episodes"),
        ("observation", _observation_text(description["observation"])),
        ("action", f"an integer from 0 to {description['action']['n'] - 1}{legal}"),
        ("network", _network_text(description["network"])),
        ("network input", _features_text(description["features"])),
        ("trained for", f"{training['env_steps']:,} environment steps"),
        ("agent", f"seed index {training['seed_index']} of a run of {training['num_seeds']}, seed {training['seed']}"),
        ("made with", ", ".join(f"{name} {version}" for name, version in training["versions"].items())),
        ("commit", training["git_commit"] or "unknown"),
    ]


def _program_section(description: dict[str, Any]) -> str:
    program = description["program"]
    if program is None:
        return ""
    # A JAX version reads programs exported by older versions, not by newer ones.
    needs = {"stablehlo": f"'jax>={program.get('jax')}' flatbuffers", "onnx": "onnxruntime numpy"}[description["kind"]]
    tensors = {**program["inputs"], **program["outputs"]}
    lines = "\n".join(f"- `{name}` {_tensor_text(tensor)}" for name, tensor in tensors.items())
    return f"""Without purejaxdqn (`pip install {needs}`), with `{SCRIPT_FILE}`:

```python
{run_script(description)}```

The program takes raw observations; all preprocessing is part of it. It accepts any batch size.
{_state_text(description)}
{lines}

"""


def _state_text(description: dict[str, Any]) -> str:
    if not _remembers(description):
        return ""
    return """The policy has a memory: pass the `next_state` of a step as the `state` of the next one.
`start` is true where an episode starts; the state passed there (zeros before the first step) is ignored.
"""


def _tensor_text(tensor: dict[str, Any]) -> str:
    return f"[{', '.join(map(str, tensor['shape']))}] {tensor['dtype']}"


def _observation_text(observation: dict[str, Any]) -> str:
    low, high = (observation.get(name) for name in ("low", "high"))
    bounds = "" if low is None or high is None else f", from {low:g} to {high:g}"
    return f"{' x '.join(map(str, observation['shape'])) or 'a single number'}, {observation['dtype']}{bounds}"


def _network_text(network: dict[str, Any]) -> str:
    torso = {
        "mlp": "MLP",
        "minatar_cnn": "a convolution, then an MLP",
        "cnn": "convolutions, then an MLP",
        "one_hot": "an embedding, then an MLP",
    }[network["torso"]]
    extras = [name.replace("_", " ") for name in ("layer_norm", "dueling", "noisy") if network[name]]
    if network.get("memory", "none") != "none":
        extras.append(f"a memory ({network['memory']}) of {network['memory_size']} units")
    kind = network["distribution"] + (f" ({network['atoms']})" if network["distribution"] != "scalar" else "")
    size = network["ensemble"]["members"]
    members = [f"the mean of an ensemble of {size}"] if size > 1 else []
    words = [f"{torso} {network['hidden']}", network["activation"], *extras, f"distribution {kind}", *members]
    halved = " in half precision" if network.get("weights") == "float16" else ""
    return f"{', '.join(words)}; {network['parameter_count']:,} parameters{halved}"


def _features_text(features: dict[str, Any]) -> str:
    frames, observe = features.get("frame_stack", 1), features.get("observe")
    words = [
        f"of the features {observe} of each observation of the environment" if observe else "",
        f"of the last {frames} observations, the newest last; the first is repeated at an episode's start"
        if frames > 1
        else "",
        "features that the environment's own code makes" if features.get("own") else "",
        f"one-hot encoded with depth {features['one_hot']}" if features["one_hot"] else "",
        f"divided by {features['scale']:g}" if features.get("scale") else "",
        "flattened" if features["flatten"] else "",
        "normalised by running statistics" if features["normalize"] else "",
    ]
    return ", ".join(word for word in words if word) or "the observation, unchanged"


def _file_list(description: dict[str, Any]) -> str:
    files = {
        "policy.json": "a machine-readable description of the policy",
        "policy.safetensors": "the weights",
        "config.yaml": "the config of the run; `python -m purejaxdqn.train --config config.yaml` trains it again",
    }
    if description["program"]:
        files[description["program"]["file"]] = f"the program, in {description['kind']} format"
        files[SCRIPT_FILE] = "the script above"
    return "".join(f"- `{name}`: {text}\n" for name, text in files.items())


def read_description(path: Path) -> dict[str, Any]:
    """Read a ``policy.json``.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not JSON, does not describe a policy, or has another format version.
    """
    description = read_json(path)
    if not isinstance(description, dict) or description.get("format") != "purejaxdqn policy":
        raise ValueError("it does not describe a policy")
    if (version := description.get("format_version")) != FORMAT_VERSION:
        raise ValueError(f"its format version is {version}, and this purejaxdqn reads {FORMAT_VERSION}")
    return description
