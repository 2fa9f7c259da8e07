"""PDFs made for the tests, with reportlab."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

TOP = 770


@dataclass
class PageSpec:
    """Lines of a page as (x, y, text) or (x, y, text, size, font); the label printed on it; bookmarks on it."""

    lines: Sequence[tuple] = ()
    label: tuple[str, int] | None = None
    bookmarks: Sequence[tuple[str, int, float]] = ()
    picture: bool = False
    rotate: int = 0


@dataclass
class PdfSpec:
    """A PDF to make."""

    pages: Sequence[PageSpec] = field(default_factory=list)
    title: str = ""
    password: str = ""


def paragraph(lines: Sequence[str], *, x: float = 72, top: float = TOP, pitch: float = 14) -> list[tuple]:
    """Lines of running text, one under the other."""
    return [(x, top - number * pitch, text) for number, text in enumerate(lines)]


def pdf_bytes(spec: PdfSpec) -> bytes:
    out = io.BytesIO()
    encrypt = None
    if spec.password:
        from reportlab.lib.pdfencrypt import StandardEncryption

        encrypt = StandardEncryption(spec.password, ownerPassword="owner", strength=128)
    canvas = Canvas(out, pagesize=A4, invariant=True, encrypt=encrypt)
    canvas.setTitle(spec.title)
    for number, page in enumerate(spec.pages):
        if page.label:
            style, start = page.label
            canvas.addPageLabel(number, style=style, start=start)
        if page.rotate:
            canvas.setPageRotation(page.rotate)
        for x, y, text, *rest in page.lines:
            size = rest[0] if rest else 11
            canvas.setFont(rest[1] if len(rest) > 1 else "Times-Roman", size)
            canvas.drawString(x, y, text)
        if page.picture:
            canvas.rect(100, 100, 200, 200, fill=1)
        for key, (title, level, y) in enumerate(page.bookmarks):
            canvas.bookmarkHorizontal(f"{number}-{key}", 0, y)
            canvas.addOutlineEntry(title, f"{number}-{key}", level)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


@pytest.fixture
def write_pdf(tmp_path: Path) -> Callable[..., Path]:
    """Write a PDF of the given pages and return its path."""

    def write(*pages: PageSpec, title: str = "", password: str = "", name: str = "made.pdf") -> Path:
        path = tmp_path / name
        path.write_bytes(pdf_bytes(PdfSpec(pages, title, password)))
        return path

    return write


@pytest.fixture
def page_spec() -> type[PageSpec]:
    return PageSpec


@pytest.fixture
def text_lines() -> Callable[..., list[tuple]]:
    return paragraph
