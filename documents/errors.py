"""What can go wrong while a file becomes a document. Every message names the file and what to do about it."""

from __future__ import annotations


class DocumentError(Exception):
    """A file could not be read.

    `path` names the file, `problem` says what happened, `remedy` says what the user can do. `str(error)` is one line.
    """

    def __init__(self, path: str, problem: str, remedy: str = "") -> None:
        self.path = path
        self.problem = problem
        self.remedy = remedy
        message = f"{path}: {problem}"
        super().__init__(f"{message}; {remedy}" if remedy else message)


class NotFoundError(DocumentError):
    """The path does not exist or is not a readable file."""


class UnsupportedTypeError(DocumentError):
    """The content is of a type lcdoc has no reader for."""


class CorruptFileError(DocumentError):
    """The content is of a known type but cannot be parsed."""


class PasswordError(DocumentError):
    """The file is encrypted and the password is missing or wrong."""


class EmptyDocumentError(DocumentError):
    """The file was parsed, but there is no text in it (for a PDF: no page has a text layer)."""


class LimitError(DocumentError):
    """A bound of `Limits` was reached: size, pages, characters, unzip ratio, time or memory."""


class ParserCrashError(DocumentError):
    """The parser's process died (a native library crashed or was killed)."""


class SourceChangedError(DocumentError):
    """The file on disk is no longer the one the document was made from, so offsets cannot be mapped to its pages."""
