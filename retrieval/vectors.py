"""Chunk vectors on disk: one FAISS file for each embedder and document.

A file is only ever replaced whole, so readers need no lock. Writers read, merge and replace under one lock file for
each embedder. What is in a file: `vector_file.py`.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lcdoc.retrieval.vector_file import (
    CorruptVectorsError,
    Matrix,
    Ordinals,
    Vectors,
    from_bytes,
    patiently,
    to_bytes,
    write_whole,
)

LOCK_TIMEOUT_S = 60.0
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SUFFIX = ".faiss"

_log = logging.getLogger(__name__)


class VectorStoreError(Exception):
    """Vectors could not be stored. `str(error)` is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """A vector file: whose it is, where it lies, its size."""

    fingerprint: str
    document_id: str
    path: Path
    size_bytes: int


class VectorStore:
    """The vectors one embedder made, under `directory/fingerprint/`.

    `fingerprint` is the embedder's; a caller whose chunks depend on more (the chunker's version) adds that to it, since
    an ordinal means nothing without it. A file that is damaged is moved to `*.corrupt`, counts as missing, and leaves a
    line in `warnings` for the caller to show. Safe for many threads and processes.
    """

    def __init__(self, directory: Path, fingerprint: str, dimensions: int) -> None:
        self._folder = directory / _checked(fingerprint)
        self._dimensions = dimensions
        self.warnings: list[str] = []
        """Damaged files met so far, one line each."""

    def path(self, document_id: str) -> Path:
        """Where the document's vectors are kept. Raises ValueError when the id cannot be a file's name."""
        return self._folder / f"{_checked(document_id)}{_SUFFIX}"

    def load(self, document_id: str) -> Vectors | None:
        """All vectors of a document; None when there are none, or when their file was damaged (see `warnings`)."""
        path = self.path(document_id)
        try:
            return self._read(path)
        except FileNotFoundError:
            return None
        except CorruptVectorsError:
            # A writer may have replaced the file since: look again where no writer can be.
            with self._lock():
                return self._read_or_set_aside(path)

    def missing(self, document_id: str, ids: Sequence[int] | Ordinals) -> list[int]:
        """Those of `ids` that have no vector, in the order given."""
        wanted = np.asarray(ids, dtype=np.int64)
        vectors = self.load(document_id)
        return [int(i) for i in (wanted if vectors is None else wanted[~vectors.has(wanted)])]

    def add(self, document_id: str, ids: Sequence[int] | Ordinals, matrix: Matrix) -> None:
        """Store the vectors `matrix` (n, dimensions) of the chunks `ids`, beside those already there.

        A chunk that has a vector keeps it. When this returns, the vectors are on the disk; when the process dies
        before, the file is as it was. Raises ValueError on ids or vectors that cannot be right, VectorStoreError when
        the file cannot be written.
        """
        path = self.path(document_id)
        new = _validated(ids, matrix, self._dimensions)
        if not len(new):
            return
        with self._lock():
            old = self._read_or_set_aside(path)
            if old is not None:
                fresh = ~old.has(new.ids)
                if not fresh.any():
                    return
                new = _in_order(
                    np.concatenate([old.ids, new.ids[fresh]]), np.concatenate([old.matrix, new.matrix[fresh]])
                )
            try:
                write_whole(path, to_bytes(new))
            except OSError as error:
                raise VectorStoreError(f"{path}: cannot be written ({error}); check space and permissions") from error

    def remove(self, document_id: str) -> None:
        """Forget a document's vectors; nothing happens when there are none."""
        path = self.path(document_id)
        if path.exists():
            with self._lock():
                _remove_files(path)

    def verify(self, document_id: str, count: int) -> list[str]:
        """What is wrong with a document's file, one line each; `count` is the number of its chunks. Changes nothing."""
        return verify_file(self.path(document_id), count, self._dimensions)

    def search(self, document_ids: Sequence[str], query: Matrix, k: int) -> list[tuple[str, int, float]]:
        """The `k` chunks nearest to `query` (dimensions,) as (document id, ordinal, cosine), best first.

        Exact: every vector is compared. Documents without vectors are passed over.
        """
        row = np.ascontiguousarray(query, dtype=np.float32).reshape(1, -1)
        if row.shape[1] != self._dimensions:
            raise ValueError(f"the query has {row.shape[1]} dimensions, the vectors have {self._dimensions}")
        found: list[tuple[str, int, float]] = []
        for document_id in dict.fromkeys(document_ids):
            vectors = self.load(document_id)
            if vectors is None or k < 1:
                continue
            cosines, positions = _flat_index(vectors.matrix).search(row, min(k, len(vectors)))
            found.extend(
                (document_id, int(vectors.ids[position]), float(cosine))
                for cosine, position in zip(cosines[0], positions[0], strict=True)
            )
        found.sort(key=lambda hit: -hit[2])
        return found[:k]

    def _read(self, path: Path) -> Vectors:
        """Raises FileNotFoundError, or CorruptVectorsError when the bytes are not what was written."""
        return from_bytes(path.read_bytes(), self._dimensions)

    def _read_or_set_aside(self, path: Path) -> Vectors | None:
        """As `load`, for the holder of the lock: a damaged file is renamed and reported."""
        try:
            return self._read(path)
        except FileNotFoundError:
            return None
        except CorruptVectorsError as error:
            aside = path.with_name(f"{path.name}.corrupt")
            patiently(lambda: path.replace(aside))
            warning = f"{path}: {error}; moved to {aside.name}, its vectors are made again"
            _log.warning("%s", warning)
            self.warnings.append(warning)
            return None

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with _writing(self._folder):
            yield


