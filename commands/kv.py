"""`lcdoc kv`: how the cache of a local model can be compressed."""

from __future__ import annotations

from typing import Annotated

import typer

from lcdoc.commands.guard import guarded
from lcdoc.commands.options import DebugOption, JsonOption

kv_app = typer.Typer(help="How the cache of a local model can be compressed.", no_args_is_help=True)


@kv_app.command("list")
@guarded
def kv_list(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the parts that recipes are made of, with what each does.

    A recipe is a scorer, a budget and a reducer joined by +, and how much is kept behind @: a share, or tokens.

    lcdoc ask book.pdf "Why did she leave?" --model local/PATH --kv snapkv+ada@0.25

    lcdoc ask book.pdf "Why did she leave?" --model local/PATH --kv keydiff@2048tok
    """
    from lcdoc.agents.models.local_recipes import parts
    from lcdoc.screen import Screen

    with Screen() as screen:
        if as_json:
            screen.json([part.as_dict() for part in parts()])
            return
        kind = ""
        for part in parts():
            if part.kind != kind:
                screen.plain(("\n" if kind else "") + f"{part.kind}s: {part.question}\n")
                kind = part.kind
            screen.plain(f"  {part.name}: {part.about}")


@kv_app.command("show")
@guarded
def kv_show(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="As --kv takes it.")],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Tell what a recipe means.

    lcdoc kv show snapkv:window=64+ada@0.25
    """
    from lcdoc.agents.models.local_recipes import meaning
    from lcdoc.screen import Screen

    with Screen() as screen:
        known = meaning(recipe)
        if as_json:
            screen.json(known)
        else:
            screen.facts(known)
