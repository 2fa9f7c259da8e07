"""The pool of parsers: what `load` gives, whatever the documents beside it do."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from lcdoc.documents import (
    CorruptFileError,
    DocumentError,
    EmptyDocumentError,
    LimitError,
    Limits,
    NotFoundError,
    ParserCrashError,
    PasswordError,
    load,
    pool,
)
from lcdoc.documents.loading import identify, read_raw
from lcdoc.documents.pool import ParserPool, Stop, StoppedError
from lcdoc.documents.pool_ahead import MOST_WAITING, MOST_WEIGHT, ahead

linux = pytest.mark.skipif(sys.platform != "linux", reason="parsers are forked on Linux only")
WAIT_S = 30.0

# What the reader of plain text does in a parser of these tests when a text begins with one of these words.
TEST_READER = """
import os, signal, sys, time

if "lcdoc.documents.p" in " ".join(sys.orig_argv):
    from lcdoc.documents import plain

    real_read = plain.read
    seen = []

    def eat():
        held = []
        while True:
            held.append(bytearray(1 << 24))

    def measure():
        import resource

        spent = time.process_time()
        return f"{os.getpid()} {spent} {resource.getrlimit(resource.RLIMIT_CPU)[0]} {len(seen)}"

    def fill_noise():
        for _ in range(64):
            os.write(2, b"noise " * 10_000)
            os.write(1, b"more noise" * 1000)

    def fail():
        raise OSError("the glyphs are upside down")

    ACTS = {
        "CRASH": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "HANG": lambda: time.sleep(600),
        "EAT": eat,
        "FAIL": fail,
        "NOISE": fill_noise,
    }

    def read(job, builder):
        word = job.data.split()[0].decode()
        if word in ACTS:
            ACTS[word]()
        if word == "MEASURE":
            builder.add(measure())
        seen.append(job.name)
        real_read(job, builder)

    plain.read = read
"""


@pytest.fixture
def test_reader(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(TEST_READER)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


@pytest.fixture(params=[pytest.param("forked", marks=linux), "started"])
def parsers(request, monkeypatch):
    """Both ways to come by a parser's process."""
    monkeypatch.setattr(pool, "FORKS", request.param == "forked")


