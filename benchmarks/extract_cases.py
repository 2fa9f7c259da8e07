"""Fields with known values over real documents, from the public sets of ../shared/data or $LCDOC_DATA.

`tables`: cells of the tables in eight extracts of filings (tatqa), by their row's label and their column's year.
`questions`: questions of squad v2, tatqa, policyqa and covid_qa whose answer is a number, a date or a short name, the
question being the field's description. `covers`: the cover pages of twelve filings (financebench, PDF), read by hand.
An absent field is one of another document of its set, or a question that squad v2 has as unanswerable.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lcdoc.agents.extract_dates import date_of
from lcdoc.agents.extract_fields import Field, Scalar
from lcdoc.agents.extract_numbers import figures_in, number_of, plain_number
from lcdoc.agents.folding import fold
from lcdoc.agents.stems import stems_of
from lcdoc.benchmarks.reader_cases import DATA, covid_qa, policyqa, squad, tatqa
from lcdoc.documents import Document, load

ABSENT_SHARE = 0.3
"""Absent fields, for each that has a value."""
FIELDS_PER_DOCUMENT = 8
_NAME_WORDS = 5
_YEAR = re.compile(r"(?:19|20)\d\d")

COVERS: dict[str, dict[str, str]] = {
    "ACTIVISIONBLIZZARD_2019_10K": {
        "registrant": "Activision Blizzard, Inc.",
        "state": "Delaware",
        "file number": "1-15839",
        "employer": "95-4803544",
        "telephone": "(310) 255-2000",
        "ended": "2019-12-31",
    },
    "AMAZON_2017_10K": {
        "registrant": "Amazon.com, Inc.",
        "state": "Delaware",
        "file number": "000-22513",
        "employer": "91-1646860",
        "telephone": "(206) 266-1000",
        "ended": "2017-12-31",
    },
    "AMCOR_2022_8K_dated-2022-07-01": {
        "registrant": "Amcor plc",
        "state": "Jersey",
        "file number": "001-38932",
        "employer": "98-1455367",
        "telephone": "+44 117 9753200",
    },
    "AMCOR_2023_10K": {
        "registrant": "Amcor plc",
        "state": "Jersey",
        "file number": "001-38932",
        "employer": "98-1455367",
        "telephone": "+44 117 9753200",
        "ended": "2023-06-30",
    },
    "BESTBUY_2023_10K": {
        "registrant": "Best Buy Co., Inc.",
        "state": "Minnesota",
        "file number": "1-9595",
        "employer": "41-0907483",
        "telephone": "(612) 291-1000",
        "ended": "2023-01-28",
    },
    "BESTBUY_2024Q2_10Q": {
        "registrant": "Best Buy Co., Inc.",
        "state": "Minnesota",
        "file number": "1-9595",
        "employer": "41-0907483",
        "telephone": "(612) 291-1000",
    },
    "BOEING_2022_10K": {
        "registrant": "The Boeing Company",
        "state": "Delaware",
        "file number": "1-442",
        "employer": "91-0425694",
        "telephone": "(703)-414-6338",
        "ended": "2022-12-31",
    },
    "COCACOLA_2017_10K": {
        "state": "Delaware",
        "file number": "001-02217",
        "employer": "58-0628465",
        "telephone": "(404) 676-2121",
        "ended": "2017-12-31",
    },
    "FOOTLOCKER_2022_8K_dated-2022-05-20": {
        "registrant": "Foot Locker, Inc.",
        "state": "New York",
        "file number": "1-10299",
        "employer": "13-3513936",
        "telephone": "(212) 720-3700",
    },
    "FOOTLOCKER_2022_8K_dated_2022-08-19": {
        "registrant": "Foot Locker, Inc.",
        "state": "New York",
        "file number": "1-10299",
        "employer": "13-3513936",
        "telephone": "(212) 720-3700",
    },
    "GENERALMILLS_2020_10K": {
        "registrant": "General Mills, Inc.",
        "state": "Delaware",
        "file number": "001-01185",
        "employer": "41-0274440",
        "telephone": "(763) 764-7600",
        "ended": "2020-05-31",
    },
    "WALMART_2020_10K": {
        "registrant": "Walmart Inc.",
        "state": "DE",
        "file number": "001-6991",
        "employer": "71-0415188",
        "telephone": "(479) 273-4000",
        "ended": "2020-01-31",
    },
}
COVER_SCHEMA: dict[str, Any] = {
    "registrant": {"title": "name of registrant", "description": "its exact name"},
    "state": {"title": "state of incorporation"},
    "file number": {"title": "commission file number"},
    "employer": {"title": "employer identification number"},
    "telephone": {"title": "telephone number", "description": "of the registrant"},
    "ended": {"title": "fiscal year end", "description": "last day of the fiscal year ended", "format": "date"},
}


@dataclass(frozen=True)
class FieldCase:
    """A field put to a document. `gold` is None for one that the document does not have."""

    dataset: str
    document: Document
    field: Field
    gold: Scalar | None

    @property
    def held_out(self) -> bool:
        """Whether the case is kept from fitting: documents are on one side or the other."""
        return sum(self.document.source.path.encode()) % 2 == 1


def tables() -> Iterator[FieldCase]:
    """Cells under years, of rows whose label the document has once."""
    extracts = json.loads((DATA / "tatqa/tatqa_dataset_dev.json").read_bytes())
    for start, (document, _) in zip(range(0, len(extracts), 8), tatqa(), strict=True):
        found: list[tuple[str, str, str]] = []
        labels: Counter[str] = Counter()
        for extract in extracts[start : start + 8]:
            rows = extract["table"]["table"]
            years = next((row for row in rows if sum(bool(_YEAR.fullmatch(cell.strip())) for cell in row) > 1), None)
            for row in rows:
                labels[row[0].strip().lower()] += 1
                if years is not None and len(row[0].split()) > 1:
                    cells = zip(years, row, strict=False)
                    found += [
                        (row[0].strip(), year.strip(), cell) for year, cell in cells if _YEAR.fullmatch(year.strip())
                    ]
        for label, year, cell in found:
            number = number_of(cell)
            if labels[label.lower()] == 1 and number is not None:
                field = Field(("value",), "number", label, f"in {year}")
                yield FieldCase("tables", document, field, plain_number(number))


def questions() -> Iterator[FieldCase]:
    """Questions whose answer is one value; several golds of tatqa are the figures that are to be computed with."""
    for name, read in (("squad", squad), ("tatqa", tatqa), ("policyqa", policyqa), ("covid_qa", covid_qa)):
        for document, asked in read():
            for question, golds, kind in asked:
                if kind == "adversarial":
                    yield FieldCase(name, document, Field(("value",), "text", "value", question), None)
                elif (len(golds) == 1 or name != "tatqa") and (typed := _typed(golds)) is not None:
                    field = Field(("value",), typed[0], "value", question)
                    yield FieldCase(name, document, field, typed[1])


def _typed(golds: tuple[str, ...]) -> tuple[Any, Scalar] | None:
    """The kind and value of an answer; None for one that is a sentence, or several things."""
    shortest = min(golds, key=len).strip()
    day = date_of(shortest)
    if day is not None and len(shortest) <= 24:
        return "date", day.isoformat()
    figures = figures_in(shortest)
    if len(figures) == 1 and figures[0].end - figures[0].start >= len(shortest) - 8 and not _YEAR.fullmatch(shortest):
        return "number", plain_number(figures[0].value)
    if not any(c.isdigit() for c in shortest) and shortest[:1].isupper() and len(shortest.split()) <= _NAME_WORDS:
        return "text", shortest
    return None


def covers() -> Iterator[FieldCase]:
    """What stands on the first page of filings."""
    from lcdoc.workflows.extract_schema_reading import schema_of

    fields = {one.path[0]: one for one in schema_of(COVER_SCHEMA).scalars}
    for name, values in COVERS.items():
        path = DATA / "financebench/pdfs" / f"{name}.pdf"
        document = load(path)
        for wanted, field in fields.items():
            yield FieldCase("covers", document, field, values.get(wanted))


def chosen(cases: list[FieldCase], most: int, seed: int = 7) -> list[FieldCase]:
    """At most so many cases, of few documents, and absent ones that are fields of others of these documents."""
    rng = random.Random(seed)
    by_document: dict[str, list[FieldCase]] = {}
    for case in cases:
        by_document.setdefault(case.document.id, []).append(case)
    groups = list(by_document.values())
    rng.shuffle(groups)
    present: list[FieldCase] = []
    absent: list[FieldCase] = []
    for group in groups:
        if len(present) >= most:
            break
        rng.shuffle(group)
        present += [case for case in group if case.gold is not None][:FIELDS_PER_DOCUMENT]
        absent += [case for case in group if case.gold is None][: int(ABSENT_SHARE * FIELDS_PER_DOCUMENT)]
    documents = list({case.document.id: case.document for case in present}.values())
    while len(absent) < ABSENT_SHARE * len(present) and len(documents) > 1:
        case, other = rng.choice(present), rng.choice(documents)
        if other.id != case.document.id and not set(stems_of(case.field.query)) <= set(stems_of(other.text)):
            absent.append(FieldCase(case.dataset, other, case.field, None))
    return [*present, *absent]


def is_right(case: FieldCase, value: Scalar) -> bool:
    """Whether a value is the known one: the same number or day; of texts, the same words or one in the other."""
    if case.gold is None:
        return False
    if isinstance(case.gold, str) and case.field.kind == "text":
        one, other = fold(str(value)), fold(case.gold)
        words, gold = set(stems_of(str(value))), set(stems_of(case.gold))
        return one == other or (bool(words and gold) and (words <= gold or gold <= words))
    return value == case.gold
