"""Searching with words and vectors: which are made when, and what is found."""

import shutil
import threading
import time

import numpy as np
import pytest

from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.memory import Library, UnknownDocumentError
from lcdoc.retrieval import BackgroundFill, Chunk, Index, load_embedder
from lcdoc.retrieval import index as index_module

ANIMALS = [
    "The heron waits in the shallows for an hour without moving, then strikes.",
    "A badger digs its sett under the oldest oak and carries fresh straw in.",
    "Otters roll stones about on their bellies, for play it seems, while they drift.",
    "In the mill the wheel turns day and night, grinding barley for the village.",
    "The physician prescribed rest, warm milk and no letters from home.",
    "A solicitor read the will aloud; the house went to the younger sister.",
]


class CountingEmbedder:
    """The default embedder, with a record of what it was given and a brake."""

    def __init__(self):
        self._embedder = load_embedder()
        self.name, self.fingerprint = self._embedder.name, self._embedder.fingerprint
        self.dimensions, self.max_tokens = self._embedder.dimensions, self._embedder.max_tokens
        self.texts = []
        self.delay_s = 0.0
        self.error = None

    def embed(self, texts, **options):
        time.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        self.texts += texts
        return self._embedder.embed(texts, **options)


@pytest.fixture
def embedder():
    return CountingEmbedder()


@pytest.fixture
def library(tmp_path):
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


def written(passages, digest):
    builder = DocumentBuilder(Job(f"{digest}.txt", b"", "text/plain"))
    for number, passage in enumerate(passages):
        builder.page()
        builder.heading(f"Chapter {number}", 1)
        builder.paragraph(passage)
    return builder.build(reader="plain", reader_version="1", digest=digest)


def add(library, passages, digest="d", recipe="r"):
    document = written(passages, digest)
    chunks = [
        Chunk(document.id, page.span, tuple(section.title for section in document.sections_at(page.start)))
        for page in document.pages
    ]
    library.add(document, chunks, recipe=recipe)
    return document


def many(count, digest="many"):
    return [f"Entry {number} of the register {digest}: parcel {number * 37}." for number in range(count)]


def passages_of(hits, document):
    return [document.page_of(hit.chunk.span.start).number - 1 for hit in hits]


def test_words_and_meaning_both_find(library, embedder):
    document = add(library, ANIMALS)
    index = Index(library, embedder)
    assert passages_of(index.search("badger", 3), document)[0] == 1
    assert passages_of(index.search("What did the doctor order?", 3), document)[0] == 4
    assert passages_of(index.search("Who inherited?", 3), document)[0] == 5


def test_a_hit_says_how_it_was_found(library, embedder):
    document = add(library, ANIMALS)
    (hit,) = Index(library, embedder).search("badger under the oak", 1)
    assert hit.chunk == library.chunks(document.id)[1]
    assert hit.ranks == {"lexical": 1, "dense": 1}
    assert 0.3 < hit.cosine <= 1
    assert 0 < hit.score <= 1


def test_hits_are_best_first_and_no_more_than_asked_for(library, embedder):
    add(library, ANIMALS)
    index = Index(library, embedder)
    assert [len(index.search("the", k)) for k in (0, 1, 4, 100)] == [0, 1, 4, len(ANIMALS)]
    hits = index.search("a badger in the mill", 6)
    assert {hit.ranks.get("lexical") for hit in hits[:2]} == {1, 2}


def test_only_the_documents_asked_for_are_searched(library, embedder):
    first, second = add(library, ANIMALS, "a"), add(library, [*ANIMALS[:3], "A badger sleeps."], "b")
    index = Index(library, embedder)
    assert {hit.chunk.document_id for hit in index.search("badger", 20)} == {first.id, second.id}
    assert {hit.chunk.document_id for hit in index.search("badger", 20, within=[second.id])} == {second.id}
    assert index.search("badger", 20, within=[]) == []
    with pytest.raises(UnknownDocumentError):
        index.search("badger", 20, within=["nothing"])


def test_an_empty_library_or_question_finds_nothing(library, embedder):
    index = Index(library, embedder)
    assert index.search("anything", 5) == []
    add(library, ANIMALS)
    hits = index.search(" ?! ", 5)
    assert hits == []
    assert "no words" in hits.notes[0]
    assert embedder.texts == []