def verify_file(path: Path, count: int, dimensions: int | None = None) -> list[str]:
    """What is wrong with a vector file, one line each; nothing if there is none. Changes nothing.

    `count` is the number of the document's chunks; `dimensions` may be anything if not given.
    """
    try:
        vectors = from_bytes(path.read_bytes(), dimensions)
    except FileNotFoundError:
        return []
    except CorruptVectorsError as error:
        return [f"{path}: {error}"]
    problems = []
    if len(vectors) and not 0 <= vectors.ids[0] <= vectors.ids[-1] < count:
        problems.append(f"{path}: has a vector for chunk {vectors.ids[-1]}, the document has {count} chunks")
    lengths = np.linalg.norm(vectors.matrix, axis=1)
    wrong = ~(np.abs(lengths - 1) < 1e-3)
    if wrong.any():
        problems.append(f"{path}: {int(wrong.sum())} of {len(vectors)} vectors are not of length 1")
    return problems


def stored_vectors(directory: Path) -> list[StoredVectors]:
    """Every vector file under `directory`, whichever embedder made it."""
    return [
        StoredVectors(path.parent.name, path.name.removesuffix(_SUFFIX), path, path.stat().st_size)
        for path in sorted(directory.glob(f"*/*{_SUFFIX}"))
    ]


def remove_vectors(directory: Path, document_id: str) -> None:
    """Forget a document's vectors, those of every embedder, and what was set aside as damaged."""
    name = f"{_checked(document_id)}{_SUFFIX}"
    for folder in {path.parent for path in directory.glob(f"*/{name}*")}:
        with _writing(folder):
            _remove_files(folder / name)


def _checked(name: str) -> str:
    if not _FILE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a vector file")
    return name


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. The system frees it when the holder dies."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "writer.lock"
    try:
        with FileLock(lock, timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout as error:
        raise VectorStoreError(
            f"{lock}: another process has held it for {LOCK_TIMEOUT_S:.0f} s; wait for it or stop it"
        ) from error


def _validated(ids: Sequence[int] | Ordinals, matrix: Matrix, dimensions: int) -> Vectors:
    ordinals = np.asarray(ids, dtype=np.int64)
    if matrix.shape != (len(ordinals), dimensions):
        raise ValueError(f"expected {len(ordinals)} vectors of {dimensions}, got an array of {matrix.shape}")
    if len(np.unique(ordinals)) != len(ordinals) or (ordinals < 0).any():
        raise ValueError("chunk ordinals must be different and not negative")
    if not np.isfinite(matrix).all():
        raise ValueError("a vector has a value that is not a finite number")
    return _in_order(ordinals, np.asarray(matrix, dtype=np.float32))


def _in_order(ids: Ordinals, matrix: Matrix) -> Vectors:
    order = np.argsort(ids)
    return Vectors(ids[order], matrix[order])


def _flat_index(matrix: Matrix) -> Any:
    import faiss

    index = faiss.IndexFlatIP(matrix.shape[1])
    index.add(np.ascontiguousarray(matrix))
    return index


def _remove_files(path: Path) -> None:
    for name in (path.name, f"{path.name}.tmp", f"{path.name}.corrupt"):
        path.with_name(name).unlink(missing_ok=True)
