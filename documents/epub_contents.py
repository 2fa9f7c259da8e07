"""An EPUB's table of contents and page list: EPUB 3 navigation document, or the NCX of EPUB 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from lcdoc.documents.builder import Job
from lcdoc.documents.charset import decode_markup
from lcdoc.documents.tame_html import tame
from lcdoc.documents.unzip import resolve
from lcdoc.documents.xml_parts import attribute, children, descendants, parse_leniently, text_of

Target = tuple[str, str]
"""A place in the book: (member path, element id; empty for the start of the file)."""

_LISTS: Final = {"ol", "ul"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the table of contents. `level` 1 is the outermost."""

    title: str
    level: int
    target: Target


@dataclass(frozen=True, slots=True)
class Contents:
    """What a contents list points at, in its own order."""

    entries: tuple[Entry, ...] = ()
    pages: tuple[tuple[str, Target], ...] = ()
    """(label, place) of each printed page."""


def read_navigation(path: str, data: bytes) -> Contents:
    """The navigation document at `path`: its `toc` and `page-list`."""
    from selectolax.lexbor import LexborHTMLParser

    decoded = decode_markup(data)
    if decoded is None:
        return Contents()
    source, _ = tame(decoded.text)
    navs = LexborHTMLParser(source).css("nav")
    toc = next((nav for nav in navs if _is_kind(nav, "toc", "doc-toc")), None)
    if toc is None:
        toc = next((nav for nav in navs if not (nav.attributes.get("epub:type") or nav.attributes.get("role"))), None)
    page_list = next((nav for nav in navs if _is_kind(nav, "page-list", "doc-pagelist")), None)
    entries = _lines(toc, path) if toc is not None else []
    pages = _lines(page_list, path) if page_list is not None else []
    return Contents(tuple(entries), tuple((entry.title, entry.target) for entry in pages))


def read_ncx(job: Job, path: str, data: bytes) -> Contents:
    """The NCX at `path`: its `navMap` and `pageList`. Raises CorruptFileError when it is no XML at all."""
    root, _ = parse_leniently(job, path, data)
    entries: list[Entry] = []
    # Depth first without recursion: points still to visit, the next one last.
    stack = [(point, 1) for chart in descendants(root, "navMap") for point in children(chart, "navPoint")][::-1]
    while stack:
        point, level = stack.pop()
        if (line := _ncx_line(point, path)) is not None:
            entries.append(Entry(line[0], level, line[1]))
        stack.extend([(child, level + 1) for child in children(point, "navPoint")][::-1])
    pages = [_ncx_line(target, path) for target in descendants(root, "pageTarget")]
    return Contents(tuple(entries), tuple(page for page in pages if page is not None))


def _ncx_line(point: Any, path: str) -> tuple[str, Target] | None:
    label = next((text_of(child) for child in children(point, "navLabel")), "")
    source = next((attribute(child, "src") for child in children(point, "content")), "")
    target = resolve(path, source) if source else None
    return (label, target) if label and target else None


def _is_kind(nav: Any, *kinds: str) -> bool:
    named = f"{nav.attributes.get('epub:type') or ''} {nav.attributes.get('role') or ''}".split()
    return not set(kinds).isdisjoint(named)


def _lines(nav: Any, path: str) -> list[Entry]:
    """Links of a nested list with their depth. A line without a link gets the place of the next link."""
    entries: list[Entry] = []
    waiting: list[tuple[str, int]] = []
    level = 0

    def enter(node: Any) -> bool:
        nonlocal level
        if node.tag in _LISTS:
            level += 1
        if node.tag not in {"a", "span"} or not level:
            return True
        title = " ".join(node.text(deep=True).split())
        href = node.attributes.get("href")
        target = resolve(path, href) if href else None
        if target is None:
            if title:
                waiting.append((title, level))
            return False
        entries.extend(Entry(name, depth, target) for name, depth in waiting)
        waiting.clear()
        if title:
            entries.append(Entry(title, level, target))
        return False

    def leave(node: Any) -> None:
        nonlocal level
        if node.tag in _LISTS:
            level -= 1

    _walk(nav, enter, leave)
    return entries


def _walk(top: Any, enter: Callable[[Any], bool], leave: Callable[[Any], None]) -> None:
    """Visit the elements below `top` in document order without recursion; `enter` says whether to go inside."""
    stack: list[Any] = []
    node = top.first_child
    while node is not None:
        is_element = node.is_element_node
        inside = node.first_child if is_element and enter(node) else None
        if inside is not None:
            stack.append(node)
            node = inside
            continue
        if is_element:
            leave(node)
        following = node.next
        while following is None and stack:
            node = stack.pop()
            leave(node)
            following = node.next
        node = following
