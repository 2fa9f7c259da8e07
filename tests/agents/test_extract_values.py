"""Numbers, dates, times and names as documents write them, made values, and held against quotes."""

from datetime import date, time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcdoc.agents.extract_dates import date_of, dates_in, time_of, writes_day_first
from lcdoc.agents.extract_fields import Bounds, Field, Kind, words_of
from lcdoc.agents.extract_findings import Extraction, Finding
from lcdoc.agents.extract_numbers import figures_in, number_of, scale_wanted, writes_decimal_comma
from lcdoc.agents.extract_values import Habits, as_it_stands, coerced, same_value, shown_by
from lcdoc.agents.quotes import Citation, check_quote
from lcdoc.documents import Document, Page, Source


def field(kind: Kind = "text", **options: object) -> Field:
    return Field(("value",), kind, **options)  # type: ignore[arg-type]


# Numbers


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("1.250,00", "1250"),
        ("1,250.00", "1250"),
        ("1'250.50", "1250.50"),
        ("1 250,5", "1250.5"),
        ("12,34,567", "1234567"),
        ("EUR 1.250.000", "1250000"),
        ("0.125", "0.125"),
        ("0,125", "0.125"),
        ("1,250", "1250"),
        ("1.2345", "1.2345"),
        ("$3.5 million", "3500000"),
        ("US$5bn", "5000000000"),
        ("3,2 Mrd. Euro", "3200000000"),
        ("$5.2m", "5200000"),
        ("5 m", "5"),
        ("(5,308)", "-5308"),
        ("-12.5 %", "-12.5"),
        ("\u221212", "-12"),
        ("twelve", "12"),
        ("forty-two", "42"),
        ("one hundred and twenty", "120"),
        ("two million", "2000000"),
        ("thirty (30) days", "30"),
        ("minus 5", "-5"),
        ("1½ years", "1.5"),
        ("two and a half", "2.5"),
        ("3-5 rooms", None),
        ("between 3 and 5", None),
        ("v1.2.3", None),
        ("none", None),
        ("9" * 50, None),
    ],
)
def test_a_number_is_read_whatever_way_it_is_written(said: str, number: str | None) -> None:
    assert number_of(said) == (None if number is None else Decimal(number))


def test_a_mark_that_may_be_either_is_what_the_document_makes_of_it() -> None:
    (figure,) = figures_in("1.250")
    assert set(figure.values) == {Decimal("1.250"), Decimal(1250)}
    assert number_of("1.250", decimal_comma=True) == 1250
    assert number_of("1.250", decimal_comma=False) == Decimal("1.25")
    assert number_of("1,250", decimal_comma=True) == Decimal("1.25")
    assert writes_decimal_comma("Miete 1.250,00 Euro, Kaution 2,5 Mieten") is True
    assert writes_decimal_comma("rent of 1,250.00, or 2.5 rents") is False
    assert writes_decimal_comma("12 apostles") is None


def test_a_field_in_millions_takes_millions_as_its_unit() -> None:
    assert scale_wanted("revenue in USD millions") == 6
    assert scale_wanted("revenue (thousands)") == 3
    assert scale_wanted("revenue in million EUR") == scale_wanted("costs, EUR m") == 6
    assert scale_wanted("number of people") == scale_wanted("length in m") == 0
    millions = field("number", description="revenue, in USD millions")
    assert coerced(millions, "$14,694 million") == 14694
    assert coerced(millions, "14,694") == 14694
    assert coerced(millions, "$1.2 billion") == 1200
    assert shown_by(millions, 14694, "Net sales of $14,694 million") == "stated"
    assert shown_by(field("number"), 14694, "Net sales of $14,694 million") == "no"
    assert shown_by(field("number"), 14694000000, "Net sales of $14,694 million") == "stated"


def test_the_dash_of_a_range_is_no_sign() -> None:
    assert [str(figure.value) for figure in figures_in("delivery takes 10 - 20 days, at - 5 degrees")] == [
        "10",
        "20",
        "-5",
    ]


