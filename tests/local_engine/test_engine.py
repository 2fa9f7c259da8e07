"""The engine from outside: many callers, small pools, hang-ups and failures; random weights, transformers as oracle."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lcdoc.local_engine.engine import Engine, KVConfig, Sampling
from lcdoc.local_engine.errors import EngineClosedError, EngineError, InvalidRequestError, RequestTooLargeError
from lcdoc.tests.local_engine.checkpoints import reference_model, rope
from lcdoc.tests.local_engine.engines import (
    BLOCK_BYTES,
    PAGE_SIZE,
    ask,
    ask_all,
    first_piece,
    ids,
    in_use,
    load,
    prompt_of,
    same,
    until,
)

Make = Callable[..., Path]

CHAT = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "Why did she leave the house at 7:45?"},
]
SCHEMA = {
    "type": "object",
    "properties": {"found": {"type": "boolean"}, "page": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["found", "page"],
    "additionalProperties": False,
}
STORY = {"type": "array", "items": {"enum": ["she left", "he left"]}, "minItems": 6, "maxItems": 12}
LONG = Sampling(max_tokens=200, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(checkpoint: Make) -> Path:
    return checkpoint("qwen2", max_position_embeddings=4096)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with load(folder) as loaded:
        yield loaded
        # Whatever the tests did: what no request holds is the prefix cache's.
        assert in_use(loaded) == 0
        loaded._scheduler.tables.check_integrity()
        loaded._scheduler.room.prefixes.check_integrity()


def greedy_of(folder: Path, tokens: list[int], count: int) -> list[int]:
    with torch.inference_mode():
        model = reference_model(folder)
        made = model.generate(
            torch.tensor([tokens]), max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    return made[0, len(tokens) :].tolist()


def mixed(count: int = 20) -> list[tuple[Any, Sampling, dict[str, Any]]]:
    """Requests of every kind, long and short."""
    kinds: list[tuple[Sampling, dict[str, Any]]] = [
        (Sampling(max_tokens=30), {}),
        (Sampling(temperature=0.9, seed=7, max_tokens=30), {}),
        (Sampling(temperature=1.1, top_p=0.8, top_k=40, seed=11, max_tokens=25), {}),
        (Sampling(max_tokens=60), {"schema": SCHEMA}),
        (Sampling(temperature=1.0, seed=3, max_tokens=40), {"regex": "[a-f]{3}-[0-9]{4}"}),
        (Sampling(max_tokens=40, stop=("er", "ss")), {}),
        (Sampling(max_tokens=20, logprobs=3), {}),
        (Sampling(temperature=0.7, seed=5, max_tokens=30, repetition_penalty=1.3, frequency_penalty=0.4), {}),
        (Sampling(temperature=0.8, min_p=0.05, seed=23, max_tokens=30, logprobs=0), {"schema": SCHEMA}),
    ]
    prompts: list[Any] = ["It is a truth", CHAT, prompt_of(70, 1), prompt_of(300, 2), "a " * 40, prompt_of(1, 3)]
    return [(prompts[i % len(prompts)], *kinds[i % len(kinds)]) for i in range(count)]


# What is answered


def test_a_greedy_answer_is_that_of_transformers(engine: Engine, folder: Path) -> None:
    text = "It is a truth universally acknowledged"
    tokens = engine.encode(text)
    theirs = greedy_of(folder, tokens, 60)
    output = ask(engine, text, Sampling(max_tokens=60, ignore_eos=True))
    assert ids(output) == theirs
    assert output.text == engine.tokenizer.decode(theirs)
    assert (output.finish, output.usage.prompt, output.usage.output) == ("length", len(tokens), 60)


def test_an_answer_ends_at_its_end_token(engine: Engine) -> None:
    free = ids(ask(engine, prompt_of(40), Sampling(max_tokens=30, ignore_eos=True)))
    end = free[9]
    assert end not in free[:9]
    tokenizer = engine.tokenizer
    before = tokenizer.eos_ids
    tokenizer.eos_ids = frozenset({end})
    try:
        output = ask(engine, prompt_of(40), Sampling(max_tokens=30))
        ignored = ask(engine, prompt_of(40), Sampling(max_tokens=30, ignore_eos=True))
    finally:
        tokenizer.eos_ids = before
    assert (ids(output), output.finish) == (free[:10], "stop")
    assert output.text == tokenizer.decode(free[:9])
    assert ids(ignored) == free


def test_texts_ids_and_chats_are_prompts(engine: Engine) -> None:
    text = "Why did she leave?"
    sampling = Sampling(max_tokens=20)
    assert same(ask(engine, text, sampling), ask(engine, engine.tokenizer.encode(text), sampling))
    written = engine.encode(CHAT)
    assert engine.tokenizer.decode(written, skip_specials=False).endswith("<|im_start|>assistant\n")
    assert same(ask(engine, CHAT, sampling), ask(engine, tuple(written), sampling))


def test_stop_strings_end_a_text_before_them(engine: Engine) -> None:
    prompt = prompt_of(40, 4)
    whole = ask(engine, prompt, Sampling(max_tokens=60)).text
    stop = whole[20:23]
    output = ask(engine, prompt, Sampling(max_tokens=60, stop=(stop,)))
    assert output.finish == "stop"
    assert output.text == whole[: whole.index(stop)]


def test_constrained_answers_fit(engine: Engine) -> None:
    answer = json.loads(ask(engine, CHAT, Sampling(temperature=1, seed=2, max_tokens=60), schema=SCHEMA).text)
    assert set(answer) == {"found", "page"}
    assert 0 <= answer["page"] <= 99
    assert re.fullmatch("[a-c]{4}x?", ask(engine, CHAT, Sampling(max_tokens=20), regex="[a-c]{4}x?").text)


def test_twenty_at_once_equal_each_alone(folder: Path) -> None:
    asked = mixed()
    with load(folder, prefix_cache=False) as alone:
        expected = [ask(alone, prompt, sampling, **options) for prompt, sampling, options in asked]
    assert len({output.text for output in expected}) > 12
    with load(folder, sequences=8) as engine:
        for ours, theirs in zip(ask_all(engine, asked), expected, strict=True):
            assert same(ours, theirs)
        assert in_use(engine) == 0


@pytest.mark.parametrize("temperature", [0.0, 0.3])
@pytest.mark.parametrize("options", [{}, {"schema": STORY}])
def test_speculation_changes_no_token(folder: Path, temperature: float, options: dict[str, Any]) -> None:
    prompt = ('["she left", "he left", "she left", "he left"] ' * 6)[:200]
    sampling = Sampling(temperature=temperature, seed=9, max_tokens=120, ignore_eos=True)
    with load(folder, speculate=False) as engine:
        plain = ask(engine, prompt, sampling, **options)
        steps = engine.stats().steps
    with load(folder) as engine:
        drafted = ask(engine, prompt, sampling, **options)
        fewer = engine.stats().steps
        stats = engine.stats()
    assert same(drafted, plain)
    assert drafted.usage.drafted >= drafted.usage.accepted > 0
    assert (stats.drafted_tokens, stats.accepted_tokens) == (drafted.usage.drafted, drafted.usage.accepted)
    if not options:
        assert plain.usage.drafted == 0
        assert fewer < steps


# The prefix cache


def test_a_known_beginning_is_not_computed_again(folder: Path) -> None:
    document = prompt_of(100, 5)
    with load(folder) as engine:
        first = ask(engine, [*document, 9, 10], Sampling(max_tokens=30))
        second = ask(engine, [*document, 9, 10], Sampling(max_tokens=30))
        other = ask(engine, [*document, 77], Sampling(max_tokens=30))
        stats = engine.stats()
    assert (first.usage.cached, second.usage.cached, other.usage.cached) == (0, 96, 96)
    assert stats.cached_tokens == 192
    assert same(first, second)
    with load(folder, prefix_cache=False) as engine:
        assert same(ask(engine, [*document, 77], Sampling(max_tokens=30)), other)
        assert same(again := ask(engine, [*document, 9, 10], Sampling(max_tokens=30)), first)
        assert again.usage.cached == 0
        assert engine.stats().pages_used == 0


def test_a_follow_up_goes_on_behind_the_answer(engine: Engine) -> None:
    prompt = prompt_of(50, 6)
    answer = ids(ask(engine, prompt, Sampling(max_tokens=40, ignore_eos=True)))
    followed = ask(engine, [*prompt, *answer, 5], Sampling(max_tokens=10))
    assert followed.usage.cached == (50 + 39) // PAGE_SIZE * PAGE_SIZE


def test_only_equal_beginnings_are_shared(folder: Path) -> None:
    """Prompts that share a block and differ behind it, and one whose second block is another's first."""
    shared, one, other = prompt_of(PAGE_SIZE, 7), prompt_of(40, 8), prompt_of(40, 9)
    prompts = [[*shared, *one], [*shared, *other], [*one, *shared], [*one[:PAGE_SIZE], *shared, *one]]
    sampling = Sampling(max_tokens=20)
    with load(folder, prefix_cache=False) as engine:
        expected = [ask(engine, prompt, sampling) for prompt in prompts]
    with load(folder) as engine:
        outputs = [ask(engine, prompt, sampling) for prompt in prompts]
        again = [ask(engine, prompt, sampling) for prompt in prompts]
    assert [output.usage.cached for output in outputs] == [0, PAGE_SIZE, 0, PAGE_SIZE]
    assert all(map(same, outputs, expected))
    assert all(map(same, again, expected))


