"""One document's vectors as the bytes of a file: a FAISS index and a checksum, replaced whole.

The index is an `IndexIDMap2` over an `IndexFlatIP` whose ids are the ordinals of the chunks in their document. The
checksum follows it, where FAISS does not look, so `faiss.read_index` opens the file as it is.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
Ordinals = npt.NDArray[np.int64]

_CHECK_MARK = b"lcdocCRC"
_CHECK_BYTES = len(_CHECK_MARK) + 4


class CorruptVectorsError(Exception):
    """The bytes are not a whole vector file."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """A document's vectors: `ids` (n,) chunk ordinals, rising; `matrix` (n, dimensions), rows of length 1."""

    ids: Ordinals
    matrix: Matrix

    def __len__(self) -> int:
        return len(self.ids)

    def has(self, ids: Sequence[int] | Ordinals) -> npt.NDArray[np.bool_]:
        """For each of `ids`, whether its vector is here."""
        return np.isin(np.asarray(ids, dtype=np.int64), self.ids)

    def of(self, ids: Sequence[int] | Ordinals) -> Matrix:
        """The vectors of `ids`, in that order: (len(ids), dimensions). Raises KeyError when one is not here."""
        wanted = np.asarray(ids, dtype=np.int64)
        present = self.has(wanted)
        if not present.all():
            raise KeyError(f"no vector for chunk {wanted[~present][0]}")
        return self.matrix[np.searchsorted(self.ids, wanted)]


def to_bytes(vectors: Vectors) -> bytes:
    """What `from_bytes` reads."""
    import faiss

    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.matrix.shape[1]))
    index.add_with_ids(np.ascontiguousarray(vectors.matrix), vectors.ids)
    data: bytes = faiss.serialize_index(index).tobytes()
    return data + _CHECK_MARK + zlib.crc32(data).to_bytes(4, "little")


def from_bytes(data: bytes, dimensions: int | None) -> Vectors:
    """The vectors of a file. Raises CorruptVectorsError.

    FAISS trusts the sizes it reads, so it is only given bytes whose checksum is right.
    """
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if check != _CHECK_MARK + zlib.crc32(body).to_bytes(4, "little"):
        raise CorruptVectorsError(f"the vector file is damaged or cut short ({len(data)} bytes)")
    import faiss

    index: Any = faiss.deserialize_index(np.frombuffer(body, dtype=np.uint8))
    if dimensions is not None and index.d != dimensions:
        raise CorruptVectorsError(f"its vectors have {index.d} dimensions, expected {dimensions}")
    ids: Ordinals = faiss.vector_to_array(index.id_map)
    flat: Any = faiss.downcast_index(index.index)
    matrix: Matrix = faiss.rev_swig_ptr(flat.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d).copy()
    return Vectors(ids, matrix)


def write_whole(path: Path, data: bytes) -> None:
    """Replace the file in one step. The holder of the lock is the only writer, so one temporary name is enough."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    patiently(lambda: temporary.replace(path))
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def patiently(step: Callable[[], object]) -> None:
    """Do `step`; Windows refuses to replace a file while somebody reads it, so there a refusal is tried again."""
    for delay_s in (0.01, 0.05, 0.2, 0.5) if os.name == "nt" else ():
        try:
            step()
        except PermissionError:
            time.sleep(delay_s)
        else:
            return
    step()
