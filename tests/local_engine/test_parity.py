"""The decoder against transformers, float32, random weights: the same logits, the same greedy continuations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lcdoc.local_engine.batch import Piece
from lcdoc.tests.local_engine.checkpoints import FAMILIES, reference_model, rope
from lcdoc.tests.local_engine.decoding import Bench, random_tokens

Make = Callable[..., Path]

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "one head for all": ("llama", {"num_key_value_heads": 1}),
    "a key head for each": ("llama", {"num_key_value_heads": 4}),
    "seven queries a key": ("qwen2", {"num_attention_heads": 14, "num_key_value_heads": 2, "head_dim": 16}),
    "heads wider than hidden": ("mistral", {"head_dim": 40}),
    "odd head": ("llama", {"head_dim": 24}),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "untied": ("qwen2", {"tie_word_embeddings": False}),
    "all biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "window": ("mistral", {"sliding_window": 24}),
    "window in some layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1},
    ),
    **{
        f"rope {kind}": ("llama", {"rope_parameters": rope(kind)})
        for kind in ("linear", "dynamic", "llama3", "yarn", "longrope")
    },
    "dynamic beyond its window": (
        "llama",
        {"rope_parameters": rope("dynamic"), "max_position_embeddings": 64},
    ),
}


@pytest.fixture(params=SHAPES, ids=[name.replace(" ", "-") for name in SHAPES])
def folder(request: pytest.FixtureRequest, checkpoint: Make) -> Path:
    family, overrides = SHAPES[request.param]
    return checkpoint(family, **overrides)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_logits_equal_transformers(folder: Path) -> None:
    tokens = random_tokens(100)
    with torch.inference_mode():
        theirs = reference_model(folder)(torch.tensor([tokens])).logits[0]
    assert relative(Bench(folder).read(tokens), theirs) < 1e-4


def test_greedy_continuations_equal_transformers(folder: Path) -> None:
    tokens = random_tokens(70, seed=1)
    model = reference_model(folder)
    with torch.inference_mode():
        theirs = model.generate(
            torch.tensor([tokens]), max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
        )[0, len(tokens) :].tolist()
    assert Bench(folder).continue_greedily(tokens, 64) == theirs


@pytest.mark.parametrize("chunks", [[1] * 60, [7] * 8 + [4], [16, 16, 28], [59, 1], [1, 59]])
def test_any_chunking_equals_one_piece(folder: Path, chunks: list[int]) -> None:
    tokens = random_tokens(60, seed=2)
    bench = Bench(folder)
    assert relative(bench.read(tokens, chunks), bench.read(tokens)) < 1e-5


def test_a_batch_equals_each_alone(folder: Path) -> None:
    bench = Bench(folder)
    texts = [random_tokens(count, seed=count) for count in (41, 1, 17, 64)]
    alone = [bench.read(text) for text in texts]
    # One after the other by a few tokens, all at once, so that pieces of every size meet in one pass.
    slots = [bench.tables.open() for _ in texts]
    read = [0] * len(texts)
    together: list[list[torch.Tensor]] = [[] for _ in texts]
    for sizes in ([40, 1, 9, 3], [1, 0, 7, 30], [0, 0, 1, 31]):
        pieces, which = [], []
        for number, (text, size) in enumerate(zip(texts, sizes, strict=True)):
            if size:
                part = text[read[number] : read[number] + size]
                pieces.append(Piece(slots[number], part, read[number], len(text), size))
                read[number] += size
                which.append(number)
        logits = bench.run(*pieces).split([len(piece.tokens) for piece in pieces])
        for number, part_logits in zip(which, logits, strict=True):
            together[number].append(part_logits)
    for number in range(len(texts)):
        assert relative(torch.cat(together[number]), alone[number]) < 1e-5


def test_rows_of_a_cache_may_be_ragged(checkpoint: Make) -> None:
    """Heads that kept different entries attend to their own."""
    bench = Bench(checkpoint("qwen2"))
    tokens = random_tokens(50, seed=3)
    slot = bench.tables.open()
    bench.read(tokens, slot=slot)
    config = bench.config
    keep = torch.rand(config.layers, config.kv_heads, 50, generator=torch.Generator().manual_seed(1)) < 0.6
    pool = bench.tables.pool
    table, rows = bench.tables.table, {}
    for layer in range(config.layers):
        for head in range(config.kv_heads):
            pages = torch.from_numpy(table[slot, layer, head, : -(-50 // pool.page_size)].astype("int64"))
            kept = keep[layer, head].nonzero().flatten()
            rows[layer, head] = tuple(part[pages].flatten(0, 1)[kept] for part in (pool.keys, pool.values))
    bench.tables.compact(slot, keep)

    # The oracle: softmax over exactly the kept entries of each head, and the new one.
    operations = bench.decoder.operations
    batch = bench.batch(Piece(slot, [9], 50, 51, 1))
    generator = torch.Generator().manual_seed(2)
    width = (config.heads + 2 * config.kv_heads) * config.head_dim
    for layer in range(config.layers):
        qkv = torch.randn(1, width, generator=generator)
        ours = operations.attend(layer, qkv, None, None, batch).view(config.heads, config.head_dim)
        q, k, v = qkv.view(-1, config.head_dim).split([config.heads, config.kv_heads, config.kv_heads])
        for head in range(config.heads):
            row = head // config.groups
            keys, values = (
                torch.cat((old, new[row : row + 1])) for old, new in zip(rows[layer, row], (k, v), strict=True)
            )
            weights = torch.softmax(keys.double() @ q[head].double() * config.head_dim**-0.5, dim=0)
            assert torch.allclose(ours[head].double(), weights @ values.double(), atol=1e-5)


def test_bfloat16_stays_near_float32(checkpoint: Make) -> None:
    folder = checkpoint("qwen2")
    tokens = random_tokens(80, seed=4)
    exact, rounded = Bench(folder).read(tokens), Bench(folder, torch.bfloat16).read(tokens).float()
    with torch.inference_mode():
        theirs = reference_model(folder, torch.bfloat16)(torch.tensor([tokens])).logits[0].float()
    # As near as transformers' own bfloat16 is, within a factor.
    assert relative(rounded, exact) < 1.5 * relative(theirs, exact) + 1e-3
