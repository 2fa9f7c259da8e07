"""What a Word style says about a paragraph: a heading and its level, code, a numbered list.

Built-in styles keep their English name (`heading 1`) whatever the language of Word; only their id is localised. Custom
heading styles say it by an outline level, or by the style they are based on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from lcdoc.documents.xml_parts import attribute, children

_LONGEST_CHAIN: Final = 30
_HEADING_NAME: Final = re.compile(
    r"(?:heading|head|überschrift|titre|título|titulo|titolo|kop|rubrik|overskrift|otsikko|nagłówek|заголовок"
    r"|見出し|标题|標題|제목)\s*([1-9])",
    re.IGNORECASE,
)
# Publishers' templates: the title of the chapter, and heads from A (outermost) down.
_TITLE_NAME: Final = re.compile(r"title|chapter\s?title|titel|titre", re.IGNORECASE)
_LETTERED_HEAD: Final = re.compile(r"head\s?([a-e])", re.IGNORECASE)
_CODE_NAME: Final = re.compile(
    r"(?:source\s?)?code(?!\s?(?:label|caption|listing|annotation))|html preformatted|preformatted text|macro text",
    re.IGNORECASE,
)
_BODY_LEVEL: Final = 9
"""The outline level that says "this is body text"."""


@dataclass(frozen=True, slots=True)
class NumberedAs:
    """The list a paragraph belongs to. `level` is None when only the list's own definition knows it."""

    list_id: str
    level: int | None


@dataclass(frozen=True, slots=True)
class Style:
    """A paragraph style, what it inherits included."""

    heading: int | None = None
    is_title: bool = False
    is_code: bool = False
    numbered: NumberedAs | None = None


_PLAIN: Final = Style()


@dataclass(frozen=True, slots=True)
class _Own:
    name: str
    based_on: str
    outline: int | None
    numbered: NumberedAs | None


class Styles:
    """Paragraph styles by id. `root` is the root of `styles.xml`, None when the file has none."""

    def __init__(self, root: Any | None) -> None:
        self._own: dict[str, _Own] = {}
        self._resolved: dict[str, Style] = {}
        for element in children(root, "style") if root is not None else ():
            if attribute(element, "type") not in ("", "paragraph"):
                continue
            properties = next(children(element, "pPr"), None)
            self._own[attribute(element, "styleId")] = _Own(
                _value(element, "name"),
                _value(element, "basedOn"),
                outline_level(_value(properties, "outlineLvl")) if properties is not None else None,
                _numbered(properties) if properties is not None else None,
            )

    def get(self, style_id: str) -> Style:
        """The style, or plain body text when the file does not define it (a heading if its id says so)."""
        if style_id not in self._resolved:
            self._resolved[style_id] = self._resolve(style_id)
        return self._resolved[style_id]

    def _resolve(self, style_id: str) -> Style:
        if style_id not in self._own:
            return Style(heading=_level_by_name(style_id)) if style_id else _PLAIN
        chain: list[_Own] = []
        while style_id in self._own and len(chain) < _LONGEST_CHAIN:
            chain.append(self._own[style_id])
            style_id = chain[-1].based_on
        first = chain[0]
        outline = next((own.outline for own in chain if own.outline is not None), None)
        is_title = bool(_TITLE_NAME.fullmatch(first.name))
        if outline is not None:
            heading = outline + 1 if outline < _BODY_LEVEL else None
        else:
            heading = 1 if is_title else next((level for own in chain if (level := _level_by_name(own.name))), None)
        return Style(
            heading,
            is_title,
            any(_CODE_NAME.match(own.name) for own in chain),
            next((own.numbered for own in chain if own.numbered is not None), None),
        )


def outline_level(value: str) -> int | None:
    """0 (outermost) to 8, or 9 for body text; None when `value` is none of these."""
    return int(value) if value in {*"0123456789"} else None


def _level_by_name(name: str) -> int | None:
    if match := _HEADING_NAME.fullmatch(name.strip()):
        return int(match[1])
    if match := _LETTERED_HEAD.fullmatch(name.strip()):
        return ord(match[1].lower()) - ord("a") + 2
    return None


def _numbered(properties: Any) -> NumberedAs | None:
    numbering = next(children(properties, "numPr"), None)
    if numbering is None:
        return None
    level = _value(numbering, "ilvl")
    return NumberedAs(_value(numbering, "numId"), int(level) if level in {*"012345678"} else None)


def _value(element: Any, name: str) -> str:
    child = next(children(element, name), None)
    return attribute(child, "val") if child is not None else ""
