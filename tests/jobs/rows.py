"""Rows of a made-up job."""

from datetime import UTC, datetime

from lcdoc.jobs.job import AskTask, ExtractTask, Job
from lcdoc.jobs.results import Result, ResultDocument, ResultTask
from lcdoc.workflows.answer import Usage

SCHEMA = {
    "type": "object",
    "title": "Lease",
    "properties": {
        "rent": {"type": "number"},
        "landlord": {"type": "object", "properties": {"name": {"type": "string"}}},
        "rooms": {"type": "array", "items": {"type": "string"}},
    },
}
JOB = Job(tasks=[AskTask(question="When does it end?"), ExtractTask(json_schema=SCHEMA)], documents=["/d"])


def citation(quote, page):
    span = {"start": 10, "end": 10 + len(quote)}
    return {
        "document_id": "d1", "span": span, "parts": [span], "status": "exact", "score": 100.0, "quote": quote,
        "pages": [page], "labels": [str(page)], "occurrences": 1, "headings": [],
    }  # fmt: skip


def row(document=1, task=1, *, answer="On 4 March 1871.", error="", job="abcd1234", **fields):
    """An answered row, or a failed one."""
    made = {
        "job": job,
        "document": ResultDocument(
            number=document, path=f"/d/{document}.pdf", name=f"{document}.pdf", id="d1", pages=9
        ),
        "task": ResultTask.of(task, JOB.tasks[task - 1]),
        "error": error,
        "finished_at": datetime(2026, 11, 27, 12, document % 60, task, tzinfo=UTC),
    }
    if not error:
        made |= {
            "found": True,
            "answer": answer,
            "claims": (
                {"text": answer, "confidence": 4.0, "citations": [citation("4 March", 3)], "unquoted_figures": []},
            ),
            "confidence": 4.0,
            "usage": Usage(calls=2, tokens_in=900, tokens_out=40, cost_usd=0.001),
        }
    return Result(**{**made, **fields})
