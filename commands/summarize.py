"""`lcdoc summarize`."""

from __future__ import annotations

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
def summarize(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Files or folders; - is standard input.", show_default=False),
    ] = None,
    words: Annotated[int, typer.Option("--words", "-w", metavar="N", help="About how long, 20 to 20,000.")] = 300,
    focus: Annotated[
        str, typer.Option("--focus", "-f", metavar="TEXT", help="What it is to be about.", show_default=False)
    ] = "",
    model: ModelOption = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Tell what it would take and cost; send nothing to the model.")
    ] = False,
    max_cost: MaxCostOption = None,
    max_tokens: MaxTokensOption = None,
    max_calls: MaxCallsOption = None,
    max_seconds: MaxSecondsOption = None,
    no_cache: NoCacheOption = False,
    refresh: RefreshOption = False,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
    password: PasswordOption = None,
    embedder: EmbedderOption = "minilm",
    library: LibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Summarise files, section by section, each sentence with its page.

    Everything is read once; a summary of another length later is made of what was kept. Sentences have a quote that was
    found in the source; sections that no sentence is about are named. Without --model the summary is made of sentences
    of the documents. Exit code 0: summarised, 1: nothing found, 2: bad input, 130: interrupted.

    lcdoc summarize book.pdf

    lcdoc summarize report.pdf --words 1000 --focus "risks and what is done about them" --model openai/gpt-4.1-mini
    """
    from lcdoc.workflows.summary_request import LEAST_WORDS, MOST_WORDS, SummaryRequest

    if not paths:
        raise usage_error("the file is missing; try: lcdoc summarize FILE")
    if not LEAST_WORDS <= words <= MOST_WORDS:
        raise usage_error(f"--words {words} is not from {LEAST_WORDS} to {MOST_WORDS:,}")
    if no_cache and refresh:
        raise usage_error("--no-cache and --refresh exclude each other: the first keeps nothing, the second replaces")
    from lcdoc.agents.models.budget import Budget
    from lcdoc.commands.summary_view import show_summary
    from lcdoc.screen import Screen
    from lcdoc.workflows.summarize import Summarize
    from lcdoc.workflows.summary_answer import SummaryAnswer
    from lcdoc.workflows.workspace import Workspace

    question = SummaryRequest(" ".join(focus.split()), words).question
    with (
        Screen(quiet=quiet) as screen,
        Workspace.open(library, embedder=embedder, background=False, model=model) as workspace,
    ):
        workspace.get_ready()
        documents = workspace.read(paths, password=password, on_event=screen.handle)
        if estimate:
            plan = workspace.plan(question, documents, workflow=Summarize.name, profile=profile, on_event=screen.handle)
            screen.plan(plan, workspace.model)
            return
        answer = workspace.ask(
            question,
            documents,
            workflow=Summarize.name,
            budget=Budget(usd=max_cost, tokens=max_tokens, calls=max_calls, seconds=max_seconds),
            store="off" if no_cache else "refresh" if refresh else "use",
            profile=profile,
            on_event=screen.handle,
        )
        if not isinstance(answer, SummaryAnswer):
            raise TypeError(f"the workflow {Summarize.name} answered with {type(answer).__name__}")
        if as_json:
            screen.json(answer.to_json())
        else:
            show_summary(screen, answer)
    if not answer.found:
        raise typer.Exit(NOT_FOUND)
