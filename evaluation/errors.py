"""What can be wrong with an evaluation. Every message says what to do about it."""

from __future__ import annotations

from lcdoc.workflows.errors import WorkflowError


class EvaluationError(WorkflowError):
    """A set, its files or what was asked for does not do. `str(error)` is one line."""