@pytest.mark.parametrize(
    ("value", "quote", "shown"),
    [
        ("permitted", "Smoking is not permitted here", "no"),
        ("is permitted", "Smoking shall never be permitted", "no"),
        ("not permitted", "Smoking is permitted", "no"),
        ("permitted", "Pets are permitted, smoking is not permitted", "stated"),
        ("not later than 5 May", "not later than 5 May", "stated"),
        ("rent due monthly", "The tenant may not sublet. The rent is due monthly.", "stated"),
        ("12 High Street", "at No 12 High Street", "stated"),
        ("123", "Account 12345", "no"),
        ("5", "version 5.5", "no"),
        ("Anna", "Annabelle Lee", "no"),
        ("information", "infor-\nmation", "stated"),
        ("東京", "住所は東京都です", "stated"),
    ],
)
def test_a_text_stands_in_its_quote_as_whole_words_that_nothing_denies(value: str, quote: str, shown: str) -> None:
    assert shown_by(field(), value, quote) == shown


@given(st.integers(-(10**15), 10**15), st.integers(0, 2), st.sampled_from(["en", "de", "ch", "fr"]))
def test_a_number_comes_back_from_every_country(units: int, places: int, country: str) -> None:
    number = Decimal(units).scaleb(-places)
    thousands, decimal = {"en": ",.", "de": ".,", "ch": "'.", "fr": "\u202f,"}[country]
    plain = f"{abs(number):,.{places}f}".replace(",", "T").replace(".", decimal).replace("T", thousands)
    text = f"the sum of {'-' if number < 0 else ''}{plain} due"
    figures = figures_in(text, decimal_comma=decimal == ",")
    assert [figure.value for figure in figures] == [number]


# Dates and times


@pytest.mark.parametrize(
    "said",
    [
        *("3 March 2021", "March 3, 2021", "Mar. 3rd 2021", "the 3rd day of March, 2021", "3rd of March 2021"),
        *("2021-03-03", "2021/3/3", "03.03.2021", "3. März 2021", "3 mars 2021", "3 de marzo de 2021", "3 maart 2021"),
        *("3 marzo 2021", "3-Mar-2021", "3/3/21", "3 MARCH '21"),
    ],
)
def test_a_date_is_read_whatever_way_it_is_written(said: str) -> None:
    assert date_of(f"signed {said} in Brackwater") == date(2021, 3, 3)


@pytest.mark.parametrize("said", ["March 2021", "30 February 2021", "13/13/2021", "2021", "v. 1.2.21.3", ""])
def test_what_is_no_full_date_is_none(said: str) -> None:
    assert date_of(said) is None


def test_a_date_of_two_readings_is_one_only_where_the_document_tells() -> None:
    assert date_of("03/04/2021") is None
    assert date_of("03/04/2021", day_first=True) == date(2021, 4, 3)
    assert date_of("03/04/2021", day_first=False) == date(2021, 3, 4)
    assert {day for at in dates_in("03/04/2021") for day in at.days} == {date(2021, 4, 3), date(2021, 3, 4)}
    assert writes_day_first("on 13/04/2021 and 03/04/2021") is True
    assert writes_day_first("on 04/13/2021 and 03/04/2021") is False
    assert writes_day_first("on 03/04/2021") is None


@given(
    st.dates(date(1970, 1, 1), date(2069, 12, 31)), st.sampled_from(["%d %B %Y", "%B %d, %Y", "%Y-%m-%d", "%d.%m.%Y"])
)
def test_every_day_comes_back(day: date, form: str) -> None:
    assert date_of(day.strftime(form)) == day


@pytest.mark.parametrize(
    ("said", "clock"),
    [
        ("14:30", time(14, 30)),
        ("2.30 pm", time(14, 30)),
        ("12 a.m.", time(0)),
        ("14 Uhr", time(14)),
        ("14h30", time(14, 30)),
        ("at 9 am on 3.4.2021", time(9)),
        ("25:00", None),
        ("10.5", None),
        ("between 9:00 and 10:00", None),
    ],
)
def test_times_of_day(said: str, clock: time | None) -> None:
    assert time_of(said) == clock


# Values


