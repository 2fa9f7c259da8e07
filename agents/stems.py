"""Words reduced to stems, and which of them carry a question: what lexical comparison of sentences works on.

A light stemmer for English inflection (plural, -ed, -ing, -ly, -er, common derivations); other languages keep their
words as they are, folded. It need not give words, only the same string for forms that belong together.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)?|[^\W_]+")
_FISCAL_YEAR = re.compile(r"\bfy\s?['’]?(\d\d)\b")

_STOP_WORDS = """
a an the this that these those there here it its itself he him his himself she her hers herself they them their theirs
themselves we us our ours you your yours i me my mine one's
is am are was were be been being do does did doing done have has had having will would shall should can could may might
must ought
and or but nor so if then than as at by for from in into of off on onto out over to up with about against between
through during before after above below under again further once upon within without along across behind beyond per via
who whom whose which what when where why how whether while because until since unless although though
all any both each few more most other some such no not only own same too very just also ever even still yet already
s t d ll m re ve o
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""English words that carry no subject."""

_QUESTION_FILLERS = """
many much long often far old name named names call called known kind type sort example according mention mentioned
state stated tell give given describe described explain explained list provide provided document text passage paper
article author please following base based use used make made
company companies firm book story novel report filing contract agreement policy website manual
"""
QUESTION_FILLERS = frozenset(_QUESTION_FILLERS.split())
"""Words that questions are put with; in a question they weigh little."""

_IRREGULAR_FORMS = """
ran:run went:go gone:go said:say took:take taken:take gave:give given:give made:make began:begin begun:begin
wrote:write written:write became:become born:birth bore:birth died:death die:death dies:death dead:death
fought:fight built:build held:hold led:lead left:leave lost:lose met:meet paid:pay sold:sell sent:send spent:spend
taught:teach thought:think told:tell won:win knew:know known:know grew:grow grown:grow rose:rise risen:rise
fell:fall fallen:fall chose:choose chosen:choose spoke:speak spoken:speak broke:break broken:break drove:drive
driven:drive drew:draw drawn:draw found:find kept:keep men:man women:woman children:child people:person feet:foot
teeth:tooth mice:mouse wives:wife lives:life bought:buy brought:bring caught:catch came:come did:do done:do ate:eat
eaten:eat saw:see seen:see stood:stand understood:understand wore:wear worn:wear lay:lie lain:lie sang:sing
sung:sing swam:swim threw:throw thrown:throw hidden:hide hid:hide
"""
_IRREGULAR = dict(pair.split(":") for pair in _IRREGULAR_FORMS.split())

_ENDING_RULES = """
ization:ize isation:ize ational:ate iveness:ive fulness:ful ousness:ous ations:ate ation:ate ators:ate ator:ate
ically:ic ements: ement: ments: ment: ities: ity: ances: ance: ences: ence: ingly: edly: ionals: ional: ions: ion:
ings: ing: iest:y iers:y ies:y ied:y ier:y ily:y ness: able: ible: ives: ive: ers: er: ors: or: ed: es: ly: al: s:
"""
_ENDINGS = [tuple(rule.split(":")) for rule in _ENDING_RULES.split()]


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """The stem of a folded word: `producing`, `produced`, `production`, `producer` agree; `news` and `new` do not."""
    word = word.removesuffix("'s").removesuffix("’s").removesuffix("'").removesuffix("’")
    if word in _IRREGULAR:
        word = _IRREGULAR[word]
    if len(word) < 4 or not word.isascii() or not word.isalpha():
        return word
    for ending, replacement in _ENDINGS:
        if word.endswith(ending):
            kept = len(word) - len(ending)
            if ending == "s" and (word[-2] in "su" or kept < 3 or word == "news"):
                continue
            if kept < (3 if len(ending) <= 3 or ending.startswith("ion") else 4) or not re.search(
                r"[aeiouy]", word[:kept]
            ):
                continue
            word = word[:kept] + replacement
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    if len(word) > 4 and word.endswith("ate"):
        word = word[:-3]
    return word[:-1] if len(word) > 3 and word[-1] in "ey" else word


def tokens_of(text: str) -> list[str]:
    """The words and numbers of `text`, folded; `FY19` is `2019`, thousands separators are gone."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    if "fy" in folded:
        folded = _FISCAL_YEAR.sub(r"20\1", folded)
    return [token.replace(",", "") if token[0].isdigit() else token for token in _TOKEN.findall(folded)]


def stems_of(text: str) -> list[str]:
    """Stems of the words of `text` in order, stop words left out."""
    return [stem(token) for token in tokens_of(text) if token not in STOP_WORDS]
