"""What evaluations came to, and which sets there are: the commands of `lcdoc eval` that ask nobody anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcdoc.commands.eval_options import DataOption, EvaluationLibraryOption, RunArgument
from lcdoc.commands.guard import guarded, usage_error
from lcdoc.commands.options import DebugOption, JsonOption

if TYPE_CHECKING:
    from lcdoc.evaluation.report import Result
    from lcdoc.screen import Screen


@guarded
def eval_list(data: DataOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the sets there are, and which of them are here.

    Of each its splits with how many questions, and its licence.
    """
    from lcdoc.evaluation.listing import listed
    from lcdoc.screen import Screen

    with Screen() as screen:
        sets = listed(data)
        if as_json:
            screen.json([one.as_dict() for one in sets])
            return
        for one in sets:
            screen.plain(one.line())


@guarded
def eval_runs(
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many.")] = 20,
    library: EvaluationLibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """List the latest evaluations, the latest first."""
    from lcdoc.evaluation.evaluate import evaluation_library
    from lcdoc.memory import Library
    from lcdoc.screen import Screen

    with Screen() as screen, Library.open(evaluation_library(library)) as kept:
        runs = kept.evaluations.list(limit)
        for run in runs:
            settings = run.settings
            state = f"{run.questions:,} done" if run.finished_at else f"{run.answered:,} of {run.questions:,}"
            asked = f"{settings['set']} {settings['split']}".strip()
            screen.plain(
                f"{run.id}  {run.started_at.astimezone():%Y-%m-%d %H:%M}  {state:<14}"
                f"  {asked}: {settings['way']}, {settings['model']}"
            )
        if not runs:
            screen.say("no evaluations yet: lcdoc eval SET")


@guarded
def eval_remove(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids, or their first characters.")],
    library: EvaluationLibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Forget evaluations. The documents that were asked about, and the model's answers, stay in the library."""
    from lcdoc.evaluation.evaluate import evaluation_library
    from lcdoc.memory import Library
    from lcdoc.screen import Screen

    with Screen() as screen, Library.open(evaluation_library(library)) as kept:
        for run in dict.fromkeys(kept.evaluations.find(one).id for one in runs):
            kept.evaluations.remove(run)
            screen.say(f"removed {run}")


@guarded
def eval_show(
    run: RunArgument,
    wrong: Annotated[int, typer.Option("--wrong", metavar="N", min=0, help="Also the N worst answers.")] = 0,
    as_json: JsonOption = False,
    library: EvaluationLibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Show what an evaluation came to."""
    from lcdoc.evaluation.report import worst
    from lcdoc.screen import shown

    with opened(library, [run]) as (screen, results):
        show_results(screen, results, as_json=as_json)
        for item in worst(results[0], wrong):
            screen.plain(shown(f"\n{item['question']}  ({item['document']})"))
            screen.plain(shown(f"  right: {' | '.join(item['references']) or 'no answer'}"))
            given = (item["error"] or item["answer"] or "no answer").replace("\n", f"\n{' ' * 9}")
            screen.plain(shown(f"  given: {given}"))


@guarded
def eval_compare(
    first: RunArgument,
    second: RunArgument,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a Markdown table.")] = False,
    library: EvaluationLibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Compare two evaluations, on the questions both asked.

    For each figure: the difference with its 95 % interval, and how often chance alone would give as much (p), by a
    paired bootstrap over documents.
    """
    from lcdoc.evaluation.report import comparison_table

    with opened(library, [first, second]) as (screen, results):
        screen.plain(comparison_table(*results, markdown=markdown, width=terminal_width(screen)))


@guarded
def eval_export(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids, or their first characters.")],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="A table: a column for each run, or a row where sets differ.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="A line for each question of the first run.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="A picture; takes lcdoc[plot].", show_default=False)
    ] = None,
    library: EvaluationLibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Write evaluations in Markdown, as CSV or as a picture.

    The picture of planted facts is a map of their places.

    lcdoc eval export 3f2a 91bc --markdown > table.md

    lcdoc eval export 3f2a 91bc --plot scores.svg
    """
    from lcdoc.evaluation.export import csv_of, markdown_of, written

    if not (markdown or as_csv or plot):
        raise usage_error("say what to write: --markdown, --csv or --plot FILE")
    with opened(library, runs) as (screen, results):
        if markdown:
            screen.plain(markdown_of(results))
        if as_csv:
            screen.plain(csv_of(results[0]))
        if plot:
            written(results, plot)


def show_results(screen: Screen, results: Sequence[Result], *, as_json: bool = False, out: Path | None = None) -> None:
    """The results as a table, side by side, or as JSON; a map of places where they are of needles. Also into `out`."""
    from lcdoc.evaluation.export import json_of, written
    from lcdoc.evaluation.needle_map import is_map, map_text
    from lcdoc.evaluation.report import FEW_DOCUMENTS, table

    if as_json:
        screen.json([json_of(result) for result in results])
    else:
        screen.plain(f"{results[0].subject}: shares in percent, with 95 % intervals")
        screen.plain(table(results, width=terminal_width(screen)))
        for result in filter(is_map, results):
            screen.plain(f"\nfacts found, {result.title}\n{map_text(result)}")
    if (documents := min(result.documents for result in results)) < FEW_DOCUMENTS:
        count = "1 document says" if documents == 1 else f"{documents} documents say"
        screen.say(f"{count} little of others: the intervals are too narrow")
    for result in results:
        if not result.evaluation.finished_at:
            screen.warn(f"evaluation {result.evaluation.id} is not at its end: its command goes on")
    if out is not None:
        written(results, out)


def terminal_width(screen: Screen) -> int | None:
    """Characters in a line of the terminal that tables are shown on; None where they go into a file or a pipe."""
    return screen.out.width if screen.out.is_terminal else None


@contextmanager
def opened(library: Path | None, runs: list[str]) -> Iterator[tuple[Screen, list[Result]]]:
    """A screen, and the results of these evaluations."""
    from lcdoc.evaluation.evaluate import evaluation_library
    from lcdoc.evaluation.report import result_of
    from lcdoc.memory import Library
    from lcdoc.screen import Screen

    with Screen() as screen, Library.open(evaluation_library(library)) as opened:
        yield screen, [result_of(opened, opened.evaluations.find(run)) for run in runs]
