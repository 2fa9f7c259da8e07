"""What can be wrong with a cluster. Every message says what to do about it."""

from __future__ import annotations

from lcdoc.jobs.errors import JobError


class RayError(JobError):
    """Ray is not there, cannot be reached, or does not fit. `str(error)` is one line."""
