"""Torsos and their output layer, as flax modules."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from purejaxdqn.core.types import Array

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
}


class MLP(nn.Module):
    """Fully connected Q-network: observations [B, O] of any shape and type -> Q-values [B, num_actions]."""

    num_actions: int
    hidden: tuple[int, ...]
    activation: Callable[[Array], Array]
    layer_norm: bool

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """Q-values of observations, which become float32 here and no earlier."""
        x = obs.reshape(obs.shape[0], -1).astype(jnp.float32)
        for width in self.hidden:
            x = nn.Dense(width)(x)
            x = nn.LayerNorm()(x) if self.layer_norm else x
            x = self.activation(x)
        return nn.Dense(self.num_actions)(x)


def make_network(*, num_actions: int, hidden: tuple[int, ...], activation: str, layer_norm: bool) -> Any:
    """The Q-network that a config describes; the activation is one of relu, tanh, gelu, silu, elu."""
    return MLP(num_actions=num_actions, hidden=hidden, activation=_ACTIVATIONS[activation], layer_norm=layer_norm)
