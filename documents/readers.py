"""Which module reads which type of content. A new format is one module and one line here."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Protocol, cast

from lcdoc.documents.builder import DocumentBuilder, Job


class ReaderModule(Protocol):
    """What a reader module offers."""

    READER: str
    """The library that does the parsing."""

    def version(self) -> str:
        """Changes whenever the same bytes may give another text."""
        ...

    def read(self, job: Job, builder: DocumentBuilder) -> None:
        """Walk through the file once and fill the builder."""
        ...


_MODULES = {
    "application/pdf": "pdf",
    "application/epub+zip": "epub",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "text/html": "html",
    "text/markdown": "markdown",
    "text/plain": "plain",
}

NORMAL_FORM = 1
"""Revision of `lcdoc.documents.text.normalise` and the builder; part of every reader's version."""


def reader_for(media_type: str) -> ReaderModule:
    """The module that reads `media_type`, which must be one that `sniff` returns."""
    return cast(ReaderModule, import_module(f"lcdoc.documents.{_MODULES[media_type]}"))


@cache
def reader_version(media_type: str) -> str:
    """Version of the reader and of the normal form: a document read by another version is another document."""
    return f"{reader_for(media_type).version()}.{NORMAL_FORM}"
