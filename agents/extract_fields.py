"""What is to be extracted: fields of a kind, and tables whose rows have fields of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "number", "integer", "boolean", "date", "time", "date-time", "email", "uri"]
Scalar = str | int | float | bool
Path = tuple[str, ...]

_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\-./\s]+")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a value must keep to; None: nothing. Lengths are in characters."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    shortest: int | None = None
    longest: int | None = None

    def admit(self, value: Scalar) -> bool:
        """Whether a value keeps to them."""
        if isinstance(value, str):
            return (self.shortest or 0) <= len(value) and (self.longest is None or len(value) <= self.longest)
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


@dataclass(frozen=True, slots=True)
class Field:
    """A value that is looked for; with `many`, all values of its kind that the documents have."""

    path: Path
    """Names from the outermost object to it: one, or two inside a nested object."""
    kind: Kind = "text"
    title: str = ""
    description: str = ""
    enum: tuple[Scalar, ...] = ()
    """The only values there are; empty: any of the kind."""
    bounds: Bounds = Bounds()
    many: bool = False
    most: int | None = None
    """Of the values, with `many`."""

    @property
    def label(self) -> str:
        """What it is called, in words."""
        return self.title or " ".join(words_of(name) for name in self.path)

    @property
    def name(self) -> str:
        """Its path as one word, for people: `lease.start`."""
        return ".".join(self.path)

    @property
    def query(self) -> str:
        """What passages are searched for by."""
        return f"{self.label} {self.description}".strip()

    @property
    def question(self) -> str:
        """The same as a question."""
        if self.description.rstrip().endswith("?"):
            return self.description
        asked = f"What is the {self.label}?"
        return f"{self.description.rstrip('. ')}. {asked}" if self.description else asked


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that are looked for, each with a value for every column where the documents have one."""

    path: Path
    columns: tuple[Field, ...]
    """Their paths have one name, the column's."""
    title: str = ""
    description: str = ""
    most: int | None = None
    """Of the rows."""

    @property
    def label(self) -> str:
        return self.title or " ".join(words_of(name) for name in self.path)

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def query(self) -> str:
        return " ".join([self.label, self.description, *(column.label for column in self.columns)]).strip()

    @property
    def question(self) -> str:
        return f"{self.description.rstrip('. ')}. List all {self.label}." if self.description else f"List {self.label}."


def words_of(name: str) -> str:
    """A name as programs write it, in words: `rentPerMonth` and `rent_per_month` are `rent per month`."""
    return " ".join(word.lower() if word[1:].islower() or len(word) == 1 else word for word in _WORD_BREAK.split(name))
