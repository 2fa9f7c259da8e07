"""How much of the GPU the kernels use: decoding against the memory's bandwidth, prefill and small kernels beside
PyTorch's.

    python benchmarks/kernels.py [--only decode prefill small linear compression] [--rounds 30]

- Copy: the bandwidth of copying 1 GiB on the device, bytes read and written, which stands for what the memory gives.
- Decode: one token a sequence over bfloat16 pages of 16 tokens in random order. Bytes are those of the keys and
values, each read once, over the time of both of its kernels; the L2 cache is emptied before every round. The budget
is 85 % of the copy's. - Prefill: a causal chunk, with and without a past, beside scaled_dot_product_attention on
contiguous tensors of the same values, by its flash and cuDNN backends. Floating-point operations are those of the
visible pairs, 4 a pair and dimension. The budget is 70 % of the faster backend. - Small: norm, activation, rotation
and cache write beside the same in PyTorch's operators. - Linear: 8-bit and 4-bit weights beside a bfloat16 matrix
product. - Compression: the kernels that cut a cache, beside the copy's bandwidth. Bytes are those of the keys and
values that must be read and written, once each, whatever is read again. Attention mass, bound by arithmetic, is shown
in operations, 2 a visible pair and dimension; its gap is by how much the weights of all queries miss one each.

Times are medians over rounds of a captured CUDA graph, so that Python's share is left out, for us and for the peers.
Sizes that do not fit the GPU's free memory are shown as such. Without a GPU the script says so and ends with 2.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from lcdoc.local_engine.kernels import reference

_DTYPE = torch.bfloat16
_PAGE_SIZE = 16
# Query and KV heads of the shapes measured, by head_dim: Qwen2 0.5B and Llama 3 8B.
_HEADS = {64: (14, 2), 128: (32, 8)}
_EMPTYING_BYTES = 256 << 20
_PARTS = ("decode", "prefill", "small", "linear", "compression")


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds of a function on the GPU."""

    device: torch.device
    rounds: int

    def __call__(self, function: Callable[[], object], *, cold: bool = False, calls: int = 1) -> float:
        """Of one call: the median over rounds of a graph of `calls`; `cold`: the L2 cache is emptied before each."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                function()
        emptying = torch.empty(_EMPTYING_BYTES if cold else 0, dtype=torch.uint8, device=self.device)
        spans = []
        for _ in range(self.rounds):
            emptying.zero_()
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            spans.append((begin, end))
        torch.cuda.synchronize()
        return statistics.median(begin.elapsed_time(end) for begin, end in spans) / 1e3 / calls


@dataclass(frozen=True, slots=True)
class Cache:
    """Rows of equal length over pages in random order."""

    keys: Tensor
    values: Tensor
    table: Tensor
    slots: Tensor


def fits(device: torch.device, size: int) -> bool:
    return device.type != "cuda" or size < 0.8 * torch.cuda.mem_get_info(device)[0]


def make_cache(batch: int, heads: int, length: int, head_dim: int, device: torch.device) -> Cache:
    each = -(-length // _PAGE_SIZE)
    pages = batch * heads * each
    keys = torch.randn(pages, _PAGE_SIZE, head_dim, dtype=_DTYPE, device=device)
    table = torch.randperm(pages, device=device).int().view(batch, heads, each)
    return Cache(keys, torch.randn_like(keys), table, torch.arange(batch, device=device))


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    print(f"\n{title}")
    for row in [head, *rows]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def copy_bandwidth(clock: Clock, size: int = 1 << 30) -> float:
    """Bytes a second, reads and writes together."""
    source = torch.empty(size, dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    return 2 * size / clock(lambda: target.copy_(source))


def decode(clock: Clock, batches: Sequence[int], lengths: Sequence[int]) -> None:
    from lcdoc.local_engine.kernels.triton_decode import paged_decode

    copied = copy_bandwidth(clock)
    rows = []
    for head_dim, (query_heads, heads) in _HEADS.items():
        for batch in batches:
            for length in lengths:
                size = batch * heads * length * head_dim * 2 * _DTYPE.itemsize
                name = [str(head_dim), f"{query_heads}/{heads}", str(batch), str(length)]
                if not fits(clock.device, size + _EMPTYING_BYTES):
                    rows.append([*name, "does not fit", "", ""])
                    continue
                cache = make_cache(batch, heads, length, head_dim, clock.device)
                q = torch.randn(batch, query_heads, head_dim, dtype=_DTYPE, device=clock.device)
                seen = torch.full((batch, heads), length, dtype=torch.int32, device=clock.device)

                def run(cache: Cache = cache, q: Tensor = q, seen: Tensor = seen) -> object:
                    return paged_decode(
                        q, cache.keys, cache.values, cache.table, cache.slots, seen, q.shape[-1] ** -0.5
                    )

                took = clock(run, cold=True)
                rows.append([*name, f"{took * 1e6:.1f}", f"{size / took / 1e9:.0f}", f"{size / took / copied:.0%}"])
                del cache, run
    table(
        f"decode, of a copy's {copied / 1e9:.0f} GB/s (budget 85 %)",
        ("head_dim", "heads", "batch", "length", "us", "GB/s", "share"),
        rows,
    )


def prefill(clock: Clock, chunks: Sequence[tuple[int, int]]) -> None:
    from lcdoc.local_engine.kernels.triton_prefill import paged_prefill

    rows = []
    for head_dim, (query_heads, heads) in _HEADS.items():
        for tokens, past in chunks:
            length = past + tokens
            operations = 4 * head_dim * query_heads * (tokens * past + tokens * (tokens + 1) // 2)
            cache = make_cache(1, heads, length, head_dim, clock.device)
            q = torch.randn(tokens, query_heads, head_dim, dtype=_DTYPE, device=clock.device)
            before = torch.full((1, heads), past, dtype=torch.int32, device=clock.device)
            starts = torch.tensor([0, tokens], dtype=torch.int32, device=clock.device)
            # The same keys and values, side by side, for the peer.
            k, v = (
                pages[cache.table[0].long()].flatten(1, 2)[None, :, :length] for pages in (cache.keys, cache.values)
            )
            wide_q = q.transpose(0, 1)[None].contiguous()

            def run(
                cache: Cache = cache, q: Tensor = q, starts: Tensor = starts, before: Tensor = before
            ) -> tuple[Tensor, Tensor]:
                return paged_prefill(
                    q, cache.keys, cache.values, cache.table, cache.slots, starts, before, q.shape[-1] ** -0.5,
                    max_query=q.shape[0],
                )  # fmt: skip

            def peer(
                q: Tensor = wide_q, k: Tensor = k, v: Tensor = v, past: int = past, length: int = length
            ) -> Tensor:
                if past == 0:
                    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
                bias = causal_lower_right(q.shape[2], length)
                return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, enable_gqa=True)

            took = clock(run)
            peers = []
            for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
                try:
                    with sdpa_kernel(backend):
                        gap = (run()[0].transpose(0, 1)[None] - peer()).abs().max().item()
                        peers.append((clock(peer), gap))
                except RuntimeError:
                    # This backend does not serve the shape, or this GPU.
                    peers.append((float("inf"), float("nan")))
            fastest = min(seconds for seconds, _ in peers)
            rows.append(
                [
                    str(head_dim), f"{query_heads}/{heads}", str(tokens), str(past), f"{operations / took / 1e12:.1f}",
                    *(f"{operations / seconds / 1e12:.1f}" if seconds < float("inf") else "-" for seconds, _ in peers),
                    f"{fastest / took:.0%}" if fastest < float("inf") else "-",
                    f"{max((gap for _, gap in peers if not math.isnan(gap)), default=float('nan')):.1g}",
                ]
            )  # fmt: skip
    table(
        "prefill, TFLOPS (budget 70 % of the faster backend)",
        ("head_dim", "heads", "tokens", "past", "ours", "flash", "cuDNN", "share", "largest gap"),
        rows,
    )


def small(clock: Clock, token_counts: Sequence[int], hidden: int = 4096, inner: int = 14336) -> None:
    from lcdoc.local_engine.kernels.triton_norm import rms_norm, silu_mul
    from lcdoc.local_engine.kernels.triton_rotary import rotate_and_write

    head_dim = 128
    query_heads, heads = _HEADS[head_dim]
    rows = []
    for tokens in token_counts:
        x, stream = (torch.randn(tokens, hidden, dtype=_DTYPE, device=clock.device) for _ in range(2))
        weight = torch.randn(hidden, dtype=_DTYPE, device=clock.device)
        gated = torch.randn(tokens, 2 * inner, dtype=_DTYPE, device=clock.device)
        q, k, v = (
            torch.randn(tokens, count, head_dim, dtype=_DTYPE, device=clock.device)
            for count in (query_heads, heads, heads)
        )
        angles = torch.randn(tokens, head_dim // 2, device=clock.device)
        cos, sin = angles.cos(), angles.sin()
        pages = torch.zeros(tokens * heads // _PAGE_SIZE + 1, _PAGE_SIZE, head_dim, dtype=_DTYPE, device=clock.device)
        others = torch.zeros_like(pages)
        write = torch.arange(tokens * heads, device=clock.device).view(tokens, heads)

        def rotated_by_torch(  # noqa: PLR0917
            q: Tensor = q, k: Tensor = k, v: Tensor = v, cos: Tensor = cos, sin: Tensor = sin, write: Tensor = write,
            pages: Tensor = pages, others: Tensor = others,
        ) -> Tensor:  # fmt: skip
            half, both = q.shape[-1] // 2, torch.cat([cos, cos], -1)[:, None].to(q.dtype)
            signed = torch.cat([-sin, sin], -1)[:, None].to(q.dtype)
            place = write.flatten()
            pages.view(-1, k.shape[-1])[place] = (k * both + k.roll(half, -1) * signed).flatten(0, 1)
            others.view(-1, k.shape[-1])[place] = v.flatten(0, 1)
            return q * both + q.roll(half, -1) * signed

        pairs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
            (
                "rms_norm and residual",
                lambda x=x, weight=weight, stream=stream: rms_norm(x, weight, 1e-6, stream),
                lambda x=x, weight=weight, stream=stream: functional.rms_norm(x + stream, (x.shape[1],), weight, 1e-6),
            ),
            ("silu_mul", lambda gated=gated: silu_mul(gated), lambda gated=gated: reference.silu_mul(gated)),
            (
                "rotate_and_write",
                lambda q=q, k=k, v=v, cos=cos, sin=sin, write=write, pages=pages, others=others: rotate_and_write(
                    q, k, v, cos, sin, write, pages, others
                ),
                rotated_by_torch,
            ),
        ]
        for name, ours, theirs in pairs:
            took, other = clock(ours, calls=20), clock(theirs, calls=20)
            rows.append([name, str(tokens), f"{took * 1e6:.1f}", f"{other * 1e6:.1f}", f"{other / took:.1f}x"])
    table("small kernels", ("kernel", "tokens", "us", "PyTorch us", "speed"), rows)


def linear(clock: Clock, row_counts: Sequence[int], n: int = 4096, k: int = 4096, group: int = 64) -> None:
    from lcdoc.local_engine.kernels.triton_weights import int4_linear, int8_linear

    weight = torch.randn(n, k, dtype=_DTYPE, device=clock.device)
    codes = torch.randint(-127, 128, (n, k), dtype=torch.int8, device=clock.device)
    scale = torch.rand(n, device=clock.device)
    packed = torch.randint(0, 256, (n, k // 2), dtype=torch.uint8, device=clock.device)
    scales, zeros = (torch.rand(n, k // group, device=clock.device) for _ in range(2))
    rows = []
    for count in row_counts:
        x = torch.randn(count, k, dtype=_DTYPE, device=clock.device)
        times = [
            clock(function, cold=True)
            for function in (
                lambda x=x: functional.linear(x, weight),
                lambda x=x: int8_linear(x, codes, scale),
                lambda x=x: int4_linear(x, packed, scales, zeros),
            )
        ]
        rows.append(
            [
                str(count),
                *(f"{took * 1e6:.1f}" for took in times),
                f"{times[0] / times[1]:.2f}x",
                f"{times[0] / times[2]:.2f}x",
            ]
        )
    table(f"linear {k} to {n}, us", ("rows", "bfloat16", "int8", "int4", "int8 speed", "int4 speed"), rows)


@dataclass(frozen=True, slots=True)
class Cut:
    """A cache to be cut: rows of equal length, a quarter of which is kept."""

    cache: Cache
    lengths: Tensor
    kept: Tensor
    counts: Tensor
    queries: Tensor
    """[rows, G, w, D]"""

    @property
    def rows(self) -> Tensor:
        return self.cache.table.flatten(0, 1)


def make_cut(rows: int, groups: int, length: int, head_dim: int, device: torch.device) -> Cut:
    cache = make_cache(1, rows, length, head_dim, device)
    count = length // 4
    kept = torch.rand(rows, length, device=device).topk(count).indices.sort().values
    q = torch.randn(rows, groups, 32, head_dim, dtype=_DTYPE, device=device)
    whole = torch.full((rows,), length, dtype=torch.int32, device=device)
    return Cut(cache, whole, kept, torch.full_like(whole, count), q)


def cutting_kernels(cut: Cut) -> dict[str, tuple[Callable[[], object], int]]:
    """By name, kernels on the cut and the bytes of keys and values that each must move."""
    from lcdoc.local_engine.kernels.triton_adjacent import adjacent_similarity
    from lcdoc.local_engine.kernels.triton_compact import compact
    from lcdoc.local_engine.kernels.triton_load_pages import load_pages
    from lcdoc.local_engine.kernels.triton_window_scores import window_lse, window_scores

    keys, values, rows, lengths = cut.cache.keys, cut.cache.values, cut.rows, cut.lengths
    count, head_dim = rows.shape[0], keys.shape[-1]
    length = keys.shape[0] * _PAGE_SIZE // count
    device, scale = keys.device, head_dim**-0.5
    one_side = count * length * head_dim * _DTYPE.itemsize
    of_kept = count * cut.kept.shape[1] * head_dim * _DTYPE.itemsize
    positions = torch.arange(length, device=device).expand(count, -1).contiguous()
    window = positions[0, -cut.queries.shape[2] :].contiguous()
    shift = torch.arange(cut.kept.shape[1], device=device) - cut.kept
    frequencies = 1 / 10_000 ** (torch.arange(0, head_dim, 2, device=device) / head_dim)
    nearest = torch.searchsorted(cut.kept, positions.contiguous()).clamp(max=cut.kept.shape[1] - 1)
    weights = torch.full(positions.shape, 0.25, device=device)
    contiguous = torch.randn(count * length, head_dim, dtype=_DTYPE, device=device)
    codes = torch.randint(-127, 128, contiguous.shape, dtype=torch.int8, device=device)
    code_scale = torch.rand(count * length, device=device).half()
    others = torch.empty_like(keys), torch.empty_like(values)
    # The engine names single entries where it need not have whole rows.
    where = (rows.long()[..., None] * _PAGE_SIZE + torch.arange(_PAGE_SIZE, device=device)).flatten(1)[:, :length]
    entries, places = keys.view(-1, 1, head_dim), where.flatten()
    scoring = (cut.queries, entries, where.contiguous(), lengths, positions, window, scale)
    moving = (keys, values, rows, cut.kept, cut.counts)
    turning = (None, shift, frequencies)
    return {
        "window_lse, window_scores": (lambda: window_scores(*scoring, window_lse(*scoring)), 2 * one_side),
        "compact in place": (lambda: compact(*moving), 4 * of_kept),
        "compact, turned": (lambda: compact(*moving, *turning), 4 * of_kept),
        "compact, merged": (
            lambda: compact(*moving, *turning, nearest, weights), 2 * one_side + 6 * of_kept,
        ),
        "adjacent_similarity": (lambda: adjacent_similarity(entries, where, lengths, length), one_side),
        "load_pages": (lambda: load_pages(contiguous, contiguous, *others, places), 4 * one_side),
        "load_pages, int8": (lambda: load_pages(codes, codes, *others, places, code_scale, code_scale), 3 * one_side),
    }  # fmt: skip


def compression(clock: Clock, lengths: Sequence[int], layers: int = 24) -> None:
    """All layers' rows at once, as a cut moves them."""
    copied = copy_bandwidth(clock)
    rows = []
    for head_dim, (query_heads, heads) in _HEADS.items():
        groups = query_heads // heads
        for length in lengths:
            name = [str(head_dim), str(layers * heads), str(length)]
            size = layers * heads * length * head_dim * _DTYPE.itemsize
            if not fits(clock.device, 8 * size + _EMPTYING_BYTES):
                rows.append(["all", *name, "does not fit", "", ""])
                continue
            cut = make_cut(layers * heads, groups, length, head_dim, clock.device)
            for kernel, (run, moved) in cutting_kernels(cut).items():
                took = clock(run, cold=True)
                rows.append(
                    [kernel, *name, f"{took * 1e6:.1f}", f"{moved / took / 1e9:.0f}", f"{moved / took / copied:.0%}"]
                )
            del cut
    table(
        f"compression, of a copy's {copied / 1e9:.0f} GB/s",
        ("kernel", "head_dim", "rows", "length", "us", "GB/s", "share"),
        rows,
    )
    attention_mass(clock, ((2048, 0), (2048, 16384)))


