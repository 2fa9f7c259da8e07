"""JSON as language models write it: a decoder that reads past habits which leave no doubt what was meant.

Beyond JSON it takes single and typographic quotes, Python's and JavaScript's literals, bare keys, comments, commas too
many, raw line breaks in strings, backslashes that escape nothing, and brackets left open at the very end (reported). It
never guesses: a comma too few, a quote inside a string, an ellipsis in place of elements are errors. NaN and infinities
become None. Strings come out without NUL and lone surrogates, so that they can be stored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

MAX_DEPTH = 64
_MAX_DIGITS = 300

_SKIP = re.compile(r"(?:[\s\ufeff\u200b]++|//[^\n]*+|/\*.*?\*/|#[^\n]*+)*+", re.DOTALL)
_WORD = re.compile(r"-?[A-Za-z_$][\w$]*+")
_KEY = re.compile(r"[A-Za-z_$][\w$-]*+")
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9]\d*+)(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d++)?(?![\w.])")
_END = re.compile(r"```|</|\Z")
_STRINGS: Final = {
    '"': re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL),
    # An apostrophe inside is not followed by what follows a string.
    "'": re.compile(r"'((?:[^'\\]++|\\.|'(?!\s*+(?:[,:}\]]|\Z)))*+)'", re.DOTALL),
    "“": re.compile(r'“((?:[^”“"\\]++|\\.)*+)[”“"]', re.DOTALL),
    "”": re.compile(r"”((?:[^”\\]++|\\.)*+)”", re.DOTALL),
    "„": re.compile(r"„((?:[^“”\\]++|\\.)*+)[“”]", re.DOTALL),
    "‘": re.compile(r"‘((?:[^’\\]++|\\.|’(?!\s*+(?:[,:}\]]|\Z)))*+)’", re.DOTALL),
}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "'": "'", "/": "/", "\\": "\\"}
_WORDS: Final = {"true": True, "false": False, "null": None, "none": None, "undefined": None}
_NOT_FINITE: Final = ("nan", "infinity", "inf")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class BrokenJSONError(ValueError):
    """The text is no JSON, not even leniently. `position` is where reading stopped."""

    def __init__(self, problem: str, position: int, *, began: bool) -> None:
        super().__init__(problem)
        self.position = position
        self.began = began
        """An object's key or a list's first element had been read: this was meant to be JSON."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A value, and where it ends in the text. Not `closed`: the text ended before its last brackets."""

    value: Any
    end: int
    closed: bool = True


def decode(text: str, start: int = 0) -> Decoded:
    """The object or list that begins with the bracket at `start`. Raises BrokenJSONError. Linear in the text."""
    decoder = _Decoder(text)
    value, end = decoder.value(start, 0)
    return Decoded(value, end, decoder.closed)


def decode_string(text: str, start: int = 0) -> Decoded:
    """The quoted string at `start`. Raises BrokenJSONError."""
    value, end = _Decoder(text).string(start)
    return Decoded(value, end)


def storable(text: str) -> str:
    """`text` without NUL, and with U+FFFD for surrogates that have no partner."""
    if _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "")


class _Decoder:
    def __init__(self, text: str) -> None:
        self.text = text
        self.closed = True
        self._began = False

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        first = self.text[at : at + 1]
        if first in ("{", "["):
            if depth >= MAX_DEPTH:
                self._began = True
                raise self._broken(f"nested more than {MAX_DEPTH} levels deep", at)
            return self._object(at + 1, depth) if first == "{" else self._list(at + 1, depth)
        if first in _STRINGS:
            return self.string(at)
        if number := _NUMBER.match(self.text, at):
            return self._number(number[0], at), number.end()
        word = _WORD.match(self.text, at)
        name = word[0].lower() if word else ""
        if word and name in _WORDS:
            return _WORDS[name], word.end()
        if word and name.lstrip("-") in _NOT_FINITE:
            return None, word.end()
        raise self._broken("no value", at)

    def string(self, at: int) -> tuple[str, int]:
        form = _STRINGS.get(self.text[at : at + 1])
        found = form.match(self.text, at) if form else None
        if found is None:
            raise self._broken("a string that does not end", len(self.text))
        raw = found[1]
        return storable(_ESCAPE.sub(_unescaped, raw) if "\\" in raw else raw), found.end()

    def _object(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        value: dict[str, Any] = {}
        at = self._skip(at)
        while self.text[at : at + 1] != "}":
            key, at = self._key(at)
            at = self._skip(at)
            if self.text[at : at + 1] != ":":
                raise self._broken(f"no colon after the key {key[:40]!r}", at)
            self._began = True
            element, at = self.value(self._skip(at + 1), depth + 1)
            if key in value and value[key] != element:
                raise self._broken(f"the key {key[:40]!r} twice, with different values", at)
            value[key] = element
            at, more = self._separated(at, "}")
            if not more:
                return value, at
        return value, at + 1

    def _list(self, at: int, depth: int) -> tuple[list[Any], int]:
        value: list[Any] = []
        at = self._skip(at)
        while self.text[at : at + 1] != "]":
            element, at = self.value(at, depth + 1)
            value.append(element)
            at, more = self._separated(at, "]")
            if not more:
                return value, at
        return value, at + 1

    def _key(self, at: int) -> tuple[str, int]:
        if self.text[at : at + 1] in _STRINGS:
            return self.string(at)
        if key := _KEY.match(self.text, at):
            return key[0], key.end()
        raise self._broken("no key", at)

    def _skip(self, at: int) -> int:
        """Past white space and comments."""
        found = _SKIP.match(self.text, at)
        return found.end() if found else at

    def _separated(self, at: int, closing: str) -> tuple[int, bool]:
        """Past the commas after an element, or at the closing bracket; False where the text ends instead."""
        at = self._skip(at)
        if self.text[at : at + 1] == closing:
            return at, True
        if self.text[at : at + 1] != ",":
            if not _END.match(self.text, at):
                raise self._broken(f"neither a comma nor {closing} after a value", at)
            if at == len(self.text) and self.text[at - 1] in "0123456789.":
                raise self._broken("a number that may have been cut", at)
            self.closed = False
            return at, False
        self._began = True
        while self.text[at : at + 1] == ",":
            at = self._skip(at + 1)
        return at, True

    def _number(self, digits: str, at: int) -> int | float | None:
        if len(digits) > _MAX_DIGITS:
            raise self._broken("a number of too many digits", at)
        if re.fullmatch(r"[-+]?\d+", digits):
            return int(digits)
        number = float(digits)
        return number if abs(number) != float("inf") else None

    def _broken(self, problem: str, at: int) -> BrokenJSONError:
        return BrokenJSONError(problem, at, began=self._began)


def _unescaped(escape: re.Match[str]) -> str:
    if escape[1]:
        return chr(int(escape[1], 16))
    return _ESCAPES.get(escape[2], escape[0])
