"""HTML as a reader of the page sees it."""

import time

import pytest

from lcdoc.documents import Document
from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.html import read
from lcdoc.documents.tame_html import tame


def page(source: str | bytes) -> Document:
    data = source if isinstance(source, bytes) else source.encode()
    job = Job("page.html", data)
    builder = DocumentBuilder(job)
    read(job, builder)
    return builder.build(reader="test", reader_version="1", digest="")


def text_of(source: str | bytes) -> str:
    return page(source).text


def test_blocks_are_paragraphs_and_white_space_collapses() -> None:
    assert text_of("<p>One\n  two&nbsp; three</p>tail<div>Four<br>five<br><br>six</div>") == (
        "One two three\n\ntail\n\nFour\nfive\n\nsix"
    )


def test_headings_become_sections_that_nest() -> None:
    document = page("<title>A &amp; B</title><h1>One</h1><p>a<h2>One <i>half</i></h2><p>b<h1>Two</h1><p>c")
    assert document.source.title == "A & B"
    assert [(s.title, s.level, s.span.of(document.text)) for s in document.sections] == [
        ("One", 1, "One\n\na\n\nOne half\n\nb\n\n"),
        ("One half", 2, "One half\n\nb\n\n"),
        ("Two", 1, "Two\n\nc"),
    ]


def test_a_heading_group_is_one_title_and_a_heading_without_end_is_none() -> None:
    assert [s.title for s in page("<hgroup><h2>X</h2><p>The Law-Writer</p></hgroup><p>On").sections] == [
        "X The Law-Writer"
    ]
    assert page("<h1>never closed " + "words " * 200).sections == ()


def test_what_is_not_shown_is_not_read() -> None:
    source = """<script>var a = "<p>no</p>"</script><style>p {}</style><template><p>no</template><p hidden>no</p>
    <div style="color: red; display:none">no</div><select><option>no</select><p>yes</p><aside>aside</aside>
    <nav>nav</nav><footer>foot</footer><noscript>no</noscript>"""
    assert text_of(source) == "yes\n\naside\n\nnav\n\nfoot"


def test_a_page_that_needs_scripts_shows_its_noscript_part() -> None:
    document = page("<body><script>draw()</script><noscript><p>Turn scripts on, or read this.</p></noscript>")
    assert document.text == "Turn scripts on, or read this."
    assert "script" in document.source.warnings[0]


def test_tables_are_lines_with_cells() -> None:
    table = """<table><caption>Sales</caption><tr><th>Year<th>Net<tbody><tr><td><p>2024</p><td>1<br>2
    <tr><td colspan=2>both</table><p>after"""
    assert text_of(table) == "Sales\n\nYear | Net\n2024 | 1 2\nboth\n\nafter"


def test_a_table_used_for_layout_keeps_its_paragraphs() -> None:
    prose = "A long sentence stands here for the text of a page. " * 10
    source = f"<table><tr><td>Menu<td><h1>Title</h1><p>{prose}</p><table><tr><td>in<td>ner</table><p>End</table>"
    assert text_of(source) == f"Menu\n\nTitle\n\n{prose.strip()}\n\nin | ner\n\nEnd"


def test_lists_carry_their_marks() -> None:
    source = "<ul><li>a<li><p>b</p><p>c</p></ul><ol start=3 type=a><li>x<li value=9>y</ol><ol><li></ol>end"
    assert text_of(source) == "- a\n\n- b\n\nc\n\nc. x\ni. y\n\nend"


def test_preformatted_text_keeps_lines_and_spaces() -> None:
    assert text_of("<p>a</p><pre>\nif x:\n    y = <b>1</b>\n</pre>b") == "a\n\nif x:\n    y = 1\n\nb"


def test_note_marks_and_exponents_do_not_run_into_words() -> None:
    source = '<p>He left.<sup><a href="#n1">1</a></sup> 10<sup>5</sup> m<sup>2</sup><a href="#x"><sup>[2]</sup></a>'
    assert text_of(source) == "He left.[1] 10^5 m2[2]"


def test_page_numbers_in_the_text_become_pages() -> None:
    source = '<p>sounds of cow<span class="pagenum">[Pg 21]</span>bells</p><p class="pagenum">not a page</p>'
    document = page(source)
    assert document.text == "sounds of cowbells\n\nnot a page"
    assert [(p.label, p.span.of(document.text)) for p in document.pages] == [
        ("1", "sounds of cow"),
        ("21", "bells\n\nnot a page"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        "<meta charset=iso-8859-1><p>Café “quoted”".encode("cp1252"),
        '<meta http-equiv="Content-Type" content="text/html; charset=windows-1252"><p>Café “quoted”'.encode("cp1252"),
        "<meta charset=utf-16><p>Café “quoted”".encode(),
        "<p>Café “quoted”".encode("utf-16"),
        "<html><body><p>Café “quoted” and some more text".encode("utf-16-be"),
        "<meta charset=nonsense><p>Café “quoted”".encode(),
        b'<?xml version="1.0" encoding="zlib"?><p>Caf\xc3\xa9 \xe2\x80\x9cquoted\xe2\x80\x9d',
    ],
)
def test_the_encoding_is_found(data: bytes) -> None:
    assert text_of(data).startswith("Café “quoted”")


HOSTILE = {
    "nested blocks": lambda n: "<div>" * n + "deep",
    "nested lists": lambda n: "<ul><li>" * n + "deep",
    "nested inline": lambda n: "<span>" * n + "</p>" * n + "deep",
    "nested tables": lambda n: "<table><tr><td>" * n + "deep",
    "open formatting": lambda n: "".join(f"<b id={i}>" for i in range(n)) + "<p>deep" * n,
    "attributes": lambda n: "<p " + " ".join(f"a{i}=1" for i in range(n)) + ">deep",
    "bodies": lambda n: "".join(f"<body a{i}=1>" for i in range(n)) + "deep",
    "svg": lambda n: "<svg><g>" * n + "</x>" * n + "</svg><p>deep",
    "unclosed quotes": lambda n: "deep" + "<a b='" * n,
    "less-than signs": lambda n: "deep " + "< " * n,
    "comments": lambda n: "deep" + "<!-- " * n,
    "blanks": lambda n: "deep" + "<i> </i>" * n + "<br>" * n,
    "labels": lambda n: "<span class=pagenum>" * n + "deep",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_markup_is_read_in_linear_time(kind: str) -> None:
    start = time.perf_counter()
    document = page(HOSTILE[kind](30_000))
    assert "deep" in document.text
    # Quadratic work on these takes from ten seconds to hours.
    assert time.perf_counter() - start < 5


def test_flattening_is_reported_and_keeps_the_text() -> None:
    document = page("<div>" * 3000 + "<p>one</p><p>two</p>" + "</div>" * 3000 + "<h2>Last</h2>")
    assert document.text == "one\n\ntwo\n\nLast"
    assert [section.title for section in document.sections] == ["Last"]
    assert document.source.warnings == ("elements nested too deep were flattened",)


def test_ordinary_pages_pass_unchanged() -> None:
    source = "<body>" + "<div><p>unclosed<p>paragraphs <b>bold</b></div><svg><path/><path/></svg>" * 2000
    assert tame(source) == (source, False)
