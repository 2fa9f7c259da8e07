"""Numbers as list markers and chapter headings print them: roman, letters, words."""

from __future__ import annotations

import re

_ROMAN = [
    (1000, "M"),
    (900, "CM"),
    (500, "D"),
    (400, "CD"),
    (100, "C"),
    (90, "XC"),
    (50, "L"),
    (40, "XL"),
    (10, "X"),
    (9, "IX"),
    (5, "V"),
    (4, "IV"),
    (1, "I"),
]
_ROMAN_SHAPE = re.compile(r"M{0,3}(?:CM|CD|D?C{0,4})(?:XC|XL|L?X{0,4})(?:IX|IV|V?I{0,4})\Z")
_WORDS = """
    one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
    nineteen twenty
"""
_ORDINALS = """
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth
    sixteenth seventeenth eighteenth nineteenth twentieth
"""
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_VALUES = {word: value for words in (_WORDS, _ORDINALS) for value, word in enumerate(words.split(), 1)} | _TENS


def roman(number: int) -> str:
    """`number` in capital roman numerals; plain digits outside 1 to 3999."""
    if not 0 < number < 4000:
        return str(number)
    out = []
    for value, digits in _ROMAN:
        count, number = divmod(number, value)
        out.append(digits * count)
    return "".join(out)


def letters(number: int) -> str:
    """1 is A, 26 is Z, 27 is AA, 28 is BB: the way word processors count. Plain digits outside 1 to 780."""
    if not 0 < number <= 780:
        return str(number)
    return chr(ord("A") + (number - 1) % 26) * ((number - 1) // 26 + 1)


def parse_number(text: str) -> int | None:
    """The value of `12`, `XII`, `xii`, `twelve`, `twenty-one` or `twelfth`; None when it is none of these."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) <= 6:
        return int(text)
    if text.isupper() or text.islower():
        upper = text.upper()
        if upper and _ROMAN_SHAPE.match(upper):
            values = {digits: value for value, digits in _ROMAN}
            total, index = 0, 0
            while index < len(upper):
                step = 2 if upper[index : index + 2] in values else 1
                total += values[upper[index : index + step]]
                index += step
            return total
    first, _, second = text.lower().replace(" ", "-").partition("-")
    if first in _TENS and second in _VALUES:
        return _TENS[first] + _VALUES[second] if _VALUES[second] < 10 else None
    return _VALUES.get(first) if not second else None
