"""The numbers and bullets that Word puts in front of list paragraphs; the file holds only the rules.

Office Open XML (ISO/IEC 29500-1), section 17.9.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from lcdoc.documents.numerals import letters, roman
from lcdoc.documents.xml_parts import attribute, children

_LEVELS: Final = 9
_LONGEST_MARKER: Final = 40
_PLACE: Final = re.compile(r"%([1-9])")
_FORMATS: Final[dict[str, Callable[[int], str]]] = {
    "upperRoman": roman,
    "lowerRoman": lambda number: roman(number).lower(),
    "upperLetter": letters,
    "lowerLetter": lambda number: letters(number).lower(),
    "decimalZero": lambda number: f"{number:02d}",
}


@dataclass(frozen=True, slots=True)
class _Level:
    start: int
    number_format: str
    text: str
    legal: bool
    """All numbers in digits, whatever the levels above use."""
    restarts: bool
    style: str


@dataclass(frozen=True, slots=True)
class _List:
    """An instance of a list definition; instances of one definition count on together."""

    definition: str
    starts: dict[int, int]
    levels: dict[int, _Level]


class Numbering:
    """Counts list paragraphs in document order. `root` is the root of `numbering.xml`, None when the file has none."""

    def __init__(self, root: Any | None) -> None:
        self._definitions: dict[str, dict[int, _Level]] = {}
        self._lists: dict[str, _List] = {}
        self._counts: dict[str, list[int | None]] = {}
        self._started: set[tuple[str, int]] = set()
        if root is None:
            return
        linked: dict[str, str] = {}
        links: dict[str, str] = {}
        for element in children(root, "abstractNum"):
            identifier = attribute(element, "abstractNumId")
            self._definitions[identifier] = _levels(element)
            if name := _value(element, "styleLink"):
                linked[name] = identifier
            if name := _value(element, "numStyleLink"):
                links[identifier] = name
        for identifier, name in links.items():
            self._definitions[identifier] = self._definitions.get(linked.get(name, ""), {})
        for element in children(root, "num"):
            overrides = list(children(element, "lvlOverride"))
            starts = {_integer(attribute(item, "ilvl"), 0): _value(item, "startOverride") for item in overrides}
            self._lists[attribute(element, "numId")] = _List(
                _value(element, "abstractNumId"),
                {level: _integer(start, 1) for level, start in starts.items() if start},
                {level: rule for item in overrides for level, rule in _levels(item).items()},
            )

    def level_of_style(self, list_id: str, style_id: str) -> int:
        """The level of the list that is tied to a paragraph style; 0 when none is."""
        found = self._lists.get(list_id)
        levels = self._definitions.get(found.definition, {}) if found else {}
        return next((index for index, level in levels.items() if style_id and level.style == style_id), 0)

    def marker(self, list_id: str, level: int) -> str:
        """Count one paragraph, and return what stands in front of it (`1.`, `b)`, `2.1`, `-`); empty for nothing."""
        found = self._lists.get(list_id)
        if found is None or not 0 <= level < _LEVELS:
            return ""
        rules = self._definitions.get(found.definition, {}) | found.levels
        rule = rules.get(level)
        if rule is None:
            return ""
        counts = self._counts.setdefault(found.definition, [None] * _LEVELS)
        count = counts[level]
        if level in found.starts and (list_id, level) not in self._started:
            count = found.starts[level]
        else:
            count = rule.start if count is None else count + 1
        self._started.add((list_id, level))
        counts[level] = count
        for deeper in range(level + 1, _LEVELS):
            if deeper not in rules or rules[deeper].restarts:
                counts[deeper] = None
        if rule.number_format == "bullet":
            return "-"

        def number(match: re.Match[str]) -> str:
            index = int(match[1]) - 1
            at = rules.get(index)
            value = counts[index]
            if value is None:
                value = at.start if at else 1
            style = "decimal" if rule.legal or at is None else at.number_format
            return "" if style == "none" else _FORMATS.get(style, str)(value)

        return _PLACE.sub(number, rule.text).strip()[:_LONGEST_MARKER]


def _levels(element: Any) -> dict[int, _Level]:
    return {
        _integer(attribute(level, "ilvl"), 0): _Level(
            _integer(_value(level, "start"), 0 if next(children(level, "start"), None) is None else 1),
            _value(level, "numFmt") or "decimal",
            _value(level, "lvlText"),
            next(children(level, "isLgl"), None) is not None,
            _value(level, "lvlRestart") != "0",
            _value(level, "pStyle"),
        )
        for level in children(element, "lvl")
    }


def _value(element: Any, name: str) -> str:
    child = next(children(element, name), None)
    return attribute(child, "val") if child is not None else ""


def _integer(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else default
