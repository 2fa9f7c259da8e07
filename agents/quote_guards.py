"""What a quote may not change: numbers, signs, units, negations, directions, and which words stand there.

A character-level score cannot see that `$3.5 million` and `$3.5 billion`, or `is notable` and `is not able`, say
different things. These checks compare the quote with the very words of the source that it was matched to.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein, Opcode
from rapidfuzz.fuzz import ratio

_GUARDED_WORDS = """
    not no never none nor neither nobody nothing nowhere without unless except cannot hardly scarcely barely
    all every each always only some any both either few many most several half twice double triple
    more less fewer greater smaller higher lower above below over under before after until since between
    up down increase increased increases increasing decrease decreased decreases decreasing rise rises rose risen fall
    falls fell fallen gain gains gained loss losses lost grew grown shrank decline declined declines declining
    true false yes may might must shall should can could will would
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion
    hundreds thousands millions billions trillions first second third fourth fifth last next
    percent percentage basis dollars euros pounds
    january february march april june july august september october november december
    monday tuesday wednesday thursday friday saturday sunday
"""
_GUARDED = frozenset(_GUARDED_WORDS.split())
"""English words that change what a sentence says while hardly changing its letters."""

_NEGATING_PREFIXES = ("un", "in", "im", "il", "ir", "dis", "non", "mis", "anti", "de", "a")
_ARTICLES_AND_SUCH = "a an the of to in on at by for and or as is was are were be been that which this it its"
_SMALL_WORDS = frozenset(_ARTICLES_AND_SUCH.split())
_ALIKE = 60.0
"""Two words that stand in for one another must be this similar (Indel ratio): a misprint, an inflection."""
_MAX_OMITTED = 2
"""Words of the source that a fuzzy quote may leave out in one place without an ellipsis."""

_WORD = re.compile(r"[^\W_]+(?:(?:[-\u2010]\s*\n\s*|['’])[^\W_]+)*")
_BREAK = re.compile(r"[-\u2010]\s*\n\s*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SIGN = re.compile(r"(?:^|(?<=[\s(\[=:]))[-\u2212\u2013](?=[$€£¥]?\.?\d)|\((?=[$€£¥]?\d[\d.,]*%?\))", re.MULTILINE)
_UNIT = re.compile(r"[$€£¥₹%‰°]")
_CONTRACTED = {"can't": ("can", "not"), "won't": ("will", "not"), "shan't": ("shall", "not"), "cannot": ("can", "not")}


@dataclass(frozen=True, slots=True)
class Word:
    """A word, folded, at its offsets in the string it was found in."""

    text: str
    start: int
    end: int


def words_of(text: str) -> list[Word]:
    """The words of `text`; contractions are taken apart (`don't` is `do not`), words broken by a hyphen joined."""
    words: list[Word] = []
    for match in _WORD.finditer(text):
        raw = _BREAK.sub("", match[0]) if "\n" in match[0] else match[0]
        folded = unicodedata.normalize("NFKC", raw).casefold().replace("’", "'")
        words += [Word(part, match.start(), match.end()) for part in _uncontracted(folded)]
    return words


def _uncontracted(word: str) -> tuple[str, ...]:
    if word in _CONTRACTED:
        return _CONTRACTED[word]
    return (word[:-3], "not") if word.endswith("n't") and len(word) > 3 else (word,)


def _essence(words: list[str]) -> list[str]:
    """What of a group of words no difference in spacing may touch: guarded words and runs of digits, in order."""
    kept: list[str] = []
    for word in words:
        if word in _GUARDED:
            kept.append(word)
        kept += re.findall(r"\d+", word)
    return kept


def _is_negation_of(one: str, other: str) -> bool:
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    return len(shorter) > 2 and any(longer == prefix + shorter for prefix in _NEGATING_PREFIXES)


def _harmless(quoted: list[str], source: list[str]) -> bool:
    """Whether a quote that has `quoted` where its source has `source` still says the same."""
    if "".join(quoted) == "".join(source):
        return _essence(quoted) == _essence(source)
    if _essence(quoted) or _essence(source):
        return False
    if not quoted:
        return len(source) <= _MAX_OMITTED
    if all(word in _SMALL_WORDS for word in quoted + source):
        return True
    negated = any(_is_negation_of(one, other) for one in quoted for other in source)
    return not negated and ratio("".join(quoted), "".join(source)) >= _ALIKE


def agrees(quote: str, source: str) -> tuple[int, int] | None:
    """Where in `source` the quote's words stand, if none of the differences matters; None if one does.

    Words of the source before the quote's first and after its last are outside the range that is returned.
    """
    ours, theirs = words_of(quote), words_of(source)
    if not ours or not theirs:
        # No word on one side: symbols, or a script that this splits otherwise. Folding has compared the characters.
        return (0, len(source)) if not ours and not theirs else None
    edits = [
        edit
        for edit in Levenshtein.opcodes([word.text for word in ours], [word.text for word in theirs])
        if edit.tag != "equal"
    ]
    first, last = 0, len(theirs)
    for edit in edits:
        if edit.tag == "insert" and edit.dest_start == 0:
            first = edit.dest_end
        elif edit.tag == "insert" and edit.dest_end == len(theirs):
            last = edit.dest_start
    for group in _grouped(edits):
        quoted = [word.text for word in ours[group[0] : group[1]]]
        source_words = [word.text for word in theirs[max(group[2], first) : min(group[3], last)]]
        if not _harmless(quoted, source_words):
            return None
    if first >= last:
        return None
    start, end = theirs[first].start, theirs[last - 1].end
    # A currency sign, a bracket, a full stop belong to the word they touch.
    while start > 0 and not source[start - 1].isspace() and not source[start - 1].isalnum():
        start -= 1
    while end < len(source) and not source[end].isspace() and not source[end].isalnum():
        end += 1
    return start, end


def _grouped(edits: list[Opcode]) -> list[tuple[int, int, int, int]]:
    """Edits that touch, as one: (quote start, quote end, source start, source end) in words."""
    groups: list[tuple[int, int, int, int]] = []
    for edit in edits:
        if groups and groups[-1][1] == edit.src_start and groups[-1][3] == edit.dest_start:
            groups[-1] = (groups[-1][0], edit.src_end, groups[-1][2], edit.dest_end)
        else:
            groups.append((edit.src_start, edit.src_end, edit.dest_start, edit.dest_end))
    return groups


def same_signs(quote: str, source: str) -> bool:
    """Whether both have as many negative numbers (`-5`, `(5)`)."""
    return len(_SIGN.findall(quote)) == len(_SIGN.findall(source))


def same_figures(quote: str, source: str) -> bool:
    """Whether both hold the same numbers, signs and units, written with the same decimal points and in one order."""
    return same_signs(quote, source) and all(
        pattern.findall(quote) == pattern.findall(source) for pattern in (_NUMBER, _UNIT)
    )
