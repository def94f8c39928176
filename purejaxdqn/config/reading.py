"""Read YAML files and ``key=value`` overrides into a ``Config``, or a list of everything that is wrong."""

import copy
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from purejaxdqn.config.fitting import describe_moves, fit
from purejaxdqn.config.yaml_text import MAX_DEPTH, ConfigError, Tree, load_yaml, read_yaml, to_text
from purejaxdqn.core.choices import Fault
from purejaxdqn.core.config import Config, config_keys
from purejaxdqn.system.faults import UserError, did_you_mean
from purejaxdqn.system.status import aside

CONFIG_FILE = "config.yaml"
"""The config of a run, in its directory."""


class Draft(NamedTuple):
    """A config that has been read but not yet checked against its environment, which may start JAX."""

    config: Config  # keys that are wrong by themselves have their defaults
    lines: tuple[str, ...]  # about words that are no overrides
    faults: tuple[Fault, ...]
    moves: str = ""  # what ``fitted`` has moved, as one line
    written_for: float | None = None  # see ``fitting.fit``
    given: tuple[str, ...] = ()  # keys that the caller has set, see ``Keys``, overrides and values included

    def fitted(self) -> "Draft":
        """The draft with intervals that fit each other (``fitting.fit``)."""
        config = fit(self.config, written_for=self.written_for)
        return self._replace(config=config, moves=describe_moves(self.config, config))

    def unchecked(self) -> Config:
        """The config as it was read, which starts no JAX and imports no environment.

        Raises:
          ConfigError: with all faults of single keys.
        """
        lines = [*self.lines, *(f"{fault.key}: {fault.message}" for fault in self.faults)]
        if lines:
            raise ConfigError(*lines)
        return self.config

    def checked(self, look_up: Any = None) -> Config:
        """The config, with the values it left open filled in.

        Args:
          look_up: finds environments, see ``env_checks.look_up``; for many drafts one that remembers them.

        Raises:
          ConfigError: with all faults at once.
        """
        # Imported late: they import every part of the family, and start JAX.
        from purejaxdqn.config import env_checks
        from purejaxdqn.config.checks import find_faults, resolve

        faults = list(self.faults)
        blamed = {fault.key for fault in faults}
        for fault in [*find_faults(self.config), *env_checks.find_environment_faults(self.config, look_up)]:
            if blamed.isdisjoint((fault.key, *fault.involved)):  # else it may be a consequence of another
                faults.append(fault)
                blamed.add(fault.key)
        self._replace(faults=tuple(faults)).unchecked()
        return resolve(env_checks.with_typed_parameters(self.config, look_up))

    def idle(self) -> str:
        """Which of the keys that the caller has set have no effect, as one line; empty if there are none.

        A preset sets keys for many environments and algorithms, so those of shipped configs are not named.
        """
        from purejaxdqn.config.checks import describe_idle  # late, see ``checked``

        return describe_idle(self.config, self.given)


class Keys(NamedTuple):
    """The keys of config files, laid over each other."""

    tree: Tree
    written_for: Any = None  # what ``total_timesteps`` was as ``evaluation.every`` was set; None if it was not
    given: tuple[str, ...] = ()  # dotted keys of the files after the first that are not shipped


def load_config(source: str | Path | Sequence[str | Path], *overrides: str | Sequence[str], **values: Any) -> Config:
    """Load and check a config. Intervals that do not fit each other are moved to the nearest that fit, with a warning.

    Another warning names the keys of ``overrides``, ``values`` and your own later files that have no effect.

    Args:
      source: a path, or the name of a shipped config with or without ``.yaml``; or several, of which
        later ones override earlier ones key by key.
      overrides: ``key=value`` strings with dotted keys and YAML values, or lists of them; they override the files.
      values: Python values of keys, which override both: ``num_seeds=3``, ``**{"optimizer.learning_rate": 1e-3}``.

    Returns:
      The config, with the values it left open filled in.

    Raises:
      ConfigError: with all faults at once.
    """
    words = [word for one in overrides for word in ([one] if isinstance(one, str) else one)]
    draft = read_config(source, words, values)
    config = draft.checked()
    for line in filter(None, (draft.moves, draft.idle())):
        with aside():
            warnings.warn(line, stacklevel=2)
    return config


def read_config(
    source: str | Path | Sequence[str | Path], overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None
) -> Draft:
    """The first half of ``load_config``: it does not start JAX, so that the runtime can still be configured.

    Raises:
      ConfigError: a file is missing or not a mapping.
    """
    return read_exactly(source, overrides, values).fitted()


def read_exactly(
    source: str | Path | Sequence[str | Path], overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None
) -> Draft:
    """``read_config`` without moving intervals to where they fit.

    Raises:
      ConfigError: a file is missing or not a mapping.
    """
    return draft_of(read_sources([source] if isinstance(source, str | Path) else source), overrides, values)


