"""Boxes: the rectangles of a span contain its words, and nothing is guessed when the file has changed."""

import io
import re

import pypdfium2
import pytest
from PIL import Image

from lcdoc.documents import DocumentError, SourceChangedError, Span, load
from lcdoc.documents.pdf_image import page_image

LINES = [
    "The ferry Heron carries ninety passengers and six carts, or forty pass-",
    "engers and eleven carts, and the same rule holds for the ferry Bittern,",
    "which was built in the year after the flood. No ferry leaves in fog.",
]


def words_in(path, box) -> str:
    pdf = pypdfium2.PdfDocument(path)
    text = pdf[box.page - 1].get_textpage().get_text_bounded(box.x0, box.y0, box.x1, box.y1)
    pdf.close()
    return text


def letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()


def span_of(document, text: str) -> Span:
    start = document.text.index(text)
    return Span(start, start + len(text))


@pytest.fixture
def ferry_pdf(write_pdf, page_spec, text_lines):
    pages = []
    for number in range(1, 10):
        top = 770 - 10 * number  # body text stands at another height on each page, unlike the running lines
        lines = [(72, 800, "River Service"), *text_lines(LINES, top=top), (290, 40, str(number))]
        lines += text_lines([f"Rule {number}: keep to the right and", "never turn above the weir when"], top=top - 100)
        pages.append(page_spec(lines))
    return write_pdf(*pages)


@pytest.mark.parametrize(
    "quote", ["ninety passengers and six carts", "forty passengers\nand eleven carts", "No ferry leaves in fog."]
)
def test_boxes_contain_the_quoted_words(ferry_pdf, quote):
    document = load(ferry_pdf)
    quote = quote if quote in document.text else quote.replace("\n", " ")
    boxes = document.boxes(span_of(document, quote))
    assert boxes
    assert {box.page for box in boxes} == {1}
    assert letters("".join(words_in(ferry_pdf, box) for box in boxes)).count(letters(quote)) == 1


def test_the_occurrence_asked_for_is_the_one_boxed(ferry_pdf):
    document = load(ferry_pdf)
    first = document.text.index("carts")
    second = document.text.index("carts", first + 1)
    (upper,), (lower,) = (document.boxes(Span(at, at + 5)) for at in (first, second))
    assert upper.y0 > lower.y0


def test_a_sentence_over_a_page_end_has_boxes_on_both_pages(ferry_pdf):
    document = load(ferry_pdf)
    start = document.text.index("never turn above")
    end = document.text.index("The ferry Heron", start) + len("The ferry Heron")
    boxes = document.boxes(Span(start, end))
    assert sorted({box.page for box in boxes}) == [1, 2]
    assert "River Service" not in "".join(words_in(ferry_pdf, box) for box in boxes)


def test_every_line_of_every_page_is_boxed_where_it_stands(ferry_pdf):
    document = load(ferry_pdf)
    for match in re.finditer(r"[^\n]+", document.body[: document.pages[1].end]):
        text = match.group()
        if text.strip():
            boxes = document.boxes(Span(*match.span()))
            assert letters("".join(words_in(ferry_pdf, box) for box in boxes)) == letters(text)


def test_a_changed_file_is_an_error(ferry_pdf):
    document = load(ferry_pdf)
    ferry_pdf.write_bytes(ferry_pdf.read_bytes() + b"\n% changed\n")
    with pytest.raises(SourceChangedError, match="changed since"):
        document.boxes(Span(0, 20))


def test_other_formats_have_no_boxes(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("A note without pages.")
    assert load(path).boxes(Span(0, 6)) == ()


def test_a_page_is_drawn_with_its_evidence(ferry_pdf):
    document = load(ferry_pdf)
    boxes = document.boxes(span_of(document, "No ferry leaves in fog."))
    plain = Image.open(io.BytesIO(page_image(document, 1, dots_per_inch=72))).convert("RGB")
    marked = Image.open(io.BytesIO(page_image(document, 1, boxes, dots_per_inch=72))).convert("RGB")
    assert plain.size == marked.size
    assert plain.size[0] in (595, 596)
    assert plain.size[1] in (841, 842)
    changed = [
        (x, y)
        for x in range(marked.width)
        for y in range(marked.height)
        if plain.getpixel((x, y)) != marked.getpixel((x, y))
    ]
    xs, ys = [x for x, _ in changed], [y for _, y in changed]
    assert boxes[0].x0 - 2 <= min(xs) <= max(xs) <= boxes[0].x1 + 2
    assert 842 - boxes[0].y1 - 2 <= min(ys) <= max(ys) <= 842 - boxes[0].y0 + 2


def test_a_page_that_does_not_exist_is_an_error(ferry_pdf):
    with pytest.raises(DocumentError, match=r"no page 99.*1 to 9"):
        page_image(load(ferry_pdf), 99)
