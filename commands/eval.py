"""`lcdoc eval`: how good answers are, on questions whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from lcdoc.commands.eval_options import (
    BaselinesOption,
    DataOption,
    EstimateOption,
    EvaluationLibraryOption,
    LimitOption,
    OutOption,
    PartOption,
    SeedOption,
    SplitOption,
    WorkflowOption,
)
from lcdoc.commands.eval_results import (
    eval_compare,
    eval_export,
    eval_list,
    eval_remove,
    eval_runs,
    eval_show,
    show_results,
    terminal_width,
)
from lcdoc.commands.guard import INTERRUPTED, guarded, usage_error
from lcdoc.commands.options import (
    DebugOption,
    EmbedderOption,
    JsonOption,
    KvOption,
    MaxCallsOption,
    MaxCostOption,
    MaxSecondsOption,
    MaxTokensOption,
    ModelOption,
    NoCacheOption,
    ProfileOption,
    QuietOption,
    RefreshOption,
)

if TYPE_CHECKING:
    from lcdoc.agents.models.budget import Budget
    from lcdoc.commands.eval_view import EvalView
    from lcdoc.evaluation.evaluate import Asked, Questions
    from lcdoc.screen import Screen


class _SetFirst(TyperGroup):
    """`lcdoc eval squad` is `lcdoc eval run squad`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


eval_app = typer.Typer(
    cls=_SetFirst,
    help="How good answers are, on questions whose answers are known: lcdoc eval SET. See lcdoc eval list.",
    no_args_is_help=True,
)

for _name, _command in (
    ("list", eval_list),
    ("runs", eval_runs),
    ("show", eval_show),
    ("compare", eval_compare),
    ("export", eval_export),
    ("remove", eval_remove),
):
    eval_app.command(_name)(_command)


