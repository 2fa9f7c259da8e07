"""A row's figure is found by the year that heads its column."""

from __future__ import annotations

import pytest

from lcdoc.agents.candidates import candidates_of
from lcdoc.agents.questions import Question
from lcdoc.agents.reader import Passage
from lcdoc.agents.table_cells import cell_of
from lcdoc.documents import Document, Page, Source, Span

TABLE = (
    "Year ended December 31,\n2019 2018 2017\nNet income $ 1,503 $ 1,848 $ 273\nDividends paid (283) (259) (226)\n"
    "Margin 4.5% 5.1 % 6%\nNotes due 2030 12 — 7\nOne figure 8 9"
)


@pytest.mark.parametrize(
    ("label", "question", "cell"),
    [
        ("Net income", "What was net income in 2018?", "$ 1,848"),
        ("Net income", "What was net income in fiscal 2017?", "$ 273"),
        ("Dividends", "What dividends were paid in 2019?", "(283)"),
        ("Margin", "What was the margin in 2018?", "5.1 %"),
        ("Notes", "What notes were there in 2018?", "—"),
        ("Notes", "What notes were there in 2019?", "12"),
        ("Net income", "How did net income change from 2018 to 2019?", None),
        ("Net income", "What was net income in 2016?", None),
        ("Net income", "What was net income?", None),
        ("One figure", "What was the one figure in 2018?", None),
    ],
)
def test_the_cell_under_the_year(label: str, question: str, cell: str | None) -> None:
    source = Source("report.txt", "text/plain", 0, "", "text", "1", "0" * 32)
    document = Document.create(TABLE, (Page(1, "1", 0, len(TABLE)),), (), source)
    rows = candidates_of([Passage(document, Span(0, len(TABLE)))])
    row = next(one for one in rows if label in one.text and one.header_stems)
    assert cell_of(row, Question.of(question)) == cell
