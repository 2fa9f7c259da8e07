"""Where a match may begin and end in a text: not inside a number, and not inside a word."""

from __future__ import annotations

from lcdoc.agents.folding import is_dropped_mark


def _is_spaced_letter(character: str) -> bool:
    """Whether it is a letter of a script that puts spaces between words (for Chinese, Japanese, Thai it is not)."""
    return character.isalpha() and (ord(character) < 0x0E00 or 0x10A0 <= ord(character) < 0x1780)


def whole_words(body: str, start: int, end: int, *, long: bool) -> bool:
    """Whether the characters `start` to `end` cut no number and, unless `long`, no word."""
    before, after = body[max(0, start - 2) : start], body[end : end + 2]
    if body[start].isdigit() and (
        before[-1:].isdigit() or (before[-1:] in {".", ","} and before[:1].isdigit() and len(before) == 2)
    ):
        return False
    if body[end - 1].isdigit() and (after[:1].isdigit() or (after[:1] in {".", ","} and after[1:2].isdigit())):
        return False
    if long:
        return True
    return not (
        (before and _is_spaced_letter(before[-1]) and _is_spaced_letter(body[start]))
        or (after and _is_spaced_letter(after[0]) and _is_spaced_letter(body[end - 1]))
    )


def to_whole_words(body: str, start: int, end: int) -> tuple[int, int]:
    """The range widened to the words and numbers it cuts, by 40 characters at most on each side."""
    floor, ceiling = max(0, start - 40), min(len(body), end + 40)
    while start > floor and _continues(body, start):
        start -= 1
    while end < ceiling and _continues(body, end):
        end += 1
    return start, end


def _continues(body: str, at: int) -> bool:
    """Whether the characters before and at offset `at` belong to one word or number."""
    one, two = body[at - 1], body[at]
    if one.isdigit() or two.isdigit():
        return (one.isalnum() or one in ".,") and (two.isalnum() or two in ".,")
    return _is_spaced_letter(one) and _is_spaced_letter(two)


def with_edge_marks(quote: str, body: str, start: int, end: int) -> tuple[int, int]:
    """The range with the quotation mark or dash before and after it, where the quote has one too."""
    quote = quote.strip()
    if start and is_dropped_mark(quote[0]) and is_dropped_mark(body[start - 1]):
        start -= 1
    if end < len(body) and is_dropped_mark(quote[-1]) and is_dropped_mark(body[end]):
        end += 1
    return start, end
