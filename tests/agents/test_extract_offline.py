"""Extraction without a model: labelled lines, captions, phrases of a kind near a field's words, printed tables."""

from collections.abc import Iterator

import pytest

from lcdoc.agents.evidence_ranking import rank_evidence
from lcdoc.agents.extract_fields import Field, Kind, Table
from lcdoc.agents.extract_findings import Finding
from lcdoc.agents.extract_labels import labelled
from lcdoc.agents.extract_offline import FEATURES, extracted, may_be_given, phrases_of
from lcdoc.agents.extract_rows import extracted_rows
from lcdoc.agents.extract_text_kinds import codes_in, text_kind
from lcdoc.agents.offline_reader import OfflineReader
from lcdoc.agents.questions import Question
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document, Page, Source, Span
from lcdoc.retrieval.embedders import load_embedder


@pytest.fixture(scope="module")
def reader() -> Iterator[OfflineReader]:
    yield OfflineReader(load_embedder())


def passage(text: str) -> Passage:
    source = Source("form.txt", "text/plain", len(text), "", "text", "1", "0" * 32)
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), source)
    return Passage(document, Span(0, len(text)))


def field(title: str, kind: Kind = "text", **options: object) -> Field:
    return Field(("value",), kind, title, **options)  # type: ignore[arg-type]


def values(found: tuple[Finding, ...]) -> list[object]:
    return [one.value for one in found]


@pytest.mark.parametrize(
    ("text", "one", "value"),
    [
        ("Rent: EUR 1.250,00 per month", field("rent", "number"), "EUR 1.250,00 per month"),
        ("**Tenant:** Mara Lind", field("tenant"), "Mara Lind"),
        ("Tenant\tMara Lind", field("tenant"), "Mara Lind"),
        ("| Start date | 1 May 2021 |", field("start date", "date"), "1 May 2021"),
        ("- Start of the lease: 1 May 2021", field("lease start", "date"), "1 May 2021"),
        ("Commission File Number 1-15839", field("commission file number"), "1-15839"),
        ("IBAN: DE12 5001 0517 0648 4898 90", field("iban"), "DE12 5001 0517 0648 4898 90"),
        ("File number 1-442 was given to the registrant in another year.", field("file number"), "1-442"),
        ("Commission File No. 1-15839, of 1993", field("file number"), None),
        ("Telephone number, including area code: (310) 255-2000", field("telephone number"), "(310) 255-2000"),
        ("Rent for the parking space: 80", field("rent", "number"), None),
        ("Deposit: 3750", field("rent", "number"), None),
        ("Tenant shall pay the rent on the first day of each month.", field("tenant"), None),
        ("Rent:", field("rent", "number"), None),
    ],
)
def test_a_label_like_the_field_s_gives_its_value(text: str, one: Field, value: str | None) -> None:
    whole = passage(f"A form\n\n{text}\n\nThat was all.")
    found = list(labelled(whole, one))
    assert [line.value for line in found] == ([] if value is None else [value])
    assert all(line.value in line.span.of(whole.document.body) for line in found)


def test_a_caption_stands_below_its_value() -> None:
    form = passage(
        "BRACKWATER FERRIES, INC.\n\n(Exact name of registrant)\n\nDelaware 95-4803544\n"
        "(State of incorporation) (Employer Identification No.)\n"
    )
    wanted = ("name of registrant", "state of incorporation", "employer identification number", "name of auditor")
    found = [[line.value for line in labelled(form, field(title))] for title in wanted]
    assert found == [["BRACKWATER FERRIES, INC."], ["Delaware"], ["95-4803544"], []]


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("tenant", "person"),
        ("file number", "code"),
        ("telephone", "code"),
        ("state of incorporation", "place"),
        ("summary", "other"),
    ],
)
def test_a_text_field_says_what_words_it_wants(title: str, kind: str) -> None:
    assert text_kind(field(title)) == kind


def test_codes_are_words_that_name_one_thing() -> None:
    text = "file 001-38932, VAT DE123456789, call +44 117 9753200 or (310) 255-2000, the old mill"
    assert [text[start:end] for start, end in codes_in(text)] == [
        "001-38932",
        "DE123456789",
        "+44 117 9753200",
        "(310) 255-2000",
    ]


