"""`lcdoc workflows`: the ways in which documents are read for an answer."""

from __future__ import annotations

from typing import Annotated

import typer

from lcdoc.commands.guard import guarded, usage_error
from lcdoc.commands.options import DebugOption, JsonOption

workflows_app = typer.Typer(help="The ways in which documents are read for an answer.", no_args_is_help=True)


@workflows_app.command("list")
@guarded
def workflows_list(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the workflows, with what each does."""
    from lcdoc.screen import Screen
    from lcdoc.workflows.auto import Auto
    from lcdoc.workflows.registry import names, workflow_class

    with Screen() as screen:
        about = {Auto.name: Auto.about} | {name: workflow_class(name).about for name in names()}
        if as_json:
            screen.json([{"name": name, "about": line} for name, line in about.items()])
        else:
            screen.facts(about)


@workflows_app.command("show")
@guarded
def workflows_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `lcdoc workflows list` shows.")],
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print the graph as Mermaid source.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show a workflow's graph: its steps, and the ways between them.

    `->` is always taken; of the ways after `..>`, what was found decides.
    """
    from lcdoc.screen import Screen
    from lcdoc.workflows.drawing import drawing_of
    from lcdoc.workflows.registry import AUTO, names, workflow_class

    if mermaid and as_json:
        raise usage_error("--json has the Mermaid source too; leave --mermaid out")
    if name == AUTO:
        raise usage_error(f"auto has no graph of its own: it takes one of {', '.join(names())}; show one of them")
    drawing = drawing_of(workflow_class(name))
    with Screen() as screen:
        if as_json:
            screen.json(drawing.as_dict())
        elif mermaid:
            screen.plain(drawing.mermaid)
        else:
            screen.plain(f"{drawing.name}: {drawing.about}\n")
            for line in drawing.lines():
                screen.plain(f"  {line}")
