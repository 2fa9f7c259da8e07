"""Schemas as they are given: a subset of JSON Schema, a short form of it, or a pydantic model's.

What there is: an object with properties; strings (`format` date, time, date-time, email, uri), numbers, integers,
booleans, enums; arrays of these; arrays of flat objects, which are tables of rows; objects inside the outermost, one
level deep. `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `minLength`, `maxLength` and `maxItems` are
kept to. References inside the schema are followed, null as an alternative is taken for granted: what is not found is
null. Anything else that would constrain a value is refused, since it would not be kept to.

The short form names what is wanted and says what it is:

    {"tenant": "who rents", "rent": {"type": "number", "description": "monthly rent in EUR"}, "rooms": ["their names"],
     "payments": [{"due": {"format": "date"}, "amount": {"type": "number"}}], "landlord": {"name": "", "address": ""}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic import BaseModel

from lcdoc.agents.extract_fields import Bounds, Field, Kind, Path, Scalar, Table
from lcdoc.workflows.extract_schema import BOUNDS, TYPES, Schema, SchemaError

MAX_FIELDS = 200
"""Fields and columns together."""
MAX_NAME_CHARACTERS = 100
MAX_TEXT_CHARACTERS = 1_000
"""Of a title or a description."""
MAX_ENUM = 100
MAX_SCHEMA_CHARACTERS = 200_000
_MAX_REFERENCES = 8

_FORMATS: Final[Mapping[str, Kind]] = {
    "date": "date",
    "time": "time",
    "date-time": "date-time",
    "email": "email",
    "uri": "uri",
}
_NUMBERS = ("number", "integer")
_DESCRIBING = """
$schema $id $comment $defs definitions title description default examples example required deprecated readOnly writeOnly
additionalProperties uniqueItems nullable propertyOrdering
"""
_SAID = frozenset(_DESCRIBING.split())
"""Keywords that describe, and do not constrain what is filled: every name is there, and nothing besides."""
_TELLING = "type title description enum const items properties format $ref anyOf oneOf allOf"
_MARKS = frozenset(_TELLING.split())
"""Keywords by which the schema of one field is told from a nested object of the short form."""


def schema_of(given: Any) -> Schema:
    """The schema that `given` is: a mapping, its JSON text, or a pydantic model class. Raises SchemaError."""
    try:
        schema = _Reading(_root(given)).schema()
        json.dumps(schema.to_json(), ensure_ascii=False).encode()
    except RecursionError:
        raise SchemaError("the schema is nested too deeply", "objects may hold objects one level deep") from None
    except UnicodeEncodeError:
        raise SchemaError("the schema has half of a surrogate pair", "that is no text; leave it out") from None
    return schema


def _root(given: Any) -> Mapping[str, Any]:
    """The mapping that was meant."""
    if isinstance(given, type) and issubclass(given, BaseModel):
        given = given.model_json_schema()
    if isinstance(given, str):
        given = _parsed(given)
    if not isinstance(given, Mapping):
        raise SchemaError(
            f"a schema is an object with properties, not {_kind_of(given)}", 'try {"tenant": "who rents"}'
        )
    return given


def _parsed(text: str) -> Any:
    if len(text) > MAX_SCHEMA_CHARACTERS:
        raise SchemaError(f"the schema has {len(text):,} characters", f"{MAX_SCHEMA_CHARACTERS:,} are the most")
    try:
        return json.loads(text)
    except ValueError as error:
        raise SchemaError(
            f"the schema is no JSON: {error}", 'it is an object such as {"tenant": "who rents"}'
        ) from None


def _kind_of(given: Any) -> str:
    named = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
    return named.get(type(given), f"a {type(given).__name__}")


class _Reading:
    """Reads one schema, and knows where it is when it cannot."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._count = 0

    def schema(self) -> Schema:
        root = self._plain(self._root, ())
        if not _is_json_schema(root):
            root = {"type": "object", "properties": {name: _spelled_out(given) for name, given in root.items()}}
        groups: dict[str, tuple[str, str]] = {}
        fields = tuple(self._fields(root, (), groups))
        if not fields:
            raise SchemaError("the schema has no properties", 'name what is wanted: {"tenant": "who rents"}')
        return Schema(fields, self._text(root, "title", ()), self._text(root, "description", ()), groups)

    def _fields(
        self, shape: Mapping[str, Any], path: Path, groups: dict[str, tuple[str, str]]
    ) -> Iterator[Field | Table]:
        self._only(shape, path, {"type", "properties"})
        properties = shape.get("properties", {})
        if not isinstance(properties, Mapping):
            raise self._error(path, "has properties that are no object")
        for name, given in properties.items():
            at = (*path, self._name(name, path))
            inner = self._plain(given, at)
            if inner.get("type") == "object" or "properties" in inner:
                if path:
                    raise self._error(at, "is an object inside an object inside the schema", "one level is the most")
                nested = list(self._fields(inner, at, groups))
                if not nested:
                    raise self._error(at, "is an object without properties")
                groups[name] = (self._text(inner, "title", at), self._text(inner, "description", at))
                yield from nested
            elif inner.get("type") == "array" or "items" in inner:
                yield self._array(inner, at)
            else:
                yield self._field(inner, at)

    def _array(self, shape: Mapping[str, Any], path: Path) -> Field | Table:
        self._only(shape, path, {"type", "items", "maxItems", "minItems"})
        if shape.get("minItems"):
            raise self._error(path, 'has "minItems"', "how many there are is for the documents to say")
        most = self._count_of(shape, "maxItems", path)
        if "items" not in shape:
            raise self._error(path, "is an array without items", 'say what is in it: "items": {"type": "string"}')
        items = self._plain(shape["items"], path)
        title, description = self._text(shape, "title", path), self._text(shape, "description", path)
        if items.get("type") == "object" or "properties" in items:
            title = title or self._text(items, "title", path)
            description = description or self._text(items, "description", path)
            columns = list(self._fields(items, (), {}))
            flat = tuple(one for one in columns if isinstance(one, Field) and not one.many and len(one.path) == 1)
            if len(flat) < len(columns) or not flat:
                raise self._error(path, "has rows that are not flat", "a row's properties are strings, numbers, dates")
            return Table(path, flat, title, description, most)
        if items.get("type") == "array" or "items" in items:
            raise self._error(path, "is an array of arrays", "use an array of objects")
        one = self._field(items, path)
        return replace(one, title=title or one.title, description=description or one.description, many=True, most=most)

    def _field(self, shape: Mapping[str, Any], path: Path) -> Field:
        self._count += 1
        if self._count > MAX_FIELDS:
            raise SchemaError(f"the schema has more than {MAX_FIELDS} fields", "part it, and extract in several runs")
        enum = self._enum(shape, path)
        given = shape.get("type", _type_of(enum))
        if not isinstance(given, str) or given not in TYPES:
            remedy = f"there are {', '.join(TYPES)}, array and object"
            raise self._error(path, f"has the type {_shown(given)}", remedy)
        self._only(shape, path, {"type", "format", "enum", "const", *BOUNDS})
        kind = TYPES[given]
        if kind == "text" and "format" in shape:
            # A format that is not known says what is meant, as a description does.
            kind = _FORMATS.get(str(shape["format"]), "text")
        given_bounds: dict[str, Any] = {
            at: self._bound(shape, name, path) for name, at in BOUNDS.items() if name in shape
        }
        bounds = Bounds(**given_bounds)
        title, description = self._text(shape, "title", path), self._text(shape, "description", path)
        return Field(path, kind, title, description, enum, bounds)

    def _plain(self, given: Any, path: Path) -> dict[str, Any]:
        """A schema with its references followed and null taken out of its alternatives."""
        for _ in range(_MAX_REFERENCES):
            if not isinstance(given, Mapping):
                raise self._error(path, f"is {_kind_of(given)}", 'say what it is: {"type": "string"}')
            shape = dict(given)
            if "$ref" in shape:
                named: Any = self._referred(shape.pop("$ref"), path)
            elif (several := _alternatives(shape)) is not None:
                kinds = [one for one in several if not _is_null(one)]
                # A decimal of pydantic is a number, or a string of a number's pattern.
                kinds = [one for one in kinds if isinstance(one, Mapping) and one.get("type") in _NUMBERS] or kinds
                if len(kinds) != 1:
                    raise self._error(path, "may be several things", "a field has one type, or null")
                named = kinds[0]
            else:
                return _without_null(shape)
            if not isinstance(named, Mapping):
                raise self._error(path, f"names {_kind_of(named)} for a schema")
            given = {**named, **shape}
        raise self._error(path, "refers to itself, or to others too often")

    def _referred(self, reference: Any, path: Path) -> Any:
        found: Any = self._root
        parts = reference.split("/") if isinstance(reference, str) else []
        for part in parts[1:] if parts[:1] == ["#"] else [""]:
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        if found is None:
            raise self._error(path, f"refers to {_shown(reference)}", "references are to this schema: #/$defs/NAME")
        return found

    def _enum(self, shape: Mapping[str, Any], path: Path) -> tuple[Scalar, ...]:
        given = [shape["const"]] if "const" in shape else shape.get("enum", [])
        if not isinstance(given, Sequence) or isinstance(given, str) or ("enum" in shape and not given):
            raise self._error(path, "has an enum that is no list of values")
        values = [one for one in given if one is not None]
        if len(values) > MAX_ENUM or not all(isinstance(one, str | int | float) and _is_finite(one) for one in values):
            raise self._error(path, f"has an enum that is not of at most {MAX_ENUM} strings or numbers")
        kind = shape.get("type")
        if isinstance(kind, str) and kind in TYPES and not all(_is_of(kind, one) for one in values):
            raise self._error(path, f"has an enum with a value that is no {kind}")
        if any(isinstance(one, str) and not 0 < len(one) <= MAX_TEXT_CHARACTERS for one in values):
            raise self._error(path, "has an enum with a value that is empty or very long")
        return tuple(values)

    def _only(self, shape: Mapping[str, Any], path: Path, known: set[str]) -> None:
        for keyword in shape:
            if keyword not in known | _SAID and not str(keyword).startswith("x-"):
                raise self._error(path, f"has {_shown(keyword)}", "this is not kept to, so leave it out")

    def _bound(self, shape: Mapping[str, Any], name: str, path: Path) -> float:
        bound: Any = shape[name]
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not _is_finite(bound):
            raise self._error(path, f'has a "{name}" that is no number')
        return bound

    def _count_of(self, shape: Mapping[str, Any], name: str, path: Path) -> int | None:
        count = shape.get(name)
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise self._error(path, f'has a "{name}" that is no number from 1')
        return count

    def _name(self, name: Any, path: Path) -> str:
        if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
            raise self._error(
                path, f"has the property {_shown(name)}", f"names have 1 to {MAX_NAME_CHARACTERS} characters"
            )
        return name

    def _text(self, shape: Mapping[str, Any], name: str, path: Path) -> str:
        text = shape.get(name, "")
        if not isinstance(text, str):
            raise self._error(path, f"has a {name} that is no string")
        text = " ".join(text.split())
        if len(text) > MAX_TEXT_CHARACTERS:
            problem = f"has a {name} of {len(text):,} characters"
            raise self._error(path, problem, f"{MAX_TEXT_CHARACTERS:,} are the most")
        return text

    def _error(self, path: Path, problem: str, remedy: str = "") -> SchemaError:
        return SchemaError(f"{_shown('.'.join(path)) if path else 'the schema'} {problem}", remedy)


