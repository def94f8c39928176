"""The configuration of a run: which of its values are built into a program, and which a program takes as arguments.

A ``Config`` is frozen and hashable. Each field is static unless its declaration says otherwise:

    Traced()    a number that the program takes as an argument: ``HParams`` has a field for it
    OUTSIDE     a value that no program depends on

``HParams``, ``Config.hparams()``, ``Config.static()`` and ``traced_keys`` are derived from these marks, so a new number
is declared once. Reading files and command lines is the host's business.
"""

import functools
import math
from collections import namedtuple
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    create_model,
    model_validator,
)


class Traced(NamedTuple):
    """Marks a field as a traced number, ``hparams.section_name`` in a program.

    A mapping of names to numbers becomes a dict of traced numbers, whose names stay static.
    """

    null: float | str = math.inf  # what null stands for: a number, or the key whose value it takes


class _Outside(NamedTuple):
    """Marks a field that neither the structure nor the numbers of a program depend on."""


OUTSIDE = _Outside()

Scalar = bool | int | float | str


def _in_float32(value: float) -> float:
    with np.errstate(over="ignore"):
        if value and not 0 < abs(np.float32(value)) < np.inf:
            raise ValueError("within the range of float32")
    return value


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_in_float32)]
Finite = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_in_float32)]
Share = Annotated[float, Field(ge=0, le=1)]


