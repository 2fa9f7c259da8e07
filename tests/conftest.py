"""What holds for every test."""

import itertools
from collections.abc import Iterator

import pytest

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A state folder of its own: what one test's server admits is nothing to another's, which may have its port."""
    # Not the test's own `monkeypatch`: asked for here, it would be undone last, behind the test's other fixtures.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"state-{next(_numbers)}"))
        yield
