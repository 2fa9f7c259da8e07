"""Sequences of small random models that are cut while and after they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lcdoc.local_engine.batch import Batch, Piece, gather
from lcdoc.local_engine.compression import compressor
from lcdoc.local_engine.compression.attention_mass import attention_mass
from lcdoc.local_engine.compression.layers import layer_model
from lcdoc.local_engine.compression.look import Look
from lcdoc.local_engine.compression.marks import Marks
from lcdoc.local_engine.compression.observation import Sightings
from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.compression.probes import Probed
from lcdoc.local_engine.compression.recipe import Recipe
from lcdoc.local_engine.compression.recipe_text import Named
from lcdoc.local_engine.compression.rows import places, read_rows
from lcdoc.tests.local_engine.compression.engines import CutBench
from lcdoc.tests.local_engine.decoding import CPU, Bench, random_tokens

Make = Callable[..., Path]
TOKENS = random_tokens(200)
CHUNK = 32


@pytest.fixture(scope="module")
def folder(checkpoint: Make) -> Path:
    return checkpoint("llama", max_position_embeddings=4096)


@dataclass(frozen=True, slots=True)
class Watching:
    """A scorer that keeps what it was shown, and scores by position."""

    shown: list[Heads]
    wanted: Needs

    @property
    def needs(self) -> Needs:
        return self.wanted

    def score(self, heads: Heads) -> Tensor:
        self.shown.append(heads)
        assert heads.keys.shape == heads.values.shape  # copied now, before the cut
        heads.state["age"] = heads.state.get("age", torch.zeros_like(heads.positions, dtype=torch.float32)) + 1
        return -((heads.positions * 37) % 101).float()


def watched(text: str, needs: Needs) -> tuple[Recipe, list[Heads]]:
    from dataclasses import replace

    shown: list[Heads] = []
    return replace(Recipe.parse(text), chosen_scorer=Named("watching", Watching(shown, needs))), shown


def begin(bench: CutBench, recipe: Recipe, prompt: int, marks: Marks | None = None):  # type: ignore[no-untyped-def]
    from lcdoc.local_engine.compression.allowance import Allowance

    return bench.compressor.begin(bench.decoder, bench.tables.open(), Allowance(recipe, prompt, CHUNK), marks)


@pytest.mark.parametrize(
    "recipe", ["knorm@200tok", "snapkv+ada@1.0", "h2o+global@500tok", "kvzip@1.0", "window+positions=compact@200tok"]
)
def test_with_room_for_all_nothing_changes(folder: Path, recipe: str) -> None:
    bench = CutBench(folder)
    held = bench.start(recipe, len(TOKENS), CHUNK)
    assert torch.equal(bench.read_all(held, TOKENS), Bench(folder).read(TOKENS, [CHUNK] * 6 + [8]))
    assert held.cuts == 0


@pytest.mark.parametrize("recipe", ["snapkv@48tok", "knorm+when=end@48tok", "snapkv+ada@48tok", "keydiff+global@48tok"])
def test_pages_are_really_free(folder: Path, recipe: str) -> None:
    bench = CutBench(folder, page_size=8)
    held = bench.start(recipe, len(TOKENS), CHUNK)
    bench.read_all(held, TOKENS)
    rows = bench.tables.lengths[held.slot]
    assert rows.sum() == 48 * rows.size
    used = bench.tables.pool.pages - bench.tables.pool.free
    assert used == bench.tables.counts[held.slot].sum() <= rows.size * (48 // 8 + 1)
    ragged = "ada" in recipe or "global" in recipe
    assert (len(set(rows.ravel().tolist())) > 1) == ragged
    bench.tables.check_integrity()
    bench.tables.free(held.slot)
    assert bench.tables.pool.free == bench.tables.pool.pages


@pytest.mark.parametrize("recipe", ["knorm@48tok", "h2o@48tok"])
def test_a_long_prompt_never_holds_more_than_budget_and_chunk(folder: Path, recipe: str) -> None:
    peaks = []
    for length in (160, 640):
        bench = CutBench(folder, page_size=8)
        held = bench.start(recipe, length, CHUNK)
        bench.read_all(held, random_tokens(length))
        peaks.append(bench.peak)
    most = bench.tables.layers * bench.tables.kv_heads * (48 + CHUNK) // 8
    assert peaks == [most, most]


def test_heads_of_a_ragged_cache_stay_within_their_sum(folder: Path) -> None:
    bench = CutBench(folder, page_size=8)
    held = bench.start("snapkv+global@48tok", 640, CHUNK)
    tokens, computed = random_tokens(640), 0
    while computed < len(tokens):
        _, computed = bench.read_on(held, tokens, computed)
        rows = bench.tables.lengths[held.slot]
        assert rows.mean() <= 48 + CHUNK
    assert rows.std() > 0


def test_at_the_end_all_is_held_until_then(folder: Path) -> None:
    bench = CutBench(folder, page_size=8)
    held = bench.start("knorm+when=end@0.25", len(TOKENS), CHUNK)
    logits = bench.read_all(held, TOKENS)
    # What is answered first was foretold by the whole text.
    assert torch.equal(logits, Bench(folder).read(TOKENS, [CHUNK] * 6 + [8]))
    assert held.cuts == 1
    assert bench.peak == 6 * 200 // 8
    assert set(bench.tables.lengths[held.slot].ravel().tolist()) == {50}


def test_a_long_answer_stays_bounded(folder: Path) -> None:
    bench = CutBench(folder, page_size=8)
    held = bench.start("snapkv@48tok", 100, CHUNK)
    tokens = random_tokens(400)
    bench.read_all(held, tokens[:100])
    rows, computed = set(), 100
    while computed < len(tokens):
        _, computed = bench.read_on(held, tokens[: computed + 1], computed)
        rows |= set(bench.tables.lengths[held.slot].ravel().tolist())
    assert (min(rows), max(rows)) == (48, 48 + CHUNK - 1)
    assert held.cuts > 5


def test_kept_entries_are_those_of_the_positions_noted(folder: Path) -> None:
    """Keys and values of the first layer depend on nothing but token and position."""
    bench, whole = CutBench(folder, page_size=8), CutBench(folder)
    held = bench.start("knorm+ada@40tok", len(TOKENS), CHUNK)
    bench.read_all(held, TOKENS)
    full = whole.start("knorm@1.0", len(TOKENS), len(TOKENS))
    whole.read_all(full, TOKENS)
    for head in range(bench.tables.kv_heads):
        positions = bench.positions(held, 0, head)
        assert positions == sorted(set(positions))
        assert set(range(4)) <= set(positions)
        assert set(range(len(TOKENS) - 5, len(TOKENS))) <= set(positions)
        for ours, theirs in zip(bench.row(held, 0, head), whole.row(full, 0, head), strict=True):
            torch.testing.assert_close(ours, theirs[positions])


def test_named_spans_are_kept(folder: Path) -> None:
    bench = CutBench(folder)
    held = bench.start("knorm+ada@40tok", len(TOKENS), CHUNK, Marks(protected=((50, 55), (120, 121))))
    bench.read_all(held, TOKENS)
    for layer in range(bench.tables.layers):
        for head in range(bench.tables.kv_heads):
            assert {50, 51, 52, 53, 54, 120} <= set(bench.positions(held, layer, head))


def test_what_a_scorer_sees(folder: Path) -> None:
    """Positions, tokens, figures and windows, cut after cut, against the text itself."""
    needs = Needs(window=24, mass=True, surprise=True, moments=True, hidden=True)
    recipe, shown = watched("knorm+ada@40tok", needs)
    bench = CutBench(folder)
    held = begin(bench, recipe, len(TOKENS))
    logits = bench.read_all(held, TOKENS)
    foretold = [0.0, *(-logits.log_softmax(-1)[range(len(TOKENS) - 1), TOKENS[1:]]).tolist()]
    assert held.cuts > 3
    last: Heads | None = None
    for heads in shown:
        now = int(heads.positions.max()) + 1
        assert torch.equal(heads.rotated_at, heads.positions)
        assert torch.equal(
            heads.positions[:, -heads.new :], torch.arange(now - heads.new, now).expand(len(heads.keys), -1)
        )
        assert heads.query_positions is not None
        assert heads.query_positions.tolist() == list(range(now - min(24, heads.new), now))
        assert heads.queries is not None
        assert heads.queries.shape == (len(heads.keys), 2, len(heads.query_positions), 16)
        assert heads.hidden is not None
        assert heads.hidden.shape == (len(heads.query_positions), 64)
        assert torch.equal(heads.state["seen"], (now - heads.positions).float())
        torch.testing.assert_close(
            heads.state["surprise"], torch.tensor(foretold)[heads.positions], rtol=1e-4, atol=1e-4
        )
        assert heads.keys.shape == heads.values.shape == (*heads.positions.shape, 16)
        ages = heads.state["age"]  # score() counts this cut in
        assert (ages[:, -heads.new :] == 1).all()
        assert (ages.diff(dim=1) <= 0).all()
        last = heads
    assert last is not None
    assert last.state["age"].max() == held.cuts


class Counted(list[int]):
    """Tokens that note how many of them were handed out at once."""

    most = 0

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        found = super().__getitem__(index)
        self.most = max(self.most, len(found) if isinstance(index, slice) else 1)
        return found


class Longest(TorchDispatchMode):
    """Notes the longest dimension of all tensors that operations make, but for views of what is there."""

    most = 0

    def __torch_dispatch__(self, function, types, given=(), named=None):  # type: ignore[no-untyped-def]
        made = function(*given, **(named or {}))
        old, new = (
            {
                each.untyped_storage().data_ptr(): max((0, *each.shape))
                for each in tree_leaves(some)
                if torch.is_tensor(each)
            }
            for some in ((given, named), made)
        )
        self.most = max(self.most, *(length for storage, length in new.items() if storage not in old), 0)
        return made


def test_a_cut_looks_at_what_is_there_and_not_at_all_that_was_read(folder: Path) -> None:
    length = 2000
    marks = Marks(protected=((0, 3), (length - 5, length)), sentence_starts=range(0, length, 2))
    bench = CutBench(folder)
    held = bench.start("entropy@32tok", length, CHUNK, marks)
    tokens = Counted(random_tokens(length))
    settle, works = bench.compressor.settle, list[int]()

    def settled(*given: Any) -> bool:
        tokens.most = 0
        with Longest() as longest:
            cut = settle(*given)
        if cut:
            works.append(max(longest.most, tokens.most))
        return cut

    bench.compressor.settle = settled  # type: ignore[method-assign]
    bench.read_all(held, tokens)
    assert len(works) > 40
    # The entries of all rows side by side; the first cut makes tensors of the marks.
    assert max(works[1:]) <= bench.tables.layers * bench.tables.kv_heads * (32 + CHUNK) < 500


def test_moments_and_mass_are_those_of_all_queries(folder: Path) -> None:
    """With nothing cut before: against one look at all queries, by the formula, in float64."""
    recipe, shown = watched("knorm+when=end@0.5", Needs(window=10_000, mass=True, moments=True))
    bench = CutBench(folder)
    bench.read_all(begin(bench, recipe, len(TOKENS)), TOKENS)
    assert len(shown) == 3
    for heads in shown:
        assert heads.queries is not None
        q, k = heads.queries.double(), heads.keys.double()
        heads_, groups, count, dim = q.shape
        mass = torch.zeros(heads_, count, dtype=torch.float64)
        for h in range(heads_):
            for g in range(groups):
                for i in range(count):
                    mass[h, : i + 1] += torch.softmax(q[h, g, i] @ k[h, : i + 1].T * dim**-0.5, -1) / groups
        torch.testing.assert_close(heads.state["mass"].double(), mass, rtol=1e-4, atol=1e-4)
        positions = torch.arange(count)
        before = heads.model.rotate(heads.queries, -positions)[:, :, 4:].double()
        assert heads.moments is not None
        mean = before.mean(2)
        off = before - mean[:, :, None]
        torch.testing.assert_close(heads.moments.mean.double(), mean, rtol=1e-4, atol=1e-4)
        covariance = off.mT @ off / (count - 4)
        torch.testing.assert_close(heads.moments.covariance.double(), covariance, rtol=1e-3, atol=1e-4)


def test_mass_with_windows_and_biases() -> None:
    generator = torch.Generator().manual_seed(3)
    q = torch.randn(5, 2, 3, 8, generator=generator)
    k = torch.randn(2, 17, 8, generator=generator)
    bias = torch.randn(2, 17, generator=generator)
    got = attention_mass(q, k, 0.3, window=4, bias=bias)
    expected = torch.zeros(2, 17, dtype=torch.float64)
    for h in range(2):
        for i in range(5):
            last = 17 - 5 + i
            seen = slice(last - 3, last + 1)
            for g in range(3):
                logits = k[h, seen].double() @ q[i, h, g].double() * 0.3 + bias[h, seen].double()
                expected[h, seen] += torch.softmax(logits, -1) / 3
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)


def test_compact_positions_are_a_fresh_reading_of_what_is_kept(checkpoint: Make) -> None:
    """In a model of one layer keys and values depend on token and place alone, so that a cache which was moved together
    is that of a text made of the kept tokens."""
    folder = checkpoint("llama", num_hidden_layers=1, max_position_embeddings=4096)
    bench = CutBench(folder)
    held = bench.start("window+positions=compact@40tok", len(TOKENS), CHUNK)
    bench.read_all(held, TOKENS)
    kept = [TOKENS[place] for place in bench.positions(held, 0, 0)]
    assert kept == TOKENS[:4] + TOKENS[-36:]
    extra = random_tokens(20, 5)
    ours = []
    computed = len(TOKENS)
    tokens = [*TOKENS, *extra]
    while computed < len(tokens):
        logits, computed = bench.read_on(held, tokens[: computed + 1], computed)
        ours.append(logits)
    fresh = Bench(folder).read([*kept, *extra])[40:]
    torch.testing.assert_close(torch.cat(ours), fresh, rtol=1e-3, atol=1e-3)


def test_compact_rows_of_different_lengths_end_together(folder: Path) -> None:
    bench = CutBench(folder)
    held = bench.start("knorm+ada+positions=compact@40tok", len(TOKENS), CHUNK)
    bench.read_all(held, TOKENS)
    rows = bench.tables.lengths[held.slot]
    assert rows.std() > 0
    assert held.entries.base == rows.max()
    stands, valid = held.entries.layout().stands, held.entries.layout().valid
    for layer in range(bench.tables.layers):
        for head in range(bench.tables.kv_heads):
            mine = stands[layer, head][valid[layer, head]]
            assert mine.tolist() == list(range(rows.max() - rows[layer, head], rows.max()))


@pytest.mark.parametrize("recipe", ["snapkv@48tok", "snapkv+ada+kvmerger:log_count=true@48tok"])
def test_beside_others_it_is_as_alone(folder: Path, recipe: str) -> None:
    alone = CutBench(folder)
    held = alone.start(recipe, 150, CHUNK)
    alone.read_all(held, TOKENS[:150])
    expected, _ = alone.read_on(held, TOKENS[:151], 150)
    plain = Bench(folder).read(TOKENS[:60], [59, 1])[-1:]

    bench = CutBench(folder)
    first = bench.start(recipe, 150, CHUNK)
    bench.read_all(first, TOKENS[:150])
    other = bench.tables.open()
    bench.run(Piece(other, TOKENS[:59], 0, 60, 1))
    pieces = [
        Piece(other, TOKENS[59:60], 59, 60, 1),
        Piece(first.slot, TOKENS[150:151], 150 - first.shift, 150, 1),
    ]
    both = bench.decoder.forward(gather(pieces, bench.tables, CPU, bench.compressor.observer([None, first])))
    torch.testing.assert_close(both[:1], plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both[1:], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "recipe", ["kvzip@0.25", "kvzip++ada@48tok", "task@48tok", "speckv@48tok", "kvzip+match@48tok"]
)
def test_probes_leave_nothing_behind(folder: Path, recipe: str) -> None:
    bench = CutBench(folder, page_size=8)
    held = bench.start(recipe, len(TOKENS), CHUNK)
    bench.read_all(held, TOKENS)
    assert held.cuts
    bench.tables.check_integrity()
    used = bench.tables.pool.pages - bench.tables.pool.free
    assert used == bench.tables.counts[held.slot].sum()


def test_what_was_repeated_once_keeps_its_score(folder: Path) -> None:
    """Of entries that an earlier cut has kept, the score is at least what that cut gave them."""
    bench = CutBench(folder)
    held = bench.start("kvzip@48tok", len(TOKENS), CHUNK)
    computed, known = 0, {}
    while computed < len(TOKENS):
        _, computed = bench.read_on(held, TOKENS, computed)
        if "probed" in held.entries.figures:
            scores = held.entries.figure("probed")[0, 0].tolist()
            now = dict(zip(bench.positions(held, 0, 0), scores, strict=False))
            late = set(range(held.entries.first, computed))
            assert all(now[place] >= known[place] for place in set(now) & set(known))
            assert all(score > 0 for place, score in now.items() if place not in late)
            known = now
    assert held.cuts > 2


@pytest.mark.parametrize("recipe", ["kvzip@48tok", "kvzip+ada+when=end@48tok"])
def test_repeating_queries_share_attention_as_in_the_paper(
    folder: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores of each cut, against a reading of what is in the cache, the prompt and the piece: softmax in float64
    over the sinks, the piece, and what was repeated so far."""
    bench, found = CutBench(folder, page_size=8), []
    run = compressor.scored

    def watch(look: Look, probed: list[Probed]) -> Tensor:
        keys = [[bench.row(look.held, layer, head)[0] for head in range(2)] for layer in range(3)]
        stands = [[bench.positions(look.held, layer, head) for head in range(2)] for layer in range(3)]
        before = look.held.entries.figure("probed").clone()
        found.append((keys, stands, before, probed, run(look, probed).clone()))
        return found[-1][-1]

    monkeypatch.setattr(compressor, "scored", watch)
    appended = []
    beside = Sightings._beside

    def keep(self: Sightings, layer: int, queries: Tensor, batch: Batch, index: int) -> Tensor:
        made = beside(self, layer, queries, batch, index)
        slot = int(batch.slots[index])
        length = int(batch.past[index, layer, 0]) + len(queries)
        where = places(bench.tables, slot, layer, slice(0, 1), length)[:, -len(queries) :]
        appended.append((id(self), layer, read_rows(bench.tables, where)[0][0].double()))
        return made

    monkeypatch.setattr(Sightings, "_beside", keep)
    held = bench.start(recipe, len(TOKENS), CHUNK)
    bench.read_all(held, TOKENS)
    assert len(found) == held.cuts > 0
    for keys, stands, before, probed, values in found:
        for piece in probed:
            first, end = piece.repeated
            for layer in range(3):
                queries = piece.sightings.queries(layer)
                assert queries is not None
                own = torch.cat([key for of, at, key in appended if (of, at) == (id(piece.sightings), layer)])
                assert len(own) == queries.shape[2] > end - first
                place = stands[layer][0]
                columns = [c for c, at in enumerate(place) if at < 4 or first <= at < end]
                shown = keys[layer][0][columns].double()
                best = torch.zeros(len(columns), dtype=torch.float64)
                for group in range(queries.shape[1]):
                    for number, query in enumerate(queries[0, group].double()):
                        logits = torch.cat([shown, own[: number + 1]]) @ query * 16**-0.5
                        best = torch.maximum(best, logits.softmax(-1)[: len(columns)])
                for column, score in zip(columns, best.tolist(), strict=True):
                    wanted = score if first <= place[column] < end else float(before[layer, 0, column])
                    assert float(values[layer, 0, column]) == pytest.approx(wanted, rel=1e-3, abs=1e-6)


