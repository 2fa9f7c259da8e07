"""Reducers that merge, against loops over the papers' formulas in float64, and by what must hold for each."""

from __future__ import annotations

import math

import pytest
import torch

from lcdoc.local_engine.compression.parts import Heads
from lcdoc.local_engine.compression.reducers import nearest as nearest_module
from lcdoc.local_engine.compression.reducers.attention_matching import AttentionMatching
from lcdoc.local_engine.compression.reducers.cam import CaM, _draws
from lcdoc.local_engine.compression.reducers.d2o import D2O, THRESHOLD
from lcdoc.local_engine.compression.reducers.drop import Drop
from lcdoc.local_engine.compression.reducers.kvmerger import KVMerger
from lcdoc.local_engine.compression.reducers.nearest import nearest
from lcdoc.local_engine.compression.reducers.value_merge import ValueMerge
from lcdoc.local_engine.compression.registry import REDUCERS, part_class
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.tests.local_engine.compression.cut_heads import carried_out, distance, random_heads, random_keep

MERGERS = [ValueMerge(), KVMerger(threshold=0.5), KVMerger(threshold=0.5, log_count=True), D2O(), CaM(following=5)]
ALL = [Drop(), *MERGERS, AttentionMatching(values=True)]
SHAPES = [(1, 1, 4), (1, 2, 4), (2, 3, 8), (3, 57, 16), (1, 90, 8)]


def cosine(a, b):
    return (a @ b / (a.norm() * b.norm())).item()


def best_kept(keys, keep, i):
    """The highest cosine of entry i with a kept one, and which that is; -inf and -1 where none is kept."""
    return max(((cosine(keys[i], keys[j]), j) for j in keep.nonzero()[:, 0].tolist()), default=(-math.inf, -1))


def value_merge_by_loops(heads: Heads, keep, scores):
    keys, values = heads.keys.double(), heads.values.double()
    for head in range(len(keep)):
        joined = {}
        for i in (~keep[head]).nonzero()[:, 0].tolist():
            similarity, j = best_kept(keys[head], keep[head], i)
            mine, its = heads.values[head, i].double().norm(), heads.values[head, j].double().norm()
            joined.setdefault(j, []).append((max(0, similarity) * mine / (mine + its), i))
        for j, members in joined.items():
            if j >= 0:
                total = heads.values[head, j] + sum(weight * heads.values[head, i].double() for weight, i in members)
                values[head, j] = total / (1 + sum(weight for weight, _ in members))
    return keys, values, None


def d2o_by_loops(heads: Heads, keep, scores, beta=0.5):
    keys, values = heads.keys.double(), heads.values.double()
    for head in range(len(keep)):
        best = {i: best_kept(heads.keys[head].double(), keep[head], i) for i in (~keep[head]).nonzero()[:, 0].tolist()}
        if not best or not keep[head].any():
            continue
        mean = sum(similarity for similarity, _ in best.values()) / len(best)
        before = heads.state[THRESHOLD][head, 0].item() if THRESHOLD in heads.state else 0
        threshold = beta * mean + (1 - beta) * before if before else mean
        for j in keep[head].nonzero()[:, 0].tolist():
            members = [(math.exp(u), i) for i, (u, k) in best.items() if k == j and u >= threshold - 1e-7]
            total = math.e + sum(weight for weight, _ in members)
            for new, old in ((keys, heads.keys), (values, heads.values)):
                new[head, j] = math.e * old[head, j].double() + sum(w * old[head, i].double() for w, i in members)
                new[head, j] /= total
    return keys, values, None


def cam_by_loops(heads: Heads, keep, scores, following=5, most=0.1):
    values, draws = heads.values.double(), _draws(heads, 0)
    gained, weighs = torch.zeros_like(values), torch.zeros(keep.shape, dtype=torch.float64)
    attended = heads.state["mass"].double() / heads.state["seen"]
    for head in range(len(keep)):
        for i in (~keep[head]).nonzero()[:, 0].tolist():
            behind = [j for j in range(i + 1, keep.shape[1]) if keep[head, j]][:following]
            if not behind:
                continue
            probability = min(1.0, (attended[head, i] / attended[head, behind].mean()).item())
            if draws[head, i].item() < probability:
                for j in behind:
                    gained[head, j] += heads.values[head, i].double() / len(behind)
                    weighs[head, j] += 1 / len(behind)
    for head, j in weighs.nonzero().tolist():
        values[head, j] += gained[head, j] * min(1.0, most / weighs[head, j].item())
    return heads.keys.double(), values, None


