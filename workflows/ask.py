"""`ask`: the whole job in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from lcdoc.documents import Limits
from lcdoc.retrieval.embedders import DEFAULT_EMBEDDER
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import Event
from lcdoc.workflows.workflow import ignore_events
from lcdoc.workflows.workspace import Workspace


def ask(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    question: str,
    *,
    library: str | os.PathLike[str] | None = None,
    password: str | None = None,
    embedder: str = DEFAULT_EMBEDDER,
    limits: Limits | None = None,
    on_event: Callable[[Event], None] = ignore_events,
) -> Answer:
    """Answer `question` from the files and folders `paths`, with checked quotes. Offline: no key, no network.

    `answer.found` is false when the documents do not answer it. What was read is kept in `library` (a file; default:
    the user's data folder), so that the next question is quick; for several questions in one process use a Workspace.
    Raises DocumentError, LibraryError, EmbedderError, each with one line that says what to do.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    with Workspace.open(library, embedder=embedder, limits=limits, background=False) as workspace:
        documents = workspace.read(given, password=password, on_event=on_event)
        return workspace.ask(question, documents, on_event=on_event)
