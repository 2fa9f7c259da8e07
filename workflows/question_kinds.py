"""What kind of work a question asks for, told by its words: English, and the common forms of German and French.

The kinds are those whose best workflow differs. `agents.answer_types` tells what an answer looks like (a date, a name),
this tells how much of the documents it takes to give one. A question that shows no sign of another kind is a look-up.
"""

from __future__ import annotations

import re
from typing import Final, Literal

QuestionKind = Literal["look-up", "list", "comparison", "chain", "theme", "summary"]
"""`look-up`: stands in one place. `list`: every instance of something, or how many. `comparison`: of things that stand
apart. `chain`: why and how, one fact leading to the next. `theme`: what the whole is like. `summary`: what it says."""

MAX_QUESTION_CHARACTERS = 2_000
"""What of a question is looked at: more is no question but a text."""


def _any(words: str) -> str:
    """Matches any of the words, which are patterns with white space between them."""
    return f"(?:{'|'.join(words.split())})"


_ASKED: Final = r"(?:^|[.!?;:,]\s*)(?:(?:please|can you|could you|would you|kindly|now|then|bitte)\s+)*"
"""Where a request begins."""
_AUX: Final = _any("is are was were do does did has have had can could")
_SMALL_NUMBER: Final = _any("an? one two three four five six seven eight nine ten half once twice")
_COMPARATIVE: Final = _any(
    "higher lower larger greater bigger smaller older younger longer shorter earlier better worse faster slower richer"
    " cheaper stronger weaker more fewer less"
)
_WRITING: Final = _any(
    r"books? documents? reports? papers? novels? stor(?:y|ies) tales? texts? articles? essays? contracts? agreements?"
    r" files? pdfs? manuals? handbooks? chapters? sections? poems? plays? letters? transcripts? meetings? filings?"
)
_THE_WHOLE: Final = (
    rf"(?:it|(?:this|the|that|these|those|my)(?:\s+\w+){{0,2}}?\s+{_WRITING}|this|these"
    r"|chapter\s+\w+|section\s+[\w.]+)"
)
_STATED_UNITS: Final = _any(
    r"seconds? minutes? hours? days? nights? weeks? fortnights? months? quarters? years? decades? dollars? euros? "
    r"pounds? crowns? shillings? cents? percent points? miles? kilomet\w+ met(?:er|re)s? feet inches acres "
    r"hectares tons? tonnes? litres? liters? gallons? barrels? degrees? people persons? inhabitants residents "
    r"employees staff customers users members individuals shares copies votes students soldiers participants "
    r"patients passengers respondents cases deaths samples seats jobs words pages"
)
"""What is counted where it is told, so that one place says how many."""
_TOLD: Final = _any(
    "mention name list describe discuss cite refer appear occur show feature visit meet write receive use say speak"
    " quote introduce record report note call propose raise ask recommend identify define specify break lose win make"
    " kill build buy sell open close found marry"
)
"""Acts that are told one after the other, so that they have to be counted."""
_MENTIONED: Final = _any(r"mentioned named listed described discussed cited referred appears? occurs?")
_ONE_OF_MANY: Final = rf"\bhow\s+many\s+(?!(?:\w+\s+)?{_STATED_UNITS}\b)(?:[\w-]+\s+){{1,4}}?"
_PLURAL: Final = r"(?!was\b|has\b|does\b|this\b|its\b)\w{2,}(?<![siu'’])s\b(?!['’])"

_SUMMARY: Final = rf"""
    {_ASKED}(?:summari[sz]e|sum\s+up|recapitulate|recap|condense|outline|digest)\b
    | \b{_any("give write provide make create produce prepare need want like get draft")}\b.{{0,30}}
      \b{_any("summary overview synopsis abstract outline recap gist digest")}\b
    | {_ASKED}(?:an?\s+|the\s+)?(?:\w+\s+){{0,3}}(?:summary|overview|synopsis|recap)(?:\s+of\b|\s*[.?!]?$)
    | \btl;?\s?dr\b | \bin\s+a\s+nutshell\b | \btakeaways\b
    | \b(?:key|main|most\s+important)\s+{_any("points? takeaways? facts messages findings")}\b
    | \bwhat(?:['’]s|\s+is|\s+are|\s+was|\s+were)\s+{_THE_WHOLE}\s+(?:all\s+)?about\b
    | \bwhat\s+(?:happens|happened)\s+in\s+{_THE_WHOLE}\s*[?.]*$
    | \bwhat\s+do(?:es)?\s+{_THE_WHOLE}\s+say\s*[?.]*$
    | \bfass\w*\b.*\bzusammen\b | \bzusammenfassung\b | \bworum\s+geht\b | \bwovon\s+handelt\b | \büberblick\b
    | {_ASKED}(?:pouvez-vous\s+|peux-tu\s+)?résume[zr]?\b | \brésumé\s+d | \bune\s+synthèse\b
    | \bde\s+quoi\s+(?:parle|traite|s['’]agit)
    """
