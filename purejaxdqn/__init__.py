"""purejaxdqn: deep Q-learning in which a whole training run is one XLA program."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from purejaxdqn.api import Run, load_run, train
    from purejaxdqn.config.building import make_train, run_many
    from purejaxdqn.config.reading import load_config
    from purejaxdqn.config.yaml_text import ConfigError
    from purejaxdqn.core.config import Config, HParams
    from purejaxdqn.core.types import Result
    from purejaxdqn.environments.registry import from_gymnax
    from purejaxdqn.policies.policies import evaluate_policy, load_policy
    from purejaxdqn.system.faults import UserError
    from purejaxdqn.system.runtime import configure_cpu

# Imported on first use, so that ``configure_cpu`` and bad command lines come before anything slow.
_HOMES = {
    "Config": "core.config",
    "ConfigError": "config.yaml_text",
    "HParams": "core.config",
    "Result": "core.types",
    "Run": "api",
    "UserError": "system.faults",
    "configure_cpu": "system.runtime",
    "evaluate_policy": "policies.policies",
    "from_gymnax": "environments.registry",
    "load_config": "config.reading",
    "load_policy": "policies.policies",
    "load_run": "api",
    "make_train": "config.building",
    "run_many": "config.building",
    "train": "api",
}

__all__ = [
    "Config",
    "ConfigError",
    "HParams",
    "Result",
    "Run",
    "UserError",
    "configure_cpu",
    "evaluate_policy",
    "from_gymnax",
    "load_config",
    "load_policy",
    "load_run",
    "make_train",
    "run_many",
    "train",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
