"""A user's own questions, and which questions of many are asked."""

import json
from pathlib import Path

import pytest

from lcdoc.evaluation.cases import Case, Reading, document_of
from lcdoc.evaluation.errors import EvaluationError
from lcdoc.evaluation.evaluate import questions_of
from lcdoc.evaluation.needles import needles
from lcdoc.evaluation.own_questions import own_readings
from lcdoc.evaluation.sampling import digest_of, sampled
from lcdoc.retrieval.tokens import estimate_tokens


def test_json_and_csv_say_the_same(own: Path, tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text(
        'file,question,answer,page,quote\nlamp.md,"When, exactly?",4 March 1871|March 1871,1,\nlamp.md,Who?,,,\n',
        encoding="utf-8",
    )
    (reading,) = own_readings(table)
    first, second = reading.cases
    assert (first.question, first.references, first.pages) == ("When, exactly?", ("4 March 1871", "March 1871"), (1,))
    assert (second.references, second.pages, second.quotes) == ((), (), ())
    lamp, ferries = own_readings(own)
    document = lamp.document()
    assert [span.of(document.text) for span in lamp.cases[0].evidence(document)] == ["on 4 March 1871"]
    assert [case.references for case in ferries.cases] == [("forty",), ()]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("own.jsonl", '{"file": "lamp.md"}\n', "line 1 has no file or no question"),
        ("own.jsonl", '\n{"file": "lamp.md", "question": "?"\n', "line 2 is not JSON"),
        ("own.jsonl", '{"file": "no.md", "question": "?"}\n', "no.md is not there"),
        ("own.jsonl", '{"file": "lamp.md", "question": "?", "page": "ix"}\n', "page 'ix' is not a number"),
        ("own.jsonl", '{"file": "lamp.md", "question": "?", "pages": 1}\n', "line 1 has 'pages'; known are file"),
        ("own.jsonl", "[]\n", "line 1 has no file"),
        ("own.jsonl", '{"file": "lamp.md", "question": " "}\n', "line 1 has no file or no question"),
        ("own.jsonl", '{"file": "lamp.md", "question": "\\ud800"}\n', "line 1 is not JSON"),
        ("own.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("own.jsonl", '{"file": "lamp.md", "question": "?", "page": Infinity}\n', "page inf is not a number"),
        ("own.jsonl", '{"file": "lamp.md", "question": "?", "page": {"a": 1}}\n', "page .* is not a number"),
        ("own.jsonl", '{"file": "lamp.md", "question": "?", "page": 0}\n', "page 0 is not a number from 1 up"),
        ("own.jsonl", '{"file": "lamp.md", "question": "?", "answer": {}}\n', "answer {} is no text"),
        ("own.jsonl", '{"file": "lamp.md", "question": "?", "id": 7}\n' * 2, "line 2 has the id '7', as line 1 has"),
        ("own.csv", f"file,question,answer\nlamp.md,Who?,{'a' * 200_000}\n", "line 2 is not CSV"),
        ("own.csv", 'file,question,answer\nlamp.md,Who?,"me\nlamp.md,When?,\n', "line 2 is not CSV"),
        ("own.csv", "file,question\nlamp.md,Who?,me\n", "line 2 has more cells than the first line"),
        ("own.jsonl", "\n", "has no questions"),
        ("own.csv", "question,answer\nWho?,me\n", "line 2 has no file"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(own: Path, name: str, text: str, said: str) -> None:
    path = own.parent / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EvaluationError, match=said):
        questions_of(str(path))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"page": 2}, "line 1: lamp.md has no page 2, but 1 in all"),
        ({"quote": "lit by a heron"}, "line 1: 'lit by a heron' is not in lamp.md"),
    ],
)
def test_evidence_that_the_file_does_not_have_is_told(own: Path, fields: dict[str, object], said: str) -> None:
    own.write_text(json.dumps({"file": "lamp.md", "question": "When?", **fields}), encoding="utf-8")
    (reading,) = own_readings(own)
    with pytest.raises(EvaluationError, match=said):
        reading.document()


def test_a_line_of_csv_ends_where_csv_says(own: Path) -> None:
    path = own.with_name("OWN.CSV")
    path.write_text("file,question,answer\nlamp.md,When\u2028was it lit?,1871\n", encoding="utf-8")
    (reading,) = questions_of(str(path)).readings
    assert reading.cases[0].question == "When\u2028was it lit?"


def test_other_evidence_makes_other_questions() -> None:
    one, other = (
        [Reading("d", (Case("1", "?", ("a",), pages),), lambda: document_of("d", ["text"]))] for pages in ((1,), (2,))
    )
    assert digest_of(one) != digest_of(other)


def made(documents: int, questions: int) -> list[Reading]:
    return [
        Reading(
            f"d{number}",
            tuple(Case(f"{number}/{place}", "?", ()) for place in range(questions)),
            lambda: document_of("d", ["text"]),
        )
        for number in range(documents)
    ]


def test_a_sample_is_some_of_each_of_many_documents() -> None:
    first = sampled(made(20, 10), 12)
    assert [len(reading.cases) for reading in first] == [4, 4, 4]
    assert sampled(made(20, 10), 12) == first or digest_of(sampled(made(20, 10), 12)) == digest_of(first)
    assert digest_of(sampled(made(20, 10), 12, seed=1)) != digest_of(first)
    # Where documents are few, more of each are taken; where questions are few, all of them.
    assert [len(reading.cases) for reading in sampled(made(2, 10), 15)] == [8, 7]
    assert sum(len(reading.cases) for reading in sampled(made(2, 3), 15)) == 6
    assert len({case.id for reading in sampled(made(2, 10), 15) for case in reading.cases}) == 15


def test_facts_are_planted_between_sentences_at_their_depth() -> None:
    text = " ".join(f"Sentence number {number} stands here." for number in range(2_000))
    readings = list(needles(text, lengths=(500, 2_000), depths=(0, 50, 100), each=2))
    assert [reading.name for reading in readings[:3]] == ["500/0/0", "500/0/1", "500/50/0"]
    for reading in readings:
        length, depth, _ = map(int, reading.name.split("/"))
        planted, (case,) = reading.document().text, reading.cases
        (fact,) = case.quotes
        before, _, after = planted.partition(fact)
        assert case.references[0] in fact
        assert before == "" or before.endswith("here. ")
        assert after.strip() == "" or after.startswith(" Sentence")
        assert abs(estimate_tokens(planted) - length) < 0.1 * length + 40
        assert len(before) / len(planted) == pytest.approx(depth / 100, abs=0.06)
    assert len({reading.cases[0].references for reading in readings}) == len(readings)
    with pytest.raises(EvaluationError, match="fewer than the 90,000 asked for"):
        list(needles(text, lengths=(90_000,)))
