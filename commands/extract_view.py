"""How a filled schema is shown."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcdoc.screen import Screen
    from lcdoc.workflows.answer import PagesRead
    from lcdoc.workflows.extract_answer import ExtractAnswer, ExtractedField

_WIDTH = 80
_MOST_NAME = 24
"""Columns for the names of fields; a longer one has a line of its own."""
_QUOTE_CHARACTERS = 150
_MOST_ROWS = 200
"""Rows shown of one field; --json has all of them."""


def show_extraction(screen: Screen, answer: ExtractAnswer) -> None:
    """Each field with its value, quote and page on standard output; warnings and the work done on standard error."""
    from lcdoc.screen import model_text, shown, usage_text

    width = min(_MOST_NAME, max(len(field.name) for field in answer.fields)) + 2
    for field in answer.fields:
        for line in _lines(answer, field, width):
            screen.plain(shown(line))
    for warning in answer.warnings:
        screen.warn(shown(warning))
    found = sum(field.state == "found" for field in answer.fields)
    screen.say(f"{found} of {len(answer.fields)} fields found")
    how = "offline, by extraction (no language model)"
    if answer.model != "offline":
        how = f"{model_text(answer.model, answer.kv)}; {usage_text(answer.usage)}; run {answer.run_id}"
    screen.say(f"{how}; {answer.usage.seconds:.1f} s")


def _lines(answer: ExtractAnswer, field: ExtractedField, width: int) -> Iterator[str]:
    """A field as text of at most 80 columns, what belongs to its name indented."""
    entries = list(_entries(answer, field))
    if len(field.name) > width - 2:
        yield field.name
        first = ""
    else:
        first = field.name
    for text, is_value in entries:
        inset = width if is_value else width + 2
        yield from textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=f"{first:<{inset}}",
            subsequent_indent=" " * inset,
            break_on_hyphens=False,
        ) or [first]
        first = ""


def _entries(answer: ExtractAnswer, field: ExtractedField) -> Iterator[tuple[str, bool]]:
    """What is said of a field, and whether it is a value (or in the place of one)."""
    if isinstance(field.value, list):
        yield f"{len(field.value)} found" + (_searched(answer, field) if not field.value else ""), True
        for value, number in list(zip(field.value, field.claims, strict=True))[:_MOST_ROWS]:
            yield f"- {_text(value)}{_place(answer, number)}", True
        if len(field.value) > _MOST_ROWS:
            yield f"... and {len(field.value) - _MOST_ROWS:,} more; --json has all of them", True
    elif field.claims:
        for number in field.claims:
            yield f"{_text(field.value)}{_place(answer, number)}", True
            yield from (
                (f"\u201c{_short(citation.quote)}\u201d", False) for citation in answer.claims[number].citations[:1]
            )
    elif field.state == "conflict":
        yield "the documents disagree", True
    else:
        yield f"not found{_searched(answer, field)}", True
    for number in field.others:
        yield f"also: {answer.claims[number].text.removeprefix(f'{field.name}: ')}{_place(answer, number)}", False
    for said in field.refused:
        yield f"refused: {_short(said)} (its quote does not show it, or it does not fit)", False


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items() if one is not None)
    return value if isinstance(value, str) else json.dumps(value)


def _place(answer: ExtractAnswer, number: int) -> str:
    """` (lease.pdf, p. 3)`, without what says nothing."""
    citations = answer.claims[number].citations
    if not citations:
        return ""
    document = answer.document(citations[0].document_id)
    pages = sorted({page for citation in citations for page in citation.pages})
    parts = [document.name] if len(answer.documents) > 1 else []
    if document.pages > 1:
        parts.append(f"p. {', '.join(map(str, pages))}")
    return f" ({', '.join(parts)})" if parts else ""


def _searched(answer: ExtractAnswer, field: ExtractedField) -> str:
    """What was read for a field in vain."""
    if not field.searched:
        return "; nothing was read for it"
    if any(answer.document(one.document_id).pages > 1 for one in field.searched):
        return f" on {'; '.join(_pages(answer, one) for one in field.searched)}"
    return ""


def _pages(answer: ExtractAnswer, pages: PagesRead) -> str:
    ranges = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in pages.read)
    named = f"{answer.document(pages.document_id).name}, " if len(answer.documents) > 1 else ""
    return f"{named}page{'s'[: ranges.count('-') + ranges.count(',') > 0]} {ranges}"


def _short(text: str) -> str:
    return text if len(text) <= _QUOTE_CHARACTERS else f"{text[: _QUOTE_CHARACTERS - 1].rstrip()}\u2026"
