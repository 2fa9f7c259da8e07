"""Snapshots in the pages of an engine: shared by questions, written by none, and let go when room is needed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lcdoc.local_engine.engine import Engine, Output, Sampling
from lcdoc.local_engine.snapshot import Origin, Snapshot
from lcdoc.tests.local_engine.engines import ask, ask_all, held_bits, in_use, load, prompt_of, same, until

Make = Callable[..., Path]
SHORT = Sampling(max_tokens=12, temperature=0, ignore_eos=True, logprobs=2)
TEXT, QUESTION = prompt_of(203), prompt_of(17, 1)
QUESTIONS = [prompt_of(5 + 7 * each, 10 + each) for each in range(8)]
COMPACT = "window+positions=compact@64tok"
RECIPES = ("full", "snapkv+ada@0.25", "snapkv+match@64tok", COMPACT)


@pytest.fixture(scope="module")
def folder(checkpoint: Make) -> Path:
    return checkpoint("qwen2", max_position_embeddings=2048)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with load(folder, step_tokens=64) as loaded:
        yield loaded


def read(engine: Engine, kv: str = "full", tokens: list[int] = TEXT) -> Snapshot:
    return asyncio.run(engine.prefill(tokens, kv=kv))


def unshared(snapshot: Snapshot) -> Snapshot:
    """The same, as no engine has seen it."""
    return replace(snapshot, origin=Origin())


def is_resident(engine: Engine, snapshot: Snapshot) -> bool:
    return engine._scheduler.room.residents.find(snapshot) is not None


def let_go(engine: Engine) -> None:
    """Everything that is kept for later requests; then no page may be in use."""
    room = engine._scheduler.room
    room.evict(1 << 40)
    assert engine.stats().pages_used == engine.stats().pages_cached == 0
    room.tables.check_integrity()


def near(ours: Output, theirs: Output) -> bool:
    """Whether answers are the same, and what the model thought of each token, but for the rounding of sums."""
    pairs = zip(ours.tokens, theirs.tokens, strict=True)
    return same(ours, theirs) and all(abs((a.logprob or 0) - (b.logprob or 0)) < 2e-5 for a, b in pairs)


@pytest.mark.parametrize("recipe", RECIPES)
def test_shared_pages_answer_as_pages_of_ones_own_and_are_never_written(engine: Engine, recipe: str) -> None:
    snapshot = read(engine, recipe)
    assert is_resident(engine, snapshot)
    before = held_bits(engine, snapshot)
    alone = [ask(engine, each, SHORT, prefix=unshared(snapshot)) for each in QUESTIONS]
    one_by_one = [ask(engine, each, SHORT, prefix=snapshot) for each in QUESTIONS]
    together = ask_all(engine, [(each, SHORT, {"prefix": snapshot}) for each in QUESTIONS])
    assert len({each.text for each in alone}) > 5
    assert all(map(near, one_by_one, alone))
    assert all(map(near, together, alone))
    assert all(map(torch.equal, held_bits(engine, snapshot), before))
    let_go(engine)
    assert near(ask(engine, QUESTIONS[0], SHORT, prefix=snapshot), alone[0])


def test_eight_questions_at_once_need_the_text_once(folder: Path) -> None:
    sampling = replace(SHORT, max_tokens=40)
    questions = [prompt_of(5 + each, 10 + each) for each in range(8)]
    with load(folder, blocks=13 + 8 * 5, step_tokens=64) as small:
        snapshot = read(small)
        alone = [ask(small, each, sampling, prefix=snapshot) for each in questions]
        used: list[int] = []

        async def together() -> list[Output]:
            asked = [asyncio.create_task(small.complete(each, sampling, prefix=snapshot)) for each in questions]
            await until(lambda: small.stats().running == 8)
            used.append(small.stats().pages_used)
            return await asyncio.gather(*asked)

        assert all(map(near, asyncio.run(together()), alone))
        assert small.stats().preemptions == 0
        assert 13 * 6 < used[0] < (13 + 8 * 5) * 6 + 1
        let_go(small)


def test_a_question_behind_a_resident_text_copies_nothing_of_it(engine: Engine) -> None:
    snapshot = unshared(read(engine))
    first = ask(engine, QUESTION, SHORT, prefix=snapshot)
    assert is_resident(engine, snapshot)
    snapshot.values.numbers.zero_()
    assert near(ask(engine, QUESTION, SHORT, prefix=snapshot), first)
    let_go(engine)
    assert not same(ask(engine, QUESTION, SHORT, prefix=snapshot), first)


def test_an_int8_file_is_resident_as_numbers_of_the_cache(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "text.kv"
    read(engine, "snapkv+ada@0.25").save(path, quantize="int8")
    loaded = Snapshot.load(path)
    first, second = (ask(engine, QUESTION, SHORT, prefix=loaded) for _ in range(2))
    assert near(first, second)
    keys, values = held_bits(engine, loaded)[:2]
    assert torch.equal(keys, loaded.keys.part(0, len(keys)))
    assert torch.equal(values, loaded.values.part(0, len(keys)))


def test_a_file_is_resident_once_however_often_it_is_loaded(engine: Engine, tmp_path: Path) -> None:
    let_go(engine)
    path = tmp_path / "text.kv"
    read(engine).save(path)
    let_go(engine)
    for _ in range(2):
        ask(engine, QUESTION, SHORT, prefix=Snapshot.load(path))
    assert len(engine._scheduler.room.residents) == 1
    read(engine, tokens=TEXT[:100]).save(path)
    other = Snapshot.load(path)
    assert not is_resident(engine, other)
    assert near(ask(engine, QUESTION, SHORT, prefix=other), ask(engine, TEXT[:100] + QUESTION, SHORT))


def test_what_was_used_last_stays_within_half_of_the_pool(folder: Path) -> None:
    with load(folder, blocks=60, step_tokens=64, prefix_cache=False) as small:
        texts = [read(small, tokens=prompt_of(200, seed)) for seed in range(2)]
        ask(small, QUESTION, SHORT, prefix=texts[0])
        third = read(small, tokens=prompt_of(200, 3))
        assert [is_resident(small, each) for each in (*texts, third)] == [True, False, True]
        large = read(small, tokens=prompt_of(500, 4))
        assert [is_resident(small, each) for each in (*texts, third, large)] == [False, False, False, True]
        let_go(small)


def test_pages_of_a_snapshot_that_nobody_has_any_more_are_free(engine: Engine) -> None:
    let_go(engine)
    gone = read(engine)
    other = read(engine, tokens=prompt_of(40, 2))
    assert len(engine._scheduler.room.residents) == 2
    del gone
    gc.collect()
    ask(engine, QUESTION, SHORT, prefix=unshared(other))
    assert is_resident(engine, other)
    assert len(engine._scheduler.room.residents) == 2


def test_a_text_gives_way_to_a_prompt_and_comes_back(folder: Path) -> None:
    with load(folder, blocks=30, step_tokens=64) as small:
        snapshot = read(small)
        expected = ask(small, QUESTION, SHORT, prefix=snapshot)
        large = prompt_of(430, 5)
        assert len(ask(small, large, SHORT).tokens) == 12
        assert not is_resident(small, snapshot)
        assert near(ask(small, QUESTION, SHORT, prefix=snapshot), expected)
        let_go(small)


def test_pages_that_two_caches_keep_give_way(folder: Path) -> None:
    """A text of whole pages is a beginning of prompts as well: every page is held twice, and used by nobody."""
    with load(folder, blocks=30, step_tokens=64) as small:
        snapshot = read(small, tokens=TEXT[:192])
        assert small.stats().pages_used == small.stats().pages_cached == 12 * 6
        assert len(ask(small, prompt_of(430, 5), SHORT).tokens) == 12
        assert not is_resident(small, snapshot)
        let_go(small)


def test_snapshots_of_one_text_count_their_pages_once(folder: Path) -> None:
    """Twelve pieces that begin alike would be more than half of the pool, if each were counted for itself."""
    with load(folder, blocks=60, step_tokens=64, prefix_cache=False) as small:

        async def pieces() -> list[Snapshot]:
            return [at async for at in small.prefill_pieces([prompt_of(32, seed) for seed in range(12)])]

        at = asyncio.run(pieces())
        assert all(is_resident(small, each) for each in at)
        assert small.stats().pages_used == small.stats().pages_cached == 24 * 6
        let_go(small)


def test_a_text_in_use_is_let_go_before_an_answer_gives_way(folder: Path) -> None:
    """A pool for the text and two answers, but not for a copy of its last pages besides."""
    long = replace(SHORT, max_tokens=60)
    with load(folder, blocks=13 + 2 * 5, step_tokens=64) as small:
        snapshot = read(small)
        alone = [ask(small, each, long, prefix=snapshot) for each in QUESTIONS[:2]]
        together = ask_all(small, [(each, long, {"prefix": snapshot}) for each in QUESTIONS[:2]])
        assert all(map(near, together, alone))
        let_go(small)


def test_a_pool_without_room_for_both_runs_a_question_alone(folder: Path, engine: Engine) -> None:
    """The last page of each row is then the question's own, and the text resident no more."""
    text = read(engine)
    expected = ask(engine, prompt_of(12, 1), replace(SHORT, max_tokens=9), prefix=text)
    with load(folder, blocks=14, step_tokens=64) as small:
        for snapshot in (text, read(small)):
            assert near(ask(small, prompt_of(12, 1), SHORT, prefix=snapshot), expected)
            assert not is_resident(small, snapshot)
        let_go(small)


