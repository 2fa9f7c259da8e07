"""The library on one's own: what is kept, what is found again, what is forgotten."""

import sqlite3
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.documents import Document, Span
from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.memory import Library, LibraryAccessError, LibraryCorruptError, LibraryVersionError, UnknownDocumentError
from lcdoc.memory import library_path as where
from lcdoc.memory.migrations import MIGRATIONS
from lcdoc.retrieval import Chunk, lexical

TALE = [
    "The lamp stood on the pier. Nobody lit it in winter.",
    "In spring the keeper came back, and with him a dog called Sextant.",
    "Ships no longer call here; the timetable of 1931 still hangs in the hall.",
]


def written(pages: list[str], *, path: str = "tale.txt", digest: str = "d1", version: str = "1") -> Document:
    builder = DocumentBuilder(Job(path, b"x" * 10, "text/plain"))
    for number, text in enumerate(pages):
        builder.page(f"p{number}")
        builder.heading(f"Part {number}", 1)
        builder.paragraph(text)
    return builder.build(reader="plain", reader_version=version, digest=digest)


def cut(document: Document) -> list[Chunk]:
    return [Chunk(document.id, page.span, ("Book", f"Part {page.number}")) for page in document.pages]


def ids_with(library: Library, word: str) -> list[int]:
    every = [shelved.chunk_ids for shelved in library.shelved()]
    with library.reading() as connection:
        return [chunk_id for chunk_id, _ in lexical.search(connection, word, every, 100).scores]


@pytest.fixture
def library(tmp_path):
    with Library.open(tmp_path / "deep" / "library.sqlite") as opened:
        yield opened


def test_a_document_comes_back_as_it_was(library):
    document = written(TALE)
    library.add(document, cut(document), recipe="r")
    assert library.get(document.id) == document
    assert library.chunks(document.id) == cut(document)
    assert library.document_for("d1", "plain", "1") == document
    assert library.recipe_of(document.id) == "r"


def test_only_the_same_bytes_read_by_the_same_reader_are_known(library):
    document = written(TALE)
    library.add(document, cut(document), recipe="r")
    assert library.document_for("d2", "plain", "1") is None
    assert library.document_for("d1", "plain", "2") is None
    assert library.document_for("d1", "other", "1") is None
    assert library.recipe_of("nothing") is None


def test_adding_twice_changes_nothing(library):
    document = written(TALE)
    for _ in range(3):
        library.add(document, cut(document), recipe="r")
    assert len(library.list()) == 1
    assert len(ids_with(library, "keeper")) == 1
    assert library.verify() == []


def test_a_changed_file_is_a_new_document(library, tmp_path):
    path = tmp_path / "tale.txt"
    path.write_text("one")
    first = written(TALE, path=str(path), digest="d1")
    second = written([*TALE, "A new ending."], path=str(path), digest="d2")
    library.add(first, cut(first), recipe="r")
    library.add(second, cut(second), recipe="r")
    assert library.document_for("d1", "plain", "1") == first
    assert library.document_for("d2", "plain", "1") == second
    assert library.find(str(path)) == second.id


