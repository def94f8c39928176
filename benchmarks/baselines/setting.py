"""Hyperparameters of the agents that all contenders train: CleanRL's for DQN on CartPole, and PQN's."""

from typing import NamedTuple


class Setting(NamedTuple):
    """Hyperparameters of a run. Steps and intervals count environment steps over all environments."""

    total_timesteps: int = 500_000
    num_envs: int = 10
    warmup: int = 10_000
    train_every: int = 10
    target_every: int = 500
    buffer_size: int = 10_000
    batch_size: int = 128
    hidden: tuple[int, ...] = (120, 84)
    learning_rate: float = 2.5e-4
    gamma: float = 0.99
    epsilon_end: float = 0.05
    exploration_fraction: float = 0.5

    def epsilon(self, timestep: int) -> float:
        """Return epsilon: 1 during the warm-up, then annealed linearly to ``epsilon_end``."""
        share = (timestep - self.warmup) / (self.exploration_fraction * self.total_timesteps)
        return 1.0 if timestep < self.warmup else max(self.epsilon_end, 1.0 + share * (self.epsilon_end - 1.0))


class RolloutSetting(NamedTuple):
    """Hyperparameters of a PQN run, those of its paper where that has some; squared loss, RAdam, layer normalisation.

    Steps count environment steps over all environments; epsilon decays linearly from 1 over the first fifth of a run.
    """

    env_id: str
    num_envs: int
    steps: int  # of every environment in a rollout
    epochs: int
    minibatches: int
    hidden: tuple[int, ...]
    trace: float  # lambda
    learning_rate: float
    convolution: bool = False  # of 16 filters of 3 x 3, below the hidden layers, without normalisation
    gamma: float = 0.99
    max_grad_norm: float = 10.0
    epsilon_end: float = 0.05
    exploration_fraction: float = 0.2

    @property
    def rollout(self) -> int:
        """Environment steps of a rollout."""
        return self.num_envs * self.steps

    @property
    def batch_size(self) -> int:
        """Transitions of a minibatch."""
        return self.rollout // self.minibatches


ROLLOUT_SETTINGS = {
    "CartPole": RolloutSetting("CartPole-v1", 32, 64, 4, 16, (256, 256), trace=0.95, learning_rate=1e-4),
    "Breakout": RolloutSetting(
        "Breakout-MinAtar", 128, 32, 2, 32, (128,), trace=0.65, learning_rate=5e-4, convolution=True
    ),
}

RECURRENT = RolloutSetting("MemoryChain-bsuite", 32, 64, 4, 4, (64, 64), trace=0.95, learning_rate=1e-3)
"""Recurrent PQN on MemoryChain, as in `memory_chain.yaml`: sequences of one environment, eight in a minibatch."""
MEMORY_SIZE = 64
"""Units of its GRU."""
