"""Markup that no HTML parser digests in linear time, made harmless before one sees it.

The HTML parsing algorithm walks the stack of open elements for most tags, re-opens every unclosed `<b>` in each new
paragraph, and compares each attribute with all before it. Ten thousand nested `<div>` or attributes in one tag thus
take seconds, and a million take days. Browsers cap the depth; so does this, before parsing. A page from this world
passes unchanged.
"""

from __future__ import annotations

import re
from typing import Final

MAX_DEPTH: Final = 512
MAX_OPEN_FORMATTING: Final = 64
MAX_ATTRIBUTES: Final = 256
MAX_BODIES: Final = 64

# Every quantifier that can run to the end of the file is possessive and accepts the end, so no text is scanned twice.
_ATTRIBUTES: Final = r"""(?:[^>=]++|=\s*+(?:"[^"]*+"?|'[^']*+'?|[^\s>"'][^\s>]*+)?)*+"""
_TAG: Final = re.compile(
    r"<!--.*?(?:-->|\Z)"
    rf"|<(?P<raw>script|style|textarea|title|xmp|iframe|noembed|noframes)\b{_ATTRIBUTES}(?:>|\Z).*?(?:</(?P=raw)\b|\Z)"
    rf"|<(?P<close>/?)(?P<name>[a-z][^\s/>]*+)(?P<attributes>{_ATTRIBUTES})(?:>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE: Final = re.compile(r"""[^\s=>"'/]+(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s>"']+))?""")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FORMATTING: Final = _names("b big code em font i nobr s small strike strong tt u")
# Never open for long: they have no content, or the next of their kind ends them.
_FLAT: Final = _names("""
    area base basefont bgsound br col embed frame hr img input keygen link meta param source track wbr
    a body caption colgroup dd dt head html li p tbody td tfoot th thead tr
""")
_INLINE: Final = _names("abbr bdi bdo cite data del dfn ins kbd label mark q span sub sup time var")


def tame(source: str) -> tuple[str, bool]:
    """`source` with nesting, open formatting and attributes capped, and whether anything had to be changed."""
    if not _is_wild(source):
        return source, False
    return _flatten(source), True


def _is_wild(source: str) -> bool:
    stack: list[str] = []
    opened: dict[str, int] = {}
    formatting, bodies = 0, 0
    for match in _TAG.finditer(source):
        name = match["name"]
        if name is None:
            continue
        name = name.lower()
        attributes = match["attributes"]
        if len(attributes) > 2 * MAX_ATTRIBUTES and len(_ATTRIBUTE.findall(attributes)) > MAX_ATTRIBUTES:
            return True
        if name in _FORMATTING:
            formatting = max(0, formatting + (-1 if match["close"] else 1))
            if formatting > MAX_OPEN_FORMATTING:
                return True
        elif name in _FLAT:
            bodies += name in {"body", "html"}
            if bodies > MAX_BODIES:
                return True
        elif not match["close"]:
            if attributes.endswith("/") and (opened.get("svg") or opened.get("math")):
                continue
            stack.append(name)
            opened[name] = opened.get(name, 0) + 1
            if len(stack) > MAX_DEPTH:
                return True
        elif opened.get(name):
            while (top := stack.pop()) != name:
                opened[top] -= 1
            opened[name] -= 1
    return False


def _flatten(source: str) -> str:
    """Without formatting tags, repeated `body` tags and long attribute lists, and with the depth capped."""
    return _TAG.sub(_Flattener().rewrite, source)


class _Flattener:
    def __init__(self) -> None:
        self._stack: list[tuple[str, bool]] = []
        """Open elements and whether their tags were kept."""
        self._opened: dict[str, int] = {}
        self._depth = 0
        self._bodies = 0

    def rewrite(self, match: re.Match[str]) -> str:
        """What a tag becomes: itself, itself without attributes, a line break, or nothing."""
        name = match["name"]
        if name is None:
            return match.group()
        name = name.lower()
        if name in _FORMATTING:
            return ""
        whole, attributes = match.group(), match["attributes"]
        if len(attributes) > 2 * MAX_ATTRIBUTES and len(_ATTRIBUTE.findall(attributes)) > MAX_ATTRIBUTES:
            whole = f"<{match['close']}{name}>"
        if name in _FLAT:
            self._bodies += name in {"body", "html"}
            return "" if name in {"body", "html"} and self._bodies > MAX_BODIES else whole
        if not match["close"] and attributes.endswith("/") and (self._opened.get("svg") or self._opened.get("math")):
            return whole
        kept = self._close(name) if match["close"] else self._open(name)
        return whole if kept else "" if name in _INLINE else "<br>"

    def _open(self, name: str) -> bool:
        kept = self._depth < MAX_DEPTH
        self._stack.append((name, kept))
        self._opened[name] = self._opened.get(name, 0) + 1
        self._depth += kept
        return kept

    def _close(self, name: str) -> bool:
        """Whether an end tag closes an element that was kept. One that closes nothing costs the parser a search."""
        if not self._opened.get(name):
            return False
        while True:
            top, kept = self._stack.pop()
            self._opened[top] -= 1
            self._depth -= kept
            if top == name:
                return kept
