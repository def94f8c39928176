"""Read YAML files and ``key=value`` overrides into a ``Config``, or a list of everything that is wrong."""

import copy
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ValidationError

from purejaxdqn.core.choices import Fault
from purejaxdqn.core.config import Config, config_keys
from purejaxdqn.system.faults import UserError, did_you_mean

Tree = dict[str, Any]
CONFIG_FILE = "config.yaml"
"""The config of a run, in its directory."""


class ConfigError(UserError):
    """Everything that is wrong with a config, one line for each fault."""


class Draft(NamedTuple):
    """A config that has been read but not yet checked against its environment, which may start JAX."""

    config: Config  # keys that are wrong by themselves have their defaults
    lines: tuple[str, ...]  # about words that are no overrides
    faults: tuple[Fault, ...]

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
        for fault in [*find_faults(self.config), *env_checks.find_environment_faults(self.config, look_up)]:
            blamed = {other.key for other in faults}
            if blamed.isdisjoint((fault.key, *fault.involved)):  # else it may be a consequence of another
                faults.append(fault)
        lines = [*self.lines, *(f"{fault.key}: {fault.message}" for fault in faults)]
        if lines:
            raise ConfigError(*lines)
        return resolve(env_checks.with_typed_parameters(self.config, look_up))


def load_config(source: str | Path | Sequence[str | Path], overrides: Sequence[str] = ()) -> Config:
    """Load and check a config.

    Args:
      source: a path, or the name of a shipped config with or without ``.yaml``; or several, of which
        later ones override earlier ones key by key.
      overrides: ``key=value`` strings with dotted keys and YAML values; they override the files.

    Returns:
      The config, with the values it left open filled in.

    Raises:
      ConfigError: with all faults at once.
    """
    return read_config(source, overrides).checked()


def read_config(source: str | Path | Sequence[str | Path], overrides: Sequence[str] = ()) -> Draft:
    """The first half of ``load_config``: it does not start JAX, so that the runtime can still be configured.

    Raises:
      ConfigError: a file is missing or not a mapping.
    """
    return draft_of(read_sources([source] if isinstance(source, str | Path) else source), overrides)


def read_sources(sources: Sequence[str | Path]) -> Tree:
    """The keys of config files, of which later ones override earlier ones.

    Raises:
      ConfigError: a file is missing or not a mapping.
    """
    tree: Tree = {}
    for one in sources:
        tree = _merge(tree, read_yaml(find_config(one)))
    return tree


def draft_of(tree: Tree, overrides: Sequence[str]) -> Draft:
    """The config with these keys and overrides; ``tree`` is not changed."""
    tree, lines = _apply_overrides(copy.deepcopy(tree), overrides)
    try:
        return Draft(Config.model_validate(tree), tuple(lines), ())
    except ValidationError as error:
        faults = [_describe(tree, dict(detail)) for detail in error.errors()]
    for fault in faults:
        tree = _without(tree, fault.key.split("."))
    once = {fault.key: fault for fault in reversed(faults)}  # a union reports an error for each of its members
    return Draft(Config.model_validate(tree), tuple(lines), tuple(reversed(once.values())))


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
        is_file, is_dir = path.is_file(), path.is_dir()
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


def to_yaml(config: Config) -> str:
    """The config as YAML that ``load_config`` reads back to the same config."""
    return yaml.dump(config.model_dump(), Dumper=_Dumper, sort_keys=False, default_flow_style=None)


class _Loader(yaml.SafeLoader):
    """YAML as people write it: ``1e-3`` is a number, ``1:30`` and ``010`` are not.

    Keys are unique words, and aliases are not supported.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012  (YAML's own read dates, base 60 and octal numbers)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not supported", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            problem = None if isinstance(key, str) else "is not a word"
            if problem or key in mapping:
                problem = f"the key {key!r} {problem or 'stands twice'}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", list("tf")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.inf|\.nan",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), _first)


class _Dumper(yaml.SafeDumper):
    """Quotes words that ``_Loader`` would read as something else."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def _load_yaml(text: str, place: str) -> Any:
    """Parse ``text``; ``place`` names it in errors.

    Raises:
      ConfigError: it is not YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark and "\n" in text else ""
        raise ConfigError(f"{place}{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{place}: not YAML: {str(error).splitlines()[0]}") from error


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file.

    Raises:
      ConfigError: it cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    tree = _load_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values")
    return tree


_FOLLOWERS = {"kind": "atoms", "risk": "risk_level", "torso": "hidden"}
"""Keys whose default depends on another key of their section; the default is taken again when that one changes."""


def _merge(below: Tree, above: Mapping[str, Any]) -> Tree:
    """``below`` with the keys of ``above``, key by key; a key may be dotted."""
    merged = dict(below)
    for leader, follower in _FOLLOWERS.items():
        if leader in above and leader in below and above[leader] != below[leader]:
            merged.pop(follower, None)
    for key, content in above.items():
        head, _, rest = key.partition(".")
        value = {rest: content} if rest else content
        if isinstance(value, dict) and isinstance(merged.get(head, {}), dict):
            merged[head] = _merge(merged.get(head, {}), value)
        else:
            merged[head] = value
    return merged


def _apply_overrides(tree: Tree, overrides: Sequence[str]) -> tuple[Tree, list[str]]:
    lines: list[str] = []
    above: Tree = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
            lines.append(f"{override!r} is not an override; write key=value, as in num_seeds=10")
            continue
        try:
            above = _merge(above, {key: _load_yaml(text, key)})
        except ConfigError as error:
            lines.extend(error.lines)
    return _merge(tree, above), lines


_WANTED = {
    "bool_type": "true or false",
    "float_type": "a number",
    "int_type": "an integer",
    "tuple_type": "a list",
    "too_short": "longer",
    "finite_number": "finite",
}
"""What a value must be, by pydantic's name for the error; for other errors its message is used."""


def _describe(tree: Tree, detail: dict[str, Any]) -> Fault:
    """A fault from one of pydantic's errors."""
    path: list[str] = []
    section: Any = Config
    value: Any = tree
    for name in map(str, detail["loc"]):  # what comes after the config's own keys is a place inside a value
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            break
        path.append(name)
        value = value[name] if isinstance(value, dict) else value
        field = section.model_fields.get(name)
        section = field.annotation if field else None
    key = ".".join(path)
    if detail["type"] == "extra_forbidden":
        return Fault(key, f"unknown key{_similar_key(key)}", ())
    if detail["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        hint = did_you_mean(value, allowed) if isinstance(value, str) else ""
        return Fault(key, f"{value!r} is not one of {', '.join(allowed)}{hint}", ())
    if detail["type"] == "model_type":
        return Fault(key, f"{value!r} is not a section of keys: {', '.join(section.model_fields)}", ())
    wanted = _WANTED.get(detail["type"]) or re.sub(r"^(Input should be|Value error,) ", "", detail["msg"])
    return Fault(key, f"{value!r} must be {wanted}", ())


def _similar_key(key: str) -> str:
    keys = [*config_keys(), *Config.model_fields]
    same_name = [known for known in keys if known.split(".")[-1] == key.rsplit(".", maxsplit=1)[-1]]
    return f"; did you mean {same_name[0]!r}?" if len(same_name) == 1 else did_you_mean(key, keys)


def _without(tree: Tree, path: Sequence[str]) -> Tree:
    head, *rest = path
    if not isinstance(tree, dict) or head not in tree:
        return tree
    if rest:
        return {**tree, head: _without(tree[head], rest)}
    return {key: value for key, value in tree.items() if key != head}
