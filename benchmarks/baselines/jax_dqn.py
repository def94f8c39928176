"""A plain DQN in JAX for the Python loop: acting and learning are jitted, everything else is Python."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.baselines.python_loop import Batch
from benchmarks.baselines.scan_dqn import QNetwork
from benchmarks.baselines.setting import Setting


class JaxAgent:
    """An ``Agent`` of the Python loop, with a JAX network."""

    def __init__(self, setting: Setting, seed: int):
        network, optimizer = QNetwork(setting.hidden, 2), optax.adam(setting.learning_rate)
        self._params = self._target = network.init(jax.random.key(seed), jnp.zeros((1, 4)))
        self._opt_state = optimizer.init(self._params)
        self._act = jax.jit(lambda params, obs: network.apply(params, obs).argmax(-1))

        @jax.jit
        def learn(params: Any, target: Any, opt_state: Any, batch: Batch) -> tuple[Any, Any]:
            next_q = network.apply(target, batch.next_obs).max(-1)
            targets = batch.reward + setting.gamma * (1.0 - batch.terminated) * next_q

            def loss(params: Any) -> jax.Array:
                q = jnp.take_along_axis(network.apply(params, batch.obs), batch.action[:, None], -1)[:, 0]
                return jnp.mean((q - targets) ** 2)

            updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        self._learn = learn

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Greedy actions [E]."""
        return np.asarray(self._act(self._params, obs))

    def learn(self, batch: Batch) -> None:
        """One gradient step on the squared TD error."""
        self._params, self._opt_state = self._learn(self._params, self._target, self._opt_state, batch)

    def sync(self) -> None:
        """Copy the online network to the target network."""
        self._target = self._params
