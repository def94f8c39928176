"""The configuration of a run: what is static, the numbers in it, and the faults that no single key shows.

A ``Config`` is frozen and hashable. ``Config.hparams()`` gives the numbers a program takes as arguments;
everything else is built into the program. Reading files and command lines is the host's business.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

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
    "distribution.v_min": "v_min",
    "distribution.v_max": "v_max",
    "distribution.kappa": "kappa",
    "distribution.risk_level": "risk_level",
    "distribution.fraction_rate": "fraction_rate",
    "bootstrap.alpha": "munchausen_alpha",
    "bootstrap.temperature": "munchausen_temperature",
    "bootstrap.clip": "munchausen_clip",
    "network.sigma": "sigma",
    "replay.alpha": "priority_alpha",
    "replay.beta": "priority_beta",
}
"""Config keys that are traced numbers, and their fields in ``HParams``."""

Scalar = bool | int | float | str


def _in_float32(value: float) -> float:
    with np.errstate(over="ignore"):
        if value and not 0 < abs(np.float32(value)) < np.inf:
            raise ValueError("within the range of float32")
    return value


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_in_float32)]
Finite = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_in_float32)]
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


def _word(values: Any, name: str) -> Any:
    word = values.get(name) if isinstance(values, dict) else None
    return word if isinstance(word, str) else None


def _filled(values: Any, **defaults: Any) -> Any:
    """``values`` with defaults that hang on another key of the section; null asks for them too."""
    if not isinstance(values, dict):
        return values
    return {**defaults, **{name: value for name, value in values.items() if value is not None or name not in defaults}}


class EnvConfig(Section):
    """The environment, how many run side by side, and what is laid round it."""

    id: str = "CartPole-v1"
    num_envs: Count = 10
    kwargs: Settings = ()
    params: Settings = ()
    sticky_actions: Annotated[float, Field(ge=0, lt=1)] = 0.0
    one_hot: bool = False
    flatten: bool = False
    normalize: bool = False

    def making(self) -> dict[str, Any]:
        """What ``make_environment`` takes."""
        return {
            "env_id": self.id,
            "kwargs": dict(self.kwargs),
            "sticky_actions": self.sticky_actions,
            "one_hot": self.one_hot,
            "flatten": self.flatten,
        }


class DistributionConfig(Section):
    """What is learned of the return (``dqn.heads``); what a kind does not need is left alone.

    ``atoms`` and ``risk_level`` default to what the kind's paper takes; QR-DQN's 200 are 51 here, and IQN's 64 for the
    loss and the target are the 32 it acts with.
    """

    kind: Literal["scalar", "categorical", "quantile", "iqn", "fqf"] = "scalar"
    atoms: Count
    v_min: Finite | None = None
    v_max: Finite | None = None
    kappa: Positive = 1.0
    risk: Literal["neutral", "cvar", "cpw", "wang"] = "neutral"
    risk_level: Finite
    fraction_rate: Positive = 1e-3

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        atoms = {"categorical": 51, "quantile": 51, "iqn": 32, "fqf": 32}
        level = {"cvar": 0.25, "cpw": 0.71, "wang": -0.75}
        return _filled(
            values, atoms=atoms.get(_word(values, "kind"), 1), risk_level=level.get(_word(values, "risk"), 0.0)
        )


class BootstrapConfig(Section):
    """Whose action the target values (``dqn.bootstrap``); the numbers are Munchausen's."""

    kind: Literal["greedy", "double", "munchausen"] = "greedy"
    alpha: Share = 0.9
    temperature: Positive = 0.03
    clip: Annotated[Finite, Field(le=0)] = -1.0


class NetworkConfig(Section):
    """The Q-network (``dqn.networks``); ``hidden`` defaults to [120, 84], after ``minatar_cnn`` to [128]."""

    torso: Literal["mlp", "minatar_cnn"] = "mlp"
    hidden: IntTuple
    activation: Literal["relu", "tanh", "gelu", "silu", "elu"] = "relu"
    layer_norm: bool = False
    dueling: bool = False
    noisy: bool = False
    sigma: Annotated[Finite, Field(ge=0)] = 0.5

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        return _filled(values, hidden=(128,) if _word(values, "torso") == "minatar_cnn" else (120, 84))