TEXT = """\
The lease of the mill begins on 1 April 2021 and ends on 31 March 2026.

Mara Lind pays a monthly rent of EUR 1.250,00 for it. See section 12 of the annex of 1998.

Letters go to mara@lind.example. Nothing is said of boats.
"""


@pytest.mark.parametrize(
    ("one", "value"),
    [
        (field("lease begins", "date"), "2021-04-01"),
        (field("monthly rent", "number", description="in EUR"), 1250),
        (field("e-mail address for letters", "email"), "mara@lind.example"),
        (field("reactor pressure", "number", description="coolant pressure of the reactor in bar"), None),
    ],
)
def test_the_phrase_of_the_kind_near_the_words_is_taken(reader: OfflineReader, one: Field, value: object) -> None:
    found = extracted(reader, [passage(TEXT)], [one]).findings
    assert values(found) == ([] if value is None else [value])
    for finding in found:
        assert finding.citations[0].quote in " ".join(TEXT.split())
        assert 0 < finding.confidence <= 5


def test_years_and_references_are_no_numbers(reader: OfflineReader) -> None:
    whole, asked = [passage(TEXT)], field("annex of the monthly rent", "number")
    question = Question.of(asked.question)
    phrases = phrases_of(asked, question, whole, rank_evidence(question, whole, reader.embedder))
    assert {phrase.value for phrase in phrases} == {1250}


def test_yes_and_no_are_only_taken_where_they_are_said(reader: OfflineReader) -> None:
    form = [passage("Pets allowed: no\n\nSmoking is a pleasure that the landlord permits.")]
    pets, smoking = field("pets allowed", "boolean"), field("smoking allowed", "boolean")
    assert values(extracted(reader, form, [pets, smoking]).findings) == [False]


def test_a_value_of_an_enum_that_is_denied_is_not_given(reader: OfflineReader) -> None:
    one = field("smoking", enum=("permitted", "forbidden"))
    asked = Question.of(one.question)
    for said, value in (("Smoking is not permitted.", []), ("Smoking is permitted.", ["permitted"])):
        text = [passage(said)]
        phrases = phrases_of(one, asked, text, rank_evidence(asked, text, reader.embedder))
        assert [phrase.value for phrase in phrases] == value


def test_all_values_of_labels_are_given_for_many(reader: OfflineReader) -> None:
    form = [passage("Keeper: Mara Lind\n\nKeeper: Jonas Aas\n\nKeeper: Mara Lind")]
    found = extracted(reader, form, [field("keeper", many=True)]).findings
    assert values(found) == ["Mara Lind", "Jonas Aas"]


def test_rows_of_a_printed_table_are_told_by_its_header() -> None:
    table = Table(("payments",), (Field(("due",), "date", "due date"), Field(("amount",), "number")))
    text = (
        "| No. | Due date | Amount (EUR) |\n|---|---|---|\n| 1 | 01.04.2021 | 1.250,00 |\n| 2 | soon | 1.300,00 |\n\n"
        "Due date and amount may change.\n\n| Name | Age |\n|---|---|\n| Mara | 41 |\n"
    )
    found = extracted_rows([passage(text)], table).findings
    assert values(found) == [{"due": "2021-04-01", "amount": 1250}, {"due": None, "amount": 1300}]
    assert found[0].citations[0].quote == "1 | 01.04.2021 | 1.250,00"
    assert found[1].confidence < found[0].confidence


@pytest.mark.parametrize(
    ("kind", "measures", "may"),
    [
        ("number", {"row": 1.0, "cell": 1.0, "alone": 0.5}, True),
        ("number", {"row": 1.0, "cell": 0.0, "alone": 0.5}, False),
        ("number", {"row": 1.0, "cell": -0.5, "alone": 0.5}, False),
        ("number", {"row": 1.0, "cell": -0.5, "alone": 1.0}, True),
        ("number", {"alone": 0.2, "near": 0.1}, False),
        ("number", {"alone": 0.2, "near": 0.9}, True),
        ("text", {"near": 0.9, "fits": 1.0}, True),
        ("text", {"near": 0.1, "fits": 1.0}, False),
    ],
)
def test_what_is_ambiguous_is_not_given(kind: Kind, measures: dict[str, float], may: bool) -> None:
    assert may_be_given(kind, [measures.get(name, 0.0) for name in FEATURES]) is may
