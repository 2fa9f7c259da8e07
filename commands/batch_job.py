"""From options to a job: what `lcdoc batch` was asked for, told in one line where it does not do."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lcdoc.commands.guard import usage_error
from lcdoc.jobs.begin import settled
from lcdoc.jobs.errors import JobError, misfit
from lcdoc.jobs.job import Job, SummarizeTask, Task
from lcdoc.jobs.job_file import to_toml
from lcdoc.jobs.questions import asked, extracted
from lcdoc.jobs.sources import STDIN
from lcdoc.workflows.summary_request import DEFAULT_WORDS, LEAST_WORDS, MOST_WORDS

if TYPE_CHECKING:
    from lcdoc.commands.batch_options import JobOptions

_TRY = "try: lcdoc batch contracts/ --ask questions.txt --out results/"


def job_of(options: JobOptions) -> Job:
    """The job that the options say, a job file's where one is named. Raises JobError, NotFoundError, typer.Exit."""
    if options.no_cache and options.refresh:
        raise usage_error("--no-cache and --refresh exclude each other: the first keeps nothing, the second replaces")
    if not options.summarize and (options.words is not None or options.about):
        raise usage_error("--words and --about are of a summary; add --summarize")
    if options.workflow is not None and not options.ask:
        raise usage_error("--workflow is how questions are answered; add --ask")
    tasks = _tasks(options)
    given = _given(options)
    if options.job_file is not None:
        if tasks:
            raise usage_error("what is asked is in the job file; give --ask, --summarize and --extract without --job")
        base = Job.load(options.job_file)
        for name in ("caps", "per_document"):
            given[name] = getattr(base, name).changed(**given.get(name, {}))
        job = base.changed(**given)
    else:
        if not tasks:
            raise usage_error(f"nothing is asked; {_TRY}")
        try:
            job = Job(tasks=tuple(tasks), **given)
        except ValidationError as error:
            raise misfit(error) from None
    if not job.documents:
        raise usage_error(f"the documents are missing; {_TRY}")
    return job


def list_on_stdin(paths: Sequence[str]) -> bytes | None:
    """The list of documents on standard input, where `-` is among the paths. Raises typer.Exit on a terminal."""
    if STDIN not in paths:
        return None
    if sys.stdin.isatty():
        raise usage_error("- reads a list of documents from standard input; pipe one in, a path a line")
    return sys.stdin.buffer.read()


def shared_by(url: str | None) -> None:
    """What `--shared` names is where every library of this process, and of its workers, keeps what machines share.

    Raises LibraryError for what is no address.
    """
    from lcdoc.memory import shared_url

    if (address := shared_url(url)) is not None:
        # Not on the workers' command lines, which others can read: it may hold a password.
        os.environ["LCDOC_SHARED"] = address


def save(job: Job, options: JobOptions) -> bool:
    """Write the job where `--save-job` says; whether it does. Raises JobError."""
    path = options.save_job
    if path is None:
        return False
    if any(one.startswith(STDIN) for one in job.documents):
        raise usage_error("a list on standard input is in no job file; keep it in a file, and name that: @list.txt")
    try:
        path.write_text(to_toml(settled(job), path.parent), encoding="utf-8")
    except OSError as error:
        raise JobError(f"{path} cannot be written ({error.strerror})", "name another file") from error
    return True


def _tasks(options: JobOptions) -> list[Task]:
    tasks: list[Task] = []
    for one in options.ask or ():
        tasks += asked(one, workflow=options.workflow)
    if options.summarize:
        words = DEFAULT_WORDS if options.words is None else options.words
        if not LEAST_WORDS <= words <= MOST_WORDS:
            raise usage_error(f"--words {words} is not from {LEAST_WORDS} to {MOST_WORDS:,}")
        tasks.append(SummarizeTask(about=options.about, words=words))
    tasks += [extracted(path) for path in options.extract or ()]
    return tasks


def _given(options: JobOptions) -> dict[str, Any]:
    """Fields of a job that were given."""
    store = "off" if options.no_cache else "refresh" if options.refresh else None
    fields = {
        "documents": options.paths,
        "name": options.name,
        "model": options.model,
        "kv": options.kv,
        "profile": options.profile,
        "embedder": options.embedder,
        "password": options.password,
        "store": store,
        "caps": _caps(options, ""),
        "per_document": _caps(options, "_per_document"),
    }
    return {name: value for name, value in fields.items() if value}


def _caps(options: JobOptions, suffix: str) -> dict[str, Any]:
    names = {"usd": "max_cost", "tokens": "max_tokens", "calls": "max_calls", "seconds": "max_seconds"}
    caps = {name: getattr(options, f"{option}{suffix}") for name, option in names.items()}
    return {name: value for name, value in caps.items() if value is not None}
