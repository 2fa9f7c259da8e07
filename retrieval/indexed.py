"""One document as a search sees it: its chunks, and the vectors that there are so far."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lcdoc.retrieval.embedders import Embedder, Progress, ignore_progress
from lcdoc.retrieval.passages import Chunk
from lcdoc.retrieval.shelf import Shelf, Shelved
from lcdoc.retrieval.vectors import VectorStore

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

PASSAGE_TEXT = 1
"""Number of the rules in `passage_text`: vectors made by other rules must not be compared."""
_HEADINGS = 2


def passage_text(chunk: Chunk, body: str) -> str:
    """What is embedded for a chunk: its innermost headings, unless it begins with them, and its text."""
    text = chunk.span.of(body)
    if not chunk.heading_path or text.startswith(chunk.heading_path[-1]):
        return text
    return f"{' > '.join(chunk.heading_path[-_HEADINGS:])}\n{text}"


class Indexed:
    """A document's chunks by ordinal, with the vectors on the disk and those just made. May be shared by threads."""

    def __init__(self, shelved: Shelved, shelf: Shelf, embedder: Embedder) -> None:
        self.shelved = shelved
        self._shelf = shelf
        self._embedder = embedder
        rules = hashlib.blake2b(f"{PASSAGE_TEXT} {shelved.recipe}".encode(), digest_size=4).hexdigest()
        self._store = VectorStore(shelf.vectors_path, f"{embedder.fingerprint}-{rules}", embedder.dimensions)
        self._lock = threading.Lock()
        self._embedding = threading.Lock()
        """Held while vectors are made, so that two threads do not make the same."""
        self._seen: tuple[int, int] | None = None
        self._unwritten: set[int] = set()
        self.known: Mask = np.zeros(len(shelved.chunk_ids), dtype=bool)
        """Which chunks have a vector."""

    @cached_property
    def chunks(self) -> list[Chunk]:
        return self._shelf.chunks(self.shelved.document_id)

    @cached_property
    def _body(self) -> str:
        return self._shelf.get(self.shelved.document_id).body

    @cached_property
    def vectors(self) -> Matrix:
        """(chunks, dimensions); the rows of chunks without a vector are zero."""
        return np.zeros((len(self.shelved.chunk_ids), self._embedder.dimensions), dtype=np.float32)

    def text(self, ordinal: int) -> str:
        """What is embedded for a chunk."""
        return passage_text(self.chunks[ordinal], self._body)

    def cosines(self, vector: Matrix) -> Floats:
        """Similarity of each chunk and `vector`; NaN where the chunk has no vector."""
        if not self.known.any():
            return np.full(len(self.known), np.nan)
        return np.where(self.known, self.vectors @ vector, np.nan).astype(np.float64)

    def refresh(self) -> None:
        """Read the vector file if somebody wrote it since."""
        document_id = self.shelved.document_id
        try:
            stat = self._store.path(document_id).stat()
        except FileNotFoundError:
            return
        if self._seen != (stat.st_mtime_ns, stat.st_size):
            self._seen = (stat.st_mtime_ns, stat.st_size)
            stored = self._store.load(document_id)
            # An ordinal beyond the last chunk can only come from a file that is not this document's.
            if stored is not None and (not len(stored) or stored.ids[-1] < len(self.known)):
                self._take(stored.ids, stored.matrix)

    def warnings(self) -> list[str]:
        """What was wrong with the vector file, a line each, and not told before."""
        with self._lock:
            told, self._store.warnings = self._store.warnings, []
        return told

    def embed(self, ordinals: Sequence[int], progress: Progress = ignore_progress) -> None:
        """Make the vectors that these chunks lack. `flush` writes them."""
        with self._embedding:
            wanted = [ordinal for ordinal in ordinals if not self.known[ordinal]]
            if not wanted:
                return
            vectors = self._embedder.embed([self.text(ordinal) for ordinal in wanted], progress=progress)
            self._take(np.asarray(wanted, dtype=np.int64), vectors)
            with self._lock:
                self._unwritten.update(wanted)

    def flush(self) -> None:
        """Write what was made to the disk, in one go. Raises VectorStoreError."""
        with self._lock:
            ordinals = sorted(self._unwritten)
            self._unwritten.clear()
        if not ordinals:
            return
        try:
            self._store.add(self.shelved.document_id, ordinals, self.vectors[ordinals])
        except BaseException:
            with self._lock:
                self._unwritten.update(ordinals)
            raise

    def _take(self, ordinals: npt.NDArray[np.int64], matrix: Matrix) -> None:
        with self._lock:
            self.vectors[ordinals] = matrix
            self.known[ordinals] = True
