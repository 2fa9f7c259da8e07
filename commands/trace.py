"""`lcdoc trace`."""

from __future__ import annotations

from typing import Annotated

import typer

from lcdoc.commands.guard import guarded
from lcdoc.commands.options import DebugOption, JsonOption, LibraryOption

_PIPED_WIDTH = 80


@guarded
def trace(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="An id, or its first characters: lcdoc runs list.")],
    as_json: JsonOption = False,
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Show what a run read, noted, dropped, merged and found contradicted, as a tree with page numbers.

    lcdoc trace 1c9f
    """
    from lcdoc.memory import Library
    from lcdoc.screen import Screen
    from lcdoc.workflows.trace import trace as trace_of

    with Screen() as screen, Library.open(library) as opened:
        found = trace_of(opened, opened.runs.find(run_id))
        if as_json:
            screen.json(found.as_dict())
            return
        for line in found.lines(screen.out.width if screen.out.is_terminal else _PIPED_WIDTH):
            screen.plain(line)
