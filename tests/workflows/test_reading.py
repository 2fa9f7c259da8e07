"""Reading many files at once gives the library that reading them one by one gives."""

import threading
from contextlib import closing

import pytest

from lcdoc import Workspace
from lcdoc.documents import CorruptFileError, Document, NotFoundError
from lcdoc.workflows import events


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number:02}.md").write_text(f"# Lamp {number}\n\nLamp {number} was lit in {1850 + number}.\n")
    (folder / "05-twin.md").write_text((folder / "05.md").read_text())
    (folder / "03-bad.pdf").write_bytes(b"%PDF-1.4 nothing")
    return folder


@pytest.fixture
def workspace(tmp_path):
    with Workspace.open(tmp_path / "library.sqlite", background=False) as opened:
        yield opened


def contents(workspace):
    """Documents and their chunks in the order of their chunk ids, and which paths are known."""
    library = workspace.library
    shelved = library.shelved()
    return (
        [(each.document_id, each.chunk_ids, library.chunks(each.document_id)) for each in shelved],
        {entry.id: sorted(entry.paths) for entry in library.list()},
    )


def test_a_folder_makes_the_same_library_as_its_files_one_by_one(folder, workspace, tmp_path):
    documents = workspace.read([folder])
    assert [document.name for document in documents] == [f"Lamp {number}" for number in range(6)]
    with Workspace.open(tmp_path / "other.sqlite", background=False) as other:
        one_by_one = [other.read([path])[0] for path in sorted(folder.glob("*.md"))]
        assert {document.id for document in one_by_one} == {document.id for document in documents}
        assert contents(other) == contents(workspace)


def test_what_is_known_is_not_parsed_again(folder, workspace):
    first = workspace.read([folder])
    seen: list[events.Event] = []
    assert workspace.read([folder], on_event=seen.append) == first
    assert [type(event) for event in seen] == [events.DocumentFailed]


def test_a_file_that_cannot_be_read_is_left_out_where_it_was_not_named(folder, workspace):
    (folder / "04.md").unlink()
    (folder / "04.md").symlink_to(folder / "gone.md")
    seen: list[events.Event] = []
    assert len(workspace.read([folder], on_event=seen.append)) == 5
    failed = [event.document for event in seen if isinstance(event, events.DocumentFailed)]
    assert failed == [str(folder / "03-bad.pdf"), str(folder / "04.md")]
    with pytest.raises(NotFoundError):
        workspace.read([folder / "01.md", folder / "02.md", folder / "gone.md"], named_only=True)


def test_where_none_can_be_read_the_first_reason_is_told(tmp_path, workspace):
    for name in "abc":
        (tmp_path / f"{name}.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(CorruptFileError, match=r"a\.pdf"):
        workspace.read([tmp_path / "a.pdf", tmp_path / "b.pdf", tmp_path / "c.pdf"])


def test_documents_come_while_others_are_read(folder, workspace):
    with closing(workspace.read_each([folder])) as reading:
        first = next(reading)
        assert isinstance(first, Document)
        # In the library before it is handed on.
        assert workspace.library.chunks(first.id)
    assert len(workspace.library.list()) == 1


def test_events_come_one_at_a_time(folder, workspace):
    calling = threading.Lock()
    stages: list[str] = []

    def on_event(event):
        assert calling.acquire(blocking=False), "two threads at once"
        if isinstance(event, events.Progress):
            stages.append(event.stage)
        calling.release()

    workspace.read([folder], on_event=on_event)
    assert stages.count("indexing") == 12