def test_a_first_question_embeds_only_its_best_candidates(library, embedder):
    document = add(library, [*many(300), *ANIMALS])
    index = Index(library, embedder)
    assert passages_of(index.search("Where does the badger dig?", 3), document)[0] == 301
    asked = len(embedder.texts)
    assert asked == index_module.LAZY_PASSAGES + 1
    index.search("Where does the badger dig?", 3)
    assert len(embedder.texts) == asked + 1 + (index_module.LAZY_PASSAGES - 1)


def test_vectors_are_kept_for_the_next_process(library, embedder):
    document = add(library, ANIMALS)
    before = Index(library, embedder).search("badger", 3)
    again = CountingEmbedder()
    assert Index(library, again).search("badger", 3) == before
    assert again.texts == ["badger"]
    assert Index(library, again).missing(document.id) == 0


def test_the_token_budget_bounds_a_first_question(library, embedder, monkeypatch):
    add(library, [f"badger {' '.join(many(12, str(number)))}" for number in range(40)])
    monkeypatch.setattr(index_module, "LAZY_TOKENS", 1000)
    hits = Index(library, embedder).search("badger", 40)
    assert 2 <= len(embedder.texts) < 12
    assert len(hits) == 40
    assert sum(hit.cosine is None for hit in hits) == 40 - (len(embedder.texts) - 1)


def test_a_question_in_other_words_is_compared_by_meaning_and_says_so(library, embedder, monkeypatch):
    document = add(library, ANIMALS)
    hits = Index(library, embedder).search("medicine", 2)
    assert passages_of(hits, document)[0] == 4
    assert "compared by meaning alone" in hits.notes[0]
    assert hits[0].ranks == {"dense": 1}
    large = add(library, many(400), "large")
    monkeypatch.setattr(index_module, "BLIND_PASSAGES", 50)
    index = Index(library, embedder)
    assert "; 50 of 400 passages" in index.search("medicine", 2, within=[large.id]).notes[0]
    # The next one looks at others.
    assert "; 100 of 400 passages" in index.search("physician", 2, within=[large.id]).notes[0]
    assert index.missing(large.id) == 300


def test_fill_makes_the_rest(library, embedder):
    document = add(library, [*many(60), *ANIMALS])
    index = Index(library, embedder)
    index.search("badger", 1)
    left = index.missing(document.id)
    seen = []
    assert index.fill(document.id, progress=lambda done, total: seen.append((done, total))) == left > 0
    assert seen[-1] == (left, left)
    assert index.missing(document.id) == 0
    assert index.fill(document.id) == 0
    (note,) = index.search("healing", 1).notes
    assert note == "none of the question's words is in the documents; passages were compared by meaning alone"
    assert library.verify() == []


def test_an_interrupted_fill_keeps_what_it_made(library, embedder):
    document = add(library, many(100))
    index = Index(library, embedder)

    def interrupt(done, _total):
        if done >= 48:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.fill(document.id, progress=interrupt, batch_passages=16)
    assert Index(library, embedder).missing(document.id) in {52, 68}
    assert library.verify() == []


def test_another_recipe_makes_other_vectors(library, embedder):
    document = add(library, ANIMALS, recipe="r1")
    Index(library, embedder).fill(document.id)
    halves = [Chunk(document.id, chunk.span) for chunk in library.chunks(document.id)[:2]]
    library.add(document, halves, recipe="r2")
    index = Index(library, embedder)
    assert index.missing(document.id) == 2
    assert library.verify() == []


def test_headings_are_part_of_what_is_embedded(library, embedder):
    builder = DocumentBuilder(Job("x.txt", b"", "text/plain"))
    builder.heading("Income statement", 1)
    span = builder.paragraph("1,204 1,180 998")
    document = builder.build(reader="plain", reader_version="1", digest="x")
    library.add(document, [Chunk(document.id, span, ("Report", "Income statement"))], recipe="r")
    Index(library, embedder).search("revenue", 1)
    assert "Report > Income statement\n1,204 1,180 998" in embedder.texts


def test_questions_for_a_number_prefer_passages_with_numbers(library, embedder):
    prose = "The ratio of the rent to the income was often discussed by the sisters, though never settled."
    table = "Rent 120 125 131\nIncome 480 502 511\nRatio 25.0 24.9 25.6"
    document = add(library, [prose, table, *ANIMALS])
    index = Index(library, embedder)

    def gain_of_table(question):
        hits = index.search(question, 8)
        scores = dict(zip(passages_of(hits, document), (hit.score for hit in hits), strict=True))
        return scores[1] - scores[0]

    assert gain_of_table("the ratio of rent to income") > gain_of_table("the relation of rent to income")


