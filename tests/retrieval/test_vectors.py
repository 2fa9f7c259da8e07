"""The vector files: merged, whole or not there, and safe for many processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.retrieval.vectors import (
    VectorStore,
    VectorStoreError,
    remove_vectors,
    stored_vectors,
    verify_file,
)

D = 16


def vectors_of(ids: list[int]) -> npt.NDArray[np.float32]:
    """A vector of length 1 for each id, always the same for the same id."""
    rows = np.array([np.random.default_rng(i).standard_normal(D) for i in ids], dtype=np.float32).reshape(-1, D)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    return VectorStore(tmp_path, "f1", D)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_what_was_added_is_loaded_in_rising_order(store: VectorStore) -> None:
    assert store.load("doc") is None
    store.add("doc", [5, 2, 9], vectors_of([5, 2, 9]))
    loaded = VectorStore(store.path("doc").parent.parent, "f1", D).load("doc")
    assert loaded is not None
    assert loaded.ids.tolist() == [2, 5, 9]
    np.testing.assert_array_equal(loaded.matrix, vectors_of([2, 5, 9]))
    np.testing.assert_array_equal(loaded.of([9, 2, 9]), vectors_of([9, 2, 9]))
    with pytest.raises(KeyError, match="chunk 4"):
        loaded.of([2, 4])


def test_adding_merges_and_keeps_what_is_there(store: VectorStore) -> None:
    store.add("doc", [1, 2], vectors_of([1, 2]))
    store.add("doc", [2, 3], vectors_of([7, 3]))
    loaded = store.load("doc")
    assert loaded is not None
    assert loaded.ids.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(loaded.matrix, vectors_of([1, 2, 3]))
    assert store.missing("doc", [4, 3, 0, 1]) == [4, 0]
    assert store.missing("other", [4, 3]) == [4, 3]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sets(st.integers(0, 400), max_size=20), max_size=5))
def test_any_sequence_of_additions_ends_as_their_union(tmp_path_factory: pytest.TempPathFactory, parts) -> None:
    store = VectorStore(tmp_path_factory.mktemp("v"), "f", D)
    for part in parts:
        store.add("doc", list(part), vectors_of(list(part)))
    union = sorted(set().union(*parts))
    loaded = store.load("doc")
    assert (loaded.ids.tolist() if loaded else []) == union
    if loaded:
        np.testing.assert_array_equal(loaded.matrix, vectors_of(union))
        assert store.verify("doc", count=401) == []


def test_the_file_is_a_faiss_index_whose_ids_are_the_ordinals(store: VectorStore) -> None:
    import faiss

    store.add("doc", [3, 8, 40], vectors_of([3, 8, 40]))
    index = faiss.read_index(str(store.path("doc")))
    _, nearest = index.search(vectors_of([8]), 1)
    assert nearest.tolist() == [[8]]


def test_search_gives_the_nearest_of_several_documents(store: VectorStore) -> None:
    store.add("a", list(range(50)), vectors_of(list(range(50))))
    store.add("b", list(range(50)), vectors_of(list(range(50, 100))))
    query = vectors_of([70])[0] * 0.9 + vectors_of([3])[0] * 0.8
    every = np.concatenate([vectors_of(list(range(100)))]) @ query
    expected = [("a" if i < 50 else "b", i % 50) for i in np.argsort(-every)[:7].tolist()]
    found = store.search(["a", "b", "none", "a"], query, 7)
    assert [(document, ordinal) for document, ordinal, _ in found] == expected
    np.testing.assert_allclose([cosine for *_, cosine in found], np.sort(every)[::-1][:7], atol=1e-6)
    assert store.search(["none"], query, 7) == []
    assert len(store.search(["a"], query, 500)) == 50
    with pytest.raises(ValueError, match="dimensions"):
        store.search(["a"], query[:5], 1)


def test_embedders_do_not_see_each_others_vectors(store: VectorStore, tmp_path: Path) -> None:
    store.add("doc", [1], vectors_of([1]))
    other = VectorStore(tmp_path, "f2", D)
    assert other.load("doc") is None
    other.add("doc", [2], vectors_of([2]))
    assert [(stored.fingerprint, stored.document_id) for stored in stored_vectors(tmp_path)] == [
        ("f1", "doc"),
        ("f2", "doc"),
    ]
    assert stored_vectors(tmp_path)[0].size_bytes == store.path("doc").stat().st_size
    other.remove("doc")
    assert store.load("doc") is not None
    store.add("kept", [1], vectors_of([1]))
    remove_vectors(tmp_path, "doc")
    assert [stored.document_id for stored in stored_vectors(tmp_path)] == ["kept"]


@pytest.mark.parametrize("spoil", ["cut short", "one bit", "empty", "a faiss file without a checksum"])
def test_a_damaged_file_is_set_aside_and_told_about(store: VectorStore, spoil: str) -> None:
    store.add("doc", [1, 2], vectors_of([1, 2]))
    path = store.path("doc")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes({"cut short": data[:-40], "one bit": data, "empty": b""}.get(spoil, bytes(data[:-12])))
    assert len(store.verify("doc", count=3)) == 1
    assert path.exists()
    assert store.load("doc") is None
    assert not path.exists()
    assert path.with_name("doc.faiss.corrupt").exists()
    (warning,) = store.warnings
    assert str(path) in warning
    assert "moved to doc.faiss.corrupt" in warning
    assert store.missing("doc", [1, 2]) == [1, 2]
    store.add("doc", [1, 2], vectors_of([1, 2]))
    assert store.missing("doc", [1, 2]) == []
    assert len(store.warnings) == 1


def test_adding_to_a_damaged_file_starts_again(store: VectorStore) -> None:
    store.add("doc", [1], vectors_of([1]))
    damage(store.path("doc"))
    store.add("doc", [2], vectors_of([2]))
    loaded = store.load("doc")
    assert loaded is not None
    assert loaded.ids.tolist() == [2]
    assert len(store.warnings) == 1
    remove_vectors(store.path("doc").parent.parent, "doc")
    assert [path.name for path in store.path("doc").parent.iterdir()] == ["writer.lock"]


def test_verify_names_what_cannot_be_right(store: VectorStore) -> None:
    store.add("doc", [0, 7], vectors_of([0, 7]) * np.array([[1], [2]], dtype=np.float32))
    problems = store.verify("doc", count=5)
    assert [problem.split(": ", 1)[1] for problem in problems] == [
        "has a vector for chunk 7, the document has 5 chunks",
        "1 of 2 vectors are not of length 1",
    ]
    assert store.verify("none", count=5) == []
    assert "16 dimensions, expected 3" in verify_file(store.path("doc"), 9, 3)[0]


@pytest.mark.parametrize(
    ("ids", "matrix", "message"),
    [
        ([1, 1], vectors_of([1, 2]), "different"),
        ([-1], vectors_of([1]), "negative"),
        ([1, 2], vectors_of([1]), "expected 2 vectors of 16"),
        ([1], np.zeros((1, 3), dtype=np.float32), "expected 1 vectors of 16"),
        ([1], np.full((1, D), np.nan, dtype=np.float32), "finite"),
    ],
)
def test_wrong_vectors_are_refused(store: VectorStore, ids, matrix, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store.add("doc", ids, matrix)
    assert store.load("doc") is None


@pytest.mark.parametrize("name", ["../up", "a/b", "", "x" * 200, "a.b", "nul\x00"])
def test_a_name_that_leaves_the_folder_is_refused(store: VectorStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a vector file"):
        store.load(name)
    with pytest.raises(ValueError, match="cannot name a vector file"):
        VectorStore(tmp_path, name, D)


def test_a_folder_that_cannot_be_written_is_an_error(store: VectorStore) -> None:
    store.path("doc").parent.mkdir(parents=True)
    store.path("doc").with_name("doc.faiss.tmp").mkdir()  # even root cannot open a folder for writing
    with pytest.raises(VectorStoreError, match=r"doc\.faiss: cannot be written"):
        store.add("doc", [1], vectors_of([1]))


def test_nothing_to_read_imports_no_faiss(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from lcdoc.retrieval.vectors import VectorStore\n"
        f"store = VectorStore(Path({str(tmp_path)!r}), 'f', 4)\n"
        "print(store.load('doc'), store.missing('doc', [1]), 'faiss' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "[1]", "False"]


WRITER = """
import sys
from pathlib import Path
import numpy as np
from lcdoc.retrieval.vectors import VectorStore
folder, first, count, dimensions = Path(sys.argv[1]), *map(int, sys.argv[2:])
store = VectorStore(folder, "f1", dimensions)
print("ready", flush=True)
sys.stdin.readline()
for ordinal in range(first, first + count):
    matrix = np.zeros((1, dimensions), dtype=np.float32)
    matrix[0, ordinal % dimensions] = 1
    store.add("doc", [ordinal], matrix)
    print(ordinal, flush=True)
