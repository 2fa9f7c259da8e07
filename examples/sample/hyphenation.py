"""Where a word of the handbook may be broken at a line end.

`hyphens.txt` lists the book's words with their breaks. A word that is not listed is not broken, so that a new word
never breaks badly; a test of the layout would not notice, a reader would.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import accumulate
from pathlib import Path

_LISTED = {
    listed.replace("-", ""): listed for listed in Path(__file__).with_name("hyphens.txt").read_text("utf-8").split()
}
_LETTERS = re.compile(r"[A-Za-z]+")


@cache
def break_points(word: str) -> tuple[int, ...]:
    """Offsets in `word`, punctuation included, where it may be broken with a hyphen, in order.

    An offset that has a hyphen in front of it already (`light-float`) needs none added.
    """
    points = {index + 1 for index in range(1, len(word) - 2) if word[index] == "-" and word[index + 1].isalpha()}
    for match in _LETTERS.finditer(word):
        *parts, _ = _LISTED.get(match[0].lower(), match[0]).split("-")
        points.update(match.start() + end for end in accumulate(map(len, parts)))
    return tuple(sorted(points))