def test_questions_wait_for_pages_and_are_all_answered(folder: Path) -> None:
    with load(folder, blocks=16, step_tokens=64) as small:
        snapshot = read(small)
        alone = [ask(small, each, SHORT, prefix=snapshot) for each in QUESTIONS[:4]]
        together = ask_all(small, [(each, SHORT, {"prefix": snapshot}) for each in QUESTIONS[:4]])
        assert all(map(near, together, alone))
        let_go(small)


def test_callers_who_hang_up_leave_nothing(engine: Engine) -> None:
    snapshot = unshared(read(engine, "snapkv+ada@0.25"))
    long = replace(SHORT, max_tokens=1000)

    async def hang_up() -> None:
        asked = [asyncio.create_task(engine.complete(each, long, prefix=snapshot)) for each in QUESTIONS]
        await until(lambda: engine.stats().running > 3)
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await until(lambda: engine.stats().running + engine.stats().waiting == 0)
        assert in_use(engine) == 0

    asyncio.run(hang_up())
    let_go(engine)


def test_other_requests_share_the_engine_with_a_resident_text(engine: Engine) -> None:
    snapshot = read(engine)
    asked = [(each, SHORT, {"prefix": snapshot}) for each in QUESTIONS[:3]]
    asked += [(TEXT + QUESTION, SHORT, {}), (QUESTION, SHORT, {"kv": "knorm@8tok"})]
    alone = [ask(engine, prompt, sampling, **options) for prompt, sampling, options in asked]
    for ours, theirs in zip(ask_all(engine, asked), alone, strict=True):
        assert same(ours, theirs)
    let_go(engine)


