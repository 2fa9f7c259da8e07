"""One normal form for the text of every format, applied once, before any offset exists."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

# Deleted: soft hyphen, zero-width space, word joiner, BOM, the non-characters that PDF extractors leave behind, and
# every control character but tab and newline. Joiners (U+200C, U+200D) stay: Arabic and Indic scripts need them.
_DELETED = {0xAD, 0x200B, 0x2060, 0xFEFF, 0xFFFE, 0xFFFF, *range(9), *range(0x0E, 0x20), 0x7F, *range(0x80, 0x85)}
_DELETED |= set(range(0x86, 0xA0))
_SPACES = {0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000}
_LINE_ENDS = {0x0B, 0x0C, 0x85, 0x2028, 0x2029}
# Latin ligatures, Hebrew and Arabic presentation forms: shapes, not letters; nobody types them into a question.
_PRESENTATION_FORMS = [*range(0xFB00, 0xFB50), *range(0xFB50, 0xFDFE), *range(0xFE70, 0xFEFD)]


def _translation() -> dict[int, str | None]:
    table: dict[int, str | None] = dict.fromkeys(_DELETED, None)
    table |= dict.fromkeys(_SPACES, " ")
    table |= dict.fromkeys(_LINE_ENDS, "\n")
    for code in _PRESENTATION_FORMS:
        folded = unicodedata.normalize("NFKC", chr(code))
        # Isolated forms of Arabic marks decompose to space + mark; the space is not in the text.
        table[code] = folded.strip() or folded
    return table


_TABLE = _translation()
_NEEDS_TABLE = re.compile("[" + re.escape("".join(map(chr, _TABLE))) + "\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SOFT_HYPHEN_BREAK = re.compile("\u00ad[ \t]*\n[ \t]*")


def normalise(text: str) -> str:
    """`text` in NFC with `\\n` line ends, soft hyphens and stray control characters gone, ligatures folded.

    Idempotent. Spaces of every width become plain spaces; lone surrogates become U+FFFD.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\u00ad" in text:
        text = _SOFT_HYPHEN_BREAK.sub("", text)
    if _NEEDS_TABLE.search(text):
        text = _SURROGATE.sub("\ufffd", text).translate(_TABLE)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


# Compounds of these keep their hyphen: nine-member, self-employed.
_NUMBERS = (
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "twelve",
    "twenty",
    "hundred",
)
_COMPOUNDING = frozenset({*_NUMBERS, "self"})
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


def vocabulary(texts: Iterable[str]) -> Counter[str]:
    """How often each word, hyphenated compounds whole, occurs (in lower case): what `join_hyphenated` decides by."""
    counts: Counter[str] = Counter()
    # Punctuation is looked at once for each different token, not once for each token.
    for token, count in Counter(" ".join(texts).lower().split()).items():
        if token.isalpha():
            counts[token] += count
        else:
            for word in _WORD.findall(token):
                counts[word] += count
    return counts


def join_hyphenated(first: str, second: str, words: Counter[str], *, otherwise: str) -> str:
    """What stood between two halves of a word broken by a hyphen at a line end: `""` or `"-"`.

    The document itself decides: whichever of `dining-parlour` and `diningparlour` it uses elsewhere (`words`, which
    must not count the broken halves themselves). Where it uses neither, a capital or a digit after the hyphen keeps it,
    and so do two halves that are both words, or a number and a word; then `otherwise` holds.
    """
    joined, compound = words[(first + second).lower()], words[f"{first}-{second}".lower()]
    if joined != compound:
        return "" if joined > compound else "-"
    if not second[:1].islower() and second[:1].upper() != second[:1].lower():
        return "-"
    half = first.rsplit("-", 1)[-1].lower()
    if words[second.lower()] and (words[half] or half in _COMPOUNDING):
        return "-"
    return otherwise
