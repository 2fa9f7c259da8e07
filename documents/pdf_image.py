"""A page as a picture, with evidence highlighted."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcdoc.documents.builder import Job
from lcdoc.documents.errors import DocumentError
from lcdoc.documents.limits import Limits
from lcdoc.documents.pdf_boxes import PDF, source_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lcdoc.documents.document import Box, Document

_MAX_PIXELS = 50_000_000
_HIGHLIGHT = (255, 221, 51)


def page_image(
    document: Document,
    number: int,
    boxes: Sequence[Box] = (),
    *,
    dots_per_inch: float = 150.0,
    password: str | None = None,
    limits: Limits | None = None,
) -> bytes:
    """Page `number` (from 1) of a PDF as PNG bytes, with those of `boxes` that lie on it highlighted.

    Rendering happens in a process of its own. Raises DocumentError when the document is not a PDF, the page does not
    exist or cannot be drawn; SourceChangedError when the file has changed.
    """
    import base64

    from lcdoc.documents.isolation import run_parser

    path = document.source.path
    if document.source.media_type != PDF:
        raise DocumentError(path, "only pages of a PDF can be drawn", "use the page's text instead")
    if not 1 <= number <= len(document.pages):
        raise DocumentError(path, f"has no page {number}", f"name a page from 1 to {len(document.pages)}")
    job = source_job(document, password=password, limits=limits)
    rectangles = [[box.x0, box.y0, box.x1, box.y1] for box in boxes if box.page == number]
    result = run_parser("render", job, index=number - 1, boxes=rectangles, scale=dots_per_inch / 72)
    return base64.b64decode(result["png"])


def write_image(data: bytes, path: str | os.PathLike[str]) -> None:
    """Write PNG bytes to `path`, all or nothing."""
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DocumentError(str(target), f"cannot be written: {error.strerror}", "name another place") from error


def render_png(job: Job, *, index: int, boxes: list[list[float]], scale: float) -> bytes:
    """In the parser's process: draw page `index` (from 0) at `scale` pixels a point, darkening `boxes` to yellow."""
    from PIL import Image, ImageChops, ImageDraw
    from pypdfium2 import PdfiumError

    from lcdoc.documents.pdf_open import open_pdf

    with open_pdf(job.data, name=job.name, password=job.password) as pdf:
        try:
            page = pdf[index]
            width, height = page.get_size()
            scale = min(scale, (_MAX_PIXELS / max(width * height, 1.0)) ** 0.5)
            bitmap = page.render(scale=scale)
        except PdfiumError:
            raise DocumentError(job.name, f"page {index + 1} cannot be drawn", "the PDF is damaged there") from None
        image: Any = bitmap.to_pil().convert("RGB")
        if boxes:
            to_pixels = bitmap.get_posconv(page).to_bitmap
            marked = Image.new("RGB", image.size, (255, 255, 255))
            draw = ImageDraw.Draw(marked)
            for x0, y0, x1, y1 in boxes:
                (ax, ay), (bx, by) = to_pixels(x0, y0), to_pixels(x1, y1)
                draw.rectangle((min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)), fill=_HIGHLIGHT)
            image = ImageChops.multiply(image, marked)
        out = io.BytesIO()
        image.save(out, format="PNG", optimize=False)
        return out.getvalue()
