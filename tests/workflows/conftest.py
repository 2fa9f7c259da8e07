"""A question, a document and a model on a server, as everybody uses them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lcdoc.tests.servers.chat_server import ChatServer
from lcdoc.tests.servers.truthful import Truthful
from lcdoc.workflows.workspace import Workspace

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook.md"
CAPACITY = "How many passengers may the Bittern carry?"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A server whose model reads what it is sent and quotes from it."""
    with ChatServer() as running:
        running.default = Truthful()
        running.models = [{"id": "honest", "max_model_len": 8192}]
        yield running


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write a configuration file, which counts from then on; keys and names of the environment do not."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LCDOC_MODEL", "LCDOC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "config.toml"
    monkeypatch.setenv("LCDOC_CONFIG", str(path))

    def write(text: str) -> None:
        path.write_text(text, encoding="utf-8")

    write("")
    return write


@pytest.fixture
def asked(server: ChatServer, configure: Callable[[str], None], tmp_path: Path) -> Iterator[Callable[..., object]]:
    """Ask the handbook through the server's model; keyword arguments are those of `Workspace.ask`."""
    configure(
        f'[models.honest]\nurl = "{server.url}"\nanswer_timeout_s = 2.0\nfirst_token_timeout_s = 0.5\n'
        "idle_timeout_s = 0.5\nprices = { input = 1.0, output = 4.0 }\n"
    )
    with Workspace.open(tmp_path / "library.sqlite", background=False, model="honest") as workspace:
        documents = workspace.read([HANDBOOK])

        def ask(question: str = CAPACITY, **options: object) -> object:
            return workspace.ask(question, documents, workflow="retrieve", **options)

        ask.workspace = workspace
        ask.documents = documents
        yield ask
