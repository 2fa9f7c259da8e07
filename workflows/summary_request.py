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
_WRITING = (
    "abstract agreement article book brief brochure chat contract conversation debate decision deposition dissertation"
    " document email episode essay file filing guide handbook hearing interview judgment judgement lease lecture letter"
    " manual manuscript meeting memo message minutes notes novel pamphlet paper pdf plan play podcast poem policy"
    " presentation prospectus report review script slides specification speech story study survey tale talk text thesis"
    " thread transcript treaty will work"
)
"""What documents are called."""
_NAMED = re.compile(
    rf"\b(?:[Tt]he|[Tt]his|[Tt]hat|[Mm]y|[Oo]ur|[Yy]our)\s+"
    rf"(?:(?!(?:first|second|third|last|final|opening|next)\b)[a-z-]+\s+){{1,2}}(?:{_WRITING.replace(' ', '|')})s?"
    r"(?=\s*(?:[.?!,;]|$|about\s*[.?!]?$|in\s+brief))",
)
"""A document by the kind it is of: "the annual report". Names of its own are left to be a focus."""
_SAYS_ABOUT = re.compile(
    r"\b(?:says?|said|mentions?|sagt|sagen|dit|disent)\b.{0,40}"
    r"\b(?:about|on|regarding|concerning|über|sur)\s+\w",
    re.IGNORECASE,
)
_GENERAL = frozenset(
    re.findall(
        r"\w+",
        """a all an and any are articles as at be been books briefly bullet bullets by can chief concise contents
    contracts core could create crucial detail detailed details digest do document documents does draft dr entire
    essential everything executive facts files findings first for from full general generate get gist give given
    go good had
    happen happened happens has have headline headlines high highlights i idea ideas important in into is it its
    just key kindly level like list long made main major make material me most much need now nutshell of on one or
    our out outline over overview overall page pages papers paragraph paragraphs passage passages please plot point
    points précis present prepare produce provide quick quickly read recap recapitulate report reports s said say
    says sections sentence sentences short should simple sum summaries summarise summarised summarising summarize
    summarized summarizing summary synopsis takeaway takeaways tell texts than that the their them there these they
    thing things this those tl tldr to topic topics two three four five under up us very want was we were what whats
    which whole with words works would write you your about happening essence abstract
    alle aller am an auf aus bitte buch buches bericht berichts berichte das dem den der des die dies diese diesem
    diesen dieser dieses dokument dokumente dokuments ein eine einem einen einer eines erstelle fass fasse fassen
    fassung ganze ganzen geht gib handelt handbuch handbuchs hauptpunkte im in inhalt inhalts ist kannst können
    kernaussagen knapp kurz kurze kurzen mach mir roman romans sie steht text textes überblick um und uns vertrag
    vertrags vertrages von was wesentlichen wichtigsten punkte wie wovon worum zusammen zusammenfassen
    zusammenfassung zusammenzufassen geben über es du
    au aux dans sur ce ces cet cette contrat d de des document documents du en est et fais faire faites il l la
    le les livre
    manuel moi nous on parle parlent peux points pouvez principaux principales idées propos quoi que quel quels
    quelles rapport récit résume résumer résumez résumé rédige rédigez roman s sont sujet synthèse texte traite agit
    un une tout tu vous brièvement essentiel clés bref""",
    )
) | frozenset(_WRITING.split())
"""Words of which a request for everything is made."""


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
    about = [word for word in re.findall(r"[^\W_]+", _NAMED.sub(" ", rest).lower()) if word not in _GENERAL]
    return SummaryRequest(text if about or _SAYS_ABOUT.search(rest) else "", words)


def _admitted(number: str) -> int:
    return max(LEAST_WORDS, min(MOST_WORDS, int(re.sub(r"\D", "", number))))