def kvmerger_by_loops(heads: Heads, keep, scores, threshold=0.5, log_count=False):
    keys, values = heads.keys.double(), heads.values.double()
    bias = torch.zeros(keep.shape, dtype=torch.float64)
    counts = heads.state["bias"].double().exp() if "bias" in heads.state and log_count else torch.ones_like(bias)
    for head in range(len(keep)):
        k, v, count = heads.keys[head].double(), heads.values[head].double(), counts[head]
        free, kept = ~heads.protected[head], keep[head]
        places = [j for j in range(len(k)) if free[j] and kept[j]]
        runs = [[0]]
        for i in range(1, len(k)):
            if free[i] and free[i - 1] and cosine(k[i], k[i - 1]) > threshold:
                runs[-1].append(i)
            else:
                runs.append([i])
        sets = {j: [] for j in places}
        for run in runs:
            pivots = [j for j in run if j in sets]
            gone = [i for i in run if free[i] and not kept[i]]
            if gone and not pivots:
                top = max(run, key=lambda i: (scores[head, i].item(), -i))
                similarity, j = best_kept(k, kept & free, top)
                if similarity > threshold:
                    sets[j] += gone
                continue
            for i in gone:
                around = [
                    max((j for j in pivots if j < i), default=None),
                    min((j for j in pivots if j > i), default=None),
                ]
                around = [j for j in around if j is not None]
                sets[min(around, key=lambda j: (k[i] - k[j]).square().sum().item())].append(i)
        for j in range(len(k)):
            members = sets.get(j, [])
            bias[head, j] = math.log(count[j] + sum(count[i] for i in members))
            if members:
                squares = [(k[i] - k[j]).square().sum() for i in members]
                spread = sum(squares) / (1 + len(members))
                weights = [count[i] * math.exp(-d / (2 * spread)) for d, i in zip(squares, members, strict=True)]
                total = count[j] + sum(weights)
                keys[head, j] = (count[j] * k[j] + sum(w * k[i] for w, i in zip(weights, members, strict=True))) / total
                values[head, j] = (
                    count[j] * v[j] + sum(w * v[i] for w, i in zip(weights, members, strict=True))
                ) / total
    return keys, values, bias if log_count else None


LOOPS = [
    (ValueMerge(), value_merge_by_loops),
    (D2O(), d2o_by_loops),
    (CaM(following=5), cam_by_loops),
    (CaM(following=5, most=0.5), lambda *given: cam_by_loops(*given, most=0.5)),
    (KVMerger(threshold=0.5), kvmerger_by_loops),
    (KVMerger(threshold=0.5, log_count=True), lambda *given: kvmerger_by_loops(*given, log_count=True)),
]


