"""What the user sees: events as progress on standard error, answers as text or JSON on standard output.

Standard output carries the answer and nothing else, so that it can be piped; everything about the work goes to
standard error, and moves only when that is a terminal.
"""

from __future__ import annotations

import json
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from lcdoc.agents.notes import Claim
    from lcdoc.agents.quotes import Citation
    from lcdoc.live import LiveView
    from lcdoc.memory.costs import CostLine
    from lcdoc.memory.runs import Run
    from lcdoc.memory.usage import ModelUsage
    from lcdoc.workflows.answer import Answer, Usage
    from lcdoc.workflows.events import Event
    from lcdoc.workflows.workflow import Plan

_UNITS = {
    "reading": "pages",
    "indexing": "passages",
    "embedding": "passages",
    "fetching": "MB",
    "loading": "parts",
    "asking": "passages",
    "keeping": "tokens",
}
_SAID = ("fetching", "loading")
"""Stages that a line tells of, since they take long and come while other things are shown."""
_NAME_WIDTH = 28
_REDRAWN_HZ = 8
_LINE_EVERY_S = 5.0
"""Without a terminal, a long run says so often how far it is."""


class Screen:
    """Renders one command's events and results. Use as a context manager: it takes the progress display down."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.err = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
        self._progress: Progress | None = None
        self._stages: set[str] = set()
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._view: LiveView | None = None
        self._live: Live | None = None
        self._said_s = 0.0
        self.run_id: str | None = None
        """The run under way, where a question is being answered."""

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the progress display off the terminal."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            self._tasks.clear()
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._view = None

    def handle(self, event: Event) -> None:
        """Show an event: a bar while documents are read, then the live view; lines now and then without a terminal."""
        from lcdoc.workflows import events

        match event:
            case events.Started():
                self.run_id = event.run_id or None
            case events.Chosen():
                self.say(f"{event.workflow}: {event.reason}")
            case events.Resumed():
                self.say(f"going on with run {event.run_id}: {event.notes:,} note{'s'[: event.notes != 1]} kept")
                self._watch(event)
            case events.Progress():
                if event.stage in _SAID and event.stage not in self._stages:
                    self._stages.add(event.stage)
                    self.say(f"{event.stage} {model_text(event.document)}")
                if self._view is None:
                    self._advance(event.stage, event.document, event.done, event.total)
            case events.DocumentFailed():
                self.warn(event.message)
            case events.Answered():
                pass  # `answer` shows it
            case _:
                self._watch(event)

    def _watch(self, event: Event) -> None:
        """Show what is read, noted, spent and written. It goes away again: what stays is the checked answer."""
        from lcdoc.live import LiveView
        from lcdoc.workflows.events import NoteTaken

        if self.quiet:
            return
        if self._view is None:
            self.stop()
            self._view = LiveView()
            self._said_s = time.monotonic()
            if self.err.is_terminal:
                self._live = Live(self._view, console=self.err, transient=True, refresh_per_second=_REDRAWN_HZ)
                self._live.start()
        self._view.handle(event)
        if self._live is None and isinstance(event, NoteTaken) and time.monotonic() - self._said_s > _LINE_EVERY_S:
            self._said_s = time.monotonic()
            self.say(self._view.status())

    def _advance(self, stage: str, document: str, done: int, total: int) -> None:
        if self.quiet or not self.err.is_terminal:
            if stage == "keeping" and time.monotonic() - self._said_s > _LINE_EVERY_S:
                self._said_s = time.monotonic()
                self.say(f"{done:,} of {total:,} tokens")
            return
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeRemainingColumn(compact=True),
                console=self.err,
                transient=True,
                expand=True,
            )
            self._progress.start()
        key = (stage, document)
        if key not in self._tasks:
            name = model_text(document).replace("\\", "/").rsplit("/", 1)[-1]
            short = name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 1] + "\u2026"
            self._tasks[key] = self._progress.add_task(
                f"{stage.capitalize()} {escape(short)}", total=total, unit=_UNITS[stage]
            )
        self._progress.update(self._tasks[key], completed=done, total=total)
        if done >= total:
            self._progress.update(self._tasks[key], visible=False)

    def say(self, message: str) -> None:
        """A line about the work; silent with --quiet."""
        if not self.quiet:
            self.err.print(Text(shown(message), style="dim"))

    def warn(self, message: str) -> None:
        """A line the user should not miss; shown even with --quiet."""
        self.err.print(Text.assemble(("warning: ", "yellow"), shown(message)))

    def fail(self, message: str) -> None:
        """The line that ends a command."""
        self.stop()
        self.err.print(Text.assemble(("lcdoc: ", "bold red"), shown(message)))

    def json(self, value: Any) -> None:
        """One JSON value on standard output."""
        self.stop()
        sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")

    def plain(self, text: str) -> None:
        """Text on standard output, as it is."""
        self.stop()
        sys.stdout.write(text if text.endswith("\n") else text + "\n")

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Names and values, a line each; lists take several."""
        width = max(map(len, facts))
        for fact, value in facts.items():
            for one in value if isinstance(value, list) else [value]:
                self.plain(f"{fact:<{width}}  {shown(_fact_text(one))}")

    def answer(self, answer: Answer) -> None:
        """An answer with its evidence; warnings and the work done go to standard error."""
        self.stop()
        if answer.found:
            for number, claim in enumerate(answer.claims, 1):
                self._claim(answer, claim, number)
        else:
            self.out.print(Text(_not_found(answer)))
        if self.err.is_terminal and not self.quiet:
            from lcdoc.live import evidence_line

            if (line := evidence_line(answer, self.err)) is not None:
                self.err.print(line)
        for warning in answer.warnings:
            self.warn(warning)
        self.say(_account(answer))

    def plan(self, plan: Plan, model: str) -> None:
        """What answering would take."""
        self.plain(f"{model_text(model)}: {_plan_text(plan)}")
        if plan.at_most is not None:
            self.plain(f"at most: {_plan_text(plan.at_most)}")

    def prompts(self, plan: Plan) -> None:
        """What would be sent, message by message."""
        if plan.requests is None:
            self.say("nothing is sent: no model is asked")
            return
        parts = [(request, "reading") for request in plan.requests.reading]
        parts += [(request, "answering, with likely evidence") for request in plan.requests.answering]
        for number, (request, purpose) in enumerate(parts, 1):
            self.plain(f"=== request {number} of {len(parts)}: {purpose} ({request.prompt}) ===")
            for message in request.messages:
                self.plain(f"--- {message.role} ---\n{shown(message.content)}")
        if wider := len(plan.requests.widening):
            self.say(f"and {wider} more for reading, if the first passages hold no answer")

    def run(self, run: Run) -> None:
        """One recorded run, with its answer where it has one."""
        facts = {
            "question": run.question,
            "status": run.status + (f": {run.error}" if run.error else ""),
            "workflow": run.workflow,
            "model": model_text(run.model, (run.answer or {}).get("kv", ())),
            "started": f"{run.started_at.astimezone():%Y-%m-%d %H:%M:%S}",
            "caps": ", ".join(f"{name} {cap:g}" for name, cap in run.budget.items() if cap is not None) or "none",
        }
        for fact, value in facts.items():
            self.plain(f"{fact:<12} {shown(value)}")
        for _, name in run.documents:
            self.plain(f"{'document':<12} {shown(name)}")
        for model, usage in run.usage.items():
            self.plain(f"{'usage':<12} {model_text(model)}: {usage_text(usage)}")
        for claim in (run.answer or {}).get("claims", ()):
            pages = sorted({page for citation in claim["citations"] for page in citation["pages"]})
            on = f" (page {', '.join(map(str, pages))})" if pages else " (unsupported)"
            self.plain(f"{'claim':<12} {shown(claim['text'])}{on}")

    def costs(self, lines: Sequence[CostLine]) -> None:
        """Sums of runs, a line each."""
        if not lines:
            self.say("no runs through a model")
        width = max((len(line.name) for line in lines), default=0)
        for line in lines:
            known = f" (at least {money(line.known_usd)})" if line.cost_usd is None and line.known_usd else ""
            runs = f"{line.runs:,} run{'s'[: line.runs != 1]}"
            self.plain(f"{line.name:<{width}}  {runs}, {usage_text(line.usage)}{known}")

    def _claim(self, answer: Answer, claim: Claim, number: int) -> None:
        if number > 1:
            self.out.print()
        prefix = f"{number}. " if len(answer.claims) > 1 else ""
        quotes = [citation.quote for citation in claim.citations]
        # An extractive claim that is all but its quote would only say the same thing twice.
        if not any(claim.text in quote and len(claim.text) > 0.8 * len(quote) for quote in quotes):
            self._block(claim.text if quotes else f"{claim.text} (unsupported)", prefix, "bold")
            prefix = " " * len(prefix)
        for citation in claim.citations:
            self._block(f"\u201c{citation.quote}\u201d", prefix, "")
            prefix = " " * len(prefix)
            self._block(f"\u2014 {place(answer, citation)}", prefix, "cyan")

    def _block(self, text: str, prefix: str, style: str) -> None:
        """A paragraph behind a prefix; wrapped with a hanging indent on a terminal, one line elsewhere."""
        text = shown(text)
        if self.out.is_terminal:
            indent = " " * len(prefix)
            text = textwrap.fill(text, self.out.width, initial_indent=prefix, subsequent_indent=indent)
        else:
            text = prefix + text
        self.out.print(Text(text, style=style))


