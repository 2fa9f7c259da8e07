"""Texts that are read once and asked about: from memory and from files, whole and compressed, alone and together."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcdoc.local_engine.capture import Caption, take
from lcdoc.local_engine.engine import Engine, KVConfig, Sampling
from lcdoc.local_engine.errors import EngineError, InvalidRequestError, RequestTooLargeError, SnapshotError
from lcdoc.local_engine.model_identity import ModelIdentity, fingerprint
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import PagePool
from lcdoc.local_engine.snapshot import Origin, Snapshot
from lcdoc.local_engine.stored_rows import Rows
from lcdoc.tests.local_engine.checkpoints import rope, save_checkpoint
from lcdoc.tests.local_engine.engines import BLOCK_BYTES, ask, ask_all, in_use, load, prompt_of, same, until

Make = Callable[..., Path]
SHORT = Sampling(max_tokens=12, temperature=0, ignore_eos=True)
TEXT, QUESTION, OTHER = prompt_of(203), prompt_of(17, 1), prompt_of(5, 2)
RAGGED = "snapkv+ada@0.25"
COMPACT, MATCHED = "window+positions=compact@64tok", "snapkv+match@64tok"
RECIPES = (RAGGED, "knorm+when=end@0.25", COMPACT, MATCHED, "kvzip@0.25", "h2o@0.5")


@pytest.fixture(scope="module")
def folder(checkpoint: Make) -> Path:
    return checkpoint("qwen2", max_position_embeddings=2048)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with load(folder, step_tokens=64) as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def nothing_is_left(engine: Engine) -> Iterator[None]:
    yield
    asyncio.run(until(lambda: in_use(engine) == 0))
    engine._scheduler.tables.check_integrity()


def read(engine: Engine, prompt: Any = TEXT, kv: str | None = "full") -> Snapshot:
    return asyncio.run(engine.prefill(prompt, kv=kv))


def test_a_question_behind_a_text_is_as_in_one_prompt(engine: Engine) -> None:
    whole = ask(engine, TEXT + QUESTION, SHORT)
    snapshot = read(engine)
    assert (snapshot.read, snapshot.kept, snapshot.recipe) == (203, 203, "full")
    assert snapshot.cache_bytes == 13 * BLOCK_BYTES
    output = ask(engine, QUESTION, SHORT, prefix=snapshot)
    assert same(output, whole)
    assert (output.usage.prompt, output.usage.cached, output.usage.output) == (220, 203, 12)
    assert output.usage.kept == whole.usage.kept


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_compressed_text_is_asked_and_cut_no_further(engine: Engine, recipe: str) -> None:
    snapshot = read(engine, kv=recipe)
    assert snapshot.recipe == recipe
    assert snapshot.kept < 150
    assert snapshot.nbytes < 0.8 * read(engine).nbytes
    assert (snapshot.shift > 0) == ("compact" in recipe)
    output = ask(engine, QUESTION, SHORT, prefix=snapshot)
    assert len(output.tokens) == 12
    assert output.usage.cuts == 0
    assert abs(output.usage.kept - (snapshot.kept + 17 + 11)) <= 1


def test_entries_are_those_that_were_kept(engine: Engine) -> None:
    full, cut = read(engine), read(engine, kv="knorm+ada+when=end@0.25")
    assert len(set(cut.lengths.ravel().tolist())) > 1
    begins = np.cumsum(cut.lengths.ravel()) - cut.lengths.ravel()
    for row, (begin, length) in enumerate(zip(begins, cut.lengths.ravel(), strict=True)):
        part = slice(int(begin), int(begin + length))
        positions = cut.positions[part].long()
        assert (positions.diff() > 0).all()
        torch.testing.assert_close(cut.keys.part(part.start, part.stop), full.keys.numbers[203 * row + positions])
        torch.testing.assert_close(cut.values.part(part.start, part.stop), full.values.numbers[203 * row + positions])


def test_entries_that_moved_together_are_known_by_where_they_stood(engine: Engine) -> None:
    snapshot = read(engine, kv=COMPACT)
    assert int(snapshot.positions.max()) == 202
    assert int(snapshot.rotated_at.max()) == snapshot.place - 1 < 150
    assert snapshot.positions[:4].tolist() == snapshot.rotated_at[:4].tolist() == [0, 1, 2, 3]


def test_an_answer_goes_on_as_in_the_request_that_read_the_text(engine: Engine) -> None:
    """A cut at the end of a prompt is before its answer, so that a text whose answer has begun is cut alike."""
    for recipe in ("snapkv+ada+when=end@0.25", "window+positions=compact+when=end@0.25", "snapkv+match+when=end@0.25"):
        begun = ask(engine, TEXT, SHORT, kv=recipe)
        snapshot = read(engine, kv=recipe)
        ids = [each.token for each in begun.tokens]
        output = ask(engine, ids[:1], Sampling(max_tokens=11, temperature=0, ignore_eos=True), prefix=snapshot)
        assert [each.token for each in output.tokens] == ids[1:]


@pytest.mark.parametrize("recipe", ["full", RAGGED, MATCHED, COMPACT])
def test_a_file_is_as_good_as_memory(engine: Engine, tmp_path: Path, recipe: str) -> None:
    snapshot = read(engine, kv=recipe)
    path = tmp_path / "text.kv"
    snapshot.save(path)
    loaded = Snapshot.load(path)
    assert [each.name for each in tmp_path.iterdir()] == ["text.kv"]
    assert snapshot.nbytes <= path.stat().st_size < snapshot.nbytes + 2048
    assert (loaded.model, loaded.recipe, loaded.place) == (snapshot.model, snapshot.recipe, snapshot.place)
    assert loaded.cache_bytes == snapshot.cache_bytes
    assert (loaded.lengths == snapshot.lengths).all()
    assert (loaded.bias is None) == ("match" not in recipe)
    for name in ("positions", "rotated_at"):
        assert torch.equal(getattr(loaded, name), getattr(snapshot, name))
    assert same(ask(engine, QUESTION, SHORT, prefix=loaded), ask(engine, QUESTION, SHORT, prefix=snapshot))
    loaded.save(path)  # over the file that it is mapped from
    assert same(ask(engine, OTHER, SHORT, prefix=Snapshot.load(path)), ask(engine, OTHER, SHORT, prefix=loaded))


def test_int8_is_near(engine: Engine, tmp_path: Path) -> None:
    snapshot = read(engine, kv=RAGGED)
    path = tmp_path / "text.kv"
    snapshot.save(path, quantize="int8")
    loaded = Snapshot.load(path)
    assert loaded.quantized
    assert loaded.nbytes < 0.5 * snapshot.nbytes
    near = loaded.keys.part(0, 9999)
    step = snapshot.keys.numbers.abs().amax(1, keepdim=True) / 127
    assert ((near - snapshot.keys.numbers).abs() <= 0.52 * step).all()
    exact, rough = (ask(engine, QUESTION, SHORT, prefix=each) for each in (snapshot, loaded))
    assert exact.tokens[0].token == rough.tokens[0].token
    loaded.save(path, quantize="int8")
    assert torch.equal(Snapshot.load(path).keys.numbers, loaded.keys.numbers)
    with pytest.raises(InvalidRequestError, match="int8 or None"):
        snapshot.save(path, quantize="int2")


def test_numbers_of_all_sizes_are_quantized() -> None:
    numbers = torch.tensor([[0.0, 0.0], [1e-9, -1e-9], [3e38, -1e38], [1.0, -0.5]])
    found = Rows(numbers).quantized().part(0, 4)
    assert found.isfinite().all()
    assert found[0].tolist() == [0, 0]
    torch.testing.assert_close(found[3], numbers[3], atol=5e-3, rtol=0)


def test_questions_together_equal_each_alone(engine: Engine) -> None:
    snapshots = {kv: read(engine, kv=kv) for kv in ("full", RAGGED)}
    asked = [(ids, SHORT, {"prefix": each}) for each in snapshots.values() for ids in (QUESTION, OTHER)]
    asked += [(TEXT + QUESTION, SHORT, {}), (QUESTION, SHORT, {"kv": "knorm@8tok"})]
    alone = [ask(engine, prompt, sampling, **options) for prompt, sampling, options in asked]
    together = ask_all(engine, asked)
    assert all(same(ours, theirs) for ours, theirs in zip(together, alone, strict=True))


def test_a_snapshot_outlives_its_engine(folder: Path, engine: Engine) -> None:
    kv = KVConfig(page_size=8, max_memory=400 * BLOCK_BYTES, recipe=RAGGED)
    with Engine.load(folder, dtype="float32", device="cpu", kv=kv, step_tokens=64) as other:
        snapshot = read(other, kv=None)
        assert snapshot.recipe == RAGGED
        expected = ask(other, QUESTION, SHORT, prefix=snapshot)
    assert same(ask(engine, QUESTION, SHORT, prefix=snapshot), expected)


def test_an_answer_that_gave_way_goes_on(folder: Path) -> None:
    long = Sampling(max_tokens=90, temperature=0, ignore_eos=True)
    with load(folder, blocks=24, step_tokens=64, sequences=4) as small:
        snapshot = read(small, kv=RAGGED)
        alone = ask(small, QUESTION, long, prefix=snapshot)
        before = small.stats().preemptions
        together = ask_all(small, [(QUESTION, long, {"prefix": snapshot})] * 4)
        assert small.stats().preemptions > before
        assert all(same(each, alone) for each in together)
        assert in_use(small) == 0
        small._scheduler.tables.check_integrity()


def test_texts_and_chats(engine: Engine) -> None:
    text = "The lighthouse keeper counts the ships that pass. "
    snapshot = read(engine, text)
    assert snapshot.tokens.tolist() == engine.encode(text)
    whole = engine.encode(text) + engine.tokenizer.encode("How many?")
    assert same(ask(engine, "How many?", SHORT, prefix=snapshot), ask(engine, whole, SHORT))
    chat = [{"role": "user", "content": text}]
    begun = read(engine, engine.encode(chat)[:20])
    assert same(ask(engine, chat, SHORT, prefix=begun), ask(engine, chat, SHORT))
    with pytest.raises(InvalidRequestError, match="does not begin with the snapshot's text"):
        ask(engine, [{"role": "user", "content": "Else?"}], SHORT, prefix=snapshot)


def test_what_cannot_be_asked(engine: Engine, checkpoint: Make) -> None:
    snapshot = read(engine)
    with pytest.raises(InvalidRequestError, match="empty"):
        ask(engine, [], SHORT, prefix=snapshot)
    with pytest.raises(RequestTooLargeError, match="window is 2,048"):
        ask(engine, prompt_of(1900), SHORT, prefix=snapshot)
    other = load(checkpoint("llama", rope_parameters=rope("dynamic")))
    with other, pytest.raises(InvalidRequestError, match="read text and question together"):
        read(other)


def test_too_large_for_the_cache(folder: Path, engine: Engine) -> None:
    with load(folder, blocks=14, step_tokens=64) as small:
        snapshot = read(engine)
        with pytest.raises(RequestTooLargeError):
            ask(small, prompt_of(60), SHORT, prefix=snapshot)
        output = ask(small, OTHER, Sampling(max_tokens=500, temperature=0, ignore_eos=True), prefix=snapshot)
        assert len(output.tokens) == 224 - 203 - 5
        with pytest.raises(RequestTooLargeError):
            ask(small, OTHER, SHORT, prefix=read(engine, prompt_of(300)))
        assert in_use(small) == 0


def test_another_model_is_refused(engine: Engine, folder: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other", "qwen2", max_position_embeddings=2048, seed=1)
    snapshot = read(engine)
    with load(other) as loaded, pytest.raises(SnapshotError, match=f"read by {engine.name} .* this engine runs other"):
        ask(loaded, QUESTION, SHORT, prefix=snapshot)
    with (
        Engine.load(folder, dtype="bfloat16", device="cpu") as rounded,
        pytest.raises(SnapshotError, match="precision"),
    ):
        ask(rounded, QUESTION, SHORT, prefix=snapshot)
    assert fingerprint(folder, "a") == fingerprint(folder, "a") != fingerprint(folder, "b")
    assert fingerprint(folder) != fingerprint(other)


def test_the_same_model_with_another_rotation_is_refused(engine: Engine, folder: Path) -> None:
    snapshot = read(engine)
    with load(folder, rope="ntk:length=4096") as stretched:
        with pytest.raises(SnapshotError, match="read the text again"):
            ask(stretched, QUESTION, SHORT, prefix=snapshot)
        with pytest.raises(SnapshotError, match="read the text again"):
            ask(engine, QUESTION, SHORT, prefix=read(stretched))


def test_a_file_that_claims_this_model_s_name_with_other_rows_is_refused(engine: Engine) -> None:
    tables = PageTables(PagePool(8, 4, 8, torch.float32), 1, 1, 1, 4)
    slot = tables.open()
    tables.append([slot], [3])
    with pytest.raises(SnapshotError, match=r"rows of \(1, 1, 8\)"):
        ask(engine, QUESTION, SHORT, prefix=take(tables, slot, (9, 8, 7), Caption(engine.identity), None))


def header_of(path: Path) -> tuple[dict[str, dict[str, Any]], bytes]:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def rewrite(path: Path, header: object, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_damaged_files_are_refused(engine: Engine, tmp_path: Path) -> None:
    snapshot, path = read(engine, kv=RAGGED), tmp_path / "text.kv"
    snapshot.save(path)
    whole = path.read_bytes()
    for size in (0, 4, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(SnapshotError, match="is damaged, or no snapshot") as caught:
            Snapshot.load(path)
        assert "\n" not in str(caught.value)
    for raw in (whole + b"x", b"\xff" * 100, b"hello, this is no snapshot at all" * 9):
        path.write_bytes(raw)
        with pytest.raises(SnapshotError, match="make it again"):
            Snapshot.load(path)
    with pytest.raises(SnapshotError, match="cannot be read"):
        Snapshot.load(tmp_path / "none.kv")
    with pytest.raises(SnapshotError, match="cannot be written"):
        snapshot.save(tmp_path / "none" / "text.kv")
    path.write_bytes(whole)
    for name, field, value in (
        ("keys", "dtype", "F64"),
        ("keys", "dtype", "I32"),
        ("keys", "shape", [1 << 60, 1 << 60]),
        ("keys", "shape", [-1, 16]),
        ("keys", "data_offsets", [0, 1 << 50]),
        ("lengths", "shape", [6]),
        ("tokens", "shape", [1, 203]),
        ("__metadata__", "version", "1"),
        ("__metadata__", "first", "204"),
        ("__metadata__", "format", "pt"),
        ("__metadata__", "place", "-3"),
        ("__metadata__", "place", "many"),
        ("__metadata__", "meta", "[" * 100_000),
    ):
        header, data = header_of(path)
        header[name][field] = value
        rewrite(path, header, data)
        with pytest.raises(SnapshotError):
            Snapshot.load(path)
        path.write_bytes(whole)
    header, data = header_of(path)
    del header["__metadata__"]["recipe"]
    rewrite(path, header, data)
    with pytest.raises(SnapshotError, match="recipe"):
        Snapshot.load(path)
    path.write_bytes(whole)
    header, data = header_of(path)
    first, end = header["lengths"]["data_offsets"]
    for length in (-1, 1 << 30, 204):
        lengths = np.full((end - first) // 4, length, np.int32).tobytes()
        rewrite(path, header, data[:first] + lengths + data[end:])
        with pytest.raises(SnapshotError, match="damaged"):
            Snapshot.load(path)


def test_rows_longer_than_the_text_are_refused(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "text.kv"
    replace(read(engine), tokens=np.array(TEXT[:10], np.int32), place=10).save(path)
    with pytest.raises(SnapshotError, match="do not fit a text of 10 tokens"):
        Snapshot.load(path)


@pytest.mark.parametrize("position", [-1, 203])
def test_entries_outside_the_text_are_refused(engine: Engine, tmp_path: Path, position: int) -> None:
    path = tmp_path / "text.kv"
    read(engine).save(path)
    header, data = header_of(path)
    first, _ = header["positions"]["data_offsets"]
    rewrite(path, header, data[:first] + np.array([position], np.int32).tobytes() + data[first + 4 :])
    with pytest.raises(SnapshotError, match="outside a text of 203 tokens"):
        Snapshot.load(path)


def test_tokens_that_the_model_has_not_are_refused(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "text.kv"
    read(engine).save(path)
    header, data = header_of(path)
    first, end = header["tokens"]["data_offsets"]
    rewrite(path, header, data[:first] + np.full(203, 1 << 20, np.int32).tobytes() + data[end:])
    with pytest.raises(InvalidRequestError, match="the model knows"):
        ask(engine, QUESTION, SHORT, prefix=Snapshot.load(path))


def test_cancelling_while_a_text_is_read(engine: Engine) -> None:
    async def hang_up() -> None:
        steps = engine.stats().steps
        reading = asyncio.create_task(engine.prefill(prompt_of(1500, 9), kv="knorm@64tok"))
        await until(lambda: engine.stats().steps > steps)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: engine.stats().running == 0)

    asyncio.run(hang_up())


def test_a_snapshot_that_cannot_be_put_into_pages_fails_its_own_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = replace(read(engine, kv=RAGGED), origin=Origin())  # not the one that its pages are kept of
    fine = ask(engine, TEXT, SHORT)
    monkeypatch.setattr(Rows, "part", lambda *_: (_ for _ in ()).throw(ValueError("gone")))

    async def both() -> list[object]:
        return await asyncio.gather(
            engine.complete(QUESTION, SHORT, prefix=snapshot), engine.complete(TEXT, SHORT), return_exceptions=True
        )

    failed, other = asyncio.run(both())
    assert isinstance(failed, EngineError)
    assert "gone" in str(failed)
    assert same(other, fine)


def test_pages_are_filled_with_no_biases_of_others(engine: Engine) -> None:
    """Else a recipe that merges, and with that makes biases count, would take them for the text's."""
    snapshot, tables = read(engine, kv=RAGGED), engine._scheduler.tables
    tables.pool.with_bias().fill_(3.0)
    slot = tables.open()
    snapshot.fill(tables, slot)
    assert snapshot.bias is None
    assert not tables.biased[slot]
    where = torch.from_numpy(tables.entries(slot))
    assert not tables.pool.with_bias().view(-1)[where].any()
    tables.free(slot)


