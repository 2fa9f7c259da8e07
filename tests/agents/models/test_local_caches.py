"""What a model that runs here has read of a document is kept, found again, and made again where it is of no use."""

import asyncio
import dataclasses
import json
import logging
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
import torch

from lcdoc.agents.listing import listing_room
from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.fingerprint import fingerprint
from lcdoc.agents.models.kept_settings import KeptCaches
from lcdoc.agents.models.local import LocalModel, LocalSource, engines
from lcdoc.agents.models.local_caches import serves_any_question
from lcdoc.agents.models.local_engines import LocalOptions
from lcdoc.agents.models.local_facts import device_of
from lcdoc.agents.models.local_keeping import chosen_recipe, estimate
from lcdoc.agents.models.local_requests import encoded
from lcdoc.agents.models.model import Completion, Message, ModelSpec, Piece, Request
from lcdoc.agents.prompted_reader import PromptedReader
from lcdoc.local_engine import template_sandbox
from lcdoc.memory import Library
from lcdoc.tests.agents.models.local_checkpoint import save_terse
from lcdoc.workflows.pieces import chain_room, map_room

PIECE = "The Bittern carries forty passengers. Mara Lind steers her past the bar at low water. " * 6 + "\n\n"
WINDOW = 4096


@pytest.fixture(scope="module")
def terse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield save_terse(tmp_path_factory.mktemp("models") / "terse", window=WINDOW)
    engines.close()
    torch.set_num_threads(before)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


def local(folder: Path, library: Library | None = None, *, kv: str | None = None, **settings: object) -> LocalModel:
    source = LocalSource(str(folder), folder, LocalOptions(dtype="float32", kv=kv))
    caches = None if library is None else library.caches
    return LocalModel(ModelSpec("mine", WINDOW), source, caches=caches, kept=KeptCaches(**settings))


def asking(question: str, piece: str = PIECE, documents: Sequence[str] = ("d1",)) -> Request:
    messages = (Message("system", "Answer."), Message("user", f"{piece}{question}"))
    return Request(messages, max_tokens=12, piece=Piece(len(piece), tuple(documents)))


def ask(model: LocalModel, question: str, piece: str = PIECE) -> Completion:
    async def asked() -> Completion:
        return await model.complete(await model.through(asking(question, piece)))

    return asyncio.run(asked())


def read_tokens(model: LocalModel) -> int:
    return model.piece_tokens(asking(""))


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_prompts_about_a_piece_begin_with_the_same_tokens(terse):
    tokenizer = local(terse)._tokenizer()
    first, second = (encoded(tokenizer, asking(question)) for question in ("Who?", "forty"))
    assert first.piece == second.piece
    assert len(first.piece) > 100
    assert first.rest != second.rest
    assert encoded(tokenizer, dataclasses.replace(asking("Who?"), piece=None)).piece == ()


def test_a_second_attempt_has_the_same_piece(terse):
    tokenizer = local(terse)._tokenizer()
    request = asking("Who?")
    again = request.with_messages(Message("assistant", "no JSON"), Message("user", "JSON, please."))
    assert encoded(tokenizer, again).piece == encoded(tokenizer, request).piece


# --- reading once -----------------------------------------------------------------------------------------------------


def test_the_second_question_reads_nothing_of_the_piece_again(terse, library):
    model = local(terse, library, kv="full")
    first, second = ask(model, "Who steers?"), ask(model, "How many?")
    assert first.usage.tokens_cached == 0
    assert second.usage.tokens_cached == read_tokens(model)
    assert second.usage.tokens_in > second.usage.tokens_cached
    (kept,) = library.caches.list()
    assert (kept.tokens, kept.entries, kept.recipe) == (read_tokens(model), read_tokens(model), "full")


DATED = {
    "by the clock": "{{ 'Today is ' + strftime_now('%d %b %Y') }}",
    "by a variable, else the clock": "{{ 'Today is ' + (date_string or strftime_now('%d %b %Y')) }}",
}