_COMPARISON: Final = rf"""
    \bcompar(?:e[ds]?|ing|isons?)\b | \bcontrast(?:s|ed|ing)?\b | \bversus\b | \bvs\b
    | \b(?:differences?|distinctions?|similarit(?:y|ies))\b.{{0,60}}\b(?:between|among|of)\b
    | \bdiffer(?:s|ed|ing)?\b | \bin\s+common\b | \b(?:similar|alike|identical)\b
    | \bwhich\s+of\b | \bboth\b | \beach\s+of\s+(?:the|these|those)\b
    | \b(?:which|who)\s+(?:[\w'’-]+\s+){{0,6}}?{_AUX}\s+(?:(?:the|an?|much|far|any)\s+)?(?:\w+\s+)?{_COMPARATIVE}\b
      (?!\s+(?:than\s+)?\d)(?!\s+than\s+{_SMALL_NUMBER}\b)
    | \b(?:more|less|fewer|(?!other|rather|later|her)[a-z]{{2,}}er)\s+(?:\w+\s+){{0,3}}than\b
      (?!\s+(?:\d|{_SMALL_NUMBER}\b))
    | \bas\s+(?!{_any("well soon long far many much")}\b)\w+\s+as\b
    | \bvergleich\w* | \bunterschied\w* | \bgemeinsam(?:keit|keiten)?\b | \bim\s+gegensatz\b
    | \bwelche[rs]?\s+der\b | \bmehr\b.{{0,40}}\bals\b
    | \bdifférences?\b | \bpoints?\s+communs?\b | \blequel\b | \blaquelle\s+d | \bpar\s+rapport\s+à\b
    """
_LIST: Final = rf"""
    {_ASKED}(?:list|enumerate|count|tally|itemi[sz]e)\b
    | {_ASKED}{_any("name identify find give show tell mention collect extract note")}\s+(?:me\s+|us\s+|down\s+)?
      (?:(?:all|every|each|any|\d+|two|three|four|five)\b|the\s+(?:\w+\s+){{0,3}}?{_PLURAL})
    | \b(?:a|complete|full|the)\s+list\s+of\b | \bnames\s+of\b
    | \b(?:what|which|who|where)\s+(?:are|were|is)\s+all\b
    | \bwhat\s+{_any("kinds types sorts categories examples names items")}\b
    | \b(?:all|every|each)\b.{{0,60}}\b{_MENTIONED}\b
    | \b(?:all|every)\s+(?:of\s+)?(?:the\s+)?{_any("times places occasions passages instances occurrences")}\b
    | \b(?:everyone|everybody|everything)\s+(?:who|that|whom)\b
    | \bwhich\s+(?:\w+\s+){{0,2}}?(?:{_PLURAL}|(?:people|men|women|children)\b)\s+
      (?!is\b|was\b|has\b|does\b)(?:{_AUX}|may|must|will|\w+(?<!s))\b
    | \bhow\s+many\s+{_any("times different distinct separate other individual unique various such")}\b
    | \bhow\s+many\b.{{0,80}}\b(?:in\s+total|altogether|in\s+all|throughout|{_MENTIONED})\b
    | \bhow\s+many\b.{{0,80}}\b(?:are|were)\s+there\b(?!.{{0,15}}\d{{4}})
    | {_ONE_OF_MANY}(?:(?:are|were|have|had|has|was)\s+(?:been\s+|being\s+)?(?!there\b|the\b|an?\b)\w+|{_TOLD}\w*)\b
    | {_ONE_OF_MANY}(?:do|does|did|has|have|had)\s+.{{2,60}}?\b{_TOLD}\w*\s*(?:(?:in|during|about|to|with)\b.*)?[?.]*$
    | \bhow\s+often\s+{_AUX}\b.{{2,60}}\b(?:{_MENTIONED}|appear|occur)\b
    | \b(?:nenne|nennen\s+sie|liste|listen\s+sie|finde|gib)\b.*\b(?:alle|jede\w*|auf|sämtliche)\b | \bzähl(?:e|en)?\b
    | \bwie\s+viele\s+\w+\s+{_any("gibt werden wurden sind waren kommen kamen tauchen")}\b
    | \bwie\s+oft\s+(?:wird|kommt|taucht)\b
    | \bwelche\s+\w+(?:en|er|n)\s+{_any("werden wurden sind waren gibt kommen")}\b
    | {_ASKED}(?:liste|énumère|énumére|nomme|cite|compte)[zr]?\b | \bcombien\s+de\s+fois\b
    | \bcombien\s+(?:de\s+|d['’])\w+\s+(?:sont|ont|y\s+a|apparaissent|figurent)\b
    | \bquel(?:le)?s\s+sont\s+tou(?:te)?s\b | \btou(?:te)?s\s+les\b
    """
