"""CleanRL's hyperparameters for CartPole, shared by all contenders."""

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
