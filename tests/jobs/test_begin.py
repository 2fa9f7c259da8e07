"""A job is begun once, and found again."""

import pytest

from lcdoc.agents.models.errors import ModelError
from lcdoc.documents import NotFoundError
from lcdoc.jobs.begin import begin
from lcdoc.jobs.errors import JobError
from lcdoc.jobs.job import Caps, Job
from lcdoc.jobs.result_log import ResultLog
from lcdoc.memory import Library


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.setenv("LCDOC_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("LCDOC_MODEL", "")
    (tmp_path / "config.toml").write_text('model = "ollama/qwen3:8b"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in ("docs/a.txt", "docs/b.txt", "other/c.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("text", encoding="utf-8")
    with Library.open(tmp_path / "library.sqlite") as library:
        yield library


def asking(**fields):
    return Job(**{"documents": ("docs",), "tasks": ({"question": "Who?"},), **fields})


def test_the_same_job_goes_on_with_what_is_new(library, tmp_path):
    first = begin(library, asking(), out=str(tmp_path / "out"))
    assert (first.again, first.was, first.added) == (False, "new", 2)
    assert (first.record.name, first.record.out, first.record.tasks) == ("docs", str(tmp_path / "out"), 1)
    assert first.job.model == "ollama/qwen3:8b"
    assert first.job.documents == (f"{tmp_path}/docs",)
    (tmp_path / "docs" / "new.txt").write_text("text", encoding="utf-8")
    library.jobs.pause(first.record.id, "the cap of $1 is reached")
    again = begin(library, asking(caps=Caps(usd=9), attempts=7, name="leases"))
    assert (again.record.id, again.again, again.was, again.added) == (first.record.id, True, "paused", 1)
    assert (again.record.state, again.record.reason) == ("open", "")
    assert (again.record.name, again.record.out, again.record.attempts) == ("leases", str(tmp_path / "out"), 7)
    assert Job.of(again.record.settings).caps.usd == 9


def test_a_schema_keeps_its_order(library):
    schema = {"tenant": "who rents", "rent": {"type": "number"}, "deposit": {"type": "number"}}
    begun = begin(library, asking(tasks=({"schema": schema},)))
    (task,) = Job.of(begun.record.settings).tasks
    assert list(task.json_schema["properties"]) == ["tenant", "rent", "deposit"]


def test_another_question_model_or_folder_is_another_job(library, monkeypatch):
    jobs = [asking(), asking(tasks=({"question": "When?"},)), asking(model="offline"), asking(documents=("other",))]
    assert len({begin(library, job).record.id for job in jobs}) == 4
    # The model is the job's, whatever the configuration says later.
    monkeypatch.setenv("LCDOC_MODEL", "offline")
    assert begin(library, asking()).record.id == begin(library, jobs[2]).record.id


def test_another_list_on_standard_input_is_another_job(library):
    one, same, other = (
        begin(library, asking(documents=("-",)), stdin=listed)
        for listed in (b"docs/a.txt\n", b"docs/a.txt\n", b"docs/a.txt\ndocs/b.txt\n")
    )
    assert one.record.id == same.record.id != other.record.id
    assert (one.added, same.added, other.added) == (1, 0, 2)
    assert one.record.name == "standard input"


def test_what_does_not_do_begins_nothing(library, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ResultLog(tmp_path / "taken", "abcd1234") as log:
        from lcdoc.tests.jobs.rows import row

        log.add([row()])
    for job, out, error, said in [
        (asking(documents=()), "", JobError, "the job has no documents"),
        (asking(documents=("nowhere",)), "", NotFoundError, "no such file or folder"),
        (asking(model="openai/gpt-4.1-mini"), "", ModelError, "OPENAI_API_KEY is not set"),
        (asking(), str(tmp_path / "taken"), JobError, "holds the results of another job, abcd1234"),
        (asking(), str(tmp_path / "docs" / "a.txt"), JobError, "a.txt is a file; name a folder with --out"),
    ]:
        with pytest.raises(error, match=said):
            begin(library, job, out=out)
    assert library.jobs.list() == []