def attention_mass(clock: Clock, chunks: Sequence[tuple[int, int]]) -> None:
    """Beside the prefill of the same chunk, whose log-sum-exps it takes."""
    from lcdoc.local_engine.kernels.triton_attention_mass import add_attention_mass
    from lcdoc.local_engine.kernels.triton_prefill import paged_prefill

    rows = []
    for head_dim, (query_heads, heads) in _HEADS.items():
        for tokens, past in chunks:
            cache = make_cache(1, heads, past + tokens, head_dim, clock.device)
            q = torch.randn(tokens, query_heads, head_dim, dtype=_DTYPE, device=clock.device)
            before = torch.full((1, heads), past, dtype=torch.int32, device=clock.device)
            starts = torch.tensor([0, tokens], dtype=torch.int32, device=clock.device)
            mass = torch.zeros(heads, past + tokens, device=clock.device)
            scale = head_dim**-0.5

            def read(
                cache: Cache = cache, q: Tensor = q, starts: Tensor = starts, before: Tensor = before,
                scale: float = scale,
            ) -> tuple[Tensor, Tensor]:  # fmt: skip
                return paged_prefill(
                    q, cache.keys, cache.values, cache.table, cache.slots, starts, before, scale, max_query=q.shape[0]
                )

            lse = read()[1]

            def run(  # noqa: PLR0917
                cache: Cache = cache, q: Tensor = q, lse: Tensor = lse, before: Tensor = before, mass: Tensor = mass,
                scale: float = scale,
            ) -> Tensor:  # fmt: skip
                return add_attention_mass(mass, q, lse, cache.keys, cache.table[0], before[0], scale)

            # Each query's weights are one in all: what is missing is the error.
            gap = abs(run().sum().item() / (tokens * heads) - 1)
            operations = 2 * head_dim * query_heads * (tokens * past + tokens * (tokens + 1) // 2)
            took, other = clock(run), clock(read)
            rows.append(
                [
                    str(head_dim), f"{query_heads}/{heads}", str(tokens), str(past), f"{took * 1e6:.1f}",
                    f"{operations / took / 1e12:.1f}", f"{took / other:.2f}", f"{gap:.1g}",
                ]
            )  # fmt: skip
    table(
        "attention mass",
        ("head_dim", "heads", "tokens", "past", "us", "TFLOPS", "of prefill's time", "gap"),
        rows,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=_PARTS)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        print("the kernels' benchmark needs an NVIDIA GPU that PyTorch sees, and triton", file=sys.stderr)
        return 2
    chosen = set(arguments.only or _PARTS)
    device = torch.device("cuda", torch.cuda.current_device())
    torch.manual_seed(0)
    clock = Clock(device, arguments.rounds)
    print(f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}")
    with torch.inference_mode():
        if "decode" in chosen:
            decode(clock, (1, 8, 32), (4096, 16384, 65536))
        if "prefill" in chosen:
            prefill(clock, ((512, 0), (2048, 0), (8192, 0), (512, 16384), (2048, 65536)))
        if "small" in chosen:
            small(clock, (1, 32, 4096))
        if "linear" in chosen:
            linear(clock, (1, 4, 16, 64, 512, 4096))
        if "compression" in chosen:
            compression(clock, (4096, 16384))
    return 0


if __name__ == "__main__":
    sys.exit(main())
