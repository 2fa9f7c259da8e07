"""The kernels of compression against their float64 references, interpreted, over poisoned caches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lcdoc.local_engine.kernels import compression_reference, reference
from lcdoc.tests.local_engine.kernel_caches import Cache, make_cache
from lcdoc.tests.local_engine.kernel_process import TYPES, WAYS, assert_close, outcomes, poisoned, report


def rows_of(lengths: list[int], page_size: int, head_dim: int, kind: str) -> tuple[Cache, Tensor, Tensor]:
    """A cache of one sequence, the table of its rows and their lengths."""
    count = torch.tensor([lengths], dtype=torch.int32)
    cache = make_cache(count, page_size, head_dim, TYPES[kind])
    return cache, cache.table[cache.slots[0]], count[0]


def ascending(counts: list[int], total: list[int], width: int) -> Tensor:
    """For each row, which of its entries are kept, ascending; -1 behind."""
    kept = torch.full((len(counts), width), -1)
    for head, (count, length) in enumerate(zip(counts, total, strict=True)):
        kept[head, :count] = torch.randperm(length)[:count].sort().values
    return kept


def check_window(  # noqa: PLR0917
    lengths: list[int],
    groups: int,
    window: int,
    head_dim: int,
    page_size: int,
    kind: str,
    over: tuple[str, str] = ("sum", "mean"),
    reach: int | None = None,
    bias: bool = False,
    beside: bool = False,
) -> None:
    from lcdoc.local_engine.kernels.triton_window_scores import window_lse, window_scores

    dtype = TYPES[kind]
    cache, table, count = rows_of(lengths, page_size, head_dim, kind)
    heads, width, last = len(lengths), max(lengths) + 3, 2 * max(lengths)
    # Of a text twice as long, every row has kept entries of its own.
    positions = ascending(lengths, [last] * heads, width).masked_fill(torch.arange(width) >= count[:, None], -7)
    query_positions = torch.arange(last - window, last) - 1
    q = torch.randn(heads, groups, window + 1, head_dim + 8).to(dtype)[:, :, 1:, :-8]
    added = torch.randn(heads, width + 2)[:, :width] if bias else None
    seen = (table, count, positions, query_positions, head_dim**-0.5)
    wide = (q.double(), cache.keys.double(), *seen)
    exact = compression_reference.window_lse(*wide, reach, added)
    lse = window_lse(q, cache.keys, *seen, reach, added)
    assert_close(lse, exact, torch.float32, "log-sum-exp")
    if beside:
        others = torch.randn(lse.shape)
        exact, lse = torch.logaddexp(exact, others.double()), torch.logaddexp(lse, others)
    wanted = compression_reference.window_scores(*wide, exact, *over, added)
    out = poisoned(heads, width)
    result = window_scores(q, cache.keys, *seen, lse, *over, added, out=out)
    assert result is out
    # Float32 throughout: what is rounded to the type is its input alone.
    assert_close(result, wanted, torch.float32, "scores")
    if over == ("sum", "mean") and not beside and reach is None and min(lengths) > 0:
        seen_any = (positions[:, :, None] <= query_positions).masked_fill((positions < 0)[:, :, None], False).any(1)
        assert_close(result.nan_to_num(neginf=0.0).sum(1), seen_any.sum(1), torch.float32, "sum of all weights")


def check_mass(  # noqa: PLR0917
    tokens: int,
    past: list[int],
    groups: int,
    head_dim: int,
    page_size: int,
    kind: str,
    window: int | None = None,
    bias: bool = False,
) -> None:
    from lcdoc.local_engine.kernels.triton_attention_mass import add_attention_mass

    dtype, heads = TYPES[kind], len(past)
    cache, table, count = rows_of([length + tokens for length in past], page_size, head_dim, kind)
    before = count - tokens
    q = torch.randn(tokens, heads * groups + 2, head_dim).to(dtype)[:, 1:-1]
    keys, values, biases = cache.wide()
    options = (head_dim**-0.5, window)
    _, lse = reference.paged_prefill(
        q.double(), keys, values, table[None], torch.zeros(1, dtype=torch.int64), torch.tensor([0, tokens]),
        before[None], *options, biases if bias else None,
    )  # fmt: skip
    mass = torch.rand(heads, max(past) + tokens + 2)
    wanted = compression_reference.add_attention_mass(
        mass.double(), q.double(), lse, keys, table, before, *options, biases if bias else None
    )
    assert_close(wanted.sum(1) - mass.double().sum(1), torch.full((heads,), tokens), torch.float32, "all")
    result = add_attention_mass(mass, q, lse.float(), cache.keys, table, before, *options, cache.bias if bias else None)
    assert result is mass
    assert_close(result, wanted, torch.float32, "mass")


def check_compact(  # noqa: PLR0917
    lengths: list[int],
    counts: list[int],
    head_dim: int,
    page_size: int,
    kind: str,
    rotary: int | None = None,
    merge: str = "",
    pages: str = "own",
    bias: bool = False,
) -> None:
    """pages: what rows move to: their own, others, or another first one and their own behind it.

    merge: "values", or "both" for keys too.
    """
    from lcdoc.local_engine.kernels.triton_compact import compact

    dtype, heads = TYPES[kind], len(lengths)
    cache, table, _ = rows_of(lengths, page_size, head_dim, kind)
    kept, numbers = ascending(counts, lengths, max(counts) + 2), torch.tensor(counts, dtype=torch.int32)
    stores = [
        torch.cat([store, poisoned(64, *store.shape[1:], dtype=store.dtype)])
        for store in (cache.keys, cache.values, cache.bias)
    ]
    others = torch.arange(heads * table.shape[1], dtype=torch.int32).view(heads, -1) + len(cache.keys)
    target = {"own": None, "others": others, "first": torch.cat([others[:, :1], table[:, 1:]], 1)}[pages]
    shift = frequencies = destination = weights = None
    if rotary is not None:
        # Positions of a long text, where float32 angles would be wrong by more than the tolerance.
        shift = torch.randint(-1_000_000, 1, kept.shape, dtype=torch.int32)
        shift[:, :1] = 0
        frequencies = 1 / 10_000 ** (torch.arange(0, rotary, 2) / rotary)
    if merge:
        width = max(lengths) + 1
        destination, weights = torch.full((heads, width), -1), torch.rand(heads, width)
        for head, (length, chosen) in enumerate(zip(lengths, counts, strict=True)):
            if chosen:
                destination[head, :length] = torch.randint(-1, min(chosen, 3), (length,))
            destination[head, kept[head, :chosen]] = torch.arange(chosen)
    rest = (target, shift, frequencies, destination, weights, merge == "both")
    wide = [store.double() for store in stores]
    compression_reference.compact(*wide[:2], table, kept, numbers, *rest, wide[2] if bias else None)
    compact(*stores[:2], table, kept, numbers, *rest, stores[2] if bias else None)
    new = table if target is None else target
    places = [
        reached
        for head, chosen in enumerate(counts)
        for reached in compression_reference._places(new[head], torch.arange(chosen), page_size).tolist()
    ]
    stores, wide = stores[: 2 + bias], wide[: 2 + bias]
    for what, mine, theirs in zip(("keys", "values", "bias"), stores, wide, strict=False):
        # Sums of a few entries are larger than one, and rounded once more before they are turned.
        scale = 4.0 if merge else 1.0
        assert_close(mine.flatten(0, 1)[places] / scale, theirs.flatten(0, 1)[places] / scale, dtype, what)
    if not merge:
        behind = torch.ones(stores[0].shape[0] * page_size, dtype=torch.bool)
        behind[places] = False
        for mine, theirs in zip(stores, wide, strict=True):
            left = theirs.flatten(0, 1)[behind].to(mine.dtype)
            assert torch.equal(mine.flatten(0, 1)[behind].nan_to_num(9.0), left.nan_to_num(9.0)), "other places changed"


def check_listing(keep: list[list[int]], most: int) -> None:
    from lcdoc.local_engine.kernels.triton_compact import list_kept

    mask = torch.tensor(keep, dtype=torch.bool)
    kept, counts = list_kept(mask, most)
    assert kept.shape == (len(keep), most) and counts.tolist() == mask.sum(1).tolist()
    for row, chosen, count in zip(mask, kept, counts, strict=True):
        assert chosen[:count].tolist() == row.nonzero().squeeze(1).tolist()


def check_similarity(lengths: list[int], head_dim: int, page_size: int, kind: str) -> None:
    from lcdoc.local_engine.kernels.triton_adjacent import adjacent_similarity

    cache, table, count = rows_of(lengths, page_size, head_dim, kind)
    if lengths[0] > 2:
        cache.keys[table[0, 0], 1] = 0.0
    out = poisoned(len(lengths), max(lengths) + 2)
    wanted = compression_reference.adjacent_similarity(cache.keys.double(), table, count, out.shape[1])
    assert adjacent_similarity(cache.keys, table, count, out.shape[1], out=out) is out
    assert_close(out, wanted, torch.float32, "cosines")


def check_load(count: int, head_dim: int, page_size: int, kind: str, coded: bool) -> None:
    from lcdoc.local_engine.kernels.triton_load_pages import load_pages

    dtype, pages = TYPES[kind], count // page_size + 3
    where = torch.randperm(pages * page_size)[:count]
    scales: list[Tensor | None] = [None, None]
    if coded:
        sources = [torch.randint(-127, 128, (count, head_dim), dtype=torch.int8) for _ in range(2)]
        scales = [(torch.rand(count) / 64).half() for _ in range(2)]
    else:
        sources = [torch.randn(count, head_dim + 8).to(dtype)[:, 8:] for _ in range(2)]
    stores = [poisoned(pages, page_size, head_dim, dtype=dtype) for _ in range(2)]
    wide = [store.double() for store in stores]
    compression_reference.load_pages(*sources, *wide, where, *scales)
    load_pages(*sources, *stores, where, *scales)
    for mine, theirs in zip(stores, wide, strict=True):
        written = ~theirs.isnan()
        assert torch.equal(~mine.isnan(), written), "other places were written than asked"
        assert written.any(-1).sum() == count
        assert_close(mine[written], theirs[written], dtype, "entries")


def check_refused(problem: str) -> None:
    from lcdoc.local_engine.errors import EngineError
    from lcdoc.local_engine.kernels.triton_attention_mass import add_attention_mass
    from lcdoc.local_engine.kernels.triton_compact import compact
    from lcdoc.local_engine.kernels.triton_load_pages import load_pages
    from lcdoc.local_engine.kernels.triton_window_scores import window_lse, window_scores

    cache, table, count = rows_of([4, 2], 16, 16, "float32")
    keys, values = cache.keys, cache.values
    q, kept = torch.randn(2, 1, 3, 16), torch.zeros(2, 2, dtype=torch.int64)
    codes = torch.zeros(4, 16, dtype=torch.int8)
    seen = (keys, table, count, kept, kept[0, :0], 1.0)
    calls: dict[str, Any] = {
        "at least one query": lambda: window_lse(q[:, :, :0], *seen),
        "each needs one": lambda: window_scores(q, *seen, torch.ones(2, 1, 2)),
        "one number a query": lambda: add_attention_mass(
            torch.zeros(2, 4), q[0].transpose(0, 1).repeat(1, 2, 1), torch.zeros(3, 1), keys, table, count, 1.0
        ),
        "pass both or neither": lambda: compact(keys, values, table, kept, count, shift=kept),
        "to be turned": lambda: compact(keys, values, table, kept, count, shift=kept, frequencies=torch.ones(9)),
        "int8 needs them": lambda: load_pages(codes, codes, keys, values, kept[0]),
        "do not fit head_dim": lambda: load_pages(codes[..., :8], codes[..., :8], keys, values, kept[0]),
    }
    with pytest.raises(EngineError, match=problem):
        calls[problem]()


CASES: dict[str, Any] = {
    f"window {lengths} G{groups} w{window} D{head_dim} page {page_size} {kind} {options}": (
        check_window,
        {
            "lengths": lengths, "groups": groups, "window": window, "head_dim": head_dim, "page_size": page_size,
            "kind": kind,
        } | options,
    )
    for lengths, groups, window, head_dim, page_size, kind, options in [
        ([1], 1, 1, 64, 16, "float32", {}),
        ([0, 5, 17], 3, 4, 80, 16, "float32", {"over": ("max", "mean")}),
        ([15, 16, 33], 7, 5, 64, 16, "bfloat16", {"bias": True}),
        ([130, 64], 2, 33, 64, 32, "float32", {"beside": True}),
        ([66, 3, 0], 2, 70, 16, 1, "bfloat16", {"over": ("sum", "max"), "reach": 20}),
        ([200], 4, 8, 128, 64, "bfloat16", {"over": ("max", "max"), "bias": True, "beside": True}),
    ]
}  # fmt: skip
CASES |= {
    f"mass {tokens} after {past} G{groups} D{head_dim} page {page_size} {kind} {options}": (
        check_mass,
        {
            "tokens": tokens, "past": past, "groups": groups, "head_dim": head_dim, "page_size": page_size,
            "kind": kind,
        } | options,
    )
    for tokens, past, groups, head_dim, page_size, kind, options in [
        (1, [0], 1, 64, 16, "float32", {}),
        (5, [0, 13, 40], 3, 80, 16, "float32", {"bias": True}),
        (33, [31, 0], 7, 64, 32, "bfloat16", {}),
        (40, [70, 1], 2, 128, 16, "bfloat16", {"window": 9}),
    ]
}  # fmt: skip
CASES |= {
    f"compact {lengths} to {counts} D{head_dim} page {page_size} {kind} {options}": (
        check_compact,
        {"lengths": lengths, "counts": counts, "head_dim": head_dim, "page_size": page_size, "kind": kind} | options,
    )
    for lengths, counts, head_dim, page_size, kind, options in [
        ([1], [1], 64, 16, "float32", {}),
        ([40, 0, 3, 17], [30, 0, 1, 0], 64, 16, "bfloat16", {"bias": True}),
        ([33, 16], [20, 16], 80, 16, "float32", {"rotary": 32}),
        ([600, 5], [560, 4], 16, 32, "float32", {"rotary": 16}),
        ([50, 20], [33, 15], 128, 16, "bfloat16", {"rotary": 128, "pages": "first"}),
        ([50, 2], [40, 1], 80, 16, "float32", {"pages": "first", "bias": True}),
        ([300, 1, 0], [290, 1, 0], 64, 64, "float32", {"rotary": 64, "pages": "others", "bias": True}),
        ([200, 20, 0], [5, 9, 0], 64, 16, "float32", {"merge": "both", "rotary": 40}),
        ([90, 1], [30, 1], 80, 16, "float32", {"merge": "values"}),
        ([70, 30], [20, 1], 64, 32, "bfloat16", {"merge": "both", "pages": "others", "rotary": 64}),
    ]
}
CASES |= {
    f"listing {keep} in {most}": (check_listing, {"keep": keep, "most": most})
    for keep, most in [([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]], 3), ([[1]], 2), ([[0, 0]], 0)]
}
CASES |= {
    f"similarity {lengths} D{head_dim} page {page_size} {kind}": (
        check_similarity,
        {"lengths": lengths, "head_dim": head_dim, "page_size": page_size, "kind": kind},
    )
    for lengths, head_dim, page_size, kind in [
        ([1, 0, 2], 64, 16, "float32"),
        ([70, 33, 16], 80, 16, "float32"),
        ([35, 130], 128, 32, "bfloat16"),
    ]
}
CASES |= {
    f"load {count} D{head_dim} page {page_size} {kind} coded={coded}": (
        check_load,
        {"count": count, "head_dim": head_dim, "page_size": page_size, "kind": kind, "coded": coded},
    )
    for count, head_dim, page_size, kind, coded in [
        (1, 64, 16, "float32", False),
        (119, 80, 16, "bfloat16", False),
        (105, 128, 32, "bfloat16", True),
        (17, 64, 16, "float32", True),
        (0, 64, 16, "float32", False),
    ]
}
CASES |= {
    f"refuses: {problem}": (check_refused, {"problem": problem})
    for problem in (
        "at least one query", "each needs one", "one number a query", "pass both or neither", "to be turned",
        "int8 needs them", "do not fit head_dim",
    )
}  # fmt: skip


@pytest.fixture(scope="module", params=WAYS)
def results(request: pytest.FixtureRequest) -> dict[str, str | None]:
    return outcomes(__file__, CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_equals_reference(results: dict[str, str | None], name: str) -> None:
    assert results[name] is None, results[name]


if __name__ == "__main__":
    torch.manual_seed(24)
    report(CASES)