def test_two_files_with_the_same_text_share_one_document(library, tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    first = written(TALE, path=str(tmp_path / "a.txt"), digest="d1")
    second = written(TALE, path=str(tmp_path / "b.txt"), digest="d2")
    library.add(first, cut(first), recipe="r")
    library.add(second, cut(second), recipe="r")
    assert first.id == second.id
    (entry,) = library.list()
    assert set(entry.paths) == {str(tmp_path / "a.txt"), str(tmp_path / "b.txt")}
    assert library.document_for("d1", "plain", "1").source.path == first.source.path
    assert library.document_for("d2", "plain", "1").source.path == second.source.path


def test_a_moved_file_is_known_by_its_new_place(library, tmp_path):
    document = written(TALE)
    library.add(document, cut(document), recipe="r")
    moved = tmp_path / "moved.txt"
    moved.write_text("x" * 10)
    assert library.document_for("d1", "plain", "1", str(moved)).source.path == str(moved)
    assert library.find(str(moved)) == document.id


def test_another_recipe_chunks_anew(library):
    document = written(TALE)
    library.add(document, cut(document), recipe="r1")
    halves = [Chunk(document.id, Span(0, 40)), Chunk(document.id, Span(40, len(document.text)))]
    library.add(document, halves, recipe="r2")
    assert library.chunks(document.id) == halves
    assert library.recipe_of(document.id) == "r2"
    assert ids_with(library, "keeper") == [library.shelved()[0].chunk_ids[1]]
    assert library.verify() == []


def test_a_chunk_of_another_document_is_refused(library):
    document, other = written(TALE), written(["Other."], digest="d2")
    with pytest.raises(ValueError, match="not a chunk of"):
        library.add(document, cut(other), recipe="r")
    with pytest.raises(ValueError, match="not a chunk of"):
        library.add(document, [Chunk(document.id, Span(0, len(document.text) + 1))], recipe="r")
    assert library.list() == []


def test_removing_leaves_nothing_behind(library):
    documents = [written([f"{text} {number}" for text in TALE], digest=f"d{number}") for number in range(3)]
    for document in documents:
        library.add(document, cut(document), recipe="r")
    library.remove(documents[1].id)
    assert {entry.id for entry in library.list()} == {documents[0].id, documents[2].id}
    assert len(ids_with(library, "keeper")) == 2
    assert library.verify() == []
    with pytest.raises(UnknownDocumentError, match=documents[1].id):
        library.get(documents[1].id)
    library.add(documents[1], cut(documents[1]), recipe="r")
    assert len(ids_with(library, "keeper")) == 3


def test_chunk_ids_are_never_given_twice(library):
    document = written(TALE)
    library.add(document, cut(document), recipe="r")
    before = library.shelved()[0].chunk_ids
    library.remove(document.id)
    library.add(document, cut(document), recipe="r")
    assert library.shelved()[0].chunk_ids.start >= before.stop


def test_listing_tells_what_a_user_wants_to_know(library):
    document = written(TALE)
    library.add(document, cut(document), recipe="r")
    (entry,) = library.list()
    assert (entry.pages, entry.characters, entry.chunks) == (3, len(document.text), 3)
    assert entry.paths == ("tale.txt",)
    assert entry.name == "tale.txt"
    assert abs(entry.added_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert entry.as_dict()["media_type"] == "text/plain"


def test_finding_by_prefix(library):
    document = written(TALE)
    library.add(document, cut(document), recipe="r")
    assert library.find(document.id) == document.id
    assert library.find(document.id[:6].upper()) == document.id
    for name in ("", document.id[:3], "nowhere.pdf", "%"):
        with pytest.raises(UnknownDocumentError, match="library list"):
            library.find(name)


def test_shelved_documents_are_those_asked_for(library):
    documents = [written([f"{text} {number}" for text in TALE], digest=f"d{number}") for number in range(3)]
    for document in documents:
        library.add(document, cut(document), recipe="r")
    assert [shelved.document_id for shelved in library.shelved()] == [document.id for document in documents]
    assert [s.document_id for s in library.shelved([documents[2].id, documents[0].id])] == [
        documents[0].id,
        documents[2].id,
    ]
    with pytest.raises(UnknownDocumentError, match="nothing"):
        library.shelved(["nothing"])


def test_prune_forgets_documents_whose_files_are_gone(library, tmp_path):
    kept, gone = tmp_path / "kept.txt", tmp_path / "gone.txt"
    for number, path in enumerate((kept, gone)):
        path.write_text("x" * 10)
        document = written([f"{path.name} {number}"], path=str(path), digest=f"d{number}")
        library.add(document, cut(document), recipe="r")
    piped = written(["From a pipe."], path="-", digest="d9")
    library.add(piped, cut(piped), recipe="r")
    gone.unlink()
    assert [entry.paths for entry in library.prune(missing=True)] == [(str(gone),)]
    assert {entry.paths for entry in library.list()} == {(str(kept),), ("-",)}
    assert library.prune(missing=True) == []


def test_prune_forgets_what_was_not_used(library):
    documents = [written([f"Text {number}"], digest=f"d{number}") for number in range(2)]
    for document in documents:
        library.add(document, cut(document), recipe="r")
    with library.database.write() as connection:
        long_ago = time.time() - 40 * 86_400
        connection.execute("UPDATE documents SET used_at = ?", (long_ago,))
    # Asking for a document is using it.
    assert library.document_for("d1", "plain", "1") == documents[1]
    assert [entry.id for entry in library.prune(unused_days=30)] == [documents[0].id]


def test_prune_keeps_the_library_under_a_size(library):
    for number in range(6):
        words = " ".join(f"w{number}x{word}" for word in range(20_000))
        document = written([words], digest=f"d{number}")
        library.add(document, cut(document), recipe="r")
        with library.database.write() as connection:
            connection.execute("UPDATE documents SET used_at = ? WHERE id = ?", (1000.0 + number, document.id))
    newest = document.id
    assert library.prune(max_bytes=10**9) == []
    limit = library.path.stat().st_size // 2
    removed = library.prune(max_bytes=limit)
    assert 0 < len(removed) < 6
    assert library.path.stat().st_size <= limit
    assert newest in {entry.id for entry in library.list()}
    assert library.verify() == []
    assert len(library.prune(max_bytes=0)) == 6 - len(removed)


def test_verify_finds_an_altered_text(library):
    document = written(TALE)
    library.add(document, cut(document), recipe="r")
    with library.database.write() as connection:
        connection.execute("UPDATE documents SET text = ?", (b"-" + document.text.upper().encode(),))
    (problem,) = library.verify()
    assert "altered" in problem


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE documents SET text = x'7a00'", "cannot be restored"),
        ("UPDATE chunks SET end = 100000 WHERE ordinal = 2", "outside the text"),
        ("DELETE FROM chunks WHERE ordinal = 1", "chunks other than"),
        ("DELETE FROM passages_docsize WHERE id = (SELECT max(id) FROM chunks)", "not in both"),
    ],
)
def test_verify_finds_damage(library, damage, says):
    document = written(TALE)
    library.add(document, cut(document), recipe="r")
    with library.database.write() as connection:
        connection.execute(damage)
    assert any(says in problem for problem in library.verify())


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE documents SET text = x'7a00'",
        "UPDATE documents SET text = x'2d4142'",
        "UPDATE documents SET layout = x'2d'",
    ],
)
def test_a_damaged_document_can_be_removed(library, damage):
    damaged, sound = written(TALE), written([f"{text} Once more." for text in TALE], digest="d2")
    for document in (damaged, sound):
        library.add(document, cut(document), recipe="r")
    with library.database.write() as connection:
        connection.execute(damage + " WHERE id = ?", (damaged.id,))
    assert library.verify() != []
    library.remove(damaged.id)
    assert library.verify() == []
    assert len(ids_with(library, "keeper")) == 1


