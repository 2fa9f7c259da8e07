"""`lcdoc ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lcdoc.commands.guard import NOT_FOUND, guarded, usage_error
from lcdoc.commands.options import DebugOption, EmbedderOption, JsonOption, LibraryOption, PasswordOption, QuietOption


@guarded
def ask(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Files or folders; - is standard input.", show_default=False),
    ] = None,
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="In quotes, as the last word.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    boxes: Annotated[
        bool, typer.Option("--boxes", help="With --json: also where each quote stands on its PDF page.")
    ] = False,
    password: PasswordOption = None,
    embedder: EmbedderOption = "minilm",
    library: LibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Answer a question from files, with quotes and their pages.

    Reads PDF, EPUB, DOCX, HTML, Markdown and plain text, told apart by content. No key, no network, no download: the
    answer is made of sentences of the documents. Exit code 0: answered, 1: not found, 2: bad input, 130: interrupted.

    lcdoc ask contract.pdf "When does the lease end?"

    lcdoc ask reports/ "Which plant was closed?" --json
    """
    if question is None:
        raise usage_error('a file and a question are missing; try: lcdoc ask FILE "your question"')
    if not paths:
        # One word was given, and it was taken for the question.
        if question == "-" or Path(question).exists():
            raise usage_error(f'the question is missing; try: lcdoc ask {question} "your question"')
        raise usage_error('the file is missing; try: lcdoc ask FILE "your question"')
    if not question.strip():
        raise usage_error("the question is empty")
    from lcdoc.screen import Screen
    from lcdoc.workflows.workspace import Workspace

    with Screen(quiet=quiet) as screen, Workspace.open(library, embedder=embedder, background=False) as workspace:
        documents = workspace.read(paths, password=password, on_event=screen.handle)
        answer = workspace.ask(question, documents, on_event=screen.handle)
        if as_json:
            screen.json(workspace.answer_json(answer, boxes=boxes, password=password))
        else:
            screen.answer(answer)
    if not answer.found:
        raise typer.Exit(NOT_FOUND)