def test_cached_pages_give_way(folder: Path) -> None:
    with load(folder, blocks=12) as engine:
        for seed in range(8):
            ask(engine, prompt_of(80, seed), Sampling(max_tokens=2))
        assert engine.stats().pages_used <= engine.stats().pages
        assert ask(engine, prompt_of(80, 7), Sampling(max_tokens=2)).usage.cached == 64


# Small pools


def test_preempted_requests_lose_nothing(folder: Path) -> None:
    asked = [
        (prompt_of(60, seed), Sampling(temperature=seed % 2, seed=seed, max_tokens=60, ignore_eos=True), {})
        for seed in range(6)
    ]
    asked.append((CHAT, Sampling(max_tokens=60, temperature=1, seed=1), {"schema": SCHEMA}))
    with load(folder) as engine:
        expected = ask_all(engine, asked)
        assert engine.stats().preemptions == 0
    for options in ({}, {"prefix_cache": False}, {"speculate": False}):
        with load(folder, blocks=18, **options) as engine:
            outputs = ask_all(engine, asked)
            stats = engine.stats()
            assert stats.preemptions > 0
            assert in_use(engine) == 0
            engine._scheduler.tables.check_integrity()
        assert all(map(same, outputs, expected))
        assert (stats.requests, stats.failed, stats.running, stats.waiting) == (7, 0, 0, 0)
        assert stats.output_tokens == sum(len(output.tokens) for output in expected)


