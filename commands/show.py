"""`lcdoc show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lcdoc.commands.guard import guarded
from lcdoc.commands.options import DebugOption, LibraryOption, PasswordOption, QuietOption


@guarded
def show(
    path: Annotated[str, typer.Argument(metavar="FILE")],
    page: Annotated[
        str, typer.Option("--page", "-p", metavar="N", help="Number from 1, or the printed label, such as iv.")
    ] = "1",
    image: Annotated[
        Path | None, typer.Option("--image", metavar="OUT.png", help="Draw the page of a PDF into a PNG instead.")
    ] = None,
    quote: Annotated[
        list[str] | None, typer.Option("--quote", metavar="TEXT", help="Highlight this text (may be repeated).")
    ] = None,
    password: PasswordOption = None,
    library: LibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Show a page as lcdoc read it, or draw it with quotes highlighted.

    lcdoc show book.pdf --page 12

    lcdoc show book.pdf --page 12 --image page.png --quote "She left in the spring"
    """
    from lcdoc.documents import DocumentError
    from lcdoc.screen import Screen
    from lcdoc.workflows.show import draw_page, find_page, quotes_on
    from lcdoc.workflows.workspace import Workspace

    with Screen(quiet=quiet) as screen, Workspace.open(library, background=False) as workspace:
        (document,) = workspace.read([path], password=password, on_event=screen.handle, named_only=True)
        chosen = find_page(document, page)
        citations = quotes_on(document, chosen, quote or [])
        if image is None:
            if citations:
                raise DocumentError(path, "--quote highlights in a picture only", "add --image OUT.png")
            screen.plain(chosen.span.of(document.text).strip("\n"))
        else:
            draw_page(document, chosen, citations, image, password=password)
            screen.say(f"page {chosen.number} of {document.name} drawn into {image}")
