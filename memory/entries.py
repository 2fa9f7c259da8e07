"""Documents as the library lists them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """One document as the library lists it. `paths` are the files it was read from, the latest first."""

    id: str
    title: str
    media_type: str
    paths: tuple[str, ...]
    pages: int
    characters: int
    chunks: int
    added_at: datetime
    used_at: datetime
    """When it was last asked for, to within a day."""

    @property
    def name(self) -> str:
        """What to call it: its title if it has one, else the file's name."""
        return self.title or self.paths[0].replace("\\", "/").rsplit("/", 1)[-1]

    def as_dict(self) -> dict[str, Any]:
        """The entry as plain JSON values; times in ISO 8601."""
        return asdict(self) | {
            "paths": list(self.paths),
            "added_at": self.added_at.isoformat(timespec="seconds"),
            "used_at": self.used_at.isoformat(timespec="seconds"),
        }
