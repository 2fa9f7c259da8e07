"""What extracting returns: an object in the shape of the schema, and for every value its claims with checked quotes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lcdoc.workflows.answer import Answer, PagesRead

EXTRACT_SCHEMA = "lcdoc.extract/1"
"""Names the JSON form; the number changes when a field is renamed or removed (docs/json.md)."""

FieldState = Literal["found", "not_found", "conflict", "refused"]
"""`conflict`: the documents give other values, too, and which holds could not be told. `refused`: a value was given,
and its quote does not show it, or it does not fit the schema."""


class ExtractedField(BaseModel):
    """What came of one field, or of a table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: tuple[str, ...]
    """Names from the outermost object to it."""
    state: FieldState
    value: Any = None
    """As in the object."""
    claims: tuple[int, ...] = ()
    """Which of the answer's claims bear it out, from 0; of a table, one for each row, in order."""
    others: tuple[int, ...] = ()
    """Claims of other values that the documents give."""
    confidence: float = 0.0
    """From 0 to 5."""
    refused: tuple[str, ...] = ()
    """Values that were given and are not shown by their quotes, or do not fit the schema."""
    searched: tuple[PagesRead, ...] = ()
    """Pages that were read for it, for each document."""

    @property
    def name(self) -> str:
        """The path as one word: `lease.start`."""
        return ".".join(self.path)


class ExtractAnswer(Answer):
    """A filled schema. `question` has the schema; `claims` are the values, each with its quotes, the ones that were
    not taken included; `found` says whether there are any."""

    value: dict[str, Any] = Field(default_factory=dict)
    """In the shape of the schema: null, or an empty array, where nothing was found."""
    fields: tuple[ExtractedField, ...] = ()
    """All of the schema's, in order."""

    @property
    def text(self) -> str:
        """The values, a line each; those that others were preferred to are not among them."""
        return "\n".join(self.claims[number].text for field in self.fields for number in field.claims)

    def field(self, name: str) -> ExtractedField:
        """The field of this name, such as `lease.start`. Raises KeyError."""
        for one in self.fields:
            if one.name == name:
                return one
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values in the form that docs/json.md describes."""
        return super().to_json() | {"schema": EXTRACT_SCHEMA}
