"""`lcdoc library`: what was read and is kept."""

from __future__ import annotations

from typing import Annotated

import typer

from lcdoc.commands.guard import BAD_INPUT, guarded, usage_error
from lcdoc.commands.options import DebugOption, JsonOption, LibraryOption

library_app = typer.Typer(
    help="What lcdoc has read and keeps, so that the same file again costs nothing.", no_args_is_help=True
)


@library_app.command("list")
@guarded
def library_list(
    as_json: JsonOption = False,
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """List the documents in the library, the one used last first."""
    from lcdoc.memory import Library
    from lcdoc.screen import Screen

    with Screen() as screen, Library.open(library) as opened:
        entries, caches = opened.list(), opened.caches.list()
        if as_json:
            screen.json([entry.as_dict() for entry in entries])
            return
        for entry in entries:
            screen.plain(f"{entry.id[:8]}  {entry.pages:>6,} p  {entry.used_at:%Y-%m-%d}  {entry.name}")
        screen.say(f"{len(entries)} documents in {opened.path}")
        if caches:
            size, where = sum(cache.bytes for cache in caches) / 1e6, opened.caches.folder
            screen.say(f"{len(caches):,} kept caches of their pieces, {size:,.1f} MB, in {where}")


@library_app.command("show")
@guarded
def library_show(
    name: Annotated[str, typer.Argument(metavar="DOCUMENT", help="An id, the first characters of one, or a path.")],
    as_json: JsonOption = False,
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Show what the library knows of a document: its files, pages, sections, warnings."""
    from lcdoc.memory import Library
    from lcdoc.screen import Screen
    from lcdoc.workflows.show import description

    with Screen() as screen, Library.open(library) as opened:
        facts = description(opened, opened.find(name))
        if as_json:
            screen.json(facts)
            return
        screen.facts(facts)


@library_app.command("remove")
@guarded
def library_remove(
    names: Annotated[list[str], typer.Argument(metavar="DOCUMENT...", help="Ids, first characters of them, or paths.")],
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Forget documents. Their files are not touched."""
    from lcdoc.memory import Library
    from lcdoc.screen import Screen

    with Screen() as screen, Library.open(library) as opened:
        for document_id in [opened.find(name) for name in names]:
            opened.remove(document_id)
            screen.say(f"removed {document_id[:8]}")


@library_app.command("prune")
@guarded
def library_prune(
    missing: Annotated[
        bool, typer.Option("--missing", help="Documents none of whose files is there any more.")
    ] = False,
    unused_days: Annotated[
        float | None, typer.Option("--unused-days", metavar="N", min=0, help="Documents not asked for N days.")
    ] = None,
    max_mib: Annotated[
        float | None,
        typer.Option("--max-mib", metavar="N", min=0, help="The ones used longest ago, until N MiB are left."),
    ] = None,
    calls_unused_days: Annotated[
        float | None,
        typer.Option("--calls-unused-days", metavar="N", min=0, help="Models' answers not used for N days."),
    ] = None,
    caches_unused_days: Annotated[
        float | None,
        typer.Option(
            "--caches-unused-days", metavar="N", min=0, help="What local models have read, not used for N days."
        ),
    ] = None,
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Forget documents, models' answers and what they have read by rule, and give their space back."""
    from lcdoc.memory import Library
    from lcdoc.screen import Screen

    if not missing and all(rule is None for rule in (unused_days, max_mib, calls_unused_days, caches_unused_days)):
        raise usage_error(
            "say what to prune: --missing, --unused-days N, --max-mib N, --calls-unused-days N, --caches-unused-days N"
        )
    with Screen() as screen, Library.open(library) as opened:
        before = len(opened.caches.list())
        removed = opened.prune(
            missing=missing,
            unused_days=unused_days,
            max_bytes=None if max_mib is None else int(max_mib * 2**20),
            calls_unused_days=calls_unused_days,
            caches_unused_days=caches_unused_days,
        )
        for entry in removed:
            screen.plain(f"{entry.id[:8]}  {entry.name}")
        screen.say(f"{len(removed)} documents removed")
        if gone := before - len(opened.caches.list()):
            screen.say(f"{gone:,} kept caches removed")


@library_app.command("verify")
@guarded
def library_verify(
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Check the library: every id is recomputed, every passage, index, vector file and kept cache checked."""
    from lcdoc.memory import Library
    from lcdoc.screen import Screen

    with Screen() as screen, Library.open(library) as opened:
        problems = opened.verify()
        for problem in problems:
            screen.plain(problem)
        screen.say(f"{len(problems)} problems in {opened.path}" if problems else f"{opened.path} is sound")
    if problems:
        raise typer.Exit(BAD_INPUT)