_THEME: Final = rf"""
    \bthemes?\b | \b(?:leit)?motifs?\b | \bsymboli[sz]e[sd]?\b | \bsymbolism\b | \bworld\s?view\b
    | \b{_any("moral message lesson meaning point mood tone style philosophy structure significance")}\s+of\s+
      (?:the|this|that)\s+(?:\w+\s+)?(?:{_WRITING}|author)\b
    | \b{_any("main central overall core underlying principal general recurring")}\s+
      {_any("ideas? arguments? conclusions? thesis message conflict claims? topics? questions? concerns?")}\b
    | \b{_any("author narrator writer speaker poet protagonist hero heroine")}(?:['’]s?)?\s+(?:\w+\s+)?
      {_any("attitude views? opinion position purpose intention stance tone voice style character")}\b
    | \b(?:as\s+a\s+whole|on\s+the\s+whole|over\s+the\s+course\s+of|in\s+the\s+course\s+of)\b
    | \b(?:throughout|across|over)\s+(?:the|this)\s+(?:whole\s+|entire\s+)?{_WRITING}\b
    | \bhow\s+(?:does|do|did)\b.{{2,60}}\b{_any("evolve develop change portray depict characteri[sz]e represent")}\b
    | \bhow\s+(?:is|are|was|were|has|have)\b.{{2,60}}
      \b{_any("evolved developed changed portrayed depicted characteri[sz]ed")}\b
    | \b{_any("are is was were")}\s+(?:the\s+)?\w+\s+(?:portrayed|depicted|characteri[sz]ed)\b
    | \brole\s+of\b.{{1,40}}\b(?:in|within)\s+(?:the|this)\s+(?:\w+\s+)?{_WRITING}\b
    | \bwhat\s+(?:kind|sort|type)\s+of\s+(?:a\s+)?{_any("person man woman character story book novel text world")}\b
    | \b(?:haupt)?them(?:a|en)\b | \bgrundgedanke\w*\b | \bhauptaussage\w*\b | \bleitmotiv\w*\b | \bgrundton\b
    | \bim\s+(?:ganzen|gesamten)\s+(?:buch|text|roman|dokument)\b | \b(?:entwickelt|verändert)\s+sich\b
    | \bthèmes?\b | \bidées?\s+(?:principales?|centrales?)\b | \btout\s+au\s+long\b | \bévolue\w*\b
    | \bau\s+cours\s+du\s+(?:livre|roman|récit)\b
    """
_OUTCOME: Final = _any(
    r"come came become became lead led end\s+up ended escape survive manage discover find\s+out learn succeed fail"
    r" happen happened affect influence contribute result relate related connected linked turn reach prove"
)
_NO_ROLE: Final = _any(
    "number order letter paper matter power water factor chapter error quarter center character corner border tower"
    " register cover sector color offer transfer answer other either another remainder manner summer winter weather"
    " fever river danger computer motor major minor interior exterior floor door list chair"
)
"""Words that only end like a role."""
_KIN: Final = _any(
    "wife king queen prince duke heir judge coach priest bishop chief captain pilot cousin niece spouse child uncle"
    " aunt nephew son widow head boss tenant assistant student pupil friend architect colleague disciple general"
)
_ROLE: Final = rf"(?:{_KIN}|(?!{_NO_ROLE}\b)\w{{2,}}(?:er|or|ist|ian|man|woman|ess))"
"""What somebody is to somebody else."""
_OWN_FACT: Final = _any(
    r"birthplace hometown nationality citizenship religion occupation profession residence employer capital population"
    r" headquarters currency grave (?:place|date|year|country|cause)\s+of\s+(?:birth|death|burial|origin)"
)
"""What is told of somebody, or of a place, wherever it is told."""
_ROLE_DE: Final = _any(
    r"vater\w* mutter frau mann\w* sohn\w* tochter bruder\w* schwester lehrer\w* gründer\w* wärter\w* autor\w* erbe\w*"
    r" besitzer\w* nachfolger\w* vorgänger\w* leiter\w* direktor\w* eigentümer\w* erbauer\w* regisseur\w*"
)
_ROLE_FR: Final = _any(
    "père mère femme mari fils fille frère sœur professeur maître gardien gardienne fondateur fondatrice auteur"
    " directeur directrice propriétaire réalisateur réalisatrice successeur prédécesseur héritier"
)
_STACKED: Final = rf"""
    \b(?:the|an?|his|her|their)\s+(?:[\w-]+\s+){{0,2}}?(?:{_ROLE}|{_OWN_FACT})\s+of\s+
      (?:(?:the|an?|his|her|their)\s+)?(?:[\w-]+\s+){{0,2}}?(?:{_ROLE}|capital|birthplace|hometown|employer)\s+of\b
    | \b(?:the|an?)\s+(?:[\w-]+\s+){{0,2}}?(?:{_ROLE}|{_OWN_FACT})\s+of\s+(?:[\w-]+\s+){{0,3}}?\w+['’]s
      \s+(?:\w+\s+)?{_ROLE}\b
    | \b(?!(?:today|yesterday|year|quarter|month|week)\b)\w+(?:['’]s|s['’])\s+(?:\w+\s+)?{_ROLE}['’]s\s+\w
    | \b{_ROLE_DE}\s+(?:des|der|von)\s+(?:\w+\s+)?{_ROLE_DE}\s+(?:des|der|von|vom)\b
    | \b{_ROLE_FR}\s+(?:du|de\s+la|de\s+l['’]|de)\s*{_ROLE_FR}\s+d(?:u\b|es?\b|['’])
    """
