"""Showing what was read: a page's text, a page drawn with its evidence, what the library knows of a document."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from lcdoc.agents.quotes import Citation, check_quote, citation_boxes
from lcdoc.documents import Document, DocumentError, Page
from lcdoc.documents.pdf_image import page_image, write_image
from lcdoc.memory import KeptCache, Library

_MAX_SECTIONS = 200


def find_page(document: Document, wanted: str) -> Page:
    """The page with this number, or else with this printed label. Raises DocumentError."""
    wanted = wanted.strip()
    if wanted.isdecimal() and 1 <= int(wanted) <= len(document.pages):
        return document.pages[int(wanted) - 1]
    for page in document.pages:
        if page.label.lower() == wanted.lower():
            return page
    remedy = f"name a page from 1 to {len(document.pages)}, or a printed label"
    raise DocumentError(document.source.path, f"has no page {wanted!r}", remedy)


def quotes_on(document: Document, page: Page, quotes: Sequence[str]) -> list[Citation]:
    """Where `quotes` stand, the occurrence nearest to `page`. Raises DocumentError for one that is not on it."""
    citations = []
    for quote in quotes:
        citation = check_quote(document, quote, near=page.span)
        if citation is None:
            raise DocumentError(document.source.path, f"does not say {quote!r}", "quote it as it stands there")
        if page.number not in citation.pages:
            raise DocumentError(
                document.source.path,
                f"{quote!r} is not on page {page.number}",
                f"use --page {citation.pages[0]}",
            )
        citations.append(citation)
    return citations


def draw_page(
    document: Document,
    page: Page,
    citations: Sequence[Citation],
    path: str | os.PathLike[str],
    *,
    password: str | None = None,
) -> None:
    """Draw a page of a PDF into the PNG file `path`, with `citations` highlighted. Raises DocumentError."""
    boxes = [box for citation in citations for box in citation_boxes(document, citation, password=password)]
    write_image(page_image(document, page.number, boxes, password=password), path)


def _kept(caches: Sequence[KeptCache]) -> list[str]:
    """What models have read of a document, a line for each model and recipe."""
    kinds = dict.fromkeys((cache.name, cache.recipe) for cache in caches)
    lines = []
    for name, recipe in kinds:
        mine = [cache for cache in caches if (cache.name, cache.recipe) == (name, recipe)]
        pieces = f"{len(mine):,} piece{'s'[: len(mine) != 1]}"
        tokens, size = sum(cache.tokens for cache in mine), sum(cache.bytes for cache in mine) / 1e6
        lines.append(f"{name} by {recipe}: {pieces}, {tokens:,} tokens, {size:,.1f} MB")
    return lines


def description(library: Library, document_id: str) -> dict[str, Any]:
    """What the library knows of a document, as plain JSON values."""
    document = library.get(document_id)
    entry = next(entry for entry in library.list() if entry.id == document_id)
    sections = [
        f"{'  ' * (section.level - 1)}{section.title} (page {document.page_of(section.start).number})"
        for section in document.sections[:_MAX_SECTIONS]
        if section.start < len(document.text)
    ]
    return {
        "id": document.id,
        "title": document.source.title,
        "files": list(entry.paths),
        "type": document.source.media_type,
        "reader": f"{document.source.reader} {document.source.reader_version}",
        "pages": len(document.pages),
        "characters": len(document.text),
        "passages": entry.chunks,
        "kept caches": _kept(library.caches.of_document(document_id)),
        "warnings": list(document.source.warnings),
        "sections": sections,
    }