def test_a_request_may_fill_the_whole_pool(folder: Path) -> None:
    with load(folder, blocks=6) as engine:
        assert engine.context_window == 96
        output = ask(engine, prompt_of(50), Sampling(max_tokens=1000, ignore_eos=True))
        assert (output.finish, len(output.tokens)) == ("length", 46)
        with pytest.raises(RequestTooLargeError, match="96 tokens and the window is 96, which is what the cache holds"):
            ask(engine, prompt_of(96))


# Fairness


def test_a_short_question_does_not_wait_for_a_book(folder: Path) -> None:
    with load(folder, step_tokens=64, sequences=8) as engine:
        order: list[str] = []

        async def reader(name: str, prompt: list[int]) -> None:
            async with aclosing(engine.generate(prompt, Sampling(max_tokens=2, ignore_eos=True))) as pieces:
                async for _ in pieces:
                    order.append(name)

        async def both() -> None:
            books = [asyncio.create_task(reader("book", prompt_of(1500, seed))) for seed in range(4)]
            await until(lambda: engine.stats().running == 4 and engine.stats().steps > 2)
            asked = engine.stats().steps
            await reader("question", prompt_of(40, 4))
            assert engine.stats().steps - asked < 8
            await asyncio.gather(*books)

        asyncio.run(both())
        assert order[:2] == ["question"] * 2