@pytest.mark.parametrize(("reducer", "loops"), LOOPS, ids=lambda x: getattr(x, "__name__", repr(x)))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alike", [1, 5])
def test_a_merge_is_the_papers_formula(reducer, loops, shape, alike, monkeypatch):
    monkeypatch.setattr(nearest_module, "_STRIP", 64)  # many strips, the last one shorter
    for seed, share in enumerate((0.1, 0.3, 0.8)):
        heads = random_heads(shape, seed=seed, sinks=2, recent=3, alike=alike)
        keep, scores = random_keep(heads, share, seed=seed)
        heads.state["bias"] = torch.rand(keep.shape)
        keys, values, bias = loops(heads, keep, scores)
        reduced = carried_out(reducer, heads, keep, scores)
        torch.testing.assert_close(reduced.keys[keep].double(), keys[keep], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(reduced.values[keep].double(), values[keep], rtol=1e-5, atol=1e-5)
        assert (reduced.bias is not None) == reducer.biased
        if bias is not None:
            torch.testing.assert_close(reduced.bias[keep].double(), bias[keep], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reducer", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_merging_nothing_changes_nothing(reducer, dtype, shape):
    heads = random_heads(shape, dtype=dtype, window=4)
    keep, scores = torch.ones(shape[:2], dtype=torch.bool), torch.rand(shape[:2])
    reduced = carried_out(reducer, heads, keep, scores)
    assert torch.equal(reduced.keys, heads.keys)
    assert torch.equal(reduced.values, heads.values)
    assert reduced.bias is None or not reduced.bias.any()
    assert (reduced.bias is not None) == reducer.biased


@pytest.mark.parametrize("reducer", ALL, ids=repr)
def test_dtypes_stay_and_entries_are_not_written_to(reducer):
    heads = random_heads((2, 40, 8), dtype=torch.bfloat16, window=8, alike=4)
    keys, values = heads.keys.clone(), heads.values.clone()
    keep, scores = random_keep(heads, 0.4)
    reduced = carried_out(reducer, heads, keep, scores)
    assert torch.equal(heads.keys, keys)
    assert torch.equal(heads.values, values)
    assert reduced.keys.dtype == reduced.values.dtype == torch.bfloat16
    assert reduced.keys.shape == reduced.values.shape == heads.keys.shape
    assert reduced.values[keep].isfinite().all()
    assert reduced.bias is None or (reduced.bias.dtype == torch.float32 and reduced.bias[keep].isfinite().all())


@pytest.mark.parametrize("reducer", ALL, ids=repr)
def test_a_head_that_keeps_nothing_is_left_alone(reducer):
    """Beside one that does: the budget of a row may be 0."""
    heads = random_heads((2, 30, 8), window=8, alike=4)
    keep, scores = random_keep(heads, 0.4)
    keep[0] = False
    reduced = carried_out(reducer, heads, keep, scores)
    assert torch.equal(reduced.values[0], heads.values[0])
    assert reduced.values[1][keep[1]].isfinite().all()
    assert not torch.equal(reduced.values[1], heads.values[1]) or isinstance(reducer, Drop)
    nothing = carried_out(reducer, heads, torch.zeros_like(keep), scores)
    assert torch.equal(nothing.values, heads.values)


@pytest.mark.parametrize("reducer", [ValueMerge(), D2O(), KVMerger(), KVMerger(log_count=True)], ids=repr)
def test_identical_entries_merge_to_themselves(reducer):
    heads = random_heads((2, 33, 8))
    heads.keys[:] = heads.keys[:, :1].clone()
    heads.values[:] = heads.values[:, :1].clone()
    keep, scores = random_keep(heads, 0.3)
    reduced = carried_out(reducer, heads, keep, scores)
    torch.testing.assert_close(reduced.keys, heads.keys)
    torch.testing.assert_close(reduced.values, heads.values)


@pytest.mark.parametrize("reducer", ALL, ids=repr)
def test_heads_are_reduced_alike_one_by_one(reducer):
    """As where rows of a layer differ in length."""
    heads = random_heads((3, 50, 8), window=8, alike=3, sinks=1)
    keep, scores = random_keep(heads, 0.3)
    together = carried_out(reducer, heads, keep, scores)
    for head in range(3):
        part = slice(head, head + 1)
        one = Heads(
            heads.model,
            *(getattr(heads, name)[part] for name in ("keys", "values", "positions", "rotated_at", "protected")),
            new=heads.new,
            queries=heads.queries[part],
            query_positions=heads.query_positions,
            state={name: figures[part] for name, figures in heads.state.items() if name != THRESHOLD},
            first=head,
        )
        alone = carried_out(reducer, one, keep[part], scores[part])
        torch.testing.assert_close(alone.keys[0], together.keys[head], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone.values[0], together.values[head], rtol=1e-4, atol=1e-4)
        assert alone.bias is None or torch.allclose(alone.bias[0], together.bias[head], atol=1e-4)


@pytest.mark.parametrize("reducer", [ValueMerge(), KVMerger(), KVMerger(log_count=True), D2O()], ids=repr)
def test_what_resembles_is_better_merged_than_dropped(reducer):
    """Stretches of entries with nearly one key and values of their own, of each of which two are kept."""
    heads = random_heads((2, 240, 16), window=20, alike=6, groups=3)
    keep = (torch.arange(240) % 3 == 0).repeat(2, 1)
    scores = -torch.rand(2, 240)
    merged, dropped = (distance(heads, carried_out(way, heads, keep, scores), keep) for way in (reducer, Drop()))
    assert merged < 0.8 * dropped


def test_cam_gives_all_it_draws_away(monkeypatch):
    """The values that remain add up to what was there, where every evicted one is drawn and has followers."""
    heads = random_heads((2, 40, 8), recent=4)
    heads.state["mass"] = torch.ones_like(heads.state["mass"])
    heads.state["seen"] = torch.ones_like(heads.state["mass"])
    keep, scores = random_keep(heads, 0.3)
    reduced = carried_out(CaM(following=7, most=99.0), heads, keep, scores)
    torch.testing.assert_close((reduced.values * keep[..., None]).sum(1), heads.values.sum(1), rtol=1e-4, atol=1e-4)
    heads.state["mass"][~keep] = 0
    assert torch.equal(carried_out(CaM(), heads, keep, scores).values, heads.values)


def test_cams_draws_are_even_and_its_own():
    heads = random_heads((4, 3000, 2))
    draws = _draws(heads, 3)
    assert 0 <= draws.min() < draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.01
    counts = torch.histc(draws, 10, 0, 1)
    assert ((counts - 1200).abs() < 150).all()
    assert torch.equal(draws, _draws(heads, 3))
    others = [_draws(heads, 4), _draws(random_heads((4, 3000, 2), layer=1), 3), draws.roll(1, 0), draws.roll(1, 1)]
    for other in others:
        assert torch.corrcoef(torch.stack((draws.flatten(), other.flatten())))[0, 1].abs() < 0.04


def test_cam_merges_as_often_as_attention_says():
    heads = random_heads((1, 4001, 2), recent=1)
    heads.state["seen"] = torch.ones_like(heads.state["mass"])
    heads.state["mass"] = torch.full_like(heads.state["mass"], 0.25)
    heads.state["mass"][:, -1] = 1.0
    heads.values[:] = 1.0
    merged = carried_out(CaM(most=5000.0), heads, heads.protected, heads.state["mass"]).values[0, -1, 0] - 1
    assert abs(merged / 4000 - 0.25) < 0.03


def test_d2os_threshold_moves_with_the_text():
    """An average of the means so far, where a row that met nothing keeps its own."""
    heads = random_heads((2, 40, 8))
    keep, scores = random_keep(heads, 0.4)
    keep[1] = True
    D2O(beta=0.3).reduce(heads, keep, scores)
    first = heads.state[THRESHOLD]
    mean = nearest(heads.keys, ~keep, keep)[0][0][~keep[0]].mean()
    assert torch.equal(first, first[:, :1].expand_as(first))
    torch.testing.assert_close(first[0, 0], mean)
    assert first[1, 0] == 0

    later = random_heads((2, 40, 8), seed=1)
    later.state[THRESHOLD] = torch.cat((first[:, :10], torch.zeros(2, 30)), 1)
    keep = random_keep(later, 0.4, seed=1)[0]
    D2O(beta=0.3).reduce(later, keep, scores)
    means = [nearest(later.keys, ~keep, keep)[0][head][~keep[head]].mean() for head in range(2)]
    torch.testing.assert_close(later.state[THRESHOLD][:, 7], torch.stack((0.3 * means[0] + 0.7 * mean, means[1])))


def test_d2o_drops_what_resembles_nothing_kept():
    heads = random_heads((1, 4, 3))
    heads.keys[0] = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.9, 0.1, 0], [0, 0.2, 0.9]])
    keep = torch.tensor([[True, True, False, False]])
    reduced = carried_out(D2O(), heads, keep, torch.zeros(1, 4))
    assert not torch.equal(reduced.values[0, 0], heads.values[0, 0])
    assert torch.equal(reduced.values[0, 1], heads.values[0, 1])


