"""Which parcels lie in the cluster's object store, and for how long: as many as fit into a part of it.

One that was let go of, or was lost with everybody who had it, is made again where it is wanted.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from lcdoc.jobs.ray.node import Packed


@dataclass(frozen=True, slots=True)
class Stored:
    """A parcel in the object store. Whoever has its reference keeps it there."""

    packed: Packed
    reference: Any


class Parcels:
    """Parcels by document, those used last at the end; the last one stays however large it is. Safe for threads."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._stored: OrderedDict[str, Stored] = OrderedDict()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def keep(self, stored: Stored) -> None:
        """Keep a parcel, for as long as there is room."""
        with self._lock:
            document_id = stored.packed.prepared.document_id
            self._drop(document_id)
            self._stored[document_id] = stored
            self._size_bytes += stored.packed.size_bytes
            while self._size_bytes > self._most_bytes and len(self._stored) > 1:
                self._drop(next(iter(self._stored)))

    def get(self, document_id: str) -> Stored | None:
        """The document's parcel, which was used last then; None where it is not kept."""
        with self._lock:
            stored = self._stored.get(document_id)
            if stored is not None:
                self._stored.move_to_end(document_id)
            return stored

    def drop(self, document_id: str) -> None:
        """Its object is lost."""
        with self._lock:
            self._drop(document_id)

    def _drop(self, document_id: str) -> None:
        if (stored := self._stored.pop(document_id, None)) is not None:
            self._size_bytes -= stored.packed.size_bytes
