"""Options that the commands of `lcdoc eval` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="FOLDER", help="Where the sets lie [default: $LCDOC_EVAL_DATA].", show_default=False
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option("--split", metavar="NAME", help="Which split of the set; see lcdoc eval list.", show_default=False),
]
PartOption = Annotated[
    Literal["test", "tune", "train", "all"],
    typer.Option("--part", help="Documents that the packaged span reader never saw (test), did see, or all."),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit",
        "-n",
        metavar="N",
        min=1,
        help="So many questions, of as many documents [default: all].",
        show_default=False,
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", help="Draws other questions, where there is a limit.")]
EvaluationLibraryOption = Annotated[
    Path | None,
    typer.Option(
        "--library",
        metavar="FILE",
        help="Where documents, answers and results are kept [default: evaluation.sqlite beside the user's library].",
        show_default=False,
    ),
]
WorkflowOption = Annotated[
    str,
    typer.Option(
        "--workflow",
        metavar="NAME",
        help="As lcdoc ask takes it; or closed_book, first_sentence, best_sentence.",
    ),
]
BaselinesOption = Annotated[
    bool,
    typer.Option(
        "--baselines/--no-baselines",
        help="Ask the model without the document, and two simple readers, beside.",
    ),
]
EstimateOption = Annotated[bool, typer.Option("--estimate", help="Tell what it would take and cost; ask no model.")]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Write the table (.md), or each answer of the first column (.csv), or a picture (.svg, .png).",
        show_default=False,
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="An id of lcdoc eval runs, or its first characters.")]
