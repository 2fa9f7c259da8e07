"""PDF: text, paragraphs, hyphens, running headers, labels, outline, passwords, pages without text."""

import pypdfium2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcdoc.documents import (
    CorruptFileError,
    EmptyDocumentError,
    LimitError,
    Limits,
    PasswordError,
    load,
    load_bytes,
)

FIRST = [
    "The lamp at the north pier burns from dusk until the last ferry has",
    "docked, and the keeper writes the hour into the book.",
]
SECOND = [
    "    In winter the lamp is lit an hour earlier, because the river fog comes",
    "down from the hills long before sunset.",
]


def test_lines_become_paragraphs(write_pdf, page_spec, text_lines):
    path = write_pdf(page_spec([*text_lines(FIRST), *text_lines(["Winter lighting starts early."], top=700)]))
    document = load(path)
    assert document.text == "\n".join(FIRST) + "\n\nWinter lighting starts early.\n\n"
    assert len(document.pages) == 1
    assert document.source.media_type == "application/pdf"


def test_an_indented_line_opens_a_paragraph(write_pdf, page_spec):
    lines = [(72, 770, FIRST[0]), (72, 756, FIRST[1]), (96, 742, SECOND[0].strip()), (72, 728, SECOND[1])]
    assert load(write_pdf(page_spec(lines))).text.count("\n\n") == 2


def test_cells_on_one_line_stay_one_line(write_pdf, page_spec):
    lines = [
        (72, 700, "Ferries in service"),
        (300, 700, "14"),
        (360, 700, "12"),
        (72, 686, "Passengers"),
        (300, 686, "9"),
    ]
    assert load(write_pdf(page_spec(lines))).text.startswith("Ferries in service 14 12\nPassengers 9")


def hyphen_text(write_pdf, page_spec, *lines: str) -> str:
    specs = [(72, 770 - 14 * number, line) for number, line in enumerate(lines)]
    return load(write_pdf(page_spec(specs))).text


def test_a_word_broken_at_a_line_end_is_whole_again(write_pdf, page_spec):
    text = hyphen_text(
        write_pdf, page_spec, "The keeper may not leave his sta-", "tion before the fog has lifted at noon."
    )
    assert text.startswith("The keeper may not leave his station before the fog")


def test_a_compound_broken_at_its_hyphen_keeps_it(write_pdf, page_spec):
    text = hyphen_text(
        write_pdf,
        page_spec,
        "She sat in the dining-parlour and read until the bell of the dining-",
        "parlour clock had struck eleven times.",
    )
    assert "bell of the dining-parlour clock" in text


def test_a_number_and_a_word_stay_a_compound(write_pdf, page_spec):
    text = hyphen_text(
        write_pdf, page_spec, "Each member of the pier board is named by a nine-", "member board of trustees."
    )
    assert "a nine-member board" in text


def test_a_word_broken_over_a_page_end_is_whole_on_the_first_page(write_pdf, page_spec):
    pages = [
        page_spec([(72, 400, "The inspector wrote a report about the light-")]),
        page_spec([(72, 770, "houses of the lower river and their keepers.")]),
    ]
    document = load(write_pdf(*pages))
    assert "about the lighthouses\n" in document.text
    assert document.pages[1].span.of(document.text).startswith("of the lower river")


NAMES = ["amber", "birch", "cedar", "dune", "elm", "fern", "gorse", "heath", "iris", "juniper", "kelp", "larch"]


def chapter_pages(page_spec, count: int = 9):
    return [
        page_spec(
            [
                (72, 800, "Handbook of the River Service"),
                (72, 770, f"The {name} begins on this page and its story runs"),
                (72, 756, f"on, as {name} stories do, to the page that follows"),
                (280, 40, f"- {number} -"),
            ]
        )
        for number, name in enumerate(NAMES[:count], 1)
    ]


def test_running_headers_and_footers_are_marked_and_blank_in_the_body(write_pdf, page_spec):
    document = load(write_pdf(*chapter_pages(page_spec)))
    headers = [mark.span.of(document.text).strip() for mark in document.marks if mark.kind == "header"]
    footers = [mark.span.of(document.text).strip() for mark in document.marks if mark.kind == "footer"]
    assert headers == ["Handbook of the River Service"] * 9
    assert footers == [f"- {number} -" for number in range(1, 10)]
    assert len(document.body) == len(document.text)
    assert "Handbook of the River" not in document.body
    assert "page that follows The birch begins" in " ".join(document.body.split())


