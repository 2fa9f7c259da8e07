"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="offline, openai/NAME, ollama/NAME, http://HOST/v1#NAME, local/FOLDER, or a name of config.toml"
        " [default: the configuration's, else offline]. No paid service is called unless named.",
        show_default=False,
    ),
]
KvOption = Annotated[
    str | None,
    typer.Option(
        "--kv",
        metavar="RECIPE",
        help="Compress the cache of a local model: auto, or as in snapkv+ada@0.25; see lcdoc kv list.",
        show_default=False,
    ),
]
MaxCostOption = Annotated[
    float | None,
    typer.Option(
        "--max-cost", metavar="USD", min=0, help="Spend at most this; needs known prices.", show_default=False
    ),
]
MaxTokensOption = Annotated[
    int | None, typer.Option("--max-tokens", metavar="N", min=0, help="Tokens in and out, at most.", show_default=False)
]
MaxCallsOption = Annotated[
    int | None, typer.Option("--max-calls", metavar="N", min=0, help="Requests sent, at most.", show_default=False)
]
MaxSecondsOption = Annotated[
    float | None,
    typer.Option(
        "--max-seconds",
        metavar="N",
        min=0,
        help="Answering, at most. Reaching a cap gives the best answer so far, marked partial.",
        show_default=False,
    ),
]
NoCacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Neither use nor keep the model's answers in the library.")
]
RefreshOption = Annotated[
    bool, typer.Option("--refresh", help="Ask the model anew, and replace the answers the library has.")
]
ProfileOption = Annotated[
    Literal["small", "large"] | None,
    typer.Option(
        "--profile", help="How the model is spoken to: small is for models of up to about 9B.", show_default=False
    ),
]
