"""Opening a PDF with pdfium: the one place where its errors become ours."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterator
from typing import Any

from lcdoc.documents.errors import CorruptFileError, DocumentError, PasswordError


def _handle(data: bytes, password: str | None) -> Any:
    """A pdfium document handle.

    Old encryption takes Latin-1 passwords; new encryption UTF-8, which some writers bring into compatibility form
    (SASLprep) first. A password is tried as each.
    """
    import pypdfium2.raw as pdfium

    encoded: list[bytes | None] = [None]
    if password is not None:
        encoded = [form.encode("utf-8") + b"\0" for form in (password, unicodedata.normalize("NFKC", password))]
        with contextlib.suppress(UnicodeEncodeError):
            encoded.append(password.encode("latin-1") + b"\0")
    for attempt in encoded:
        handle = pdfium.FPDF_LoadMemDocument64(data, len(data), attempt)
        if handle:
            return handle
    return None


def _error(name: str, password: str | None) -> DocumentError:
    import pypdfium2.raw as pdfium

    code = pdfium.FPDF_GetLastError()
    if code == pdfium.FPDF_ERR_PASSWORD:
        if password is None:
            return PasswordError(name, "the PDF is encrypted", "give its password with --password")
        return PasswordError(name, "the password is wrong", "give the password that opens the PDF")
    if code == pdfium.FPDF_ERR_SECURITY:
        return PasswordError(
            name, "the PDF's encryption is not supported", "save a copy without protection from a PDF viewer"
        )
    return CorruptFileError(
        name, "the PDF is damaged and cannot be opened", "open it in a PDF viewer and save or print it to a new PDF"
    )


@contextlib.contextmanager
def open_pdf(data: bytes, *, name: str, password: str | None) -> Iterator[Any]:
    """A pypdfium2.PdfDocument over `data`, closed afterwards. Raises PasswordError or CorruptFileError."""
    import pypdfium2

    handle = _handle(data, password)
    if handle is None:
        raise _error(name, password)
    pdf = pypdfium2.PdfDocument(handle)
    try:
        if len(pdf) < 1:
            raise CorruptFileError(name, "the PDF has no pages", "check that it is the right file")
        yield pdf
    finally:
        pdf.close()