@pytest.mark.parametrize("dated", DATED.values(), ids=DATED)
def test_what_was_kept_is_found_on_another_day_by_a_template_that_tells_the_date(
    terse, library, tmp_path, monkeypatch, dated
):
    folder = shutil.copytree(terse, tmp_path / "dated")
    own = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    (folder / "chat_template.jinja").write_text(f"{dated}{own}", encoding="utf-8")
    tokenizer = local(folder)._tokenizer()
    assert "Today is 26 Jul 2024" in tokenizer.decode(encoded(tokenizer, asking("Who?")).piece)
    first = ask(local(folder, library, kv="full"), "Who steers?")
    engines.close()

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2031, 5, 6)

    monkeypatch.setattr(template_sandbox, "datetime", Tomorrow)
    model = local(folder, library, kv="full")
    second = ask(model, "Who steers?")
    assert (first.usage.tokens_cached, second.usage.tokens_cached) == (0, read_tokens(model))
    assert second.text == first.text
    assert len(library.caches.list()) == 1


@pytest.mark.parametrize("kv", [None, "full", "keydiff@0.5"])
def test_answers_are_the_same_with_and_without_what_is_kept(terse, library, kv):
    kept, unkept = local(terse, library, kv=kv), local(terse, kv=kv)
    if kv is None:
        asyncio.run(kept.keep(asking(""), "full"))
    texts = [ask(kept, question).text for question in ("Who steers?", "How many?", "Who steers?")]
    assert texts == [ask(unkept, question).text for question in ("Who steers?", "How many?", "Who steers?")]
    engines.close()
    assert ask(local(terse, library, kv=kv), "How many?").text == texts[1]


def test_what_was_kept_serves_a_model_that_names_no_recipe(terse, library):
    asyncio.run(local(terse, library).keep(asking(""), "keydiff@0.5"))
    model = local(terse, library)
    request = asyncio.run(model.through(asking("Who steers?")))
    assert request.kv == "keydiff@0.5"
    assert ask(model, "Who steers?").usage.tokens_cached == read_tokens(model)
    assert asyncio.run(model.through(asking("Who?", "Another piece.\n\n"))).kv == ""
    # The whole cache comes before a compressed one, and changes no answer.
    asyncio.run(model.keep(asking(""), "full"))
    assert asyncio.run(model.through(asking("Who steers?"))).kv == ""
    assert ask(model, "Who steers?").usage.tokens_cached == read_tokens(model)


def test_an_answer_from_a_compressed_cache_is_another_call(terse, library):
    model = local(terse, library)
    request = asking("Who steers?")
    asyncio.run(model.keep(request, "keydiff@0.5"))
    through = asyncio.run(model.through(request))
    assert fingerprint(model.spec, through) != fingerprint(model.spec, request)
    assert fingerprint(model.spec, dataclasses.replace(request, piece=None)) == fingerprint(model.spec, request)


def test_a_recipe_that_goes_by_the_question_keeps_nothing(terse, library):
    model = local(terse, library, kv="snapkv@0.5")
    assert [ask(model, question).usage.tokens_cached for question in ("Who?", "How?")] == [0, 0]
    assert library.caches.list() == []
    assert not serves_any_question("snapkv@0.5")
    assert not serves_any_question("speckv@0.5")
    assert all(map(serves_any_question, ("full", "kvzip@0.5", "keydiff@64tok", "h2o@0.5", "expected@0.5")))


def test_questions_at_once_read_a_piece_once(terse, library):
    model = local(terse, library, kv="full")

    async def together() -> list[Completion]:
        questions = [await model.through(asking(question)) for question in ("Who?", "How?", "Why?")]
        return await asyncio.gather(*map(model.complete, questions))

    cached = sorted(each.usage.tokens_cached for each in asyncio.run(together()))
    assert cached == [0, read_tokens(model), read_tokens(model)]


