"""`lcdoc index`."""

from __future__ import annotations

from typing import Annotated

import typer

from lcdoc.commands.guard import guarded
from lcdoc.commands.options import DebugOption, EmbedderOption, LibraryOption, PasswordOption, QuietOption


@guarded
def index(
    paths: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files or folders.")],
    password: PasswordOption = None,
    embedder: EmbedderOption = "minilm",
    library: LibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Read files ahead and embed all their passages, so that questions search them by meaning at once.

    Asking does this too, but only for the passages a question needs.
    """
    from lcdoc.screen import Screen
    from lcdoc.workflows.workspace import Workspace

    with Screen(quiet=quiet) as screen, Workspace.open(library, embedder=embedder, background=False) as workspace:
        documents = workspace.read(paths, password=password, on_event=screen.handle)
        for document in documents:
            passages = workspace.fill(document, on_event=screen.handle)
            for warning in document.source.warnings:
                screen.warn(f"{document.name}: {warning}")
            pages = len(document.pages)
            screen.say(f"{document.source.path}: {pages:,} page{'s'[: pages != 1]}, {passages:,} passages")
