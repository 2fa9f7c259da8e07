"""Extraction through a language model: a form or a table is filled from passages, and nothing of it is believed.

The model copies a value and the words that show it. Code finds the words in the source, makes the value one of its
kind, and holds it against those words; what fails is refused and told.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel
from pydantic import Field as Described

from lcdoc.agents.extract_fields import Field, Table
from lcdoc.agents.extract_findings import Extraction, Finding, joined
from lcdoc.agents.extract_values import (
    INFERRED_CONFIDENCE,
    as_it_stands,
    coerced,
    habits_of,
    shown_by,
)
from lcdoc.agents.models.errors import InvalidOutputError
from lcdoc.agents.models.model import Profile
from lcdoc.agents.notes import best_citation
from lcdoc.agents.packing import halves
from lcdoc.agents.prompts.asker import LEAST_ROOM_TOKENS, Asker, all_of
from lcdoc.agents.prompts.checks import is_refusal, plain
from lcdoc.agents.prompts.fence import restored
from lcdoc.agents.prompts.schemas import Rating
from lcdoc.agents.quotes import Citation
from lcdoc.agents.reader import Passage

MAX_ENTRIES = 300
"""Entries, or rows, taken from one answer."""
MAX_QUOTES = 3
"""Of one value."""
_HEADER_TOKENS = 160
"""For the fence, name and headings around a piece of a document."""
_HALVINGS = 2
"""How often passages whose rows did not fit into an answer are parted."""
_SURE = 4.0
"""What a value is given whose reader does not say how sure it is, where it stands in its quote."""
_REFUSED_CHARACTERS = 200

_KINDS = {
    "text": "text",
    "number": "number",
    "integer": "whole number",
    "boolean": "yes or no",
    "date": "date",
    "time": "time of day",
    "date-time": "date and time",
    "email": "e-mail address",
    "uri": "web address",
}

_log = logging.getLogger(__name__)


class FilledField(BaseModel):
    """A field of the form and its value, with the words that show it."""

    field: int = Described(description="number of the field")
    found: bool = Described(description="whether the passages give its value")
    value: str = Described(default="", description="the value as the passages give it")
    quote: str = Described(default="", description="words copied exactly from the passages that show it")


class QuotedField(BaseModel):
    """A field of the form and its value, with the words that show it and how well they do."""

    field: int = Described(description="number of the field")
    found: bool = Described(description="whether the passages give its value")
    value: str = Described(default="", description="the value as the passages give it")
    quotes: list[str] = Described(default_factory=list, description="words copied exactly that show it")
    confidence: Rating


class FilledForm(BaseModel):
    """A form filled from passages."""

    fields: list[FilledField] = Described(default_factory=list, description="an entry for each field of the form")


class QuotedForm(BaseModel):
    """A form filled from passages."""

    fields: list[QuotedField] = Described(default_factory=list, description="an entry for each field of the form")


class Cell(BaseModel):
    """A value of a row."""

    column: int = Described(description="number of the column")
    value: str = Described(description="the value as the passages give it")


class Row(BaseModel):
    """A row of the table, with the words that show it."""

    cells: list[Cell] = Described(default_factory=list, description="the columns that have a value")
    quotes: list[str] = Described(default_factory=list, description="words copied exactly that show the row")


class Rows(BaseModel):
    """The rows of a table that passages give."""

    found: bool = Described(description="whether the passages give at least one row")
    rows: list[Row] = Described(default_factory=list, description="the rows, each once")
    confidence: Rating


FORMS: Mapping[Profile, type[FilledForm | QuotedForm]] = {"small": FilledForm, "large": QuotedForm}


def form_of(fields: Sequence[Field]) -> str:
    """The fields as they are shown to the model, numbered from 1."""
    return "\n".join(_line(number, field) for number, field in enumerate(fields, 1))


def table_of(table: Table) -> str:
    """A table as it is shown to the model."""
    rows = f"Rows: {table.label}" + (f": {table.description}" if table.description else "")
    return "\n".join([rows, "Columns:", *(_line(number, one) for number, one in enumerate(table.columns, 1))])


def _line(number: int, field: Field) -> str:
    kind = "one of " + ", ".join(f'"{one}"' for one in field.enum) if field.enum else _KINDS[field.kind]
    marks = f"{kind}; all" if field.many else kind
    name = field.label if len(field.path) == 1 or not field.title else f"{field.path[0]} {field.title}"
    return f"{number}. {name} ({marks})" + (f": {field.description}" if field.description else "")


def form_room(asker: Asker, fields: Sequence[Field]) -> int:
    """Tokens of text that one form takes. Raises ModelConfigError where it is less than a sentence."""
    fixed = {"passages": "", "question": form_of(fields)}
    return max(LEAST_ROOM_TOKENS, asker.room("extract", FORMS[asker.profile], fixed) - _HEADER_TOKENS)


def table_room(asker: Asker, table: Table) -> int:
    """Tokens of text that one table takes. Raises ModelConfigError where it is less than a sentence."""
    fixed = {"passages": "", "question": table_of(table)}
    return max(LEAST_ROOM_TOKENS, asker.room("rows", Rows, fixed) - _HEADER_TOKENS)


async def filled_form(asker: Asker, passages: Sequence[Passage], fields: Sequence[Field]) -> Extraction:
    """What a model finds for the fields, in as few calls as the window takes; where an answer did not fit, in more.

    Raises ModelError.
    """
    schema = FORMS[asker.profile]
    form = form_of(fields)

    async def ask(pack: Sequence[Passage]) -> Extraction:
        answered = await asker.ask("extract", schema, {"passages": asker.passages(pack), "question": form})
        return _checked_form(pack, fields, answered)

    fixed = {"passages": "", "question": form}
    return joined(await asker.each_pack("extract", schema, passages, fixed, partial(_parted, asker, ask)))


async def filled_table(asker: Asker, passages: Sequence[Passage], table: Table) -> Extraction:
    """The rows that a model finds; as `filled_form`. Raises ModelError."""
    shown = table_of(table)

    async def ask(pack: Sequence[Passage]) -> Extraction:
        fields = {"passages": asker.passages(pack), "question": shown}
        return _checked_rows(pack, table, await asker.ask("rows", Rows, fields, piece=pack))

    fixed = {"passages": "", "question": shown}
    return joined(await asker.each_pack("rows", Rows, passages, fixed, partial(_parted, asker, ask)))


async def _parted(
    asker: Asker,
    ask: Callable[[Sequence[Passage]], Awaitable[Extraction]],
    pack: Sequence[Passage],
    halvings: int = _HALVINGS,
) -> Extraction:
    """What `ask` makes of passages, in halves where no answer came on them together."""
    try:
        return await ask(pack)
    except InvalidOutputError:
        parts = halves(pack) if halvings else None
        if parts is None:
            raise
        _log.info("%s: no answer came on some passages, so they are read in two parts", asker.name)
        return joined(await all_of([_parted(asker, ask, part, halvings - 1) for part in parts]))


def _checked_form(pack: Sequence[Passage], fields: Sequence[Field], answered: FilledForm | QuotedForm) -> Extraction:
    checks = _Checks(pack)
    findings: list[Finding] = []
    for entry in answered.fields[:MAX_ENTRIES]:
        said = plain(entry.value)
        if not entry.found or not 1 <= entry.field <= len(fields) or not said or is_refusal(said):
            continue
        field = fields[entry.field - 1]
        quoted = entry.quotes if isinstance(entry, QuotedField) else [entry.quote]
        rated = entry.confidence if isinstance(entry, QuotedField) else _SURE
        citations = checks.citations(quoted)
        if citations:
            findings.append(_finding(field, said, citations, rated, checks))
    return Extraction(tuple(findings), checks.dropped)


def _finding(field: Field, said: str, citations: Sequence[Citation], rated: float, checks: _Checks) -> Finding:
    habits = habits_of(checks.documents[citations[0].document_id])
    quoted = " … ".join(citation.quote for citation in citations)
    value = coerced(field, said, habits)
    shown = "no" if value is None else shown_by(field, value, quoted, habits)
    if value is None or shown == "no":
        return Finding(field.path, None, refused=said[:_REFUSED_CHARACTERS])
    if isinstance(value, str) and field.kind == "text" and not field.enum:
        value = as_it_stands(value, quoted)
    confidence = min(rated, INFERRED_CONFIDENCE) if shown == "inferred" else rated
    return Finding(field.path, value, tuple(citations), round(confidence, 2))


def _checked_rows(pack: Sequence[Passage], table: Table, answered: Rows) -> Extraction:
    checks = _Checks(pack)
    findings: list[Finding] = []
    for row in answered.rows[:MAX_ENTRIES] if answered.found else []:
        citations = checks.citations(row.quotes)
        if not citations:
            continue
        cells: dict[str, Any] = {}
        refused: list[Finding] = []
        for cell in row.cells:
            said = plain(cell.value)
            if not 1 <= cell.column <= len(table.columns) or not said or is_refusal(said):
                continue
            column = table.columns[cell.column - 1]
            one = _finding(column, said, citations, answered.confidence, checks)
            if one.refused:
                refused.append(Finding(table.path, None, refused=f"{column.name} {one.refused}"))
            else:
                cells[column.path[0]] = one.value
        if cells:
            value = {column.path[0]: cells.get(column.path[0]) for column in table.columns}
            findings.append(Finding(table.path, value, tuple(citations), round(answered.confidence, 2)))
        findings += refused
    return Extraction(tuple(findings), checks.dropped)


class _Checks:
    """Looks for the quotes of one answer in the source, and counts those that are not there."""

    def __init__(self, pack: Sequence[Passage]) -> None:
        self._places = [(passage.document, passage.span) for passage in pack]
        self.documents = {passage.document.id: passage.document for passage in pack}
        self.dropped = 0

    def citations(self, quotes: Sequence[str]) -> list[Citation]:
        found: list[Citation] = []
        for quote in [quote for quote in quotes if quote.strip()][:MAX_QUOTES]:
            citation = best_citation(self._places, restored(quote))
            if citation is None:
                self.dropped += 1
            elif citation not in found:
                found.append(citation)
        return found
