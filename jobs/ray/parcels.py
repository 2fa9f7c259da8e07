"""Which parcels lie in the cluster's object store, and for how long: as many as fit into a part of it.

One that was let go of, or was lost with everybody who had it, is made again where it is wanted.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lcdoc.jobs.ray.node import Packed


@dataclass(slots=True)
class _Kept:
    packed: Packed
    reference: Any
    users: int = 0


class Parcels:
    """References to parcels by document, those used last at the end. Safe for threads.

    A reference holds the object: without one, the object store forgets it.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        with self._lock:
            return sum(kept.packed.size_bytes for kept in self._kept.values())

    def keep(self, packed: Packed, reference: Any) -> None:
        """Keep a parcel, for as long as there is room."""
        with self._lock:
            document_id = packed.prepared.document_id
            kept = self._kept.setdefault(document_id, _Kept(packed, reference))
            kept.packed, kept.reference = packed, reference
            self._kept.move_to_end(document_id)
            self._make_room()

    @contextmanager
    def using(self, document_id: str) -> Iterator[Any]:
        """Its reference, which stays inside the block; None where there is none."""
        with self._lock:
            kept = self._kept.get(document_id)
            if kept is not None:
                kept.users += 1
                self._kept.move_to_end(document_id)
        try:
            yield None if kept is None else kept.reference
        finally:
            with self._lock:
                if kept is not None:
                    kept.users -= 1
                self._make_room()

    def packed(self, document_id: str) -> Packed | None:
        """What is known of a document's parcel."""
        with self._lock:
            kept = self._kept.get(document_id)
            return None if kept is None else kept.packed

    def drop(self, document_id: str) -> None:
        """Its object is lost."""
        with self._lock:
            self._kept.pop(document_id, None)

    def _make_room(self) -> None:
        taken = sum(kept.packed.size_bytes for kept in self._kept.values())
        for document_id, kept in list(self._kept.items()):
            if taken <= self._most_bytes:
                return
            if not kept.users:
                taken -= kept.packed.size_bytes
                del self._kept[document_id]
