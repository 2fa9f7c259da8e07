"""The sample handbook through the PDF reader: every fact that questions ask for is whole, and on its page."""

import json
import re
from pathlib import Path

import pytest

import lcdoc
from lcdoc.documents import Span, load

EXAMPLES = Path(lcdoc.__file__).parent / "examples"
QUESTIONS = [
    question
    for question in json.loads((EXAMPLES / "questions.json").read_text(encoding="utf-8"))["questions"]
    if question["answer"]
]


def folded(text: str) -> str:
    text = text.replace("\u2019", "'").replace("\u201c", '"').replace("\u201d", '"')
    return re.sub(r"\s+", " ", text)


@pytest.fixture(scope="module")
def handbook():
    return load(EXAMPLES / "handbook.pdf")


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: f"{question['id']}-{question['kind']}")
def test_the_evidence_is_whole_and_on_its_page(handbook, question):
    page = handbook.pages[question["page"] - 1]
    assert page.label == question["label"]
    words = r"\W+".join(map(re.escape, re.findall(r"\w+", question["evidence"])))
    match = re.search(words, handbook.body)
    assert match is not None
    touched = handbook.pages_of(Span(*match.span()))
    # A word broken over a page end is whole on the first page, so evidence may end a page early.
    pages = [(page["page"], page["label"]) for page in question["evidence_pages"]]
    assert [(page.number, page.label) for page in touched] in (pages, pages[:1])


def test_sections_begin_with_their_titles(handbook):
    for section in handbook.sections:
        assert folded(section.span.of(handbook.text))[: len(section.title)] == folded(section.title)


def test_every_page_says_its_label_in_its_footer(handbook):
    for page in handbook.pages[2:]:
        here = [mark.span.of(handbook.text) for mark in handbook.marks if page.start <= mark.start < page.end]
        assert any(page.label in text.split() for text in here), page.number