def test_kvmerger_leaves_protected_entries_as_they_are():
    heads = random_heads((2, 60, 8), alike=6, sinks=7, recent=13)
    keep, scores = random_keep(heads, 0.2)
    reduced = carried_out(KVMerger(threshold=0.3, log_count=True), heads, keep, scores)
    assert torch.equal(reduced.keys[heads.protected], heads.keys[heads.protected])
    assert torch.equal(reduced.values[heads.protected], heads.values[heads.protected])
    assert not reduced.bias[heads.protected].any()
    assert not torch.equal(reduced.values, heads.values)


def test_kvmergers_counts_add_up():
    """Every entry that is not dropped is counted at one place, through two cuts."""
    heads = random_heads((1, 60, 8), alike=60)
    keep, scores = random_keep(heads, 0.5)
    first = carried_out(KVMerger(threshold=0.1, log_count=True), heads, keep, scores)
    torch.testing.assert_close(first.bias[keep].exp().sum().item(), 60.0)

    left = keep[0]
    again = Heads(
        heads.model,
        *(x[:, left] for x in (first.keys, first.values, heads.positions, heads.positions, heads.protected)),
        new=0,
        state={"bias": first.bias[:, left]},
    )
    keep, scores = random_keep(again, 0.4, seed=1)
    second = carried_out(KVMerger(threshold=0.1, log_count=True), again, keep, scores)
    torch.testing.assert_close(second.bias[keep].exp().sum().item(), 60.0)