def test_a_continued_text_is_as_if_read_at_once(engine: Engine) -> None:
    more = prompt_of(77, 6)
    begun = read(engine)
    before = held_bits(engine, begun)
    longer = asyncio.run(engine.prefill(more, prefix=begun))
    whole = read(engine, tokens=TEXT + more)
    assert (longer.read, longer.recipe, longer.place) == (280, "full", 280)
    assert np.array_equal(longer.tokens, whole.tokens)
    assert torch.equal(longer.positions, whole.positions)
    torch.testing.assert_close(longer.keys.numbers, whole.keys.numbers, atol=1e-4, rtol=1e-4)
    assert near(ask(engine, QUESTION, SHORT, prefix=longer), ask(engine, TEXT + more + QUESTION, SHORT))
    assert all(map(torch.equal, held_bits(engine, begun), before))


@pytest.mark.parametrize("recipe", RECIPES[1:])
def test_a_compressed_text_is_continued(engine: Engine, recipe: str) -> None:
    more = prompt_of(77, 6)
    begun = read(engine, recipe)
    longer = asyncio.run(engine.prefill(more, prefix=begun))
    assert (longer.read, longer.recipe, longer.shift) == (280, recipe, begun.shift)
    assert (longer.lengths == begun.lengths + 77).all()
    expected = ask(engine, more + QUESTION, SHORT, prefix=begun)
    assert near(ask(engine, QUESTION, SHORT, prefix=longer), expected)
    assert near(ask(engine, QUESTION, SHORT, prefix=unshared(longer)), expected)
    row = slice(int(begun.lengths[0, 0]), int(longer.lengths[0, 0]))
    assert longer.positions[row].tolist() == list(range(203, 280))
    assert longer.rotated_at[row].tolist() == list(range(begun.place, begun.place + 77))
