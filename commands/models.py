"""`lcdoc models`: which models there are by name, and what is known of one."""

from __future__ import annotations

from typing import Annotated

import typer

from lcdoc.commands.guard import guarded, usage_error
from lcdoc.commands.options import DebugOption, JsonOption, LibraryOption


@guarded
def models(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A model, as --model takes it.", show_default=False)
    ] = None,
    init: Annotated[bool, typer.Option("--init", help="Write a commented sample configuration.")] = False,
    as_json: JsonOption = False,
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """List the configured models and the default, or tell what is known of one.

    With NAME its server is asked for the window, where that is not known; nothing that costs is sent.

    lcdoc models --init

    lcdoc models http://127.0.0.1:8080/v1
    """
    from lcdoc.screen import Screen
    from lcdoc.workflows.models import configured_models, known_of, write_sample

    if init and name:
        raise usage_error("--init takes no model")
    with Screen() as screen:
        if init:
            screen.say(f"a sample configuration is in {write_sample()}")
            return
        facts = configured_models() if name is None else known_of(name, library)
        if as_json:
            screen.json(facts)
        else:
            screen.facts(facts)