def _whole(value: Any) -> Any:
    """A whole number that is written with an exponent, such as 1e6, as an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, BeforeValidator(_whole), Field(ge=1, lt=2**31)]


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


def _as_indices(value: Any) -> tuple[int, ...]:
    if value is None or value == ():
        return ()
    if not isinstance(value, list | tuple) or not value or not all(type(one) is int and one >= 0 for one in value):
        raise ValueError("null or a list of numbers from 0 on")
    if len(set(value)) < len(value):
        raise ValueError("a list without repetitions")
    return tuple(value)


Indices = Annotated[
    tuple[int, ...], BeforeValidator(_as_indices), PlainSerializer(lambda value: list(value) if value else None)
]
"""Distinct indices; null, which is kept as (), stands for all."""


def _check_resets(value: Any) -> Any:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31):
        return value
    raise ValueError("all, or an integer of 1 or more")


Resets = Annotated[Literal["all"] | int, BeforeValidator(_check_resets)]


class Section(BaseModel):
    """A part of the configuration."""

    # Deferred: ``Config`` validates its sections itself, so one that nobody makes alone needs no validator of its own.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


_DEFAULTS: Any = Field(default_factory=dict, validate_default=True)
"""The default of a section: what its own keys default to."""


def _with_keywords(section: type[Section], fields: dict[str, Any]) -> Any:
    """The section with fields that ``class`` cannot declare, as their names are keywords of Python."""
    return create_model(section.__name__.removeprefix("_"), __base__=section, __doc__=section.__doc__, **fields)


def _word(values: Any, name: str) -> Any:
    word = values.get(name) if isinstance(values, dict) else None
    return word if isinstance(word, str) else None


def _filled(values: Any, **defaults: Any) -> Any:
    """``values`` with defaults that depend on another key of the section; null stands for the default too."""
    if not isinstance(values, dict):
        return values
    return {**defaults, **{name: value for name, value in values.items() if value is not None or name not in defaults}}


class EnvConfig(Section):
    """The environment, the number of copies that run side by side, and the wrappers around it.

    ``resets`` is the number of new states that a step makes for the environments whose episodes end in it; ``all``
    makes one for each. ``scale`` null takes the suite's value, which is 255 for pixels.
    """

    id: str = "CartPole-v1"
    num_envs: Count = 10
    kwargs: Settings = ()
    params: Annotated[Settings, Traced()] = ()
    sticky_actions: Annotated[float, Field(ge=0, lt=1)] = 0.0
    one_hot: bool = False
    flatten: bool = False
    scale: Positive | None = None
    normalize: bool = False
    observe: Indices = ()
    frame_stack: Count = 1
    legal_only: bool = True
    resets: Resets = "all"

    def making(self) -> dict[str, Any]:
        """The arguments of ``make_environment``."""
        return {
            "env_id": self.id,
            "kwargs": dict(self.kwargs),
            "resets": None if self.resets == "all" else self.resets,
            "legal_only": self.legal_only,
            "scale": self.scale,
            "sticky_actions": self.sticky_actions,
            "one_hot": self.one_hot,
            "flatten": self.flatten,
            "observe": self.observe,
            "frame_stack": self.frame_stack,
        }

    def making_whole(self) -> dict[str, Any]:
        """The same for the environment of whole, single observations."""
        return {**self.making(), "observe": (), "frame_stack": 1}


class DistributionConfig(Section):
    """What is learned about the return (``dqn.heads``); each kind reads only the keys that it needs.

    ``atoms`` and ``risk_level`` default to the values of the kind's paper, with two exceptions: QR-DQN has 51 atoms and
    not 200, and IQN has 32 for the loss and the target, as for acting, and not 64.
    """

    kind: Literal["scalar", "categorical", "hl_gauss", "quantile", "iqn", "fqf"] = "scalar"
    atoms: Annotated[int, Field(ge=1, le=10_000)]  # papers take up to 201; heads make constants of this size
    v_min: Annotated[Finite | None, Traced()] = None
    v_max: Annotated[Finite | None, Traced()] = None
    sigma_ratio: Annotated[Positive, Traced()] = 0.75
    kappa: Annotated[Positive, Traced()] = 1.0
    risk: Literal["neutral", "cvar", "cpw", "wang"] = "neutral"
    risk_level: Annotated[Finite, Traced()]
    fraction_rate: Annotated[Positive, Traced()] = 1e-3

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        atoms = {"categorical": 51, "hl_gauss": 51, "quantile": 51, "iqn": 32, "fqf": 32}
        level = {"cvar": 0.25, "cpw": 0.71, "wang": -0.75}
        return _filled(
            values, atoms=atoms.get(_word(values, "kind"), 1), risk_level=level.get(_word(values, "risk"), 0.0)
        )


class BootstrapConfig(Section):
    """The policy that the target evaluates (``dqn.bootstrap``); the numbers are Munchausen's."""

    kind: Literal["greedy", "double", "munchausen"] = "greedy"
    alpha: Annotated[Share, Traced()] = 0.9
    temperature: Annotated[Positive, Traced()] = 0.03
    clip: Annotated[Finite, Field(le=0), Traced()] = -1.0


class NetworkConfig(Section):
    """The Q-network (``dqn.networks``); ``hidden`` defaults to [120, 84], and to [128] with a convolution.

    ``cnn`` has a convolution for each of ``channels``, whose ``kernels`` default to 3 and whose ``strides`` to 1.
    ``one_hot`` is an additional layer with the width of the first hidden layer.
    """

    torso: Literal["mlp", "minatar_cnn", "cnn", "one_hot"] = "mlp"
    channels: IntTuple
    kernels: IntTuple
    strides: IntTuple
    hidden: IntTuple
    activation: Literal["relu", "tanh", "gelu", "silu", "elu"] = "relu"
    layer_norm: bool = False
    dueling: bool = False
    noisy: bool = False
    sigma: Annotated[Finite, Field(ge=0), Traced()] = 0.5
    memory: Literal["none", "gru", "lru"] = "none"
    memory_size: Annotated[int, Field(ge=1, le=65_536)] = 64

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        hidden = (128,) if _word(values, "torso") in ("minatar_cnn", "cnn") else (120, 84)
        channels = values.get("channels") if isinstance(values, dict) else None
        layers = len(channels) if isinstance(channels, list | tuple) else 1
        return _filled(values, hidden=hidden, channels=(16,), kernels=(3,) * layers, strides=(1,) * layers)


