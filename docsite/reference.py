"""Reference pages as Markdown, generated from the code: commands, config keys, environments."""

import argparse
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from pydantic import BaseModel

from purejaxdqn.__main__ import COMMANDS
from purejaxdqn.core.config import Config, config_keys, traced_keys
from purejaxdqn.system.options import shows_default

SENTENCES: dict[str, str] = yaml.safe_load((Path(__file__).parent / "keys.yaml").read_text(encoding="utf-8"))
"""What each config key does, by its dotted name."""


def commands() -> str:
    """Return a section for each command: usage and options, from its parser."""
    return "\n".join(_command(name) for name in COMMANDS)


def _command(name: str) -> str:
    parser: argparse.ArgumentParser = import_module(f"purejaxdqn.{name}").parser()
    with mock.patch.dict("os.environ", {"COLUMNS": "110"}):
        usage = parser.format_usage()
    rows = [_option(action) for action in parser._actions if action.dest != "help" and action.help != argparse.SUPPRESS]
    table = "\n".join(["| argument | meaning |", "|---|---|", *rows])
    return f"## {name}\n\n{parser.description}\n\n```\n{usage}```\n\n{table}\n"


def _option(action: argparse.Action) -> str:
    word = "" if action.nargs == 0 else _metavar(action)
    names = ", ".join(f"`{name} {word}`".replace(" `", "`") for name in action.option_strings) or f"`{word}`"
    says = (action.help or "").replace("%%", "%")
    if shows_default(action):
        says += f" (default {action.default})"
    return f"| {_cell(names)} | {_cell(says.strip()).replace('<', '&lt;')} |"


def _metavar(action: argparse.Action) -> str:
    if action.choices:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def config_keys_by_section() -> Iterator[tuple[str, str, list[str]]]:
    """Yield the name of each section ("" for the keys of no section), its docstring, and its dotted keys."""
    keys = list(config_keys())
    yield "", "Keys that belong to no section.", [key for key in keys if "." not in key]
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation.__doc__ or "", [key for key in keys if key.startswith(f"{name}.")]


def config_keys_table() -> str:
    """Return a section for each part of the config: a row per key with type, default and meaning."""
    default, traced = Config.model_validate({}).model_dump(), traced_keys()
    schema = Config.model_json_schema()
    parts = []
    for section, doc, keys in config_keys_by_section():
        rows = [_key_row(key, schema, default, traced) for key in keys]
        table = "\n".join(["| key | type | default | traced | meaning |", "|---|---|---|---|---|", *rows])
        paragraph = " ".join(re.sub(r"``(.+?)``", r"`\1`", doc).split())
        parts.append(f"## {section or 'The run'}\n\n{paragraph}\n\n{table}\n")
    return "\n".join(parts)


def _key_row(key: str, schema: dict[str, Any], default: dict[str, Any], traced: dict[str, str]) -> str:
    value: Any = default
    kind = schema
    for name in key.split("."):
        value = value[name]
        kind = kind["properties"][name]
        kind = schema["$defs"][kind["$ref"].split("/")[-1]] if "$ref" in kind else kind
    cells = [f"`{key}`", _type(kind), f"`{_yaml(value)}`", "yes" if key in traced else "", SENTENCES[key]]
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _type(kind: dict[str, Any]) -> str:
    """Return the type of a key in words, from its JSON schema."""
    if "anyOf" in kind:
        return ", ".join(_type(one) for one in kind["anyOf"])
    if "enum" in kind:
        return ", ".join(f"`{one}`" for one in kind["enum"])
    if kind.get("type") == "array":
        items = kind.get("items", {})
        return "mapping" if items.get("type") == "array" else f"list of {_type(items)}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {kind[name]:g}" for name, sign in signs.items() if abs(kind.get(name, 2**31)) < 2**31]
    return " ".join([kind["type"], ", ".join(limits)]).strip()


def _yaml(value: Any) -> str:
    return "null" if value is None else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def environments() -> str:
    """Return a table of the environments, as ``purejaxdqn envs`` lists them."""
    from purejaxdqn.envs import describe_environments

    rows = [
        "| environment | observation | actions | illegal ones | time limit | solved at |",
        "|---|---|---|---|---|---|",
    ]
    for one in describe_environments():
        shape = " x ".join(map(str, one["observation_shape"])) or "single value"
        observation, illegal = f"{shape}, {one['observation_dtype']}", "yes" if one["illegal_actions"] else None
        cells = [one["id"], observation, one["actions"], illegal, one["time_limit"], one["solved_at"]]
        rows.append("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
