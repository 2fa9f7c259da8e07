"""A prepared document on its way from the node that read it to those that are asked about it.

It is read, cut and embedded once; wherever it is unpacked it is searched at once, with the same passages and vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.retrieval.passages import Chunk
from lcdoc.retrieval.vector_file import write_whole
from lcdoc.retrieval.vectors import stored_vectors


@dataclass(frozen=True, slots=True)
class Parcel:
    """A document with its chunks and vectors, out of one library and for another."""

    document: Document
    chunks: tuple[Chunk, ...]
    recipe: str
    """How the chunks were cut."""
    vectors: tuple[tuple[str, bytes], ...]
    """The names of embedders, as vector files have them, and the bytes of the file of each."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in the object store."""
        return len(self.document.text.encode("utf-8", "replace")) + sum(len(data) for _, data in self.vectors)


def pack(library: Library, document_id: str) -> Parcel:
    """The document as this library holds it. Raises UnknownDocumentError."""
    document = library.get(document_id)
    vectors = [stored for stored in stored_vectors(library.vectors_path) if stored.document_id == document_id]
    return Parcel(
        document,
        tuple(library.chunks(document_id)),
        library.recipe_of(document_id) or "",
        tuple((stored.fingerprint, stored.path.read_bytes()) for stored in vectors),
    )


def unpack(parcel: Parcel, library: Library) -> None:
    """Put the document into this library, unless it is there. Raises LibraryError."""
    if library.recipe_of(parcel.document.id) != parcel.recipe:
        for fingerprint, data in parcel.vectors:
            folder = library.vectors_path / fingerprint
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / f"{parcel.document.id}.faiss", data)
        # Last: who finds the document there may search it.
        library.add(parcel.document, parcel.chunks, recipe=parcel.recipe)