@pytest.fixture
def write(tmp_path):
    def write(*texts: str) -> list[Path]:
        paths = [tmp_path / f"{number:04}.txt" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        return paths

    return write


def raw(text: str, name: str = "note.txt"):
    return identify(text.encode(), name)


def alive() -> dict[int, int]:
    """Every process that runs, with its parent."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = stat.read_text().rpartition(") ")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if state not in "ZX":
            parents[int(stat.parent.name)] = int(parent)
    return parents


left_behind: set[int] = set()
"""Processes that other tests of this one have not ended."""


@pytest.fixture(autouse=True)
def only_new_processes() -> Iterator[None]:
    left_behind.update(children(os.getpid()))
    yield
    left_behind.clear()


def children(pid: int) -> set[int]:
    """Its processes, and theirs, but those that were there before the test."""
    parents = alive()
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found - left_behind


def wait_until(condition, what: str):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_S:g} s: {what}"
        time.sleep(0.01)


def only_child(pid: int) -> int:
    """The one that is left, or comes: a parser that has answered takes a moment to end."""
    wait_until(lambda: len(children(pid)) == 1, "there is one process")
    (child,) = children(pid)
    return child


def outcomes(results) -> list[str]:
    return [result.text if not isinstance(result, DocumentError) else type(result).__name__ for _, result in results]


@pytest.fixture
def mixed(tmp_path, write_pdf, page_spec):
    """Files of several kinds: good, broken, encrypted, missing."""
    (tmp_path / "page.html").write_text("<title>Lamps</title><h1>Oil</h1><p>Filled at dusk.</p>")
    (tmp_path / "notes.md").write_text("# Oil\n\nFilled at dusk.\n")
    (tmp_path / "letter.txt").write_bytes("Füllt die Lampen.".encode("cp1252"))
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing else")
    (tmp_path / "empty.txt").write_text("  \n")
    pages = [page_spec([(72, 770, f"Page {number} of the keeper's log.")]) for number in range(12)]
    write_pdf(*pages, title="The log", name="log.pdf")
    write_pdf(*pages, password="lantern", name="locked.pdf")
    names = ["page.html", "log.pdf", "broken.pdf", "notes.md", "empty.txt", "locked.pdf", "letter.txt", "gone.txt"]
    return [tmp_path / name for name in names]


def test_documents_and_errors_are_those_of_load(parsers, mixed):
    def alone(path):
        try:
            return load(path, password="lantern")
        except DocumentError as error:
            return type(error), str(error)

    with ParserPool(2) as parser_pool:
        found = [
            (path, (type(result), str(result)) if isinstance(result, DocumentError) else result)
            for path, result in parser_pool.parse_many(mixed, password="lantern")
        ]
    assert found == [(path, alone(path)) for path in mixed]
    kinds = {path.name: result[0] for path, result in found if isinstance(result, tuple)}
    assert kinds == {
        "broken.pdf": CorruptFileError,
        "empty.txt": EmptyDocumentError,
        "gone.txt": NotFoundError,
    }


@pytest.mark.parametrize(("password", "problem"), [(None, "is encrypted"), ("wrong", "password is wrong")])
def test_a_password_is_asked_for(mixed, password, problem):
    with ParserPool(1) as parser_pool, pytest.raises(PasswordError, match=problem):
        parser_pool.parse(read_raw(mixed[5]), password=password)


def test_a_document_that_misbehaves_costs_itself_only(parsers, test_reader, write):
    texts = ["One.", "CRASH", "Two.", "EAT", "FAIL", "NOISE", "Three."]
    with ParserPool(2) as parser_pool:
        results = list(parser_pool.parse_many(write(*texts), limits=Limits(max_memory_bytes=300 << 20)))
    assert outcomes(results) == [
        "One.",
        "ParserCrashError",
        "Two.",
        "LimitError",
        "ParserCrashError",
        "NOISE",
        "Three.",
    ]
    said = [str(result).partition(": ")[2] for _, result in results]
    assert said[1].startswith("the parser crashed (SIGSEGV)")
    assert said[3].startswith("not enough memory to parse it")
    assert said[4].startswith("the parser failed (OSError: the glyphs are upside down)")


def test_one_that_hangs_ends_at_its_limit(parsers, test_reader):
    with ParserPool(1) as parser_pool:
        with pytest.raises(LimitError, match=r"longer than 0\.5 s"):
            parser_pool.parse(raw("HANG"), limits=Limits(max_seconds=0.5))
        if sys.platform == "linux":
            wait_until(lambda: len(children(os.getpid())) <= pool.FORKS, "only the template is left")
        assert parser_pool.parse(raw("One.")).text == "One."


def test_one_that_hangs_holds_nobody_up(parsers, test_reader, write):
    paths = write("HANG", *[f"Number {number}." for number in range(8)])
    with ParserPool(2) as parser_pool:
        results = parser_pool.parse_many(paths, in_order=False)
        first = list(islice(results, 8))
        results.close()
        assert sorted(outcomes(first)) == [f"Number {number}." for number in range(8)]
        if sys.platform == "linux":
            wait_until(lambda: len(children(os.getpid())) <= pool.FORKS, "the parser that hung is gone")


def test_results_come_in_order_though_the_first_is_last(parsers, write):
    paths = write("word " * 200_000, *[f"Number {number}." for number in range(5)])
    with ParserPool(2) as parser_pool:
        assert [path for path, _ in parser_pool.parse_many(map(str, paths))] == list(map(str, paths))


@linux
def test_each_document_has_a_process_of_its_own(test_reader, write):
    limits = Limits(max_seconds=7)
    with ParserPool(2) as parser_pool:
        found = outcomes(parser_pool.parse_many(write(*["MEASURE"] * 10), limits=limits))
    measured = [text.split()[:4] for text in found]
    assert len({pid for pid, *_ in measured}) == 10
    # Processor time counts from zero, and nothing an earlier document left behind is there.
    assert all(float(spent) < 1 and seen.startswith("0") for _, spent, _, seen in measured)
    assert {bound for _, _, bound, _ in measured} == {"12"}


@linux
def test_the_template_has_one_thread_whatever_it_imported(mixed):
    with ParserPool(1) as parser_pool:
        assert len(list(parser_pool.parse_many(mixed))) == len(mixed)
        template = only_child(os.getpid())
        status = Path(f"/proc/{template}/status").read_text()
    assert "\nThreads:\t1\n" in status


@linux
def test_a_template_that_dies_is_replaced(test_reader):
    with ParserPool(2) as parser_pool:
        parser_pool.parse(raw("Warm."))
        template = only_child(os.getpid())
        raised: list[BaseException] = []

        def parse():
            try:
                parser_pool.parse(raw("HANG"), limits=Limits(max_seconds=2))
            except DocumentError as error:
                raised.append(error)

        thread = threading.Thread(target=parse)
        thread.start()
        parser = only_child(template)
        os.kill(template, signal.SIGKILL)
        # The document is not to blame, so another parser is asked, which hangs as well.
        thread.join(WAIT_S)
        assert [type(error) for error in raised] == [LimitError]
        wait_until(lambda: parser not in alive(), "its parsers end with it")
        assert parser_pool.parse(raw("After.")).text == "After."
        assert only_child(os.getpid()) != template


@linux
def test_a_template_that_cannot_start_says_why(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('no such luck')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with (
        ParserPool(1) as parser_pool,
        pytest.raises(ParserCrashError, match=r"note\.txt: .*died \(SystemExit: no such luck\)"),
    ):
        parser_pool.parse(raw("One."))


PARENT = """
import sys
from lcdoc.documents.pool import ParserPool

with ParserPool(2) as pool:
    print("ready", flush=True)
    for path, result in pool.parse_many(sys.argv[1:]):
        print(result, flush=True)
"""


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_parser_outlives_its_parent(test_reader, write, number):
    command = [sys.executable, "-c", PARENT, *map(str, write("HANG", "HANG", "One."))]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(children(parent.pid)) >= 3, "two parsers hang")
        processes = children(parent.pid)
        parent.send_signal(number)
        assert parent.wait(WAIT_S) != 0
        wait_until(lambda: not processes & set(alive()), "all are gone")
    finally:
        parent.kill()
        parent.wait()


@linux
def test_closing_ends_what_is_under_way(parsers, test_reader):
    parser_pool = ParserPool(1)
    raised: list[BaseException] = []

    def parse():
        try:
            parser_pool.parse(raw("HANG"))
        except StoppedError as error:
            raised.append(error)

    threads = [threading.Thread(target=parse) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(children(os.getpid())) > pool.FORKS, "a parser hangs")
    time.sleep(0.3)
    assert len(children(os.getpid())) == 1 + pool.FORKS, "the others wait for its place"
    parser_pool.close()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(raised) == 3
    wait_until(lambda: not children(os.getpid()), "no process is left")
    with pytest.raises(StoppedError, match="closed"):
        parser_pool.parse(raw("One."))
    parser_pool.close()


def test_asyncio_waits_and_cancels(parsers, test_reader):
    async def scenario(parser_pool):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(parser_pool.parse_async(raw("HANG")), 0.5)
        parsed = await asyncio.gather(*[parser_pool.parse_async(raw(f"Number {number}.")) for number in range(6)])
        with pytest.raises(LimitError):
            await parser_pool.parse_async(raw("HANG"), limits=Limits(max_seconds=0.5))
        return [document.text for document in parsed]

    with ParserPool(1) as parser_pool:
        assert asyncio.run(scenario(parser_pool)) == [f"Number {number}." for number in range(6)]


def test_closing_stops_those_who_wait_with_asyncio(parsers, test_reader):
    async def scenario(parser_pool):
        waiting = [asyncio.create_task(parser_pool.parse_async(raw("HANG"))) for _ in range(3)]
        await asyncio.sleep(0.3)
        parser_pool.close()
        waiting.append(asyncio.create_task(parser_pool.parse_async(raw("One."))))
        return [type(ended) for ended in await asyncio.gather(*waiting, return_exceptions=True)]

    assert asyncio.run(scenario(ParserPool(1))) == [StoppedError] * 4


def test_a_stop_that_is_set_ends_one_document(parsers, test_reader):
    stop = Stop()
    with ParserPool(1) as parser_pool:
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(StoppedError):
            parser_pool.parse(raw("HANG"), stop=stop)
        with pytest.raises(StoppedError):
            parser_pool.parse(raw("One."), stop=stop)
        assert parser_pool.parse(raw("One.")).text == "One."


def test_progress_is_told_to_the_caller(parsers, mixed):
    seen: list[tuple[int, int]] = []
    with ParserPool(1) as parser_pool:
        parser_pool.parse(read_raw(mixed[1]), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(8, 12), (12, 12)]


@linux
def test_many_small_files(write):
    texts = [f"Number {number}." for number in range(250)]
    with ParserPool(2) as parser_pool:
        assert outcomes(parser_pool.parse_many(write(*texts))) == texts
        wait_until(lambda: len(children(os.getpid())) == 1, "only the template is left")


def test_too_few_processes_are_refused():
    with pytest.raises(ValueError, match="at least 1 process, not 0"):
        ParserPool(0)


@pytest.mark.parametrize(("weight", "most"), [(0, MOST_WAITING), (MOST_WEIGHT, 1)])
@pytest.mark.parametrize("in_order", [True, False])
def test_what_is_not_taken_holds_up_the_work(weight, most, in_order):
    begun: list[int] = []

    def work(number: int, _stop: Stop) -> int:
        begun.append(number)
        return number

    results = ahead(work, range(1000), threads=3, in_order=in_order, weigh=lambda _: weight)
    next(results)
    wait_until(lambda: len(begun) > most, "work goes on ahead")
    time.sleep(0.05)
    assert len(begun) <= 1 + most + 3
    assert sorted(number for number, _ in results) == list(range(1, 1000)) if in_order else True


def test_what_the_items_raise_comes_after_what_was_before():
    def items():
        yield from range(3)
        raise OSError("the list ends here")

    found: list[int] = []
    with pytest.raises(OSError, match="the list ends here"):
        found.extend(square for _, square in ahead(lambda number, _stop: number**2, items(), threads=2))
    assert found == [0, 1, 4]
