"""Plain text: encodings, hard wraps, broken words, pages and headings."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcdoc.documents import Document
from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.errors import CorruptFileError
from lcdoc.documents.numerals import letters, parse_number, roman
from lcdoc.documents.plain import join_lines, read
from lcdoc.documents.text import vocabulary

PROSE = "The rain fell in torrents, except at occasional intervals, when it was checked\nby a violent gust of wind.\n"


def document_of(text: str | bytes) -> Document:
    job = Job("book.txt", text if isinstance(text, bytes) else text.encode())
    builder = DocumentBuilder(job)
    read(job, builder)
    return builder.build(reader="test", reader_version="1", digest="")


def outline(text: str) -> list[tuple[int, str]]:
    return [(section.level, section.title) for section in document_of(text).sections]


def test_hard_wrapped_lines_stay_and_blank_lines_end_paragraphs() -> None:
    assert document_of("One line  \r\nand another.\r\n \r\n\r\n\r\n   Indented.\r\n").text == (
        "One line\nand another.\n\n   Indented."
    )


def test_a_text_with_long_lines_has_one_paragraph_to_a_line() -> None:
    line = "A whole paragraph on one line. " * 10
    assert document_of(f"{line}\n{line}\nShort.\n").text.count("\n\n") == 2


def test_words_broken_at_a_line_end_are_whole() -> None:
    broken = (
        "He went to the drawing-\nroom, where a dining-\ntable stood; un-\nhappily, no diningtable.\n\nA dash--\nso."
    )
    whole = "He went to the drawing-room,\nwhere a diningtable\nstood; un-happily,\nno diningtable.\n\nA dash--\nso."
    assert document_of(broken).text == whole


def test_a_hyphenated_compound_is_looked_up_whole() -> None:
    words = vocabulary(["a well-to-do man", "a breakdown"])
    assert join_lines(["a well-to-", "do man; break-", "down"], lambda: words) == ["a well-to-do", "man; breakdown"]


def test_form_feeds_begin_pages() -> None:
    document = document_of("First page,\nno end\f of the sentence.\n\n\fThird.\n\f\n")
    assert document.text == "First page,\nno end\n of the sentence.\n\nThird."
    assert [page.span.of(document.text) for page in document.pages] == [
        "First page,\nno end\n",
        " of the sentence.\n\n",
        "Third.",
    ]


GUTENBERG = f"""The Project Gutenberg EBook of A Book, by Nobody

Title: A Book
       of Two Lines

*** START OF THIS PROJECT GUTENBERG EBOOK A BOOK ***


A BOOK


By Nobody in Particular


    CONTENTS

    PREFACE

    BOOK ONE: 1805

    CHAPTER I

    CHAPTER II

    BOOK TWO

    CHAPTER I


PREFACE

{PROSE}

BOOK ONE: 1805

CHAPTER I

{PROSE}

CHAPTER II

THE SHADES OF ALADDIN

{PROSE}
"Chapter five is the one," he said.

CHAPTER HOUSE

{PROSE}

BOOK TWO


CHAPTER I

{PROSE}

THE END

*** END OF THIS PROJECT GUTENBERG EBOOK A BOOK ***

Section 1.  General Terms

