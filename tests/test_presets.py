"""Every preset learns in the budget of the config it is laid over: whole trainings, run with ``pytest -m learning``."""

import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn import load_config, run_many
from purejaxdqn.core.keys import run_key

PRESETS = (
    "dqn",
    "double_dqn",
    "dueling",
    "per",
    "n_step",
    "c51",
    "qr_dqn",
    "iqn",
    "fqf",
    "munchausen",
    "noisy",
    "rainbow",
    "pqn",
    "bootstrapped",
    "bootstrapped_priors",
)
SEEDS = 5


def mean_return(*names):
    config = load_config(list(names))
    keys = jnp.stack([run_key(np.uint32(31), np.uint32(k)) for k in range(SEEDS)])
    result = run_many(config, config.hparams(), keys)
    scores = np.asarray(result.final_returns[0].mean(-1))
    print("greedy returns of", *names, scores)
    return scores.mean()


@pytest.mark.learning
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("config", "score"), [("cartpole_double", 400.0), ("catch", 0.9), ("discounting_chain", 1.05)])
def test_every_preset_learns(config, score, preset):
    """DiscountingChain pays 1 for every first action but the best one, which pays 1.1 and most seeds find."""
    assert mean_return(config, preset) >= score


@pytest.mark.learning
@pytest.mark.parametrize("preset", ["r2d2", "drqn", "pqn_gru"])
def test_presets_with_a_memory_learn_to_remember(preset):
    """MemoryChain of length 5 pays 1 for what was shown at its start, and guessing gives 0 on average."""
    assert mean_return("memory_chain_dqn", preset) >= 0.95
