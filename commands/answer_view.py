"""How an answer is shown, whatever kind it is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lcdoc.screen import Screen
    from lcdoc.workflows.answer import Answer


def show_answer(screen: Screen, answer: Answer) -> None:
    """The answer on standard output, in the view of its kind."""
    from lcdoc.commands.extract_view import show_extraction
    from lcdoc.commands.summary_view import show_summary
    from lcdoc.workflows.extract_answer import ExtractAnswer
    from lcdoc.workflows.summary_answer import SummaryAnswer

    if isinstance(answer, SummaryAnswer):
        show_summary(screen, answer)
    elif isinstance(answer, ExtractAnswer):
        show_extraction(screen, answer)
    else:
        screen.answer(answer)
