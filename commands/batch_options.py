"""Options of `lcdoc batch` that say what a job is: one value, which the commands that begin or estimate a job take."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from lcdoc.commands.options import (
    KvOption,
    ModelOption,
    NoCacheOption,
    PasswordOption,
    ProfileOption,
    RefreshOption,
)


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a job is, as it was given on the command line. None, empty or false: not given."""

    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATHS",
            help="Folders, files, quoted globs such as 'scans/**/*.pdf', @FILE with a path a line, or - for such a list"
            " on standard input.",
            show_default=False,
        ),
    ] = None
    ask: Annotated[
        list[str] | None,
        typer.Option(
            "--ask",
            "-a",
            metavar="FILE|QUESTION",
            help="A question, or a file of them: .txt with one a line, .csv or .jsonl with question, id, workflow. May"
            " be given several times.",
            show_default=False,
        ),
    ] = None
    workflow: Annotated[
        str | None,
        typer.Option(
            "--workflow",
            metavar="NAME",
            help="How to read for questions that do not say [default: auto]; see lcdoc workflows list.",
            show_default=False,
        ),
    ] = None
    summarize: Annotated[bool, typer.Option("--summarize", help="A summary of each document.")] = False
    words: Annotated[
        int | None,
        typer.Option("--words", metavar="N", help="About how long a summary is [default: 300].", show_default=False),
    ] = None
    about: Annotated[
        str, typer.Option("--about", metavar="TEXT", help="What the summary is to be about.", show_default=False)
    ] = ""
    extract: Annotated[
        list[Path] | None,
        typer.Option(
            "--extract",
            metavar="SCHEMA.json",
            help="Fill a schema from each document. May be given several times.",
            show_default=False,
        ),
    ] = None
    job_file: Annotated[
        Path | None,
        typer.Option("--job", metavar="FILE.toml", help="The job as a file; options go before it.", show_default=False),
    ] = None
    save_job: Annotated[
        Path | None,
        typer.Option("--save-job", metavar="FILE.toml", help="Write the job as such a file.", show_default=False),
    ] = None
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="What to call it.", show_default=False)] = ""
    model: ModelOption = None
    kv: KvOption = None
    profile: ProfileOption = None
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder",
            metavar="NAME",
            help="minilm (packaged), or a sentence-transformers model by name or path [default: minilm].",
            show_default=False,
        ),
    ] = None
    password: PasswordOption = None
    no_cache: NoCacheOption = False
    refresh: RefreshOption = False
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost", metavar="USD", min=0, help="Spend at most this on the whole job.", show_default=False
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", metavar="N", min=0, help="Tokens in and out, of the whole job.", show_default=False
        ),
    ] = None
    max_calls: Annotated[
        int | None,
        typer.Option("--max-calls", metavar="N", min=0, help="Requests sent, for the whole job.", show_default=False),
    ] = None
    max_seconds: Annotated[
        float | None,
        typer.Option("--max-seconds", metavar="N", min=0, help="Working at the job, all in all.", show_default=False),
    ] = None
    max_cost_per_document: Annotated[
        float | None,
        typer.Option(
            "--max-cost-per-document", metavar="USD", min=0, help="For all that is asked of one.", show_default=False
        ),
    ] = None
    max_tokens_per_document: Annotated[
        int | None, typer.Option("--max-tokens-per-document", metavar="N", min=0, show_default=False)
    ] = None
    max_calls_per_document: Annotated[
        int | None, typer.Option("--max-calls-per-document", metavar="N", min=0, show_default=False)
    ] = None
    max_seconds_per_document: Annotated[
        float | None, typer.Option("--max-seconds-per-document", metavar="N", min=0, show_default=False)
    ] = None


SharedOption = Annotated[
    str | None,
    typer.Option(
        "--shared",
        metavar="postgresql://...",
        help="Keep jobs and what is paid for there, for several machines [default: $LCDOC_SHARED].",
        show_default=False,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        max=1000,
        help="Processes on this machine [default: as many as suit].",
        show_default=False,
    ),
]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="ray[://HOST:PORT]", help="Work on a Ray cluster; takes lcdoc[ray].", show_default=False
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        help="Write results.jsonl there, row by row while it runs.",
        show_default=False,
    ),
]
CsvOption = Annotated[bool, typer.Option("--csv", help="Also results.csv in --out, at the end.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="An id of lcdoc batch list, its beginning, or a name.")]
FormatOption = Annotated[
    Literal["jsonl", "csv", "parquet"] | None,
    typer.Option("--format", help="[default: as the file's suffix says]", show_default=False),
]


def takes_job_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first parameter is a JobOptions, as a command that has each of them as an option of its own."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        options = JobOptions(**{option.name: given.pop(option.name) for option in fields(JobOptions)})
        command(options, **given)

    hints = get_type_hints(JobOptions, include_extras=True)
    options = [
        inspect.Parameter(
            option.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if option.default is MISSING else option.default,
            annotation=hints[option.name],
        )
        for option in fields(JobOptions)
    ]
    own_hints = get_type_hints(command, include_extras=True)
    _, *own = inspect.signature(command).parameters.values()
    parameters = [
        *options,
        *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=own_hints[one.name]) for one in own),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
