"""Where libraries are: a file of this machine, and the server, if any, where machines keep what they share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lcdoc.memory.errors import LibraryAccessError

if TYPE_CHECKING:
    from lcdoc.memory.postgres import PostgresDatabase

SHARED_VARIABLE = "LCDOC_SHARED"


def library_path(path: str | os.PathLike[str] | None = None) -> Path:
    """Where the library is: `path`, else the variable LCDOC_LIBRARY, else the user's data folder."""
    chosen = path or os.environ.get("LCDOC_LIBRARY")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("lcdoc", appauthor=False) / "library.sqlite"


def shared_url(url: str | None = None) -> str | None:
    """The address of the shared state: `url`, else the variable LCDOC_SHARED; None where there is none."""
    return url or os.environ.get(SHARED_VARIABLE) or None


def shared_database(url: str, *, lock_timeout_s: float) -> PostgresDatabase:
    """The shared state at `url`. Raises what `PostgresDatabase` does; LibraryAccessError without its packages."""
    try:
        from lcdoc.memory.postgres import PostgresDatabase
    except ImportError as error:
        problem = f"it needs a package that is not installed ({error.name or error})"
        raise LibraryAccessError("--shared", problem, "pip install 'lcdoc[postgres]'") from error
    return PostgresDatabase(url, lock_timeout_s=lock_timeout_s)
