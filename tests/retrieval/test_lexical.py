"""Search by words: what a question may be, and which passage wins."""

import sqlite3
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.documents import Document
from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.memory import Library
from lcdoc.retrieval import Chunk, lexical


def written(passages, digest="d"):
    builder = DocumentBuilder(Job("x.txt", b"", "text/plain"))
    for passage in passages:
        builder.page()
        builder.paragraph(passage)
    return builder.build(reader="plain", reader_version="1", digest=digest)


def cut(document: Document, headings=()):
    return [Chunk(document.id, page.span, tuple(headings[at : at + 1])) for at, page in enumerate(document.pages)]


@pytest.fixture
def library(tmp_path):
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


@pytest.fixture
def find(library):
    """Indexes passages as one document; returns a search that gives the ordinals found, best first."""

    def index(*passages, headings=()):
        document = written(passages)
        library.add(document, cut(document, headings), recipe="r")
        (shelved,) = library.shelved([document.id])

        def search(question, limit=10):
            with library.reading() as connection:
                found = lexical.search(connection, question, [shelved.chunk_ids], limit)
            assert all(0 < score <= found.most for _, score in found.scores)
            return [chunk_id - shelved.chunk_ids.start for chunk_id, _ in found.scores]

        return search

    return index


def test_words_are_found_in_any_form(find):
    search = find("The lamp was lit.", "Lamps were lighting the piers.", "Nothing here.")
    assert sorted(search("lamp")) == [0, 1]
    assert search("PIER") == [1]
    assert search("absent") == []


def test_rare_words_count_more_and_any_word_is_enough(find):
    search = find("ship ship ship", "the ship and the sextant", "a ship", "the ship of the line")
    assert search("sextant of the ship")[0] == 1
    assert len(search("sextant ship")) == 4


def test_neighbouring_words_count_more_when_they_stand_side_by_side(find):
    filler = "Then came the rest of the day and nothing more was said of it."
    search = find(
        f"The stock of the shop is common. {filler}",
        f"The common stock is listed. {filler}",
        f"A common view of livestock and stock. {filler}",
    )
    assert search("What is the common stock?")[0] == 1


def test_function_words_between_do_not_part_neighbours(find):
    search = find("Shares are what they own; stock is what they sell.", "They sell the shares of stock they own.")
    assert search("shares of the stock")[0] == 1


def test_headings_are_searched_too_and_count_less(find):
    passages = ("It rose by a tenth.", "It fell by a third.", "Revenue fell by a third.")
    search = find(*passages, headings=("Revenue", "Costs", "Results"))
    assert search("revenue") == [2, 0]


def test_asking_words_do_not_count_unless_there_is_nothing_else(find):
    search = find("What could you do about it?", "The keeper left in May.")
    assert search("What did the keeper do?") == [1]
    assert search("what could you do") == [0]


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Net sales in fiscal 2019 were flat.", "FY2019"),
        ("Net sales in fiscal 2019 were flat.", "sales in FY 19"),
        ("Results for FY2019 and FY'20.", "2019"),
        ("Results for FY2019 and FY'20.", "2020"),
        ("Total of 1,234,567 units.", "1234567"),
        ("Total of 1234567 units.", "1,234,567"),
        ("Amazon's revenue", "revenue of Amazon"),
        ("Café Müller", "cafe muller"),
        ("cafe muller", "Café Müller"),
        (unicodedata.normalize("NFD", "Café Müller"), "Café"),
        ("The IT department", "IT"),
        ("東京タワーの高さは333メートルです。", "東京タワー"),
        ("東京タワーの高さは333メートルです。", "高さ"),
        ("東京タワーの高さは333メートルです。", "塔の高さ"),
        ("水は大切です", "水"),
        ("中华人民共和国宪法", "共和国"),
        ("iPhone价格上涨", "价格"),
        ("iPhone价格上涨", "iphone"),
        ("서울특별시의 인구", "서울"),
        ("ประเทศไทยมีประชากร", "ประชากร"),
        ("Москва — столица России", "столица"),
        ("हिन्दी भाषा का इतिहास", "हिन्दी"),
        ("تاريخ اللغة العربية", "العربية"),
        ("Ελληνική γλώσσα", "γλώσσα"),
    ],
)
def test_found_in_many_forms_and_scripts(find, text, question):
    search = find(text, "Another passage, about something else: 另一段 またべつの 다른 อื่น другой अन्य آخر άλλο")
    assert search(question)[:1] == [0]


def test_unspaced_scripts_match_words_not_scattered_characters(find):
    search = find("京都と東北の旅", "東京の旅")
    assert search("東京") == [1]


