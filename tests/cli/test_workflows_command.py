"""`lcdoc workflows list` and `lcdoc workflows show`."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from lcdoc.workflows.registry import names

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_list_names_each_with_a_line_about_it(lcdoc: Command) -> None:
    run = lcdoc("workflows", "list")
    assert run.returncode == 0, run.stderr
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["auto", *names()]
    assert "best passages" in run.stdout


def test_list_as_json(lcdoc: Command) -> None:
    listed = json.loads(lcdoc("workflows", "list", "--json").stdout)
    assert [entry["name"] for entry in listed] == ["auto", *names()]
    assert all(entry["about"] for entry in listed)


def test_show_draws_the_graph_in_lines(lcdoc: Command) -> None:
    run = lcdoc("workflows", "show", "retrieve")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("retrieve: ")
    assert "  search  ..> read | answer\n" in run.stdout
    assert "\x1b" not in run.stdout


def test_show_as_mermaid_and_as_json(lcdoc: Command) -> None:
    mermaid = lcdoc("workflows", "show", "map-reduce", "--mermaid").stdout
    assert "graph TD;" in mermaid
    assert "-.->" in mermaid
    shown = json.loads(lcdoc("workflows", "show", "map_reduce", "--json").stdout)
    assert shown["name"] == "map_reduce"
    assert shown["mermaid"] == mermaid
    assert {"from": "start", "to": shown["steps"][1], "conditional": False} in shown["edges"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "chian"], "did you mean chain?"),
        (["show", "auto"], "auto has no graph of its own"),
        (["show", "retrieve", "--mermaid", "--json"], "leave --mermaid out"),
    ],
)
def test_mistakes_are_one_line(lcdoc: Command, arguments: list[str], said: str) -> None:
    run = lcdoc("workflows", *arguments)
    assert run.returncode == 2
    assert said in run.stderr
    assert (run.stdout, run.stderr.count("\n")) == ("", 1)


@pytest.mark.parametrize("command", [[], ["list"], ["show"]])
def test_help_fits_a_terminal(lcdoc: Command, command: list[str]) -> None:
    run = lcdoc("workflows", *command, "--help")
    assert run.returncode == 0
    assert max(map(len, run.stdout.splitlines())) <= 80


def test_nothing_is_opened_or_connected(lcdoc: Command, environment: dict[str, str], tmp_path) -> None:
    environment["LCDOC_MODEL"] = "http://127.0.0.1:9/v1"
    assert lcdoc("workflows", "show", "chain").returncode == 0
    assert not (tmp_path / "library").exists()


def test_importing_the_command_needs_no_workflow() -> None:
    code = (
        "import lcdoc.commands.workflows, sys; print(*[m for m in sys.modules if m.startswith('lcdoc.workflows')"
        " or m in ('langgraph', 'numpy')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
