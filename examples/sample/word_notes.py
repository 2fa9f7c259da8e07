"""Real footnotes for python-docx, which has none: the footnotes part, its styles, its two separators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from docx.enum.style import WD_STYLE_TYPE
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from docx.oxml import OxmlElement, parse_xml
from docx.oxml.ns import qn
from docx.shared import Pt

_PART_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"
_RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
_NAMESPACE = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_TEXT_STYLE, _CALL_STYLE = "Footnote Text", "Footnote Reference"
_SEPARATORS = {-1: "separator", 0: "continuationSeparator"}


class Footnotes:
    """Collects the footnotes of one python-docx document; `attach` writes them into its package."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._root = parse_xml(f'<w:footnotes xmlns:w="{_NAMESPACE}"/>')
        self._next = 1
        styles = document.styles
        text = styles.add_style(_TEXT_STYLE, WD_STYLE_TYPE.PARAGRAPH)
        text.base_style, text.font.size = styles["Normal"], Pt(8.5)
        styles.add_style(_CALL_STYLE, WD_STYLE_TYPE.CHARACTER).font.superscript = True
        for number, kind in _SEPARATORS.items():
            note = _element("w:footnote", type=kind, id=str(number))
            run = _append(_append(note, "w:p"), "w:r")
            _append(run, f"w:{kind}")
            self._root.append(note)

    def call(self, paragraph: Any, runs: Sequence[tuple[str, bool, bool]]) -> None:
        """Call a new footnote at the end of `paragraph`; its `runs` are (text, bold, italic)."""
        call = paragraph.add_run()
        call.style = self._document.styles[_CALL_STYLE]
        call._r.append(_element("w:footnoteReference", id=str(self._next)))
        note = _element("w:footnote", id=str(self._next))
        body = _append(note, "w:p")
        _append(_append(body, "w:pPr"), "w:pStyle", val=self._document.styles[_TEXT_STYLE].style_id)
        sign = _append(body, "w:r")
        _append(_append(sign, "w:rPr"), "w:rStyle", val=self._document.styles[_CALL_STYLE].style_id)
        _append(sign, "w:footnoteRef")
        for text, bold, italic in ((" ", False, False), *runs):
            run = _append(body, "w:r")
            face = _append(run, "w:rPr")
            if bold:
                _append(face, "w:b")
            if italic:
                _append(face, "w:i")
            content = _append(run, "w:t")
            content.set(qn("xml:space"), "preserve")
            content.text = text
        self._root.append(note)
        self._next += 1

    def attach(self) -> None:
        """Put the footnotes into the package: the part, the relation to it, and the separators into the settings."""
        from lxml import etree

        blob = etree.tostring(self._root, xml_declaration=True, encoding="UTF-8", standalone=True)
        package = self._document.part.package
        part = Part(PackURI("/word/footnotes.xml"), _PART_TYPE, blob, package)
        self._document.part.relate_to(part, _RELATION)
        properties = _element("w:footnotePr")
        for number in _SEPARATORS:
            _append(properties, "w:footnote", id=str(number))
        # The schema wants footnotePr before w:compat, which python-docx's template has.
        self._document.settings.element.find(qn("w:compat")).addprevious(properties)


def _element(tag: str, **attributes: str) -> Any:
    element = OxmlElement(tag)
    for name, value in attributes.items():
        element.set(qn(f"w:{name}"), value)
    return element


def _append(parent: Any, tag: str, **attributes: str) -> Any:
    element = _element(tag, **attributes)
    parent.append(element)
    return element
