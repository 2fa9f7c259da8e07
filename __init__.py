"""lcdoc reads documents longer than a model can take and answers with page citations checked against the source.

    import lcdoc
    answer = lcdoc.ask("book.pdf", "Why did she leave?")
    for claim in answer.claims:
        print(claim.text, [citation.pages for citation in claim.citations])

`lcdoc.Workspace` keeps documents open between questions; `lcdoc.load` gives a document's text, pages and sections;
`lcdoc.batch` puts many questions to each of many documents.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcdoc.agents.models.budget import Budget
    from lcdoc.agents.models.errors import ModelError
    from lcdoc.documents import Document, DocumentError, Limits, Span, load
    from lcdoc.jobs.api import batch
    from lcdoc.jobs.job import Job
    from lcdoc.jobs.results import Result
    from lcdoc.workflows.answer import Answer
    from lcdoc.workflows.ask import ask
    from lcdoc.workflows.workspace import Workspace

__version__ = "0.1.0"

# Imported when first used: `import lcdoc` alone must cost nothing.
_HOMES = {
    "Answer": "lcdoc.workflows.answer",
    "Budget": "lcdoc.agents.models.budget",
    "Document": "lcdoc.documents",
    "DocumentError": "lcdoc.documents",
    "Job": "lcdoc.jobs.job",
    "Limits": "lcdoc.documents",
    "ModelError": "lcdoc.agents.models.errors",
    "Result": "lcdoc.jobs.results",
    "Span": "lcdoc.documents",
    "Workspace": "lcdoc.workflows.workspace",
    "ask": "lcdoc.workflows.ask",
    "batch": "lcdoc.jobs.api",
    "load": "lcdoc.documents",
}

__all__ = [
    "Answer",
    "Budget",
    "Document",
    "DocumentError",
    "Job",
    "Limits",
    "ModelError",
    "Result",
    "Span",
    "Workspace",
    "__version__",
    "ask",
    "batch",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lcdoc' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
