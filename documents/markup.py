"""From HTML or XHTML source to a `Flow`: what a reader of the page would see, in order.

The tree comes from selectolax (lexbor, the HTML5 algorithm); the walk over it is a loop, so depth costs nothing.
Scripts, styles, templates, form choices and hidden elements are left out. `<aside>`, `<nav>` and `<footer>` stay:
they are text of the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lcdoc.documents.flow import Flow
from lcdoc.documents.numerals import letters, roman
from lcdoc.documents.tame_html import tame


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SKIPPED: Final = _names("""
    annotation annotation-xml applet area audio base canvas datalist head iframe input link meta meter noembed noframes
    noscript object param progress rp rt script select source style template textarea title track video
""")
_BLOCKS: Final = _names("""
    address article aside blockquote body caption center details dialog div dl dt fieldset figcaption figure footer
    form frameset header hr html legend main nav optgroup p search section summary
""")
_LISTS: Final = _names("dir menu ol ul")
_PREFORMATTED: Final = _names("listing plaintext pre xmp")
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_HIDDEN_STYLE: Final = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)\b", re.IGNORECASE)
_PAGE_CLASSES: Final = _names("""
    pagenum pagenumber page-number page_number pageno page-no pagebreak x-ebookmaker-pageno
""")
_PAGE_LABEL: Final = re.compile(
    r"[\[({<\s]*(?:page|pag|pg|seite|p|s)?[\s.:_#-]*(\d{1,5}[a-z]?|[ivxlcdm]{1,9})[\])}>\s.]*\Z", re.IGNORECASE
)
_LINE_NUMBERS: Final = _names("lnum linenum lineno linenumber line-number")
_NUMBERS: Final[dict[str, Callable[[int], str]]] = {
    "a": lambda number: letters(number).lower(),
    "A": letters,
    "i": lambda number: roman(number).lower(),
    "I": roman,
}
_LONGEST_LABEL: Final = 20
_NOTE_MARK: Final = re.compile(r"[^\s\[\](){}]{1,6}\Z")
_FOOTNOTES: Final = _names("""
    footnote footnotes endnote endnotes rearnote rearnotes doc-footnote doc-endnote doc-endnotes
