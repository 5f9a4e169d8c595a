"""The part of JSON Schema that docs/report.schema.json uses. An unknown keyword is an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

KNOWN = {"$schema", "$defs", "title", "type", "const", "enum", "$ref", "required", "properties", "items"}
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "$") -> Iterator[str]:
    """What in `value` the schema does not allow."""
    if unknown := set(schema) - KNOWN - {"additionalProperties"}:
        yield f"{where}: the schema says {unknown}"
    if "$ref" in schema:
        yield from problems(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, where)
    allowed = schema.get("type", [])
    names = [allowed] if isinstance(allowed, str) else allowed
    if names and not any(_is(value, name) for name in names):
        yield f"{where}: {value!r} is no {names}"
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        yield f"{where}: {value!r} is none of the values"
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        yield from (f"{where}: lacks {name}" for name in schema.get("required", []) if name not in value)
        for name, part in value.items():  # pyright: ignore[reportUnknownVariableType]
            inner = properties.get(name, more)
            if inner is False:
                yield f"{where}: has {name}"
            elif isinstance(inner, dict):
                yield from problems(part, inner, root, f"{where}.{name}")  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list) and "items" in schema:
        for position, part in enumerate(value):  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
            yield from problems(part, schema["items"], root, f"{where}[{position}]")


def _is(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
