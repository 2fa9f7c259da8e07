"""Imports go down the house only, and the command line starts without the heavy libraries."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lcdoc

ROOT = Path(lcdoc.__file__).parent
ROOMS = ("documents", "retrieval", "memory", "agents", "workflows", "evaluation", "jobs", "commands", "local_engine")
MAY_IMPORT = {
    "documents": {"documents"},
    "retrieval": {"retrieval", "documents"},
    "memory": {"memory", "retrieval", "documents"},
    "agents": {"agents", "memory", "retrieval", "documents"},
    "workflows": {"workflows", "agents", "memory", "retrieval", "documents"},
    "evaluation": {"evaluation", "workflows", "agents", "memory", "retrieval", "documents"},
    "jobs": {"jobs", "workflows", "agents", "memory", "retrieval", "documents"},
    "commands": {"commands", "evaluation", "jobs", "workflows", "agents", "memory", "retrieval", "documents"},
    "local_engine": {"local_engine"},
}
# A model in process, and the command that serves one.
SPEAK_TO_THE_ENGINE = (*(ROOT / "agents" / "models").glob("local*.py"), ROOT / "commands" / "serve.py")
HEAVY = (
    "torch",
    "starlette",
    "uvicorn",
    "openai",
    "langgraph",
    "faiss",
    "sentence_transformers",
    "transformers",
    "numpy",
    "matplotlib",
    "psycopg",
    "pyarrow",
    "ray",
    "lxml",
    "docx",
)


def lcdoc_imports(path: Path) -> set[str]:
    """The rooms a module imports, at its top or inside its functions."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            parts = module.split(".")
            if parts[0] == "lcdoc" and len(parts) > 1 and parts[1] in ROOMS:
                rooms.add(parts[1])
    return rooms


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    for path in sorted((ROOT / room).rglob("*.py")):
        allowed = set(MAY_IMPORT[room])
        if path in SPEAK_TO_THE_ENGINE:
            allowed.add("local_engine")
        assert lcdoc_imports(path) <= allowed, path


def test_a_wrong_import_would_be_seen(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("def f():\n    from lcdoc import cli\n    from lcdoc.workflows.answer import Answer\n")
    assert lcdoc_imports(module) == {"workflows"}


@pytest.mark.parametrize("statement", ["import lcdoc", "import lcdoc.cli", "import lcdoc.documents"])
def test_heavy_libraries_are_imported_lazily(statement: str) -> None:
    code = f"{statement}; import sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['lcdoc', '--help']\n"
        "from lcdoc.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print('HEAVY', *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ask" in run.stdout
    assert run.stdout.rstrip().endswith("HEAVY")


def test_every_room_is_packaged() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"])
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert listed == {"lcdoc", *(".".join(["lcdoc", *folder.relative_to(ROOT).parts]) for folder in folders)}
