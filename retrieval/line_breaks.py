"""Where a line of text ends on purpose, and where it is only wrapped.

Text from a PDF or a plain text file comes in lines. A blank line always ends a paragraph, with one exception: a line
of blanks is what `Document.body` leaves where a running header stood, and a sentence that is visibly unfinished goes on
across it. A single line break ends a sentence only when the two lines show that it is no wrap:

- the next line starts with a bullet, or with an item number (`(a)`, `2.`, `1.3`) while this line starts with one too,
  ended early, or ends with `.`, `;`, `:`, `, and` or the like;
- one of them is a Markdown heading or has cells (`|` or a tab inside);
- this line ends with two numbers or the `\\\\` of LaTeX, or both lines end with a number: they are rows of a table;
- this line is in capitals, and the next is not;
- this line ended early: the first word of the next would have fitted into it, by the measure of the lines nearby.

A line that ends with a comma, a hyphen or a word like "of", or before a lower-case letter, always reads on, unless the
next is an item or either has cells.
"""

from __future__ import annotations

import re
from typing import Final

from lcdoc.retrieval.abbreviations import OPEN_WORDS

_BLANKED_LINE: Final = re.compile(r"\n[ \t]+\n")
_BULLET: Final = re.compile(
    "[•‣⁃◦▪▫●○■□◆◇►▶➢➤✓✔❖·\uf0b7\uf0a7\uf0d8]|[-*](?=[ \t])|[–—](?=[ \t]+[^a-z\\s])|#{1,6} |\\|"
)
_ITEM: Final = re.compile(
    r"\(?(?:\d{1,3}|[A-Za-z]|[ivx]{1,5}|[IVX]{1,5})(?:[.)]|\.\))(?=\s)"
    r"|\d{1,2}(?:\.\d{1,3}){1,4}\.?(?=[ \t]+[^\Wa-z\d_])"
)
_LAST_BUT_ONE_ITEM: Final = re.compile(r"[;,] (?:and|or)$")
_TWO_NUMBERS: Final = re.compile(r"(?:[\d%][)%]*|—)[ \t]+[$€£(]*(?:\d[\d,.]*[)%]*|—)$")
_NEARBY: Final = 300
"""How many characters to either side give the measure of a line."""
_EARLY: Final = 0.8
"""A line must fall this far short of the measure to have ended early: characters differ in width."""


def is_paragraph_end(text: str, start: int, end: int) -> bool:
    """Whether the white space `text[start:end]` has a blank line that no running header left behind."""
    return end - start > 1 and text.count("\n", start, end) > 1 and not _BLANKED_LINE.search(text, start, end)


def ends_at_line_break(text: str, newline: int, after: int) -> bool:
    """Whether the line break at `newline` ends a sentence; `after` is the next character that is not white space."""
    if is_paragraph_end(text, newline, after):
        return True
    line = text[text.rfind("\n", 0, newline) + 1 : newline].strip()
    if not line:
        return False
    next_end = text.find("\n", after)
    next_line = (text[after:] if next_end < 0 else text[after:next_end]).rstrip()
    if text.count("\n", newline, after) > 1:
        return not _reads_on(line, next_line)
    marked = not next_line[0].isalpha() or next_line[1:2] in ".)" or next_line[2:3] in ".)"
    if marked and _ITEM.match(next_line):
        ended = line[-1] in ".;:!?…" or _ITEM.match(line) or _LAST_BUT_ONE_ITEM.search(line)
        return bool(ended) or _ended_early(text, newline, line, next_line)
    if line[0] in "#|" or _has_cells(line) or _has_cells(next_line) or (marked and _BULLET.match(next_line)):
        return True
    return not _reads_on(line, next_line) and (
        _is_row(line, next_line)
        or (len(line) > 3 and line.isupper() and not next_line.isupper())
        or _ended_early(text, newline, line, next_line)
    )


def _has_cells(line: str) -> bool:
    return "\t" in line or " | " in line


def _reads_on(line: str, next_line: str) -> bool:
    """Whether the end of `line` or the start of `next_line` shows that a sentence is unfinished."""
    return next_line[0].islower() or line[-1] in ",-–—(&/" or line[-12:].rsplit(maxsplit=1)[-1].lower() in OPEN_WORDS


def _is_row(line: str, next_line: str) -> bool:
    closing = line[-1]
    if closing.isdigit() and next_line[-1].isdigit():
        return True
    if closing == "\\":
        return line.endswith("\\\\")
    return (closing.isdigit() or closing in ")%") and _TWO_NUMBERS.search(line, max(0, len(line) - 40)) is not None


def _ended_early(text: str, newline: int, line: str, next_line: str) -> bool:
    """Whether the first word of `next_line` would have fitted into `line`, by the measure of the lines nearby."""
    near = text[max(0, newline - _NEARBY) : newline + _NEARBY]
    lines = near.split("\n")
    # A blanked running header may stand in front of a line.
    width = max(map(len, map(str.strip, lines) if "    " in near else lines))
    word = 1 if next_line[0] >= "\u2e80" else len(next_line[:24].split(None, 1)[0])
    return len(line) + 1 + word < _EARLY * width
