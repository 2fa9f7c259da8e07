"""A file that is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lcdoc.jobs.errors import JobError


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A stream into what takes the place of `path` when the block ends, through a power failure. Raises JobError where
    it cannot be written; what was there before stays then, and where the block raises."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power failure, where the system can."""
    if os.name != "nt":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def unwritable(path: Path, error: OSError) -> JobError:
    """The error of a file that cannot be written."""
    return JobError(f"{path} cannot be written ({error.strerror})", "name another place, or make room")
