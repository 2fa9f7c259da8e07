"""Where an index finds its documents. The library is one such place; retrieval knows no more of it than this."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lcdoc.documents import Document
from lcdoc.retrieval.passages import Chunk


@dataclass(frozen=True, slots=True)
class Shelved:
    """A document that can be searched: its chunks have the ids in `chunk_ids`, in order, and were cut by `recipe`."""

    document_id: str
    chunk_ids: range
    recipe: str


class Shelf(Protocol):
    """Documents with their chunks, and a connection to the database whose FTS5 table has them indexed."""

    @property
    def vectors_path(self) -> Path:
        """The folder for vector files."""
        ...

    def shelved(self, document_ids: Sequence[str] | None = None) -> list[Shelved]:
        """These documents (default: all), by rising chunk id. Raises an error of its own when one is not there."""
        ...

    def get(self, document_id: str) -> Document: ...

    def chunks(self, document_id: str) -> list[Chunk]:
        """The document's chunks, in order."""
        ...

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A connection in a read transaction."""
        ...
