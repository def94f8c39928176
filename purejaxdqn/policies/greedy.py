"""The greedy policy of one agent, as a function of observations and of what the agent remembers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxdqn.config.building import make_algorithm
from purejaxdqn.core.algorithm import ActorView, greedy, no_memory
from purejaxdqn.core.config import Config
from purejaxdqn.core.environment import Environment, all_legal


class Policy:
    """The greedy policy of one trained agent.

    ``policy(obs)`` takes one observation [O] or a batch [B, O], and returns one action or actions [B]. Where some are
    illegal, it needs the legal ones: ``policy(obs, legal=legal)``. An agent with a memory (``network.memory``) acts by
    ``step``:

        state = policy.initial_state(batch)
        actions, state = policy.step(obs, state, start)
    """

    def __init__(self, config: Config, env: Environment, params: Any):
        """``params`` are those of one agent, without a seed axis."""
        algorithm, hparams = make_algorithm(config, env), config.hparams()

        @jax.jit
        def act(view: ActorView) -> tuple[jax.Array, Any]:
            q_values, memory = algorithm.values(hparams, params, view)
            return greedy(q_values, view.legal), memory

        self._env, self._act = env, act
        self._remembers = config.network.memory != "none"  # unlike the actors of an ensemble in training
        self._memory = algorithm.memory if self._remembers else no_memory

    def __call__(self, obs: Any, *, legal: Any = None) -> np.ndarray:
        """The actions of an agent without a memory.

        Args:
          obs: [O] or [B, O].
          legal: [A] or [B, A] bool, the legal actions; needed where the environment has illegal ones.

        Raises:
          ValueError: a shape or type is another, the environment has illegal actions and ``legal`` is missing, or the
            agent has a memory.
        """
        if self._remembers:
            raise ValueError("this policy has a memory: use initial_state(batch) and step(obs, state, start)")
        batch, single = as_batch(obs, self._env)
        actions = self._actions(batch, (), None, legal)[0]
        return actions[0] if single else actions

    def initial_state(self, batch: int) -> Any:
        """What ``batch`` actors remember before their first step; () without a memory."""
        return self._memory(batch)

    def step(self, obs: Any, state: Any, start: Any = None, *, legal: Any = None) -> tuple[np.ndarray, Any]:
        """The actions [B] for observations [B, O], and what is remembered from then on.

        Args:
          obs: [B, O].
          state: of the step before, or ``initial_state(B)``.
          start: [B] bool: an episode starts, and the state is that of another; nowhere unless given.
          legal: [A] or [B, A] bool, the legal actions; needed where the environment has illegal ones.

        Raises:
          ValueError: a shape or type is another, or the environment has illegal actions and ``legal`` is missing.
        """
        batch, single = as_batch(obs, self._env)
        if single:
            raise ValueError(f"obs has shape {np.shape(obs)}; step takes a batch of observations")
        return self._actions(batch, state, start, legal)

    def _actions(self, batch: np.ndarray, state: Any, start: Any, legal: Any) -> tuple[np.ndarray, Any]:
        count = len(batch)
        if not count:  # no maximum, and nothing to compute
            return np.zeros(0, int), state
        begins: Any = ()
        if self._remembers:
            begins = _flags("start", np.zeros(count, bool) if start is None else start, (count,))
        view = ActorView(jnp.asarray(batch), self._legal(legal, count), state, begins)
        actions, state = self._act(view)
        return np.asarray(actions), state

    def _legal(self, legal: Any, count: int) -> Any:
        if legal is None:
            if self._env.legal is not all_legal:
                raise ValueError(f"{self._env.env_id} has illegal actions: pass the legal ones as legal")
            return ()
        shape = (count, self._env.num_actions)
        return _flags("legal", np.broadcast_to(legal, shape) if np.shape(legal) == shape[1:] else legal, shape)


def _flags(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    found = np.asarray(value)
    if found.shape != shape or found.dtype != bool:
        raise ValueError(f"{name} is {found.dtype} of shape {found.shape}; it must be bool of shape {shape}")
    return found


def as_batch(obs: Any, env: Environment) -> tuple[np.ndarray, bool]:
    """``obs`` [O] or [B, O] as a batch [B, O] in the environment's type, and whether it was a single observation.

    Raises:
      ValueError: its shape or its type is another.
    """
    given, shape = np.asarray(obs), env.obs_shape
    if given.shape not in (shape, (*given.shape[:1], *shape)):
        raise ValueError(f"obs has shape {given.shape}; this policy takes {shape}, or a batch of these")
    if not (jnp.issubdtype(given.dtype, jnp.number) or given.dtype == bool) or jnp.iscomplexobj(given):
        raise ValueError(f"obs has type {given.dtype}; this policy takes {np.dtype(env.obs_dtype)}")
    with np.errstate(all="ignore"):  # what a cast loses is seen below
        batch = np.reshape(given, (-1, *shape)).astype(env.obs_dtype)
    if not jnp.issubdtype(batch.dtype, jnp.inexact) and not np.array_equal(batch.ravel(), given.ravel()):
        raise ValueError(f"obs has values that {batch.dtype} cannot hold")
    return batch, given.shape == shape
