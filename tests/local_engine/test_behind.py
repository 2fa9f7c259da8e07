"""Recipes behind a snapshot: what comes after it is cut, or both together; and texts that are read piece by piece."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lcdoc.local_engine.compression.marks import Marks
from lcdoc.local_engine.compression.registry import SCORERS
from lcdoc.local_engine.engine import Engine, Sampling
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.local_engine.snapshot import Origin, Snapshot
from lcdoc.tests.local_engine.engines import ask, ask_all, held_bits, in_use, load, prompt_of, same, until

Make = Callable[..., Path]
LONG = Sampling(max_tokens=110, temperature=0, ignore_eos=True)
SHORT = Sampling(max_tokens=12, temperature=0, ignore_eos=True)
TEXT, QUESTION = prompt_of(203), prompt_of(17, 1)
RAGGED = "snapkv+ada@0.25"
TASK = Marks(task=prompt_of(9, 3), sentence_starts=range(0, 350, 10))
CONTINUED = (
    "h2o@64tok",
    "kvzip@64tok",
    "snapkv+ada@64tok",
    "keydiff@64tok",
    "compactor@64tok",
    "keyformer@64tok",
    "window+positions=compact@64tok",
    "snapkv+kvmerger@64tok",
    "h2o+d2o@64tok",
)


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


def read(engine: Engine, tokens: list[int], kv: str = "full", **options: object) -> Snapshot:
    return asyncio.run(engine.prefill(tokens, kv=kv, **options))  # type: ignore[arg-type]


def rows(snapshot: Snapshot) -> list[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Positions, keys and values of each row."""
    ends = np.cumsum(snapshot.lengths.ravel()).tolist()
    parts = [slice(first, end) for first, end in itertools.pairwise([0, *ends])]
    keys, values = (each.part(0, ends[-1]) for each in (snapshot.keys, snapshot.values))
    return [(snapshot.positions[part].tolist(), keys[part], values[part]) for part in parts]


def alike(ours: Snapshot, theirs: Snapshot) -> None:
    """Assert that two texts left the same."""
    assert np.array_equal(ours.tokens, theirs.tokens)
    assert np.array_equal(ours.lengths, theirs.lengths)
    assert torch.equal(ours.positions, theirs.positions)
    assert torch.equal(ours.rotated_at, theirs.rotated_at)
    assert ours.figures.keys() == theirs.figures.keys()
    for name in ("keys", "values"):
        torch.testing.assert_close(getattr(ours, name).numbers, getattr(theirs, name).numbers, atol=1e-4, rtol=1e-4)


def test_a_long_answer_is_bounded_and_the_text_kept(engine: Engine) -> None:
    sampling = replace(LONG, max_tokens=140)
    text = TEXT[:60]
    snapshot = read(engine, text)
    whole = ask(engine, QUESTION, sampling, prefix=snapshot)
    cut = ask(engine, QUESTION, sampling, prefix=snapshot, kv="window@64tok")
    assert cut.usage.kept <= 60 + 64 + 64 < whole.usage.kept
    assert cut.usage.cuts > 0
    # The same entries are kept of one prompt of which the text is protected by name.
    kept = Marks(protected=((0, 60),))
    other = ask(engine, text + QUESTION, sampling, kv="window+recent=64@124tok", marks=kept)
    assert same(cut, other)
    assert not same(cut, whole)


@pytest.mark.parametrize("scorer", list(SCORERS))
def test_every_scorer_leaves_the_text_as_it_was(engine: Engine, scorer: str) -> None:
    snapshot = read(engine, TEXT, RAGGED)
    more = prompt_of(150, 4)
    longer = read(engine, more, f"{scorer}+when=end@0.2", prefix=snapshot, marks=TASK)
    assert longer.read == 353
    behind = 0
    for (before, keys, values), (after, new_keys, new_values) in zip(rows(snapshot), rows(longer), strict=True):
        assert after[: len(before)] == before
        assert torch.equal(new_keys[: len(before)], keys)
        assert torch.equal(new_values[: len(before)], values)
        behind += len(after) - len(before)
    assert behind == 30 * snapshot.lengths.size
    assert ask(engine, QUESTION, SHORT, prefix=longer).usage.cached == 353