"""


def writer(folder: Path, first: int, count: int, dimensions: int) -> subprocess.Popen[str]:
    """A process that adds `count` vectors to `doc` one by one, once it is told to start."""
    arguments = [sys.executable, "-c", WRITER, str(folder), str(first), str(count), str(dimensions)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_processes_that_write_the_same_document_lose_nothing(tmp_path: Path) -> None:
    processes = [writer(tmp_path, part * 100, 20, D) for part in range(3)]
    for process in processes:
        start(process)
    store = VectorStore(tmp_path, "f1", D)
    while any(process.poll() is None for process in processes):
        store.load("doc")  # a reader in between finds a whole file or none
        time.sleep(0.002)
    assert [process.wait() for process in processes] == [0, 0, 0]
    for process in processes:
        process.communicate()
    loaded = store.load("doc")
    assert loaded is not None
    assert loaded.ids.tolist() == [part * 100 + n for part in range(3) for n in range(20)]
    assert loaded.matrix.argmax(axis=1).tolist() == [i % D for i in loaded.ids.tolist()]
    assert store.warnings == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("after", [3, 6, 9])
def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path, after: int) -> None:
    dimensions = 20_000  # so that most of the writer's time is spent writing
    process = writer(tmp_path, 0, 400, dimensions)
    start(process)
    assert process.stdout is not None
    for _ in range(after):
        last = int(process.stdout.readline())
    time.sleep(0.002 * after)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    store = VectorStore(tmp_path, "f1", dimensions)
    loaded = store.load("doc")
    assert loaded is not None
    count = len(loaded)
    assert loaded.ids.tolist() == list(range(count))
    assert count > last
    assert store.verify("doc", count) == []
    store.add("doc", [1000], np.eye(1, dimensions, dtype=np.float32))  # its lock died with it
    assert len(store.load("doc") or []) == count + 1
    assert store.warnings == []