def test_kvmerger_finds_a_place_for_a_run_without_one():
    """A dropped run whose twin is kept further on joins it; one without likeness leaves no trace."""
    heads = random_heads((1, 7, 4))
    x, y, z = torch.eye(4)[:3]
    heads.keys[0] = torch.stack((x, x, z, y, y, x, x)) + 0.01 * torch.randn(
        7, 4, generator=torch.Generator().manual_seed(0)
    )
    keep = torch.tensor([[False, False, True, False, False, True, False]])
    reduced = carried_out(KVMerger(log_count=True), heads, keep, torch.rand(1, 7))
    torch.testing.assert_close(reduced.bias[0, 5].exp(), torch.tensor(4.0))
    assert torch.equal(reduced.values[0, 2], heads.values[0, 2])
    assert reduced.bias[0, 2] == 0


def test_the_most_similar_is_found_in_strips(monkeypatch):
    heads = random_heads((3, 101, 8))
    asking, among = (random_keep(heads, share, seed=seed)[0] for share, seed in ((0.5, 1), (0.3, 2)))
    expected = nearest(heads.keys, asking, among)
    monkeypatch.setattr(nearest_module, "_STRIP", 1)
    for got, whole in zip(nearest(heads.keys, asking, among), expected, strict=True):
        torch.testing.assert_close(got, whole)
    assert (expected[0][~asking] == -torch.inf).all()
    assert among.gather(1, expected[1])[asking].all()


def test_what_fills_up_a_shorter_row_is_not_found():
    """The second head keeps one entry, and those asking are all nearer to each other than to that one."""
    keys = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    keys[1] = 1 + 0.1 * keys[1]
    keys[1, 0] = -1
    keep = torch.tensor([[True] * 4 + [False] * 2, [True] + [False] * 5])
    cosines, target = nearest(keys, ~keep, keep)
    assert (target[1] == 0).all()
    assert (cosines[1, 1:] < -0.9).all()


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: D2O(beta=1.5), "1.5"),
        (lambda: CaM(following=0), "0 following"),
        (lambda: CaM(seed=-1), "-1"),
        (lambda: CaM(most=0.0), "most is 0"),
        (lambda: KVMerger(threshold=2), "threshold is 2"),
        (lambda: AttentionMatching(window=0), "window is 0"),
        (lambda: AttentionMatching(ridge=0.0), "ridge is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(made, says):
    with pytest.raises(InvalidRequestError, match=says):
        made()


def test_every_reducer_of_the_registry_is_here():
    assert {part_class(name) for name in REDUCERS} == {type(reducer) for reducer in ALL}