@pytest.mark.parametrize(
    ("one", "said", "value"),
    [
        (field("integer"), "2.5", None),
        (field("integer"), "2.0", 2),
        (field("number", bounds=Bounds(minimum=0)), "-3", None),
        (field("number", bounds=Bounds(below=10)), "10", None),
        (field("number"), "not stated", None),
        (field("boolean"), "Yes.", True),
        (field("boolean"), "nein", False),
        (field("boolean"), "perhaps", None),
        (field("date-time"), "3 March 2021 at 2.30 pm", "2021-03-03T14:30:00"),
        (field("date-time"), "2021-03-03T14:30:00", "2021-03-03T14:30:00"),
        (field("date-time"), "3 March 2021", None),
        (field("email"), "write to mara@lind.example.", "mara@lind.example"),
        (field("uri"), "see https://lind.example/x, or not", "https://lind.example/x"),
        (field(enum=("office", "flat")), "Office", "office"),
        (field(enum=("office", "flat")), "a castle", None),
        (field("integer", enum=(1, 2)), "two", 2),
        (field(bounds=Bounds(longest=3)), "long", None),
        (field(), "  Mara\n Lind ", "Mara Lind"),
        (field(), "not mentioned", None),
        (field(), "x" * 5_000, None),
    ],
)
def test_what_is_said_becomes_a_value_of_its_kind(one: Field, said: str, value: object) -> None:
    got = coerced(one, said)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("one", "value", "quoted", "shown"),
    [
        (field("number"), 1250, "Rent: EUR 1.250,00", "stated"),
        (field("number"), 1.25, "Rent: EUR 1.250,00", "no"),
        (field("number"), 1250000, "about 1.25 million", "stated"),
        (field("number"), 3, "three keepers", "stated"),
        (field("number"), 3, "30 keepers", "no"),
        (field("date"), "2021-03-03", "on the 3rd day of March, 2021", "stated"),
        (field("date"), "2021-03-03", "in March 2021", "no"),
        (field("date-time"), "2021-03-03T14:30:00", "on 3 March 2021", "no"),
        (field("time"), "14:30:00", "at 2.30 pm", "stated"),
        (field(), "Lind, Mara", "Mara Lind kept it", "stated"),
        (field(), "Mara Lund", "Mara Lind kept it", "no"),
        (field(), "Mara Lind of Brackwater", "Mara Lind kept it", "no"),
        (field(), "the light was kept by Mara Lind until the last boat sank", "Mara Lind kept the light", "no"),
        (field(), "clause 12", "clause 13", "no"),
        (field("boolean"), True, "Pets are welcome", "inferred"),
        (field(enum=("office", "flat")), "office", "used as an office", "stated"),
        (field(enum=("office", "flat")), "flat", "to live in", "inferred"),
        (field("email"), "a@b.org", "mail A@B.org", "stated"),
    ],
)
def test_a_value_stands_in_its_quote_or_does_not(one: Field, value: str | float, quoted: str, shown: str) -> None:
    assert shown_by(one, value, quoted, Habits()) == shown


def test_a_text_is_taken_as_the_source_writes_it() -> None:
    assert as_it_stands("ACME corp", 'between Acme Corp. (the "Buyer")') == "Acme Corp"
    assert as_it_stands("Lind, Mara", "Mara Lind") == "Lind, Mara"


def test_equal_values_are_one() -> None:
    assert same_value(field(), "Mara Lind", "lind, mara")
    assert same_value(field(), "Jonas Aas", "Jonas Aas GmbH")
    assert not same_value(field(), "Mara Lind", "Mara Aas")
    assert not same_value(field("number"), 1, 2)


def test_names_of_programs_are_words() -> None:
    assert words_of("rentPerMonth") == words_of("rent_per_month") == words_of("rent-per-month") == "rent per month"


# Findings in notes


def cited(text: str, quote: str) -> Citation:
    source = Source("lease.txt", "text/plain", len(text), "", "text", "1", "0" * 32)
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), source)
    citation = check_quote(document, quote)
    assert citation is not None
    return citation


def test_findings_come_back_from_a_note() -> None:
    one, other = cited("Rent: 5\nDue: May", "Rent: 5"), cited("Rent: 5\nDue: May", "Due: May")
    extraction = Extraction(
        (
            Finding(("lease", "rent"), 5, (one, other), 4.0),
            Finding(("payments",), {"due": None, "amount": 5}, (one,), 3.0),
            Finding(("fax",), None, refused="a\nline"),
            Finding(("pets",), False, (other,), 2.5),
            Finding(("kind",), "two\nlines", (other,), 2.5),
        ),
        dropped=2,
    )
    note = extraction.as_note()
    assert Extraction.of(note.model_validate(note.model_dump(mode="json"))) == extraction
    assert note.claim.splitlines()[0] == "lease.rent: 5; payments: amount 5; pets: no; kind: two lines"
    nothing = Extraction().as_note()
    assert (nothing.found, Extraction.of(nothing)) == (False, Extraction())
