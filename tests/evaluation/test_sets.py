"""Every set is read from files in its published form: documents, questions, answers, and where the evidence is."""

import json
from pathlib import Path

import pytest

from lcdoc.evaluation.cases import Case, QuestionSet, Reading
from lcdoc.evaluation.errors import EvaluationError
from lcdoc.evaluation.listing import listed
from lcdoc.evaluation.parts import part_of
from lcdoc.evaluation.sets import SETS, readings, set_named
from lcdoc.tests.evaluation.sets_made import make_sets


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    make_sets(folder)
    return folder


def of(data: Path, name: str, split: str | None = None) -> list[Reading]:
    return readings(set_named(name), data, split)


def cases_of(data: Path, name: str, split: str | None = None) -> dict[str, Case]:
    return {case.id: case for reading in of(data, name, split) for case in reading.cases}


def evidence_of(data: Path, name: str, case_id: str, split: str | None = None) -> list[str]:
    """The texts of a case's evidence."""
    for reading in of(data, name, split):
        for case in reading.cases:
            if case.id == case_id:
                document = reading.document()
                return [span.of(document.text).strip() for span in case.evidence(document)]
    raise KeyError(case_id)


@pytest.mark.parametrize("name", SETS)
def test_every_split_has_questions_with_a_name_of_their_own(data: Path, name: str) -> None:
    found: QuestionSet = set_named(name)
    assert found.name == name
    assert found.about
    assert found.licence
    for split in found.splits:
        every = of(data, name, split)
        ids = [case.id for reading in every for case in reading.cases]
        assert ids
        assert len(set(ids)) == len(ids)
        assert all(case.question.strip() == case.question != "" for reading in every for case in reading.cases)
        assert all(reading.document().text for reading in every[:2])


def test_squad_joins_an_article_or_keeps_its_paragraphs_apart(data: Path) -> None:
    (article,) = of(data, "squad", "v2.0-article")
    assert len(article.document().pages) == 2
    assert [case.references for case in article.cases] == [("1871", "in 1871"), (), ("Ada Quill",)]
    assert evidence_of(data, "squad", "q3") == ["Its keeper is Ada Quill."]
    assert evidence_of(data, "squad", "q2") == []
    first, second = of(data, "squad", "v1.1")
    assert first.document().text == "The pier was built in 1871."
    assert first.drawn_as == second.drawn_as == "Pier"
    assert first.part == part_of("squad", "Pier")


def test_covid_qa_looks_answers_up_where_offsets_are_wrong(data: Path) -> None:
    assert evidence_of(data, "covid_qa", "7") == ["Its lamp is lit by hand. The keeper is Ada Quill."]
    assert evidence_of(data, "covid_qa", "8") == ["The pier was built in 1871."]
    assert cases_of(data, "covid_qa")["7"].references == ("Ada Quill.",)


def test_fairytaleqa_takes_all_annotators_and_sections(data: Path) -> None:
    (case,) = cases_of(data, "fairytaleqa").values()
    assert case.references == ("a pier", "a lamp")
    assert evidence_of(data, "fairytaleqa", case.id) == ["A pier, long.", "A lamp."]


@pytest.mark.parametrize(
    ("split", "case_id", "evidence"),
    [
        ("musique", "2hop__1", ["Pier. It has a lamp.", "Lamp. Ada Quill keeps it."]),
        ("hotpot", "5a7f", ["Pier. Built in 1871.", "Lamp. Bright. Lit in 1880."]),
        ("2wikimultihop", "b088", ["Pier. Built in 1871.", "Lamp. Bright. Lit in 1880."]),
    ],
)
def test_multihop_evidence_is_the_supporting_paragraphs(
    data: Path, split: str, case_id: str, evidence: list[str]
) -> None:
    assert evidence_of(data, "multihop", case_id, split) == evidence
    assert len(of(data, "multihop", split)) == 1


def test_pages_that_count_from_zero_are_found(data: Path) -> None:
    assert evidence_of(data, "ohr_bench", "a1") == ["Second."]
    assert evidence_of(data, "financebench", "f1") == ["Revenue was 20.", "Costs were 4.26."]
    assert cases_of(data, "financebench")["f1"].references == ("24.26",)


