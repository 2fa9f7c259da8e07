"""`lcdoc batch plan`: what a job will take, before it is begun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from lcdoc.commands.batch_options import JobOptions, WorkersOption, takes_job_options
from lcdoc.commands.batch_view import duration
from lcdoc.commands.guard import guarded
from lcdoc.commands.options import DebugOption, JsonOption, LibraryOption, QuietOption
from lcdoc.screen import money

if TYPE_CHECKING:
    from lcdoc.jobs.job import Job
    from lcdoc.jobs.plan import JobPlan
    from lcdoc.jobs.sampling import Amount
    from lcdoc.screen import Screen

_SHOWN = 3


@guarded
@takes_job_options
def batch_plan(
    options: JobOptions,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", min=1, help="Read so many documents, spread over their sizes.")
    ] = 20,
    read_all: Annotated[bool, typer.Option("--all", help="Read all documents, so that nothing is reckoned.")] = False,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
    library: LibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Tell what a job will take: documents, pages, tokens, money, time. No model is asked anything.

    Some of the documents are read (they are in the library then), and the rest is reckoned from them, with the range in
    which it likely lies. Takes the options of lcdoc batch run that say what a job is.

    lcdoc batch plan contracts/ --ask questions.txt --model openai/gpt-4.1-mini

    lcdoc batch plan --job leases.toml --all
    """
    from lcdoc.commands.batch_job import job_of, list_on_stdin, save
    from lcdoc.jobs.begin import settled
    from lcdoc.jobs.plan import plan
    from lcdoc.jobs.shares import suitable_workers
    from lcdoc.jobs.sources import Sources, skipped_text
    from lcdoc.screen import Screen, shown
    from lcdoc.workflows.readers import ReadingDesk
    from lcdoc.workflows.workspace import Workspace

    job = job_of(options)
    stdin = list_on_stdin(job.documents)
    with Screen(quiet=quiet) as screen:
        if save(job, options):
            screen.say(f"the job is in {options.save_job}")
        job = settled(job, stdin=stdin)
        sources = Sources(job.documents, stdin=stdin)
        sources.check()
        with Workspace.open(
            library, embedder=job.embedder, limits=job.parsing, background=False, model=job.asked_model
        ) as workspace:
            workspace.get_ready()
            progress = _Progress(screen)
            made = plan(job, sources, workspace, sample=None if read_all else sample, on_progress=progress.advance)
            progress.stop()
            processes = workers or suitable_workers(job)
            spec = ReadingDesk(workspace.library, job.asked_model).spec
            at_once = processes if spec is None else spec.limits.concurrency
        seconds = made.seconds(processes, at_once)
        if as_json:
            screen.json({**made.as_dict(), "skipped": dict(sources.skipped), "workers": processes, "seconds": seconds})
            return
        for fact, value in _facts(made, job, skipped_text(sources.skipped), processes, seconds):
            screen.plain(f"{fact:<10} {shown(value)}")
        for problem in made.unreadable[:_SHOWN]:
            screen.warn(f"cannot be read: {problem}")
        for problem in made.impossible[:_SHOWN]:
            screen.warn(f"cannot be done: {problem}")
        if job.caps.usd is not None and made.usd is not None and made.usd.likely > job.caps.usd:
            screen.warn(f"the cap of {money(job.caps.usd)} will likely be reached before the end")


def _facts(made: JobPlan, job: Job, skipped: str, workers: int, seconds: float | None) -> Iterator[tuple[str, str]]:
    exact = made.sampled == made.documents
    how = "all read" if exact else f"{made.sampled:,} of them read, the rest reckoned from these"
    failed = f", {len(made.unreadable):,} of which cannot be" if made.unreadable else ""
    yield "documents", f"{made.documents:,} ({_bytes(made.bytes)}); {how}{failed}"
    if skipped:
        yield "", f"passed over in folders: {skipped}"
    yield "pages", _range(made.pages, exact)
    yield "answers", f"{made.documents * made.tasks:,} ({made.tasks:,} for each document)"
    yield "model", made.model
    if made.calls.high:
        yield "calls", _range(made.calls, exact)
        yield "tokens", f"{_range(made.tokens_in, exact)} in, {_range(made.tokens_out, exact)} out"
        most = "" if made.at_most_usd is None else f"; at most {money(made.at_most_usd)}"
        yield "money", ("price unknown" if made.usd is None else _range(made.usd, exact, money)) + most
    yield "time", _time(made, workers, seconds)


def _time(made: JobPlan, workers: int, seconds: float | None) -> str:
    processes = f"{workers:,} worker{'s'[: workers != 1]}"
    reading = "reading was not timed, since the sample was in the library"
    if made.reading_s is not None:
        reading = f"reading {duration(made.reading_s.likely / workers)}"
    if seconds is None:
        return f"with {processes}: {reading}; answering is not known, since this model has not been timed yet"
    return (
        f"about {duration(seconds)} with {processes}; of that {reading}"
        if made.reading_s
        else (f"about {duration(seconds)} of answering with {processes}; {reading}")
    )


def _range(amount: Amount, exact: bool, say: Callable[[float], str] = "{:,.0f}".format) -> str:
    if exact or amount.low == amount.high:
        return f"about {say(amount.likely)}" if not exact else say(amount.likely)
    return f"about {say(amount.likely)} ({say(amount.low)} to {say(amount.high)})"


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size:,} bytes"


class _Progress:
    """How many documents of the sample were read: a bar on a terminal, nothing elsewhere, since it is short."""

    def __init__(self, screen: Screen) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._bar: Progress | None = None
        if screen.err.is_terminal and not screen.quiet:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
            self._bar = Progress(*columns, console=screen.err, transient=True, expand=True)
            self._bar.start()
            self._task = self._bar.add_task("Reading a sample", total=None)

    def advance(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
