"""What can be wrong with a job. Every message says what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcdoc.workflows.errors import WorkflowError

if TYPE_CHECKING:
    from pydantic import ValidationError


class JobError(WorkflowError):
    """A job, its file, its questions or its documents do not do. `str(error)` is one line."""


def misfit(error: ValidationError, where: str = "", remedy: str = "") -> JobError:
    """The first value that does not fit, in one line; `where` is put before it."""
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][-1]) + ": " if first["loc"] else ""
    return JobError(f"{where}{key}{first['msg'][:1].lower()}{first['msg'][1:]}", remedy)
