"""The normal form, the builder's offsets and the flow of paragraphs, for any text."""

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.documents.builder import DocumentBuilder, Job, sections_from
from lcdoc.documents.flow import Flow
from lcdoc.documents.text import join_hyphenated, normalise, vocabulary

NASTY = "\u00ad\u200b\u2028\u2029\u0301\u0323\ufb01\ufeff\ufffe\x00\x0b\x0c\x85\xa0\r\n\t -aeAZ\u1100\u1161\u11a8\ufdfa"
TEXT = st.one_of(st.text(), st.text(alphabet=NASTY), st.text(alphabet=st.sampled_from([*NASTY, "\ud800"])))


def builder() -> DocumentBuilder:
    return DocumentBuilder(Job("some.txt", b""))


def build(made: DocumentBuilder):
    return made.build(reader="test", reader_version="1", digest="")


@given(TEXT)
@settings(max_examples=400)
def test_the_normal_form_is_stable_and_composed(text: str) -> None:
    normal = normalise(text)
    assert normalise(normal) == normal
    assert unicodedata.is_normalized("NFC", normal)
    assert not set(normal) & set("\r\u00ad\u200b\ufeff\ufffe\x00\xa0\u2028\ufb01")


def test_what_the_normal_form_does_to_known_text() -> None:
    assert normalise("co\u00ad\noperate\r\nﬁne\u00a0print e\u0301") == "cooperate\nfine print é"


def test_the_document_decides_how_a_broken_word_is_joined() -> None:
    words = vocabulary(["the dining-parlour was near the drawingroom"])
    assert join_hyphenated("dining", "parlour", words, otherwise="") == "-"
    assert join_hyphenated("drawing", "room", words, otherwise="-") == ""
    assert join_hyphenated("Anglo", "Saxon", words, otherwise="") == "-"
    assert join_hyphenated("un", "seen", words, otherwise="") == ""


@given(st.lists(TEXT, min_size=1, max_size=20))
def test_spans_that_a_builder_returns_hold_the_normalised_text(parts: list[str]) -> None:
    made = builder()
    spans = [made.add(part) for part in parts]
    made.add("end")
    document = build(made)
    assert [span.of(document.text) for span in spans] == [normalise(part) for part in parts]


HEADINGS = st.lists(st.tuples(st.just("t"), st.integers(1, 5), st.integers(0, 50)), max_size=30)


@given(HEADINGS)
def test_sections_nest(headings: list[tuple[str, int, int]]) -> None:
    sections = sections_from(headings, 50)
    assert [section.start for section in sections] == sorted(start for _, _, start in headings)
    for index, section in enumerate(sections):
        assert section.start <= section.end <= 50
        for later in sections[index + 1 :]:
            inside = later.start < section.end
            assert not inside or later.end <= section.end
            assert not inside or later.level > section.level


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("text"), TEXT),
        st.tuples(st.sampled_from(["paragraph", "line_break", "end_heading", "table", "row", "cell", "end_table"])),
        st.tuples(st.just("heading"), st.integers(1, 6)),
        st.tuples(st.just("page"), st.sampled_from(["", "iv", "12"])),
        st.tuples(st.just("item"), st.sampled_from(["- ", "3. "])),
        st.tuples(st.just("preformatted"), st.booleans()),
        st.tuples(st.just("anchor"), st.sampled_from(["a", "b", "c"])),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=300)
def test_any_order_of_events_gives_a_sound_document(steps: list[tuple]) -> None:
    made = builder()
    flow = Flow(made)
    for name, *arguments in steps:
        getattr(flow, name)(*arguments)
    flow.paragraph()
    flow.text("The last words.")
    flow.finish()
    document = build(made)
    assert document.text.endswith("The last words.")
    assert unicodedata.is_normalized("NFC", document.text)
    assert "\n\n\n" not in document.text
    assert [page.start for page in document.pages[1:]] == [page.end for page in document.pages[:-1]]
    assert all(0 <= offset <= len(document.text) for offset in flow.anchors.values())
    for section in document.sections:
        assert document.text[section.start :].lstrip().startswith(section.title.split(" ")[0])


@given(STEPS)
@settings(max_examples=200)
def test_no_letter_is_lost_on_the_way(steps: list[tuple]) -> None:
    made = builder()
    flow = Flow(made)
    texts = []
    for number, (name, *arguments) in enumerate(steps):
        if name == "text":
            texts.append(f"word{number}")
            flow.text(f" word{number} ")
        else:
            getattr(flow, name)(*arguments)
    flow.paragraph()
    flow.text("end")
    flow.finish()
    words = [word for word in build(made).text.split() if word.startswith("word")]
    assert words == texts


def test_a_mark_inside_a_word_splits_nothing() -> None:
    made = builder()
    flow = Flow(made)
    flow.text("cow")
    flow.page("21")
    flow.text("bells rang e")
    flow.anchor("here")
    flow.text("\u0301 again")
    flow.finish()
    document = build(made)
    assert document.text == "cowbells rang é again"
    assert unicodedata.is_normalized("NFC", document.text)


def test_data_rows_are_lines_and_layout_rows_are_paragraphs() -> None:
    made = builder()
    flow = Flow(made)
    flow.table()
    for row in (("Year", "Sales", ""), ("2024", "", "12")):
        flow.row()
        for cell in row:
            flow.cell()
            flow.text(cell)
    flow.row()
    flow.cell()
    flow.heading(2)
    flow.text("A page in a table")
    flow.end_heading()
    flow.text("Its text.")
    flow.end_table()
    flow.finish()
    document = build(made)
    assert document.text == "Year | Sales\n2024 | | 12\n\nA page in a table\n\nIts text."
    assert [(section.title, section.level) for section in document.sections] == [("A page in a table", 2)]