def place(answer: Answer, citation: Citation) -> str:
    """`handbook.pdf, page 12 (printed 4), Ferries > Capacity`."""
    document = answer.document(citation.document_id)
    parts = [document.name]
    if document.pages > 1:
        parts.append(pages_text(citation.pages, citation.labels))
    if citation.headings:
        parts.append(" \u203a ".join(citation.headings[-2:]))
    if citation.status == "fuzzy":
        parts.append(f"matched approximately ({citation.score:.0f} %)")
    return ", ".join(parts)


def pages_text(pages: tuple[int, ...], labels: tuple[str, ...]) -> str:
    """`page 12`, `pages 12-13`, with what is printed on them where that differs."""
    numbers = f"page {pages[0]}" if len(pages) == 1 else f"pages {pages[0]}-{pages[-1]}"
    if labels and tuple(map(str, pages)) != labels:
        printed = labels[0] if len(labels) == 1 else f"{labels[0]}-{labels[-1]}"
        return f"{numbers} (printed {printed})"
    return numbers


def _not_found(answer: Answer) -> str:
    names = [document.name for document in answer.documents]
    where = names[0] if len(names) == 1 else f"{len(names)} documents"
    pages = sum(document.pages for document in answer.documents)
    on = f" on {pages:,} pages" if pages > len(names) else ""
    return f"Not found in {where}: nothing in {answer.passages:,} passages{on} answers the question."


