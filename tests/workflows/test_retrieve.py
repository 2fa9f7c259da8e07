"""A look-up whose first passages lead to others: the wider search is for what was noted, which is carried along."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lcdoc.benchmarks.planted_model import PlantedModel
from lcdoc.tests.workflows.reading_desk import Desk, book, desk_for
from lcdoc.workflows.retrieve import PASSAGES, Retrieve

KEEPER = "The keeper of Ternhaven was Bren Loyd."
BIRTH = "Bren Loyd was born in Ashmere."
QUESTION = "Where was the keeper of Ternhaven born?"


@pytest.fixture
def desk(tmp_path: Path, configure: Callable[[str], None]) -> Iterator[Desk]:
    with desk_for(Retrieve, tmp_path, configure) as opened:
        opened.server.default = PlantedModel()
        yield opened


def _with_keepers(pages: int, facts: dict[int, str]) -> str:
    """A book that says much of keepers, and of who was born where, beside the facts."""
    others = {
        page: f"The keepers of point {page} were born at sea. Terns fly over point {page}." for page in range(1, pages)
    }
    return book(pages, {page: f"{others.get(page, '')} {facts.get(page, '')}" for page in range(1, pages + 1)})


def test_a_second_search_is_for_what_the_first_one_led_to(desk: Desk) -> None:
    documents = desk.documents(_with_keepers(40, {5: KEEPER, 33: BIRTH}))
    answer = desk.ask(documents, QUESTION)
    assert answer.found
    assert "Ashmere" in answer.claims[0].text
    assert {BIRTH, KEEPER} <= {citation.quote for claim in answer.claims for citation in claim.citations}
    assert answer.passages_read > PASSAGES


def test_what_leads_nowhere_is_not_found(desk: Desk) -> None:
    answer = desk.ask(desk.documents(_with_keepers(40, {5: KEEPER})), QUESTION)
    assert not answer.found
    assert answer.passages_read > PASSAGES
