"""The figure of a table row that stands under the year a question asks about."""

from __future__ import annotations

import re

from lcdoc.agents.candidates import Candidate
from lcdoc.agents.questions import Question
from lcdoc.agents.stems import stems_of

_YEAR = re.compile(r"(?:19|20)\d\d")
_FIGURE = re.compile(r"(?<![\w.,])[-−–]?\(?[$€£¥]?\s?\(?\d[\d.,]*\)?(?:\s?%)?\)?(?!\w)|(?<=\s)[-—–](?=\s|$)")


def cell_of(row: Candidate, question: Question) -> str | None:
    """The figure in the column of the question's year, as it stands there.

    None unless the row has a header of years, one of which the question names, and ends in as many figures. Of a
    candidate of several lines, the line with most of the question's words is the row.
    """
    years = [stem for stem in row.header_stems if _YEAR.fullmatch(stem)]
    named = [year for year in dict.fromkeys(years) if year in question.numbers]
    if len(named) != 1 or years.count(named[0]) != 1:
        return None
    wanted = set(question.stems)
    line = max(row.raw.splitlines(), key=lambda line: len(wanted & set(stems_of(line)))).strip()
    figures = [match[0].strip() for match in _FIGURE.finditer(line)]
    # A label may have figures too ("Notes due 2030"): columns are counted from the right.
    if len(figures) < len(years) or not line.rstrip(" $%)").endswith(figures[-1].rstrip(" $%)")):
        return None
    return figures[len(figures) - len(years) + years.index(named[0])]
