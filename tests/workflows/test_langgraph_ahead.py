"""LangGraph is imported beside the search, and by nobody who asks nothing."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from lcdoc.retrieval.index import Index
from lcdoc.workflows.workspace import Workspace

_FORKS_MEANWHILE = """
import multiprocessing
from lcdoc.workflows.langgraph_ahead import begin_import, wait_for_import
begin_import()
child = multiprocessing.get_context("fork").Process(target=wait_for_import)
child.start()
child.join(60)
print(child.exitcode)
"""


def _printed(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_reading_files_imports_neither_langgraph_nor_a_client(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("The mill was sold in 1871.", encoding="utf-8")
    code = (
        "import sys; from lcdoc.workflows.workspace import Workspace\n"
        f"with Workspace.open({str(tmp_path / 'library.sqlite')!r}) as workspace: workspace.read([{str(path)!r}])\n"
        "print(*[m for m in ('langgraph', 'langchain_core', 'openai', 'httpx2') if m in sys.modules])"
    )
    assert _printed(code) == ""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_process_forked_meanwhile_can_use_it() -> None:
    assert _printed(_FORKS_MEANWHILE) == "0"


def test_what_cannot_be_imported_is_said_where_it_is_waited_for() -> None:
    code = (
        "import sys; sys.modules['langgraph'] = None\n"
        "from lcdoc.workflows.langgraph_ahead import begin_import, wait_for_import\n"
        "begin_import()\n"
        "try: wait_for_import()\nexcept ImportError as error: print('langgraph' in str(error))"
    )
    assert _printed(code) == "True"


def test_a_look_up_searches_before_langgraph_is_there(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("The mill was sold in 1871.", encoding="utf-8")
    code = (
        "import sys; from lcdoc.retrieval.index import Index; from lcdoc.workflows import frame\n"
        "from lcdoc.workflows.workspace import Workspace; from threading import Event\n"
        "searched, search, wait = Event(), Index.search, frame.wait_for_import\n"
        "def watched(*given, **options):\n"
        "    searched.set(); return search(*given, **options)\n"
        "Index.search = watched\n"
        "frame.wait_for_import = lambda: (print(searched.wait(30)), wait())\n"
        f"with Workspace.open({str(tmp_path / 'library.sqlite')!r}) as workspace:\n"
        f"    print(workspace.ask('When was the mill sold?', workspace.read([{str(path)!r}])).found)"
    )
    assert _printed(code).split() == ["True", "True"]


def test_a_wider_search_reads_on_in_the_same_ranking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[str] = []
    search = Index.search

    def counted(self: Index, question: str, *given: object, **options: object) -> object:
        searches.append(question)
        return search(self, question, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Index, "search", counted)
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(f"Barge {n} brought {n} bales of wool. " * 30 for n in range(40)), encoding="utf-8")
    with Workspace.open(tmp_path / "library.sqlite", background=False) as workspace:
        answer = workspace.ask("When was the enzyme discovered?", workspace.read([path]))
    assert not answer.found
    assert answer.passages_read > 12
    assert len(searches) == 1
