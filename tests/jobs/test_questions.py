"""What is asked of each document, as users write it down."""

import json

import pytest

from lcdoc.jobs.errors import JobError
from lcdoc.jobs.questions import asked, extracted, read_questions
from lcdoc.workflows.errors import WorkflowError

ROWS = {
    "q.txt": "\ufeff# about leases\nWhen does it end?\r\n\n  # and more\n  Who  signs?  \n",
    "q.csv": 'id,question,workflow\nend,"When, exactly, does it end?",\n,Who signs?,map_reduce\n',
    "excel.csv": "Question ; Id\nWhen does it end?;end\nWho signs?;\n",
    "q.jsonl": '{"id": 7, "question": "When does it end?"}\n\n{"question": "Who signs?", "workflow": "tree"}\n',
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("q.txt", [("", "When does it end?", "auto"), ("", "Who signs?", "auto")]),
        ("q.csv", [("end", "When, exactly, does it end?", "auto"), ("", "Who signs?", "map_reduce")]),
        ("excel.csv", [("end", "When does it end?", "auto"), ("", "Who signs?", "auto")]),
        ("q.jsonl", [("7", "When does it end?", "auto"), ("", "Who signs?", "tree")]),
    ],
)
def test_a_file_has_a_question_a_line(tmp_path, name, expected):
    path = tmp_path / name
    path.write_text(ROWS[name], encoding="utf-8")
    assert [(task.id, task.question, task.workflow) for task in read_questions(path)] == expected


def test_a_workflow_given_beside_is_for_questions_that_name_none(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text(ROWS["q.csv"], encoding="utf-8")
    assert [task.workflow for task in asked(str(path), workflow="chain")] == ["chain", "map_reduce"]


def test_a_text_that_is_no_file_is_a_question(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (task,) = asked("Which  plant was closed?\nAnd why?\x1b[2J")
    assert task.question == "Which plant was closed? And why? [2J"
    (task,) = asked("What does it say of questions.txt")
    assert task.question == "What does it say of questions.txt"
    (task,) = asked("Why? " * 1000)
    assert task.question.startswith("Why? Why?")
    (tmp_path / "Who?").write_text("no suffix", encoding="utf-8")
    with pytest.raises(JobError, match=r"is not a file of questions; give it the suffix \.txt, \.csv, \.jsonl"):
        asked("Who?")


@pytest.mark.parametrize(
    ("given", "text", "said"),
    [
        ("questions.txt", None, "questions.txt is not there; name a file of questions"),
        ("  ", None, "the question is empty"),
        ("q.txt", "# nothing\n\n", "q.txt has no questions"),
        ("q.csv", "id,text\n1,Who?\n", "q.csv, line 2 has no question"),
        ("q.csv", "question,notes\nWho?,x\n", "q.csv, line 2 has 'notes'; known are question, id, workflow"),
        ("q.csv", "question\nWhen, where?\n", "q.csv, line 2 has more cells than the first line"),
        ("q.jsonl", '{"question": 1}\n', "q.jsonl, line 1 has no question"),
        ("q.jsonl", '{"question": "?", "id": true}\n', "q.jsonl, line 1: id: input should be a valid string"),
        ("q.jsonl", '{"question": "?", "workflow": "trea"}\n', "line 1: workflow: there is no workflow 'trea'"),
        ("q.jsonl", '{"question": "?", "id": "a"}\n' * 2, "line 2 has the id 'a', as line 1 has"),
        ("q.jsonl", "{\n", "line 1 is not JSON"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, monkeypatch, given, text, said):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / given).write_text(text, encoding="utf-8")
    with pytest.raises(JobError) as error:
        asked(given)
    assert said in str(error.value)


def test_a_file_that_is_not_utf8_and_a_folder_are_told(tmp_path):
    (tmp_path / "q.txt").write_bytes(b"Wo liegt K\xf6ln?\n")
    with pytest.raises(JobError, match=r"q.txt is not UTF-8 text \(.*\); save it as UTF-8"):
        asked(str(tmp_path / "q.txt"))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(JobError, match=r"folder\.txt cannot be read"):
        asked(str(tmp_path / "folder.txt"))


def test_a_schema_is_read_and_checked_before_anything_is_begun(tmp_path):
    path = tmp_path / "lease.json"
    schema = {"type": "object", "title": "Lease", "properties": {"rent": {"type": "number"}}}
    path.write_text(json.dumps(schema), encoding="utf-8")
    assert extracted(path).json_schema == schema
    for text, said in [
        ("[1]", "lease.json: a schema is an object with properties, not a list"),
        ("{", "lease.json: the schema is no JSON"),
    ]:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(WorkflowError) as error:
            extracted(path)
        assert said in str(error.value)