@pytest.mark.parametrize(
    "question",
    [
        "", " ", "\0", "?!", '"', "'", "a\0b", '"unclosed', "OR", "AND NOT NEAR", "NEAR(lamp pier, 2)", "lamp*",
        "^lamp", "text: lamp", "heading:lamp", "-lamp", "(lamp", "lamp)", "{text heading}: lamp", "lamp + pier", "💡",
        "lamp 💡",
        "' OR 1=1 --", '"; DROP TABLE chunks; --', "\ud800", "ﬁ", "x" * 100_000, "lamp " * 5_000, "東京" * 50_000,
        " ".join(map(str, range(5_000))),
    ],
)  # fmt: skip
def test_any_question_is_valid(find, question):
    search = find("The lamp stood on the pier.", "or and not near")
    assert set(search(question)) <= {0, 1}
    if "lamp" in question:
        assert 0 in search(question)


@settings(max_examples=100, deadline=None)
@given(question=st.text(max_size=60), passage=st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_indexed_and_any_question_answered(question, passage):
    connection = sqlite3.connect(":memory:")
    connection.execute(lexical.SCHEMA)
    document = written(["first", passage or "-", "last"])
    lexical.add(connection, 7, document, cut(document))
    found = lexical.search(connection, question, [range(7, 10)], 10)
    assert {chunk_id for chunk_id, _ in found.scores} <= {7, 8, 9}
    lexical.remove(connection, 7, document, cut(document))
    connection.execute("INSERT INTO passages (passages) VALUES ('integrity-check')")
    assert connection.execute("SELECT count(*) FROM passages_docsize").fetchone() == (0,)


def test_what_else_the_library_holds_does_not_change_the_scores(library):
    document = written(["the lamp and the pier", "the pier", "a dog and a ship", "a lamp"])
    library.add(document, cut(document), recipe="r")
    scope = [library.shelved()[0].chunk_ids]
    with library.reading() as connection:
        alone = lexical.search(connection, "lamp on the pier", scope, 10)
    other = written([f"lamp {number}" if number % 4 else f"{number}" for number in range(200)], digest="e")
    library.add(other, cut(other), recipe="r")
    with library.reading() as connection:
        beside = lexical.search(connection, "lamp on the pier", scope, 10)
    assert [chunk_id for chunk_id, _ in beside.scores] == [chunk_id for chunk_id, _ in alone.scores]
    # Only the average length of a passage is the whole library's.
    assert [score for _, score in beside.scores] == pytest.approx([score for _, score in alone.scores], rel=0.1)
    assert beside.most == pytest.approx(alone.most)


def test_the_score_is_bm25(library):
    passages = ["lamp pier", "lamp lamp dog", "ship ship ship ship", "pier lamp ship dog dog"]
    document = written(passages)
    library.add(document, cut(document), recipe="r")
    with library.reading() as connection:
        found = dict(lexical.search(connection, "lamp", [library.shelved()[0].chunk_ids], 10).scores)
    first = library.shelved()[0].chunk_ids.start
    mean = sum(len(passage.split()) for passage in passages) / len(passages)
    for ordinal, passage in enumerate(passages):
        count, length = passage.split().count("lamp"), len(passage.split())
        if not count:
            assert first + ordinal not in found
            continue
        # log(1 + (N - n + 0.5) / (n + 0.5)) tf / (tf + k (1 - b + b length / mean)), k = 1.2, b = 0.75
        expected = 0.3566749439387324 * count / (count + 1.2 * (0.25 + 0.75 * length / mean))
        assert found[first + ordinal] == pytest.approx(expected)


def test_a_large_scope_is_shortlisted_first(find, monkeypatch):
    search = find(*(f"lamp {number}" for number in range(30)), "lamp sextant", "sextant")
    exact = search("sextant lamp", 2)
    monkeypatch.setattr(lexical, "MAX_EXACT", 10)
    assert search("sextant lamp", 2) == exact
    assert search("", 2) == []
    monkeypatch.setattr(lexical, "_SHORTLIST", 1)
    assert search("sextant lamp", 5) == exact[:1]


def test_only_the_scope_is_searched(library):
    ids = []
    for digest in "abc":
        document = written([f"lamp {digest}", "pier"], digest=digest)
        library.add(document, cut(document), recipe="r")
        ids.append(document.id)
    chosen = library.shelved([ids[0], ids[2]])
    with library.reading() as connection:
        found = lexical.search(connection, "lamp", [shelved.chunk_ids for shelved in chosen], 10)
        assert [chunk_id for chunk_id, _ in found.scores] == [shelved.chunk_ids.start for shelved in chosen]
        assert lexical.search(connection, "lamp", [], 10).scores == ()
        assert len(lexical.search(connection, "lamp", [shelved.chunk_ids for shelved in chosen], 1).scores) == 1
