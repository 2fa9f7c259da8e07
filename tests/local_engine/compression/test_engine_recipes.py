"""The engine with recipes: per request and for all, in small caches, beside others, given up and read again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lcdoc.local_engine.attention_cpu import CpuAttention
from lcdoc.local_engine.batch import Piece, gather
from lcdoc.local_engine.compression.marks import Marks
from lcdoc.local_engine.engine import Engine, KVConfig, Sampling
from lcdoc.local_engine.errors import InvalidRequestError, RequestTooLargeError
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import PagePool
from lcdoc.tests.local_engine.checkpoints import rope
from lcdoc.tests.local_engine.decoding import CPU
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
SHORT = Sampling(max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(checkpoint: Make) -> Path:
    return checkpoint("qwen2", max_position_embeddings=2048)


def check_empty(engine: Engine) -> None:
    assert in_use(engine) == 0
    engine._scheduler.tables.check_integrity()


def test_a_prompt_larger_than_the_cache_is_read(folder: Path) -> None:
    prompt = prompt_of(1200)
    with load(folder, blocks=12, step_tokens=64) as engine:
        with pytest.raises(RequestTooLargeError):
            ask(engine, prompt, SHORT)
        output = ask(engine, prompt, SHORT, kv="knorm@64tok")
        assert len(output.tokens) == 12
        usage = output.usage
        assert 64 <= usage.kept <= 64 + 12
        assert usage.cuts > 10
        assert usage.cache_bytes <= 6 * BLOCK_BYTES
        with pytest.raises(RequestTooLargeError, match="tokens need"):
            ask(engine, prompt, SHORT, kv="knorm+when=end@64tok")
        stats = engine.stats()
        assert stats.cuts == usage.cuts
        assert stats.dropped_entries > 1000 * 6
        check_empty(engine)


def test_a_prompt_longer_than_the_window_is_read_where_it_is_moved_together(checkpoint: Make) -> None:
    folder = checkpoint("llama", max_position_embeddings=256)
    with load(folder, step_tokens=64) as engine:
        prompt = prompt_of(900)
        with pytest.raises(RequestTooLargeError, match="window is 256"):
            ask(engine, prompt, SHORT, kv="window@64tok")
        with pytest.raises(RequestTooLargeError, match="300 tokens away, and the model's window of 256 leaves 192"):
            ask(engine, prompt, SHORT, kv="window+positions=compact@300tok")
        output = ask(engine, prompt, Sampling(max_tokens=300, ignore_eos=True), kv="window+positions=compact@64tok")
        assert len(output.tokens) == 300
        assert output.usage.kept <= 128
        check_empty(engine)


def test_keys_that_cannot_be_moved_are_not(checkpoint: Make) -> None:
    folder = checkpoint("llama", rope_parameters=rope("dynamic"))
    with load(folder) as engine, pytest.raises(InvalidRequestError, match="take positions=original"):
        ask(engine, prompt_of(20), SHORT, kv="window+positions=compact@64tok")


def test_an_engine_s_recipe_is_for_all_and_a_request_s_goes_before(folder: Path) -> None:
    prompt = prompt_of(300)
    with load(folder) as plain:
        whole = ask(plain, prompt, SHORT)
        cut = ask(plain, prompt, SHORT, kv="knorm@64tok")
    kv = KVConfig(page_size=PAGE_SIZE, max_memory=400 * BLOCK_BYTES, recipe="knorm@64tok")
    with Engine.load(folder, dtype="float32", device="cpu", kv=kv) as engine:
        assert same(ask(engine, prompt, SHORT), cut)
        assert same(ask(engine, prompt, SHORT, kv="full"), whole)
        assert ask(engine, prompt, SHORT, kv="full").usage.cached > 0
        assert ask(engine, prompt, SHORT).usage.cached == 0
        with pytest.raises(InvalidRequestError, match="nothing is read ahead with knorm@64tok"):
            engine.read_ahead(prompt)
        check_empty(engine)
    with pytest.raises(InvalidRequestError, match="no part of a compression recipe"):
        Engine.load(folder, device="cpu", kv=KVConfig(recipe="nothing@0.5"))


def test_room_for_all_is_no_recipe(folder: Path) -> None:
    prompt = prompt_of(150)
    with load(folder) as engine:
        whole = ask(engine, prompt, SHORT)
        assert same(ask(engine, prompt, SHORT, kv="snapkv+ada@1.0"), whole)
        assert same(ask(engine, prompt, SHORT, kv="window+positions=compact@1000tok"), whole)


def test_many_recipes_at_once_equal_each_alone(folder: Path) -> None:
    recipes = [None, "snapkv+ada@48tok", "knorm@0.25", None, "h2o+when=end@48tok", "kvzip@48tok", "snapkv+match@48tok"]
    asked = [
        (prompt_of(100 + 40 * number, number), SHORT, {} if kv is None else {"kv": kv})
        for number, kv in enumerate(recipes)
    ]
    with load(folder, prefix_cache=False, step_tokens=64) as engine:
        alone = [ask(engine, prompt, sampling, **options) for prompt, sampling, options in asked]
        check_empty(engine)
    # A pass that is shared cuts prompts into other pieces: with `end`, and where all fits, that changes nothing.
    with load(folder, prefix_cache=False, step_tokens=2048) as engine:
        for ours, (prompt, sampling, options) in zip(ask_all(engine, asked), asked, strict=True):
            assert len(ours.tokens) == 12
            if "end" in options.get("kv", "end"):
                assert same(ours, ask(engine, prompt, sampling, **options))
                assert same(ours, alone[asked.index((prompt, sampling, options))])
        check_empty(engine)


def test_who_hangs_up_leaves_no_page(folder: Path) -> None:
    with load(folder, step_tokens=64, blocks=100) as engine:
        long = Sampling(max_tokens=500, ignore_eos=True)
        for kv in ("snapkv+ada@48tok", "kvzip@48tok", "knorm+match@48tok"):

            async def hang_up(kv: str = kv) -> None:
                from contextlib import aclosing

                async with aclosing(engine.generate(prompt_of(400), long, kv=kv)) as pieces:
                    await anext(pieces)

            asyncio.run(hang_up())
        asyncio.run(until(lambda: in_use(engine) == 0))
        check_empty(engine)
        asyncio.run(first_piece(engine, prompt_of(30), SHORT))


def test_a_request_that_gave_way_is_read_again(folder: Path) -> None:
    """In a cache that holds little more than one of them."""
    long = Sampling(max_tokens=150, ignore_eos=True)
    asked = [(prompt_of(60, seed), long, {"kv": kv}) for seed, kv in enumerate(["snapkv+ada@0.9", "knorm@0.9"])]
    asked.append((prompt_of(40, 9), long, {}))
    with load(folder, blocks=24, step_tokens=32, sequences=3) as engine:
        outputs = ask_all(engine, asked)
        assert [len(output.tokens) for output in outputs] == [150] * 3
        assert engine.stats().preemptions > 0
        check_empty(engine)


def test_a_broken_part_ends_its_own_request(folder: Path) -> None:
    with load(folder, step_tokens=64) as engine:
        with pytest.raises(InvalidRequestError, match="where sentences start"):
            ask(engine, prompt_of(300), SHORT, kv="sentence@48tok")
        marks = Marks(sentence_starts=range(0, 300, 11), protected=((70, 75),))
        assert len(ask(engine, prompt_of(300), SHORT, kv="sentence@48tok", marks=marks).tokens) == 12
        with pytest.raises(InvalidRequestError, match="tokens 70 to 75 are to be kept"):
            ask(engine, prompt_of(60), SHORT, kv="knorm@48tok", marks=marks)
        for token in (512, -1):
            with pytest.raises(InvalidRequestError, match=f"the task has token {token}, and the model knows 0 to 511"):
                ask(engine, prompt_of(60), SHORT, kv="task@48tok", marks=Marks(task=[3, token]))
        check_empty(engine)


def test_room_is_counted_in_whole_pages(folder: Path) -> None:
    """Rows that differ each end in a page of their own, and so does what a probe reads behind them."""
    prompt = prompt_of(200)
    with load(folder, blocks=8, step_tokens=64) as engine:
        assert len(ask(engine, prompt, SHORT, kv="knorm@64tok").tokens) == 12
        for kv in ("knorm+ada@64tok", "knorm+pyramid@64tok", "task:window=16@48tok"):
            with pytest.raises(RequestTooLargeError, match="MiB of cache of"):
                ask(engine, prompt, SHORT, kv=kv)
    with load(folder, blocks=9, step_tokens=64) as engine:
        for kv in ("knorm+ada@64tok", "knorm+pyramid@64tok", "task:window=16@48tok"):
            assert len(ask(engine, prompt, SHORT, kv=kv).tokens) == 12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("counts", [(1, 1), (5, 3), (1, 7)])
def test_biases_in_attention(dtype: torch.dtype, window: int | None, counts: tuple[int, int]) -> None:
    """Two sequences with ragged rows, one of them with biases, against float64."""
    heads, groups, dim, size, scale = 2, 3, 16, 4, 0.3
    generator = torch.Generator().manual_seed(sum(counts))
    pool = PagePool(64, size, dim, dtype)
    tables = PageTables(pool, 3, 1, heads, 4)
    slots = [tables.open(), tables.open()]
    past = torch.tensor([[9, 5], [6, 6]])
    tables.append(slots, [9, 6])
    tables.truncate_rows(slots[0], past[0].numpy()[None])
    pool.keys.copy_(torch.randn(pool.keys.shape, generator=generator))
    pool.values.copy_(torch.randn(pool.values.shape, generator=generator))
    pool.with_bias().copy_(torch.randn(pool.bias.shape, generator=generator))
    tables.biased[slots[0]] = True
    batch = gather([Piece(s, [8] * c, 20, 20, 0) for s, c in zip(slots, counts, strict=True)], tables, CPU)
    total = sum(counts)
    q, k, v = (torch.randn(total, n, dim, generator=generator).to(dtype) for n in (heads * groups, heads, heads))
    got = CpuAttention(scale)(0, (q, k, v), window, batch).double()
    for index, slot in enumerate(slots):
        for head in range(heads):
            length = int(past[index, head]) + counts[index]
            pages = torch.from_numpy(tables.table[slot, 0, head, : -(-length // size)].astype("int64"))
            keys, values = (store[pages].flatten(0, 1)[:length].double() for store in (pool.keys, pool.values))
            bias = pool.bias[pages].flatten()[:length].double() if tables.biased[slot] else torch.zeros(length)
            assert (bias[int(past[index, head]) :] == 0).all()
            for token in range(counts[index]):
                last = int(past[index, head]) + token
                seen = slice(0 if window is None else max(0, last - window + 1), last + 1)
                for group in range(groups):
                    row = q[batch.starts[index] + token, head * groups + group].double()
                    weights = torch.softmax(keys[seen] @ row * scale + bias[seen], -1)
                    ours = got[batch.starts[index] + token, head * groups + group]
                    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
                    torch.testing.assert_close(ours, weights @ values[seen], rtol=tolerance, atol=tolerance)


def test_biases_go_where_their_entries_go() -> None:
    pool = PagePool(64, 4, 8, torch.float32)
    tables = PageTables(pool, 2, 1, 2, 4)
    slot = tables.open()
    write = torch.from_numpy(tables.append([slot], [10]))
    pool.with_bias().view(-1)[write[0].T] = torch.arange(20.0).view(2, 10)
    tables.biased[slot] = True
    keep = torch.zeros(1, 2, 10, dtype=torch.bool)
    keep[0, 0, [1, 4, 9]] = keep[0, 1, [0, 8]] = True
    tables.compact(slot, keep)
    for head, expected in enumerate([[1.0, 4.0, 9.0], [10.0, 18.0]]):
        assert pool.bias[int(tables.table[slot, 0, head, 0])][: len(expected)].tolist() == expected
    tables.free(slot)
    assert not tables.biased[tables.open()]


def test_a_text_beyond_the_window_by_every_scheme(checkpoint: Make) -> None:
    folder = checkpoint("llama", max_position_embeddings=256)
    with load(folder, step_tokens=64) as engine:
        for scheme in ("capped:reach=150", "self-extend:group=16,neighbours=64"):
            output = ask(engine, prompt_of(700), SHORT, kv=f"knorm+positions={scheme}@0.5")
            assert len(output.tokens) == 12
            assert 340 < output.usage.kept < 420
        with pytest.raises(RequestTooLargeError, match="leaves 192"):
            ask(engine, prompt_of(700), SHORT, kv="knorm+positions=capped:reach=200@0.5")
        with pytest.raises(RequestTooLargeError, match="the window is 320"):
            ask(engine, prompt_of(700), SHORT, kv="knorm+positions=self-extend:group=2,neighbours=64@0.5")
        check_empty(engine)


def test_an_answer_goes_on_behind_what_was_moved_together(checkpoint: Make) -> None:
    """A model of one layer answers as if the kept tokens were its prompt."""
    folder = checkpoint("llama", num_hidden_layers=1, max_position_embeddings=256)
    with load(folder, step_tokens=64) as engine:
        prompt = prompt_of(500)
        answer = ids(ask(engine, prompt, Sampling(max_tokens=40, ignore_eos=True), kv="window+positions=compact@64tok"))
        fresh = ask(engine, [*prompt[:4], *prompt[-60:], answer[0]], Sampling(max_tokens=39, ignore_eos=True))
        assert ids(fresh) == answer[1:]
        assert len(set(answer)) > 5
