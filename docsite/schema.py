"""The JSON schema of configs, which editors read: `python -m docsite.schema` writes it, and names it in each config.

It is that of `Config` with a sentence for each key. Editors read YAML 1.2, in which `10_000` is a string: a string of
digits stands for an integer; and a section's key may be written dotted.
"""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from docsite.reference import SENTENCES
from purejaxdqn.config.reading import shipped_configs
from purejaxdqn.core.config import Config

ROOT = Path(__file__).parents[1]
PATH = ROOT / "configs" / "schema.json"
_MAPPINGS = ("env.kwargs", "env.params")
_LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
"""Limits that pydantic leaves under its own names."""
_NAMING = "# yaml-language-server: $schema="


def schema() -> dict[str, Any]:
    """Return the schema."""
    found = Config.model_json_schema()
    sections = found["$defs"]
    for name, part in found["properties"].items():
        section = sections.get(part.get("$ref", "").rpartition("/")[2])
        fields = section["properties"] if section else found["properties"]
        for key in list(fields) if section else [name]:
            fields[key] = _field(fields[key], f"{name}.{key}" if section else name)
    for part in (found, *sections.values()):
        part.pop("required", None)
    dotted = r"^\w+(\.\w+)+$"
    return {"$schema": "http://json-schema.org/draft-07/schema#", **found, "patternProperties": {dotted: {}}}


def _field(field: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the schema of the key at a dotted path."""
    if path in _MAPPINGS:
        field = {"type": "object"}
    field = _readable(field)
    default = {"default": field.pop("default")} if "default" in field else {}
    if _takes_null(path) and {"type": "null"} not in field.get("anyOf", []):
        field = {"anyOf": [field, {"type": "null"}]}
    return {"description": SENTENCES[path], **field, **default}


def _takes_null(path: str) -> bool:
    tree: Any = None
    for name in reversed(path.split(".")):
        tree = {name: tree}
    try:
        Config.model_validate(tree)
    except ValidationError:
        return False
    return True


def first_line(path: Path) -> str:
    """Return the line of a config that names the schema."""
    return f"{_NAMING}{os.path.relpath(PATH, path.parent)}"


def _readable(field: Any) -> Any:
    """Return a field in which digits with underscores, and numbers with exponents, stand for integers."""
    if isinstance(field, list):
        return [_readable(one) for one in field]
    if not isinstance(field, dict):
        return field
    field = {_LIMITS.get(key, key): _readable(value) for key, value in field.items() if key != "title"}
    if field.get("type") == "integer":
        about = {key: field.pop(key) for key in ("default",) if key in field}
        return {**about, "anyOf": [{**field, "type": "number"}, {"type": "string", "pattern": r"^[0-9][0-9_]*$"}]}
    return field


def main() -> None:
    """Write the schema, and its name at the top of each shipped config."""
    PATH.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
    for path in shipped_configs().values():
        text = path.read_text(encoding="utf-8")
        rest = text.partition("\n")[2] if text.startswith(_NAMING) else text
        path.write_text(f"{first_line(path)}\n{rest}", encoding="utf-8")


if __name__ == "__main__":
    main()
