"""What the shipped configs are about, by the comments at their top."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from purejaxdqn.config.reading import shipped_configs
from purejaxdqn.core.config import Config

_ENVIRONMENTS = "configs of environments: --config NAME"
_PRESETS = "presets of algorithms: --config ENVIRONMENT --config NAME"
_SPACES = "search spaces: --space NAME"


def list_configs() -> Iterator[str]:
    """The shipped configs in groups, a line each: its name, and the first sentence of its comment."""
    configs = {**shipped_configs(), **shipped_configs("--space")}
    width, columns = max(map(len, configs)), max(60, shutil.get_terminal_size((100, 24)).columns)
    groups: dict[str, list[str]] = {}
    for name, path in configs.items():
        line = f"  {name:<{width}}  {first_sentence(path)}"
        groups.setdefault(_group_of(name, path), []).append(
            line if len(line) <= columns else f"{line[: columns - 3].rstrip()}..."
        )
    for group, lines in sorted(groups.items()):
        yield f"{group}:"
        yield from lines
        yield ""


def first_sentence(path: Path) -> str:
    """The first sentence of the comment at the top of a YAML file."""
    lines = [
        line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#"
    ]
    text = " ".join(line for line in lines if not line.startswith(("yaml-language-server:", "search:")))
    ended = re.match(r"(?:[^(]|\([^)]*\))*?[.:](?= |$)", text)  # a full stop inside brackets ends none
    return (ended[0] if ended else text).rstrip(".:")


def note_of_default_environment(config: Config) -> str | None:
    """A line that says on which environment a run is if only presets are given; None if a config names one."""
    if "env" in config.model_fields_set and "id" in config.env.model_fields_set:
        return None
    return f"no --config names an environment, so this runs on {config.env.id} (env.id)"


def _group_of(name: str, path: Path) -> str:
    if name.startswith("search/"):
        return _SPACES
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    return _ENVIRONMENTS if "id" in tree.get("env", {}) else _PRESETS