class OptimizerConfig(Section):
    """The optimiser; ``max_grad_norm`` null leaves gradients as they are, ``anneal`` takes the rate to 0.

    ``centered`` is RMSProp's: the second moment less the square of the first. RMSProp's moments decay by 0.95, and
    AdamW's weights by 1e-4.
    """

    name: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    learning_rate: Positive = 2.5e-4
    eps: Positive = 1e-8
    max_grad_norm: Positive | None = None
    anneal: bool = False
    centered: bool = False


class RewardConfig(Section):
    """What happens to rewards before they are learned from; returns are reported as the environment gives them."""

    scale: Positive = 1.0
    clip: Positive | None = None


class ReplayConfig(Section):
    """The buffer, in environment steps (``dqn.replay``); alpha and beta are those of prioritised replay."""

    kind: Literal["uniform", "prioritised"] = "uniform"
    size: Count = 10_000
    batch_size: Count = 128
    alpha: Share = 0.6
    beta: Share = 0.4


class ExplorationConfig(Section):
    """Epsilon: start, end, and the share of the run that the linear decay takes after the warm-up."""

    start: Share = 1.0
    end: Share = 0.05
    fraction: Share = 0.5


def _as_tuple(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        return value
    return tuple(dict.fromkeys(value)) if all(isinstance(one, str) for one in value) else tuple(value)


LogNames = Annotated[
    tuple[Literal["csv", "tensorboard", "wandb"], ...], BeforeValidator(_as_tuple), PlainSerializer(list)
]


class ScheduleConfig(Section):
    """When things happen, in environment steps over all environments (``gradient_steps``: per train).

    ``horizon`` is the run that shares of a run are shares of; null takes ``total_timesteps``.
    """

    warmup: Count = 10_000
    train_every: Count = 10
    gradient_steps: Count = 1
    target_every: Count = 500
    tau: Annotated[float, Field(gt=0, le=1)] = 1.0
    horizon: Annotated[int, Field(ge=1, lt=2**31)] | None = None


class EvaluationConfig(Section):
    """Greedy episodes; ``every`` null makes as many epochs, up to 20, as divide the run."""

    every: Count | None = None
    episodes: Count = 10
    final_episodes: Count = 100


class CheckpointConfig(Section):
    """Checkpoints, in environment steps from the end of the warm-up; ``every`` null saves the end alone."""

    every: Count | None = None
    keep: Count = 2


class Config(Section):
    """A whole run."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    num_seeds: Count = 1
    total_timesteps: Annotated[int, Field(ge=1, lt=2**31)] = 100_000
    env: EnvConfig = EnvConfig()
    gamma: Share = 0.99
    n_step: Count = 1
    distribution: DistributionConfig = DistributionConfig.model_validate({})
    bootstrap: BootstrapConfig = BootstrapConfig()
    network: NetworkConfig = NetworkConfig.model_validate({})
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: Literal["huber", "squared"] = "huber"
    reward: RewardConfig = RewardConfig()
    precision: Literal["default", "high", "highest"] = "highest"
    replay: ReplayConfig = ReplayConfig()
    exploration: ExplorationConfig = ExplorationConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogNames = ("csv",)

    def hparams(self) -> HParams:
        """The numbers of this config, as NumPy scalars; a limit that is ``null`` becomes an infinite one."""
        numbers = {field: value_at(self, key) for key, field in TRACED.items()}
        return HParams(
            **{field: np.float32(math.inf if value is None else value) for field, value in numbers.items()},
            horizon=np.float32(self.schedule.horizon or self.total_timesteps),
            env_params={name: np.asarray(value) for name, value in self.env.params},
        )

    def static(self) -> "Config":
        """What a program is built from: equal for two configs just when one program serves both.

        Every traced number and all that is the host's alone stand at their defaults, so nothing built from it can
        depend on them.
        """
        values = self.model_dump()
        for key in (*TRACED, *_OUTSIDE):
            *sections, name = key.split(".")
            parent = values[sections[0]] if sections else values
            parent[name] = _PLACEHOLDERS.get(key, value_at(Config(), key))
        del values["distribution"]["risk_level"]  # filled in again: what is allowed hangs on the kind of risk
        values["env"]["params"] = dict.fromkeys(values["env"]["params"], 0)
        return Config.model_validate(values)


_OUTSIDE = ("seed", "num_seeds", "schedule.horizon", "checkpoint.every", "checkpoint.keep", "log")
"""Keys that neither structure nor numbers of a program hang on, beside the traced ones; ``horizon`` is traced too."""

_PLACEHOLDERS = {"distribution.v_min": 0.0, "distribution.v_max": 1.0}
"""Stand in for numbers that have no default."""


def value_at(config: Config, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value
