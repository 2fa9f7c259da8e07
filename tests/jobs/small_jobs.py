"""Small jobs over small texts, and a model on a loopback server, for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcdoc.jobs.job import Job
from lcdoc.memory import Library
from lcdoc.tests.servers.chat_server import ChatServer
from lcdoc.tests.servers.truthful import Truthful

QUESTION = "How many passengers may the ferry carry?"


def texts(folder: Path, count: int) -> list[str]:
    """Files with an answer to QUESTION each, and a page that has nothing to do with it."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"ferry-{number}.txt" for number in range(1, count + 1)]
    for number, path in enumerate(paths, 1):
        path.write_text(
            f"Ferry {number}\n\nIn fair weather the ferry may carry {100 + number} passengers and {number} carts.\n\f"
            f"The bakers of ward {number} meet on Tuesdays, and talk about the price of flour.\n",
            encoding="utf-8",
        )
    return list(map(str, paths))


def begun(library: Library, paths: list[str], *questions: str, model: str = "offline", **settings: object) -> str:
    """A job that puts the questions to these files; returns its id."""
    tasks = [{"question": question, "workflow": "retrieve"} for question in questions or (QUESTION,)]
    job = Job(tasks=tasks, model=model, **settings)
    job_id = library.jobs.create(job.settings(), tasks=len(job.tasks), attempts=job.attempts)
    library.jobs.add_documents(job_id, paths)
    return job_id


def honest_model(server: ChatServer, folder: Path, monkeypatch: pytest.MonkeyPatch, *, concurrency: int = 4) -> None:
    """The model `honest`, which reads what it is sent and quotes from it, is the server's."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LCDOC_MODEL", "LCDOC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    server.default = Truthful()
    server.models = [{"id": "honest", "max_model_len": 8192}]
    config = folder / "config.toml"
    config.write_text(
        f'[models.honest]\nurl = "{server.url}"\nconcurrency = {concurrency}\nattempts = 2\n'
        'profile = "large"\nprices = { input = 1.0, output = 4.0 }\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("LCDOC_CONFIG", str(config))
