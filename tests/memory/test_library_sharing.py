"""The library shared by processes and threads, some of which die."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.memory import Library, LibraryBusyError
from lcdoc.retrieval import Chunk

SCRIPT = """
import sys, time
from pathlib import Path
from lcdoc.documents import Span
from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.memory import Library
from lcdoc.retrieval import Chunk

def written(number, size=40):
    builder = DocumentBuilder(Job(f"{number}.txt", b"", "text/plain"))
    for paragraph in range(size):
        builder.paragraph(f"Document {number}, paragraph {paragraph}: the quick brown fox says {number * paragraph}.")
    return builder.build(reader="plain", reader_version="1", digest=str(number))

def cut(document):
    text = document.text
    return [Chunk(document.id, Span(at, min(at + 80, len(text)))) for at in range(0, len(text), 80)]

path, start, first, last = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
size = int(sys.argv[5])
documents = [written(number, size) for number in range(first, last)]
time.sleep(max(0, start - time.time()))
with Library.open(path) as library:
    for document in documents:
        library.add(document, cut(document), recipe="r")
        print(document.id, flush=True)
"""


def adding(path, start, first, last, size=40):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path), str(start), str(first), str(last), str(size)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def document(number):
    builder = DocumentBuilder(Job(f"{number}.txt", b"", "text/plain"))
    builder.paragraph(f"Thread {number} was here.")
    return builder.build(reader="plain", reader_version="1", digest=f"t{number}")


def test_many_processes_make_and_fill_one_library_at_once(tmp_path):
    path = tmp_path / "library.sqlite"
    start = time.time() + 2.5
    # Each document is added by two of the processes.
    processes = [adding(path, start, number, number + 4) for number in (0, 2, 4, 6)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    with Library.open(path) as library:
        assert len(library.list()) == 10
        assert library.verify() == []
        taken = [chunk_id for shelved in library.shelved() for chunk_id in shelved.chunk_ids]
        assert len(taken) == len(set(taken))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_leaves_whole_documents_only(tmp_path):
    path = tmp_path / "library.sqlite"
    for attempt in range(3):
        process = adding(path, 0, attempt * 1000, attempt * 1000 + 1000 if attempt else 60, size=400)
        finished = {process.stdout.readline().strip()}
        time.sleep(0.03 * attempt)
        process.send_signal(signal.SIGKILL)
        finished |= set(process.communicate(timeout=30)[0].split())
        with Library.open(path) as library:
            assert finished <= {entry.id for entry in library.list()}
            assert library.verify() == []
            for entry in library.list():
                assert len(library.chunks(entry.id)) == entry.chunks > 0


def test_threads_share_a_library(tmp_path):
    with Library.open(tmp_path / "library.sqlite") as library, ThreadPoolExecutor(8) as threads:

        def work(number):
            made = document(number)
            library.add(made, [Chunk(made.id, made.pages[0].span)], recipe="r")
            return library.get(made.id) == made and len(library.list()) > 0

        assert all(threads.map(work, range(40)))
        assert len(library.list()) == 40
        assert library.verify() == []


def test_connections_of_ended_threads_are_closed(tmp_path):
    with Library.open(tmp_path / "library.sqlite") as library:
        for _ in range(30):
            thread = threading.Thread(target=library.list)
            thread.start()
            thread.join()
        assert len(library.database._opened) <= 2


def test_a_reader_does_not_wait_for_a_writer(tmp_path):
    path = tmp_path / "library.sqlite"
    made = document(1)
    with Library.open(path) as library, Library.open(path, lock_timeout_s=0.1) as other:
        library.add(made, [], recipe="r")
        with library.database.write() as connection:
            connection.execute("DELETE FROM documents")
            assert other.get(made.id) == made


def test_a_lock_that_is_never_freed_is_a_clear_error(tmp_path):
    path = tmp_path / "library.sqlite"
    made = document(1)
    with Library.open(path) as library, Library.open(path, lock_timeout_s=0.2) as other:
        with library.database.write():
            begun = time.monotonic()
            with pytest.raises(LibraryBusyError, match="another process"):
                other.add(made, [], recipe="r")
            assert time.monotonic() - begun < 5
        other.add(made, [], recipe="r")
        assert library.get(made.id) == made


def test_a_writer_waits_for_another(tmp_path):
    path = tmp_path / "library.sqlite"
    made = document(1)
    with Library.open(path) as library, Library.open(path) as other:
        held = threading.Event()

        def hold():
            with library.database.write():
                held.set()
                time.sleep(0.5)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        other.add(made, [], recipe="r")
        thread.join()
        assert other.get(made.id) == made


def test_an_exception_undoes_the_transaction(tmp_path):
    with Library.open(tmp_path / "library.sqlite") as library:
        made = document(1)
        library.add(made, [], recipe="r")
        with pytest.raises(KeyboardInterrupt), library.database.write() as connection:
            connection.execute("DELETE FROM documents")
            raise KeyboardInterrupt
        assert library.get(made.id) == made


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_uses_its_own_connection(tmp_path):
    with Library.open(tmp_path / "library.sqlite") as library:
        made = document(1)
        library.add(made, [], recipe="r")
        child = os.fork()
        if child == 0:
            other = document(2)
            library.add(other, [], recipe="r")
            library.close()
            os._exit(0 if library.get(other.id) == other else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(library.list()) == 2
        assert library.verify() == []
