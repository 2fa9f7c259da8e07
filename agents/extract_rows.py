"""Rows of tables without a language model: printed tables whose header names the columns that are wanted.

Cells are told apart where the document keeps them apart: by `|` or tabs. A row of figures in running text is left to
readers that understand it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lcdoc.agents.extract_fields import Field, Table
from lcdoc.agents.extract_findings import Extraction, Finding
from lcdoc.agents.extract_labels import likeness_of
from lcdoc.agents.extract_values import coerced, habits_of, shown_by
from lcdoc.agents.quotes import check_quote
from lcdoc.agents.reader import Passage
from lcdoc.documents import Span

MOST_ROWS = 1_000
"""Of one reading."""
_LEAST_COLUMNS = 2
"""Of the wanted columns, those that a header has to name; one where only one is wanted."""
_ROW_CONFIDENCE = 4.0
_CELLS = re.compile(r"[ ]*\|[ ]*|\t+")
_RULE = re.compile(r"[\s|:+=-]+")


def extracted_rows(passages: Sequence[Passage], table: Table) -> Extraction:
    """The rows of printed tables in `passages` whose header names the columns of `table`."""
    findings: list[Finding] = []
    for passage in passages:
        columns: Mapping[int, Field] = {}
        for span, cells in _lines(passage):
            named = _columns(table, cells)
            if named:
                columns = named
            elif columns and len(cells) > max(columns) and len(findings) < MOST_ROWS:
                if (found := _row(passage, table, columns, span, cells)) is not None:
                    findings.append(found)
            elif len(cells) < 2:
                columns = {}
    return Extraction(tuple(findings))


def _lines(passage: Passage) -> Iterator[tuple[Span, list[str]]]:
    """Lines with something in them, in their cells."""
    body, at = passage.document.body, passage.span.start
    while at < passage.span.end:
        end = body.find("\n", at, passage.span.end)
        end = passage.span.end if end < 0 else end
        line = body[at:end]
        if line.strip() and not _RULE.fullmatch(line):
            start = at + len(line) - len(line.lstrip(" |"))
            span = Span(start, max(start, at + len(line.rstrip(" |"))))
            yield span, [cell.strip(" *") for cell in _CELLS.split(span.of(body))]
        at = end + 1


def _columns(table: Table, cells: Sequence[str]) -> dict[int, Field]:
    """Which wanted column each cell of a header names; empty where the line is no header of this table."""
    found: dict[int, Field] = {}
    for column in table.columns:
        likely = [(likeness_of(column.label, cell), -index) for index, cell in enumerate(cells) if index not in found]
        best, index = max(likely, default=(0.0, 0))
        if best > 0:
            found[-index] = column
    return found if len(found) >= min(_LEAST_COLUMNS, len(table.columns)) else {}


def _row(
    passage: Passage, table: Table, columns: Mapping[int, Field], span: Span, cells: Sequence[str]
) -> Finding | None:
    habits = habits_of(passage.document)
    citation = check_quote(passage.document, span.of(passage.document.body), near=span)
    if citation is None:
        return None
    value: dict[str, Any] = {column.path[0]: None for column in table.columns}
    for index, column in columns.items():
        given = coerced(column, cells[index], habits)
        if given is not None and shown_by(column, given, citation.quote, habits) != "no":
            value[column.path[0]] = given
    filled = sum(one is not None for one in value.values())
    if not filled:
        return None
    confidence = round(_ROW_CONFIDENCE * filled / len(columns), 2)
    return Finding(table.path, value, (citation,), confidence)