def _is_json_schema(root: Mapping[str, Any]) -> bool:
    """Whether this is JSON Schema, not the short form with a field that is called like one of its keywords."""
    return isinstance(root.get("properties"), Mapping) or root.get("type") == "object" or "$schema" in root


def _spelled_out(given: Any) -> Any:
    """A value of the short form as JSON Schema."""
    if isinstance(given, str):
        return {"type": "string", "description": given}
    if isinstance(given, list) and len(given) == 1:
        if isinstance(given[0], str):
            return {"type": "array", "description": given[0], "items": {"type": "string"}}
        return {"type": "array", "items": _spelled_out(given[0])}
    if isinstance(given, Mapping) and given and _MARKS.isdisjoint(given):
        return {"type": "object", "properties": {name: _spelled_out(one) for name, one in given.items()}}
    if isinstance(given, Mapping):
        untyped = "type" not in given and not {"properties", "items", "enum", "const", "$ref"} & set(given)
        return {"type": "string", **given} if untyped and _alternatives(dict(given)) is None else given
    return given


def _alternatives(shape: Mapping[str, Any]) -> list[Any] | None:
    """The schemas of which one is to hold; taken out of `shape` where it is a dict."""
    for keyword in ("anyOf", "oneOf", "allOf"):
        if isinstance(several := shape.get(keyword), list):
            if isinstance(shape, dict):
                del shape[keyword]
            return several
    return None