def shown(text: str) -> str:
    """Text of a model or a server without what could move a terminal's cursor."""
    return "".join(c if c == "\n" or c.isprintable() else " " for c in text)


def model_text(model: str, kv: Sequence[str] = ()) -> str:
    """A model's name, and how the caches are held that it read through: `local/models/small (cache kvzip@0.25)`."""
    name, _, named = model.rpartition("#")
    if not name or "://" in model:
        name, named = model, ""
    recipes = ", ".join(kv) or named
    return f"{name} (cache {recipes})" if recipes else name


def _account(answer: Answer) -> str:
    how = (
        "offline, by extraction (no language model)"
        if answer.model == "offline"
        else model_text(answer.model, answer.kv)
    )
    read = f"{answer.passages_read:,} of {answer.passages:,} passages read"
    sure = f", confidence {answer.confidence:.1f} of 5" if answer.found else ""
    parts = [how, f"{read}{sure}"]
    if answer.model != "offline":
        parts.append(usage_text(answer.usage))
    parts.append(f"{answer.usage.seconds:.1f} s")
    if answer.model != "offline":
        parts.append(f"run {answer.run_id}")
    return "; ".join(parts)


def usage_text(usage: Usage | ModelUsage) -> str:
    """`3 calls, 5,210 tokens in (1,024 cached), 340 out, $0.0031`."""
    calls = f"{usage.calls:,} call{'s'[: usage.calls != 1]}"
    if usage.failed_calls:
        calls += f" ({usage.failed_calls:,} failed)"
    if usage.stored_calls:
        calls += f" and {usage.stored_calls:,} from the store"
    about = "about " if usage.estimated else ""
    cached = f" ({usage.tokens_cached:,} cached)" if usage.tokens_cached else ""
    tokens = f"{about}{usage.tokens_in:,} tokens in{cached}, {usage.tokens_out:,} out"
    return f"{calls}, {tokens}, {money(usage.cost_usd)}"


def money(usd: float | None) -> str:
    """Dollars with as many digits as small sums need; an unknown price is said to be unknown."""
    if usd is None:
        return "price unknown"
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"


def _fact_text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items() if one is not None)
    return "not known" if value is None else str(value)


def _plan_text(plan: Plan) -> str:
    calls = f"{plan.calls:,} call{'s'[: plan.calls != 1]}"
    tokens = f"about {plan.tokens_in:,} tokens in and {plan.tokens_out:,} out"
    time = "" if plan.seconds is None else f", about {plan.seconds:.0f} s"
    return f"{calls}, {tokens}, {money(plan.cost_usd)}{time}"