def test_the_first_tokens_alone(engine: Engine) -> None:
    snapshot = read(engine)
    assert same(ask(engine, QUESTION, SHORT, prefix=snapshot.truncate(77)), ask(engine, TEXT[:77] + QUESTION, SHORT))
    cut = read(engine, kv=RAGGED)
    less = cut.truncate(100)
    assert less.lengths.sum() == (cut.positions < 100).sum() == len(less.keys.numbers)
    assert len(ask(engine, QUESTION, SHORT, prefix=less).tokens) == 12
    for count in (0, 204):
        with pytest.raises(InvalidRequestError, match="cannot be cut"):
            snapshot.truncate(count)
    with pytest.raises(InvalidRequestError, match="nothing is kept of the first 5 tokens"):
        read(engine, kv="window+sinks=0@16tok").truncate(5)
    with pytest.raises(InvalidRequestError, match="read the shorter text"):
        read(engine, kv=COMPACT).truncate(100)


def test_what_is_kept_is_shown_as_text(engine: Engine, tmp_path: Path) -> None:
    text = "The lighthouse keeper counts the ships that pass. Naïve façades — 灯台守 — stand by the sea. " * 4
    full = read(engine, text)
    assert full.spans is not None
    assert full.kept_spans() == [(0, len(text))]
    for token, (first, end) in zip(full.tokens.tolist(), full.spans.tolist(), strict=True):
        assert engine.tokenizer.token_bytes(token) in text[first:end].encode()
    cut = read(engine, text, kv="snapkv+ada+when=end@0.25")
    path = tmp_path / "text.kv"
    cut.save(path)
    loaded = Snapshot.load(path)
    any_row, most = loaded.kept_spans(), loaded.kept_spans(share=0.5)
    assert any_row == cut.kept_spans()
    rows = np.zeros((cut.lengths.size, len(text)), np.bool_)
    begins = np.append(0, np.cumsum(cut.lengths.ravel()))
    for row in range(cut.lengths.size):
        for position in cut.positions[begins[row] : begins[row + 1]].tolist():
            rows[row, slice(*full.spans[position])] = True
    for spans, needed in ((any_row, 1), (most, cut.lengths.size // 2 + 1)):
        shown = np.zeros(len(text), np.bool_)
        for first, end in spans:
            shown[first:end] = True
        assert (shown <= (rows.sum(0) >= 1)).all()
        # Letters of several bytes may be kept in halves, each by other rows.
        plain = np.array([character.isascii() for character in text])
        assert np.array_equal(shown[plain], (rows.sum(0) >= needed)[plain])
        assert all(end < first for (_, end), (first, _) in itertools.pairwise(spans))
    assert 0 < sum(end - first for first, end in most) < sum(end - first for first, end in any_row) < len(text)
    with pytest.raises(InvalidRequestError, match="which characters its tokens are"):
        read(engine).kept_spans()


def test_the_first_characters_alone(engine: Engine) -> None:
    text = "灯台守は海を見る。The lighthouse keeper counts the ships. " * 3
    snapshot = read(engine, text)
    assert snapshot.spans is not None
    for characters in (3, 20, len(text)):
        less = snapshot.truncate(characters=characters)
        assert less.spans is not None
        assert less.spans[-1, 1] <= characters
        assert less.read == snapshot.read or snapshot.spans[less.read, 1] > characters
    with pytest.raises(InvalidRequestError, match="cannot be cut to 0"):
        snapshot.truncate(characters=0)
    with pytest.raises(InvalidRequestError, match="give one of them"):
        snapshot.truncate()


def test_spans_of_a_chat_and_of_what_goes_on(engine: Engine) -> None:
    piece = "The keeper counts the ships."
    ids = engine.encode([{"role": "user", "content": f"Read this.\n{piece}\nWhat does he count?"}])
    spans = engine.spans(ids, piece)
    assert spans is not None
    assert [piece[first:end] for first, end in spans.tolist() if end > first][-1] == "."
    assert engine.spans(ids, "another text") is None
    snapshot = asyncio.run(engine.prefill(ids, kv="full", spans=spans))
    assert snapshot.kept_spans() == [(0, len(piece))]
    longer = asyncio.run(engine.prefill(" Then he sleeps.", prefix=snapshot))
    assert longer.kept_spans() == [(0, len(piece + " Then he sleeps."))]
    assert asyncio.run(engine.prefill(QUESTION, prefix=longer)).spans is None
    for wrong in (spans[:-1], spans[::-1], -spans - 1):
        with pytest.raises(InvalidRequestError, match="give one for each token"):
            asyncio.run(engine.prefill(ids, spans=wrong))


def test_a_snapshot_says_what_its_caller_said(engine: Engine, tmp_path: Path) -> None:
    meta = {"document": "7f", "pages": [1, 2], "title": "Über\nalles"}
    snapshot = asyncio.run(engine.prefill(TEXT, kv="full", meta=meta))
    snapshot.save(tmp_path / "text.kv")
    assert Snapshot.load(tmp_path / "text.kv").meta == snapshot.meta == meta
    assert snapshot.described({"other": 1}).meta == {"other": 1}
    assert read(engine).meta == {}
    for wrong in ({"a": object()}, {"a": float("nan")}, {"a": "x" * 70_000}, {"a": "\ud800"}):
        with pytest.raises(InvalidRequestError, match="meta"):
            asyncio.run(engine.prefill(TEXT, meta=wrong))
    path = tmp_path / "text.kv"
    for written in ("[1]", "{", "null"):
        snapshot.save(path)
        header, data = header_of(path)
        header["__metadata__"]["meta"] = written
        rewrite(path, header, data)
        with pytest.raises(SnapshotError, match="damaged"):
            Snapshot.load(path)


def test_rows_of_all_lengths_are_filled() -> None:
    tables = PageTables(PagePool(64, 4, 2, torch.float32), 2, 2, 3, 2)
    lengths = np.array([[0, 1, 4], [5, 12, 3]])
    other = tables.open()
    tables.append([other], [3])
    slot = tables.open()
    where = tables.fill(slot, lengths)
    assert len(set(where.tolist())) == len(where) == lengths.sum()
    assert (where == tables.entries(slot)).all()
    begin = 0
    for layer in range(2):
        for head in range(3):
            pages = tables.table[slot, layer, head]
            expected = [int(pages[at // 4]) * 4 + at % 4 for at in range(lengths[layer, head])]
            assert where[begin : begin + len(expected)].tolist() == expected
            begin += len(expected)
    tables.check_integrity()
    with pytest.raises(EngineError, match="only an empty one"):
        tables.fill(slot, lengths)
    assert str(ModelIdentity("model", "0123456789")) == "model (01234567)"
