"""A plain DQN in PyTorch for the Python loop."""

import itertools

import numpy as np
import torch
from torch import nn

from benchmarks.baselines.python_loop import Batch
from benchmarks.baselines.setting import Setting


class TorchAgent:
    """An ``Agent`` of the Python loop, with a PyTorch network, on a GPU if there is one."""

    def __init__(self, setting: Setting, seed: int, *, threads: int = 1):
        torch.set_num_threads(threads)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(seed)
        self._gamma = setting.gamma
        self._online, self._target = (_network((4, *setting.hidden, 2)).to(self._device) for _ in range(2))
        self._optimizer = torch.optim.Adam(self._online.parameters(), lr=setting.learning_rate)
        self.sync()

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Greedy actions [E]."""
        with torch.inference_mode():
            return self._online(torch.from_numpy(obs).to(self._device)).argmax(-1).cpu().numpy()

    def learn(self, batch: Batch) -> None:
        """One gradient step on the squared TD error."""
        obs, action, reward, next_obs, terminated = (torch.from_numpy(column).to(self._device) for column in batch)
        with torch.no_grad():
            target = reward + self._gamma * (1.0 - terminated) * self._target(next_obs).max(-1).values
        q = self._online(obs).gather(1, action[:, None])[:, 0]
        loss = nn.functional.mse_loss(q, target)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    def sync(self) -> None:
        """Copy the online network to the target network."""
        self._target.load_state_dict(self._online.state_dict())


def _network(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, after in itertools.pairwise(sizes):
        layers += [nn.Linear(width, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