def test_every_row_of_a_ragged_text_keeps_its_share_of_what_comes_behind(engine: Engine) -> None:
    snapshot = read(engine, TEXT, "knorm+ada+when=end@0.25")
    longer = read(engine, prompt_of(150, 4), "knorm+when=end@0.2", prefix=snapshot)
    assert len(set(snapshot.lengths.ravel().tolist())) > 1
    assert (longer.lengths - snapshot.lengths == 30).all()


@pytest.mark.parametrize(
    "recipe", ["snapkv:window=16+when=end@0.25", "knorm+ada+when=end@64tok", "kvzip+when=end@0.25", "tova+when=end@0.3"]
)
def test_a_whole_text_is_cut_for_its_question_as_in_one_prompt(engine: Engine, recipe: str) -> None:
    snapshot = read(engine, TEXT)
    before = rows(read(engine, TEXT))
    one = ask(engine, TEXT + QUESTION, LONG, kv=recipe)
    output = ask(engine, QUESTION, LONG, prefix=snapshot, kv=recipe, evict_prefix=True)
    assert same(output, one)
    assert (output.usage.kept, output.usage.cuts) == (one.usage.kept, one.usage.cuts)
    assert ask(engine, QUESTION, LONG, prefix=snapshot, kv=recipe).usage.kept > 203
    alone = ask(engine, TEXT + QUESTION, SHORT)
    assert same(ask(engine, QUESTION, SHORT, prefix=snapshot), alone)
    for (_, keys, _), (_, again, _) in zip(before, rows(snapshot), strict=True):
        torch.testing.assert_close(keys, again, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("recipe", CONTINUED)
def test_a_text_read_in_two_parts_is_as_if_read_at_once(engine: Engine, recipe: str, tmp_path: Path) -> None:
    """With a budget in tokens the whole is cut where the first part ends, and then again at its own end."""
    tokens = prompt_of(256, 5)
    whole = read(engine, tokens, recipe)
    first = read(engine, tokens[:192], recipe)
    before = held_bits(engine, first)
    alike(read(engine, tokens[192:], recipe, prefix=first, evict_prefix=True), whole)
    assert all(map(torch.equal, held_bits(engine, first), before))
    first.save(tmp_path / "first.kv")
    loaded = Snapshot.load(tmp_path / "first.kv")
    longer = read(engine, tokens[192:], recipe, prefix=loaded, evict_prefix=True)
    alike(longer, whole)
    assert longer.recipe == recipe
    for name, figure in longer.figures.items():
        torch.testing.assert_close(figure, whole.figures[name], atol=1e-3, rtol=1e-3)


def test_a_text_that_was_not_cut_yet_is_continued(engine: Engine) -> None:
    """What a recipe has not looked at, since there was room, it looks at when it has to."""
    tokens = prompt_of(256, 5)
    for recipe in ("kvzip@140tok", "h2o@140tok"):
        first = read(engine, tokens[:128], recipe)
        assert (first.first, first.kept) == (0, 128)
        alike(read(engine, tokens[128:], recipe, prefix=first, evict_prefix=True), read(engine, tokens, recipe))


def test_recipes_follow_each_other(engine: Engine) -> None:
    first = read(engine, TEXT, RAGGED)
    second = read(engine, prompt_of(50, 2), "knorm@0.1", prefix=first, evict_prefix=True)
    assert second.recipe == f"{RAGGED}, then knorm@0.1"
    assert second.kept == 26
    assert len(ask(engine, QUESTION, LONG, prefix=second).tokens) == 110


def test_what_a_recipe_cannot_do_behind_a_snapshot(engine: Engine) -> None:
    full, cut = read(engine, TEXT), read(engine, TEXT, "knorm@0.5")

    def refused(why: str, kv: str, prefix: Snapshot = full, *, evict: bool = False) -> None:
        with pytest.raises(InvalidRequestError, match=why):
            ask(engine, QUESTION, SHORT, prefix=prefix, kv=kv, evict_prefix=evict)

    refused("stay where they stand", "window+positions=compact@64tok")
    refused("kvmerger would merge", "snapkv+kvmerger@64tok")
    refused("has two distances", "knorm+positions=self-extend@64tok", evict=True)
    refused("all queries or tokens", "expected@0.5", evict=True)
    refused("all queries or tokens", "entropy@0.5", evict=True)
    refused("read with full", "h2o@0.5", evict=True)
    refused(r"read with knorm@0\.5", "kvzip@0.5", cut, evict=True)
    refused("give prefix and kv with it", "full", evict=True)
    with pytest.raises(InvalidRequestError, match="give prefix and kv with it"):
        ask(engine, QUESTION, SHORT, kv="knorm@64tok", evict_prefix=True)
    with pytest.raises(InvalidRequestError, match="has two distances"):
        read(engine, TEXT, "knorm+positions=capped@64tok")
    extended = read(engine, QUESTION, prefix=read(engine, TEXT, "h2o@0.5"))
    refused("goes by what it saw", "h2o@0.5", replace(extended, recipe="full"), evict=True)


def test_texts_are_cut_at_once_while_others_ask_behind_the_same_pages(folder: Path) -> None:
    """In a pool for the text, and not for what each keeps of it: they follow each other."""
    kv = {"kv": "knorm@96tok", "evict_prefix": True}
    with load(folder, blocks=13 + 10, step_tokens=64) as small:
        snapshot = read(small, TEXT)
        asked = [(prompt_of(9, 20 + each), SHORT, {"prefix": snapshot, **kv}) for each in range(6)]
        asked += [(QUESTION, SHORT, {"prefix": snapshot})]
        alone = [ask(small, prompt, sampling, **options) for prompt, sampling, options in asked]
        for ours, theirs in zip(ask_all(small, asked), alone, strict=True):
            assert same(ours, theirs)
        assert in_use(small) == 0
        small._scheduler.room.evict(1 << 40)
        assert small.stats().pages_used == 0
        small._scheduler.tables.check_integrity()


@pytest.mark.parametrize("recipe", ["full", RAGGED, "window+positions=compact@64tok", "kvzip@0.25"])
def test_questions_in_the_margins_change_nothing_of_the_text(engine: Engine, recipe: str) -> None:
    pieces = [prompt_of(90, seed) for seed in range(4)]

    async def margins(*, ask: bool) -> list[Snapshot]:
        at: list[Snapshot] = []
        async for each in engine.prefill_pieces(pieces, kv=recipe, meta={"document": "x"}):
            at.append(each)
            if ask:
                await asyncio.gather(*(engine.complete(prompt_of(9, 30 + n), SHORT, prefix=each) for n in range(2)))
        return at

    plain, asked = asyncio.run(margins(ask=False)), asyncio.run(margins(ask=True))
    assert [each.read for each in asked] == [90, 180, 270, 360]
    assert asked[-1].meta == {"document": "x"}
    assert {each.recipe for each in asked} == {recipe}
    for ours, theirs in zip(asked, plain, strict=True):
        assert np.array_equal(ours.lengths, theirs.lengths)
        for name in ("positions", "rotated_at"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
        for name in ("keys", "values"):
            assert torch.equal(getattr(ours, name).numbers, getattr(theirs, name).numbers)
    if recipe == "full":
        for count, each in enumerate(asked, 1):
            whole = ask(engine, [*itertools.chain(*pieces[:count]), *QUESTION], SHORT)
            assert same(ask(engine, QUESTION, SHORT, prefix=each), whole)
    alone = ask(engine, QUESTION, SHORT, prefix=replace(asked[1], origin=Origin()))
    assert same(ask(engine, QUESTION, SHORT, prefix=asked[1]), alone)


def test_margins_are_written_while_the_text_is_read_on(engine: Engine) -> None:
    async def together() -> list[str]:
        notes: list[asyncio.Task[str]] = []

        async def note(at: Snapshot) -> str:
            return (await engine.complete(QUESTION, LONG, prefix=at)).text

        async for at in engine.prefill_pieces([prompt_of(200, seed) for seed in range(3)]):
            notes.append(asyncio.create_task(note(at)))
        return await asyncio.gather(*notes)

    assert len(set(asyncio.run(together()))) == 3