{PROSE}
"""


def test_a_book_has_its_parts_and_chapters_and_not_its_table_of_contents() -> None:
    document = document_of(GUTENBERG)
    assert document.source.title == "A Book of Two Lines"
    assert [(s.level, s.title) for s in document.sections] == [
        (1, "A BOOK"),
        (1, "PREFACE"),
        (1, "BOOK ONE: 1805"),
        (2, "CHAPTER I"),
        (2, "CHAPTER II THE SHADES OF ALADDIN"),
        (1, "BOOK TWO"),
        (2, "CHAPTER I"),
        (1, "END OF THIS PROJECT GUTENBERG EBOOK A BOOK"),
    ]
    chapter = document.sections[3]
    assert chapter.span.of(document.text).startswith("CHAPTER I\n\nThe rain fell")
    assert "CONTENTS" in document.text


def test_lone_roman_numerals_count_only_in_sequence() -> None:
    book = "".join(f"{numeral}\n\nThe Machine\n\n{PROSE}\n" for numeral in ("I", "II", "III"))
    assert outline(book) == [(1, "I The Machine"), (1, "II The Machine"), (1, "III The Machine")]
    assert outline(f"{PROSE}\nI\n\n{PROSE}\nC.\n\n{PROSE}") == []


def test_numbered_headings_of_a_report() -> None:
    report = "".join(
        f"{title}\n\n{PROSE}\n"
        for title in ("1. Introduction", "2. Methods", "2.1 Sample", "2.2 Measures", "3. Results")
    )
    assert outline(report) == [
        (1, "1. Introduction"),
        (1, "2. Methods"),
        (2, "2.1 Sample"),
        (2, "2.2 Measures"),
        (1, "3. Results"),
    ]


def test_capitals_are_headings_where_there_are_no_chapters_but_not_speakers() -> None:
    assert outline(f"SUMMARY OF FINDINGS\n\n{PROSE}\nNEXT STEPS\n\n{PROSE}") == [
        (1, "SUMMARY OF FINDINGS"),
        (1, "NEXT STEPS"),
    ]
    assert outline("".join(f"HAMLET.\n\n{PROSE}\nOPHELIA.\n\n{PROSE}\n" for _ in range(3))) == []


@pytest.mark.parametrize(
    "line", ["Part of the reason was money.", "Chapter five is long.", "Act now!", "Book him, Danno."]
)
def test_sentences_that_begin_like_headings_are_none(line: str) -> None:
    assert outline(f"{PROSE}\n{line}\n\n{PROSE}") == []


def test_other_chapter_styles() -> None:
    styles = [
        "Chapter Twenty-One",
        "CHAPTER 2.",
        "Chapter 3 -- The Return",
        "Kapitel 4",
        "STAVE FIVE",
        "Letter 6: To My Sister",
    ]
    book = "".join(f"{style}\n\n{PROSE}\n" for style in styles)
    assert outline(book) == [(1, style) for style in styles]


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(CorruptFileError, match="not text"):
        document_of(bytes(range(256)) * 20)


def test_a_guessed_encoding_is_said_to_be_one() -> None:
    document = document_of("Les élèves n’ont pas reçu l’œuvre.".encode("cp1252"))
    assert document.text == "Les élèves n’ont pas reçu l’œuvre."
    assert "windows-1252" in document.source.warnings[0]
    assert document_of("Les élèves".encode()).source.warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "ab-\n" * 60_000,
        "a" * 400_000 + "-\n" + "b" * 400_000,
        "I\n\n" * 40_000,
        "CHAPTER I\n\n" * 40_000,
        "A LINE\n\n\n" * 40_000,
        "\n" * 500_000 + "x",
        " " * 500_000 + "x",
        "\f" * 10_000 + "x",
        "1.1 " * 100_000,
    ],
)
def test_hostile_text_is_read_in_linear_time(text: str) -> None:
    start = time.perf_counter()
    document_of(text)
    assert time.perf_counter() - start < 5


@given(st.integers(1, 3999))
def test_roman_numerals_round_trip(number: int) -> None:
    assert parse_number(roman(number)) == number
    assert parse_number(roman(number).lower()) == number


def test_other_numbers() -> None:
    assert [parse_number(text) for text in ("12", "twelve", "Twenty-one", "fourteenth", "Mix", "of", "")] == [
        12,
        12,
        21,
        14,
        None,
        None,
        None,
    ]
    assert [letters(number) for number in (1, 26, 27, 781)] == ["A", "Z", "AA", "781"]


@given(st.lists(st.text(alphabet="ab-CI. \n\f", max_size=30), max_size=20))
def test_no_letter_is_lost(pieces: list[str]) -> None:
    text = "".join(pieces) + "\nend"
    document = document_of(text)
    assert "".join(filter(str.isalpha, document.text)) == "".join(filter(str.isalpha, text))
    assert [page.start for page in document.pages[1:]] == [page.end for page in document.pages[:-1]]


def test_running_lines_of_printed_text_are_marked_and_not_headings() -> None:
    pages = [
        f"RFC 3501   IMAP   March 2003\n\n\n{number}.  A TITLE\n\n{PROSE}\nCrispin   Standards   [Page {number}]\n"
        for number in range(1, 6)
    ]
    document = document_of("\f".join(pages))
    assert len(document.pages) == 5
    assert [mark.kind for mark in document.marks] == ["header", "footer"] * 5
    assert document.marks[3].span.of(document.text) == "Crispin   Standards   [Page 2]"
    assert "RFC" not in document.body
    assert [section.title for section in document.sections] == [
        f"{number}.  A TITLE".replace("  ", " ") for number in range(1, 6)
    ]


def test_underlined_titles_are_the_outline_where_there_are_any() -> None:
    text = f"""The Manual
**********

How to Use It
=============
{PROSE}
1.1 Scope
---------

{PROSE}
No.   Subject
----  -------
1     CAPITALS

CHAPTER I

{PROSE}
Terms
=====

{PROSE}"""
    document = document_of(text)
    assert [(s.level, s.title) for s in document.sections] == [
        (1, "The Manual"),
        (2, "How to Use It"),
        (3, "1.1 Scope"),
        (2, "Terms"),
    ]
    assert document.sections[2].span.of(document.text).startswith("1.1 Scope\n---------\n\nThe rain")
