"""A job is begun, or found again: the same documents and tasks by the same means are the same job, which goes on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lcdoc.agents.models.config import load_config
from lcdoc.agents.models.names import wanted
from lcdoc.jobs.errors import JobError
from lcdoc.jobs.job import Job
from lcdoc.jobs.result_log import check_folder
from lcdoc.jobs.sources import STDIN, Sources, located, told_apart
from lcdoc.memory import Library
from lcdoc.memory.job_records import JobRecord
from lcdoc.workflows.readers import ReadingDesk


@dataclass(frozen=True, slots=True)
class Begun:
    """A job that workers can take up."""

    record: JobRecord
    job: Job
    """As it is kept: with absolute paths, and the model that a configuration named."""
    again: bool
    """It was there already."""
    was: str
    """Its state before; `new` where it was not there."""
    added: int
    """Documents that were not in it."""
    skipped: Counter[str] = field(default_factory=Counter)
    """What was passed over in folders, by what it is."""


def settled(job: Job, *, stdin: bytes | None = None) -> Job:
    """The job as it is kept: nothing in it depends on the working folder, the configuration or the environment."""
    documents = told_apart(located(job.documents, Path.cwd()), stdin)
    return job.changed(documents=documents, model=wanted(job.model, load_config()))


def begin(library: Library, job: Job, *, out: str = "", stdin: bytes | None = None) -> Begun:
    """Enter the job in the library, or find it there, and add the documents that are new; `stdin` is the list for `-`.

    Its caps and attempts are those given now. One that was paused or cancelled is open again. Raises JobError,
    NotFoundError for documents that are not there, ModelError for a model that cannot be asked, LibraryError.
    """
    job = settled(job, stdin=stdin)
    if not job.documents:
        raise JobError("the job has no documents", "name files or folders, or write documents = [...] in the job file")
    # A model that means nothing, or has no key, is told before documents are read for hours.
    ReadingDesk(library, job.asked_model)
    sources = Sources(job.documents, stdin=stdin)
    sources.check()
    jobs, settings = library.jobs, job.settings()
    found = jobs.same(settings)
    if out:
        check_folder(Path(out), None if found is None else found.id)
    if found is None:
        name = job.name or _name_of(job.documents[0])
        job_id = jobs.create(settings, tasks=len(job.tasks), attempts=job.attempts, name=name, out=out)
    else:
        job_id = found.id
        if settings != dict(found.settings) or (out and out != found.out):
            jobs.change(job_id, settings, attempts=job.attempts, name=job.name or None, out=out or None)
    added = jobs.add_documents(job_id, sources)
    if found is not None:
        jobs.resume(job_id)
    was = "new" if found is None else found.state
    return Begun(jobs.get(job_id), job, found is not None, was, added, sources.skipped)


def _name_of(document: str) -> str:
    return "standard input" if document.startswith(STDIN) else Path(document.removeprefix("@")).name
