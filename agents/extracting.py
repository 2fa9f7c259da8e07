"""Extracting: the skill of filling fields and tables from passages. It stands beside the readers, as listing does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lcdoc.agents.extract_fields import Field, Table
from lcdoc.agents.extract_findings import Extraction
from lcdoc.agents.extract_offline import extracted
from lcdoc.agents.extract_prompted import filled_form, filled_table, form_room, table_room
from lcdoc.agents.extract_rows import extracted_rows
from lcdoc.agents.offline_reader import OfflineReader
from lcdoc.agents.prompted_reader import PromptedReader
from lcdoc.agents.reader import Passage, Reader


async def extract(reader: Reader, passages: Sequence[Passage], wanted: Sequence[Field | Table]) -> Extraction:
    """What `passages` give for the fields, or for the one table; every value checked against its quotes.

    Raises TypeError for a reader that has no such skill, and what the reader raises.
    """
    tables = [one for one in wanted if isinstance(one, Table)]
    fields = [one for one in wanted if isinstance(one, Field)]
    if len(tables) > 1 or (tables and fields):
        raise ValueError("a table is read by itself")
    if isinstance(reader, PromptedReader):
        if tables:
            return await filled_table(reader.asker, passages, tables[0])
        return await filled_form(reader.asker, passages, fields)
    if isinstance(reader, OfflineReader):
        if tables:
            return await asyncio.to_thread(extracted_rows, passages, tables[0])
        return await asyncio.to_thread(extracted, reader, passages, fields)
    raise TypeError(f"{type(reader).__name__} does not extract")


def extracting_room(reader: Reader, wanted: Sequence[Field | Table]) -> int:
    """Tokens of text that one reading takes. Raises ModelConfigError where it is less than a sentence."""
    if not isinstance(reader, PromptedReader):
        return reader.room("")
    first = wanted[0]
    if isinstance(first, Table):
        return table_room(reader.asker, first)
    return form_room(reader.asker, [one for one in wanted if isinstance(one, Field)])


def ranks_sentences(reader: Reader) -> bool:
    """Whether `reader` ranks the sentences of what it is given for each field, rather than understands them all."""
    return isinstance(reader, OfflineReader)