def test_behind_a_sliding_window_nothing_is_kept(checkpoint: Make) -> None:
    folder = checkpoint("mistral", sliding_window=32, max_position_embeddings=4096)
    bench = CutBench(folder)
    held = bench.start("knorm@100tok", len(TOKENS), CHUNK)
    bench.read_all(held, TOKENS)
    assert held.cuts
    for layer in range(bench.tables.layers):
        assert min(bench.positions(held, layer, 0)) >= len(TOKENS) - 32 - CHUNK


def test_a_budget_may_not_drop_what_is_protected(folder: Path) -> None:
    bench = CutBench(folder)
    held = bench.start("knorm@8tok", len(TOKENS), CHUNK, Marks(protected=((10, 40),)))
    bench.read_all(held, TOKENS)
    assert np.all(bench.tables.lengths[held.slot] >= 30)
    assert set(range(10, 40)) <= set(bench.positions(held, 1, 1))


@pytest.mark.parametrize(
    "recipe", ["knorm+positions=capped:reach=100@1.0", "knorm+positions=self-extend:group=4,neighbours=60@1.0"]
)
def test_places_stay_within_the_window(checkpoint: Make, recipe: str) -> None:
    """Nothing is dropped, but keys are moved so that no token stands beyond what the model was trained for."""
    from lcdoc.local_engine.compression.allowance import Allowance

    folder = checkpoint("llama", num_hidden_layers=1, max_position_embeddings=4096)
    bench = CutBench(folder)
    allowance = Allowance(Recipe.parse(recipe), len(TOKENS), CHUNK, window=140)
    held = bench.compressor.begin(bench.decoder, bench.tables.open(), allowance)
    computed, places = 0, []
    while computed < len(TOKENS):
        shift = held.shift
        _, computed = bench.read_on(held, TOKENS, computed)
        places.append(computed - shift)
    assert held.cuts > 0
    assert held.dropped == 0
    assert max(places) <= 140
    whole = CutBench(folder)
    full = whole.start("knorm@1.0", len(TOKENS), len(TOKENS))
    whole.read_all(full, TOKENS)
    stands = held.entries.layout().stands[0, 0]
    assert stands.min() >= 0
    assert (stands != torch.arange(len(TOKENS))).any()
    for head in range(2):
        keys, values = whole.row(full, 0, head)
        moved = layer_model(whole.decoder, 0, 200, slice(0, 1)).rotate(keys, stands - torch.arange(len(TOKENS)))
        torch.testing.assert_close(bench.row(held, 0, head)[0], moved, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(bench.row(held, 0, head)[1], values, rtol=1e-4, atol=1e-4)


def test_a_task_that_nobody_named_is_the_end_of_the_whole_prompt(folder: Path) -> None:
    """Also at a cut where only the prompt's beginning was read."""
    bench, found = CutBench(folder), []
    held = bench.start("task:window=8@48tok", len(TOKENS), CHUNK)
    read = bench.decoder.hidden

    def hidden(batch: Batch) -> Tensor:
        if int(batch.slots[0]) != held.slot:
            found.append(batch.tokens.tolist())
        return read(batch)

    bench.decoder.hidden = hidden  # type: ignore[method-assign]
    bench.read_all(held, TOKENS)
    assert len(found) == held.cuts > 2
    assert found == [TOKENS[-8:]] * held.cuts
