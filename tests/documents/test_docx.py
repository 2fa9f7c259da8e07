"""Word documents: what python-docx writes, and what it does not know."""

import io
import os
import time
import zipfile
from pathlib import Path

import docx
import pytest
from docx.shared import Pt

from lcdoc.documents import Document, Limits
from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.docx import read
from lcdoc.documents.errors import CorruptFileError, LimitError

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
STRICT_W = "http://purl.oclc.org/ooxml/wordprocessingml/main"
R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STRICT_R = "http://purl.oclc.org/ooxml/officeDocument/relationships"
NAMESPACES = (
    f'xmlns:w="{W}" xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" xmlns:v="urn:schemas-microsoft-com:vml" '
    'xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"'
)


def relationships(kind: str, *targets: tuple[str, str]) -> str:
    rows = "".join(
        f'<Relationship Id="r{i}" Type="{kind}/{name}" Target="{path}"/>' for i, (name, path) in enumerate(targets)
    )
    return f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{rows}</Relationships>'


def word(body: str, **parts: str) -> bytes:
    """A Word file with this body; `parts` are the insides of its styles, numbering, footnotes and endnotes."""
    names = {"styles": "styles", "numbering": "numbering", "footnotes": "footnotes", "endnotes": "endnotes"}
    files = {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": relationships(R, ("officeDocument", "word/document.xml")),
        "word/_rels/document.xml.rels": relationships(R, *((names[name], f"{name}.xml") for name in parts)),
        "word/document.xml": f"<w:document {NAMESPACES}><w:body>{body}</w:body></w:document>",
    }
    files |= {f"word/{name}.xml": f"<w:{name} {NAMESPACES}>{content}</w:{name}>" for name, content in parts.items()}
    return zipped(files)


