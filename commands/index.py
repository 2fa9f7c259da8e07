"""`lcdoc index`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from lcdoc.commands.guard import INTERRUPTED, guarded, usage_error
from lcdoc.commands.options import (
    DebugOption,
    EmbedderOption,
    KvOption,
    LibraryOption,
    ModelOption,
    PasswordOption,
    ProfileOption,
    QuietOption,
)

if TYPE_CHECKING:
    from lcdoc.documents import Document
    from lcdoc.screen import Screen
    from lcdoc.workflows.keeping import Keeping, Kept
    from lcdoc.workflows.workspace import Workspace


class Purpose(StrEnum):
    """See `lcdoc.workflows.keeping.For`."""

    read = "read"
    list = "list"
    direct = "direct"


@guarded
def index(
    paths: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files or folders.")],
    model: ModelOption = None,
    kv: KvOption = None,
    purposes: Annotated[
        list[Purpose] | None,
        typer.Option(
            "--for",
            help="With a local model: what it reads the files for. read: chain and map_reduce; list: lists and counts;"
            " direct: answers at once, for files that fit [default: read, and direct where it fits].",
            show_default=False,
        ),
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Tell what the model would read, how long and how much; load nothing.")
    ] = False,
    profile: ProfileOption = None,
    password: PasswordOption = None,
    embedder: EmbedderOption = "minilm",
    library: LibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Read files ahead and embed all their passages, so that questions search them by meaning at once.

    Asking does this too, but only for the passages a question needs.

    With a model that runs here (--model local/...), the model reads the files as well, piece by piece, and what it has
    read is kept beside the library: questions by chain, map_reduce and direct are then answered without reading them
    again. Interrupted, it goes on when it is called again.

    lcdoc index book.pdf --model local/models/Qwen2.5-0.5B-Instruct --kv kvzip@0.25
    """
    from lcdoc.agents.models.local_facts import checked_recipe
    from lcdoc.screen import Screen
    from lcdoc.workflows.workspace import Workspace

    with (
        Screen(quiet=quiet) as screen,
        _resumable(screen),
        Workspace.open(library, embedder=embedder, background=False, model=model) as workspace,
    ):
        keeps = model is not None or kv is not None or bool(purposes) or estimate
        if keeps and not workspace.runs_here:
            raise usage_error(f"{workspace.model} keeps nothing here; name a model that runs here: --model local/PATH")
        if kv is not None:
            # A slip of the pen should not cost minutes.
            checked_recipe(workspace.model, kv)
        documents: list[Document] = []
        with closing(workspace.read_each(paths, password=password, on_event=screen.handle)) as reading:
            for document in reading:
                passages = workspace.fill(document, on_event=screen.handle)
                for warning in document.source.warnings:
                    screen.warn(f"{document.name}: {warning}")
                pages = len(document.pages)
                screen.say(f"{document.source.path}: {_count(pages, 'page')}, {_count(passages, 'passage')}")
                if keeps:
                    documents.append(document)
        if not keeps:
            return
        keeping = workspace.keeping(
            documents,
            recipe=kv,
            purposes=[purpose.value for purpose in purposes or ()],
            profile=profile,
            on_event=screen.handle,
        )
        if estimate:
            screen.plain(_foreseen(keeping))
            return
        _keep(screen, workspace, keeping, documents)


def _keep(screen: Screen, workspace: Workspace, keeping: Keeping, documents: Sequence[Document]) -> None:
    if not keeping.serves_any_question:
        screen.warn(
            f"{keeping.recipe} goes by the question at the end of a prompt, which a kept document has not: what it "
            "keeps may not answer yours; `lcdoc kv list` shows others"
        )
    if keeping.missing:
        screen.say(_foreseen(keeping))
    kept = workspace.keep(keeping, on_event=screen.handle)
    screen.say(_account(kept, len(documents)))
    if kept.unkept:
        screen.warn(
            f"{kept.unkept:,} of {_pieces(kept.pieces)} could not be kept, and will be read again when asked about"
        )


def _foreseen(keeping: Keeping) -> str:
    """`keeping 6 pieces by kvzip@0.25: about 7,310 tokens to read, 3.1 MB, 45 s`."""
    why = f" ({keeping.reason})" if keeping.reason else ""
    foreseen = keeping.estimate
    if not foreseen.pieces:
        return f"all of {_pieces(len(keeping.units))} are kept by {keeping.recipe} already"
    time = "" if foreseen.seconds is None else f", about {foreseen.seconds:,.0f} s"
    there = len(keeping.units) - foreseen.pieces
    more = f"{there:,} of them are there; " if there else ""
    return (
        f"keeping {_pieces(len(keeping.units))} by {keeping.recipe}{why}: {more}{foreseen.tokens:,} tokens to read, "
        f"about {foreseen.bytes / 1e6:,.1f} MB{time}"
    )


def _account(kept: Kept, documents: int) -> str:
    of = "the document" if documents == 1 else f"{documents:,} documents"
    read = f"{kept.tokens:,} tokens read in {kept.seconds:,.1f} s" if kept.tokens else "nothing had to be read"
    return (
        f"kept {_pieces(kept.pieces - kept.unkept)} of {of} by {kept.recipe}: {read}; {kept.share:.0%} of what was "
        f"read is held, {kept.bytes / 1e6:,.1f} MB"
    )


def _pieces(count: int) -> str:
    return _count(count, "piece")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s'[: number != 1]}"


@contextmanager
def _resumable(screen: Screen) -> Iterator[None]:
    """Ctrl-C says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        screen.fail("interrupted; what was read is kept. The same command goes on where it was")
        raise typer.Exit(INTERRUPTED) from None
