"""How the sections of a Word document begin: on a new page, an odd one, or in the middle of one."""

from __future__ import annotations

from collections.abc import Mapping

from lcdoc.documents.docx_paragraph import value_of


class SectionTypes:
    """The target of a parser that only wants to know how each section begins (`types`, in order).

    A section's properties stand at its end, so the story cannot know them in time.
    """

    def __init__(self) -> None:
        self.types: list[str] = []
        self._in_section = 0
        self._in_change = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag.endswith("}sectPrChange"):
            self._in_change += 1
        elif tag.endswith("}sectPr") and not self._in_change:
            self._in_section += 1
            self.types.append("nextPage")
        elif self._in_section and not self._in_change and tag.endswith("}type"):
            self.types[-1] = value_of(attributes)

    def end(self, tag: str) -> None:
        if tag.endswith("}sectPrChange"):
            self._in_change -= 1
        elif tag.endswith("}sectPr") and not self._in_change:
            self._in_section -= 1

    def data(self, _text: str) -> None:
        """Text is of no interest."""

    def close(self) -> None:
        """The parser has seen the end of the part."""
