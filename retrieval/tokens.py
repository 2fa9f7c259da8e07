"""How many tokens a text has, estimated without a tokenizer.

`estimate_tokens` is a weighted count of words, characters and punctuation, fitted to the WordPiece vocabulary of the
default embedder (all-MiniLM-L6-v2, the vocabulary of BERT base uncased). Mean absolute error on passages of about 180
tokens is 3 to 4 % on English novels, filings and encyclopaedia text, 5 to 8 % on law, manuals and biomedical papers,
and under 10 % on Chinese, Japanese, Korean, Russian, Greek and Arabic; `benchmarks/chunking.py` prints these figures.
Other languages in Latin script have up to twice as many tokens as estimated, because that vocabulary is English.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

# Thousandths of a token.
_WORD: Final = 607
_CHARACTER: Final = 92
_SIGN: Final = 1216

# Classes of bytes of UTF-8. Signs are what is ASCII and no letter, digit, space or control, and the lead bytes of
# U+0080-00BF, U+2000-2FFF, U+E000-FFFF (punctuation and symbols) and of everything above.
_SIGNS: Final = bytes(
    [code for code in range(0x21, 0x7F) if not chr(code).isalnum()] + [0xC2, 0xE2, 0xEE, 0xEF, *range(0xF0, 0xF8)]
)
_FOREIGN: Final = (
    # Characters that a vocabulary holds one by one: Greek, Cyrillic, Hebrew, Arabic, Indic and other Asian scripts.
    (bytes(range(0xCE, 0xE2)), 800),
    # Kana and ideographs.
    (bytes(range(0xE3, 0xEA)), 930),
    # Hangul, which is spelt out in its letters.
    (bytes(range(0xEA, 0xEE)), 1700),
)


def _all_but(kept: bytes) -> bytes:
    """Every byte but those kept and the NUL that parts texts."""
    return bytes(set(range(1, 256)) - set(kept))


_NOT_SIGN_OR_SPACE: Final = _all_but(_SIGNS + b" ")
_NOT_SPACE: Final = _all_but(b" ")
_NOT_FOREIGN: Final = _all_but(b"".join(members for members, _ in _FOREIGN))


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` has. Blank text has none; any other has at least one.

    Runs of spaces, tabs and line breaks count as one space. Parts never estimate to less than the whole: for a text cut
    there into parts that are not blank, `estimate_tokens(whole) <= sum(map(estimate_tokens, parts))`.
    """
    return estimate_each((text,))[0]


def estimate_each(texts: Sequence[str]) -> list[int]:
    """`estimate_tokens` of each text: the same numbers, and for many short texts far faster than one by one."""
    if not texts:
        return []
    joined = "\0".join(texts).replace("\n", " ").replace("\t", " ")
    data = joined.encode("utf-8", "replace")
    lengths = list(map(len, texts))
    spaces = _sizes(data, _NOT_SPACE)
    if len(spaces) > len(texts):
        return estimate_each([text.replace("\0", " ") for text in texts])
    signs_and_spaces = _sizes(data, _NOT_SIGN_OR_SPACE)
    thousandths = [
        _WORD + length * _CHARACTER + space * (_WORD - _CHARACTER) + (both - space) * _SIGN if length > space else 0
        for length, space, both in zip(lengths, spaces, signs_and_spaces, strict=True)
    ]
    if data.translate(None, _NOT_FOREIGN).strip(b"\0"):
        for members, weight in _FOREIGN:
            numbers = _sizes(data, _all_but(members))
            thousandths = [total + number * weight for total, number in zip(thousandths, numbers, strict=True)]
    tokens = [-(-total // 1000) for total in thousandths]
    for index in _with_runs(joined, lengths):
        tokens[index] = estimate_tokens(" ".join(texts[index].split()))
    return tokens


def _sizes(joined: bytes, deleted: bytes) -> list[int]:
    """How many bytes of each text are left when `deleted` are taken out."""
    return list(map(len, joined.translate(None, deleted).split(b"\0")))


def _with_runs(joined: str, lengths: list[int]) -> Iterator[int]:
    """Which of the texts joined have runs of blanks, as a running header leaves in `Document.body`."""
    found = joined.find("  ")
    if found < 0:
        return
    ends = list(accumulate(map((1).__add__, lengths)))
    while found >= 0:
        index = bisect_right(ends, found)
        yield index
        found = joined.find("  ", ends[index])