def test_who_reads_for_others_may_be_cancelled(terse, library):
    model = local(terse, library, kv="full")

    async def cancelled() -> Completion:
        first = asyncio.ensure_future(model.complete(asking("Who?")))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(model.complete(asking("How?")))
        await asyncio.sleep(0.05)
        first.cancel()
        return await second

    assert asyncio.run(cancelled()).text
    assert len(library.caches.list()) == 1


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["truncated", "flipped", "missing", "foreign"])
def test_files_of_no_use_are_told_of_once_and_made_again(terse, library, tmp_path, caplog, harm):
    model = local(terse, library, kv="keydiff@0.5")
    answer = ask(model, "Who?").text
    (kept,) = library.caches.list()
    path = library.caches.path(kept)
    content = bytearray(path.read_bytes())
    match harm:
        case "truncated":
            path.write_bytes(content[:-9])
        case "flipped":
            content[-9] ^= 1
            path.write_bytes(content)
        case "missing":
            path.unlink()
        case "foreign":
            # As if it had been read in another precision.
            other = LocalSource(str(terse), terse, LocalOptions(dtype="bfloat16"))
            stranger = LocalModel(ModelSpec("mine", WINDOW), other, caches=library.caches)
            asyncio.run(stranger.keep(asking(""), "keydiff@0.5"))
            (made,) = [one for one in library.caches.list() if one.key != kept.key]
            library.caches.drop([kept])
            shutil.copy(library.caches.path(made), path)
            library.caches.enter(dataclasses.replace(kept, digest=made.digest, bytes=made.bytes), ["d1"])
    again = local(terse, library, kv="keydiff@0.5")
    with caplog.at_level(logging.WARNING):
        assert ask(again, "Who?").text == answer
        assert ask(again, "Who?").usage.tokens_cached == read_tokens(model)
    assert len([record for record in caplog.records if "read again" in record.getMessage()]) == 1
    assert library.caches.problems() == []


def test_what_cannot_be_written_is_told_of_and_answered_all_the_same(terse, library, caplog):
    library.caches.folder.write_text("not a folder")
    model = local(terse, library, kv="full")
    with caplog.at_level(logging.WARNING):
        assert ask(model, "Who?").text == ask(local(terse, kv="full"), "Who?").text
        ask(model, "Who?")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "what was read is not kept" in told[0]


def test_what_was_not_read_from_longest_goes_first(terse, library):
    pieces = [f"{number} {PIECE}" for number in range(3)]
    one = local(terse, library)
    asyncio.run(one.keep(asking("", pieces[0]), "full"))
    (kept,) = library.caches.list()
    model = local(terse, library, kv="full", limit=int(2.5 * kept.bytes))
    for piece in (pieces[1], pieces[0], pieces[2]):
        ask(model, "Who?", piece)
    assert library.caches.bytes() <= 2.5 * kept.bytes
    assert [ask(model, "How?", piece).usage.tokens_cached > 0 for piece in (pieces[0], pieces[2], pieces[1])] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("settings", [{"limit": 0}, {"limit": 1000}, {"write": "index"}])
def test_nothing_is_kept_where_the_configuration_says_so(terse, library, settings):
    model = local(terse, library, kv="full", **settings)
    ask(model, "Who?")
    assert library.caches.list() == []


def test_a_byte_a_number_takes_less_and_answers_alike_before_and_after(terse, library):
    exact, small = (local(terse, library, kv="keydiff@0.5", precision=one) for one in ("exact", "int8"))
    ask(exact, "Who?")
    first = ask(small, "Who?")
    engines.close()
    second = ask(local(terse, library, kv="keydiff@0.5", precision="int8"), "Who?")
    assert (first.text, first.usage.tokens_cached) == (second.text, 0)
    assert second.usage.tokens_cached == read_tokens(small)
    sizes = {one.recipe: one.bytes for one in library.caches.list()}
    assert sizes["keydiff@0.5 as int8"] < 0.5 * sizes["keydiff@0.5"]
    assert asyncio.run(small.through(asking("Who?"))).kv == "keydiff@0.5 as int8"


