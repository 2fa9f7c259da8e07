"""The handbook as plain text, hard-wrapped at 72 columns, as it would have been posted to a mailing list."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from sample.book import IMPRINT, PUBLISHER, SUBTITLE, TITLE, Block, Book, Heading, Listing, Paragraph, Run, Runs, Table

_WIDTH = 72


def make_text(book: Book) -> str:
    """The text: chapters underlined with `=`, sections with `-`, footnotes at the end of their chapter."""
    blocks = [_centred(TITLE.upper()), _centred(SUBTITLE), _centred(PUBLISHER), *(_fill(line) for line in IMPRINT)]
    for chapter in book.chapters:
        blocks.append(f"\n{chapter.title}\n{'=' * len(chapter.title)}")
        blocks += [text for block in chapter.blocks if (text := _block(block))]
        blocks += [_fill(f"[{i}] {_runs(note)}", "    ") for i, note in enumerate(chapter.notes, 1)]
    return "\n\n".join(blocks) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{block.title}\n{'-' * len(block.title)}"
    if isinstance(block, Paragraph):
        return _fill(_runs(block.runs))
    if isinstance(block, Listing):
        signs = [f"{index}. " if block.ordered else "- " for index in range(1, len(block.items) + 1)]
        items = zip(signs, block.items, strict=True)
        return "\n".join(_fill(sign + _runs(item), " " * len(sign)) for sign, item in items)
    if isinstance(block, Table):
        return _table(block)
    return ""


def _runs(runs: Runs) -> str:
    return "".join(run.text + _call(run) for run in runs)


def _call(run: Run) -> str:
    return "" if run.note is None else f"[{run.note + 1}]"


def _table(table: Table) -> str:
    """Columns padded with spaces, as wide as they need to be: a table is not wrapped."""
    rows: list[Sequence[str]] = [[_runs(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    if table.caption:
        lines.insert(0, f"Table {table.number}. {table.caption}\n")
    return "\n".join(lines)


def _centred(text: str) -> str:
    return "\n".join(line.center(_WIDTH).rstrip() for line in textwrap.wrap(text, _WIDTH - 12))


def _fill(text: str, hanging: str = "") -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False)
