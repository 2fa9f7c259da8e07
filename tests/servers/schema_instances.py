"""A small instance of a JSON schema: what a server that enforces the schema might answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def instance_of(schema: Mapping[str, Any]) -> Any:
    """A valid instance: the first of several choices, the fewest items, the lowest numbers. Patterns are not obeyed.

    A schema that needs an endless instance ends in RecursionError.
    """
    return _instance(schema, schema)


def _instance(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#").strip("/").split("/"):
            target = target[part] if part else target
        return _instance(target, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for several in ("anyOf", "oneOf"):
        if several in schema:
            options = schema[several]
            # A nullable field that may refer to its own schema ends here.
            plain = next((option for option in options if option.get("type") == "null"), options[0])
            return _instance(plain, root)
    if "allOf" in schema:
        return _instance(schema["allOf"][0], root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _of_kind(kind[0] if isinstance(kind, list) else kind, schema, root)


def _of_kind(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    if kind == "object":
        names = schema.get("required", schema.get("properties", {}))
        return {name: _instance(schema["properties"][name], root) for name in names}
    if kind == "array":
        fixed = [_instance(item, root) for item in schema.get("prefixItems", ())]
        missing = schema.get("minItems", 0) - len(fixed)
        return fixed + [_instance(schema.get("items", {}), root) for _ in range(missing)]
    if kind == "string":
        return "text".ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
    if kind in ("integer", "number"):
        return _number(schema, step=1 if kind == "integer" else 1e-9)
    return False if kind == "boolean" else None


def _number(schema: Mapping[str, Any], *, step: float) -> float:
    """0, or the bound next to it."""
    lowest: float = max(schema.get("minimum", 0), schema.get("exclusiveMinimum", -step) + step)
    highest: float = min(schema.get("maximum", lowest), schema.get("exclusiveMaximum", lowest + step) - step)
    return min(lowest, highest)
