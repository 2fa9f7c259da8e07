"""A job's files on nodes: read where they lie when a node sees the same ones, else sent.

Whether it does is found out by trying: a file of that path, size, beginning and end is the same file.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

_ENDS_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Mark:
    """What a file is known again by."""

    size: int
    digest: str
    """Of its first and last 64 KiB."""

    @classmethod
    def of(cls, path: str) -> Mark | None:
        """None for a file that cannot be read, or is none."""
        try:
            if not Path(path).is_file():
                return None
            with Path(path).open("rb") as file:
                digest = hashlib.blake2b(file.read(_ENDS_BYTES), digest_size=16)
                size = file.seek(0, os.SEEK_END)
                file.seek(max(_ENDS_BYTES, size - _ENDS_BYTES))
                digest.update(file.read(_ENDS_BYTES))
        except (OSError, ValueError):
            return None
        return cls(size, digest.hexdigest())


def put_down(path: str, data: bytes, folder: Path) -> Path:
    """The bytes as a file of the same name in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    # Of a path of another system, too: its last part.
    copy = folder / (path.replace("\\", "/").rsplit("/", 1)[-1] or "document")
    copy.write_bytes(data)
    return copy