def test_answers_go_on_while_a_book_is_read(folder: Path) -> None:
    with load(folder, step_tokens=128, speculate=False) as engine:
        order: list[str] = []

        async def writer(prompt: list[int], count: int, name: str) -> None:
            async with aclosing(engine.generate(prompt, Sampling(max_tokens=count, ignore_eos=True))) as pieces:
                async for piece in pieces:
                    order.append(name)
                    assert len(piece.tokens) == 1

        async def both() -> None:
            answer = asyncio.create_task(writer(prompt_of(30), 60, "answer"))
            await until(lambda: bool(order))
            await writer(prompt_of(3000, 1), 1, "book")
            await answer

        asyncio.run(both())
        # 3000 tokens by 127 a pass, and a token of the answer in each.
        assert order.index("book") >= 24


# Hanging up


@pytest.mark.parametrize("moment", ["reading", "answering", "waiting"])
def test_whoever_hangs_up_frees_pages_at_once(folder: Path, moment: str) -> None:
    with load(folder, blocks=250, step_tokens=64, sequences=2 if moment == "waiting" else 8) as engine:

        async def go() -> None:
            other = asyncio.create_task(engine.complete(prompt_of(30), Sampling(max_tokens=300, ignore_eos=True)))
            second = asyncio.create_task(engine.complete(prompt_of(31), Sampling(max_tokens=300, ignore_eos=True)))
            await until(lambda: engine.stats().running == 2)
            if moment == "answering":
                await first_piece(engine, prompt_of(40, 1), LONG)
            else:
                leaving = asyncio.create_task(first_piece(engine, prompt_of(2000, 1), LONG))
                if moment == "waiting":
                    await until(lambda: engine.stats().waiting == 1)
                else:
                    await until(lambda: engine.stats().running == 3)
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)
            await until(lambda: engine.stats().running == 2 and engine.stats().waiting == 0)
            assert not other.done()
            outputs = await asyncio.gather(other, second)
            assert [len(output.tokens) for output in outputs] == [300, 300]

        asyncio.run(go())
        assert in_use(engine) == 0
        assert engine.stats().failed == 0


def test_a_caller_whose_loop_died_is_forgotten(engine: Engine) -> None:
    before = engine.stats().output_tokens
    loop = asyncio.new_event_loop()
    pieces = engine.generate(prompt_of(30), Sampling(max_tokens=4000, ignore_eos=True))
    loop.run_until_complete(anext(pieces))
    # No clean-up at all: neither the generator nor its task is closed.
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    asyncio.run(until(lambda: engine.stats().running == 0, 5))
    assert engine.stats().output_tokens == before
    assert len(ask(engine, prompt_of(30), Sampling(max_tokens=5, ignore_eos=True)).tokens) == 5


def test_callers_from_threads_and_loops(engine: Engine) -> None:
    sampling = Sampling(max_tokens=20)
    expected = [ask(engine, prompt_of(20, seed), sampling) for seed in range(12)]
    with ThreadPoolExecutor(6) as threads:
        outputs = list(threads.map(lambda seed: ask(engine, prompt_of(20, seed), sampling), range(12)))
    assert all(map(same, outputs, expected))


# Reading ahead


def test_what_was_read_ahead_is_known(folder: Path) -> None:
    prompt = prompt_of(200, 1)
    with load(folder) as engine:
        usage = engine.read_ahead(prompt).result(10)
        assert (usage.prompt, usage.output, usage.cached) == (200, 0, 0)
        assert engine.read_ahead(prompt).result(10).cached == 192
        assert ask(engine, [*prompt, 8], Sampling(max_tokens=1)).usage.cached == 192
        with pytest.raises(RequestTooLargeError):
            engine.read_ahead(prompt_of(5000))


def test_reading_ahead_gives_way(folder: Path) -> None:
    """It takes pages only as long as nobody waits for them, and its own work is not lost."""
    with load(folder, blocks=130, step_tokens=64) as engine:
        future = engine.read_ahead(prompt_of(2000, 1))
        asyncio.run(until(lambda: engine.stats().steps > 5))
        output = ask(engine, prompt_of(400, 2), Sampling(max_tokens=2))
        assert not future.done()
        assert len(output.tokens) == 2
        assert engine.stats().preemptions == 1
        assert future.result(20).cached == 0


