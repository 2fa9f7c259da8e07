"""Models that run in process: how they are named and found, what is known of them, how they answer and fail."""

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel, Field

from lcdoc.agents.models.config import ConfigFileError, load_config
from lcdoc.agents.models.errors import (
    ContextOverflowError,
    EngineFailedError,
    ModelNameError,
    RefusedRequestError,
)
from lcdoc.agents.models.fingerprint import fingerprint
from lcdoc.agents.models.local import LocalModel, engines
from lcdoc.agents.models.local_facts import facts_of
from lcdoc.agents.models.local_files import found_models, identity_of, located, sizes_of
from lcdoc.agents.models.local_memory import fit, steady, weight_bytes
from lcdoc.agents.models.model import Message, Prices, Request, count_prompt
from lcdoc.agents.models.names import Chosen, resolve
from lcdoc.agents.models.read_ahead import AheadModel, ReadAhead
from lcdoc.local_engine import Engine
from lcdoc.tests.agents.models.local_checkpoint import save_terse
from lcdoc.tests.local_engine.checkpoints import edit_json
from lcdoc.tests.local_engine.tokenizers_made import MISTRAL

WINDOW = 2048


class Verdict(BaseModel):
    found: bool
    quotes: list[str]
    confidence: float = Field(default=0.0, ge=0, le=5)


