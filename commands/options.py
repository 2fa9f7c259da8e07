"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
