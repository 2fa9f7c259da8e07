"""`lcdoc ask`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcdoc.commands.guard import INTERRUPTED, NOT_FOUND, guarded, usage_error
from lcdoc.commands.options import (
    DebugOption,
    EmbedderOption,
    JsonOption,
    KvOption,
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

if TYPE_CHECKING:
    from lcdoc.screen import Screen


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
    workflow: Annotated[
        str,
        typer.Option(
            "--workflow",
            metavar="NAME",
            help="How to read: auto takes what fits the question, and says why; see lcdoc workflows list.",
        ),
    ] = "auto",
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
    kv: KvOption = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with a run that was cut off; see lcdoc runs list.",
            show_default=False,
        ),
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

    Reads PDF, EPUB, DOCX, HTML, Markdown and plain text, told apart by content. Without --model the answer is made of
    sentences of the documents: no key, no network, no download. With it, a language model reads the best passages, or
    everything, and answers; every quote it gives is checked against the source. A question that was cut off goes on
    where it was when it is asked again. Exit code 0: answered, 1: not found, 2: bad input, 130: interrupted.

    lcdoc ask contract.pdf "When does the lease end?"

    lcdoc ask reports/ "Which plant was closed?" --json

    lcdoc ask book.pdf "Why did she leave?" --model http://127.0.0.1:8080/v1

    lcdoc ask book.pdf "Why did she leave?" --model openai/gpt-4.1-mini --max-cost 0.10

    lcdoc ask report.pdf "List all subsidiaries." --workflow map_reduce --model ollama/qwen3:8b

    lcdoc ask --resume 1c9f --max-cost 0.50
    """
    files, asked = ([], "") if resume is not None else _asked(paths, question)
    if no_cache and refresh:
        raise usage_error("--no-cache and --refresh exclude each other: the first keeps nothing, the second replaces")
    if resume is not None:
        if paths or question is not None or model or kv or estimate or show_prompts or no_cache or refresh:
            raise usage_error(
                "--resume goes on with a run as it began: give caps beside it, but no file, question or model"
            )
        model = _model_of(resume, library)
    model = _compressed(model, kv)
    from lcdoc.agents.models.budget import Budget
    from lcdoc.commands.answer_view import show_answer
    from lcdoc.screen import Screen
    from lcdoc.workflows.workspace import Workspace

    with (
        Screen(quiet=quiet) as screen,
        _resumable(screen),
        Workspace.open(library, embedder=embedder, background=False, model=model) as workspace,
    ):
        workspace.get_ready()
        budget = Budget(usd=max_cost, tokens=max_tokens, calls=max_calls, seconds=max_seconds)
        if resume is not None:
            answer = workspace.resume(resume, budget=budget, profile=profile, on_event=screen.handle)
        else:
            documents = workspace.read(files, password=password, on_event=screen.handle)
            if show_prompts or estimate:
                plan = workspace.plan(asked, documents, workflow=workflow, profile=profile, on_event=screen.handle)
                if show_prompts:
                    screen.prompts(plan)
                if estimate:
                    screen.plan(plan, workspace.model)
                return
            answer = workspace.ask(
                asked,
                documents,
                workflow=workflow,
                budget=budget,
                store="off" if no_cache else "refresh" if refresh else "use",
                profile=profile,
                on_event=screen.handle,
            )
        if as_json:
            screen.json(workspace.answer_json(answer, boxes=boxes, password=password))
        else:
            show_answer(screen, answer)
    if not answer.found:
        raise typer.Exit(NOT_FOUND)


def _asked(paths: list[str] | None, question: str | None) -> tuple[list[str], str]:
    """The files and the question, where both are there."""
    if question is None:
        raise usage_error('a file and a question are missing; try: lcdoc ask FILE "your question"')
    if not paths:
        # One word was given, and it was taken for the question.
        if question == "-" or Path(question).exists():
            raise usage_error(f'the question is missing; try: lcdoc ask {question} "your question"')
        raise usage_error('the file is missing; try: lcdoc ask FILE "your question"')
    if not question.strip():
        raise usage_error("the question is empty")
    return paths, question


def _compressed(model: str | None, kv: str | None) -> str | None:
    if kv is None:
        return model
    from lcdoc.workflows.models import with_recipe

    return with_recipe(model, kv)


def _model_of(run_id: str, library: Path | None) -> str:
    from lcdoc.memory import Library

    with Library.open(library) as opened:
        return opened.runs.find(run_id).model


@contextmanager
def _resumable(screen: Screen) -> Iterator[None]:
    """Ctrl-C while a question is being answered says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if screen.run_id is None:
            raise
        screen.fail(f"interrupted; what was read is kept. Ask again to go on, or: lcdoc ask --resume {screen.run_id}")
        raise typer.Exit(INTERRUPTED) from None
