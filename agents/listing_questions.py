"""Questions that ask how many things there are, or for all of them: told by their form, by code.

English, and the common forms of German and French. "How many passengers may she carry?" has the form as well; whether
the text states the number or names the things is for whoever reads it to find out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from lcdoc.agents.answer_types import TIME_UNIT

Language = Literal["en", "de", "fr"]

_MEASURE = (
    rf"(?:{TIME_UNIT}|(?:kilo|centi|milli)?(?:met(?:re|er)|gram|lit(?:re|er))s?|miles?|feet|foot|inch(?:es)?|knots?"
    r"|ton(?:ne)?s?|pounds?|degrees?|percent|per\s+cent|dollars?|euros?|(?:hundred|thousand|million|billion)s?)"
)
_MESURE = (
    r"(?:temps|fois|(?:seconde|minute|heure|jour|semaine|an|année|mètre|kilomètre|gramme|kilo|litre|tonne|euro"
    r"|degré)s?|mois|pour\s+cent)"
)
_MASS = (
    r"(?:zeit|geld|(?:sekunde|minute|stunde|woche)n?|(?:tag|jahr|monat)e?n?|(?:kilo)?(?:meter|gramm)|liter|tonnen?|euro|grad"
    r"|prozent|mal)"
)
# A plural: ends in s, but not as `glass`, `bus`, `analysis`, `gas`; or one of the common irregular ones.
_PLURAL = (
    r"(?:\w{2,}(?:[^\W\d_suia]|ia)s|\w+(?:[^aeiou]ea|[nr]a)s|people|men|women|children|(?:fisher|work|chair|police)men|data"
    r"|criteria|phenomena|feet|mice|series|species)"
)
_NO_PLURAL = r"(?!(?:gas|atlas|canvas|bias|lens|news|always|does|was|has|is|this|as)\b)"
_SEVERAL = r"(?:two|three|four|five|six|seven|eight|nine|ten|several|other|\d+)"
_AUXILIARY = r"(?:are|were|have|had|do|did|does|may|might|can|could|must|should|shall|will|would|was)"
_AFTER_VERB = (
    r"(?:an?|the|his|her|its|their|my|our|this|that|these|those|it|him|them|to|in|into|on|at|by|from|for|with|as|and|or"
    r"|when|if|no|not|only|up|out|over|off|down|away|back|between|through|after|before|most|more|best|first|last)"
)
"""What follows "Which word stops", where "stops" is the verb."""
_START = r"(?:^|[,;:]\s+)(?:(?:in|on|at|for|by|from|to|of|with|under|between)\s+)?"
_ALL = r"(?:all|every|each|the|any)"

_FORMS: tuple[tuple[Language, bool, str], ...] = (
    ("en", True, rf"\bhow\s+many\s+(?:of\s+)?(?!(?:\w+\s+)?{_MEASURE}\b)\w"),
    ("en", True, r"\b(?:what\s+is\s+the|give\s+the|state\s+the)\s+(?:total\s+)?number\s+of\s+(?:\w+\s+){0,3}?\w+s\b"),
    ("en", True, rf"^(?:please\s+)?count\s+{_ALL}\b"),
    (
        "en",
        False,
        rf"^(?:please\s+|can\s+you\s+|could\s+you\s+)*(?:list|enumerate|name|itemi[sz]e)\s+(?:me\s+)?{_ALL}\b",
    ),
    ("en", False, rf"^(?:please\s+)?(?:list|enumerate)\s+(?:\w+\s+){{0,3}}?{_NO_PLURAL}{_PLURAL}\b"),
    ("en", False, r"\b(?:give|make|show)\s+(?:me\s+)?(?:an?\s+|the\s+)?(?:\w+\s+)?list\s+of\b"),
    ("en", False, r"\b(?:find|give|show|identify|mention)\s+(?:me\s+)?(?:all|every)\b"),
    ("en", False, rf"{_START}which\s+(?:of\s+the\s+)?[\w-]+\s+{_NO_PLURAL}{_PLURAL}\s+(?!{_AFTER_VERB}\b)\w"),
    # "Which lights ...", but "Which word stops ..." and "What happens ..." have a verb there.
    ("en", False, rf"{_START}which\s+(?:(?:of\s+)?the\s+)?(?:{_SEVERAL}\s+)?{_NO_PLURAL}{_PLURAL}\s+\w"),
    (
        "en",
        False,
        rf"{_START}(?:which|what)\s+(?:of\s+the\s+)?(?:[\w-]+\s+){{0,2}}?{_NO_PLURAL}{_PLURAL}\s+(?:\w+\s+)?{_AUXILIARY}\b",
    ),
    (
        "en",
        False,
        rf"\b(?:what|who)\s+(?:are|were)\s+(?:all\s+)?(?:the|all)\s+(?:\w+\s+){{0,3}}?{_NO_PLURAL}{_PLURAL}\b",
    ),
    ("de", True, rf"\bwie\s*viele?\s+(?!{_MASS}\b)\w"),
    ("de", True, r"\b(?:wie\s+(?:hoch|groß)\s+ist|was\s+ist|nenne)\s+die\s+(?:an)?zahl\s+(?:der|von)\b"),
    ("de", False, r"^(?:bitte\s+)?(?:nenne?n?|liste?n?|zähle?n?)\s+(?:sie\s+|mir\s+)*(?:alle|sämtliche|die)\b"),
    (
        "de",
        False,
        r"^(?:in\s+|an\s+|auf\s+|von\s+|bei\s+)?welchen?\s+(?:\w+\s+){1,3}?(?:sind|waren|gibt|gab|haben|hatten|wurden|werden|dürfen|können)\b",
    ),
    ("fr", True, rf"\bcombien\s+(?:y\s+a-t-il\s+)?(?:de\s+|d['’])(?!{_MESURE}\b)\w"),
    ("fr", True, r"\bquel\s+est\s+le\s+nombre\s+(?:de|des|d['’])"),
    (
        "fr",
        False,
        r"^(?:veuillez\s+)?(?:énumére[rz]|liste[rz]|cite[rz]|nomme[rz])[\w-]*\s+(?:tous|toutes|les|chaque)\b",
    ),
    ("fr", False, r"^(?:dans\s+|à\s+|pour\s+)?quel(?:s|les)\s+(?:sont|étaient|\w+)\b"),
)
_COMPILED = tuple((language, counts, re.compile(form, re.IGNORECASE)) for language, counts, form in _FORMS)
_MOST_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class ListingQuestion:
    """What such a question wants."""

    language: Language
    counts: bool
    """Whether it asks for the number; else for the things."""


def listing_question(question: str) -> ListingQuestion | None:
    """What `question` wants, if it asks how many things there are, or for all of them; None for any other."""
    text = " ".join(question.split())[:_MOST_CHARACTERS]
    for language, counts, form in _COMPILED:
        if form.search(text):
            return ListingQuestion(language, counts)
    return None


def is_listing(question: str) -> bool:
    """Whether `question` asks how many things there are, or for all of them."""
    return listing_question(question) is not None
