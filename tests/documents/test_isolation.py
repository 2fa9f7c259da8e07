"""The parser's process: crashes, hangs, memory and noise cost a process and give one clear line."""

import sys
import time

import pytest

from lcdoc.documents import DocumentError, LimitError, Limits, NotFoundError, ParserCrashError, load, load_bytes
from lcdoc.documents.builder import Job
from lcdoc.documents.isolation import run_parser

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and resource limits are POSIX")


@pytest.fixture
def misbehave(tmp_path, monkeypatch):
    """A parser process that, at start, runs the given code: by a sitecustomize on its import path."""

    def install(code: str) -> None:
        body = "import sys\nif 'lcdoc.documents.parser_process' in ' '.join(sys.orig_argv):\n"
        body += "".join(f"    {line}\n" for line in code.splitlines())
        (tmp_path / "sitecustomize.py").write_text(body)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return install


TEXT = b"A short text. It has two sentences."


def parse(**limits: float) -> str:
    return load_bytes(TEXT, "note.txt", limits=Limits(**limits)).text


@posix
def test_a_crash_is_one_clear_line(misbehave):
    misbehave("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(ParserCrashError, match=r"^note\.txt: the parser crashed \(SIGSEGV\)"):
        parse()


def test_a_hang_ends_at_the_limit(misbehave):
    misbehave("import time\ntime.sleep(60)")
    start = time.monotonic()
    with pytest.raises(LimitError, match=r"longer than 0\.5 s"):
        parse(max_seconds=0.5)
    assert time.monotonic() - start < 10


def test_a_failure_inside_the_parser_names_itself(misbehave):
    misbehave("raise SystemExit('the font table is upside down')")
    with pytest.raises(ParserCrashError, match="the font table is upside down"):
        parse()


def test_what_a_library_prints_does_not_reach_the_answer():
    job = Job("noise.txt", TEXT, "text/plain")
    result = run_parser("read", job, digest="d")
    assert result["text"].startswith("A short text.")


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not enforce RLIMIT_AS")
def test_memory_is_bounded():
    data = b"The keeper writes the hour into the book. " * 1_000_000
    with pytest.raises(LimitError, match=r"not enough memory to parse it; raise Limits\.max_memory_bytes"):
        load_bytes(data, "long.txt", limits=Limits(max_memory_bytes=100_000_000))


def test_progress_is_reported(write_pdf, page_spec):
    seen = []
    load(write_pdf(*[page_spec([(72, 770, "Text.")])] * 20), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (20, 20)
    assert seen == sorted(seen)


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "report.pdf").write_bytes(b"")
    with pytest.raises(NotFoundError, match=r"no such file; did you mean .*report\.pdf\?"):
        load(tmp_path / "reprot.pdf")
    with pytest.raises(NotFoundError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(DocumentError, match="cannot be read"):
        load("a\0b")


def test_too_large_a_file_is_refused_unread(tmp_path):
    path = tmp_path / "big.txt"
    path.write_bytes(b"word " * 1000)
    with pytest.raises(LimitError, match="5,000 bytes, more than the limit of 100"):
        load(path, limits=Limits(max_bytes=100))


def test_text_under_the_name_of_a_pdf_is_a_warning():
    (warning,) = load_bytes(TEXT, "report.pdf").source.warnings
    assert warning == "is named .pdf, but its content is text/plain, and was read as that"
