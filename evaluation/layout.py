"""Rows as a table: in Markdown, in columns for a file, or in columns that fit a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

_GAP = 2
_LEAST_NAME = 18
"""Characters that the first column, which names the rows, keeps at least."""

Rows = Sequence[Sequence[str]]


def laid_out(rows: Rows, *, markdown: bool = False, width: int | None = None) -> str:
    """Rows, of which the first is the header, as a table.

    A table that is wider than `width` characters has its header and its first column wrapped; where that is not enough,
    columns go below the others, each time behind the first one.
    """
    if markdown:
        body = [f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |" for row in rows]
        return "\n".join([body[0], "|---" * len(rows[0]) + "|", *body[1:]])
    columns = list(zip(*rows, strict=True))
    widths = [max(1, *map(len, column)) for column in columns]
    if width is None or _total(widths) <= width:
        return _block(rows, widths)
    widths[1:] = map(_narrowest, columns[1:])
    widths[0] = min(widths[0], max(_LEAST_NAME, width - _total([0, *widths[1:]])))
    blocks = (
        _block([[row[place] for place in (0, *places)] for row in rows], [widths[place] for place in (0, *places)])
        for places in _bands(widths, width)
    )
    return "\n\n".join(blocks)


def fits(rows: Rows, width: int | None) -> bool:
    """Whether the table needs no more than `width` characters, its header and first column wrapped."""
    if width is None:
        return True
    names, *columns = zip(*rows, strict=True)
    return _total([min(max(map(len, names)), _LEAST_NAME), *map(_narrowest, columns)]) <= width


def _bands(widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """The columns but the first, so many together as fit beside it."""
    band: list[int] = []
    for place in range(1, len(widths)):
        if band and _total([widths[0], *(widths[one] for one in band), widths[place]]) > width:
            yield band
            band = []
        band.append(place)
    yield band


def _block(rows: Rows, widths: Sequence[int]) -> str:
    return "\n".join(line for row in rows for line in _lines(row, widths))


def _lines(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """The lines of a row, each cell wrapped to its column."""
    cells = [textwrap.wrap(text, width) or [""] for text, width in zip(row, widths, strict=True)]
    for number in range(max(map(len, cells))):
        texts = (cell[number] if number < len(cell) else "" for cell in cells)
        yield (" " * _GAP).join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip()


def _narrowest(column: Sequence[str]) -> int:
    """A column's width when only its header is wrapped, between words."""
    return max(*map(len, column[0].split() or [""]), *map(len, column[1:]), 1)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)
