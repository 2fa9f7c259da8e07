"""What can be wrong with a job. Every message says what to do about it."""

from __future__ import annotations

from lcdoc.workflows.errors import WorkflowError


class JobError(WorkflowError):
    """A job, its file, its questions or its documents do not do. `str(error)` is one line."""