def read_sources(sources: Sequence[str | Path]) -> Keys:
    """The keys of config files, of which later ones override earlier ones.

    Raises:
      ConfigError: a file is missing or not a mapping.
    """
    keys = Keys({})
    for place, one in enumerate(sources):
        path = find_config(one)
        above = read_yaml(path)
        tree = _merge(keys.tree, _merge({}, above))
        written_for = _length_in(tree) if _sets_interval(above) else keys.written_for
        given = () if place == 0 or _is_shipped(path) else tuple(_keys_in(above))
        keys = Keys(tree, written_for, (*keys.given, *given))
    return keys


def draft_of(keys: Keys, overrides: Sequence[str], values: Mapping[str, Any] | None = None) -> Draft:
    """The config with these keys, overrides and then values by dotted key; ``keys`` are not changed.

    Overrides and values are of one place, so that an interval among them is meant for the length that they give.
    """
    above, lines = _read_overrides(overrides)
    layers = [above, *({key: _as_plain(value)} for key, value in (values or {}).items())]
    written_for = None if any(map(_sets_interval, layers)) else keys.written_for
    given = tuple(dict.fromkeys((*keys.given, *(key for layer in layers for key in _keys_in(layer)))))
    nothing: Tree = {}
    tree = reduce(_merge, (above, reduce(_merge, layers[1:], nothing)), copy.deepcopy(keys.tree))
    try:
        return Draft(Config.model_validate(tree), tuple(lines), (), written_for=written_for, given=given)
    except ValidationError as error:
        # One for each key: a union reports an error for each of its members, a list for each of its elements.
        once: dict[tuple[str, ...], Any] = {}
        for detail in error.errors(include_url=False):
            once.setdefault(_key_of(detail["loc"]), detail)
    faults = tuple(_describe(tree, path, detail) for path, detail in once.items())
    for path in once:
        _remove(tree, path)
    return Draft(Config.model_validate(tree), tuple(lines), faults, written_for=written_for, given=given)


def _length_in(tree: Tree) -> float | None:
    """``total_timesteps`` in a tree that may have faults; None if it is no length."""
    length = tree.get("total_timesteps", Config.model_fields["total_timesteps"].default)
    return length if isinstance(length, int | float) and 0 < length < 2**31 else None


def _sets_interval(layer: Mapping[str, Any]) -> bool:
    """Whether a layer of keys has ``evaluation.every``."""
    section = _merge({}, layer).get("evaluation")
    return isinstance(section, dict) and "every" in section


