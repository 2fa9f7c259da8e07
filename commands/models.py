"""`lcdoc models`: which models there are by name and on this machine, and what is known of one."""

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
    """List the configured models, the default, and those found on this machine; or tell what is known of one.

    With NAME its server is asked for the window, where that is not known; nothing that costs is sent. Local models are
    looked for in the folders of LCDOC_MODELS, in ./models and in the cache of Hugging Face's hub; nothing is loaded.

    lcdoc models --init

    lcdoc models http://127.0.0.1:8080/v1

    lcdoc models local/models/qwen
    """
    from dataclasses import asdict

    from lcdoc.screen import Screen
    from lcdoc.workflows.models import configured_models, known_of, local_models, looked_in, write_sample

    if init and name:
        raise usage_error("--init takes no model")
    with Screen() as screen:
        if init:
            screen.say(f"a sample configuration is in {write_sample()}")
            return
        if name is not None:
            facts = known_of(name, library)
        else:
            facts, found = configured_models(), local_models()
            none = f"none (looked in {', '.join(looked_in())})"
            local = [asdict(each) for each in found] if as_json else [each.line() for each in found] or none
            facts["local"] = local
        if as_json:
            screen.json(facts)
        else:
            screen.facts(facts)
