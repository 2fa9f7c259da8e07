"""`lcdoc runs`: what was asked through models, and what it cost."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import typer

from lcdoc.commands.guard import guarded
from lcdoc.commands.options import DebugOption, JsonOption, LibraryOption

_LINE = 200
"""Characters of a question in a list; a schema to be filled may have thousands."""

runs_app = typer.Typer(help="What was asked through models, and what it cost.", no_args_is_help=True)


@runs_app.command("list")
@guarded
def runs_list(
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many.")] = 20,
    as_json: JsonOption = False,
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """List the latest runs, the latest first."""
    from lcdoc.memory import Library
    from lcdoc.screen import Screen, money

    with Screen() as screen, Library.open(library) as opened:
        runs = opened.runs.list(limit)
        if as_json:
            screen.json([run.as_dict() for run in runs])
            return
        for run in runs:
            cost = money(run.total.cost_usd)
            screen.plain(
                f"{run.id}  {run.started_at.astimezone():%Y-%m-%d %H:%M}  {run.status:<11}  {run.total.calls:>4} calls"
                f"  {cost:>13}  {run.model}  {textwrap.shorten(run.question, _LINE, placeholder=' …')}"
            )
        screen.say(f"{len(runs)} runs in {opened.path}; lcdoc runs show ID tells more")


@runs_app.command("show")
@guarded
def runs_show(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="An id, or its first characters.")],
    as_json: JsonOption = False,
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Show one run: its question, documents, caps, answer, and what each model cost."""
    from lcdoc.memory import Library
    from lcdoc.screen import Screen

    with Screen() as screen, Library.open(library) as opened:
        run = opened.runs.find(run_id)
        if as_json:
            screen.json(run.as_dict())
        else:
            screen.run(run)


@runs_app.command("cost")
@guarded
def runs_cost(
    days: Annotated[
        float | None, typer.Option("--days", metavar="N", min=0, help="Of the last N days.", show_default=False)
    ] = None,
    by: Annotated[Literal["model", "day", "run"], typer.Option("--by", help="A line for each.")] = "model",
    as_json: JsonOption = False,
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Sum what runs have cost, by model, day (UTC) or run."""
    from dataclasses import asdict

    from lcdoc.memory import Library
    from lcdoc.screen import Screen

    since = None if days is None else datetime.now(UTC) - timedelta(days=days)
    with Screen() as screen, Library.open(library) as opened:
        lines = opened.runs.cost(since, by)
        if as_json:
            screen.json([asdict(line) for line in lines])
        else:
            screen.costs(lines)
