"""Jobs as values, and as files."""

import json

import pytest
from pydantic import ValidationError

from lcdoc.jobs.errors import JobError
from lcdoc.jobs.job import AskTask, Caps, ExtractTask, Job, SummarizeTask
from lcdoc.jobs.job_file import to_toml
from lcdoc.workflows.errors import WorkflowError

SCHEMA = {"type": "object", "title": "Lease", "properties": {"end": {"type": "string"}}}


def whole_job(**fields):
    return Job(
        name='leases "and" more\x7f',
        documents=["/data/contracts", "@/data/list.txt", "/data/more/*.pdf"],
        tasks=[
            AskTask(question="When does it end?", workflow="map-reduce"),
            SummarizeTask(words=120, about="rent"),
            ExtractTask(json_schema=SCHEMA),
        ],
        model="openai/gpt-4.1-mini",
        caps=Caps(usd=20, calls=5000),
        per_document=Caps(seconds=90.5),
        parsing={"max_pages": 500},
        attempts=5,
        **fields,
    )


def test_a_job_is_the_same_in_the_table_and_in_a_file(tmp_path):
    job = whole_job()
    path = tmp_path / "job.toml"
    path.write_text(job.to_toml(), encoding="utf-8")
    assert Job.load(str(path)) == Job.load(path) == job
    settings = json.loads(json.dumps(job.settings()))
    assert Job.of(settings) == job
    assert settings["same"] == job.fingerprint


def test_a_password_is_kept_for_workers_and_written_to_no_file(tmp_path):
    job = whole_job(password="open sesame")
    assert Job.of(job.settings()).password == "open sesame"
    assert "sesame" not in job.to_toml()
    assert "sesame" not in repr(job)
    path = tmp_path / "job.toml"
    path.write_text('password = "x"\n' + job.to_toml(), encoding="utf-8")
    with pytest.raises(JobError, match="give it with --password"):
        Job.load(path)


def test_the_same_rows_make_the_same_job():
    job = whole_job()
    assert job.changed(caps=Caps(usd=50), per_document=Caps(), attempts=1, name="").fingerprint == job.fingerprint
    others = [
        job.changed(tasks=job.tasks[:2]),
        job.changed(documents=job.documents[:1]),
        job.changed(model="offline"),
        job.changed(parsing={"max_pages": 501}),
        job.changed(store="off"),
    ]
    assert len({one.fingerprint for one in (job, *others)}) == 6


def test_tasks_are_named_by_their_words_whatever_comes_between():
    ids = [task.id for task in whole_job().tasks]
    assert ids == ["when-does-it-end", "summarize-rent", "extract-lease"]
    question = "What is the name of the court that first heard the case, and of its judge?"
    asked = Job(tasks=[AskTask(question=words, id=name) for words, name in [
        ("Who?", ""), (question, ""), ("Wo liegt Köln?", ""), ("???", ""), ("Who?", ""), ("x", "who-2")
    ]])  # fmt: skip
    assert [task.id for task in asked.tasks] == [
        "who", "what-is-the-name-of-the-court-that-first", "wo-liegt-köln", "ask", "who-3", "who-2"
    ]  # fmt: skip


def test_every_task_says_what_is_put_to_which_workflow():
    ask, summarize, extract = whole_job().tasks
    assert (ask.workflow, ask.request) == ("map_reduce", "When does it end?")
    assert (summarize.workflow, summarize.request) == ("summarize", "Summarize in 120 words: rent")
    assert (extract.workflow, extract.question) == ("extract", "Lease")
    assert '"end"' in extract.request


