"""Sentences as spans of a text: offsets stay true, nothing is re-joined.

Compiled expressions find the places where a sentence may end; a few cheap checks decide each. Nothing looks at
characters one by one, and every step is linear in the text.

What ends a sentence:

- `.`, `!`, `?`, an ellipsis or a run of these, with the quotes, brackets and footnote numbers that close after it, when
  white space and then no lower-case letter follow. A single full stop must also not belong to an abbreviation
  (`abbreviations.py`), an initial, or the number of a heading or list item (`1.2. Scope`).
- The full stops of scripts without spaces after them (CJK) or with their own (Devanagari, Arabic, Urdu, Armenian,
  Ethiopic, Burmese, Khmer). Japanese goes on after a quote: `「行け！」と言った。` is one sentence.
- A blank line, always. One exception: when it is a line of blanks, as `Document.body` leaves where a running header
  stood, a sentence that is visibly unfinished (no stop, and a lower-case letter, a comma or a word like "of" at the
  joint) goes on.
- A single line break, only when the lines show that it is not a wrap inside a paragraph (`line_breaks.py`).
"""

from __future__ import annotations

import re
from typing import Final

from lcdoc.documents import Span
from lcdoc.retrieval.abbreviations import (
    AFTER_TIME,
    HABITS,
    MONTHS,
    NAMES_WITH_BANG,
    STARTERS,
    TAKES_LETTER,
    Habit,
)
from lcdoc.retrieval.line_breaks import ends_at_line_break, is_paragraph_end

_STOPS: Final = ".!?…"
_OWN_STOPS: Final = "。！？｡．।॥؟۔։።။។"
_CLOSERS: Final = "\"'”’“‘»«›‹)\\]}*_¹²³⁰⁴⁵⁶⁷⁸⁹†‡」』）】》〉〕］｝＂＇"
_OWN_CLOSERS: Final = _CLOSERS.replace("“‘", "").replace("«›‹", "›")
_CJK: Final = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"

# A run of stops is entered at its first character only, and every quantifier that could run far is possessive, so that
# no text costs more than a few looks at each character. Each expression starts with one literal: the engine finds
# those many times faster than it finds a character class.
_RUN_START: Final = rf"(?<![{_STOPS}{_OWN_STOPS}]{{2}})"
_AFTER_STOP: Final = rf"""
    {_RUN_START}
    (?: [”"’)]?+([ \n][ \n]?)(?=[A-Z“"])
    |   [{_STOPS}]*+ [{_CLOSERS}]*+ (?:[ ]»(?=\s))?+ (?:\[\d{{1,3}}\])*+
        (?: (?: (?<=[a-z)\]”"’][.?!]) | (?<=[”"’)\]]) ) \d{{1,3}}(?=\s+[A-Z“"(\[]) )?+
        (?: (\s++)(?![a-z](?![A-Z])|[.,;:!?…)\]}}]) | (?<![.…])(?=[{_CJK}])() )
    )
"""
_AFTER_OWN_STOP: Final = rf"{_RUN_START} (?:(?<!．)|(?!\d)) [{_STOPS}{_OWN_STOPS}]*+ [{_OWN_CLOSERS}]*+ ()()()(\s*+)"
_STOP_CANDIDATES: Final = {
    literal: re.compile(re.escape(literal) + rest, re.VERBOSE)
    for literals, rest in ((_STOPS, _AFTER_STOP), (_OWN_STOPS, _AFTER_OWN_STOP))
    for literal in literals
}
# A line that continues in lower case is a wrap, unless it is an item ("b) ..."), has cells, or follows a blank line.
# After a stop, a line break needs no look of its own, unless the stop is of a run of several, entered at its beginning.
_NEWLINE_CANDIDATE: Final = r"""
    \n (?: (?=[^a-z\s])(?<![.!?…]\n) | (?=[ \t])(?![ \t]++[a-z])
    |   (?=\n)(?: (?<![.!?…]\n)|(?<=RUN\n)|(?!\s++[^a-z.,;:!?…)\]}]) )
    |   (?=[ \t]*+[a-z][ivx]{0,4}[.)]\s) CELLS)
    ()()()()(\s*+)
""".replace("RUN", f"[{_STOPS}{_OWN_STOPS}]{{3}}")
_NEWLINE: Final = re.compile(_NEWLINE_CANDIDATE.replace("CELLS", ""), re.VERBOSE)
_NEWLINE_OR_ROW: Final = re.compile(_NEWLINE_CANDIDATE.replace("CELLS", r"| (?=[^\n\t|]*+[\t|])"), re.VERBOSE)
# The groups that say which way a candidate matched; each but the third holds the white space after the sentence.
_PLAIN_STOP, _STOP, _STOP_BEFORE_CJK, _OWN_STOP, _LINE_BREAK = 1, 2, 3, 4, 5