@eval_app.command("run", hidden=True)
@guarded
def eval_run(
    name: Annotated[str, typer.Argument(metavar="SET", help="A set of lcdoc eval list, or your own .jsonl or .csv.")],
    data: DataOption = None,
    split: SplitOption = None,
    part: PartOption = "test",
    workflow: WorkflowOption = "auto",
    model: ModelOption = None,
    kv: KvOption = None,
    limit: LimitOption = None,
    seed: SeedOption = 0,
    baselines: BaselinesOption = True,
    estimate: EstimateOption = False,
    out: OutOption = None,
    max_cost: MaxCostOption = None,
    max_tokens: MaxTokensOption = None,
    max_calls: MaxCallsOption = None,
    max_seconds: MaxSecondsOption = None,
    no_cache: NoCacheOption = False,
    refresh: RefreshOption = False,
    profile: ProfileOption = None,
    embedder: EmbedderOption = "minilm",
    as_json: JsonOption = False,
    library: EvaluationLibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask the questions of a set, and score the answers.

    SET is a published set whose files lie in --data (lcdoc eval list tells which), or a file of your own with a line
    for each question: file, question, answer, and where known page and quote. Scores have 95 % intervals; caps hold for
    all questions together. What was answered is kept: a run that was cut off goes on when the command is given again.

    lcdoc eval squad --data ~/sets --limit 200

    lcdoc eval literaryqa --data ~/sets --limit 40 --model ollama/qwen3:8b --workflow chain

    lcdoc eval my-questions.csv --model openai/gpt-4.1-mini --estimate
    """
    if no_cache and refresh:
        raise usage_error("--no-cache and --refresh exclude each other: the first keeps nothing, the second replaces")
    if kv is not None:
        from lcdoc.workflows.models import with_recipe

        model = with_recipe(model, kv)
    from lcdoc.agents.models.budget import Budget
    from lcdoc.evaluation.evaluate import Asked, questions_of

    questions = questions_of(name, data=data, split=split, part=part, limit=limit, seed=seed)
    asked = Asked(workflow, model, embedder, baselines, "off" if no_cache else "refresh" if refresh else "use", profile)
    budget = Budget(usd=max_cost, tokens=max_tokens, calls=max_calls, seconds=max_seconds)
    with _watched(quiet) as (screen, view):
        if estimate:
            _show_estimate(screen, questions, asked, library)
            return
        _evaluated(screen, view, questions, asked, budget=budget, library=library, out=out, as_json=as_json)


@eval_app.command("needle")
@guarded
def eval_needle(
    text: Annotated[
        Path | None,
        typer.Option(
            "--text", metavar="FILE", help="The haystack [default: the set needle_haystacks].", show_default=False
        ),
    ] = None,
    lengths: Annotated[str, typer.Option("--lengths", metavar="N,N", help="Tokens.")] = "2000,8000,32000",
    depths: Annotated[
        str, typer.Option("--depths", metavar="P,P", help="Percent of the text before.")
    ] = "0,25,50,75,100",
    each: Annotated[int, typer.Option("--each", metavar="N", min=1, help="Facts for each place.")] = 1,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Makes up other facts.")] = 0,
    data: DataOption = None,
    workflow: WorkflowOption = "direct",
    model: ModelOption = None,
    kv: KvOption = None,
    max_cost: MaxCostOption = None,
    max_tokens: MaxTokensOption = None,
    max_calls: MaxCallsOption = None,
    max_seconds: MaxSecondsOption = None,
    estimate: EstimateOption = False,
    out: OutOption = None,
    library: EvaluationLibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Plant facts in a text, and see where they are found.

    At several depths of several lengths; the result is a map too.

    lcdoc eval needle --text war-and-peace.txt --model local/qwen3 --kv snapkv@0.25 --out map.svg
    """
    if kv is not None:
        from lcdoc.workflows.models import with_recipe

        model = with_recipe(model, kv)
    from lcdoc.agents.models.budget import Budget
    from lcdoc.evaluation.evaluate import Asked, Questions
    from lcdoc.evaluation.needles import needles
    from lcdoc.evaluation.sets.needle_haystacks import haystack

    grid = (_numbers("--lengths", lengths), _numbers("--depths", depths))
    if max(grid[1]) > 100:
        raise usage_error("--depths are percent: give numbers from 0 to 100")
    readings = needles(haystack(text, data), lengths=grid[0], depths=grid[1], each=each, seed=seed)
    questions = Questions("needle_haystacks", text.name if text else "essays", "all", tuple(readings), seed=seed)
    budget = Budget(usd=max_cost, tokens=max_tokens, calls=max_calls, seconds=max_seconds)
    with _watched(quiet) as (screen, view):
        asked = Asked(workflow, model, baselines=False)
        if estimate:
            _show_estimate(screen, questions, asked, library)
            return
        _evaluated(screen, view, questions, asked, budget=budget, library=library, out=out)


@eval_app.command("retrieval")
@guarded
def eval_retrieval(
    name: Annotated[str, typer.Argument(metavar="SET", help="A set of lcdoc eval list, or your own .jsonl or .csv.")],
    data: DataOption = None,
    split: SplitOption = None,
    part: PartOption = "all",
    limit: LimitOption = None,
    seed: SeedOption = 0,
    embedder: EmbedderOption = "minilm",
    markdown: Annotated[bool, typer.Option("--markdown", help="As a Markdown table.")] = False,
    library: EvaluationLibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure how well passages are found: recall@k and MRR. No model is asked.

    Each way to rank passages is measured, on questions whose evidence is known.

    lcdoc eval retrieval ohr_bench --data ~/sets --limit 200
    """
    from lcdoc.evaluation.evaluate import evaluation_library, questions_of, searching
    from lcdoc.evaluation.retrieval import sweep, sweep_table
    from lcdoc.memory import Library

    questions = questions_of(name, data=data, split=split, part=part, limit=limit, seed=seed)
    with _watched(quiet) as (screen, view), Library.open(evaluation_library(library)) as opened:
        with searching(opened, embedder) as desk:
            found, problems = sweep(desk, questions.readings, on_progress=view.advance)
        for problem in problems:
            screen.warn(problem)
        screen.plain(sweep_table(found, markdown=markdown, width=terminal_width(screen)))


@contextmanager
def _watched(quiet: bool) -> Iterator[tuple[Screen, EvalView]]:
    """A screen with progress; Ctrl-C says how to go on."""
    from lcdoc.commands.eval_view import EvalView
    from lcdoc.screen import Screen

    with Screen(quiet=quiet) as screen:
        view = EvalView(screen)
        try:
            with view:
                yield screen, view
        except KeyboardInterrupt:
            kept = f"{view.done:,} of {view.total:,} answers are kept" if view.total else "nothing was asked yet"
            screen.fail(f"interrupted; {kept}. The same command goes on")
            raise typer.Exit(INTERRUPTED) from None


def _evaluated(
    screen: Screen,
    view: EvalView,
    questions: Questions,
    asked: Asked,
    *,
    budget: Budget,
    library: Path | None,
    out: Path | None = None,
    as_json: bool = False,
) -> None:
    """Ask, and show what came of it; where a cap ends it before its time, what came until then."""
    from lcdoc.evaluation.evaluate import evaluated, evaluation_library
    from lcdoc.evaluation.export import check_target
    from lcdoc.memory import Library

    if out is not None:
        check_target(out)
    with Library.open(evaluation_library(library)) as opened:
        screen.say(questions.line)
        outcome = evaluated(
            opened,
            questions,
            asked,
            budget=budget,
            on_progress=lambda told: view.advance(told.done, told.total, told.document, told.failed),
        )
        view.stop()
        show_results(screen, outcome.results, as_json=as_json, out=out)
        if outcome.stopped:
            screen.warn(outcome.stopped)


def _show_estimate(screen: Screen, questions: Questions, asked: Asked, library: Path | None) -> None:
    from lcdoc.evaluation.evaluate import evaluation_library, planned
    from lcdoc.memory import Library

    with Library.open(evaluation_library(library)) as opened:
        screen.plain(questions.line)
        for way, plan in planned(opened, questions, asked).items():
            if plan is None:
                screen.plain(f"{way}: no model is asked")
            else:
                screen.plan(plan, way)


def _numbers(option: str, text: str) -> list[int]:
    """Whole numbers with commas between them."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise usage_error(f"{option} {text!r} is not a list of numbers such as 0,50,100")
    return sorted({int(part) for part in parts})
