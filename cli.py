"""The command line: arguments in, events rendered out."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from lcdoc import __version__

NOT_FOUND, BAD_INPUT, BUG, INTERRUPTED = 1, 2, 70, 130

app = typer.Typer(
    name="lcdoc",
    help="Ask documents longer than a model can take. Every quote is checked against the source, with its page.",
    epilog="Try: lcdoc ask book.pdf 'Why did she leave?'",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
library_app = typer.Typer(
    help="What lcdoc has read and keeps, so that the same file again costs nothing.", no_args_is_help=True
)
app.add_typer(library_app, name="library")

Command = TypeVar("Command", bound=Callable[..., Any])

LibraryOption = Annotated[
    Path | None,
    typer.Option(
        "--library",
        metavar="FILE",
        help="The library file [default: $LCDOC_LIBRARY, else the user's data folder].",
        show_default=False,
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show the result and warnings, nothing else.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show log messages, and tracebacks of errors.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON (its form is documented in docs/json.md).")]
PasswordOption = Annotated[
    str | None, typer.Option("--password", metavar="TEXT", help="Opens an encrypted PDF.", show_default=False)
]
EmbedderOption = Annotated[
    str,
    typer.Option(
        "--embedder", metavar="NAME", help="minilm (packaged), or a sentence-transformers model by name or path."
    ),
]


def guarded(command: Command) -> Command:
    """Turn errors the user can mend into one line and exit code 2, and Ctrl-C into 130. --debug shows tracebacks."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        from lcdoc.screen import Screen

        debug = bool(kwargs.get("debug"))
        if debug:
            logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s", stream=sys.stderr)
            logging.getLogger("markdown_it").setLevel(logging.INFO)
        try:
            return command(*args, **kwargs)
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            Screen().fail("interrupted; what was read is kept in the library")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output has gone; let the interpreter's own flush at exit go nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except Exception as error:
            if debug:
                raise
            if _is_for_the_user(error):
                Screen().fail(str(error))
                raise typer.Exit(BAD_INPUT) from None
            Screen().fail(f"a bug in lcdoc: {type(error).__name__}: {error}; --debug shows where")
            raise typer.Exit(BUG) from None

    return run  # type: ignore[return-value]


def _is_for_the_user(error: Exception) -> bool:
    from lcdoc.documents import DocumentError
    from lcdoc.memory import LibraryError
    from lcdoc.retrieval.embedders import EmbedderError

    return isinstance(error, DocumentError | LibraryError | EmbedderError)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"lcdoc {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Ask documents longer than a model can take. Every quote is checked against the source, with its page."""


@app.command()
@guarded
def ask(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Files or folders; - is standard input.", show_default=False),
    ] = None,
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="In quotes, as the last word.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    boxes: Annotated[
        bool, typer.Option("--boxes", help="With --json: also where each quote stands on its PDF page.")
    ] = False,
    password: PasswordOption = None,
    embedder: EmbedderOption = "minilm",
    library: LibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Answer a question from files, with quotes and their pages.

    Reads PDF, EPUB, DOCX, HTML, Markdown and plain text, told apart by content. No key, no network, no download: the
    answer is made of sentences of the documents. Exit code 0: answered, 1: not found, 2: bad input, 130: interrupted.

    lcdoc ask contract.pdf "When does the lease end?"

    lcdoc ask reports/ "Which plant was closed?" --json
    """
    if question is None:
        raise _usage('a file and a question are missing; try: lcdoc ask FILE "your question"')
    if not paths:
        # One word was given, and it was taken for the question.
        if question == "-" or Path(question).exists():
            raise _usage(f'the question is missing; try: lcdoc ask {question} "your question"')
        raise _usage('the file is missing; try: lcdoc ask FILE "your question"')
    if not question.strip():
        raise _usage("the question is empty")
    from lcdoc.screen import Screen
    from lcdoc.workflows.workspace import Workspace

    with Screen(quiet=quiet) as screen, Workspace.open(library, embedder=embedder, background=False) as workspace:
        documents = workspace.read(paths, password=password, on_event=screen.handle)
        answer = workspace.ask(question, documents, on_event=screen.handle)
        if as_json:
            screen.json(workspace.answer_json(answer, boxes=boxes, password=password))
        else:
            screen.answer(answer)
    if not answer.found:
        raise typer.Exit(NOT_FOUND)


@app.command()
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


@app.command()
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


@app.command()
@guarded
def doctor(
    library: LibraryOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Tell what is installed, what devices there are, which keys are set (never their values), where the library is."""
    from lcdoc.screen import Screen
    from lcdoc.workflows.doctor import examine

    with Screen() as screen:
        findings = examine(library)
        if as_json:
            screen.json([finding.as_dict() for finding in findings])
        else:
            width = max(len(finding.name) for finding in findings)
            for finding in findings:
                mark = {"ok": " ok ", "note": " -- ", "problem": "FAIL"}[finding.state]
                screen.plain(f"[{mark}] {finding.name:<{width}}  {finding.detail}")
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(BAD_INPUT)


def _usage(message: str) -> Exception:
    from lcdoc.screen import Screen

    Screen().fail(message)
    return typer.Exit(BAD_INPUT)


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
        entries = opened.list()
        if as_json:
            screen.json([entry.as_dict() for entry in entries])
            return
        for entry in entries:
            screen.plain(f"{entry.id[:8]}  {entry.pages:>6,} p  {entry.used_at:%Y-%m-%d}  {entry.name}")
        screen.say(f"{len(entries)} documents in {opened.path}")


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
        for fact, value in facts.items():
            for line in value if isinstance(value, list) else [value]:
                screen.plain(f"{fact:<12} {line}")


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
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Forget documents by rule, and give their space back."""
    from lcdoc.memory import Library
    from lcdoc.screen import Screen

    if not missing and unused_days is None and max_mib is None:
        raise _usage("say what to prune: --missing, --unused-days N or --max-mib N")
    with Screen() as screen, Library.open(library) as opened:
        removed = opened.prune(
            missing=missing,
            unused_days=unused_days,
            max_bytes=None if max_mib is None else int(max_mib * 2**20),
        )
        for entry in removed:
            screen.plain(f"{entry.id[:8]}  {entry.name}")
        screen.say(f"{len(removed)} documents removed")


@library_app.command("verify")
@guarded
def library_verify(
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Check the library: every id is recomputed, every passage, index and vector file checked."""
    from lcdoc.memory import Library
    from lcdoc.screen import Screen

    with Screen() as screen, Library.open(library) as opened:
        problems = opened.verify()
        for problem in problems:
            screen.plain(problem)
        screen.say(f"{len(problems)} problems in {opened.path}" if problems else f"{opened.path} is sound")
    if problems:
        raise typer.Exit(BAD_INPUT)
