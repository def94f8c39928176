"""The YAML of configs and spaces: read strictly, with errors of one line; what is written is read back unchanged."""

import copy
import functools
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from purejaxdqn.system.faults import UserError

Tree = dict[str, Any]
MAX_DEPTH = 16
"""Most levels of a value and most parts of a dotted key; no config needs more than four."""
_SHORT = 100
"""Characters; shorter texts are parsed once."""


class ConfigError(UserError):
    """Everything that is wrong with a config, one line for each fault."""


class _Loader(yaml.SafeLoader):
    """YAML as people write it: ``1e-3`` is a number, ``1:30`` and ``010`` are not.

    Keys are unique words; aliases are not supported, nor tags of other types.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012  (YAML's own read dates, base 60 and octal numbers)
    yaml_constructors = {  # noqa: RUF012
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        problem = "aliases are not supported" if self.check_event(yaml.AliasEvent) else ""
        if self.depth > MAX_DEPTH:
            problem = f"more than {MAX_DEPTH} levels"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.peek_event().start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            problem = "is not a word" if not isinstance(key, str) else "stands twice" if key in mapping else ""
            if not problem and key.count(".") >= MAX_DEPTH:
                problem = f"has more than {MAX_DEPTH} parts"
            if problem:
                problem = f"the key {key!r} {problem}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """An integer in decimal digits; of a hexadecimal one Python may not be able to print the decimal digits."""
        return int(self.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)

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


@functools.lru_cache(maxsize=1024)
def _parse_again(text: str) -> Any:
    """Parse a text that comes again, as an override does for each point of a sweep."""
    return yaml.load(text, _Loader)


def load_yaml(text: str, place: str) -> Any:
    """Parse ``text``; ``place`` names it in errors.

    Raises:
      ConfigError: it is not YAML.
    """
    if re.fullmatch(r"-?[0-9]+\.[0-9]+(e-?[0-9]+)?", text):  # a number of one of ten thousand points of a sweep
        return float(text)
    try:
        return copy.deepcopy(_parse_again(text)) if len(text) < _SHORT else yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark and "\n" in text else ""
        raise ConfigError(f"{place}{line}: not YAML: {error.problem}") from error
    except Exception as error:  # what PyYAML meets inside a value of a wrong form: a KeyError for ``!!bool maybe``
        # ``"\\UFFFFFFFF"`` is an OverflowError or, from Python 3.13 on, a ValueError that names ``chr``.
        said = isinstance(error, ValueError | yaml.YAMLError) and not str(error).startswith("chr()")
        reason = str(error).splitlines()[0] if said else "a value does not have the form of its type"
        raise ConfigError(f"{place}: not YAML: {reason}") from error


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file.

    Raises:
      ConfigError: it cannot be read, or holds something else.
    """
    try:
        text = _read_once(path) if path.is_fifo() else path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    tree = load_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values")
    return tree


@functools.cache
def _read_once(pipe: Path) -> str:
    """The text of a pipe, as ``--config <(...)`` names one: it can be read once, and sweeps read configs often."""
    return pipe.read_text(encoding="utf-8")


def to_text(tree: Tree) -> str:
    """``tree`` as YAML that ``load_yaml`` reads back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=None)
