"""The names of an axis of the family: what each name makes, which config keys it reads, and what is wrong with them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from purejaxdqn.core.config import Config, value_at


class Fault(NamedTuple):
    """Something wrong in a config."""

    key: str  # the key to blame
    message: str  # its value and what is allowed
    involved: tuple[str, ...]  # the other keys that the fault depends on


def no_faults(config: Config) -> Iterator[Fault]:
    """Nothing is wrong."""
    yield from ()


class Choice(NamedTuple):
    """What one name of an axis stands for."""

    make: Callable[[Config], Any]  # a config that has this name -> the part
    keys: tuple[str, ...] = ()  # config keys that have no effect under a name that does not list them
    faults: Callable[[Config], Iterator[Fault]] = no_faults  # of a config that has this name


class Axis(NamedTuple):
    """An axis: its config key, and its names."""

    key: str  # ``bootstrap.kind``
    names: Mapping[Any, Choice]

    def choice(self, config: Config) -> Choice:
        """The choice that ``config`` names.

        Raises:
          ValueError: there is no such name.
        """
        name = value_at(config, self.key)
        if name not in self.names:
            raise ValueError(f"{self.key}: {name!r} is not one of {', '.join(map(str, self.names))}")
        return self.names[name]

    def make(self, config: Config) -> Any:
        """The part that ``config`` names."""
        return self.choice(config).make(config)

    def idle(self, config: Config) -> dict[str, str]:
        """Keys that have no effect in ``config``, each with the names under which it has one."""
        used = self.choice(config).keys
        idle = dict.fromkeys(key for choice in self.names.values() for key in choice.keys if key not in used)
        return {key: f"{self.key} {self._readers(key)}" for key in idle}

    def _readers(self, key: str) -> str:
        *first, last = [str(name).lower() for name, choice in self.names.items() if key in choice.keys]
        return f"{', '.join(first)} or {last}" if first else last