class OptimizerConfig(Section):
    """The optimiser; ``max_grad_norm`` null does not clip gradients, ``anneal`` decays the learning rate to 0.

    ``centered`` is an option of RMSProp: it divides by the root of the variance of the gradient in place of its second
    moment. The moments of RMSProp decay by 0.95. AdamW reads ``weight_decay``.
    """

    name: Literal["adam", "adamw", "radam", "rmsprop", "sgd"] = "adam"
    learning_rate: Annotated[Positive, Traced()] = 2.5e-4
    eps: Annotated[Positive, Traced()] = 1e-8
    max_grad_norm: Annotated[Positive | None, Traced()] = None
    anneal: bool = False
    centered: bool = False
    weight_decay: Annotated[Finite, Field(ge=0), Traced()] = 1e-4


class RewardConfig(Section):
    """How rewards are changed for learning; reported returns are those of the environment."""

    scale: Annotated[Positive, Traced()] = 1.0
    clip: Annotated[Positive | None, Traced()] = None


class ReplayConfig(Section):
    """The replay buffer, in environment steps (``dqn.replay``); prioritised replay reads alpha and beta.

    With ``none``, the agent learns from each rollout and discards it (``dqn.on_rollout``); ``size`` and ``batch_size``
    are then null. Otherwise they default to 10,000 and 128. A network with a memory learns from sequences of
    ``sequence`` steps, the first ``burn_in`` of which give no gradient. ``batch_size`` is then the number of sequences.
    In each environment a sequence begins every ``period`` steps. ``eta`` is the weight of the largest TD error of a
    sequence in its priority.
    """

    kind: Literal["uniform", "prioritised", "none"] = "uniform"
    size: Count | None = None
    batch_size: Count | None = None
    alpha: Annotated[Share, Traced()] = 0.6
    beta: Annotated[Share, Traced()] = 0.4
    eta: Annotated[Share, Traced()] = 0.9
    sequence: Count = 20
    burn_in: Annotated[int, Field(ge=0, lt=2**31)] = 4
    period: Count | None = None

    def period_of_sequences(self) -> int:
        """``period``, or half of the steps that a sequence learns from (Kapturowski et al. 2019, section 2.3)."""
        return self.period or max(1, (self.sequence - self.burn_in) // 2)


class _RolloutConfig(Section):
    """Learning without replay, from rollouts of ``steps`` steps of each environment.

    In each of ``epochs`` passes, the rollout is split at random into ``minibatches``, each of which gives a gradient
    step. ``lambda`` is the weight of longer returns (``dqn.on_rollout``).
    """

    steps: Count = 32
    epochs: Count = 2
    minibatches: Count = 32


if TYPE_CHECKING:
    RolloutConfig = _RolloutConfig
else:
    RolloutConfig = _with_keywords(_RolloutConfig, {"lambda": (Annotated[Share, Traced()], 0.65)})


class EnsembleConfig(Section):
    """An ensemble (``dqn.ensemble``): its members, and the probability ``mask`` that a member learns from a step.

    ``prior`` says whether members have random priors, whose outputs are multiplied by ``prior_scale`` and added. By
    default they have priors if ``prior_scale`` is above 0. A run without priors does not compute them.
    """

    members: Count = 1
    prior: bool
    prior_scale: Annotated[Finite, Field(ge=0), Traced()] = 0.0
    mask: Annotated[Positive, Field(le=1), Traced()] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        scale = values.get("prior_scale") if isinstance(values, dict) else None
        return _filled(values, prior=isinstance(scale, float | int) and scale > 0)


class ExplorationConfig(Section):
    """Epsilon: its start, its end, and the share of the run over which it decays linearly after the warm-up."""

    start: Annotated[Share, Traced()] = 1.0
    end: Annotated[Share, Traced()] = 0.05
    fraction: Annotated[Share, Traced()] = 0.5


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
    """Intervals in environment steps over all environments; every ``train_every`` there are ``gradient_steps``.

    With replay, ``warmup``, ``train_every``, ``gradient_steps`` and ``target_every`` default to 10,000, 10, 1 and 500.
    Without replay, the rollout replaces the first three, which are null, and with ``target_every`` null there is no
    target network (``core.plan.Intervals``).
    ``horizon`` is the length of the run that schedules assume; null stands for ``total_timesteps``.
    """

    warmup: Count | None = None
    train_every: Count | None = None
    gradient_steps: Count | None = None
    target_every: Count | None = None
    tau: Annotated[float, Field(gt=0, le=1), Traced()] = 1.0
    horizon: Annotated[Count | None, Traced(null="total_timesteps")] = None


class EvaluationConfig(Section):
    """Greedy episodes; ``every`` null gives 10 to 20 evaluations, as many as divide the run."""

    every: Count | None = None
    episodes: Count = 10
    final_episodes: Count = 100


class CheckpointConfig(Section):
    """Checkpoints, in environment steps from the end of the warm-up; ``every`` null saves only at the end."""

    every: Annotated[Count | None, OUTSIDE] = None
    keep: Annotated[Count, OUTSIDE] = 2


class _StopConfig(Section):
    """When a run ends before ``total_timesteps``: once ``evaluations`` in a row reach the greedy return ``return``.

    With null, a run never ends early. All seeds of a run end together, when the last of them has reached the return.
    """


if TYPE_CHECKING:
    StopConfig = _StopConfig
else:
    StopConfig = _with_keywords(
        _StopConfig,
        {"return": (Annotated[Finite | None, OUTSIDE], None), "evaluations": (Annotated[Count, OUTSIDE], 1)},
    )


class Config(Section):
    """A whole run."""

    seed: Annotated[int, BeforeValidator(_whole), Field(ge=0, lt=2**32), OUTSIDE] = 0
    num_seeds: Annotated[Count, OUTSIDE] = 1
    total_timesteps: Count = 100_000
    env: EnvConfig = _DEFAULTS
    gamma: Annotated[Share, Traced()] = 0.99
    n_step: Count = 1
    distribution: DistributionConfig = _DEFAULTS
    bootstrap: BootstrapConfig = _DEFAULTS
    network: NetworkConfig = _DEFAULTS
    optimizer: OptimizerConfig = _DEFAULTS
    loss: Literal["huber", "squared"] = "huber"
    reward: RewardConfig = _DEFAULTS
    precision: Literal["default", "high", "highest"] = "highest"
    replay: ReplayConfig = _DEFAULTS
    rollout: RolloutConfig = _DEFAULTS
    ensemble: EnsembleConfig = _DEFAULTS
    exploration: ExplorationConfig = _DEFAULTS
    schedule: ScheduleConfig = _DEFAULTS
    evaluation: EvaluationConfig = _DEFAULTS
    checkpoint: CheckpointConfig = _DEFAULTS
    stop: StopConfig = _DEFAULTS
    log: Annotated[LogNames, OUTSIDE] = ("csv",)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """The defaults of replay and its schedule, which are null without replay."""
        if not isinstance(values, dict):
            return values
        replay, schedule = values.get("replay", {}), values.get("schedule", {})
        with_replay = _word(replay, "kind") != "none"

        def defaults(**numbers: int) -> dict[str, int | None]:
            return {name: number if with_replay else None for name, number in numbers.items()}

        replay = _filled(replay, **defaults(size=10_000, batch_size=128))
        intervals = defaults(warmup=10_000, train_every=10, gradient_steps=1, target_every=500)
        return {**values, "replay": replay, "schedule": _filled(schedule, **intervals)}

    def hparams(self) -> "HParams":
        """The traced numbers, as NumPy scalars."""
        record = _record_of(type(self))
        return record(*(_as_numbers(self, field) for field in _fields(type(self)) if field.traced))

    def static(self) -> "Config":
        """What a program is built from: equal for two configs exactly when one program serves both.

        Every field marked ``Traced`` or ``OUTSIDE`` is None, so nothing built from it can depend on them.
        """
        return _without(self, [field for field in _fields(type(self)) if field.traced or field.outside])


class _FieldInfo(NamedTuple):
    """A field of a config, or of one of its sections."""

    path: tuple[str, ...]
    traced: Traced | None
    outside: bool
    real: bool  # whether its values are real numbers

    @property
    def key(self) -> str:
        return ".".join(self.path)


@functools.cache
def _fields(section: type[BaseModel], path: tuple[str, ...] = ()) -> tuple[_FieldInfo, ...]:
    """All fields below ``section``, in the order of their declaration."""
    found: list[_FieldInfo] = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += _fields(field.annotation, (*path, name))
        else:
            traced = next((mark for mark in field.metadata if isinstance(mark, Traced)), None)
            found.append(_FieldInfo((*path, name), traced, OUTSIDE in field.metadata, _is_real(field.annotation)))
    return tuple(found)


def _is_real(annotation: Any) -> bool:
    """Whether ``float`` is one of the types in an annotation such as ``Annotated[float, ...] | None``."""
    return annotation is float or any(map(_is_real, get_args(annotation)))


def config_keys(config: type[Config] = Config) -> Iterator[str]:
    """All dotted keys of a config."""
    return (field.key for field in _fields(config))


def real_keys(config: type[Config] = Config) -> set[str]:
    """The dotted keys whose values are real numbers."""
    return {field.key for field in _fields(config) if field.real}


def outside_keys(config: type[Config] = Config) -> set[str]:
    """The dotted keys that no program depends on."""
    return {field.key for field in _fields(config) if field.outside}


def traced_keys(config: type[Config] = Config) -> dict[str, str]:
    """The dotted keys of all traced numbers, and their fields in ``HParams``."""
    return {field.key: "_".join(field.path) for field in _fields(config) if field.traced}


@functools.cache
def _record_of(config: type[Config]) -> Any:
    """The class of the traced numbers of ``config``."""
    fields = list(traced_keys(config).values())
    record: Any = namedtuple("HParams", fields, module=__name__)  # type: ignore[misc]
    record.__doc__ = """The numbers of a run: traced, so a new value compiles nothing, and ``vmap`` maps over them.

    ``Config.hparams()`` makes one. The field of the config key ``optimizer.learning_rate`` is
    ``optimizer_learning_rate``, and so on for every key of ``traced_keys()``. Each field is a number [], which may
    carry leading axes where a caller maps over it; a limit that is null in the config is infinite.
    ``env_params`` is a dict: the parameters of the environment that the config sets.
    """
    return record


if TYPE_CHECKING:
    HParams = Any
else:
    HParams = _record_of(Config)


def _as_numbers(config: Config, field: _FieldInfo) -> Any:
    value = value_at(config, field.key)
    if isinstance(value, tuple):
        return {name: np.asarray(one) for name, one in value}
    if value is None:
        assert field.traced
        null = field.traced.null
        value = value_at(config, null) if isinstance(null, str) else null
    return np.float32(value)


def _without(section: Any, fields: list[_FieldInfo], depth: int = 0) -> Any:
    """A copy of ``section`` in which ``fields`` are None; a mapping keeps its names."""
    update: dict[str, Any] = {}
    for name in dict.fromkeys(field.path[depth] for field in fields):
        inner = [field for field in fields if field.path[depth] == name]
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            update[name] = _without(value, inner, depth + 1)
        else:
            update[name] = (
                tuple((key, None) for key, _ in value) if inner[0].traced and isinstance(value, tuple) else None
            )
    return section.model_copy(update=update)


def value_at(config: Config, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value
