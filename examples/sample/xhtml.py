"""A chapter as well-formed XHTML: the part that the web page and the EPUB have in common."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sample.book import Block, Chapter, Columns, Heading, Listing, Paragraph, Run, Runs, Table
from sample.typography import curly, printed

STYLE = """\
body { font-family: Georgia, "Times New Roman", serif; line-height: 1.45; }
body { max-width: 38em; margin: 2em auto; padding: 0 1em; }
h1, h2, h3, caption { font-family: Helvetica, Arial, sans-serif; line-height: 1.2; }
table { border-collapse: collapse; margin: 1em 0; }
caption { text-align: left; font-size: 0.85em; padding-bottom: 0.4em; }
th, td { text-align: left; vertical-align: top; padding: 0.15em 0.9em 0.15em 0; }
thead tr, tbody tr:last-child { border-bottom: 1px solid; }
.columns { column-count: 2; column-gap: 2em; }
.notes { font-size: 0.85em; border-top: 1px solid; margin-top: 2em; }
"""


def anchor(chapter: Chapter, section: str = "") -> str:
    """The id of a chapter or of one of its sections."""
    return f"c-{chapter.slug}" + (f"-s{chapter.sections.index(section) + 1}" if section else "")


def chapter_xhtml(chapter: Chapter, *, level: int, epub: bool) -> str:
    """The chapter, its title as heading of `level`. With `epub`, footnotes carry the EPUB vocabulary."""
    kind = "frontmatter" if chapter.front else ("appendix" if chapter.title.startswith("Appendix") else "chapter")
    role = f' epub:type="{kind}"' if epub else ""
    lines = [f'<section id="{anchor(chapter)}"{role}>', f"<h{level}>{_text(chapter.title)}</h{level}>"]
    columns = False
    for block in chapter.blocks:
        if isinstance(block, Columns):
            columns = True
            lines.append('<div class="columns">')
        else:
            lines += _block(chapter, block, level, epub)
    if columns:
        lines.append("</div>")
    if chapter.notes:
        lines += _notes(chapter, epub)
    lines.append("</section>")
    return "\n".join(lines) + "\n"


def _block(chapter: Chapter, block: Block, level: int, epub: bool) -> list[str]:
    if isinstance(block, Heading):
        return [f'<h{level + 1} id="{anchor(chapter, block.title)}">{_text(block.title)}</h{level + 1}>']
    if isinstance(block, Paragraph):
        return [f"<p>{_runs(chapter, block.runs, epub)}</p>"]
    if isinstance(block, Listing):
        tag = "ol" if block.ordered else "ul"
        return [f"<{tag}>", *(f"<li>{_runs(chapter, item, epub)}</li>" for item in block.items), f"</{tag}>"]
    if isinstance(block, Table):
        caption = [f"<caption>Table {block.number}. {_text(block.caption)}</caption>"] if block.caption else []
        return [
            "<table>",
            *caption,
            "<thead>",
            _row(chapter, block.header, "th", epub),
            "</thead>",
            "<tbody>",
            *(_row(chapter, row, "td", epub) for row in block.rows),
            "</tbody>",
            "</table>",
        ]
    return []


def _row(chapter: Chapter, cells: Sequence[Runs], tag: str, epub: bool) -> str:
    return "<tr>" + "".join(f"<{tag}>{_runs(chapter, cell, epub)}</{tag}>" for cell in cells) + "</tr>"


def _notes(chapter: Chapter, epub: bool) -> list[str]:
    lines = ['<div class="notes">']
    for index, note in enumerate(chapter.notes):
        tag, role = ("aside", ' epub:type="footnote"') if epub else ("p", "")
        text = f'<a href="#{anchor(chapter)}-r{index + 1}">{index + 1}</a> {_runs(chapter, note, epub)}'
        text = f"<p>{text}</p>" if epub else text
        lines.append(f'<{tag} id="{anchor(chapter)}-n{index + 1}"{role}>{text}</{tag}>')
    return [*lines, "</div>"]


def _runs(chapter: Chapter, runs: Runs, epub: bool) -> str:
    return "".join(_run(chapter, run, epub) for run in printed(runs))


def _run(chapter: Chapter, run: Run, epub: bool) -> str:
    text = escape(run.text, quote=False)
    if text and run.italic:
        text = f"<em>{text}</em>"
    if text and run.bold:
        text = f"<strong>{text}</strong>"
    if run.note is not None:
        role = ' epub:type="noteref"' if epub else ""
        number, name = run.note + 1, anchor(chapter)
        text += f'<sup><a id="{name}-r{number}" href="#{name}-n{number}"{role}>{number}</a></sup>'
    return text


def _text(text: str) -> str:
    return escape(curly(text), quote=False)
