"""The handbook as one Markdown file, with tables and footnotes as GitHub and Pandoc write them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from sample.book import (
    IMPRINT,
    PUBLISHER,
    SUBTITLE,
    TITLE,
    Block,
    Book,
    Chapter,
    Heading,
    Listing,
    Paragraph,
    Run,
    Runs,
    Table,
)

_WIDTH = 100
_SPECIAL = re.compile(r"([\\*_\[\]`|])")


def make_markdown(book: Book) -> str:
    """The file: the book's title is its only first-level heading."""
    blocks = [f"# {TITLE}", f"*{SUBTITLE}*", PUBLISHER, *(_fill(line) for line in IMPRINT)]
    for chapter in book.chapters:
        blocks.append(f"## {chapter.title}")
        blocks += [text for block in chapter.blocks if (text := _block(chapter, block))]
        blocks += [_fill(f"[^{_call(chapter, i)}]: {_runs(chapter, n)}", "    ") for i, n in enumerate(chapter.notes)]
    return "\n\n".join(blocks) + "\n"


def _block(chapter: Chapter, block: Block) -> str:
    if isinstance(block, Heading):
        return f"### {block.title}"
    if isinstance(block, Paragraph):
        return _fill(_runs(chapter, block.runs))
    if isinstance(block, Listing):
        signs = [f"{index}. " if block.ordered else "- " for index in range(1, len(block.items) + 1)]
        items = zip(signs, block.items, strict=True)
        return "\n".join(_fill(sign + _runs(chapter, item), " " * len(sign)) for sign, item in items)
    if isinstance(block, Table):
        rows = [_row(chapter, block.header), "|" + "---|" * len(block.header)]
        rows += [_row(chapter, row) for row in block.rows]
        caption = f"\n\n*Table {block.number}. {block.caption}*" if block.caption else ""
        return "\n".join(rows) + caption
    return ""


def _row(chapter: Chapter, cells: Sequence[Runs]) -> str:
    return "| " + " | ".join(_runs(chapter, cell) for cell in cells) + " |"


def _runs(chapter: Chapter, runs: Runs) -> str:
    """The runs with their marks set where the face changes; italics may stand inside bold, not round it."""
    text = ""
    bold = italic = False
    for run in (*runs, Run("")):
        text += "*" * (italic and not run.italic) + "**" * (bold and not run.bold)
        text += "**" * (run.bold and not bold) + "*" * (run.italic and not italic)
        bold, italic = run.bold, run.italic
        text += _SPECIAL.sub(r"\\\1", run.text)
        text += f"[^{_call(chapter, run.note)}]" if run.note is not None else ""
    return text


def _call(chapter: Chapter, note: int) -> str:
    return f"{chapter.slug.split('-')[0]}-{note + 1}"


def _fill(text: str, hanging: str = "") -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False)
