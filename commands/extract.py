"""`lcdoc extract`."""

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
def extract(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Files or folders; - is standard input.", show_default=False),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option("--schema", "-s", metavar="FILE", help="JSON Schema, or its short form.", show_default=False),
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
    password: PasswordOption = None,
    embedder: EmbedderOption = "minilm",
    library: LibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fill a schema from files, each value with the quote that shows it and its page.

    A value stands in a quote that was found in the source, or it is not given: null means not found. Several files make
    one object together; for one of each file use lcdoc batch. Without --model, dates, amounts, names and lines such as
    "Rent: 1,250" are found where they are sure. Exit code 0: something was found, 1: nothing, 2: bad input, 130:
    interrupted.

    lcdoc extract lease.pdf --schema lease.json

    lcdoc extract lease.pdf --schema lease.json --json --model openai/gpt-4.1-mini

    lease.json: {"tenant": "who rents", "rent": {"type": "number", "description": "monthly rent in EUR"}}
    """
    if not paths:
        raise usage_error("the file is missing; try: lcdoc extract FILE --schema FILE")
    if schema is None:
        raise usage_error("the schema is missing; try: lcdoc extract FILE --schema FILE")
    if no_cache and refresh:
        raise usage_error("--no-cache and --refresh exclude each other: the first keeps nothing, the second replaces")
    from lcdoc.agents.models.budget import Budget
    from lcdoc.commands.extract_view import show_extraction
    from lcdoc.screen import Screen
    from lcdoc.workflows.extract_request import read_schema
    from lcdoc.workflows.workspace import Workspace

    request = read_schema(schema)
    with (
        Screen(quiet=quiet) as screen,
        Workspace.open(library, embedder=embedder, background=False, model=model) as workspace,
    ):
        workspace.get_ready()
        documents = workspace.read(paths, password=password, on_event=screen.handle)
        if estimate or show_prompts:
            plan = workspace.plan(
                request.question, documents, workflow="extract", profile=profile, on_event=screen.handle
            )
            if show_prompts:
                screen.prompts(plan)
            if estimate:
                screen.plan(plan, workspace.model)
            return
        answer = workspace.extract(
            documents,
            request,
            budget=Budget(usd=max_cost, tokens=max_tokens, calls=max_calls, seconds=max_seconds),
            store="off" if no_cache else "refresh" if refresh else "use",
            profile=profile,
            on_event=screen.handle,
        )
        screen.stop()
        if as_json:
            screen.json(answer.to_json())
        else:
            show_extraction(screen, answer)
    if not answer.found:
        raise typer.Exit(NOT_FOUND)