def test_paths_in_a_file_are_relative_to_it(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "questions.txt").write_text("# leases\nWhen does it end?\n\nWho signs?\n", encoding="utf-8")
    (folder / "lease.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    path = folder / "job.toml"
    path.write_text(
        'documents = ["contracts", "@list.txt", "/other/*.pdf"]\nquestions = "questions.txt"\n'
        '[[tasks]]\nschema = "lease.json"\n[[tasks]]\nkind = "summarize"\n[[tasks]]\n[tasks.schema]\nend = ""\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    job = Job.load(path)
    assert job.documents == (f"{folder}/contracts", f"@{folder}/list.txt", "/other/*.pdf")
    assert [task.kind for task in job.tasks] == ["ask", "ask", "extract", "summarize", "extract"]
    again = to_toml(job, folder)
    assert 'documents = ["contracts", "@list.txt", "/other/*.pdf"]' in again
    path.write_text(again, encoding="utf-8")
    assert Job.load(path) == job


def test_a_file_that_is_called_like_a_list_stays_a_file(tmp_path):
    job = Job(documents=(f"{tmp_path}/@list.txt", f"{tmp_path}/-"), tasks=[{"question": "Who?"}])
    path = tmp_path / "job.toml"
    path.write_text(to_toml(job, tmp_path), encoding="utf-8")
    assert Job.load(path) == job


ASKED = '[[tasks]]\nquestion = "Who?"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("documents = [", "is not TOML: "),
        ('documents = ["a"]', 'asks nothing; write questions = "questions.txt"'),
        ('document = ["a"]\n' + ASKED, "document is not known; did you mean documents?"),
        ("documents = [1]\n" + ASKED, "documents should be a valid string"),
        ("[caps]\nusd = -1\n" + ASKED, "caps.usd should be greater than or equal to 0"),
        ("[caps]\ndollars = 1\n" + ASKED, "caps.dollars is not known; known here: usd, tokens, calls, seconds"),
        ("caps = 5\n" + ASKED, "caps is no table; write [caps]"),
        ("[parsing]\nmax_page = 1\n" + ASKED, "parsing: max_page is not known; known here: max_bytes, max_pages"),
        ("[parsing]\nmax_pages = 1.5\n" + ASKED, "parsing: max_pages must be a whole number"),
        ("[parsing]\nmax_seconds = 0\n" + ASKED, "parsing: max_seconds must be a number above 0"),
        (ASKED + "[[tasks]]\nqestion = 'x'\n", "task 2: qestion is not known; did you mean question?"),
        (ASKED + "workflow = 'trea'\n", "task 1: workflow: there is no workflow 'trea'; did you mean tree"),
        ("[[tasks]]\nquestion = ' '\n", "task 1: question: is empty"),
        ("[[tasks]]\nkind = 'sumarize'\n", "task 1 has no known kind: ask, summarize or extract"),
        ("[[tasks]]\nkind = 'summarize'\nwords = 'ten'\n", "task 1: words should be a valid integer"),
        ("[[tasks]]\nkind = 'summarize'\nwords = 5\n", "task 1: words should be greater than or equal to 20"),
        (ASKED + "id = 'a'\n" + ASKED + "id = 'a'\n", "two tasks have the id 'a'; give each its own"),
        ("[[tasks]]\nschema = '{\"type\"'\n", "task 1: schema: the schema is no JSON"),
        ("[[tasks]]\nschema = {a = {b = {c = ''}}}\n", "is an object inside an object inside the schema; one level"),
        ("[[tasks]]\nschema = 'no.json'\n", "no.json: No such file or directory"),
        ("questions = 'no.txt'\n", "no.txt cannot be read (No such file or directory)"),
        ("questions = 5\n", "questions is no name of a file"),
        ("attempts = 0\n" + ASKED, "attempts should be greater than or equal to 1"),
        ("store = 'never'\n" + ASKED, "store should be 'use', 'refresh' or 'off'"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line_with_its_key(tmp_path, text, said):
    path = tmp_path / "job.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(WorkflowError) as error:
        Job.load(path)
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_of_another_version_are_told():
    with pytest.raises(
        JobError, match="of another version of lcdoc: unheard_of: extra inputs are not permitted; begin it anew"
    ):
        Job.of({**whole_job().settings(), "unheard_of": 1})


def test_a_job_in_python_is_checked_too():
    with pytest.raises(ValidationError):
        Job(documents=["a"], tasks=[])
    with pytest.raises(ValidationError):
        whole_job().changed(attempts=0)
