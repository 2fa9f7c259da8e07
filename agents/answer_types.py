"""What kind of answer a question wants: a person, a date, a number, a reason.

English question words, nothing more. A question in another language, or one that asks for nothing in particular, is of
type `other`, for which every sentence is as good as the next.
"""

from __future__ import annotations

import re
from typing import Final, Literal

AnswerType = Literal[
    "person", "date", "duration", "number", "money", "percent", "place", "reason", "manner", "definition", "other"
]

MONTH: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
TIME_UNIT: Final = (
    r"(?:second|minute|hour|day|night|week|fortnight|month|quarter|year|decade|centur(?:y|ie)|millenni\w*)s?"
)

_WHAT_IS: Final = r"\bwhat(?:'s|\s+(?:is|was|are|were))\s+(?:the\s+)?"

# The first form that fits decides, so that "how many years" is a duration before it is a number.
_PATTERNS: Final[tuple[tuple[AnswerType, str], ...]] = (
    (
        "duration",
        rf"""
            \bhow\s+long\b | \bhow\s+(?:much\s+time|many\s+{TIME_UNIT})\b | {_WHAT_IS}length\s+of\s+time\b
            | \bduration\b | \bnotice\s+period\b
            """,
    ),
    (
        "percent",
        rf"""
            \b(?:what|which)\s+(?:percent\w*|proportion|fraction|share|portion)\b
            | \bhow\s+(?:many|much)\s+percent\b | \bpercentage\s+of\b
            | {_WHAT_IS}(?:[\w-]+\s+){{0,6}}(?:percent\w*|rate|margin|yield)\b
            """,
    ),
    (
        "money",
        rf"""
            \bhow\s+much\s+(?:money|is|was|are|were)\b | \bwhat\s+(?:price|cost|salary|fee|amount)\b
            | \bhow\s+much\s+(?:do|does|did)\s+(?:[\w'’.&-]+\s+){{1,8}}(?:cost|pay|spend|earn|raise|sell|charge)\b
            | {_WHAT_IS}(?:[\w/&'’.-]+\s+){{0,7}}
              (?:price|costs?|salary|wage|fees?|revenues?|sales|income|profit|expenditures?|capex|expenses?|earnings
              |ebit\w*|dividends?|debt|(?<!on\s)assets|liabilities|payables?|receivables?|(?:cash\s+)?flows?|budget|rent
              |fine|penalty|royalt\w+|compensation|amount|balance)\b
            """,
    ),
    (
        "number",
        rf"""
            \bhow\s+(?:many|much|old|far|tall|high|deep|large|big|wide|fast|heavy|often|hot|cold)\b
            | \bwhat\s+(?:number|amount|quantity|age|distance|height|size|temperature|score|population|ratio)\b
            | {_WHAT_IS}(?:[\w-]+\s+){{0,4}}
              (?:number|quantity|age|distance|height|size|temperature|score|population|ratio|rate|value|maximum|minimum
              |limit|total|average|sum|length|depth|width|weight|speed|capacity|turnover|change|difference|increase
              |decrease|growth)\b
            | \bworking\s+capital\b | \breturn\s+on\s+(?:assets|equity|investment)\b | \bcoverage\s+ratio\b
            """,
    ),
    (
        "date",
        rf"""
            \bwhen\b | \b(?:what|which)\s+(?:years?|dates?|day|month|decade|century|time|era|period|season|{MONTH})\b
            | {_WHAT_IS}(?:[\w-]+\s+){{0,3}}(?:date|year|deadline)\b
            """,
    ),
    (
        "reason",
        rf"""
            \bwhy\b | \bhow\s+come\b | \bfor\s+what\s+(?:reason|purpose)\b
            | {_WHAT_IS}(?:[\w-]+\s+){{0,2}}(?:reasons?|causes?|purpose|motive|rationale)\b
            | \bwhat\s+(?:caused|causes|led|leads|prompted|made)\b
            """,
    ),
    (
        "person",
        rf"""
            \bwho\b | \bwhom\b | \bwhose\b | {_WHAT_IS}names?\s+of\b
            | \b(?:what|which)\s+
              (?:person|man|woman|king|queen|emperor|president|author|scientist|artist|actor|actress|general|pope
              |philosopher|mathematician|physicist|player|leader|company|party|team|group|organi[sz]ation)\b
            """,
    ),
    (
        "place",
        rf"""
            \bwhere\b | {_WHAT_IS}(?:capital|location|venue|address)\b
            | \b(?:what|which)\s+
              (?:city|country|state|town|place|location|region|continent|county|province|island|river|street|area
              |district|village|building|university|school)\b
            """,
    ),
    (
        "definition",
        r"""
            \bwhat\s+(?:do|does|did)\s+.{2,60}?\s+(?:mean|stand\s+for|refer\s+to|denote)\b | \bwhat\s+is\s+meant\s+by\b
            | \bdefin(?:e|ition|ed)\b
            | ^\s*(?:what|who)\s+(?:is|are|was|were)\s+(?:an?\s+)?(?:[\w'’“”"-]+\s*){1,3}\?*$
            """,
    ),
    (
        "manner",
        r"""
            \bhow\s+(?:do|does|did|is|are|was|were|can|could|should|would|will|to|has|have)\b
            | \bby\s+what\s+means\b | \bin\s+what\s+way\b
            """,
    ),
)
_FORMS: Final = [(kind, re.compile(pattern, re.IGNORECASE | re.VERBOSE)) for kind, pattern in _PATTERNS]


def answer_type(question: str) -> AnswerType:
    """The kind of answer `question` wants; `other` when nothing tells."""
    return next((kind for kind, form in _FORMS if form.search(question)), "other")
