"""The Python calls of `same_bits.py`, through public names only; the script runs in both revisions.

python same_bits_probes.py many OUT           run_many, make_train, evaluate_policy -> OUT.safetensors
python same_bits_probes.py act FOLDER ...     load_policy: the actions for fixed observations, as JSON
python same_bits_probes.py interrupt OUT ...  train with these arguments, and send SIGINT after the first checkpoint
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIG = "tiny.yaml"


def many(out: str) -> int:
    """Two points of two seeds each; a network of the caller's own; an environment of the caller's own."""
    from purejaxdqn import configure_cpu

    configure_cpu()  # before JAX starts
    import jax
    import jax.numpy as jnp
    from gymnax.environments.classic_control.cartpole import CartPole
    from safetensors.numpy import save_file

    from purejaxdqn import evaluate_policy, from_gymnax, load_config, make_train, run_many

    config, key = load_config(CONFIG), jax.random.key(3)
    hparams = config.hparams()
    # The field's name differs between revisions.
    rate = next(name for name in hparams._fields if name.endswith("learning_rate"))
    rates = hparams._replace(**{rate: jnp.array([1e-3, 3e-3])})
    points = run_many(config, rates, jax.vmap(jax.random.key)(jnp.arange(2)))
    mine = jax.jit(make_train(config, network=own_network()))(config.hparams(), key)
    theirs = jax.jit(make_train(config, env=from_gymnax(CartPole())))(config.hparams(), key)
    one = jax.tree.map(lambda leaf: leaf[0], jax.device_get(points.params))  # leaves [seeds, ...]
    played = evaluate_policy(config, one, episodes=5, seed=1)
    results = {"points": points, "own network": mine, "own environment": theirs}
    tensors = {name: array for what, result in results.items() for name, array in leaves(what, result).items()}
    save_file({**tensors, "evaluate_policy": contiguous(played)}, f"{out}.safetensors")
    return 0


def own_network() -> Any:
    """A flax module for CartPole's two actions."""
    import flax.linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, obs: Any) -> Any:
            return nn.Dense(2)(nn.tanh(nn.Dense(16)(obs)))

    return Network()


def leaves(what: str, result: Any) -> dict[str, Any]:
    """A result's arrays by names that do not depend on how its records are called."""
    import jax

    named = {"final_returns": result.final_returns, "eval_returns": result.rows.eval_returns}
    named |= {f"params {number}": leaf for number, leaf in enumerate(jax.tree.leaves(result.params))}
    return {f"{what}: {name}": contiguous(leaf) for name, leaf in named.items()}


def contiguous(array: Any) -> Any:
    """As safetensors wants it."""
    import numpy as np

    return np.ascontiguousarray(array)


def act(*folders: str) -> int:
    """Print the greedy actions of run directories and exported folders."""
    import numpy as np

    from purejaxdqn import load_policy

    obs = np.load("obs.npy")
    print(json.dumps({folder: load_policy(folder)(obs).tolist() for folder in folders}))
    return 0


def interrupt(out: str, *arguments: str) -> int:
    """Stop a run by SIGINT once it has a checkpoint.

    Where it stops is chance, and it may even end before the signal arrives; what it leaves after ``--resume`` is not.
    """
    command = [sys.executable, "-m", "purejaxdqn.train", "--out", out, *arguments]
    process = subprocess.Popen(command)
    checkpoints = Path(out) / "checkpoints"
    while process.poll() is None and not (checkpoints.is_dir() and any(checkpoints.iterdir())):
        time.sleep(0.005)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    code = process.wait()
    print(f"stopped with exit code {code}", file=sys.stderr)
    return 0 if code in (0, 130) else 1


COMMANDS: dict[str, Callable[..., int]] = {"many": many, "act": act, "interrupt": interrupt}

if __name__ == "__main__":
    sys.exit(COMMANDS[sys.argv[1]](*sys.argv[2:]))
