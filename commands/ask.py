"""`lcdoc ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lcdoc.commands.guard import NOT_FOUND, guarded, usage_error
from lcdoc.commands.options import (
    DebugOption,
    EmbedderOption,
    JsonOption,
    LibraryOption,
    MaxCallsOption,
    MaxCostOption,
    MaxSecondsOption,
    MaxTokensOption,
    ModelOption,
    NoCacheOption,
    PasswordOption,
    ProfileOption,
    QuietOption,
    RefreshOption,
)


@guarded
def ask(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Files or folders; - is standard input.", show_default=False),
    ] = None,
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="In quotes, as the last word.", show_default=False)
    ] = None,
    model: ModelOption = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Tell what it would take and cost; send nothing to the model.")
    ] = False,
    show_prompts: Annotated[
        bool, typer.Option("--show-prompts", help="Print what would be sent; send nothing to the model.")
    ] = False,
    max_cost: MaxCostOption = None,
    max_tokens: MaxTokensOption = None,
    max_calls: MaxCallsOption = None,
    max_seconds: MaxSecondsOption = None,
    no_cache: NoCacheOption = False,
    refresh: RefreshOption = False,
    profile: ProfileOption = None,
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

    Reads PDF, EPUB, DOCX, HTML, Markdown and plain text, told apart by content. Without --model the answer is made of
    sentences of the documents: no key, no network, no download. With it, a language model reads the best passages and
    answers; every quote it gives is checked against the source. Exit code 0: answered, 1: not found, 2: bad input,
    130: interrupted.

    lcdoc ask contract.pdf "When does the lease end?"

    lcdoc ask reports/ "Which plant was closed?" --json

    lcdoc ask book.pdf "Why did she leave?" --model http://127.0.0.1:8080/v1

    lcdoc ask book.pdf "Why did she leave?" --model openai/gpt-4.1-mini --max-cost 0.10
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
    if no_cache and refresh:
        raise usage_error("--no-cache and --refresh exclude each other: the first keeps nothing, the second replaces")
    from lcdoc.agents.models.budget import Budget
    from lcdoc.screen import Screen
    from lcdoc.workflows.workspace import Workspace

    with (
        Screen(quiet=quiet) as screen,
        Workspace.open(library, embedder=embedder, background=False, model=model) as workspace,
    ):
        documents = workspace.read(paths, password=password, on_event=screen.handle)
        if show_prompts or estimate:
            plan = workspace.plan(question, documents, profile=profile, on_event=screen.handle)
            if show_prompts:
                screen.prompts(plan)
            if estimate:
                screen.plan(plan, workspace.model)
            return
        answer = workspace.ask(
            question,
            documents,
            budget=Budget(usd=max_cost, tokens=max_tokens, calls=max_calls, seconds=max_seconds),
            store="off" if no_cache else "refresh" if refresh else "use",
            profile=profile,
            on_event=screen.handle,
        )
        if as_json:
            screen.json(workspace.answer_json(answer, boxes=boxes, password=password))
        else:
            screen.answer(answer)
    if not answer.found:
        raise typer.Exit(NOT_FOUND)
