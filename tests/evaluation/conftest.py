"""Two files of one's own with questions about them, and an honest model on a server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcdoc.evaluation.desk import _CLOSED_BOOK
from lcdoc.memory import Library
from lcdoc.tests.servers.chat_server import ChatServer, Reply
from lcdoc.tests.servers.truthful import Truthful

LAMP = """\
# The lamp

The lamp at the north pier was lit for the first time on 4 March 1871. It was paid for by the guild of carters.

# The keepers

The first keeper was a retired rope maker. Her wage was nine crowns a month and a barrel of lamp oil.
"""
FERRIES = """\
# The ferries

The ferry Otterling carries ninety passengers and six carts. The ferry Bittern carries forty passengers only.
"""
QUESTIONS = (
    ("lamp.md", "When was the lamp at the north pier lit for the first time?", "4 March 1871", "on 4 March 1871"),
    ("lamp.md", "What was the wage of the first keeper?", "nine crowns a month", "nine crowns a month"),
    ("ferries.md", "How many passengers does the ferry Bittern carry?", "forty", "carries forty passengers only"),
)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file of questions, beside the files that they are about."""
    (tmp_path / "lamp.md").write_text(LAMP, encoding="utf-8")
    (tmp_path / "ferries.md").write_text(FERRIES, encoding="utf-8")
    rows = [
        {"file": file, "question": question, "answer": answer, "quote": quote}
        for file, question, answer, quote in QUESTIONS
    ]
    rows.append({"file": "ferries.md", "question": "Who was elected president of Zanzibar in 1999?"})
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "evaluation.sqlite") as opened:
        yield opened


class KnowsLittle(Truthful):
    """Without a document, it knows one thing."""

    def __call__(self, recorded):
        system, user = (message["content"] for message in recorded.body["messages"][:2])
        if system == _CLOSED_BOOK:
            self.read.append("closed_book")
            return Reply("Forty." if "Bittern" in user else "Unknown.")
        return super().__call__(recorded)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A server with the model `honest`, whose prices are known."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LCDOC_MODEL", "LCDOC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LCDOC_CONFIG", str(tmp_path / "config.toml"))
    with ChatServer() as running:
        running.default = KnowsLittle()
        running.models = [{"id": "honest", "max_model_len": 8192}]
        (tmp_path / "config.toml").write_text(
            f'[models.honest]\nurl = "{running.url}"\nanswer_timeout_s = 2.0\nfirst_token_timeout_s = 0.5\n'
            "idle_timeout_s = 0.5\nattempts = 1\nprices = { input = 1.0, output = 4.0 }\n",
            encoding="utf-8",
        )
        yield running
