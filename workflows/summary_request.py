"""What a summary is to be: how long, and about what. The words of the request tell, so a run's record has both.

"Summarize in 300 words: fares and freight"    "Give me an overview of this book"    ""
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_WORDS = 300
LEAST_WORDS, MOST_WORDS = 20, 20_000

_LENGTH = re.compile(
    r"\b(?:(?:in|to|of|within|using|with|about|around|roughly|approximately|maximum|max\.?|at most|up to|not more than"
    r"|no more than|or less|or fewer|auf|höchstens|etwa|en|environ)\s+)*(\d{1,3}(?:[,.']\d{3})+|\d+)[- ]?"
    r"(?:words?|wörtern?|worte?n?|mots?)\b",
    re.IGNORECASE,
)
_OWN = re.compile(r"summarize in (\d+) words(?:: (?P<focus>.+))?", re.IGNORECASE)
_GENERAL = frozenset(
    re.findall(
        r"\w+",
        """a an and any article articles be book books brief briefly by can chapters concise contents contract could
    detailed document documents entire essay everything file files for general gist give given go headline highlights
    i idea ideas important in into is it its key kindly like long main make material me memo message most need novel
    of on our out outline over overview overall page pages paper papers passage pdf please plot point points précis
    produce provide read recap report reports say says sections short should story sum summaries summarise summarize
    summarised summarized summary synopsis takeaway takeaways tell text texts that the their these thesis this those
    to topic topics us want we what whats which whole with words work would write you s about does do abstract
    fasse fass zusammen zusammenfassung zusammenfassen eine einen der die das den des dieses dieser diese buch buches
    dokument dokuments text textes bericht berichts worum geht es gib mir bitte überblick inhalt
    résume résumer résumez résumé un une le la les du de ce cet cette livre texte rapport fais faites moi""",
    )
)


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """`focus` is empty where everything is to be summarised."""

    focus: str = ""
    words: int = DEFAULT_WORDS

    @property
    def question(self) -> str:
        """The request in words, from which `summary_request` makes it again."""
        return f"Summarize in {self.words} words" + (f": {self.focus}" if self.focus else "")


def summary_request(question: str) -> SummaryRequest:
    """What `question` asks for. One that names nothing but documents and summaries is about everything."""
    text = " ".join(question.split())
    if own := _OWN.fullmatch(text):
        return SummaryRequest((own["focus"] or "").strip(), _admitted(own[1]))
    length = _LENGTH.search(text)
    words = _admitted(length[1]) if length else DEFAULT_WORDS
    rest = _LENGTH.sub(" ", text)
    about = [word for word in re.findall(r"[^\W_]+", rest.lower()) if word not in _GENERAL]
    return SummaryRequest(text if about else "", words)


def _admitted(number: str) -> int:
    return max(LEAST_WORDS, min(MOST_WORDS, int(re.sub(r"\D", "", number))))
