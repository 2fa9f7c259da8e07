"""A Word paragraph while it is being read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from lcdoc.documents.docx_styles import outline_level
from lcdoc.documents.flow import Flow

Emission = Callable[[Flow], None]
"""Something for the flow to do, now or when the paragraph it hangs on is over."""

FALSE: Final = frozenset({"0", "false", "off"})
"""What switches a property off that stands there."""


@dataclass
class Paragraph:
    """A paragraph that is being read: what it is, and what hangs on it."""

    style_id: str = ""
    outline: int | None = None
    list_id: str | None = None
    list_level: int | None = None
    page_break_before: bool = False
    section_ends: bool = False
    mark_deleted: bool = False
    """The paragraph's own end was deleted: the next one goes on in the same paragraph."""
    in_properties: bool = False
    in_run: bool = False
    hidden: bool = False
    raised: bool = False
    marker: str = ""
    heading: int | None = None
    is_title: bool = False
    is_code: bool = False
    opened: bool = False
    text: list[str] = field(default_factory=list)
    notes: list[Emission] = field(default_factory=list)
    boxes: list[Emission] = field(default_factory=list)


def read_property(paragraph: Paragraph, name: str, attributes: Mapping[str, str]) -> None:
    """Something inside `w:pPr`."""
    value = value_of(attributes)
    match name:
        case "pStyle":
            paragraph.style_id = value
        case "outlineLvl":
            paragraph.outline = outline_level(value)
        case "ilvl":
            paragraph.list_level = int(value) if value in {*"012345678"} else None
        case "numId":
            paragraph.list_id = value
        case "pageBreakBefore":
            paragraph.page_break_before = value not in FALSE


def value_of(attributes: Mapping[str, str]) -> str:
    """The `w:val` attribute, in either namespace."""
    return named(attributes, "val")


def named(attributes: Mapping[str, str], name: str) -> str:
    """An attribute by its name without namespace; empty when it is not there."""
    return next((value for key, value in attributes.items() if key.rpartition("}")[2] == name), "")