_ABBREVIATION_ENDS: Final = frozenset(word[-3:] for word in HABITS if len(word) >= 3)

_ENUMERATOR: Final = re.compile(
    r"""
    (?:[•‣▪●○■*–—-]\s+)?
    (?:(?:item|section|sec|article|art|chapter|part|note|table|figure|fig|exhibit|appendix|annex|schedule|rule|clause
        |paragraph|step|question|volume|vol|no|kapitel|abschnitt)\.?\s+)?
    \(?(?:\d{1,3}(?:\.\d{1,3})*[A-Za-z]?|[^\W\d_]|[IVX]{1,5}|[ivx]{1,5})\)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ENUMERATOR_LONGEST: Final = 24
_ACRONYM: Final = re.compile(r"(?:.*[-/(—–])?[^\W\d_]{1,3}(?:\.[^\W\d_]{1,3})+", re.DOTALL)
_TIME_ONLY: Final = re.compile(r"(?:At|By|From|Around|About|Before|After|Until|Since)\s[\d:]{1,5}\s.{1,4}")
_NEXT_WORD: Final = re.compile(r"\W{0,3}([\w'’]*)(\.?)")
_NUMERAL: Final = re.compile(r"[(\[#]?(?:\d|[IVXLC]+\b|[A-Z]\b(?!['’]))")
_CODE: Final = re.compile(r"[(\[#]?(?:\d|[A-Z]{1,4}[- ]?\d)")


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """The sentences of `text[start:end]`, as spans of `text`.

    They are ordered and disjoint, begin and end with a character that is not white space, and together cover every
    such character. `start` and `end` are taken as by slicing, and the text outside them has no influence.
    """
    return list(map(Span, *sentence_bounds(text, start, end)))


def sentence_bounds(text: str, start: int = 0, end: int | None = None) -> tuple[list[int], list[int]]:
    """Where the sentences that `sentence_spans` gives start, and where they end."""
    start, end, _ = slice(start, end).indices(len(text))
    if end <= start:
        return [], []
    starts, ends = _split(text if end - start == len(text) else text[start:end])
    if start:
        starts = [position + start for position in starts]
        ends = [position + start for position in ends]
    return starts, ends


def _split(text: str) -> tuple[list[int], list[int]]:
    last = len(text.rstrip())
    start = len(text) - len(text.lstrip())
    if start >= last:
        return [], []
    starts: list[int] = [start]
    ends: list[int] = []
    for match in _candidates(text, start, last):
        stop = match.start()
        if stop < start:
            continue
        group = match.lastindex
        after = match.end()
        if group == _PLAIN_STOP:
            finish = match.start(_PLAIN_STOP)
            ending = text[stop - 3 : stop]
            # Nearly every sentence ends here: the last three characters are letters, and no abbreviation ends in them.
            if (
                not ending.isalpha() or ending in _ABBREVIATION_ENDS or stop - start <= _ENUMERATOR_LONGEST
            ) and not _ends_at_stop(text, start, stop, finish, after):
                continue
        elif group == _STOP:
            finish = match.start(_STOP)
            if not _ends_at_stop(text, start, stop, finish, after):
                continue
        elif group == _LINE_BREAK:
            if not ends_at_line_break(text, stop, after):
                continue
            finish = stop if not text[stop - 1].isspace() else start + len(text[start:stop].rstrip())
        elif group:
            finish = match.start(group)
            # 「行け！」と言った: the quote is part of a sentence that goes on.
            if finish == after and text[finish - 1] in "」』" and "ぁ" <= text[finish : finish + 1] <= "ゟ":
                continue
        if after >= last:
            break
        ends.append(finish)
        starts.append(after)
        start = after
    ends.append(last)
    return starts, ends


def _candidates(text: str, start: int, last: int) -> list[re.Match[str]]:
    """Every place in `text[start:last]` where a sentence may end, in order."""
    found: list[re.Match[str]] = []
    for literal, expression in _STOP_CANDIDATES.items():
        if literal in text:
            found.extend(expression.finditer(text, start, last))
    line_break = _NEWLINE_OR_ROW if "\t" in text or "|" in text else _NEWLINE
    found.extend(line_break.finditer(text, start, last))
    found.sort(key=re.Match.start)
    return found


def _ends_at_stop(text: str, start: int, stop: int, finish: int, after: int) -> bool:
    """Whether the stop at `stop`, closed at `finish` and followed by white space until `after`, ends a sentence."""
    if is_paragraph_end(text, finish, after):
        return True
    if text[stop - 1] in "[(":
        # An omission [...], or a doubt (?).
        return False
    following = text[after]
    if following > "\x7f" or following == "-":
        # "said he" after a dash goes on, too. An ASCII letter in lower case is here only as of "iPhone".
        letter = text[after + 1 : after + 3].lstrip()[:1] if following in "-–—" else following
        if letter.islower():
            return False
    if text[stop] != ".":
        word = text[max(start, stop - 9) : stop].rpartition(" ")[2]
        return text[stop] != "!" or word not in NAMES_WITH_BANG or not _goes_on(text, after)
    if text[stop + 1] in _STOPS:
        # Dot leaders of a table of contents, not an ellipsis.
        return not (following.isdigit() and text.startswith("....", stop))
    return _full_stop_ends(text, start, stop, after) or _full_stop_ends_line(text, start, stop, after)


def _full_stop_ends(text: str, start: int, stop: int, after: int) -> bool:
    """Whether the single full stop at `stop` is more than the stop of an abbreviation or a number."""
    words = text[max(start, stop - 14) : stop].split()
    if not words or text[stop - 1].isspace():
        return not text[after].isdigit()
    if _is_enumerator(text, start, stop):
        return False
    word = words[-1]
    if not word[0].isalnum():
        word = word.lstrip("\"'“”‘’([{«»„*_—–-") or word
    habit = HABITS.get(word)
    if habit:
        return _abbreviation_ends(text, start, stop, after, habit)
    if len(word) > 2 and "." not in word:
        return True
    return _short_word_ends(text, start, stop, after, word)


def _abbreviation_ends(text: str, start: int, stop: int, after: int, habit: Habit) -> bool:
    """Whether the full stop of an abbreviation is also that of a sentence, by what stands at `after`."""
    if habit == "title":
        return False
    if habit in {"number", "code"}:
        return (_NUMERAL if habit == "number" else _CODE).match(text, after) is None
    if text[after].isdigit():
        return False
    if habit == "closing":
        following = _NEXT_WORD.match(text, after)
        return (following is None or following[1] not in AFTER_TIME) and not _TIME_ONLY.fullmatch(text, start, stop)
    return not _goes_on(text, after)


def _short_word_ends(text: str, start: int, stop: int, after: int, word: str) -> bool:
    """The full stop after a word of one or two characters, or with stops inside."""
    following = _NEXT_WORD.match(text, after)
    if len(word) == 1 and word.isalpha():
        if text[after].isdigit() or (following and len(following[1]) == 1 and following[2]):
            return False
        # An initial, unless what follows begins a sentence ("plan B. The") or what precedes takes a letter ("vitamin
        # C. Patients"); x. or く. is the end of one.
        before = "".join(text[max(start, stop - 16) : stop].split()[-2:-1])
        return not word.isupper() or not _goes_on(text, after) or before.lower() in TAKES_LETTER
    if word.isdigit():
        return following is None or following[1] not in MONTHS
    if "." in word and _ACRONYM.fullmatch(word):
        return not text[after].isdigit() and not _goes_on(text, after)
    return True


def _is_enumerator(text: str, start: int, stop: int) -> bool:
    """Whether the sentence so far is only the number of what follows: `1.2`, `(a)`, `Item 7`."""
    return stop - start <= _ENUMERATOR_LONGEST and _ENUMERATOR.fullmatch(text, start, stop) is not None


def _goes_on(text: str, after: int) -> bool:
    """Whether the text at `after` reads on, after a full stop that may be an abbreviation's."""
    following = _NEXT_WORD.match(text, after)
    if following is None or following[1] not in STARTERS:
        return True
    # "J. A. Smith": A is an initial here, not an article.
    return len(following[1]) == 1 and following[2] == "."


def _full_stop_ends_line(text: str, start: int, stop: int, after: int) -> bool:
    """Whether a line that ends in an abbreviation ends the sentence all the same: it is a heading or a row."""
    newline = text.find("\n", stop, after)
    if newline < 0 or _is_enumerator(text, start, stop):
        return False
    words = text[max(start, stop - 14) : stop].split()
    return bool(words) and HABITS.get(words[-1]) != "title" and ends_at_line_break(text, newline, after)
