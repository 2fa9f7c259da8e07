"""JSON schemas narrowed to what a model should write: closed objects and numbers of bounded length.

JSON Schema lets an object hold any further properties and a number any count of digits. A weak model would use that
freedom until its tokens run out. All that is valid after narrowing is valid before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MAPS = ("properties", "$defs", "definitions", "patternProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties", "contains", "propertyNames")
_LOWER = ("minimum", "exclusiveMinimum")
_UPPER = ("maximum", "exclusiveMaximum")
# Integers that a float64 holds exactly, as JSON readers expect.
_LARGEST_INTEGER = (1 << 53) - 1
_LARGEST_NUMBER = 10**15
_STEP = 1e-6


def bounded(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which objects with `properties` are closed and numbers without bounds get some.

    What says itself what it allows stays as it is; so do all objects of a schema that composes them from parts
    (`allOf`, or `anyOf` beside `properties`), because closing a part would shut out the others.
    """
    return _narrowed(schema, closes=not _composes(schema))


def _subschemas(schema: Mapping[str, Any]) -> list[Any]:
    inner: list[Any] = [schema[key] for key in _SCHEMAS if key in schema]
    for key in _MAPS:
        if isinstance(schema.get(key), dict):
            inner.extend(schema[key].values())
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            inner.extend(schema[key])
    return [each for each in inner if isinstance(each, dict)]


def _composes(schema: Mapping[str, Any]) -> bool:
    parts = schema.get("allOf")
    if isinstance(parts, list) and len(parts) > 1:
        return True
    if "properties" in schema and any(key in schema for key in ("anyOf", "oneOf", "allOf", "$ref")):
        return True
    return any(_composes(each) for each in _subschemas(schema))


def _narrowed(schema: Mapping[str, Any], closes: bool) -> dict[str, Any]:
    narrow: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _SCHEMAS and isinstance(value, dict):
            narrow[key] = _narrowed(value, closes)
        elif key in _MAPS and isinstance(value, dict):
            narrow[key] = {name: _kept_or_narrowed(each, closes) for name, each in value.items()}
        elif key in _LISTS and isinstance(value, list):
            narrow[key] = [_kept_or_narrowed(each, closes) for each in value]
        else:
            narrow[key] = value
    if closes and "properties" in schema and not {"additionalProperties", "patternProperties"} & schema.keys():
        narrow["additionalProperties"] = False
    if not {"enum", "const"} & schema.keys():
        narrow |= _number_bounds(schema)
    return narrow


def _kept_or_narrowed(schema: Any, closes: bool) -> Any:
    return _narrowed(schema, closes) if isinstance(schema, dict) else schema


def _number_bounds(schema: Mapping[str, Any]) -> dict[str, Any]:
    kinds = schema.get("type")
    kinds = {kinds} if isinstance(kinds, str) else set(kinds) if isinstance(kinds, list) else set()
    if not kinds & {"integer", "number"}:
        return {}
    largest = _LARGEST_NUMBER if "number" in kinds else _LARGEST_INTEGER
    given = [schema[key] for key in (*_LOWER, *_UPPER) if key in schema]
    bounds: dict[str, Any] = {}
    if not any(key in schema for key in _LOWER) and all(value > -largest for value in given):
        bounds["minimum"] = -largest
    if not any(key in schema for key in _UPPER) and all(value < largest for value in given):
        bounds["maximum"] = largest
    if "number" in kinds and "multipleOf" not in schema and all(value == int(value) for value in given):
        bounds["multipleOf"] = _STEP
    return bounds