"""Somebody who is something to somebody who is something to somebody: facts that may stand far apart."""
_CHAIN: Final = rf"""
    {_STACKED}
    | \bwhy\b | \bhow\s+come\b | \bfor\s+what\s+(?:reason|purpose)\b | \bmotive\w*\b
    | \breasons?\s+{_any("for why that behind did does do")}\b | \bexplain\s+(?:how|why|what\s+led)\b
    | \bwhat\s+(?:makes?|made)\b(?!\s+up\b)
    | \bwhat\s+(?:\w+\s+){{0,3}}?(?:led|leads|caused|causes|prompted|drove|triggered|brought\s+about|became\s+of)\b
    | \bwhat\s+(?:is|are|was|were)\s+the\s+(?:\w+\s+)?(?:causes?|consequences?|outcome|effects?|aftermath)\s+of\b
    | \bas\s+a\s+(?:result|consequence)\b
    | \bwhat\s+(?:happens|happened|did)\b.{{2,80}}\b{_any("after once before when until following")}\b
    | \bwhat\s+(?:happens|happened)\s+to\b
    | \bhow\s+{_AUX}\b.{{2,100}}
      \b{_OUTCOME}\b
    | \b(?:relationship|connection|link)\b.{{0,40}}\bbetween\b | \b(?:sequence|chain)\s+of\b | \bin\s+what\s+order\b
    | \btrace\b.{{0,40}}\b(?:how|from|the)\b | \bstep\s+by\s+step\b
    | \bof\s+the\s+(?:\w+\s+){{1,4}}(?:who|that|which|whose)\b
    | \bof\s+the\s+\w+\s+(?:of|in|at|on)\s+the\s+\w+\s+(?:of|in|at|on|where)\b
    | \bwarum\b | \bwieso\b | \bweshalb\b | \bweswegen\b | \baus\s+welchem\s+grund\b | \bwie\s+kam\s+es\b
    | \bwas\s+(?:führte|bewog|veranlasste|geschah|geschieht|passiert\w*)\b | \bfolgen\s+(?:von|der|des)\b
    | \bpourquoi\b | \bpour\s+quelles?\s+raisons?\b | \bqu['’]est-ce\s+qui\s+a\b | \bcomment\s+se\s+fait\b
    | \bque\s+se\s+passe\b | \bqu['’]arrive\b | \bconséquences?\s+d
    """
# The first form that fits decides: what is compared may be a theme, what is listed may be reasons.
_FORMS: Final[tuple[tuple[QuestionKind, re.Pattern[str]], ...]] = (
    ("comparison", re.compile(_COMPARISON, re.IGNORECASE | re.VERBOSE)),
    ("summary", re.compile(_SUMMARY, re.IGNORECASE | re.VERBOSE)),
    ("list", re.compile(_LIST, re.IGNORECASE | re.VERBOSE)),
    ("theme", re.compile(_THEME, re.IGNORECASE | re.VERBOSE)),
    ("chain", re.compile(_CHAIN, re.IGNORECASE | re.VERBOSE)),
)


def kind_of(question: str) -> QuestionKind:
    """The kind of `question`; any string has one."""
    text = " ".join(question.split())[:MAX_QUESTION_CHARACTERS]
    return next((kind for kind, form in _FORMS if form.search(text)), "look-up")
