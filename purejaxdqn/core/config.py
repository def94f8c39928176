"""The configuration of a run: what is static, the numbers in it, and the faults that no single key shows.

A ``Config`` is frozen and hashable. ``Config.hparams()`` gives the numbers a program takes as arguments;
everything else is built into the program. Reading files and command lines is the host's business.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from purejaxdqn.core.types import HParams

TRACED: Mapping[str, str] = {
    "gamma": "gamma",
    "optimizer.learning_rate": "learning_rate",
    "optimizer.eps": "optimizer_eps",
    "optimizer.max_grad_norm": "max_grad_norm",
    "reward.scale": "reward_scale",
    "reward.clip": "reward_clip",
    "exploration.start": "epsilon_start",
    "exploration.end": "epsilon_end",
    "exploration.fraction": "epsilon_fraction",
    "schedule.tau": "tau",
}
"""Config keys that are traced numbers, and their fields in ``HParams``."""

Scalar = bool | int | float | str


def _in_float32(value: float) -> float:
    if value and not 0 < np.float32(value) < np.inf:
        raise ValueError("within the range of float32")
    return value


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_in_float32)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]


def _as_pairs(value: Any) -> tuple[tuple[str, Scalar], ...]:
    if isinstance(value, dict) and all(isinstance(one, Scalar) for one in value.values()):
        return tuple(sorted(value.items()))
    if value == ():
        return ()
    raise ValueError("a mapping of names to single values")


# A frozen model must be hashable, and a dict is not: kept as sorted pairs, read and written as a mapping.
Settings = Annotated[tuple[tuple[str, Scalar], ...], BeforeValidator(_as_pairs), PlainSerializer(dict)]
IntTuple = Annotated[
    tuple[Count, ...],
    Field(min_length=1),
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    PlainSerializer(list),
]


class Section(BaseModel):
    """A part of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class EnvConfig(Section):
    """The environment and how many run side by side."""

    id: str = "CartPole-v1"
    num_envs: Count = 10
    kwargs: Settings = ()
    params: Settings = ()


class BootstrapConfig(Section):
    """Whose action the target values (``core.bootstrap``)."""

    kind: Literal["greedy", "double"] = "greedy"


class NetworkConfig(Section):
    """The Q-network (``core.networks``)."""

    torso: Literal["mlp"] = "mlp"
    hidden: IntTuple = (120, 84)
    activation: Literal["relu", "tanh", "gelu", "silu", "elu"] = "relu"
    layer_norm: bool = False


class OptimizerConfig(Section):
    """The optimiser; ``max_grad_norm`` null leaves gradients as they are, ``anneal`` takes the rate to 0."""

    name: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    learning_rate: Positive = 2.5e-4
    eps: Positive = 1e-8
    max_grad_norm: Positive | None = None
    anneal: bool = False


class RewardConfig(Section):
    """What happens to rewards before they are learned from; returns are reported as the environment gives them."""

    scale: Positive = 1.0
    clip: Positive | None = None


class ReplayConfig(Section):
    """The buffer, in transitions (``core.replay``)."""

    kind: Literal["uniform"] = "uniform"
    size: Count = 10_000
    batch_size: Count = 128


class ExplorationConfig(Section):
    """Epsilon: start, end, and the share of the run that the linear decay takes after the warm-up."""

    start: Share = 1.0
    end: Share = 0.05
    fraction: Share = 0.5


class ScheduleConfig(Section):
    """When things happen, in environment steps over all environments (``gradient_steps``: per train)."""

    warmup: Count = 10_000
    train_every: Count = 10
    gradient_steps: Count = 1
    target_every: Count = 500
    tau: Annotated[float, Field(gt=0, le=1)] = 1.0


class EvaluationConfig(Section):
    """Greedy episodes; ``every`` null makes as many epochs, up to 20, as divide the run."""

    every: Count | None = None
    episodes: Count = 10
    final_episodes: Count = 100


class Config(Section):
    """A whole run."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    num_seeds: Count = 1
    total_timesteps: Annotated[int, Field(ge=1, lt=2**31)] = 100_000
    env: EnvConfig = EnvConfig()
    gamma: Share = 0.99
    bootstrap: BootstrapConfig = BootstrapConfig()
    network: NetworkConfig = NetworkConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: Literal["huber", "squared"] = "huber"
    reward: RewardConfig = RewardConfig()
    precision: Literal["default", "high", "highest"] = "highest"
    replay: ReplayConfig = ReplayConfig()
    exploration: ExplorationConfig = ExplorationConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def hparams(self) -> HParams:
        """The numbers of this config, as NumPy scalars; a limit that is ``null`` becomes an infinite one."""
        numbers = {field: value_at(self, key) for key, field in TRACED.items()}
        return HParams(
            **{field: np.float32(math.inf if value is None else value) for field, value in numbers.items()},
            horizon=np.float32(self.total_timesteps),
            env_params={name: np.asarray(value) for name, value in self.env.params},
        )

    def static(self) -> "Config":
        """What a program is built from: equal for two configs just when one program serves both.

        Every traced number stands at its default, so nothing built from it can depend on one.
        """
        values = self.model_dump()
        for key in (*TRACED, "seed", "num_seeds"):
            *sections, name = key.split(".")
            parent = values[sections[0]] if sections else values
            parent[name] = value_at(Config(), key)
        values["env"]["params"] = dict.fromkeys(values["env"]["params"], 0)
        return Config.model_validate(values)


def value_at(config: Config, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value
