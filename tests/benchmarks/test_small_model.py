"""The small trained model in `benchmarks/data` answers with real quotes, in process, about facts it never saw."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lcdoc.agents.models.config import Config, ModelEntry
from lcdoc.agents.models.local import engines
from lcdoc.benchmarks.small_model_workflows import answered, questions_for

MODEL = Path(__file__).parents[2] / "benchmarks" / "data" / "small_model"


@pytest.fixture(scope="module", autouse=True)
def closing() -> Iterator[None]:
    yield
    engines.close()


@pytest.mark.parametrize("workflow", ["direct", "chain"])
def test_most_facts_are_found_and_quoted(workflow: str, tmp_path: Path) -> None:
    asked = questions_for(workflow, tmp_path, 12, 32)
    config = Config(models={"small": ModelEntry(model=f"local/{MODEL}")})
    tally = answered("small", config, workflow, asked, tmp_path / "library.sqlite")
    assert tally.errors == []
    assert tally.counts["sound"] == 12
    # It was right each time; fences are random, and a sentence may then be copied wrongly.
    assert tally.counts["right"] >= 8
