"""The commands of `lcdoc batch` for jobs that are there: look, steer, work, export."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcdoc.commands.batch_options import (
    CsvOption,
    FormatOption,
    JobArgument,
    OnOption,
    SharedOption,
    WorkersOption,
)
from lcdoc.commands.guard import guarded, usage_error
from lcdoc.commands.options import DebugOption, JsonOption, LibraryOption, QuietOption

if TYPE_CHECKING:
    from lcdoc.memory import Library
    from lcdoc.memory.job_records import JobRecord, JobStatus
    from lcdoc.screen import Screen

_WATCHED_EVERY_S = 1.0


@guarded
def batch_status(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]", help="An id, its beginning, or a name [default: the latest].", show_default=False
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it until it ends.")] = False,
    as_json: JsonOption = False,
    shared: SharedOption = None,
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Show how far a job is, whoever works at it: progress, pace, money, what is left, the slowest documents.

    lcdoc batch status --watch
    """
    from lcdoc.commands.batch_view import BatchView, picture
    from lcdoc.jobs.job import Job

    with _opened(shared, library) as (screen, opened):
        record = _found(opened, job)
        described = Job.of(record.settings)
        if watch and not as_json:
            # Who only looks interrupts nothing.
            with BatchView(screen, described.caps) as view, suppress(KeyboardInterrupt):
                while (status := opened.jobs.status(record.id)).job.state == "open":
                    view.update(status)
                    time.sleep(_WATCHED_EVERY_S)
        status = opened.jobs.status(record.id)
        if as_json:
            screen.json(_status_json(status))
            return
        screen.plain(_heading(status.job))
        for line in picture(status, screen.out.width if screen.out.is_terminal else 1000, caps=described.caps):
            screen.plain(line.plain)
        if status.job.state == "open" and not status.workers:
            screen.say(f"nobody is at it; to go on: lcdoc batch resume {record.id}")


def _status_json(status: JobStatus) -> dict[str, Any]:
    value = status.as_dict()
    value["job"]["settings"].pop("password", None)
    return value


def _heading(record: JobRecord) -> str:
    from lcdoc.screen import shown

    begun = f"{record.created_at.astimezone():%Y-%m-%d %H:%M}"
    reason = f" ({record.reason})" if record.reason else ""
    return shown(f"{record.id}  {record.name}, begun {begun}: {record.state}{reason}")


@guarded
def batch_list(
    as_json: JsonOption = False,
    shared: SharedOption = None,
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """List the jobs, the latest first."""
    from lcdoc.screen import shown

    with _opened(shared, library) as (screen, opened):
        statuses = [opened.jobs.status(record.id) for record in opened.jobs.list()]
        if as_json:
            screen.json([_status_json(status) for status in statuses])
            return
        for status in statuses:
            record, done = status.job, status.tasks["done"] + status.tasks["failed"]
            failed = f", {status.tasks['failed']:,} failed" if status.tasks["failed"] else ""
            screen.plain(
                shown(
                    f"{record.id}  {record.created_at.astimezone():%Y-%m-%d %H:%M}  {record.state:<9}"
                    f"  {done:,} of {status.total:,} answers{failed}  {record.name}"
                )
            )
        screen.say(f"{len(statuses):,} job{'s'[: len(statuses) != 1]} in {opened.path}")


@guarded
def batch_export(
    job: JobArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="[default: standard output]", show_default=False),
    ] = None,
    form: FormatOption = None,
    shared: SharedOption = None,
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Write the rows that are there, by document and question: also while the job runs.

    Lines of JSON as docs/json.md describes them, a table for spreadsheets, or Parquet (takes lcdoc[parquet]).

    lcdoc batch export 3f2a91bc --out results.parquet

    lcdoc batch export 3f2a91bc --format csv > results.csv
    """
    from lcdoc.jobs.export import WRITERS, export, format_of
    from lcdoc.jobs.job import Job
    from lcdoc.jobs.results_folder import kept_results

    if out is None and form == "parquet":
        raise usage_error("Parquet is no text; name a file with --out")
    wanted = (form or "jsonl") if out is None else format_of(out, form)
    with _opened(shared, library) as (screen, opened):
        record = _found(opened, job)
        described = Job.of(record.settings)
        rows = kept_results(opened, record.id, described)
        if out is None:
            count = WRITERS[wanted](rows, sys.stdout.buffer, described.tasks)
        else:
            count = export(rows, out, wanted, described.tasks)
        missing = opened.jobs.unfinished(record.id)
        left = f"; {missing:,} are not there yet" if missing else ""
        screen.say(f"{count:,} row{'s'[: count != 1]}{left}")


@guarded
def batch_pause(
    job: JobArgument, shared: SharedOption = None, library: LibraryOption = None, debug: DebugOption = False
) -> None:
    """Give out no more work; what is under way is finished. lcdoc batch resume goes on."""
    with _opened(shared, library) as (screen, opened):
        record = _found(opened, job)
        if opened.jobs.pause(record.id, ""):
            screen.say(f"job {record.id} is paused; to go on: lcdoc batch resume {record.id}")
        else:
            screen.say(f"job {record.id} is {record.state} already")


@guarded
def batch_cancel(
    job: JobArgument, shared: SharedOption = None, library: LibraryOption = None, debug: DebugOption = False
) -> None:
    """Give out no more work, and drop what is under way. The rows that are there stay."""
    with _opened(shared, library) as (screen, opened):
        record = _found(opened, job)
        if opened.jobs.cancel(record.id, ""):
            screen.say(f"job {record.id} is cancelled; its rows stay: lcdoc batch export {record.id}")
        else:
            screen.say(f"job {record.id} is {record.state} already")


@guarded
def batch_resume(
    job: JobArgument,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also try again what has failed.")] = False,
    csv: CsvOption = False,
    workers: WorkersOption = None,
    on: OnOption = None,
    shared: SharedOption = None,
    library: LibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Go on with a job that was interrupted, paused or cancelled; with workers of its own where nobody is at it.

    lcdoc batch resume 3f2a91bc --retry-failed
    """
    from lcdoc.commands.batch_work import work_at

    with _opened(shared, library, quiet=quiet) as (screen, opened):
        record = _found(opened, job)
        if csv and not record.out:
            raise usage_error("--csv writes into the folder of --out, and this job has none; see lcdoc batch export")
        if retry_failed:
            again = opened.jobs.retry_failed(record.id)
            screen.say(f"{again:,} failed answer{'s'[: again != 1]} {'is' if again == 1 else 'are'} tried again")
        opened.jobs.resume(record.id)
        if opened.jobs.status(record.id).workers:
            screen.say(f"{_at_work(opened, record)}; lcdoc batch status {record.id} shows it")
            return
        work_at(screen, opened, opened.jobs.get(record.id), workers=workers, on=on, csv=csv)