@pytest.fixture(scope="module")
def terse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model's folder; engines that were loaded from it are closed at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield save_terse(tmp_path_factory.mktemp("models") / "terse", window=WINDOW)
    engines.close()
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the models nor the configuration of whoever runs the tests."""
    for name in ("LCDOC_MODEL", "LCDOC_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LCDOC_CONFIG", str(tmp_path / "config.toml"))
    tmp_path.joinpath("config.toml").touch()
    monkeypatch.chdir(tmp_path)


def chosen(folder: Path, settings: str = "") -> Chosen:
    if not settings:
        return resolve(f"local/{folder}", load_config())
    Path(os.environ["LCDOC_CONFIG"]).write_text(f'[models.mine]\nmodel = "local/{folder}"\n{settings}')
    return resolve("mine", load_config())


def local(folder: Path, settings: str = "") -> LocalModel:
    found = chosen(folder, settings)
    assert found.local is not None
    return LocalModel(found.spec, found.local)


def asking(text: str = "Why?", **options: object) -> Request:
    return Request((Message("system", "Answer."), Message("user", text)), **{"max_tokens": 80, **options})


def ask(model: LocalModel, request: Request):
    return asyncio.run(model.complete(request))


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_folder_is_known_before_it_is_loaded(terse):
    engines.close()
    spec = chosen(terse).spec
    assert (spec.name, spec.context_window, spec.context_window_known) == (f"local/{terse}", WINDOW, True)
    assert spec.server is None
    assert spec.prices == Prices(0.0, 0.0)
    assert (spec.profile, spec.limits.concurrency) == ("small", 16)
    assert count_prompt(local(terse), asking("naïve <|im_end|> 😀")) >= 20
    assert not engines._engines


def test_a_relative_name_is_recorded_in_full(terse, tmp_path, monkeypatch):
    monkeypatch.chdir(terse.parent)
    assert resolve("local/terse", load_config()).spec.name == f"local/{terse}"
    monkeypatch.setenv("LCDOC_MODEL", "local/terse")
    assert resolve(None, load_config()).spec.name == f"local/{terse}"


def test_a_folder_that_is_not_there_is_told_with_those_that_are(terse, monkeypatch):
    monkeypatch.setenv("LCDOC_MODELS", str(terse.parent))
    with pytest.raises(ModelNameError) as caught:
        resolve("local/tersest", load_config())
    assert "no such folder: " in str(caught.value)
    assert "found here: local/terse" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert resolve("local/terse", load_config()).local.folder == terse


def test_what_the_engine_does_not_run_is_refused_at_once(tmp_path, terse):
    with pytest.raises(ModelNameError, match="no such file"):
        (tmp_path / "empty").mkdir()
        resolve("local/empty", load_config())
    shutil.copytree(terse, tmp_path / "other")
    edit_json(tmp_path / "other" / "config.json", architectures=["GPT2LMHeadModel"])
    with pytest.raises(ModelNameError, match="GPT2LMHeadModel models are not run"):
        resolve("local/other", load_config())
    edit_json(tmp_path / "other" / "config.json", architectures=["Qwen2ForCausalLM"])
    (tmp_path / "other" / "model.safetensors").unlink()
    with pytest.raises(ModelNameError, match=r"no model\.safetensors"):
        resolve("local/other", load_config())


def test_an_entry_says_how_a_model_is_loaded(terse):
    found = chosen(
        terse, 'quantize = "int8"\ndtype = "float32"\ncontext_window = 700\nconcurrency = 3\nmax_memory = 3e7'
    )
    spec, options = found.spec, found.local.options
    assert (spec.name, spec.context_window, spec.limits.concurrency) == ("mine", 700, 3)
    assert (options.quantize, options.dtype, options.max_memory) == ("int8", "float32", 3e7)
    completion = ask(LocalModel(spec, found.local), asking(schema=Verdict))
    Verdict.model_validate_json(completion.text)
    assert completion.model == "terse"


def test_an_entrys_folder_is_relative_to_its_file(terse, tmp_path, monkeypatch):
    shutil.copytree(terse, tmp_path / "beside")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert chosen(Path("beside"), 'profile = "large"').local.folder == tmp_path / "beside"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('model = "local/x"\nkey_env = "KEY"', "has key_env, and a model that runs here has no server"),
        ('url = "http://127.0.0.1:1/v1"\nquantize = "int8"', "has quantize, which only models that run here have"),
        ('model = "local/x"\nquantize = "int3"', "quantize"),
        ('model = "local/x"\ndevice = "tpu"', "device"),
        ('model = "local/x"\nmax_memory = 0', "max_memory"),
    ],
)
def test_entries_that_do_not_fit_are_refused_with_their_line(entry, message, tmp_path):
    (tmp_path / "config.toml").write_text(f"[models.mine]\n{entry}\n")
    with pytest.raises(ConfigFileError, match=message) as caught:
        load_config()
    assert caught.value.line == 3


def test_models_of_the_hub_are_found_in_its_cache_if_they_are_whole(terse, tmp_path):
    repository = tmp_path / "hub" / "models--some--terse"
    snapshot = repository / "snapshots" / "c0ffee"
    shutil.copytree(terse, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")
    assert located("some/terse") == snapshot
    assert located("some/terse@c0ffee") == snapshot
    assert located("some/terse@beef") is None
    assert [model.name for model in found_models()] == ["local/some/terse"]
    assert resolve("local/some/terse", load_config()).spec.name == "local/some/terse"
    (snapshot / "model.safetensors").unlink()
    assert located("some/terse") is None
    spec = resolve("local/some/terse", load_config()).spec
    assert not spec.context_window_known


def test_answers_are_kept_for_one_model_and_recipe(terse, tmp_path):
    copy = shutil.copytree(terse, tmp_path / "copy")
    spec = chosen(copy).spec
    key = fingerprint(spec, asking())
    assert key == fingerprint(chosen(terse).spec, asking())
    assert key != fingerprint(chosen(copy, 'quantize = "int8"').spec, asking())
    assert key == fingerprint(chosen(copy, "concurrency = 2").spec, asking())
    before = identity_of(copy)
    edit_json(copy / "config.json", rope_theta=5e5)
    assert identity_of(copy) != before
    before = identity_of(copy)
    os.utime(copy / "model.safetensors", (1e9, 1e9))
    assert identity_of(copy) != before


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quantize", "weights"), [(None, "float32"), ("int8", "float32")])
def test_what_weights_take_is_known_from_their_headers(terse, quantize, weights):
    sizes = sizes_of(terse)
    assert sizes.bytes_on_disk == (terse / "model.safetensors").stat().st_size
    with Engine.load(terse, dtype="float32", quantize=quantize) as engine:
        taken = engine.weight_bytes
    if quantize is None:
        assert weight_bytes(sizes, weights) == pytest.approx(taken, rel=0.02)
    else:
        saved = weight_bytes(sizes, "float32") - taken
        assert saved == pytest.approx(3 * sizes.layers, rel=0.1)


def test_a_window_is_what_fits_beside_the_weights(terse):
    facts = facts_of("x", terse)
    per_token = facts.cache_numbers_per_token
    assert per_token == 2 * 2 * 2 * 16
    held = weight_bytes(facts.sizes, "bfloat16")
    options = {"window": 2048, "cache_numbers_per_token": per_token}
    assert fit(facts.sizes, "bfloat16", free_bytes=held, **options).context == 0
    assert fit(facts.sizes, "bfloat16", free_bytes=held + 1000 * per_token * 4, **options).context == 1000
    assert fit(facts.sizes, "bfloat16", free_bytes=10**9, **options).context == 2048
    assert steady(1000, 2048) == 512
    assert steady(4000, 2048) == 2048


# --- answers ---------------------------------------------------------------------------------------------------------


def test_an_answer_is_streamed_and_accounted_for(terse):
    model, pieces = local(terse), list[str]()
    completion = ask(model, asking(max_tokens=12, on_text=pieces.append))
    assert "".join(pieces) == completion.text
    assert completion.finish == "length"
    assert completion.usage.tokens_out == 12
    assert 0 < completion.usage.tokens_in <= count_prompt(model, asking())
    assert not completion.usage.estimated


def test_an_answer_of_a_shape_has_it_bounds_included(terse):
    for question in ("Who?", "Where?", "How many?"):
        completion = ask(local(terse), asking(question, schema=Verdict, max_tokens=60))
        answer = json.loads(completion.text)
        assert list(answer) == ["found", "quotes", "confidence"]
        Verdict.model_validate(answer)
        assert completion.finish == "stop"


def test_seeds_repeat_and_probabilities_are_given(terse):
    model = local(terse)
    warm = asking(temperature=1.0, seed=7, max_tokens=8, logprobs=True)
    first, second = ask(model, warm), ask(model, warm)
    assert first.text == second.text
    assert len(first.logprobs) == 8
    assert all(each.logprob < 0 for each in first.logprobs)
    assert ask(model, asking(temperature=1.0, seed=8, max_tokens=8)).text != first.text


def test_stop_strings_end_an_answer(terse):
    model = local(terse)
    text = ask(model, asking(max_tokens=30)).text
    stop = text[5:7]
    stopped = ask(model, asking(max_tokens=30, stop=(stop,)))
    assert stopped.finish == "stop"
    assert stopped.text == text[: text.index(stop)]


def test_what_does_not_fit_is_an_overflow_that_names_the_window(terse):
    with pytest.raises(ContextOverflowError) as caught:
        ask(local(terse), asking("word " * WINDOW))
    assert caught.value.context_window == WINDOW
    with pytest.raises(ContextOverflowError):
        ask(local(terse), asking(max_tokens=WINDOW))
    ask(local(terse), asking())


def test_what_makes_no_sense_is_refused(terse):
    with pytest.raises(RefusedRequestError, match="stop"):
        ask(local(terse), asking(stop=("",)))


def test_a_template_without_system_messages_gets_one_message(terse, tmp_path):
    copy = shutil.copytree(terse, tmp_path / "strict")
    edit_json(copy / "tokenizer_config.json", chat_template=MISTRAL, bos_token="<|endoftext|>", eos_token="<|im_end|>")
    completion = ask(local(copy), asking(schema=Verdict))
    Verdict.model_validate_json(completion.text)


def test_one_engine_answers_every_loop_and_thread(terse):
    engines.close()
    answers: list[str] = []

    def elsewhere() -> None:
        answers.append(ask(local(terse), asking(schema=Verdict)).text)

    threads = [threading.Thread(target=elsewhere) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert len(set(answers)) == 1
    assert len(engines._engines) == 1
    (loaded,) = engines._engines.values()
    assert loaded.result().stats().requests == 4


def test_a_load_that_fails_says_why_and_is_tried_again(terse, tmp_path):
    copy = shutil.copytree(terse, tmp_path / "broken")
    model, config = local(copy), (copy / "config.json").read_bytes()
    edit_json(copy / "config.json", hidden_act="gelu")
    with pytest.raises(EngineFailedError, match="hidden_act is gelu"):
        ask(model, asking())
    (copy / "config.json").write_bytes(config)
    assert ask(model, asking()).text


def test_a_request_that_is_left_frees_the_engine(terse):
    model = local(terse)

    async def main() -> int:
        await model.complete(asking(max_tokens=2))
        task = asyncio.create_task(model.complete(asking("Tell me all.", max_tokens=1500)))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        engine = engines.loaded(model._key)
        for _ in range(100):
            if not engine.stats().running:
                break
            await asyncio.sleep(0.02)
        return engine.stats().running

    assert asyncio.run(main()) == 0


# --- reading ahead ---------------------------------------------------------------------------------------------------


def pieces(count: int) -> list[Request]:
    texts = [" ".join(f"Line {line} of piece {piece}." for line in range(30)) for piece in range(count)]
    return [asking(f"{text}\n\n<question>\nWhy?\n</question>", schema=Verdict) for text in texts]


def carrying(request: Request) -> Request:
    """The same piece, with a note carried in before the question."""
    text = request.messages[-1].content.replace("\n\n<question>", "\n\nNotes so far: none.\n\n<question>")
    return asking(text, schema=Verdict)


def test_the_next_pieces_are_read_while_one_is_answered():
    read: list[Request] = []
    futures: list[Future[None]] = []

    def begin(request: Request) -> Future[None]:
        read.append(request)
        futures.append(Future())
        return futures[-1]

    announced = pieces(5)
    ahead = ReadAhead(begin)
    ahead.announce(announced)
    assert not read
    ahead.answering(announced[0])
    assert read == announced[1:3]
    ahead.sending(carrying(announced[1]))
    assert futures[0].cancelled()
    ahead.answering(carrying(announced[1]))
    assert read == announced[1:4]
    ahead.answering(asking("something else"))
    ahead.answering(carrying(announced[4]))
    assert [future.cancelled() for future in futures] == [True, True, True]
    ahead.close()
    ahead.answering(announced[0])
    assert len(read) == 3


def test_what_was_read_ahead_is_not_computed_again(terse):
    model = local(terse)

    async def main() -> tuple[int, int]:
        engines.close()
        announced = pieces(2)
        done: list[Future[object]] = []

        def read(request: Request) -> Future[object] | None:
            future = model.read_ahead(request)
            done.extend([future] if future is not None else [])
            return future

        ahead = ReadAhead(read)
        ahead.announce(announced)
        asked = AheadModel(model, ahead)
        first = await asked.complete(announced[0])
        await asyncio.wrap_future(done[0])
        second = await asked.complete(carrying(announced[1]))
        return first.usage.tokens_cached, second.usage.tokens_cached

    before, after = asyncio.run(main())
    assert before == 0
    # The piece has about 400 tokens, and pages 64.
    assert after > 300


def test_the_part_that_was_read_is_kept_when_the_request_comes(terse):
    model = local(terse)

    async def main() -> tuple[int, int]:
        engines.close()
        await model.complete(asking(max_tokens=2))
        engine = engines.loaded(model._key)
        long = asking(" ".join(f"Line {line} stands alone." for line in range(100)), schema=Verdict)
        reading = model.read_ahead(long)
        steps = engine.stats().steps
        while engine.stats().steps <= steps + 1 and not reading.done():
            await asyncio.sleep(0.001)
        reading.cancel()
        completion = await model.complete(long)
        return completion.usage.tokens_cached, completion.usage.tokens_in

    cached, prompt = asyncio.run(main())
    assert 0 < cached <= prompt
