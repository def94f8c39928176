"""What a policy folder says of itself: the README card, and the script that runs the policy without this package."""

import json
from typing import Any

FORMAT_VERSION = 2
"""Of ``policy.json`` and what it describes; in 1 layers were laid out otherwise."""
SCRIPT_FILE = "run_policy.py"
DESCRIPTION_FILE = "policy.json"
"""Stands in an exported folder and not in a run directory."""

_STABLEHLO = '''"""Act with this policy: python {script} [observations.npy]. Needs jax, flatbuffers, numpy."""
import json
import sys
from pathlib import Path
import numpy as np
from jax import export
policy = export.deserialize(Path(__file__).with_name("{file}").read_bytes())
obs = np.load(sys.argv[1]) if len(sys.argv) > 1 else np.zeros({example}, "{dtype}")  # any batch size
q_values, action = policy.call(obs)
print(json.dumps({{"q_values": q_values.tolist(), "action": action.tolist()}}))
'''
_ONNX = '''"""Act with this policy: python {script} [observations.npy]. Needs onnxruntime, numpy."""
import json
import sys
from pathlib import Path
import numpy as np
import onnxruntime
policy = onnxruntime.InferenceSession(Path(__file__).with_name("{file}").read_bytes())
obs = np.load(sys.argv[1]) if len(sys.argv) > 1 else np.zeros({example}, "{dtype}")  # any batch size
q_values, action = policy.run(["q_values", "action"], {{"obs": obs}})
print(json.dumps({{"q_values": q_values.tolist(), "action": action.tolist()}}))
'''


def script(description: dict[str, Any]) -> str | None:
    """A script that runs the policy's program; None where the format has no program."""
    program, observation = description["program"], description["observation"]
    if program is None:
        return None
    return {"stablehlo": _STABLEHLO, "onnx": _ONNX}[description["kind"]].format(
        script=SCRIPT_FILE,
        file=program["file"],
        example=(3, *observation["shape"]),
        dtype=observation["dtype"],
    )


def card(description: dict[str, Any]) -> str:
    """``README.md`` of a policy folder."""
    network, evaluation, training = description["network"], description["evaluation"], description["training"]
    score = evaluation["mean_return"]
    source = "" if ":" in description["env_id"] else " (gymnax)"
    rows = [
        ("environment", f"`{description['env_id']}`{source}"),
        ("greedy return", "unknown" if score is None else f"{score:g}, mean over {evaluation['episodes']} episodes"),
        ("observation", _space(description["observation"])),
        ("action", f"an integer from 0 to {description['action']['n'] - 1}"),
        ("network", _network(network)),
        ("what it is shown", _features(description["features"])),
        ("trained for", f"{training['env_steps']:,} environment steps"),
        ("agent", f"{training['seed_index']} of a run of {training['num_seeds']}, seed {training['seed']}"),
        ("made with", ", ".join(f"{name} {version}" for name, version in training["versions"].items())),
        ("commit", training["git_commit"] or "unknown"),
    ]
    table = "\n".join(f"| {name} | {text} |" for name, text in rows)
    return f"""# A DQN policy for {description["env_id"]}

Trained and exported by purejaxdqn. The best action is the one with the largest Q-value.

| | |
|---|---|
{table}

## How to load it

{_loading(description)}With purejaxdqn, which does not need the environment for it:

```python
from purejaxdqn import load_policy

act = load_policy("path/to/this/folder")
action = act(obs)  # one observation, or a batch of them
```

The weights alone, as arrays by name:

```python
from safetensors.numpy import load_file

weights = load_file("policy.safetensors")
```

`weight` is [outputs, inputs], of a convolution [features, channels, 3, 3], as PyTorch has them. Images, [height, width,
channels] as observations, go in and are flattened with the channels first. Layer normalisation has an epsilon of 1e-6.
Layers are numbered in the order of their use; with dueling those of the advantages come before those of the value.

## Files

{_files(description)}"""


def _loading(description: dict[str, Any]) -> str:
    program = description["program"]
    if program is None:
        return ""
    # JAX reads what older versions have exported, not what newer ones have.
    needs = {"stablehlo": f"'jax>={program.get('jax')}' flatbuffers", "onnx": "onnxruntime numpy"}[description["kind"]]
    tensors = {**program["inputs"], **program["outputs"]}
    lines = "\n".join(f"- `{name}` {_tensor(tensor)}" for name, tensor in tensors.items())
    return f"""Without purejaxdqn (`pip install {needs}`), `{SCRIPT_FILE}`:

```python
{script(description)}```

All that happens to an observation on its way is inside the program. The batch size is free.

{lines}

"""


def _tensor(tensor: dict[str, Any]) -> str:
    return f"[{', '.join(map(str, tensor['shape']))}] {tensor['dtype']}"


def _space(observation: dict[str, Any]) -> str:
    low, high = (observation.get(name) for name in ("low", "high"))
    limits = "" if low is None or high is None else f", from {low:g} to {high:g}"
    return f"{' x '.join(map(str, observation['shape'])) or 'a single number'}, {observation['dtype']}{limits}"


def _network(network: dict[str, Any]) -> str:
    torso = {"mlp": "MLP", "minatar_cnn": "a convolution, then an MLP"}[network["torso"]]
    extras = [name.replace("_", " ") for name in ("layer_norm", "dueling", "noisy") if network[name]]
    kind = network["distribution"] + (f" ({network['atoms']})" if network["distribution"] != "scalar" else "")
    words = [f"{torso} {network['hidden']}", network["activation"], *extras, f"distribution {kind}"]
    return f"{', '.join(words)}; {network['parameter_count']:,} parameters"


def _features(features: dict[str, Any]) -> str:
    words = [
        f"one-hot of {features['one_hot']}" if features["one_hot"] else "",
        "flattened" if features["flatten"] else "",
        "normalised by running statistics" if features["normalize"] else "",
    ]
    return ", ".join(word for word in words if word) or "the observation as it is"


def _files(description: dict[str, Any]) -> str:
    files = {
        "policy.json": "what describes it, for programs",
        "policy.safetensors": "the weights",
        "config.yaml": "the config of the run; `python -m purejaxdqn.train --config config.yaml` trains it again",
    }
    if description["program"]:
        files[description["program"]["file"]] = f"the program, {description['kind']}"
        files[SCRIPT_FILE] = "the script above"
    return "".join(f"- `{name}`: {text}\n" for name, text in files.items())


def read_description(text: str) -> dict[str, Any]:
    """Parse ``policy.json``.

    Raises:
      ValueError: it is not one, or of another version.
    """
    description = json.loads(text)
    if not isinstance(description, dict) or description.get("format") != "purejaxdqn policy":
        raise ValueError("it does not describe a policy")
    if (version := description.get("format_version")) != FORMAT_VERSION:
        raise ValueError(f"its format version is {version}, and this purejaxdqn reads {FORMAT_VERSION}")
    return description
