"""EPUB 2 and 3, sound and hostile."""

import io
import os
import random
import time
import zipfile
from pathlib import Path

import pytest

from lcdoc.documents import Document, Limits
from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.epub import as_html, read
from lcdoc.documents.errors import CorruptFileError, EmptyDocumentError, LimitError, PasswordError
from lcdoc.documents.limits import MIB

CONTAINER = """<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
XHTML = """<?xml version="1.0" encoding="utf-8"?>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="e"><head/><body>{}</body></html>"""


def opf(items: str, spine: str, *, title: str = "A Book", head: str = "") -> str:
    return f"""{head}<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata
    xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></metadata>
    <manifest>{items}</manifest><spine toc="ncx">{spine}</spine></package>"""


def item(name: str, kind: str = "application/xhtml+xml", properties: str = "") -> str:
    return f'<item id="{Path(name).stem}" href="{name}" media-type="{kind}" properties="{properties}"/>'


def book(
    bodies: dict[str, str], *, nav: str = "", ncx: str = "", more: dict[str, str] | None = None, **changes: str
) -> bytes:
    """An EPUB of these XHTML bodies, with an EPUB 3 and an EPUB 2 table of contents where given."""
    items = "".join(item(name) for name in bodies)
    spine = "".join(f'<itemref idref="{Path(name).stem}"/>' for name in bodies)
    files = {f"OEBPS/{name}": XHTML.format(body) for name, body in bodies.items()}
    if nav:
        items += item("nav.xhtml", properties="nav")
        files["OEBPS/nav.xhtml"] = XHTML.format(nav)
    if ncx:
        items += item("ncx.ncx", "application/x-dtbncx+xml")
        files["OEBPS/ncx.ncx"] = ncx
    files["OEBPS/book.opf"] = changes.get("opf") or opf(items, spine)
    files["META-INF/container.xml"] = changes.get("container") or CONTAINER
    return zipped({"mimetype": changes.get("mimetype") or "application/epub+zip", **files, **(more or {})})


def zipped(files: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def document_of(data: bytes, limits: Limits | None = None) -> Document:
    job = Job("book.epub", data, limits=limits or Limits())
    builder = DocumentBuilder(job)
    read(job, builder)
    return builder.build(reader="test", reader_version="1", digest="")


def outline(document: Document) -> list[tuple[int, str, str]]:
    return [(s.level, s.title, s.span.of(document.text)[:20]) for s in document.sections]


BODIES = {
    "one.xhtml": '<h1 id="c1">Chapter <b>I</b></h1><p>First words.</p><h2 id="c1a">Inside</h2><p>More.</p>',
    "two.xhtml": '<section id="c2"><p>Second<a id="mid"/> words.</p></section>',
}
NAV = """<nav epub:type="landmarks"><ol><li><a href="one.xhtml">Start</a></li></ol></nav>
<nav epub:type="toc"><h1>Contents</h1><ol><li><span>Part One</span><ol><li><a href="one.xhtml#c1">I:
The Start</a><ol><li><a href="one.xhtml#c1a">Inside</a></li></ol></li></ol></li>
<li><a href="TWO.xhtml">II</a></li><li><a href="two.xhtml#mid">Middle</a></li>
<li><a href="gone.xhtml">Gone</a></li></ol></nav>"""
NCX = """<?xml version="1.0"?>
<!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "http://www.daisy.org/z3986/2005/ncx-2005-1.dtd">
<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>I</text></navLabel>
<content src="one.xhtml"/><navPoint><navLabel><text>Inside</text></navLabel><content src="one.xhtml#c1a"/></navPoint>
</navPoint><navPoint><navLabel><text>II</text></navLabel><content src="two.xhtml#c2"/></navPoint></navMap><pageList>
<pageTarget><navLabel><text>{7}</text></navLabel><content src="two.xhtml#mid"/></pageTarget></pageList></ncx>"""


def test_the_spine_is_the_text_and_the_navigation_its_sections() -> None:
    document = document_of(book(BODIES, nav=NAV))
    assert document.source.title == "A Book"
    assert document.text == "Chapter I\n\nFirst words.\n\nInside\n\nMore.\n\nSecond words."
    assert outline(document) == [
        (1, "Part One", "Chapter I\n\nFirst wor"),
        (2, "I: The Start", "Chapter I\n\nFirst wor"),
        (3, "Inside", "Inside\n\nMore.\n\n"),
        (1, "II", "Second"),
        (1, "Middle", " words."),
    ]
    assert document.source.warnings == ("1 entry of the table of contents points nowhere",)
    assert len(document.pages) == 1


def test_an_ncx_gives_sections_and_printed_pages() -> None:
    document = document_of(book(BODIES, ncx=NCX))
    assert [(s.level, s.title) for s in document.sections] == [(1, "I"), (2, "Inside"), (1, "II")]
    assert [(p.label, p.span.of(document.text)[-8:]) for p in document.pages] == [
        ("front", "\n\nSecond"),
        ("7", " words."),
    ]


def test_without_contents_the_headings_are_the_sections() -> None:
    assert outline(document_of(book(BODIES))) == [
        (1, "Chapter I", "Chapter I\n\nFirst wor"),
        (2, "Inside", "Inside\n\nMore.\n\nSecon"),
    ]


def test_a_navigation_that_is_missing_is_a_warning() -> None:
    items = "".join(item(name) for name in BODIES) + item("nav.xhtml", properties="nav")
    document = document_of(book(BODIES, opf=opf(items, '<itemref idref="one"/><itemref idref="two"/>')))
    assert len(document.sections) == 2
    assert document.source.warnings == ("the contents list OEBPS/nav.xhtml is missing from the file",)


def test_page_breaks_in_the_text_are_pages() -> None:
    body = """<p>Before.</p><div role="doc-pagebreak" id="p1" aria-label=" Page 1. "/><p>One <span epub:type="pagebreak"
    title="2" id="p2"/>two</p><p epub:type="pagebreak">iii</p><p>three</p>"""
    document = document_of(book({"one.xhtml": body}))
    assert document.text == "Before.\n\nOne two\n\nthree"
    assert [(p.label, p.span.of(document.text).strip()) for p in document.pages] == [
        ("front", "Before."),
        ("1", "One"),
        ("2", "two"),
        ("iii", "three"),
    ]


def test_notes_stay_and_navigation_lists_go() -> None:
    body = """<nav epub:type="toc"><h1>Contents</h1><ol><li>One</li></ol></nav><p>Word<a epub:type="noteref"
    href="#n">1</a> on.</p><aside epub:type="footnote" id="n" hidden="">
    <p>A note. <a epub:type="backlink" href="#r">↩</a></p></aside>"""
    assert document_of(book({"one.xhtml": body})).text == "Word[1] on.\n\nA note."


def test_files_outside_the_main_line_come_last_and_missing_ones_are_named() -> None:
    items = item("notes.xhtml") + item("one.xhtml") + item("gone.xhtml") + item("cover.svg", "image/svg+xml")
    spine = "".join(
        f'<itemref idref="{name}" linear="{linear}"/>'
        for name, linear in (
            ("cover", "yes"),
            ("notes", "no"),
            ("one", "yes"),
            ("gone", "yes"),
            ("one", "yes"),
            ("x", "yes"),
        )
    )
    files = {"one.xhtml": "<p>Main.</p>", "notes.xhtml": "<p>Notes.</p>"}
    document = document_of(book(files, opf=opf(items, spine)))
    assert document.text == "Main.\n\nNotes."
    assert document.source.warnings == ("parts of the book are missing from the file: gone.xhtml, x",)


def test_xhtml_reads_as_xml_means_it() -> None:
    source = (
        '<!DOCTYPE html [<!ENTITY x "y">]><title/><p id="a"/>a<a id="b"/> b<br/><![CDATA[1 < 2 & 3]]><script src="s"/>c'
    )
    document = document_of(book({"one.xhtml": "<p/>"}, more={"OEBPS/one.xhtml": source}))
    assert document.text == "a b\n1 < 2 & 3c"
    assert as_html('<td  class="a" /><img src="b"/>') == '<td  class="a"></td><img src="b"/>'


@pytest.mark.parametrize("mimetype", ["application/zip", "text/plain\n", "\x00garbage"])
def test_a_wrong_mimetype_does_not_matter(mimetype: str) -> None:
    assert document_of(book(BODIES, mimetype=mimetype)).text.startswith("Chapter I")


def test_a_container_that_names_nothing_is_worked_around() -> None:
    document = document_of(book(BODIES, container="<container/>"))
    assert document.text.startswith("Chapter I")
    assert "book.opf was taken" in document.source.warnings[0]


def test_a_package_that_is_not_well_formed_is_read_as_well_as_possible() -> None:
    broken = opf(item("one.xhtml"), '<itemref idref="one"/>').replace('xmlns:dc="http://purl.org/dc/elements/1.1/"', "")
    document = document_of(book({"one.xhtml": "<p>Text.</p>"}, opf=broken))
    assert document.text == "Text."
    assert "not well-formed" in document.source.warnings[0]


LAUGHS = '<!DOCTYPE p [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>'
OUTSIDE = '<!DOCTYPE p [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(("head", "use"), [(LAUGHS, "&c;"), (OUTSIDE, "&a;")])
@pytest.mark.parametrize("part", ["OEBPS/book.opf", "META-INF/container.xml"])
def test_entity_declarations_are_refused(head: str, use: str, part: str) -> None:
    whole = {
        "OEBPS/book.opf": opf(item("one.xhtml"), '<itemref idref="one"/>', title=use),
        "META-INF/container.xml": CONTAINER,
    }
    changed = {**whole, part: head + whole[part].removeprefix('<?xml version="1.0"?>')}
    data = book(
        {"one.xhtml": "<p>Text.</p>"}, opf=changed["OEBPS/book.opf"], container=changed["META-INF/container.xml"]
    )
    with pytest.raises(CorruptFileError, match="declares XML entities"):
        document_of(data)


def test_entities_declared_in_the_text_are_not_expanded() -> None:
    for head in (LAUGHS, OUTSIDE):
        source = f"{head}<html><body><p>before &c;&a; after &nbsp;&eacute;</p></body></html>"
        text = document_of(book({"one.xhtml": ""}, more={"OEBPS/one.xhtml": source})).text
        assert text.startswith("before")
        assert text.endswith("after é")
        assert "root:" not in text
        assert "haha" not in text


def encryption(algorithm: str, uri: str) -> dict[str, str]:
    return {
        "META-INF/encryption.xml": f"""<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"
        xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:EncryptedData><enc:EncryptionMethod Algorithm="{algorithm}"/>
        <enc:CipherData><enc:CipherReference URI="{uri}"/></enc:CipherData></enc:EncryptedData></encryption>"""
    }


def test_drm_is_refused_and_scrambled_fonts_are_not() -> None:
    aes = "http://www.w3.org/2001/04/xmlenc#aes128-cbc"
    with pytest.raises(PasswordError, match=r"book.epub: is protected by DRM.*without DRM"):
        document_of(book(BODIES, more=encryption(aes, "OEBPS/one.xhtml")))
    assert document_of(book(BODIES, more=encryption(aes, "OEBPS/picture.jpg"))).text
    assert document_of(book(BODIES, more=encryption("http://www.idpf.org/2008/embedding", "OEBPS/one.xhtml"))).text


def test_a_zip_bomb_is_stopped() -> None:
    bomb = book({"one.xhtml": "<p>" + "a" * (64 * MIB)})
    assert len(bomb) < MIB
    start = time.perf_counter()
    with pytest.raises(LimitError, match="200 times its size"):
        document_of(bomb)
    assert time.perf_counter() - start < 2
    random.seed(1)
    several = {f"f{n}.xhtml": "<p>" + random.randbytes(300_000).hex() for n in range(4)}
    with pytest.raises(LimitError, match="unpacks to more than 2 MiB"):
        document_of(book(several), Limits(max_unzipped_bytes=2 * MIB))


def test_a_zip_that_lies_about_its_sizes_is_corrupt() -> None:
    data = bytearray(book({"one.xhtml": "<p>" + "text " * 1000}))
    directory = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    data[directory + 24 : directory + 28] = (10**6).to_bytes(4, "little")
    with pytest.raises((CorruptFileError, EmptyDocumentError)):
        document_of(bytes(data))


def test_a_book_that_is_cut_off_is_corrupt() -> None:
    with pytest.raises(CorruptFileError, match="damaged or cut off"):
        document_of(book(BODIES)[:-60])
    with pytest.raises(CorruptFileError, match="no package document"):
        document_of(zipped({"mimetype": "application/epub+zip"}))
    with pytest.raises(CorruptFileError, match="no text to read"):
        document_of(book(BODIES, opf=opf("", "")))


def test_one_damaged_file_costs_only_itself() -> None:
    random.seed(2)
    data = bytearray(book({"one.xhtml": f"<p>{random.randbytes(4000).hex()}</p>", "two.xhtml": "<p>Second.</p>"}))
    at = data.index(b"OEBPS/one.xhtml") + 500
    data[at : at + 40] = bytes(40)
    document = document_of(bytes(data))
    assert document.text == "Second."
    assert "OEBPS/one.xhtml cannot be unpacked" in document.source.warnings[0]


def test_deep_contents_lists_do_not_recurse() -> None:
    deep = '<navPoint><navLabel><text>x</text></navLabel><content src="one.xhtml"/>'
    ncx = f"<ncx><navMap>{deep * 20_000}{'</navPoint>' * 20_000}</navMap></ncx>"
    limits = Limits(max_unzip_ratio=10_000)
    assert len(document_of(book({"one.xhtml": "<p>Text.</p>"}, ncx=ncx), limits).sections) == 20_000
    nav = f"<nav epub:type='toc'>{'<ol><li><a href=one.xhtml>x</a>' * 5_000}</nav>"
    assert document_of(book({"one.xhtml": "<p>Text.</p>"}, nav=nav)).text == "Text."


DATA = Path(os.environ.get("LCDOC_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.skipif(not (DATA / "books" / "epub").is_dir(), reason="the books are not here (set LCDOC_DATA)")
def test_a_real_book() -> None:
    document = document_of((DATA / "books" / "epub" / "mary-shelley_frankenstein.epub").read_bytes())
    chapter = next(section for section in document.sections if section.title == "Chapter V")
    assert chapter.level == 2
    assert chapter.span.of(document.text).startswith("Chapter V\n\nIt was on a dreary night of November")
    assert document.source.title == "Frankenstein"
    assert document.source.warnings == ()