def test_reading_ahead_can_be_taken_back(folder: Path) -> None:
    with load(folder, step_tokens=32) as engine:
        futures = [engine.read_ahead(prompt_of(3000, seed)) for seed in range(3)]
        asyncio.run(until(lambda: engine.stats().running > 0))
        for future in futures:
            assert future.cancel()
        asyncio.run(until(lambda: engine.stats().running + engine.stats().waiting == 0))
        assert in_use(engine) == 0
        with pytest.raises(CancelledError):
            futures[0].result(1)
        assert engine.read_ahead(prompt_of(20)).result(5).prompt == 20


def test_futures_cancelled_at_any_moment(folder: Path) -> None:
    """A future may be cancelled at the very moment its result arrives: the engine lives on."""
    with load(folder) as engine:
        for seed in range(40):
            future = engine.read_ahead(prompt_of(20, seed))
            for _ in range(seed * 40):
                pass
            future.cancel()
            wait_for([future], 5)
        assert engine.read_ahead(prompt_of(20)).result(5).prompt == 20


# Closing


def test_closing_ends_what_runs(folder: Path) -> None:
    engine = load(folder, sequences=2)

    async def go() -> None:
        running = [
            asyncio.create_task(engine.complete(prompt_of(30, seed), Sampling(max_tokens=4000, ignore_eos=True)))
            for seed in range(4)
        ]
        await until(lambda: engine.stats().running == 2 and engine.stats().waiting == 2)
        await asyncio.to_thread(engine.close)
        for task in running:
            with pytest.raises(EngineClosedError):
                await task
        with pytest.raises(EngineClosedError):
            await engine.complete("It is", Sampling(max_tokens=1))

    asyncio.run(go())
    with pytest.raises(EngineClosedError):
        engine.read_ahead("It is")
    engine.close()


def test_closing_frees_the_memory(folder: Path) -> None:
    engine = load(folder)
    ask(engine, "It is", Sampling(max_tokens=3))
    held = [weakref.ref(engine._scheduler.tables.pool.keys)]
    engine.close()
    gc.collect()
    assert [each() for each in held] == [None]
    assert engine.stats().requests == 1


# Failing alone


class _Fails:
    """A matcher that gives way at one of its calls."""

    def __init__(self, inner: Any, at: str, what: Any) -> None:
        self._inner, self._at, self._what = inner, at, what

    def __getattr__(self, name: str) -> Any:
        return self._what if name == self._at else getattr(self._inner, name)


def _raising(*_: object) -> Any:
    raise EngineError("the grammar cannot go on: too complex")


def _nothing(draft: Any) -> torch.Tensor:
    return torch.zeros(1 + len(draft), 16, dtype=torch.int32)


def _breaking(*_: object) -> Any:
    raise ValueError("a bug")


@pytest.mark.parametrize(
    ("at", "what"),
    [
        ("masks", _nothing),
        ("masks", _raising),
        ("advance", _raising),
        ("fit", _breaking),
        ("masks", _breaking),
    ],
)
def test_a_request_that_fails_fails_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, at: str, what: Callable[..., Any]
) -> None:
    made = engine._admission.request

    def spoiled(asked: Any, deliver: Any) -> Any:
        request = made(asked, deliver)
        if request.matcher is not None:
            request.matcher = _Fails(request.matcher, at, what)
        return request

    expected = ask(engine, prompt_of(33), Sampling(max_tokens=40, ignore_eos=True))
    failed = engine.stats().failed
    monkeypatch.setattr(engine._admission, "request", spoiled)

    async def both() -> None:
        other = asyncio.create_task(engine.complete(prompt_of(33), Sampling(max_tokens=40, ignore_eos=True)))
        with pytest.raises(EngineError):
            await engine.complete(CHAT, Sampling(max_tokens=60), schema=SCHEMA)
        assert same(await other, expected)

    asyncio.run(both())
    assert engine.stats().failed == failed + 1
    assert in_use(engine) == 0