def test_a_damaged_vector_file_is_made_again_and_told(library, embedder):
    document = add(library, ANIMALS)
    Index(library, embedder).fill(document.id)
    (file,) = library.vectors_path.glob("*/*.faiss")
    file.write_bytes(b"not a vector file")
    assert any("damaged" in problem for problem in library.verify())
    hits = Index(library, embedder).search("badger", 1)
    assert passages_of(hits, document) == [1]
    assert any("damaged" in note for note in hits.notes)
    assert Index(library, embedder).missing(document.id) == 0


def test_vectors_of_another_process_are_seen(library, embedder):
    document = add(library, ANIMALS)
    here, there = Index(library, embedder), Index(library, embedder)
    here.search("badger", 1)
    large = add(library, many(100), "large")
    assert here.missing(large.id) == 100
    there.fill(large.id)
    assert here.missing(large.id) == 0
    assert here.missing(document.id) == 0
    shutil.rmtree(library.vectors_path)
    assert Index(library, embedder).missing(document.id) == len(ANIMALS)


def test_beyond_the_scanned_passages_only_documents_with_the_words_are_compared(library, embedder, monkeypatch):
    first, second = add(library, ANIMALS, "a"), add(library, many(30), "b")
    monkeypatch.setattr(index_module, "SCANNED_PASSAGES", 20)
    index = Index(library, embedder)
    index.fill(first.id)
    index.fill(second.id)
    hits = index.search("badger", 50)
    assert {hit.chunk.document_id for hit in hits} == {first.id}
    assert "compared by meaning" in index.search("xyzzy", 50).notes[0]


def test_the_background_fill_pauses_and_stops(library, embedder):
    document = add(library, many(400))
    index = Index(library, embedder)
    embedder.delay_s = 0.02
    with BackgroundFill(index, [document.id]) as filling:
        while index.missing(document.id) > 380:
            time.sleep(0.01)
        with filling.paused():
            time.sleep(0.3)
            before = index.missing(document.id)
            time.sleep(0.3)
            assert index.missing(document.id) == before
        while index.missing(document.id) == before:
            time.sleep(0.01)
        begun = time.monotonic()
        filling.stop()
        assert time.monotonic() - begun < 2
    left = index.missing(document.id)
    assert 0 < left < before
    assert Index(library, embedder).missing(document.id) == left
    assert not any(thread.name == "lcdoc-background-fill" for thread in threading.enumerate())


def test_the_background_fill_finishes(library, embedder):
    documents = [add(library, many(20, digest), digest) for digest in "abc"]
    index = Index(library, embedder)
    with BackgroundFill(index, [document.id for document in documents]) as filling:
        assert filling.wait(60)
    assert [index.missing(document.id) for document in documents] == [0, 0, 0]


def test_an_error_in_the_background_comes_to_light(library, embedder):
    document = add(library, many(20))
    embedder.error = RuntimeError("out of order")
    with (
        pytest.raises(RuntimeError, match="out of order"),
        BackgroundFill(Index(library, embedder), [document.id]) as filling,
    ):
        filling.wait()


def test_threads_share_an_index(library, embedder):
    document = add(library, [*many(60), *ANIMALS])
    index = Index(library, embedder)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(passages_of(index.search("badger", 1), document)))
        for _ in range(4)
    ]
    with BackgroundFill(index, [document.id]) as fill:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert fill.wait(60)
    assert found == [[61]] * 4
    passages = [text for text in embedder.texts if text != "badger"]
    assert len(passages) == len(set(passages))
    assert library.verify() == []


def test_vectors_have_the_order_of_the_chunks(library, embedder):
    document = add(library, ANIMALS)
    index = Index(library, embedder)
    index.fill(document.id)
    (shelved,) = library.shelved([document.id])
    opened = Index(library, embedder).opened(shelved)
    for ordinal in range(len(ANIMALS)):
        cosines = opened.cosines(embedder.embed([opened.text(ordinal)])[0])
        assert int(np.argmax(cosines)) == ordinal
        assert cosines[ordinal] == pytest.approx(1, abs=1e-3)
