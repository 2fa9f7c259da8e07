"""A schema that is filled: its fields and tables in order, and its canonical form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lcdoc.agents.extract_fields import Field, Kind, Path, Table
from lcdoc.workflows.errors import WorkflowError

TYPES: Final[Mapping[str, Kind]] = {
    "string": "text",
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
}
"""Kinds of JSON Schema's types."""
BOUNDS: Final[Mapping[str, str]] = {
    "minimum": "minimum",
    "maximum": "maximum",
    "exclusiveMinimum": "above",
    "exclusiveMaximum": "below",
    "minLength": "shortest",
    "maxLength": "longest",
}
"""Its keywords for what `Bounds` has."""


class SchemaError(WorkflowError):
    """The schema is none, or has what is not supported."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What is filled, in order."""

    fields: tuple[Field | Table, ...]
    title: str = ""
    description: str = ""
    groups: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Title and description of the nested objects."""

    @property
    def scalars(self) -> tuple[Field, ...]:
        """Fields of one value."""
        return tuple(one for one in self.fields if isinstance(one, Field) and not one.many)

    @property
    def lists(self) -> tuple[Field, ...]:
        """Fields of many values."""
        return tuple(one for one in self.fields if isinstance(one, Field) and one.many)

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(one for one in self.fields if isinstance(one, Table))

    def filled(self, values: Mapping[Path, Any]) -> dict[str, Any]:
        """The object with these values by path; null, or an empty array, where there is none."""
        made: dict[str, Any] = {}
        for one in self.fields:
            inner = made if len(one.path) == 1 else made.setdefault(one.path[0], {})
            empty: Any = [] if isinstance(one, Table) or one.many else None
            inner[one.path[-1]] = values.get(one.path, empty)
        return made

    def to_json(self) -> dict[str, Any]:
        """The schema as JSON Schema, in the form that is the same for equal schemas; `schema_of` gives it back."""
        shape: dict[str, Any] = {"type": "object", **_texts(self.title, self.description), "properties": {}}
        for one in self.fields:
            inner = shape
            if len(one.path) > 1:
                named = {"type": "object", **_texts(*self.groups.get(one.path[0], ("", ""))), "properties": {}}
                inner = shape["properties"].setdefault(one.path[0], named)
            inner["properties"][one.path[-1]] = _shape(one)
        return shape


def _texts(title: str, description: str) -> dict[str, str]:
    return {name: text for name, text in (("title", title), ("description", description)) if text}


def _shape(one: Field | Table) -> dict[str, Any]:
    texts = _texts(one.title, one.description)
    most = {} if one.most is None else {"maxItems": one.most}
    if isinstance(one, Table):
        columns = {column.path[0]: _shape(column) for column in one.columns}
        return {"type": "array", **texts, "items": {"type": "object", "properties": columns}, **most}
    types = {kind: name for name, kind in TYPES.items()}
    shape: dict[str, Any] = {"type": types.get(one.kind, "string")}
    if one.kind not in types:
        shape["format"] = one.kind
    if one.enum:
        shape["enum"] = list(one.enum)
    shape |= {name: bound for name, at in BOUNDS.items() if (bound := getattr(one.bounds, at)) is not None}
    return {"type": "array", **texts, "items": shape, **most} if one.many else {**shape, **texts}
