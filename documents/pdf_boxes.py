"""Where on its pages a span of a PDF stands: rectangles for highlighting.

Documents store no character positions; they are looked up in the file when somebody wants to see a quote. Document text
and page characters differ by hyphens, spaces, ligatures and moved headers, so the two are matched on letters and
digits alone: as a run where possible, else by their longest common subsequence.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

from lcdoc.documents.builder import Job
from lcdoc.documents.errors import SourceChangedError
from lcdoc.documents.limits import Limits

if TYPE_CHECKING:
    from lcdoc.documents.document import Box, Document, Span

PDF = "application/pdf"
_MAX_ALIGNED = 40_000
"""Characters of a page up to which texts that differ are aligned; the cost grows with the square."""
_MAX_GAP = 3
"""Unmatched page characters (punctuation, signs) between two matched ones that belong to the quote all the same."""


def boxes_of(
    document: Document, span: Span, *, password: str | None = None, limits: Limits | None = None
) -> tuple[Box, ...]:
    """See `Document.boxes`."""
    from lcdoc.documents.document import Box
    from lcdoc.documents.isolation import run_parser

    if document.source.media_type != PDF or not len(span):
        return ()
    job = source_job(document, password=password, limits=limits)
    wanted = []
    for page in document.pages_of(span):
        start, end = max(span.start, page.start), min(span.end, page.end)
        holes = [(mark.start, mark.end) for mark in document.marks if mark.start < end and start < mark.end]
        ranges = []
        for hole_start, hole_end in [*holes, (end, end)]:
            if start < hole_start:
                ranges.append([start - page.start, hole_start - page.start])
            start = max(start, hole_end)
        if ranges:
            wanted.append([page.number - 1, document.text[page.start : page.end], ranges])
    found = run_parser("boxes", job, pages=wanted)["boxes"]
    return tuple(Box(index + 1, *rectangle) for index, rectangle in found)


def source_job(document: Document, *, password: str | None, limits: Limits | None) -> Job:
    """The document's file, read again. Raises SourceChangedError unless it is, byte for byte, the same file."""
    from lcdoc.documents.loading import STDIN, read_raw

    source = document.source
    if source.path == STDIN:
        raise SourceChangedError(STDIN, "was read from standard input and is gone", "name the file instead")
    limits = limits or Limits()
    raw = read_raw(source.path, limits=limits)
    if raw.digest != source.digest:
        raise SourceChangedError(source.path, "the file has changed since it was read", "ask again to read it anew")
    return Job(source.path, raw.data, raw.media_type, password, limits)


def find_boxes(job: Job, pages: list[list[Any]]) -> list[tuple[int, list[float]]]:
    """In the parser's process: rectangles for `pages`, a list of [page index, page text, [[start, end], ...]]."""
    from lcdoc.documents.pdf_open import open_pdf

    found: list[tuple[int, list[float]]] = []
    with open_pdf(job.data, name=job.name, password=job.password) as pdf:
        for index, text, ranges in pages:
            page = pdf[index]
            text_page = page.get_textpage()
            characters = _match(text_page, text, ranges)
            found += [(index, rectangle) for rectangle in _rectangles(text_page, characters)]
            text_page.close()
            page.close()
    return found


def _fold(character: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", character).casefold() if c.isalnum())


def _squash(characters: list[str]) -> tuple[str, list[int]]:
    """Letters and digits, folded, each with the index of the character it comes from."""
    folded: list[str] = []
    indices: list[int] = []
    for index, character in enumerate(characters):
        letters = _fold(character)
        folded.append(letters)
        indices += [index] * len(letters)
    return "".join(folded), indices


def _match(text_page: Any, text: str, ranges: list[list[int]]) -> list[int]:
    """Indices of the page's characters that make up the given ranges of the page's text."""
    import pypdfium2.raw as pdfium

    # Surrogate halves and invalid codes come through as they are; they fold to nothing.
    codes = [pdfium.FPDFText_GetUnicode(text_page.raw, i) for i in range(text_page.count_chars())]
    raw, raw_indices = _squash([chr(code) if code < 0x110000 else " " for code in codes])
    folded, indices = _squash(list(text))
    matched: set[int] = set()
    for start, end in ranges:
        positions = [k for k, index in enumerate(indices) if start <= index < end]
        if not positions:
            continue
        first, last = positions[0], positions[-1] + 1
        target = folded[first:last]
        at = _same_occurrence(raw, folded, target, first)
        if at is not None:
            matched.update(raw_indices[at : at + len(target)])
        elif max(len(raw), len(folded)) <= _MAX_ALIGNED:
            matched.update(raw_indices[k] for k in _aligned(folded, raw, first, last))
    return sorted(matched)


def _same_occurrence(raw: str, folded: str, target: str, first: int) -> int | None:
    """Where in `raw` the occurrence of `target` stands that is at `first` in `folded`; None if that is not certain."""
    if raw.count(target) != folded.count(target):
        return None
    at = raw.find(target)
    for _ in range(folded.count(target, 0, first + len(target) - 1) if first else 0):
        at = raw.find(target, at + len(target))
    return at if at >= 0 else None


def _aligned(folded: str, raw: str, first: int, last: int) -> list[int]:
    from rapidfuzz.distance import LCSseq

    positions: list[int] = []
    for block in LCSseq.opcodes(folded, raw):
        if block.tag == "equal":
            begin, end = max(block.src_start, first), min(block.src_end, last)
            shift = block.dest_start - block.src_start
            positions += range(begin + shift, end + shift)
    return positions


def _rectangles(text_page: Any, characters: list[int]) -> list[list[float]]:
    """One rectangle for each run of characters on a line: [x0, y0, x1, y1]."""
    import pypdfium2.raw as pdfium

    filled: list[int] = []
    for index in characters:
        if filled and 1 < index - filled[-1] <= _MAX_GAP + 1:
            filled += range(filled[-1] + 1, index)
        filled.append(index)
    rect = pdfium.FS_RECTF()
    rectangles: list[list[float]] = []
    for index in filled:
        if not pdfium.FPDFText_GetLooseCharBox(text_page.raw, index, rect):
            continue
        x0, x1 = sorted((float(rect.left), float(rect.right)))
        y0, y1 = sorted((float(rect.bottom), float(rect.top)))
        if x1 - x0 < 1e-3 or y1 - y0 < 1e-3:
            continue
        if rectangles and _same_line(rectangles[-1], y0, y1, x0):
            line = rectangles[-1]
            line[:] = [min(line[0], x0), min(line[1], y0), max(line[2], x1), max(line[3], y1)]
        else:
            rectangles.append([x0, y0, x1, y1])
    return rectangles


def _same_line(line: list[float], y0: float, y1: float, x0: float) -> bool:
    overlap = min(line[3], y1) - max(line[1], y0)
    height = min(line[3] - line[1], y1 - y0)
    return overlap > 0.5 * height and line[0] - height <= x0 <= line[2] + 4 * height
