"""Several documents: which are read in full, which a question names, and shares of what a comparison reads."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcdoc import Workspace
from lcdoc.documents import Document
from lcdoc.workflows.readers import OfflineReaders
from lcdoc.workflows.registry import make
from lcdoc.workflows.scout import MOST_COMPARED, FairSearch, candidates, compared_in, named_in
from lcdoc.workflows.search import Search
from lcdoc.workflows.workflow import run

ISLANDS = {
    "skarn": "a lighthouse of red brick",
    "tolland": "an observatory for the weather",
    "varn": "a cannery",
    "wexley": "a school for pilots",
    "yarrow": "a quarry of blue slate",
    "zennor": "a hospital for seals",
    "orsa": "a rope walk",
    "pell": "a salt works",
}


def text_of(name: str, thing: str, *, paragraphs: int = 6) -> str:
    told = [f"# The island of {name.title()}", f"On the north side of {name.title()} there is {thing}."]
    told += [
        f"In year {1870 + i} the pier of {name.title()} was mended with {i} loads of oak." for i in range(paragraphs)
    ]
    return "\n\n".join(told)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("islands")
    for name, thing in ISLANDS.items():
        (folder / f"{name}_1890_survey.md").write_text(text_of(name, thing), encoding="utf-8")
    # One document says far more about piers than any other.
    talkative = text_of("Talkative", "a pier, a second pier and a third pier", paragraphs=120)
    (folder / "talkative.md").write_text(talkative, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with Workspace.open(tmp_path_factory.mktemp("library") / "library.sqlite", background=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def documents(workspace: Workspace, folder: Path) -> list[Document]:
    return workspace.read([folder])


@pytest.fixture
def search(workspace: Workspace) -> Search:
    return Search(workspace.index)


def files(documents: list[Document] | tuple[Document, ...]) -> list[str]:
    return [Path(document.source.path).stem.split("_")[0] for document in documents]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Which island has a hospital for seals?", "zennor"),
        ("Who works at the observatory for the weather?", "tolland"),
        ("Why was the quarry of blue slate opened?", "yarrow"),
    ],
)
def test_the_document_that_answers_is_among_the_candidates(
    search: Search, documents: list[Document], question: str, expected: str
) -> None:
    found = asyncio.run(candidates(question, documents, search, most=3))
    assert expected in files(found.documents)
    assert len(found.documents) == 3
    assert f"3 of {len(documents)} documents" in found.reason


def test_candidates_stay_in_the_order_of_the_documents(search: Search, documents: list[Document]) -> None:
    found = asyncio.run(candidates("Which island has a hospital for seals?", documents[::-1], search, most=4))
    places = [documents.index(document) for document in found.documents]
    assert places == sorted(places, reverse=True)


def test_few_documents_are_all_read_and_nothing_is_searched(documents: list[Document]) -> None:
    unusable: Search = None  # type: ignore[assignment]
    found = asyncio.run(candidates("Anything?", documents[:5], unusable, most=5))
    assert list(found.documents) == documents[:5]


def test_a_named_document_is_never_left_out(search: Search, documents: list[Document]) -> None:
    question = "What do Orsa, Pell and Varn say about seals, slate, pilots and the weather?"
    found = asyncio.run(candidates(question, documents, search, most=2))
    assert files(found.documents) == ["orsa", "pell", "varn"]
    assert "named" in found.reason


def test_a_question_without_words_still_has_candidates(search: Search, documents: list[Document]) -> None:
    assert len(asyncio.run(candidates("???", documents, search, most=2)).documents) == 2


FILINGS = ("3M_2018_10K", "3M_2019_10K", "BOEING_2018_10K", "PEPSICO_2022_10K")


@pytest.fixture(scope="module")
def filings(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    folder = tmp_path_factory.mktemp("filings")
    for name in FILINGS:
        (folder / f"{name}.txt").write_text(f"A filing. It says {name.lower()} and no more.", encoding="utf-8")
    return workspace.read([folder])


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("How did sales of 3M and Boeing develop in 2018?", ["3M_2018_10K", "BOEING_2018_10K"]),
        ("What did 3M spend in 2018 and in 2019?", ["3M_2018_10K", "3M_2019_10K"]),
        ("What does PepsiCo pay?", ["PEPSICO_2022_10K"]),
        ("Compare the filings of 2018.", ["3M_2018_10K", "BOEING_2018_10K"]),
        ("What does boeing_2018_10k say?", ["BOEING_2018_10K"]),
        ("What is said in the 10K of each company?", []),
        ("Who audits?", []),
        ("", []),
    ],
)
def test_documents_are_named_by_what_tells_them_apart(filings: list[Document], question: str, named: list[str]) -> None:
    assert [Path(document.source.path).stem for document in named_in(question, filings)] == named


def test_titles_name_documents(documents: list[Document]) -> None:
    assert files(named_in("What is told in The Island of Wexley?", documents)) == ["wexley"]


def test_one_ranking_would_be_filled_by_the_talkative_document(search: Search, documents: list[Document]) -> None:
    question = "Compare the piers of Talkative and Skarn."
    plain, _ = asyncio.run(search.best(question, documents, 12))
    assert Counter(files([passage.document for passage in plain]))["talkative"] >= 10


def test_compared_documents_have_equal_shares_best_passages_first(search: Search, documents: list[Document]) -> None:
    question = "Compare the piers of Talkative and Varn."
    passages, _ = asyncio.run(FairSearch.of(search).best(question, documents, 48))
    assert set(files([passage.document for passage in passages[:2]])) == {"talkative", "varn"}
    own = [passage for passage in passages if "varn" in passage.document.source.path]
    alone, _ = asyncio.run(search.best(question, [own[0].document], 48))
    assert [passage.span for passage in own] == [passage.span for passage in alone]


def test_all_documents_are_compared_where_none_is_named(search: Search, documents: list[Document]) -> None:
    few = documents[:4]
    passages, _ = asyncio.run(FairSearch.of(search).best("Which of the islands mended its pier first?", few, 12))
    counts = Counter(passage.document.id for passage in passages)
    assert set(counts) == {document.id for document in few}


def test_other_questions_are_searched_as_ever(search: Search, documents: list[Document]) -> None:
    question = "When was the pier mended with 17 loads?"
    fair, notes = asyncio.run(FairSearch.of(search).best(question, documents, 12))
    plain, plain_notes = asyncio.run(search.best(question, documents, 12))
    assert ([passage.span for passage in fair], notes) == ([passage.span for passage in plain], plain_notes)


def test_too_many_documents_are_not_searched_one_by_one(documents: list[Document]) -> None:
    many = documents * 2
    assert len(many) > MOST_COMPARED
    assert compared_in("Which of them is oldest?", many) == []
    assert compared_in("Which of them is oldest?", documents) == documents
    assert compared_in("Which of them is oldest?", documents[:1]) == []


def test_retrieve_reads_from_each_document_compared(workspace: Workspace, documents: list[Document]) -> None:
    retrieve = make(
        "retrieve",
        workspace.library,
        Search(workspace.index),
        OfflineReaders(workspace.embedder, workspace.library.runs),
    )
    answer = asyncio.run(run(retrieve, "Compare the piers of Talkative and Skarn.", documents))
    read = {pages.document_id for pages in answer.pages_read if pages.read}
    assert {Path(answer.document(id_).path).stem.split("_")[0] for id_ in read} >= {"talkative", "skarn"}