""")

Attributes = Mapping[str, str | None]
Leave = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Targets:
    """What outside this page points into it, by element id."""

    anchors: Mapping[str, str] = field(default_factory=dict)
    """Element id -> key under which `Flow.anchors` remembers the place."""
    pages: Mapping[str, str] = field(default_factory=dict)
    """Element id -> label of the page that begins there."""


def read_markup(
    source: str, flow: Flow, *, targets: Targets | None = None, noscript: bool = False, contents: bool = True
) -> bool:
    """Feed a page to `flow`. Returns whether its nesting had to be flattened.

    `noscript` reads what a browser without scripts would show. `contents=False` leaves out the navigation lists of an
    EPUB (`<nav epub:type="toc">` and its like), which repeat what is in the text.
    """
    from selectolax.lexbor import LexborHTMLParser

    source, changed = tame(source)
    walk = _Walk(flow, targets or Targets(), noscript=noscript, contents=contents)
    walk.run(LexborHTMLParser(source).root)
    return changed


@dataclass
class _List:
    kind: str
    """What its items are numbered by: `1`, `a`, `A`, `i`, `I`, or nothing for bullets."""
    number: int


class _Walk:
    def __init__(self, flow: Flow, targets: Targets, *, noscript: bool, contents: bool) -> None:
        self._flow = flow
        self._targets = targets
        self._skipped = _SKIPPED - {"noscript"} if noscript else _SKIPPED
        self._contents = contents
        self._lists: list[_List] = []
        self._enter_by_tag: dict[str, Callable[[Any, Attributes], Leave | None]] = {
            **dict.fromkeys(_BLOCKS, self._block),
            **dict.fromkeys(_LISTS, self._list),
            **dict.fromkeys(_PREFORMATTED, self._preformatted),
            **dict.fromkeys(_HEADINGS, self._heading),
            "button": self._button,
            "dd": self._definition,
            "hgroup": self._heading_group,
            "img": self._image,
            "li": self._item,
            "q": self._quotation,
            "sup": self._raised,
            "table": self._table,
            "td": self._cell,
            "th": self._cell,
            "tr": self._row,
        }

    def run(self, root: Any) -> None:
        """Visit the tree in document order without recursion."""
        stack: list[tuple[Any, Leave | None]] = []
        node = root
        while node is not None:
            descend, leave = self._enter(node)
            child = node.first_child if descend else None
            if child is not None:
                stack.append((node, leave))
                node = child
                continue
            if leave is not None:
                leave()
            following = node.next
            while following is None and stack:
                node, leave = stack.pop()
                if leave is not None:
                    leave()
                following = node.next
            node = following

    def _enter(self, node: Any) -> tuple[bool, Leave | None]:
        """Begin a node: whether to go inside, and what to do when it ends."""
        if node.is_text_node:
            self._flow.text(node.text_content or "")
            return False, None
        if not node.is_element_node:
            return bool(node.is_document_node), None
        tag, attributes = node.tag, node.attributes
        if self._is_leaf(node, tag) or (
            attributes and (self._is_hidden(attributes) or self._is_mark(node, tag, attributes))
        ):
            return False, None
        enter = self._heading if attributes.get("role") == "heading" else self._enter_by_tag.get(tag)
        return True, enter(node, attributes) if enter is not None else None

    def _is_leaf(self, node: Any, tag: str) -> bool:
        """Whether the element has no text inside that we want; what it stands for is done here."""
        if tag == "br":
            self._flow.line_break()
        elif tag == "svg":
            for text in node.css("text"):
                self._flow.text(f" {text.text(deep=True)} ")
        else:
            return tag in self._skipped
        return True

    def _is_hidden(self, attributes: Attributes) -> bool:
        kinds = _types(attributes)
        if "hidden" in attributes or _HIDDEN_STYLE.search(attributes.get("style") or ""):
            # Reading systems hide footnotes in place and pop them up; they are text of the book.
            return not kinds & _FOOTNOTES
        if kinds & {"backlink", "doc-backlink"}:
            return True
        if not self._contents and kinds & {"toc", "page-list", "landmarks", "doc-toc", "doc-pagelist"}:
            return True
        css_class = attributes.get("class") or ""
        if css_class in _LINE_NUMBERS:
            return True
        # KaTeX writes each formula twice: MathML for machines, and glyphs in place, which make no text.
        return attributes.get("aria-hidden") == "true" and "katex-html" in css_class

    def _is_mark(self, node: Any, tag: str, attributes: Attributes) -> bool:
        """Note what begins at this element. True when it is nothing but a mark, so that its text is not the page's."""
        identifier = attributes.get("id") or (attributes.get("name") if tag == "a" else None)
        if identifier and (key := self._targets.anchors.get(identifier)) is not None:
            self._flow.anchor(key)
        if self._begins_page(node, attributes, identifier):
            return True
        if tag != "a" or not self._is_note_reference(node, attributes):
            return False
        content = node.text(deep=True).strip()
        if not _NOTE_MARK.match(content):
            return False
        self._flow.text(f"[{content}]")
        return True

    def _begins_page(self, node: Any, attributes: Attributes, identifier: str | None) -> bool:
        """Note a page break. True when the element's own text is only the label of the page."""
        listed = self._targets.pages.get(identifier) if identifier else None
        is_break = bool(_types(attributes) & {"pagebreak", "doc-pagebreak"})
        css_class = attributes.get("class")
        if not is_break and not (css_class and _PAGE_CLASSES.intersection(css_class.lower().split())):
            if listed is not None:
                self._flow.page(listed)
            return False
        content = node.text(deep=True).strip()
        labels = (attributes.get("aria-label"), attributes.get("title"), content)
        found = next((label for text in labels if text and (label := page_label(text))), None)
        if found is None and listed is None and not is_break:
            return False
        self._flow.page(listed or found or content[:_LONGEST_LABEL])
        return len(content) <= _LONGEST_LABEL

    def _is_note_reference(self, node: Any, attributes: Attributes) -> bool:
        """Note references become `[1]`, or they would run into the word before them."""
        if _types(attributes) & {"noteref", "doc-noteref"}:
            return True
        if "#" not in (attributes.get("href") or ""):
            return False
        around, inside = node.parent, node.first_child
        return (around is not None and around.tag == "sup") or (inside is not None and inside.tag == "sup")

    def _block(self, _node: Any, _attributes: Attributes) -> Leave:
        self._flow.paragraph()
        return self._flow.paragraph

    def _heading(self, node: Any, attributes: Attributes) -> Leave:
        if node.parent is not None and node.parent.tag == "hgroup":
            return self._block(node, attributes)
        level = attributes.get("aria-level") or ""
        self._flow.heading(_HEADINGS.get(node.tag) or (int(level) if level in {*"123456"} else 2))
        return self._flow.end_heading

    def _heading_group(self, node: Any, attributes: Attributes) -> Leave:
        """A heading with its subtitle: one title."""
        first = node.css_first("h1, h2, h3, h4, h5, h6")
        if first is None:
            return self._block(node, attributes)
        self._flow.heading(_HEADINGS[first.tag])
        return self._flow.end_heading

    def _preformatted(self, _node: Any, _attributes: Attributes) -> Leave:
        self._flow.preformatted(True)
        return lambda: self._flow.preformatted(False)

    def _list(self, node: Any, attributes: Attributes) -> Leave:
        self._flow.paragraph()
        start = attributes.get("start") or ""
        kind = (attributes.get("type") or "1")[:1] if node.tag == "ol" else ""
        self._lists.append(_List(kind, int(start) if start.isdecimal() and len(start) < 9 else 1))

        def leave() -> None:
            self._lists.pop()
            self._flow.end_items()

        return leave

    def _item(self, _node: Any, attributes: Attributes) -> None:
        here = self._lists[-1] if self._lists else _List("", 1)
        value = attributes.get("value") or ""
        number = int(value) if value.isdecimal() and len(value) < 9 else here.number
        here.number = number + 1
        self._flow.item(f"{_NUMBERS.get(here.kind, str)(number)}. " if here.kind else "- ")

    def _definition(self, _node: Any, _attributes: Attributes) -> None:
        self._flow.line_break()

    def _table(self, _node: Any, _attributes: Attributes) -> Leave:
        self._flow.table()
        return self._flow.end_table

    def _row(self, _node: Any, _attributes: Attributes) -> None:
        self._flow.row()

    def _cell(self, _node: Any, _attributes: Attributes) -> None:
        self._flow.cell()

    def _raised(self, node: Any, _attributes: Attributes) -> None:
        """10<sup>5</sup> is not 105."""
        child = node.first_child
        if child is not None and child.is_text_node and self._flow.last_character.isdigit():
            content = (child.text_content or "").strip()
            if content.lstrip("-−+")[:1].isdigit():
                self._flow.text("^")

    def _quotation(self, _node: Any, _attributes: Attributes) -> Leave:
        self._flow.text("“")
        return lambda: self._flow.text("”")

    def _button(self, _node: Any, _attributes: Attributes) -> Leave:
        self._flow.text(" ")
        return lambda: self._flow.text(" ")

    def _image(self, _node: Any, attributes: Attributes) -> None:
        """Formulas drawn as pictures carry their TeX source; other descriptions are not text of the page."""
        if "math" in (attributes.get("class") or ""):
            self._flow.text(attributes.get("alt") or "")


def page_label(text: str) -> str | None:
    """The page number in `text`: `12` in `[Pg 12]`, `{12}` or `Page 12`; None when there is something else."""
    match = _PAGE_LABEL.match(text[:80])
    return match[1] if match else None


def _types(attributes: Attributes) -> set[str]:
    """What `epub:type` and `role` say the element is."""
    kinds, role = attributes.get("epub:type"), attributes.get("role")
    return set(f"{kinds or ''} {role or ''}".lower().split()) if kinds or role else set()
