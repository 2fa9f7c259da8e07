"""The text of a file that is nothing but text: plain, Markdown, HTML."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.charset import Decoded, decode
from lcdoc.documents.errors import CorruptFileError, LimitError

_ROOM_FOR_MARKUP: Final = 4
"""Characters of a source to one of its text, at most; more stops before anything is parsed."""


def read_text(job: Job, builder: DocumentBuilder, decoder: Callable[[bytes], Decoded | None] = decode) -> str:
    """The file's characters; the builder is warned of a guessed encoding and of lost characters.

    Raises CorruptFileError when the bytes are no text, LimitError when there are far more than `Limits` admit.
    """
    decoded = decoder(job.data)
    if decoded is None:
        raise CorruptFileError(job.name, "is not text in any known encoding", "save the file again as UTF-8")
    most = _ROOM_FOR_MARKUP * job.limits.max_characters
    if len(decoded.text) > most:
        raise LimitError(
            job.name, f"more than {most:,} characters of source", "raise Limits.max_characters, or split the file"
        )
    if decoded.warning:
        builder.warn(decoded.warning)
    return decoded.text