def _is_null(one: Any) -> bool:
    return isinstance(one, Mapping) and one.get("type") == "null"


def _without_null(shape: dict[str, Any]) -> dict[str, Any]:
    """`"type": ["string", "null"]` is a string."""
    kinds = shape.get("type")
    if isinstance(kinds, list):
        named = [kind for kind in kinds if kind != "null"]
        return {**shape, "type": named[0] if len(named) == 1 else kinds}
    return shape


def _is_finite(one: Scalar) -> bool:
    return not isinstance(one, float) or math.isfinite(one)


def _is_of(kind: str, one: Scalar) -> bool:
    """Whether a value is of one of JSON Schema's types."""
    if kind == "string" or isinstance(one, str):
        return kind == "string" and isinstance(one, str)
    if kind == "boolean" or isinstance(one, bool):
        return kind == "boolean" and isinstance(one, bool)
    return kind == "number" or one == int(one)


def _type_of(enum: Sequence[Scalar]) -> str | None:
    """The type of the values of an enum; without one, of what is not said to be anything else."""
    if not enum or all(isinstance(one, str) for one in enum):
        return "string"
    if all(isinstance(one, bool) for one in enum):
        return "boolean"
    if any(isinstance(one, str | bool) for one in enum):
        return None
    return "integer" if all(isinstance(one, int) for one in enum) else "number"


def _shown(given: Any) -> str:
    """Something of the schema, for a message of one line."""
    text = " ".join(str(given).encode("utf-8", "replace").decode().split())
    return f'"{text if len(text) <= 60 else text[:59] + "…"}"'