def test_verify_finds_stray_vectors_and_prune_removes_them(library):
    stray = library.vectors_path / "some-embedder" / "0123abcd.faiss"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"anything")
    (problem,) = library.verify()
    assert "of no document" in problem
    library.prune()
    assert library.verify() == []
    assert not stray.exists()


def test_the_place_of_the_library(tmp_path, monkeypatch):
    monkeypatch.setenv("LCDOC_LIBRARY", str(tmp_path / "env.sqlite"))
    assert where() == tmp_path / "env.sqlite"
    assert where(tmp_path / "given.sqlite") == tmp_path / "given.sqlite"
    monkeypatch.delenv("LCDOC_LIBRARY")
    assert where().name == "library.sqlite"
    assert "lcdoc" in where().parts


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "library.sqlite"
    path.write_text("My notes, which are not a database at all. " * 50)
    with pytest.raises(LibraryCorruptError, match=r"library\.sqlite.*move it away"):
        Library.open(path)
    assert path.read_text().startswith("My notes")


def test_a_foreign_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "browser.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE history (url TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LibraryCorruptError, match="not an lcdoc library"):
        Library.open(path)
    assert path.read_bytes() == before


def test_a_damaged_library_is_a_clear_error(tmp_path):
    path = tmp_path / "library.sqlite"
    Library.open(path).close()
    empty_pages = path.stat().st_size // 4096  # the schema among them, without which it cannot even be opened
    with Library.open(path) as library:
        for number in range(20):
            document = written([f"{text} {number}" for text in TALE * 20], digest=f"d{number}")
            library.add(document, cut(document), recipe="r")
    data = bytearray(path.read_bytes())
    for page in range(empty_pages, len(data) // 4096):
        data[page * 4096 : page * 4096 + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    with pytest.raises(LibraryCorruptError, match="move it away"), Library.open(path) as library:
        library.list()
        library.get(document.id)
    with Library.open(path) as library:
        assert library.verify() != []


def test_a_library_of_a_newer_lcdoc_is_refused(tmp_path):
    path = tmp_path / "library.sqlite"
    Library.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(LibraryVersionError, match="newer lcdoc"):
        Library.open(path)


def test_places_that_cannot_hold_a_library(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "library.sqlite", tmp_path):
        with pytest.raises(LibraryAccessError, match="--library PATH"):
            Library.open(path)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that cannot be written, as Linux has")
def test_a_read_only_place_is_a_clear_error():
    with pytest.raises(LibraryAccessError, match="--library PATH"):
        Library.open("/proc/self/library.sqlite")


def test_a_new_library_has_the_analysis_that_lexical_writes(library):
    # Rows made by other rules cannot be removed: whoever changes the rules must add a migration that rebuilds them.
    with library.reading() as connection:
        (analysis,) = connection.execute("SELECT value FROM meta WHERE key = 'analysis'").fetchone()
        (table,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'passages'").fetchone()
    assert int(analysis) == lexical.ANALYSIS
    assert "".join(table.split()) == "".join(lexical.SCHEMA.split())


texts = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=200), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(texts)
def test_any_text_survives_and_can_be_removed(tmp_path_factory, pages):
    document = written(["x", *pages])
    with Library.open(tmp_path_factory.mktemp("library") / "library.sqlite") as library:
        library.add(document, cut(document), recipe="r")
        assert library.get(document.id) == document
        assert library.verify() == []
        library.remove(document.id)
        assert library.verify() == []
        with library.reading() as connection:
            assert connection.execute("SELECT count(*) FROM passages_docsize").fetchone() == (0,)


def test_source_warnings_and_titles_survive(library):
    document = written(TALE)
    document = replace(document, source=replace(document.source, warnings=("page 3 has no text",), title="A Tale"))
    library.add(document, cut(document), recipe="r")
    assert library.get(document.id).source.warnings == ("page 3 has no text",)
    assert library.list()[0].name == "A Tale"