def test_qmsum_turns_are_pages(data: Path) -> None:
    assert evidence_of(data, "qmsum", "1/1") == ["B: Red.", "A: Yes."]
    assert evidence_of(data, "qmsum", "1/2") == []


def test_loogle_evidence_is_quoted_and_a_cloze_is_a_question_for_each_gap(data: Path) -> None:
    assert evidence_of(data, "loogle", "Pier/1") == ["The keeper is Ada Quill."]
    assert evidence_of(data, "loogle", "Pier/2") == ["The pier was built in 1871."]
    gaps = cases_of(data, "loogle", "shortdep_cloze")
    assert [case.references for case in gaps.values()] == [("Ada",), ("1871",)]
    assert "<mask-1>" in gaps["Pier/1<mask-1>"].question


def test_lost_in_the_middle_has_keys_and_passages_twenty_together(data: Path) -> None:
    assert evidence_of(data, "lost_in_the_middle", "pairs 1", "kv") == ["k2: v2"]
    assert [len(reading.cases) for reading in of(data, "lost_in_the_middle")] == [20, 1]
    assert evidence_of(data, "lost_in_the_middle", "1/2") == ["Ada. Ada 1 is 1."]


@pytest.mark.parametrize("task", ["qa1", "qa19"])
def test_babi_asks_of_what_stands_before(data: Path, task: str) -> None:
    first, second = of(data, "babi", task)
    assert [page.span.of(first.document().text).strip() for page in first.document().pages] == [
        "Mary got the milk.",
        "John left.",
    ]
    assert evidence_of(data, "babi", first.cases[0].id, task) == ["Mary got the milk."]
    assert second.document().text == "Ada sat."
    assert second.cases[0].references == ("Ada, Bo",)
    assert second.cases[0].several


def test_tatqa_joins_eight_extracts_and_scales_figures(data: Path) -> None:
    first, second = of(data, "tatqa")
    assert (len(first.document().pages), len(second.document().pages)) == (24, 3)
    span, several, computed = second.cases
    assert span.references == ("$10.5", "$10.5 million")
    assert several.references == ("piers, lamps",)
    assert several.several
    document = second.document()
    assert [one.of(document.text).strip() for one in span.evidence(document)] == ["2019\nSales $ 10.5"]
    assert [one.of(document.text).strip() for one in computed.evidence(document)] == [
        "In millions.",
        "2019\nSales $ 10.5",
    ]


def test_what_is_missing_or_broken_is_one_line(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        EvaluationError, match=r"dev-v1\.1\.json is not there: squad is questions about .* put its files"
    ):
        of(tmp_path, "squad")
    with pytest.raises(EvaluationError, match="squad has no split 'v3'; it has"):
        of(data, "squad", "v3")
    with pytest.raises(EvaluationError, match="there is no set 'squat'"):
        set_named("squat")
    (tmp_path / "policyqa").mkdir()
    (tmp_path / "policyqa" / "dev.json.gz").write_bytes(b"no gzip")
    with pytest.raises(EvaluationError, match="its files are not as policyqa has them"):
        of(tmp_path, "policyqa")
    (tmp_path / "tatqa").mkdir()
    (tmp_path / "tatqa" / "tatqa_dataset_dev.json").write_text(json.dumps([{"table": {}}]), encoding="utf-8")
    with pytest.raises(EvaluationError, match="its files are not as tatqa has them"):
        of(tmp_path, "tatqa")


def test_the_list_tells_what_is_here(data: Path, tmp_path: Path) -> None:
    by_name = {one.name: one for one in listed(data)}
    assert by_name["squad"].questions == {"v2.0-article": 3, "v2.0": 3, "v1.1-article": 3, "v1.1": 3}
    assert "questions: all 2 (Apache-2.0)" in by_name["covid_qa"].line()
    make_only = tmp_path / "covid_qa"
    make_only.mkdir()
    assert all("not here" in one.line() for one in listed(tmp_path))


def test_the_parts_are_those_the_reader_was_trained_by() -> None:
    names = [f"covid {number}" for number in range(96)]
    parts = [part_of("covid_qa", name) for name in names]
    assert (parts.count("train"), parts.count("tune"), parts.count("test")) == (77, 4, 15)