def _keys_in(layer: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """The dotted keys that a layer sets; null leaves a key to its default."""
    for key, value in layer.items():
        if isinstance(value, Mapping):
            yield from _keys_in(value, f"{section}{key}.")
        elif value is not None:
            yield f"{section}{key}"


def _is_shipped(path: Path) -> bool:
    return any(path.samefile(one) for one in shipped_configs().values() if one.name == path.name)


def shipped_configs(kind: str = "--config") -> dict[str, Path]:
    """The configs that come with the package, or the search spaces (``--space``): name without ``.yaml`` -> path."""
    package = Path(__file__).parents[1]
    inside = package / "configs"  # in a wheel; in a checkout they are beside the package
    root = inside if inside.is_dir() else package.parent / "configs"
    found = {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}
    return {name: path for name, path in found.items() if name.startswith("search/") == (kind == "--space")}


def find_config(source: str | Path, *, option: str = "--config") -> Path:
    """The file that ``source`` names: a path, or the name of a shipped config (of a space, for ``--space``)."""
    path = Path(source)
    try:
        is_file, is_dir = path.is_file() or path.is_fifo(), path.is_dir()
    except OSError as error:
        raise ConfigError(f"{option}: {source} cannot be read: {error.strerror}") from error
    if is_file:
        return path
    shipped = shipped_configs(option)
    name = str(source).removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    if is_dir:
        raise ConfigError(f"{option}: {source} is a directory; a run directory's config is {path / 'config.yaml'}")
    hint = did_you_mean(name, shipped) or f"; shipped are {', '.join(shipped)}"
    raise ConfigError(f"{option}: {source} is neither a file nor a shipped one{hint}")


def dumped_today(dumped: Any) -> Any:
    """The dump of a config, as plain values, with the keys of this version; what cannot be read is returned as it is.

    A key that an earlier version did not have gets its default, which is what that version did.
    """
    try:
        return Config.model_validate(dumped).model_dump(mode="json")
    except Exception:  # whatever a damaged file may raise
        return dumped


def to_yaml(config: Config) -> str:
    """The config as YAML that ``load_config`` reads back to the same config."""
    return to_text(config.model_dump())


_FOLLOWERS = {
    "kind": ("atoms",),
    "risk": ("risk_level",),
    "torso": ("hidden",),
    "channels": ("kernels", "strides"),
}
"""Keys whose default depends on another key of their section; the default is taken again when that one changes.

The default of ``kernels`` and ``strides`` depends only on how many ``channels`` there are.
"""


def _merge(below: Tree, above: Mapping[str, Any]) -> Tree:
    """Put the keys of ``above`` into ``below``, key by key, and return it; a key may be dotted.

    What has dotted keys of one section is put into an empty tree first, so that their order does not matter.
    """
    for leader, followers in _FOLLOWERS.items():
        if leader in above and leader in below and not _is_alike(above[leader], below[leader]):
            for follower in followers:
                below.pop(follower, None)
    for key, content in above.items():
        head, _, rest = key.partition(".")
        value = {rest: content} if rest else content
        if isinstance(value, dict) and isinstance(below.get(head, {}), dict):
            below[head] = _merge(below.get(head, {}), value)
        else:
            below[head] = value
    return below


def _is_alike(one: Any, other: Any) -> bool:
    """Whether two values of a key leave the defaults that depend on it as they are: equal, or lists of one length."""
    return len(one) == len(other) if isinstance(one, list) and isinstance(other, list) else one == other


def _as_plain(value: Any) -> Any:
    """A Python value as YAML would give it: lists for tuples and arrays, plain numbers for NumPy's."""
    if isinstance(value, Mapping):
        return {key: _as_plain(one) for key, one in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_as_plain(one) for one in value] if isinstance(value, list | tuple) else value


def keys_set_by(overrides: Sequence[str]) -> set[str]:
    """The dotted keys that ``key=value`` words set, also those in sections such as ``optimizer={name: adam}``."""
    above, _ = _read_overrides(overrides)
    return {word.partition("=")[0] for word in overrides} | set(_keys_in(above))


def _read_overrides(overrides: Sequence[str]) -> tuple[Tree, list[str]]:
    """The keys of ``key=value`` words, and a line for each word that is none."""
    lines: list[str] = []
    above: Tree = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not re.fullmatch(r"\w+(\.\w+)*", key) or key.count(".") >= MAX_DEPTH:
            lines.append(f"{override!r} is not an override; write key=value, as in num_seeds=10")
            continue
        try:
            above = _merge(above, {key: load_yaml(text, key)})
        except UserError as error:
            lines.extend(error.lines)
    return above, lines


_WANTED = {
    "bool_type": "true or false",
    "float_type": "a number",
    "int_type": "an integer",
    "tuple_type": "a list",
    "too_short": "longer",
    "finite_number": "finite",
}
"""What a value must be, by pydantic's name for the error; for other errors its message is used."""


def _key_of(place: Iterable[Any]) -> tuple[str, ...]:
    """The parts of the config key at or around a place: what comes after them is a place inside a value."""
    path: list[str] = []
    section: Any = Config
    for name in map(str, place):
        if not _is_section(section):
            break
        path.append(name)
        section = _inside(section, name)
    return tuple(path)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _inside(section: Any, name: str) -> Any:
    """The type of a key of a section; None if there is no such key."""
    field = section.model_fields.get(name)
    return field.annotation if field else None


def _describe(tree: Tree, path: Sequence[str], detail: Mapping[str, Any]) -> Fault:
    """A fault from one of pydantic's errors, about the key at ``path``."""
    key, value, section = ".".join(path), reduce(getitem, path, tree), reduce(_inside, path, Config)
    shown = "null" if value is None else repr(value)  # as a config file has it
    if detail["type"] == "extra_forbidden":
        return Fault(key, f"unknown key{_similar_key(key)}", ())
    if detail["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        word = detail["input"]  # which may be one of a list
        hint = did_you_mean(word, allowed) if isinstance(word, str) else ""
        return Fault(key, f"{shown} is not one of {', '.join(allowed)}{hint}", ())
    if detail["type"] == "model_type":
        return Fault(key, f"{shown} is not a section of keys: {', '.join(section.model_fields)}", ())
    wanted = _WANTED.get(detail["type"]) or re.sub(r"^(Input should be|Value error,) ", "", detail["msg"])
    return Fault(key, f"{shown} must be {wanted}", ())


def _similar_key(key: str) -> str:
    keys = [*config_keys(), *Config.model_fields]
    same_name = [known for known in keys if known.split(".")[-1] == key.rsplit(".", maxsplit=1)[-1]]
    return f"; did you mean {same_name[0]!r}?" if len(same_name) == 1 else did_you_mean(key, keys)


def _remove(tree: Tree, path: Sequence[str]) -> None:
    *sections, last = path
    del reduce(getitem, sections, tree)[last]