def test_page_numbers_at_any_height_are_footers(write_pdf, page_spec):
    pages = [
        page_spec([(72, 770, f"Text {word} of a filing."), (280, 500 - 31 * number, f"{number + 40}")])
        for number, word in enumerate(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota"])
    ]
    document = load(write_pdf(*pages))
    assert [mark.span.of(document.text).strip() for mark in document.marks] == [str(n) for n in range(40, 49)]


def test_a_line_that_changes_is_no_header(write_pdf, page_spec):
    document = load(write_pdf(*[page_spec([(72, 800, f"{word} grows here"), (72, 770, "Text.")]) for word in NAMES]))
    assert not [mark for mark in document.marks if "grows" in mark.span.of(document.text)]


def test_labels_are_what_is_printed(write_pdf, page_spec):
    pages = [
        page_spec([(72, 770, "Preface.")], label=("ROMAN_LOWER", 1)),
        page_spec([(72, 770, "More preface.")]),
        page_spec([(72, 770, "Chapter one.")], label=("ARABIC", 1)),
    ]
    document = load(write_pdf(*pages, title="A Title"))
    assert [page.label for page in document.pages] == ["i", "ii", "1"]
    assert [page.number for page in document.pages] == [1, 2, 3]
    assert document.name == "A Title"


@pytest.mark.parametrize("title", ["0000012927-23-000007", "Microsoft Word - draft.doc", "untitled", "report.indd", ""])
def test_a_title_that_says_nothing_is_none(write_pdf, page_spec, title):
    assert load(write_pdf(page_spec([(72, 770, "Text.")]), title=title)).name == "made.pdf"


def test_the_outline_gives_sections_at_their_headings(write_pdf, page_spec):
    pages = [
        page_spec(
            [(72, 770, "Part One"), (72, 740, "Text of part one."), (72, 500, "Chapter A"), (72, 480, "Text of A.")],
            bookmarks=[("Part One", 0, 780), ("Chapter A", 1, 510)],
        ),
        page_spec([(72, 770, "Part Two"), (72, 740, "Text of part two.")], bookmarks=[("Part Two", 0, 780)]),
    ]
    document = load(write_pdf(*pages))
    assert [(section.title, section.level) for section in document.sections] == [
        ("Part One", 1),
        ("Chapter A", 2),
        ("Part Two", 1),
    ]
    for section in document.sections:
        assert section.span.of(document.text).startswith(section.title)
    at_a = document.text.index("Text of A.")
    assert [section.title for section in document.sections_at(at_a)] == ["Part One", "Chapter A"]
    assert document.sections[0].end == document.sections[2].start


def test_without_an_outline_large_lines_are_headings(write_pdf, page_spec):
    lines = [(72, 770, "The River Service", 20), (72, 740, FIRST[0]), (72, 726, FIRST[1])]
    lines += [(72, 690, "Winter hours", 14), (72, 670, SECOND[0].strip()), (72, 656, SECOND[1])]
    document = load(write_pdf(page_spec(lines)))
    assert [(section.title, section.level) for section in document.sections] == [
        ("The River Service", 1),
        ("Winter hours", 2),
    ]


def test_pages_without_text_are_a_warning(write_pdf, page_spec):
    pages = [page_spec([(72, 770, "Only this page has text.")]), page_spec(picture=True), page_spec(picture=True)]
    document = load(write_pdf(*pages))
    assert document.source.warnings == (
        "pages 2-3 have no text layer and cannot be searched; "
        "run text recognition first, for example: ocrmypdf in.pdf out.pdf",
    )
    assert [len(page.span) > 0 for page in document.pages] == [True, False, False]


def test_blank_pages_are_no_warning(write_pdf, page_spec):
    assert load(write_pdf(page_spec([(72, 770, "Text.")]), page_spec())).source.warnings == ()


def test_a_scan_is_an_error_that_says_what_to_do(write_pdf, page_spec):
    with pytest.raises(EmptyDocumentError, match=r"made\.pdf: no page has a text layer .*ocrmypdf"):
        load(write_pdf(page_spec(picture=True)))


def test_passwords(write_pdf, page_spec):
    path = write_pdf(page_spec([(72, 770, "A secret text.")]), password="opensesame")
    with pytest.raises(PasswordError, match=r"encrypted.*--password"):
        load(path)
    with pytest.raises(PasswordError, match="wrong"):
        load(path, password="guess")
    assert load(path, password="opensesame").text.strip() == "A secret text."


@pytest.mark.parametrize(
    "data", [b"%PDF-1.7\n", b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer <<>>", b"%PDF-" + b"\0" * 5000]
)
def test_damaged_files_are_errors(data):
    with pytest.raises(CorruptFileError, match=r"^broken\.pdf: "):
        load_bytes(data, "broken.pdf")


def test_page_and_character_limits(write_pdf, page_spec):
    path = write_pdf(*[page_spec([(72, 770, "Some text on a page.")])] * 3)
    with pytest.raises(LimitError, match="3 pages"):
        load(path, limits=Limits(max_pages=2))
    with pytest.raises(LimitError, match="30 characters"):
        load(path, limits=Limits(max_characters=30))


def test_every_page_agrees_with_the_parser(write_pdf, page_spec):
    path = write_pdf(*chapter_pages(page_spec, 12))
    document = load(path)
    pdf = pypdfium2.PdfDocument(path)
    assert len(pdf) == len(document.pages)
    for page in document.pages:
        theirs = pdf[page.number - 1].get_textpage().get_text_range()
        ours = page.span.of(document.text)
        assert sorted(ours.split()) == sorted(theirs.split())
        for offset in range(page.start, page.end):
            assert document.page_of(offset) == page
    pdf.close()


words = st.text(st.sampled_from("abcdefgh rstuv,.-"), min_size=1, max_size=60).filter(lambda text: text.strip(" -"))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pages=st.lists(st.lists(words, max_size=8), min_size=1, max_size=6))
def test_pages_cover_the_text_whatever_is_on_them(write_pdf, page_spec, pages):
    path = write_pdf(*[page_spec([(72, 770 - 14 * n, line) for n, line in enumerate(page)]) for page in pages])
    if not any(pages):
        with pytest.raises(EmptyDocumentError):
            load(path)
        return
    document = load(path)
    position = 0
    for page in document.pages:
        assert page.start == position
        position = page.end
    assert position == len(document.text)
    letters = "".join("".join(page) for page in pages)
    assert sorted(c for c in document.text if c.isalpha()) == sorted(c for c in letters if c.isalpha())
    assert load(path).id == document.id
