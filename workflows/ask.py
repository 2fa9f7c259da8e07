"""`ask`: the whole job in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from lcdoc.agents.models.budget import Budget
from lcdoc.agents.models.call_store import StoreMode
from lcdoc.documents import Limits
from lcdoc.retrieval.embedders import DEFAULT_EMBEDDER
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import Event
from lcdoc.workflows.registry import AUTO
from lcdoc.workflows.workflow import ignore_events
from lcdoc.workflows.workspace import Workspace


def ask(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    question: str,
    *,
    model: str | None = None,
    workflow: str = AUTO,
    budget: Budget | None = None,
    store: StoreMode = "use",
    library: str | os.PathLike[str] | None = None,
    password: str | None = None,
    embedder: str = DEFAULT_EMBEDDER,
    limits: Limits | None = None,
    on_event: Callable[[Event], None] = ignore_events,
) -> Answer:
    """Answer `question` from the files and folders `paths`, with checked quotes.

    `model` names what answers (docs/models.md); without it and without a configured one the answer is made offline: no
    key, no network. `workflow` is how the documents are read (docs/workflows.md), "auto" what fits the question.
    `budget` caps what it may cost; at a cap the answer is `partial`. `store` "refresh" asks the model anew, "off" keeps
    none of its answers. `answer.found` is false when the documents do not answer the question. What was read is kept
    in `library` (a file; default: the user's data folder), so that the next question is quick; for several questions
    in one process use a Workspace.

    Raises DocumentError, LibraryError, EmbedderError, ModelError, WorkflowError, each with one line that says what to
    do.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    with Workspace.open(library, embedder=embedder, limits=limits, background=False, model=model) as workspace:
        workspace.get_ready()
        documents = workspace.read(given, password=password, on_event=on_event)
        return workspace.ask(question, documents, workflow=workflow, budget=budget, store=store, on_event=on_event)
