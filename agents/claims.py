"""Claims made from quotes: the source's words, shortened to the clauses that answer. Nothing is ever reworded."""

from __future__ import annotations

import re

from lcdoc.agents.answer_offers import offer
from lcdoc.agents.questions import Question
from lcdoc.agents.stems import stems_of

LONG_CLAIM_CHARACTERS = 240
"""A quote longer than this is shortened, if some of its clauses say all that the question is about."""
_WORTHWHILE = 0.7
"""A cut is made only if it leaves less than this share of the sentence."""
_CLAUSE_END = re.compile(
    r"(?<=[;—–])\s+|\s+(?=[—–]\s)|(?<=,)\s+(?=(?:and|but|or|which|who|whose|where|while|whereas|although|though|because|since"
    r"|as|so|with|including|such)\b)"
)
_OPENING = re.compile(r"^(?:[•‣⁃◦▪●○■□◆►➢✓*#>|]\s*|[-–—]\s+|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)]\s+(?=\w))+")
_FOOTNOTES = re.compile(r"(?<=[\w.,;)”\"])\[\d{1,3}\]")


def claim_of(quote: str, question: Question) -> str:
    """The claim that `quote` makes about `question`: its words on one line, without bullets, item and footnote numbers.

    Of a long sentence the fewest neighbouring clauses are kept that have every word the whole has in common with the
    question, and the answer it offers; an ellipsis marks each cut.
    """
    text = _FOOTNOTES.sub("", _OPENING.sub("", " ".join(quote.split()))).strip() or quote.strip()
    wanted = set(stems_of(text)) & set(question.stems)
    if len(text) <= LONG_CLAIM_CHARACTERS or not wanted:
        return text
    clauses = _clauses(text)
    offered = offer(question.kind, text, question.known)
    best: tuple[int, int] | None = None
    for first in range(len(clauses)):
        for last in range(first, len(clauses)):
            start, end = clauses[first][0], clauses[last][1]
            if offered.at is not None and not (start <= offered.at[0] and offered.at[1] <= end):
                continue
            if best is not None and end - start >= best[1] - best[0]:
                break
            if wanted <= set(stems_of(text[start:end])):
                best = start, end
                break
    if best is None or best[1] - best[0] > _WORTHWHILE * len(text) or best[1] - best[0] < 30:
        return text
    cut = text[best[0] : best[1]].rstrip(" ,;:—–")
    return f"{'… ' if best[0] else ''}{cut}{' …' if best[1] < len(text) else ''}"


def _clauses(text: str) -> list[tuple[int, int]]:
    """Where the clauses of a sentence begin and end."""
    starts, ends = [0], []
    for match in _CLAUSE_END.finditer(text):
        ends.append(match.start())
        starts.append(match.end())
    return list(zip(starts, [*ends, len(text)], strict=True))
