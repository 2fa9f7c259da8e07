"""The command line as a user runs it: a process with its own library."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

STORY = """\
# The Lamp at the North Pier

The lamp at the north pier was lit for the first time on 4 March 1871. It was paid for by the guild of carters, who had
lost eleven wagons in the winter fog.

## The keepers

The first keeper was a retired rope maker. She kept the lamp for twenty-two years, because nobody else would
climb the ladder in a storm. Her wage was nine crowns a month and a barrel of lamp oil at midsummer.

## The ferries

The ferry Otterling carries ninety passengers and six carts. The ferry Bittern carries forty passengers only. No ferry
leaves the pier while the fog bell is ringing.
"""


@pytest.fixture
def story(tmp_path: Path) -> Path:
    path = tmp_path / "lamp.md"
    path.write_text(STORY, encoding="utf-8")
    return path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "LCDOC_LIBRARY": str(tmp_path / "library" / "library.sqlite"), "COLUMNS": "80"}


@pytest.fixture
def lcdoc(environment: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `lcdoc` with these arguments and return the finished process."""

    def run(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lcdoc", *map(str, arguments)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            input=stdin,
            timeout=120,
            check=False,
        )

    return run
