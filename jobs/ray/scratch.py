"""The library of one process of a node: for the documents it is at, and gone when the process is.

What is worth keeping is not in it: answers of models go to the clerk (or to the shared server), results to the job.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

from lcdoc.jobs.ray.parcel import Parcel, pack, unpack
from lcdoc.memory import Library
from lcdoc.memory.calls import Calls
from lcdoc.memory.database import Database

KEPT_DOCUMENTS = 8
"""More than a process works at together; one that is forgotten comes again by its parcel."""
_LOCK = "in-use"


class NodeLibrary(Library):
    """A library whose answers of models are kept elsewhere, and whose secret is the job's: the same document is fenced
    in the same way on every node, so what one was answered, all know."""

    def __init__(self, database: Database, secret: bytes) -> None:
        super().__init__(database)
        self._secret = secret

    def keep_calls_with(self, calls: Calls) -> None:
        """Look answers up, and keep them, there."""
        self.calls = calls


class Scratch:
    """Documents that this process is at, the latest kept. Safe for threads. `close` removes it.

    `library` lies in `folder`, which is this scratch's own: see `scratch_folder`.
    """

    def __init__(self, library: Library, folder: ScratchFolder) -> None:
        self.library = library
        self._folder = folder
        self._lock = threading.Lock()
        self._documents: OrderedDict[str, int] = OrderedDict()
        """Ids, the one used last at the end, and how many are using each."""

    def enter(self, document_id: str) -> bool:
        """Begin to use a document; False where it has to be unpacked first. To be followed by `leave`."""
        with self._lock:
            known = document_id in self._documents
            self._documents[document_id] = self._documents.get(document_id, 0) + 1
            self._documents.move_to_end(document_id)
            return known and self.library.recipe_of(document_id) is not None

    def leave(self, document_id: str) -> None:
        """Use it no longer. It is forgotten when others have been used since."""
        with self._lock:
            self._documents[document_id] -= 1
            while len(self._documents) > KEPT_DOCUMENTS:
                oldest = next((known for known, users in self._documents.items() if not users), None)
                if oldest is None:
                    return
                del self._documents[oldest]
                if self.library.recipe_of(oldest) is not None:
                    self.library.remove(oldest)

    def unpack(self, parcel: Parcel) -> None:
        """Put a document here, between `enter` and `leave`."""
        with self._lock:
            unpack(parcel, self.library)

    def pack(self, document_id: str) -> Parcel:
        """A document that is here, for others."""
        return pack(self.library, document_id)

    def close(self) -> None:
        """Forget everything."""
        self.library.close()
        self._folder.remove()


class ScratchFolder:
    """A folder that is this process's while it lives, under the system's folder for temporary files.

    Processes of Ray are killed as a rule, not ended: whoever makes a folder removes those whose process is gone.
    """

    def __init__(self, base: Path | None = None) -> None:
        from filelock import FileLock

        self._base = base or Path(tempfile.gettempdir()) / f"lcdoc-nodes-{_user()}"
        self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        self.path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self._base))
        # The system frees it when its holder dies.
        self._held = FileLock(self.path / _LOCK)
        self._held.acquire()

    def remove(self) -> None:
        """Give it up, with what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._held.release()

    def _sweep(self) -> None:
        from filelock import FileLock, Timeout

        for folder in self._base.iterdir():
            lock = folder / _LOCK
            if not lock.exists():
                continue  # being made just now
            try:
                with FileLock(lock, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
            except (Timeout, OSError):
                continue


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