@guarded
def batch_add(
    job: JobArgument,
    paths: Annotated[list[str], typer.Argument(metavar="PATHS...", help="As lcdoc batch run takes them.")],
    shared: SharedOption = None,
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Add documents to a job, also while it runs.

    lcdoc batch add 3f2a91bc new-contracts/
    """
    from lcdoc.commands.batch_job import list_on_stdin
    from lcdoc.jobs.sources import Sources, skipped_text

    stdin = list_on_stdin(paths)
    with _opened(shared, library) as (screen, opened):
        record = _found(opened, job)
        sources = Sources(paths, stdin=stdin)
        sources.check()
        added = opened.jobs.add_documents(record.id, sources)
        screen.say(f"{added:,} document{'s'[: added != 1]} added to job {record.id}")
        if sources.skipped:
            screen.say(f"passed over in folders: {skipped_text(sources.skipped)}")
        status = opened.jobs.status(record.id)
        if status.unfinished and not status.workers:
            screen.say(f"nobody is at it; to go on: lcdoc batch resume {record.id}")


@guarded
def batch_work(
    job: JobArgument,
    stay: Annotated[bool, typer.Option("--stay", help="Wait for more documents when all is done.")] = False,
    shared: SharedOption = None,
    library: LibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Be one more worker of a job, until nothing is left: on this machine, or on any that reaches --shared.

    Exit code 0: all is done, 3: the job is paused or cancelled, 130: interrupted, what was under way is given back.

    lcdoc batch work 3f2a91bc --shared postgresql://host/lcdoc
    """
    from lcdoc.jobs.worker import work

    with _opened(shared, library, quiet=quiet) as (screen, opened):
        record = _found(opened, job)
        screen.say(f"working at job {record.id} ({record.name})")
        path = opened.path
    ending = work(path, record.id, stay=stay, on_line=screen.warn)
    if ending:
        raise typer.Exit(int(ending))


@guarded
def batch_remove(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids, their beginnings, or names.")],
    shared: SharedOption = None,
    library: LibraryOption = None,
    debug: DebugOption = False,
) -> None:
    """Forget jobs and their rows. Documents stay in the library, and files that were written stay."""
    with _opened(shared, library) as (screen, opened):
        records = [_found(opened, job) for job in jobs]
        for record in records:
            if opened.jobs.status(record.id).workers:
                raise usage_error(f"{_at_work(opened, record)}; first: lcdoc batch cancel {record.id}")
        for record in records:
            opened.jobs.remove(record.id)
            screen.say(f"removed {record.id}")


@contextmanager
def _opened(shared: str | None, library: Path | None, *, quiet: bool = False) -> Iterator[tuple[Screen, Library]]:
    from lcdoc.commands.batch_job import shared_by
    from lcdoc.memory import Library
    from lcdoc.screen import Screen

    shared_by(shared)
    with Screen(quiet=quiet) as screen, Library.open(library) as opened:
        yield screen, opened


def _at_work(library: Library, record: JobRecord) -> str:
    count = len(library.jobs.status(record.id).workers)
    return f"{count:,} worker{' is' if count == 1 else 's are'} at job {record.id}"


def _found(library: Library, job: str | None) -> JobRecord:
    if job is not None:
        return library.jobs.find(job)
    records = library.jobs.list()
    if not records:
        raise usage_error("there is no job yet; try: lcdoc batch contracts/ --ask questions.txt --out results/")
    return records[0]
