"""WordprocessingML as a stream of parser events, turned into a `Flow`: the body of a document, or its notes.

Nothing is kept of what was read but the paragraph at hand, so a document of any size costs its text. Transitional and
strict Office Open XML differ only in their namespaces. Inserted text is kept, deleted text dropped, as if all changes
were accepted; hidden text, field codes and empty form fields are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from lcdoc.documents.docx_math import MathLine
from lcdoc.documents.docx_numbering import Numbering
from lcdoc.documents.docx_paragraph import FALSE, Emission, Paragraph, named, read_property, value_of
from lcdoc.documents.docx_styles import NumberedAs, Styles
from lcdoc.documents.flow import Flow
from lcdoc.documents.numerals import roman

_PREFIXES: Final = {
    "http://schemas.openxmlformats.org/wordprocessingml/2006/main": "",
    "http://purl.oclc.org/ooxml/wordprocessingml/main": "",
    "http://schemas.openxmlformats.org/officeDocument/2006/math": "m:",
    "http://purl.oclc.org/ooxml/officeDocument/math": "m:",
    "http://schemas.openxmlformats.org/markup-compatibility/2006": "mc:",
}
_SKIPPED: Final = frozenset(
    {"instrText", "delText", "delInstrText", "rt", "mc:Fallback", "numberingChange", "pPrChange", "rPrChange"}
    | {"sectPrChange", "tblPrChange", "tblPrExChange", "tcPrChange", "trPrChange", "tblGridChange", "cellDel"}
)
_SKIPPED_SOMETIMES: Final = frozenset({"sdtContent", "txbxContent"})
_DEEPEST_BOX: Final = 16
_DELETED: Final = frozenset({"del", "moveFrom"})
_SEPARATORS: Final = frozenset({"separator", "continuationSeparator", "continuationNotice"})


class Story:
    """The target of an XML parser: `start`, `end`, `data` and `close` are its callbacks."""

    def __init__(
        self,
        flow: Flow,
        styles: Styles,
        numbering: Numbering,
        notes: Mapping[tuple[str, str], list[Emission]],
        section_types: Sequence[str] = (),
    ) -> None:
        """`notes` by kind and id; `section_types` says for each section in order how it begins."""
        self.title = ""
        """The first paragraph in the style for titles."""
        self.notes: dict[str, list[Emission]] = {}
        """The notes themselves, by id, when this is the notes' part."""
        self.breaks_recorded = 0
        """Places where the writing program last began a page."""
        self.breaks_by_hand = 0
        self.embedded = 0
        """Embedded documents (`altChunk`), which are not read."""
        self._flow = flow
        self._styles = styles
        self._numbering = numbering
        self._known_notes = dict(notes)
        self._section_types = section_types
        self._sections_ended = 0
        self._notes_so_far = {"footnote": 0, "endnote": 0}
        self._names: dict[str, str] = {}
        self._skip = 0
        self._paragraphs: list[Paragraph] = []
        self._sinks: list[list[Emission]] = []
        self._placeholders: list[bool] = []
        self._tables = 0
        self._table_notes: list[Emission] = []
        self._math: MathLine | None = None
        self._wanted: list[str] | None = None
        self._goes_on = False
        self._last_was_code = False
        self._starts: dict[str, Callable[[Mapping[str, str]], None]] = {
            "p": self._start_paragraph,
            "pPr": self._start_properties,
            "sectPr": self._start_section,
            "r": self._start_run,
            "t": self._start_text,
            "m:t": self._start_text,
            "m:oMath": self._start_math,
            "br": self._break,
            "cr": lambda _: self._emit_inline(Flow.line_break),
            "tab": self._tab,
            "ptab": self._tab,
            "noBreakHyphen": lambda _: self._text("-"),
            "sym": self._symbol,
            "lastRenderedPageBreak": self._rendered_break,
            "footnoteReference": lambda attributes: self._note_reference("footnote", attributes),
            "endnoteReference": lambda attributes: self._note_reference("endnote", attributes),
            "footnote": self._start_note,
            "endnote": self._start_note,
            "tbl": self._start_table,
            "tr": lambda _: self._emit(Flow.row),
            "tc": lambda _: self._emit(Flow.cell),
            "txbxContent": lambda _: self._sinks.append([]),
            "sdt": lambda _: self._placeholders.append(False),
            "showingPlcHdr": self._placeholder,
            "altChunk": self._embedded_document,
        }
        self._ends: dict[str, Callable[[], None]] = {
            "p": self._end_paragraph,
            "pPr": self._end_properties,
            "r": self._end_run,
            "t": self._end_text,
            "m:t": self._end_text,
            "m:oMath": self._end_math,
            "footnote": self._end_note,
            "endnote": self._end_note,
            "tbl": self._end_table,
            "txbxContent": self._end_box,
            "sdt": self._end_placeholder,
        }

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if self._skip:
            self._skip += 1
            return
        name = self._names.get(tag)
        if name is None:
            name = self._names[tag] = _short(tag)
        if name in _SKIPPED or (name in _SKIPPED_SOMETIMES and self._skips(name)):
            self._skip = 1
            return
        paragraph = self._paragraphs[-1] if self._paragraphs else None
        if name in _DELETED:
            if paragraph is not None and paragraph.in_properties:
                paragraph.mark_deleted = True
            self._skip = 1
            return
        if self._math is not None and name.startswith("m:"):
            self._math.start(name[2:], attributes)
        if paragraph is not None and paragraph.in_properties:
            read_property(paragraph, name, attributes)
        elif paragraph is not None and paragraph.in_run:
            if name == "vanish":
                paragraph.hidden = value_of(attributes) not in FALSE
            elif name == "vertAlign":
                paragraph.raised = value_of(attributes) == "superscript"
        handler = self._starts.get(name)
        if handler is not None:
            handler(attributes)

    def _skips(self, name: str) -> bool:
        """Form fields that nobody has filled in, and text boxes nested as no program nests them."""
        if name == "sdtContent":
            return bool(self._placeholders) and self._placeholders[-1]
        return len(self._sinks) >= _DEEPEST_BOX

    def end(self, tag: str) -> None:
        if self._skip:
            self._skip -= 1
            return
        name = self._names[tag]
        handler = self._ends.get(name)
        if handler is not None:
            handler()
        if self._math is not None and name.startswith("m:"):
            self._math.end(name[2:])

    def data(self, text: str) -> None:
        if self._wanted is not None and not self._skip:
            self._wanted.append(text)

    def close(self) -> None:
        """The parser has seen the end of the part."""

    def _emit(self, emission: Emission) -> None:
        """Do it now, or when the paragraph that a text box or note hangs on is over."""
        if self._sinks:
            self._sinks[-1].append(emission)
        else:
            emission(self._flow)

    def _emit_inline(self, emission: Emission) -> None:
        """The same, inside the paragraph at hand, which opens with its first content."""
        if not self._paragraphs:
            return
        paragraph = self._paragraphs[-1]
        if not paragraph.opened:
            self._open(paragraph)
        self._emit(emission)

    def _text(self, text: str) -> None:
        if not text or not self._paragraphs or self._paragraphs[-1].hidden:
            return
        paragraph = self._paragraphs[-1]
        paragraph.text.append(text)
        keep, raised = paragraph.is_code, paragraph.raised

        def emit(flow: Flow) -> None:
            # 10 and a raised 5 is not 105.
            exponent = raised and text[0].isdigit() and flow.last_character.isdigit()
            flow.text(f"^{text}" if exponent else text, keep=keep)

        self._emit_inline(emit)

    def _open(self, paragraph: Paragraph) -> None:
        paragraph.opened = True
        if paragraph.page_break_before:
            self._page(soft=True)
        if self._goes_on:
            self._goes_on = False
            return
        if paragraph.is_code and self._last_was_code:
            self._emit(Flow.line_break)
        else:
            self._emit(Flow.paragraph)
        if level := paragraph.heading:
            self._emit(lambda flow: flow.heading(level))
        if marker := paragraph.marker:
            self._emit(lambda flow: flow.item(f"{marker} ", own_paragraph=True))

    def _start_paragraph(self, _attributes: Mapping[str, str]) -> None:
        self._paragraphs.append(Paragraph())

    def _end_paragraph(self) -> None:
        if not self._paragraphs:
            return
        paragraph = self._paragraphs.pop()
        if paragraph.page_break_before and not paragraph.opened:
            self._page(soft=True)
        if paragraph.opened:
            if paragraph.heading:
                self._emit(Flow.end_heading)
            if paragraph.is_title and not self.title:
                self.title = " ".join("".join(paragraph.text).split())
            self._last_was_code = paragraph.is_code
        if paragraph.mark_deleted and not paragraph.heading:
            self._goes_on = paragraph.opened or self._goes_on
        for emission in paragraph.boxes:
            self._emit(emission)
        if self._tables and not self._sinks:
            self._table_notes.extend(paragraph.notes)
        else:
            for emission in paragraph.notes:
                self._emit(emission)
        if paragraph.section_ends:
            self._end_section()

    def _start_properties(self, _attributes: Mapping[str, str]) -> None:
        if self._paragraphs:
            self._paragraphs[-1].in_properties = True

    def _end_properties(self) -> None:
        if not self._paragraphs:
            return
        paragraph = self._paragraphs[-1]
        paragraph.in_properties = False
        style = self._styles.get(paragraph.style_id)
        paragraph.is_title, paragraph.is_code = style.is_title, style.is_code
        outline = paragraph.outline
        paragraph.heading = style.heading if outline is None else (outline + 1 if outline < 9 else None)
        numbered = style.numbered
        if paragraph.list_id is not None:
            numbered = NumberedAs(paragraph.list_id, paragraph.list_level or 0)
        if numbered is None or numbered.list_id in ("", "0") or paragraph.mark_deleted:
            return
        level = paragraph.list_level if paragraph.list_level is not None else numbered.level
        if level is None or (paragraph.list_id is None and not level):
            level = self._numbering.level_of_style(numbered.list_id, paragraph.style_id)
        paragraph.marker = self._numbering.marker(numbered.list_id, level)

    def _start_section(self, _attributes: Mapping[str, str]) -> None:
        if self._paragraphs and self._paragraphs[-1].in_properties:
            self._paragraphs[-1].section_ends = True

    def _end_section(self) -> None:
        """The next section begins, on a new page unless it says otherwise."""
        self._sections_ended += 1
        types = self._section_types
        following = types[self._sections_ended] if self._sections_ended < len(types) else "nextPage"
        if following not in ("continuous", "nextColumn") and not self._sinks:
            self.breaks_by_hand += 1
            parity = {"oddPage": 1, "evenPage": 0}.get(following)
            self._emit(lambda flow: flow.page(soft=True, parity=parity))

    def _start_run(self, _attributes: Mapping[str, str]) -> None:
        if self._paragraphs:
            self._paragraphs[-1].in_run = True
            self._paragraphs[-1].hidden = self._paragraphs[-1].raised = False

    def _end_run(self) -> None:
        if self._paragraphs:
            self._paragraphs[-1].in_run = self._paragraphs[-1].hidden = self._paragraphs[-1].raised = False

    def _start_text(self, _attributes: Mapping[str, str]) -> None:
        self._wanted = []

    def _end_text(self) -> None:
        text, self._wanted = "".join(self._wanted or ()), None
        if self._math is not None:
            self._math.text(text)
        else:
            self._text(text)

    def _start_math(self, _attributes: Mapping[str, str]) -> None:
        self._math = MathLine()

    def _end_math(self) -> None:
        math, self._math = self._math, None
        if math is not None:
            self._text(math.line())

    def _break(self, attributes: Mapping[str, str]) -> None:
        if named(attributes, "type") == "page":
            self.breaks_by_hand += not self._sinks
            self._page(soft=False)
        else:
            self._emit_inline(Flow.line_break)

    def _rendered_break(self, _attributes: Mapping[str, str]) -> None:
        self.breaks_recorded += 1
        self._page(soft=True)

    def _page(self, *, soft: bool) -> None:
        # A break inside a text box or note moves that, not the page.
        if not self._sinks:
            self._flow.page(soft=soft)

    def _tab(self, _attributes: Mapping[str, str]) -> None:
        # In paragraph properties the same element defines a tab stop.
        if self._paragraphs and not self._paragraphs[-1].in_properties:
            self._text("\t")

    def _symbol(self, attributes: Mapping[str, str]) -> None:
        """A character of a symbol font; those in the private use area mean nothing outside that font."""
        code = named(attributes, "char")
        try:
            number = int(code, 16)
        except ValueError:
            return
        if 0x20 <= number < 0xD800 or 0xF900 <= number < 0x110000:
            self._text(chr(number))

    def _note_reference(self, kind: str, attributes: Mapping[str, str]) -> None:
        note = self._known_notes.pop((kind, named(attributes, "id")), None)
        if not self._paragraphs or note is None or self._paragraphs[-1].hidden:
            return
        self._notes_so_far[kind] += 1
        number = self._notes_so_far[kind]
        mark = f"[{number if kind == 'footnote' else roman(number).lower()}]"
        self._text(mark)
        self._paragraphs[-1].notes += [
            lambda flow: flow.item(f"{mark} ", own_paragraph=True),
            *note,
            Flow.end_items,
        ]

    def _start_note(self, attributes: Mapping[str, str]) -> None:
        self._sinks.append([])
        if named(attributes, "type") not in _SEPARATORS:
            self.notes[named(attributes, "id")] = self._sinks[-1]

    def _end_note(self) -> None:
        if self._sinks:
            self._sinks.pop()

    def _start_table(self, _attributes: Mapping[str, str]) -> None:
        self._tables += 1
        self._last_was_code = self._goes_on = False
        self._emit(Flow.table)

    def _end_table(self) -> None:
        self._tables -= 1
        self._last_was_code = self._goes_on = False
        self._emit(Flow.end_table)
        if not self._tables:
            notes, self._table_notes = self._table_notes, []
            for emission in notes:
                self._emit(emission)

    def _end_box(self) -> None:
        if not self._sinks:
            return
        content = [Flow.paragraph, *self._sinks.pop(), Flow.paragraph]
        if self._paragraphs:
            self._paragraphs[-1].boxes += content
        else:
            for emission in content:
                self._emit(emission)

    def _placeholder(self, attributes: Mapping[str, str]) -> None:
        if self._placeholders and value_of(attributes) not in FALSE:
            self._placeholders[-1] = True

    def _end_placeholder(self) -> None:
        if self._placeholders:
            self._placeholders.pop()

    def _embedded_document(self, _attributes: Mapping[str, str]) -> None:
        self.embedded += 1


def _short(tag: str) -> str:
    """`p` for the main namespace, `m:t` for math, `mc:...` for compatibility; empty for all others."""
    namespace, _, name = tag[1:].rpartition("}")
    prefix = _PREFIXES.get(namespace)
    return "" if prefix is None else prefix + name
