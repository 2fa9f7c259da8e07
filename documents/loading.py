"""`load`: from a path or bytes to a Document."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from lcdoc.documents.builder import Job, Progress, ignore_progress
from lcdoc.documents.document import Document
from lcdoc.documents.errors import DocumentError, LimitError, NotFoundError
from lcdoc.documents.isolation import run_parser
from lcdoc.documents.limits import Limits
from lcdoc.documents.readers import reader_for, reader_version
from lcdoc.documents.sniff import sniff

STDIN = "-"


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file's bytes with what is known before parsing: its digest, and by its content what it is and who reads it."""

    name: str
    data: bytes
    digest: str
    media_type: str
    reader: str
    reader_version: str


def read_raw(path: str | os.PathLike[str], *, limits: Limits | None = None) -> RawFile:
    """Read a file (`-` is standard input) without parsing it.

    Raises NotFoundError, LimitError (too large), UnsupportedTypeError, EmptyDocumentError.
    """
    limits = limits or Limits()
    name = os.fspath(path)
    return identify(_read_stdin(limits) if name == STDIN else _read_file(name, limits), name)


def identify(data: bytes, name: str) -> RawFile:
    """What these bytes are. `name` is used in messages, and breaks ties between kinds of text."""
    media_type = sniff(data, name)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return RawFile(name, data, digest, media_type, reader_for(media_type).READER, reader_version(media_type))


def parse(
    raw: RawFile,
    *,
    password: str | None = None,
    limits: Limits | None = None,
    progress: Progress = ignore_progress,
) -> Document:
    """Parse in a child process. Raises a DocumentError that says what is wrong with the file and what to do."""
    job = Job(raw.name, raw.data, raw.media_type, password, limits or Limits(), progress)
    result = run_parser("read", job, digest=raw.digest)
    return Document.from_layout(result["text"], result["layout"])


def load(
    path: str | os.PathLike[str],
    *,
    password: str | None = None,
    limits: Limits | None = None,
    progress: Progress = ignore_progress,
) -> Document:
    """The document in a file: PDF, EPUB, DOCX, HTML, Markdown or plain text, told apart by content.

    `path` may be `-` for standard input. `progress` is called with (parts done, total). Raises DocumentError.
    """
    return parse(read_raw(path, limits=limits), password=password, limits=limits, progress=progress)


def load_bytes(
    data: bytes,
    name: str,
    *,
    password: str | None = None,
    limits: Limits | None = None,
    progress: Progress = ignore_progress,
) -> Document:
    """The document in `data`; `name` stands for the path in messages and citations. Raises DocumentError."""
    limits = limits or Limits()
    if len(data) > limits.max_bytes:
        raise _too_large(name, len(data), limits)
    return parse(identify(data, name), password=password, limits=limits, progress=progress)


def _too_large(name: str, size: int, limits: Limits) -> LimitError:
    return LimitError(
        name,
        f"{size:,} bytes, more than the limit of {limits.max_bytes:,}",
        "raise Limits.max_bytes, or split the file",
    )


def _read_file(name: str, limits: Limits) -> bytes:
    path = Path(name)
    try:
        if path.is_dir():
            raise NotFoundError(name, "is a folder", "name a file in it")
        if path.exists() and not path.is_file():
            raise NotFoundError(name, "is not a regular file", "name a file")
        size = path.stat().st_size
        if size > limits.max_bytes:
            raise _too_large(name, size, limits)
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(name, "no such file", suggestion(path)) from None
    except PermissionError:
        raise NotFoundError(name, "permission denied", "check who may read the file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DocumentError(name, f"cannot be read: {reason}", "check the path") from error
    return data


def suggestion(path: Path) -> str:
    """A file of nearly that name in the same folder, since a typing error is the usual cause."""
    import difflib

    try:
        names = sorted(entry.name for entry in path.parent.iterdir())[:10_000]
    except OSError:
        return "check the path"
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.parent / close[0]}?" if close else "check the path"


def _read_stdin(limits: Limits) -> bytes:
    data = sys.stdin.buffer.read(limits.max_bytes + 1)
    if len(data) > limits.max_bytes:
        raise LimitError(
            STDIN,
            f"more than the limit of {limits.max_bytes:,} bytes",
            "raise Limits.max_bytes, or pass a smaller file",
        )
    return data
