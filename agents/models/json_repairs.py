"""Broken JSON mended, where mending changes only punctuation.

json-repair always gives something. What it gives is believed only when it has the very letters and digits of what the
model wrote, in their order, and the very keys: then brackets, quotes and commas are all that was added or left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from lcdoc.agents.models.lenient_json import MAX_DEPTH, storable

MAX_REPAIRED_CHARACTERS = 20_000
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|[bfnrt])")
_QUOTED_KEY = re.compile(r"[\"'“‘]([^\"'“”‘’:,{}\[\]]{1,100}+)[\"'”’]\s*+:")
_SWALLOWED = re.compile(r'"\s*+(?:,\s*+"|[\]}])')
"""The end of a value, where it stands inside a string."""
_ABBREVIATED = re.compile(r"[,\[{]\s*+(?:\.\.\.|…)")


def repaired(broken: str) -> dict[str, Any] | None:
    """The object that `broken` was meant to be, or None where that is not certain."""
    if len(broken) > MAX_REPAIRED_CHARACTERS or _ABBREVIATED.search(broken) or _depth(broken) > MAX_DEPTH:
        return None
    from json_repair import repair_json

    try:
        value = repair_json(broken, return_objects=True, skip_json_loads=True)
    except (ValueError, RecursionError):  # it gives up on deep nesting with either
        return None
    if not isinstance(value, dict) or not _says_the_same(value, broken):
        return None
    mended: dict[str, Any] = _clean(value)
    return mended


def _says_the_same(value: dict[str, Any], broken: str) -> bool:
    pieces = list(_pieces(value))
    strings = [piece for piece in pieces if isinstance(piece, str)]
    if Counter(_keys(value)) != Counter(_QUOTED_KEY.findall(broken)) or any(map(_SWALLOWED.search, strings)):
        return False
    quote = '"' if '"' in broken else "'"
    # A string takes two quotes of its own: else one with a quote inside has been cut in pieces.
    if 2 * len(strings) > broken.count(quote) or strings.count("") > len(re.findall(r"([\"'])\1", broken)):
        return False
    written = _letters(_unescaped(broken))
    return any(
        written == "".join(_letters(null if piece is None else str(piece)) for piece in pieces)
        for null in ("null", "none")
    )


def _pieces(value: Any) -> Iterator[Any]:
    """Keys and scalars in the order in which they stand in the text."""
    if isinstance(value, dict):
        for key, element in value.items():
            yield key
            yield from _pieces(element)
    elif isinstance(value, list):
        for element in value:
            yield from _pieces(element)
    else:
        yield value


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for element in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(element)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)) if escape[1] else " ", text)


def _depth(text: str) -> int:
    depth = deepest = 0
    for bracket in re.findall(r"[{}\[\]]", text):
        depth += 1 if bracket in "{[" else -1
        deepest = max(deepest, depth)
    return deepest


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {storable(key): _clean(element) for key, element in value.items()}
    if isinstance(value, list):
        return [_clean(element) for element in value]
    return storable(value) if isinstance(value, str) else value
