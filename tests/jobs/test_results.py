"""Rows, and the file that grows by them."""

import json
from datetime import UTC, datetime

import pytest

from lcdoc.jobs.errors import JobError
from lcdoc.jobs.result_log import ResultLog
from lcdoc.jobs.results import Result
from lcdoc.memory.job_records import ResultRow
from lcdoc.tests.jobs.rows import JOB, row

MOMENT = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def kept(**fields):
    """A row as the job table gives it."""
    made = {
        "sequence": 1, "document": 2, "path": "/d/broken.pdf", "document_id": "", "name": "", "pages": 0, "task": 2,
        "state": "failed", "error": "no\n text", "row": None, "attempts": 1, "seconds": 1.5, "worker": "w1",
        "finished_at": MOMENT,
    }  # fmt: skip
    return ResultRow(**{**made, **fields})


def test_a_row_is_the_same_as_json():
    result = row()
    plain = result.to_json()
    assert plain["schema"] == "lcdoc.result/1"
    assert list(plain)[:5] == ["schema", "job", "document", "task", "found"]
    assert Result.of(json.loads(json.dumps(plain))) == result


def test_a_task_that_no_worker_has_done_has_a_row_that_says_why():
    result = Result.of_kept(kept(), "abcd1234", JOB.tasks)
    assert (result.error, result.found, result.finished_at) == ("no text", False, MOMENT)
    assert (result.document.name, result.document.id, result.document.pages) == ("broken.pdf", None, None)
    assert (result.task.id, result.task.kind, result.task.number) == ("extract-lease", "extract", 2)
    assert Result.of_kept(kept(row=row().to_json()), "abcd1234", JOB.tasks) == row()
    odd = Result.of_kept(kept(path="/d/caf\udce9.pdf"), "abcd1234", JOB.tasks)
    assert odd.document.path == "/d/caf?.pdf"


def rows_in(folder):
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [(one["document"]["number"], one["task"]["number"], one["error"]) for one in map(json.loads, lines)]


def test_a_file_that_grows_has_every_row_once(tmp_path):
    folder = tmp_path / "deep" / "results"
    with ResultLog(folder, "abcd1234") as log:
        assert log.add([row(2, 1), row(1, 1)]) == 2
        assert log.add([row(1, 1)]) == 0
        assert rows_in(folder) == [(2, 1, ""), (1, 1, "")]
        assert log.add([row(1, 2, answer="Köln \u2028 \ud800")]) == 1
    with ResultLog(folder, "abcd1234") as log:
        assert log.add([row(1, 1), row(1, 2), row(2, 2, error="no")]) == 1
        again = row(2, 2, finished_at=MOMENT)
        assert log.add([again]) == 1
        assert rows_in(folder)[-2:] == [(2, 2, "no"), (2, 2, "")]
        log.finish([row(1, 1), row(1, 2), row(2, 1), again])
    assert rows_in(folder) == [(1, 1, ""), (1, 2, ""), (2, 1, ""), (2, 2, "")]
    assert not list(folder.glob(".*.part"))


def test_a_torn_line_is_mended_from_the_table(tmp_path):
    with ResultLog(tmp_path, "abcd1234") as log:
        log.add([row(1, 1), row(1, 2)])
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 40, whole.index(b"\n") + 1, 5):
        path.write_bytes(whole[:cut])
        with ResultLog(tmp_path, "abcd1234") as log:
            log.add([row(1, 1), row(1, 2)])
        assert path.read_bytes() == whole


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "results.jsonl"
    with ResultLog(tmp_path, "abcd1234") as log:
        log.add([row()])
    before = path.read_bytes()
    with pytest.raises(JobError, match="holds the results of another job, abcd1234; name another folder with --out"):
        ResultLog(tmp_path, "other")
    for text in (b"my own notes\n", b"{}\n", b"[" * 100_000 + b"\n", b'{"job": 1, "document": 2, "task": 3}\n'):
        path.write_bytes(before + text)
        with pytest.raises(JobError, match="line 2 is no row of results"):
            ResultLog(tmp_path, "abcd1234")
        assert path.read_bytes() == before + text


def test_two_processes_do_not_write_the_same_file(tmp_path):
    with ResultLog(tmp_path, "abcd1234"), pytest.raises(JobError, match="another process writes"):
        ResultLog(tmp_path, "abcd1234")
    with ResultLog(tmp_path, "abcd1234") as log:
        assert log.add([row()]) == 1


def test_a_full_disk_tears_nothing(tmp_path, monkeypatch):
    with ResultLog(tmp_path, "abcd1234") as log:
        log.add([row(1, 1)])
        before = (tmp_path / "results.jsonl").read_bytes()
        # A limit on the size of files stands for a full disk: a part of the row is written, then writing fails.
        import resource
        import signal

        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, limits[1]))
        try:
            with pytest.raises(JobError, match=r"results.jsonl cannot be written \(File too large\)"):
                log.add([row(1, 2)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert (tmp_path / "results.jsonl").read_bytes() == before
        assert log.add([row(1, 2)]) == 1
    assert rows_in(tmp_path) == [(1, 1, ""), (1, 2, "")]


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "results").write_text("", encoding="utf-8")
    with pytest.raises(JobError, match=r"results.jsonl cannot be written"):
        ResultLog(tmp_path / "results", "abcd1234")
