"""`lcdoc batch`: folders of documents, many questions each, unattended."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from lcdoc.commands.batch_control import (
    batch_add,
    batch_cancel,
    batch_export,
    batch_list,
    batch_pause,
    batch_remove,
    batch_resume,
    batch_status,
    batch_work,
)
from lcdoc.commands.batch_options import (
    CsvOption,
    JobOptions,
    OnOption,
    OutOption,
    SharedOption,
    WorkersOption,
    takes_job_options,
)
from lcdoc.commands.batch_plan import batch_plan
from lcdoc.commands.guard import guarded, usage_error
from lcdoc.commands.options import DebugOption, LibraryOption, QuietOption

if TYPE_CHECKING:
    from lcdoc.jobs.begin import Begun
    from lcdoc.memory.job_records import JobStatus
    from lcdoc.screen import Screen


class _RunFirst(TyperGroup):
    """`lcdoc batch contracts/ --ask q.txt` is `lcdoc batch run contracts/ --ask q.txt`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            meant = difflib.get_close_matches(args[0], list(self.commands), n=1, cutoff=0.75)
            if meant and not args[0].startswith("@") and not Path(args[0]).exists():
                raise usage_error(f"{args[0]} is no command and no file; did you mean lcdoc batch {meant[0]}?")
            args = ["run", *args]
        return super().parse_args(ctx, args)


batch_app = typer.Typer(
    cls=_RunFirst,
    help="Put questions to whole folders, for days if need be: lcdoc batch contracts/ --ask questions.txt --out"
    " results/. Nothing is lost or paid for twice, whatever dies; the same command goes on. More: lcdoc batch run"
    " --help.",
    no_args_is_help=True,
)


@batch_app.command("run")
@guarded
@takes_job_options
def batch_run(
    options: JobOptions,
    out: OutOption = None,
    csv: CsvOption = False,
    workers: WorkersOption = None,
    on: OnOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also try again what has failed.")] = False,
    shared: SharedOption = None,
    library: LibraryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask every question of every document by itself; summarise or extract from each.

    A row for each document and question is kept in the library the moment it is there, and written to --out as it comes
    (its form is in docs/json.md); at the end the file is put in order. A document that cannot be read has rows that say
    why. The same command again goes on where it was, with documents that are new and the caps given now. Exit code 0:
    all is answered, 3: some rows are failures, or it was stopped before its end, 2: bad input, 130: interrupted.

    lcdoc batch contracts/ --ask "When does the lease end?" --out results/

    lcdoc batch contracts/ reports/ --ask questions.csv --summarize --words 200 --out results/ --csv

    lcdoc batch 'scans/**/*.pdf' --extract lease.json --model openai/gpt-4.1-mini --max-cost 20 --out results/

    find . -name '*.pdf' | lcdoc batch - --ask questions.txt --workers 4 --out results/

    lcdoc batch plan contracts/ --ask questions.txt --model openai/gpt-4.1-mini

    lcdoc batch --job leases.toml
    """
    from lcdoc.commands.batch_job import job_of, list_on_stdin, save, shared_by
    from lcdoc.commands.batch_work import work_at
    from lcdoc.jobs.begin import begin
    from lcdoc.memory import Library
    from lcdoc.screen import Screen

    if csv and out is None:
        raise usage_error("--csv writes into the folder of --out; name one")
    if on is not None and on != "ray" and not on.startswith("ray://"):
        raise usage_error(f"--on {on} is no cluster; try --on ray, or --on ray://HOST:10001")
    if on is not None and workers is not None:
        raise usage_error("--workers is for this machine; a cluster has as many as it has room for")
    job = job_of(options)
    stdin = list_on_stdin(job.documents)
    shared_by(shared)
    with Screen(quiet=quiet) as screen, Library.open(library) as opened:
        if save(job, options):
            screen.say(f"the job is in {options.save_job}")
        begun = begin(opened, job, out="" if out is None else str(out.absolute()), stdin=stdin)
        _say_begun(screen, begun, opened.jobs.status(begun.record.id))
        if retry_failed and (again := opened.jobs.retry_failed(begun.record.id)):
            screen.say(f"{again:,} failed answers are tried again")
        work_at(screen, opened, begun.record, workers=workers, on=on, csv=csv)


def _say_begun(screen: Screen, begun: Begun, status: JobStatus) -> None:
    from lcdoc.jobs.sources import skipped_text

    record = begun.record
    if begun.again:
        new = f", with {begun.added:,} new document{'s'[: begun.added != 1]}" if begun.added else ""
        was = f", which was {begun.was}" if begun.was in {"paused", "cancelled"} else ""
        there = f"{status.total - status.unfinished:,} of {status.total:,} answers are there"
        screen.say(f"going on with job {record.id} ({record.name}){was}{new}: {there}")
    else:
        tasks = f"{record.tasks:,} task{'s'[: record.tasks != 1]} each"
        documents = f"{begun.added:,} document{'s'[: begun.added != 1]}"
        screen.say(f"job {record.id} ({record.name}): {documents}, {tasks}; lcdoc batch status {record.id} shows it")
    if begun.skipped:
        screen.say(f"passed over in folders: {skipped_text(begun.skipped)}")


for _name, _command in (
    ("plan", batch_plan),
    ("status", batch_status),
    ("list", batch_list),
    ("export", batch_export),
    ("pause", batch_pause),
    ("resume", batch_resume),
    ("cancel", batch_cancel),
    ("add", batch_add),
    ("work", batch_work),
    ("remove", batch_remove),
):
    batch_app.command(_name)(_command)