@pytest.mark.parametrize("at", ["forced", "valid", "prepare"])
def test_what_only_saves_time_may_fail(engine: Engine, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    made = engine._admission.request

    def spoiled(asked: Any, deliver: Any) -> Any:
        request = made(asked, deliver)
        request.matcher = _Fails(request.matcher, at, _breaking)
        return request

    expected = ask(engine, CHAT, Sampling(max_tokens=60), schema=SCHEMA)
    monkeypatch.setattr(engine._admission, "request", spoiled)
    assert same(ask(engine, CHAT, Sampling(max_tokens=60), schema=SCHEMA), expected)


def test_a_broken_pass_ends_its_requests_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lcdoc.local_engine.decoder import Decoder

    forward, passes = Decoder.forward, []

    def broken(self: Decoder, batch: Any) -> torch.Tensor:
        passes.append(1)
        if len(passes) == 3:
            raise RuntimeError("out of luck")
        return forward(self, batch)

    monkeypatch.setattr(Decoder, "forward", broken)
    with load(folder) as engine:
        with pytest.raises(EngineError, match="RuntimeError: out of luck"):
            ask(engine, prompt_of(33), Sampling(max_tokens=40, ignore_eos=True))
        assert in_use(engine) == 0
        assert len(ask(engine, prompt_of(33), Sampling(max_tokens=4, ignore_eos=True)).tokens) == 4


def test_a_thread_that_dies_leaves_nobody_waiting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with load(folder) as engine:
        monkeypatch.setattr(engine._scheduler, "next_step", _breaking)
        with pytest.raises(EngineError, match="a bug"):
            ask(engine, prompt_of(33), Sampling(max_tokens=4))
        with pytest.raises(EngineClosedError):
            ask(engine, prompt_of(33), Sampling(max_tokens=4))


def test_a_thread_that_dies_with_its_cache_leaves_nobody_waiting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def many(engine: Engine) -> list[object]:
        answers = (engine.complete(prompt_of(33, seed), Sampling(max_tokens=1000)) for seed in range(3))
        return await asyncio.wait_for(asyncio.gather(*answers, return_exceptions=True), 20)

    with load(folder) as engine:
        monkeypatch.setattr(engine._scheduler.tables, "free", _breaking)
        monkeypatch.setattr(engine._scheduler, "computed", _breaking)
        assert all(isinstance(each, EngineError) for each in asyncio.run(many(engine)))
        assert engine.closed


def test_a_request_that_cannot_be_queued_fails_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with load(folder) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(engine._scheduler, "add", _breaking)
            with pytest.raises(EngineError, match="a bug"):
                ask(engine, prompt_of(33), Sampling(max_tokens=4))
        assert len(ask(engine, prompt_of(33), Sampling(max_tokens=4, ignore_eos=True)).tokens) == 4


@pytest.mark.parametrize(
    ("prompt", "options", "says"),
    [
        ("", {}, "the prompt is empty"),
        ([], {}, "the prompt is empty"),
        ([3, 512], {}, "has token 512, and the model knows 0 to 511"),
        ([3, -1], {}, "has token -1"),
        (["a", "b"], {}, "nothing of two kinds"),
        ([*CHAT, 3], {}, "nothing of two kinds"),
        ([3, 4.5], {}, "nothing of two kinds"),
        (prompt_of(4096), {}, "4,096 tokens and the window is 4,096: shorten"),
        ("It is", {"schema": {"type": "nonsense"}}, "schema"),
        ("It is", {"regex": "(["}, "regular expression"),
        ("It is", {"schema": SCHEMA, "regex": "a"}, "not both"),
        ("It is", {"schema": SCHEMA, "sampling": Sampling(max_tokens=2)}, "max_tokens is 2"),
    ],
)
def test_requests_that_cannot_be_met(engine: Engine, prompt: Any, options: dict[str, Any], says: str) -> None:
    requests = engine.stats().requests
    with pytest.raises(InvalidRequestError, match=says):
        ask(engine, prompt, **options)
    assert engine.stats().requests == requests


def test_max_tokens_is_cut_to_the_window(engine: Engine) -> None:
    output = ask(engine, prompt_of(4090), Sampling(max_tokens=100, ignore_eos=True))
    assert (len(output.tokens), output.finish) == (6, "length")


# Memory


def test_the_cache_is_as_large_as_asked(folder: Path) -> None:
    def loaded(max_memory: float | None, **options: Any) -> Engine:
        kv = KVConfig(page_size=PAGE_SIZE, max_memory=max_memory)
        return Engine.load(folder, dtype="float32", device="cpu", kv=kv, **options)

    with loaded(10 * BLOCK_BYTES + 5) as engine:
        assert engine.stats().pages == 60
        assert engine.context_window == 160
    with loaded(None, sequences=2) as engine:
        # Full windows of all sequences, and a page more for each row.
        assert engine.stats().pages == 2 * 6 * (4096 // PAGE_SIZE + 1)
        assert engine.context_window == 4096
    with loaded(0.9, sequences=1) as engine:
        assert engine.context_window == 4096
    with pytest.raises(EngineError, match=r"asks for [\d,]+ MiB, and [\d,]+ MiB are free"):
        loaded(1e15)
    with pytest.raises(EngineError, match="do not hold 16 tokens"):
        loaded(BLOCK_BYTES - 1)
    for none in (0, -1):
        with pytest.raises(EngineError, match="leaves no cache"):
            loaded(none)


def test_many_short_requests_leave_nothing_behind(folder: Path) -> None:
    from lcdoc.local_engine.requests import Request

    def counts() -> tuple[int, int, int]:
        gc.collect()
        objects = gc.get_objects()
        of_requests = sum(type(each) is Request for each in objects)
        return of_requests, len(objects), threading.active_count()

    with load(folder, blocks=30, sequences=4) as engine:
        sampling = Sampling(max_tokens=2, ignore_eos=True)
        for seed in range(30):
            ask(engine, prompt_of(20, seed), sampling)
        before = counts()
        for seed in range(40):
            options = {"regex": "[a-c]{2}"} if seed % 5 == 0 else {}
            ask_all(engine, [(prompt_of(20 + seed % 9, each), sampling, options) for each in range(4)])
        after = counts()
        stats = engine.stats()
        assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, stats.pages_cached)
        assert stats.pages_used <= stats.pages
    assert after[0] <= 1
    assert after[1] - before[1] < 2000
    assert after[2] <= before[2] + 1


# Models


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("mistral", {"sliding_window": 24}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1}),
        ("llama", {"rope_parameters": rope("dynamic"), "max_position_embeddings": 64}),
        ("phi3", {"rope_parameters": rope("longrope")}),
    ],
    ids=["window", "window-in-some-layers", "dynamic", "longrope"],
)
def test_models_of_every_kind(checkpoint: Make, family: str, overrides: dict[str, Any]) -> None:
    """Read by small pieces, in a batch, over a pool that is too small: the answers are transformers'."""
    folder = checkpoint(family, **overrides)
    prompts = [prompt_of(40, 1), prompt_of(11, 2), prompt_of(40, 1)]
    expected = [greedy_of(folder, prompt, 20) for prompt in prompts]
    with load(folder, blocks=11, step_tokens=32) as engine:
        sampling = Sampling(max_tokens=20, ignore_eos=True)
        outputs = ask_all(engine, [(prompt, sampling, {}) for prompt in prompts])
        assert [ids(output) for output in outputs] == expected
        assert ids(ask(engine, prompts[0], sampling)) == expected[0]
        again = ask(engine, prompts[0], sampling).usage
        assert (again.cached > 0) == (overrides.get("rope_parameters") is None)


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_quantized_models_answer(folder: Path, quantize: Any, dtype: str) -> None:
    sampling = Sampling(max_tokens=24, logprobs=0, ignore_eos=True)
    with load(folder) as engine:
        exact = ask(engine, prompt_of(60), sampling)
        whole = engine.weight_bytes
    kv = KVConfig(page_size=PAGE_SIZE, max_memory=200 * BLOCK_BYTES)
    with Engine.load(folder, dtype=dtype, device="cpu", kv=kv, quantize=quantize) as engine:
        assert engine.weight_bytes < whole * (0.75 if dtype == "float32" else 0.45)
        output = ask(engine, prompt_of(60), sampling)
        assert len(output.tokens) == 24
        assert abs((output.tokens[0].logprob or 0) - (exact.tokens[0].logprob or 0)) < (
            1 if quantize == "int4" else 0.3
        )
        valid = ask(engine, CHAT, replace(sampling, max_tokens=60), schema=SCHEMA)
        assert set(json.loads(valid.text)) == {"found", "page"}
