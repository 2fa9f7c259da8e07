"""How a summary is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lcdoc.screen import Screen
    from lcdoc.workflows.summary_answer import SummaryAnswer


def show_summary(screen: Screen, answer: SummaryAnswer) -> None:
    """Paragraphs under their sections on standard output; what is missing and what it took on standard error."""
    from lcdoc.screen import model_text, shown, usage_text

    paragraphs: list[str] = []
    for section in answer.sections:
        if not section.claims:
            continue
        document = answer.document(section.document_id)
        title = section.title if len(answer.documents) == 1 else f"{document.name}: {section.title}"
        sentences = []
        for claim in (answer.claims[number] for number in section.claims):
            pages = sorted({page for citation in claim.citations for page in citation.pages})
            sentences.append(f"{claim.text} (p. {_ranges(pages)})" if document.pages > 1 else claim.text)
        paragraphs.append(f"{title}\n{' '.join(sentences)}\n")
    if paragraphs:
        screen.plain(shown("\n".join(paragraphs)))
    else:
        screen.plain("Nothing to summarise was found.")
    for warning in answer.warnings:
        screen.warn(shown(warning))
    covered = sum(section.covered for section in answer.sections)
    screen.say(f"{answer.words:,} words from {covered} of {len(answer.sections)} sections")
    if answer.uncovered:
        screen.say(shown(f"nothing about: {'; '.join(answer.uncovered)}"))
    how = "offline, by extraction (no language model)"
    if answer.model != "offline":
        how = f"{model_text(answer.model, answer.kv)}; {usage_text(answer.usage)}; run {answer.run_id}"
    screen.say(f"{how}; {answer.usage.seconds:.1f} s")


def _ranges(pages: list[int]) -> str:
    """`3, 7-9`."""
    runs: list[list[int]] = []
    for page in pages:
        if runs and page == runs[-1][-1] + 1:
            runs[-1].append(page)
        else:
            runs.append([page])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