def test_two_openings_of_a_library_at_once_leave_one_sound_file(terse, library):
    both = threading.Barrier(2)

    def answer() -> str:
        with Library.open(library.path) as other:
            model = local(terse, other, kv="keydiff@0.5")
            both.wait()
            return ask(model, "Who?").text

    with ThreadPoolExecutor(2) as pool:
        texts = [future.result() for future in [pool.submit(answer) for _ in range(2)]]
    assert texts[0] == texts[1]
    assert len(library.caches.list()) == len(list(library.caches.folder.iterdir())) == 1
    assert library.caches.problems() == []


# --- which recipe, how much -------------------------------------------------------------------------------------------


def test_the_recipe_is_the_one_asked_for_else_the_models_else_the_documents_else_what_fits(terse, library):
    assert chosen_recipe(local(terse), "kvzip+uniform@0.50", [100], []).recipe == "kvzip@0.5"
    assert chosen_recipe(local(terse, kv="keydiff@0.5"), None, [100], ["kvzip@0.25"]).recipe == "keydiff@0.5"
    assert chosen_recipe(local(terse), None, [100], ["kvzip@0.25 as int8", "kvzip@0.5"]).recipe == "kvzip@0.5"
    fitting = chosen_recipe(local(terse), None, [100], [])
    assert fitting.recipe == "full"
    assert fitting.reason
    whole = estimate(local(terse), "full", [1000] * 4, []).bytes
    assert "@" in chosen_recipe(local(terse, limit=int(0.9 * whole)), None, [1000] * 4, []).recipe
    with pytest.raises(ModelConfigError, match=r"kept_caches\.limit has room"):
        chosen_recipe(local(terse, limit=whole // 10), None, [1000] * 4, [])
    with pytest.raises(ModelConfigError, match="kv list"):
        chosen_recipe(local(terse), "nosuch@0.5", [100], [])


@pytest.mark.parametrize("precision", ["exact", "int8"])
def test_the_estimate_is_what_it_takes(terse, library, precision):
    model = local(terse, library, precision=precision)
    before = estimate(model, "keydiff@0.5", [read_tokens(model)], library.caches.list())
    asyncio.run(model.keep(asking(""), "keydiff@0.5"))
    (kept,) = library.caches.list()
    assert before.seconds is None
    assert before.bytes == pytest.approx(kept.bytes, rel=0.1)
    after = estimate(model, "keydiff@0.5", [read_tokens(model)], library.caches.list())
    assert after.seconds == pytest.approx(kept.seconds, abs=0.01)


def test_the_precision_that_was_taken_is_taken_again(terse, library):
    """Which of two is faster is told by a clock; caches that were read in the other would be of no use."""
    source = LocalSource(str(terse), terse, LocalOptions())
    engines.close()
    for dtype in ("bfloat16", "float32"):
        library.memos.set(f"dtype/1 {device_of('auto')} {local_auto(source, library).identity}", dtype, ttl_s=60)
        model = local_auto(source, library)
        assert ask(model, "Who?").text
        (loaded,) = engines._engines.values()
        assert str(loaded.result().dtype) == f"torch.{dtype}"
        engines.close()


def local_auto(source: LocalSource, library: Library) -> LocalModel:
    return LocalModel(ModelSpec("mine", WINDOW), source, caches=library.caches, memos=library.memos)


def test_questions_of_usual_length_leave_the_same_room_for_pieces(terse):
    model = LocalModel(ModelSpec("mine", 16_384), LocalSource(str(terse), terse))
    reader = PromptedReader(model, secret=b"s" * 16)
    usual = ("Who?", "In which year, and on whose word, was the light at the north pier first lit?")
    longer = " ".join(usual) * 9
    for room in (lambda asked: reader.room(asked, carrying=True), lambda asked: listing_room(reader, asked)):
        assert room(usual[0]) == room(usual[1]) > room(longer) > 0
    assert chain_room(reader, usual[0]) == map_room(reader, usual[1])