def zipped(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def p(*runs: str, properties: str = "") -> str:
    """A paragraph; runs that are not markup are text."""
    inner = "".join(run if run.startswith("<") else f"<w:r><w:t>{run}</w:t></w:r>" for run in runs)
    return f"<w:p><w:pPr>{properties}</w:pPr>{inner}</w:p>"


def document_of(data: bytes, limits: Limits | None = None) -> Document:
    job = Job("report.docx", data, limits=limits or Limits())
    builder = DocumentBuilder(job)
    read(job, builder)
    return builder.build(reader="test", reader_version="1", digest="")


def text_of(body: str, **parts: str) -> str:
    return document_of(word(body, **parts)).text


def made_with_python_docx() -> bytes:
    made = docx.Document()
    made.core_properties.title = "The Handbook"
    made.add_heading("The Handbook", 0)
    made.add_paragraph("A first paragraph\twith a tab,\na line break and some ").add_run("bold text").bold = True
    made.add_heading("Methods", 1)
    made.add_paragraph("First item", style="List Bullet")
    made.add_paragraph("Step one", style="List Number")
    made.add_paragraph("Step two", style="List Number")
    made.add_heading("Sample", 2)
    table = made.add_table(rows=3, cols=3)
    for row, cells in enumerate((("Year", "Net", "Gross"), ("2023", "1", "2"), ("2024", "both", ""))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    table.cell(2, 1).merge(table.cell(2, 2))
    made.add_page_break()
    made.add_paragraph("On page two.").runs[0].font.size = Pt(9)
    made.sections[0].header.paragraphs[0].text = "Running header"
    made.sections[0].footer.paragraphs[0].text = "Running footer"
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def test_a_document_by_python_docx() -> None:
    document = document_of(made_with_python_docx())
    assert document.text == (
        "The Handbook\n\nA first paragraph with a tab,\na line break and some bold text\n\nMethods\n\n- First item\n\n"
        "1. Step one\n\n2. Step two\n\nSample\n\nYear | Net | Gross\n2023 | 1 | 2\n2024 | both\n\nOn page two."
    )
    assert [(s.level, s.title) for s in document.sections] == [(1, "The Handbook"), (1, "Methods"), (2, "Sample")]
    assert [page.span.of(document.text)[-12:] for page in document.pages] == ["024 | both\n\n", "On page two."]
    assert document.source.title == "The Handbook"
    assert "breaks set by hand" in document.source.warnings[0]


def test_the_words_are_those_that_python_docx_reads() -> None:
    data = made_with_python_docx()
    made = docx.Document(io.BytesIO(data))
    words = [word for block in made.element.body.iter(f"{{{W}}}t") for word in (block.text or "").split()]
    ours = document_of(data).text.replace("|", " ").split()
    assert [word for word in ours if word not in ("-", "1.", "2.")] == words


def test_strict_open_xml_is_read_the_same() -> None:
    body = p("Überschrift", properties='<w:pStyle w:val="berschrift1"/>') + p("Text.")
    files = {
        "_rels/.rels": relationships(STRICT_R, ("officeDocument", "word/main.xml")),
        "word/_rels/main.xml.rels": relationships(STRICT_R, ("styles", "styles.xml")),
        "word/main.xml": f'<w:document xmlns:w="{STRICT_W}"><w:body>{body}</w:body></w:document>',
        "word/styles.xml": f'<w:styles xmlns:w="{STRICT_W}"><w:style w:type="paragraph" w:styleId="berschrift1">'
        '<w:name w:val="heading 1"/></w:style></w:styles>',
    }
    document = document_of(zipped(files))
    assert document.text == "Überschrift\n\nText."
    assert [(s.level, s.title) for s in document.sections] == [(1, "Überschrift")]


def test_headings_by_outline_level_and_by_inheritance() -> None:
    styles = """<w:style w:type="paragraph" w:styleId="a"><w:name w:val="heading 2"/></w:style>
    <w:style w:type="paragraph" w:styleId="b"><w:name w:val="Mine"/><w:basedOn w:val="a"/></w:style>
    <w:style w:type="paragraph" w:styleId="c"><w:name w:val="Lead"/><w:pPr><w:outlineLvl w:val="3"/></w:pPr></w:style>
    <w:style w:type="paragraph" w:styleId="d"><w:name w:val="Quiet"/><w:basedOn w:val="a"/>
    <w:pPr><w:outlineLvl w:val="9"/></w:pPr></w:style>
    <w:style w:type="paragraph" w:styleId="e"><w:name w:val="Loop"/><w:basedOn w:val="e"/></w:style>"""
    body = "".join(p(f"style {name}", properties=f'<w:pStyle w:val="{name}"/>') for name in "abcde")
    body += p("direct", properties='<w:outlineLvl w:val="0"/>') + p(
        "no style", properties='<w:pStyle w:val="Heading5"/>'
    )
    document = document_of(word(body, styles=styles))
    assert [(s.level, s.title) for s in document.sections] == [
        (2, "style a"),
        (2, "style b"),
        (4, "style c"),
        (1, "direct"),
        (5, "no style"),
    ]


def test_tracked_changes_are_accepted() -> None:
    run = "<w:r><w:t>{}</w:t></w:r>"
    body = p(
        "Kept ",
        f"<w:ins>{run.format('in')}<w:del><w:r><w:delText>no</w:delText></w:r></w:del></w:ins>",
        f"<w:del><w:r><w:delText>out</w:delText></w:r>{run.format('out')}</w:del>",
        f"<w:moveTo>{run.format('moved')}</w:moveTo><w:moveFrom>{run.format('from')}</w:moveFrom>",
        properties='<w:pPrChange><w:pPr><w:pStyle w:val="Heading1"/></w:pPr></w:pPrChange>',
    )
    body += p("One ", properties="<w:rPr><w:del/></w:rPr>") + p("paragraph.")
    document = document_of(word(body))
    assert document.text == "Kept inmoved\n\nOne paragraph."
    assert document.sections == ()


def test_notes_follow_the_paragraph_that_refers_to_them() -> None:
    footnotes = (
        '<w:footnote w:id="0" w:type="separator"><w:p/></w:footnote><w:footnote w:id="7"><w:p><w:r><w:footnoteRef/>'
    )
    footnotes += f"<w:t> My note.</w:t></w:r></w:p>{p('Its second part.')}</w:footnote>"
    endnotes = f'<w:endnote w:id="7">{p("At the end.")}</w:endnote>'
    refer = '<w:r><w:footnoteReference w:id="7"/></w:r>'
    body = p("Text.", refer, " More.", '<w:r><w:endnoteReference w:id="7"/></w:r>') + p("Next.", refer)
    assert text_of(body, footnotes=footnotes, endnotes=endnotes) == (
        "Text.[1] More.[i]\n\n[1] My note.\n\nIts second part.\n\n[i] At the end.\n\nNext."
    )


def test_notes_of_a_table_follow_the_table() -> None:
    refer = '<w:r><w:footnoteReference w:id="1"/></w:r>'
    cell = f"<w:tc>{p('a', refer)}</w:tc><w:tc>{p('b')}</w:tc>"
    footnotes = f'<w:footnote w:id="1">{p("Note.")}</w:footnote>'
    assert text_of(f"<w:tbl><w:tr>{cell}</w:tr></w:tbl>", footnotes=footnotes) == "a[1] | b\n\n[1] Note."


def test_nested_tables_and_merged_cells() -> None:
    inner = f"<w:tbl><w:tr><w:tc>{p('x')}</w:tc><w:tc>{p('y')}</w:tc></w:tr></w:tbl>"
    rows = f"<w:tr><w:tc>{p('A')}</w:tc><w:tc><w:tcPr><w:vMerge w:val='restart'/></w:tcPr>{p('B')}</w:tc></w:tr>"
    rows += f"<w:tr><w:tc>{p('C')}{p('D')}</w:tc><w:tc><w:tcPr><w:vMerge/></w:tcPr><w:p/></w:tc></w:tr>"
    rows += f"<w:tr><w:tc>{p('in')}{inner}<w:p/></w:tc></w:tr>"
    assert text_of(f"<w:tbl>{rows}</w:tbl>{p('after')}") == "A | B\nC D\n\nin\n\nx | y\n\nafter"


def test_text_boxes_come_once_and_after_their_paragraph() -> None:
    box = f"<w:txbxContent>{p('In a box.')}</w:txbxContent>"
    both = f"<w:r><mc:AlternateContent><mc:Choice Requires='wps'><wps:txbx>{box}</wps:txbx></mc:Choice>"
    both += f"<mc:Fallback><w:pict><v:textbox>{box}</v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r>"
    assert text_of(p("Before ", both, "and after.")) == "Before and after.\n\nIn a box."


def test_fields_hidden_text_links_symbols_and_form_fields() -> None:
    body = p(
        "<w:r><w:fldChar w:fldCharType='begin'/><w:instrText>PAGE</w:instrText></w:r>",
        "<w:hyperlink><w:r><w:t>link</w:t></w:r></w:hyperlink>",
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>",
        "<w:r><w:rPr><w:vanish w:val='0'/></w:rPr><w:noBreakHyphen/><w:t>seen</w:t></w:r>",
        "<w:r><w:sym w:font='x' w:char='F0B7'/></w:r>",
        "<w:sdt><w:sdtPr><w:showingPlcHdr/></w:sdtPr><w:sdtContent><w:r><w:t>Click</w:t></w:r></w:sdtContent></w:sdt>",
        "<w:sdt><w:sdtPr/><w:sdtContent><w:r><w:t> filled</w:t></w:r></w:sdtContent></w:sdt>",
        " 10",
        "<w:r><w:rPr><w:vertAlign w:val='superscript'/></w:rPr><w:t>5</w:t></w:r>",
    )
    assert text_of(body) == "link-seen filled 10^5"


def test_equations_are_one_line() -> None:
    t = "<m:r><m:t>{}</m:t></m:r>".format
    square = f"<m:sSup><m:e>{t('b')}</m:e><m:sup>{t('2')}</m:sup></m:sSup>"
    root = f"<m:rad><m:radPr/><m:deg/><m:e>{square}{t('-4ac')}</m:e></m:rad>"
    fraction = f"<m:f><m:num>{t('-b±')}{root}</m:num><m:den>{t('2a')}</m:den></m:f>"
    total = f"<m:nary><m:naryPr><m:chr m:val='∑'/></m:naryPr><m:sub>{t('i=1')}</m:sub><m:sup>{t('n')}</m:sup>"
    total += f"<m:e><m:sSub><m:e>{t('x')}</m:e><m:sub>{t('i')}</m:sub></m:sSub></m:e></m:nary>"
    assert text_of(p("So ", f"<m:oMath>{t('x=')}{fraction}</m:oMath>", ".")) == "So x=(-b±√(b^2-4ac))/2a."
    assert text_of(p(f"<m:oMathPara><m:oMath>{total}</m:oMath></m:oMathPara>")) == "∑_(i=1)^n x_i"


def test_list_numbers_are_counted_as_word_counts_them() -> None:
    level = '<w:lvl w:ilvl="{}"><w:start w:val="{}"/><w:numFmt w:val="{}"/><w:lvlText w:val="{}"/></w:lvl>'.format
    numbering = (
        f'<w:abstractNum w:abstractNumId="0">{level(0, 1, "upperRoman", "Article %1.")}'
        f"{level(1, 1, 'decimal', '%1.%2')}{level(2, 3, 'lowerLetter', '(%3)')}</w:abstractNum>"
        f'<w:abstractNum w:abstractNumId="1">{level(0, 1, "bullet", "x")}</w:abstractNum>'
        '<w:num w:numId="5"><w:abstractNumId w:val="0"/></w:num><w:num w:numId="6"><w:abstractNumId w:val="1"/></w:num>'
        '<w:num w:numId="7"><w:abstractNumId w:val="0"/>'
        '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="9"/></w:lvlOverride></w:num>'
    )
    numbered = '<w:numPr><w:ilvl w:val="{}"/><w:numId w:val="{}"/></w:numPr>'.format
    steps = [(0, 5), (1, 5), (1, 5), (2, 5), (2, 5), (0, 5), (1, 5), (0, 6), (0, 7), (0, 0), (0, 99)]
    body = "".join(p("x", properties=numbered(*step)) for step in steps)
    assert text_of(body, numbering=numbering).split("\n\n") == [
        "Article I. x",
        "I.1 x",
        "I.2 x",
        "(c) x",
        "(d) x",
        "Article II. x",
        "II.1 x",
        "- x",
        "Article IX. x",
        "x",
        "x",
    ]


def test_pages_are_the_recorded_ones() -> None:
    recorded = "<w:r><w:lastRenderedPageBreak/><w:t>{}</w:t></w:r>".format
    body = p("One ", recorded("two"), '<w:r><w:br w:type="page"/></w:r>') + p(recorded("three"))
    body += p("last", properties="<w:sectPr/>") + p(
        recorded("four"), properties='<w:sectPr><w:type w:val="continuous"/></w:sectPr>'
    )
    body += p("seven") + '<w:sectPr><w:type w:val="oddPage"/></w:sectPr>'
    document = document_of(word(body))
    assert [page.span.of(document.text).strip() for page in document.pages] == [
        "One",
        "two",
        "three\n\nlast",
        "four",
        "seven",
    ]
    assert document.source.warnings == ()


def test_a_section_on_an_odd_page_leaves_a_blank_one() -> None:
    body = p("one", properties="<w:sectPr/>") + p("three") + '<w:sectPr><w:type w:val="oddPage"/></w:sectPr>'
    document = document_of(word(body))
    assert [page.span.of(document.text) for page in document.pages] == ["one\n\n", "", "three"]


def test_code_keeps_its_lines_together() -> None:
    styles = '<w:style w:type="paragraph" w:styleId="k"><w:name w:val="Source Code"/></w:style>'
    code = '<w:pStyle w:val="k"/>'
    body = p("Text") + p("if x:", properties=code) + p("    y = 1", properties=code) + p("Text")
    assert text_of(body, styles=styles) == "Text\n\nif x:\n    y = 1\n\nText"


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_corrupt(keep: float) -> None:
    data = made_with_python_docx()
    with pytest.raises(CorruptFileError, match=r"report\.docx: .*damaged or cut off.*; download"):
        document_of(data[: int(len(data) * keep)])


def test_damaged_parts_are_named() -> None:
    with pytest.raises(CorruptFileError, match=r"word/document\.xml is damaged"):
        document_of(word("<w:p>"))
    with pytest.raises(CorruptFileError, match="its text is missing"):
        document_of(zipped({"[Content_Types].xml": "<Types/>"}))


@pytest.mark.parametrize("part", ["word/document.xml", "word/styles.xml", "_rels/.rels"])
def test_entity_declarations_are_refused(part: str) -> None:
    data = word(p("&a;"), styles="")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    files[part] = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + files[part]
    with pytest.raises(CorruptFileError, match="declares XML entities"):
        document_of(zipped(files))


def test_a_zip_bomb_is_stopped() -> None:
    with pytest.raises(LimitError, match="zip bomb"):
        document_of(word(p("a" * 50_000_000)))
    with pytest.raises(LimitError, match="characters of text"):
        document_of(word(p("ab " * 5000)), Limits(max_characters=10_000))


BOX = "<w:p><w:r><w:txbxContent>"
UNBOX = "</w:txbxContent></w:r></w:p>"


@pytest.mark.parametrize(
    "body",
    [
        "<w:tbl><w:tr><w:tc>" * 20_000 + p("deep") + "</w:tc></w:tr></w:tbl>" * 20_000,
        BOX * 10_000 + p("deep") + UNBOX * 10_000 + p("deep"),
        "<w:sdt><w:sdtContent>" * 30_000 + p("deep") + "</w:sdtContent></w:sdt>" * 30_000,
        p("deep", "<m:oMath>" + "<m:f><m:num>" * 20_000 + "</m:num></m:f>" * 20_000 + "</m:oMath>"),
        p("deep") * 30_000,
        p("deep", "<w:r><w:tab/></w:r>" * 60_000),
    ],
)
def test_hostile_markup_is_read_in_linear_time(body: str) -> None:
    start = time.perf_counter()
    assert "deep" in document_of(word(body), Limits(max_unzip_ratio=10_000)).text
    assert time.perf_counter() - start < 5


DATA = Path(os.environ.get("LCDOC_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.skipif(not (DATA / "nasty_other").is_dir(), reason="the odd files are not here (set LCDOC_DATA)")
def test_real_documents() -> None:
    rust = document_of((DATA / "nasty_other" / "book__chapter04.docx").read_bytes())
    assert rust.sections[0].title == "Understanding Ownership"
    assert len(rust.pages) == 31
    assert document_of((DATA / "nasty_other" / "docling__Strict.docx").read_bytes()).text == "Some text"
    breaks = document_of((DATA / "nasty_other" / "unstructured__page-breaks.docx").read_bytes())
    assert [page.span.of(breaks.text)[:15] for page in breaks.pages][3:5] == ["", "<<producing two"]
