"""Reading the files of sets: JSON and lines of JSON, packed or not."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def json_of(path: Path) -> Any:
    """The one value that the file holds."""
    return json.loads(_bytes(path))


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects that the file holds, a line each; blank lines are passed over."""
    # Not splitlines: texts may hold line separators of Unicode, which end no line of JSON.
    return (json.loads(line) for line in _bytes(path).split(b"\n") if line.strip())


def _bytes(path: Path) -> bytes:
    raw = path.read_bytes()
    return gzip.decompress(raw) if path.suffix == ".gz" else raw
